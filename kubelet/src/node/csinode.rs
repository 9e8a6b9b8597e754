//! The CSINode: its mere existence tells the scheduler that volume limits are
//! known; drivers add themselves later.

use k8s_openapi::api::storage::v1::{CSINode, CSINodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

/// Creates it if there is none. One that a Node of the same name left behind is
/// taken over, or it would be collected as that one's.
pub async fn ensure(client: kube::Client, name: &str, node_uid: &str) -> Result<(), kube::Error> {
    let api: Api<CSINode> = Api::all(client);
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.to_owned(),
        uid: node_uid.to_owned(),
        ..OwnerReference::default()
    };
    if let Some(known) = api.get_opt(name).await? {
        let owners = known.metadata.owner_references.unwrap_or_default();
        if owners.iter().any(|o| o.uid == node_uid) {
            return Ok(());
        }
        let patch = json!({"metadata": {"ownerReferences": [owner]}});
        let patched = api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            // Collected meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(|_| ()),
        }
    }
    let object = CSINode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec::default(),
        ..CSINode::default()
    };
    api.create(&PostParams::default(), &object)
        .await
        .map(|_| ())
}
