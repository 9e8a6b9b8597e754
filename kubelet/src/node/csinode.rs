//! The CSINode: its mere existence tells the scheduler that volume limits are
//! known; drivers add themselves later.

use k8s_openapi::api::storage::v1::{CSINode, CSINodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ObjectMeta, PostParams};

/// Creates it if there is none.
pub async fn ensure(client: kube::Client, name: &str, node_uid: &str) -> Result<(), kube::Error> {
    let api: Api<CSINode> = Api::all(client);
    if api.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let object = CSINode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.to_owned(),
                uid: node_uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec::default(),
        ..CSINode::default()
    };
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code != 409 => Err(kube::Error::Api(status)),
        Err(e @ kube::Error::Service(_)) => Err(e),
        _ => Ok(()),
    }
}
