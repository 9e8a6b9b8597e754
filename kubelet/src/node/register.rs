//! The Node object is made, or taken over.

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;

const CONTROLLER_ATTACH: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// What a Node is made with.
#[derive(Debug, Clone)]
pub struct Registration {
    pub name: String,
    pub architecture: String,
    /// The person's own.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub provider_id: Option<String>,
    pub controller_attach: bool,
}

impl Registration {
    /// Labels that the kubelet owns, and the person's.
    fn labels(&self) -> BTreeMap<String, String> {
        let arch = &self.architecture;
        let own = [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", arch),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", arch),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        own.into_iter().chain(self.labels.clone()).collect()
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        let attach = (CONTROLLER_ATTACH.to_owned(), "true".to_owned());
        self.controller_attach
            .then_some(attach)
            .into_iter()
            .collect()
    }

    fn node(&self, status: NodeStatus) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels()),
                annotations: Some(self.annotations()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                provider_id: self.provider_id.clone(),
                taints: Some(self.taints.clone()).filter(|t| !t.is_empty()),
                ..NodeSpec::default()
            }),
            status: Some(status),
        }
    }
}

/// Creates the Node, or adopts the one that is there: its labels and
/// annotations are completed, its taints are somebody else's by now. Also answers whether
/// it was created, and so has `status` already.
pub async fn register(
    api: &Api<Node>,
    registration: &Registration,
    status: NodeStatus,
) -> Result<(Node, bool), kube::Error> {
    let wanted = registration.node(status);
    let refused = match api.create(&PostParams::default(), &wanted).await {
        Ok(node) => return Ok((node, true)),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 409) => status,
        Err(e) => return Err(e),
    };
    let known = match api.get_opt(&registration.name).await? {
        Some(known) => known,
        None => return Err(kube::Error::Api(refused)),
    };
    let adopted = match adoption(&known, &wanted) {
        Some(patch) => {
            let name = &registration.name;
            api.patch(name, &PatchParams::default(), &Patch::Strategic(patch))
                .await?
        }
        None => known,
    };
    Ok((adopted, false))
}

/// What an existing Node lacks.
fn adoption(known: &Node, wanted: &Node) -> Option<serde_json::Value> {
    let missing = |known: &Option<BTreeMap<String, String>>,
                   wanted: &Option<BTreeMap<String, String>>| {
        let lacks = |(key, value): &(&String, &String)| {
            known.as_ref().and_then(|k| k.get(*key)) != Some(*value)
        };
        let wanted = wanted.iter().flatten().filter(lacks);
        wanted
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let labels = missing(&known.metadata.labels, &wanted.metadata.labels);
    let annotations = missing(&known.metadata.annotations, &wanted.metadata.annotations);
    let provider = |node: &Node| node.spec.as_ref().and_then(|s| s.provider_id.clone());
    let mut patch = json!({"metadata": {"labels": labels, "annotations": annotations}});
    let provider_id = provider(wanted).filter(|_| provider(known).is_none_or(|p| p.is_empty()));
    if let Some(id) = &provider_id {
        patch["spec"] = json!({ "providerID": id });
    }
    let nothing = labels.is_empty() && annotations.is_empty() && provider_id.is_none();
    (!nothing).then_some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration {
            name: "n1".into(),
            architecture: "amd64".into(),
            labels: BTreeMap::from([("team".into(), "a".into())]),
            taints: Vec::new(),
            provider_id: None,
            controller_attach: true,
        }
    }

    #[test]
    fn adoption_adds_what_is_missing_and_leaves_the_rest() {
        let wanted = registration().node(NodeStatus::default());
        assert_eq!(adoption(&wanted, &wanted), None);
        let mut known = wanted.clone();
        let labels = known.metadata.labels.as_mut().unwrap();
        labels.remove("team");
        labels.insert("theirs".into(), "x".into());
        let patch = adoption(&known, &wanted).unwrap();
        assert_eq!(patch["metadata"]["labels"], json!({"team": "a"}));
        assert_eq!(patch["metadata"]["annotations"], json!({}));
    }

    #[test]
    fn node_is_labelled_with_its_name_and_kind() {
        let labels = registration().labels();
        assert_eq!(labels["kubernetes.io/hostname"], "n1");
        assert_eq!(labels["beta.kubernetes.io/arch"], "amd64");
        assert_eq!(labels["team"], "a");
    }
}
