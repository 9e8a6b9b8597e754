//! The manifest of a static pod.
//! Rules: kubernetes v1.36 pkg/kubelet/config/common.go.

use super::api::{annotate, now};
use super::yaml::{self, YamlError};
use super::{CONFIG_HASH, Source, default_pod};
use crate::objects::{ObjectRef, references};
use k8s_openapi::api::core::v1::{Pod, Toleration};
use std::path::Path;

/// Why a file is no static pod.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ManifestError {
    #[error("not readable as text")]
    NotText,
    #[error("empty, or more than one document")]
    Documents,
    #[error(transparent)]
    Yaml(#[from] YamlError),
    #[error("is a {kind:?}, not a Pod of v1")]
    NotAPod { kind: String },
    #[error("has no {field}")]
    Missing { field: &'static str },
    /// Since 1.37: they would be read with the node's rights.
    #[error("a static pod can't refer to {what}")]
    Refers { what: String },
}

/// The pod of a manifest, made this node's own.
pub fn static_pod(content: &[u8], path: &Path, node_name: &str) -> Result<Pod, ManifestError> {
    let text = std::str::from_utf8(content).map_err(|_| ManifestError::NotText)?;
    let documents = yaml::documents(text);
    let [document] = documents.as_slice() else {
        return Err(ManifestError::Documents);
    };
    let head: Head = document.read()?;
    if (head.kind.as_str(), head.api_version.as_str()) != ("Pod", "v1") {
        return Err(ManifestError::NotAPod { kind: head.kind });
    }
    let mut pod: Pod = document.read()?;
    let name = pod.metadata.name.clone().filter(|n| !n.is_empty());
    let name = name.ok_or(ManifestError::Missing {
        field: "metadata.name",
    })?;
    refuse_references(&pod)?;
    default_pod(&mut pod);
    pod.metadata.name = Some(format!("{name}-{}", node_name.to_lowercase()));
    let spec = pod
        .spec
        .as_mut()
        .ok_or(ManifestError::Missing { field: "spec" })?;
    spec.node_name = Some(node_name.to_owned());
    // No taint ever evicts it: common.go `applyDefaults`.
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    identify(&mut pod, path);
    Ok(pod)
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

fn refuse_references(pod: &Pod) -> Result<(), ManifestError> {
    let refuse = |what: String| Err(ManifestError::Refers { what });
    match references(pod).into_iter().next() {
        Some(ObjectRef::ConfigMap { name, .. }) => return refuse(format!("ConfigMap {name:?}")),
        Some(ObjectRef::Secret { name, .. }) => return refuse(format!("Secret {name:?}")),
        Some(ObjectRef::TrustBundles) => return refuse("ClusterTrustBundles".to_owned()),
        None => {}
    }
    let Some(spec) = &pod.spec else {
        return Ok(());
    };
    if let Some(account) = spec.service_account_name.as_ref().filter(|a| !a.is_empty()) {
        return refuse(format!("ServiceAccount {account:?}"));
    }
    let claims = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| v.persistent_volume_claim.as_ref());
    match claims.into_iter().next() {
        Some(claim) => refuse(format!("PersistentVolumeClaim {:?}", claim.claim_name)),
        None => Ok(()),
    }
}

/// The UID is a hash of all that matters, so that a changed file is another pod.
fn identify(pod: &mut Pod, path: &Path) {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(path.as_os_str().as_encoded_bytes());
    // A pod that was read from text can always be written.
    hash.update(&serde_json::to_vec(&pod).unwrap_or_default());
    let digest = hash.finish();
    let hex: String = digest.as_ref()[..16]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let uid = pod.metadata.uid.get_or_insert_with(|| hex.clone()).clone();
    annotate(pod, Source::File, &now());
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_HASH.to_owned(), uid);
    // As common.go: a static pod has no status but this before it is looked at.
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Pending".to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: b}]}\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = static_pod(POD.as_bytes(), Path::new("/m/web.yaml"), "Node-1").unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let annotations = pod.metadata.annotations.unwrap();
        assert_eq!(annotations[crate::source::CONFIG_SOURCE], "file");
        assert_eq!(Some(&annotations[CONFIG_HASH]), pod.metadata.uid.as_ref());
        assert_eq!(pod.metadata.uid.unwrap().len(), 32);
        assert_eq!(pod.spec.unwrap().node_name.as_deref(), Some("Node-1"));
    }

    #[test]
    fn the_uid_depends_on_content_and_path_only() {
        let uid = |text: &str, path| {
            static_pod(text.as_bytes(), Path::new(path), "n")
                .unwrap()
                .metadata
                .uid
        };
        assert_eq!(uid(POD, "/m/a"), uid(POD, "/m/a"));
        assert_ne!(uid(POD, "/m/a"), uid(POD, "/m/b"));
        assert_ne!(
            uid(POD, "/m/a"),
            uid(&POD.replace("image: b", "image: c"), "/m/a")
        );
    }

    #[test]
    fn references_to_the_api_server_are_refused() {
        for what in [
            "serviceAccountName: x",
            "volumes: [{name: v, secret: {secretName: s}}]",
            "volumes: [{name: v, configMap: {name: s}}]",
            "volumes: [{name: v, persistentVolumeClaim: {claimName: s}}]",
        ] {
            let text = POD.replace("spec: {", &format!("spec: {{{what}, "));
            let refused = static_pod(text.as_bytes(), Path::new("/m/a"), "n");
            assert!(
                matches!(refused, Err(ManifestError::Refers { .. })),
                "{what}: {refused:?}"
            );
        }
    }

    #[test]
    fn other_kinds_and_nameless_pods_are_refused() {
        let refused = |text: &str| {
            static_pod(text.as_bytes(), Path::new("/m/a"), "n")
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(&POD.replace("kind: Pod", "kind: Job")),
            "is a \"Job\", not a Pod of v1"
        );
        assert_eq!(
            refused(&POD.replace("name: web", "labels: {}")),
            "has no metadata.name"
        );
        assert_eq!(refused(""), "empty, or more than one document");
    }
}
