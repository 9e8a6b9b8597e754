//! What is attached to the node, and what of it pods need: `volumesAttached` and
//! `volumesInUse` of the Node.
//!
//! A controller detaches what is not in use: so a volume is mounted only after the Node has said
//! that it is, and given up only after it was unmounted.

use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

/// Attached volume's name, kubernetes v1.37 pkg/volume/csi/csi_plugin.go `GetVolumeName` behind
/// the plugin's name.
pub(super) fn name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// Volume to the pods that need it.
pub(super) type InUse = BTreeMap<String, BTreeSet<String>>;

/// What the Node says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    attached: BTreeSet<String>,
    in_use: BTreeSet<String>,
}

/// Shared by the volumes and by the keeper of the Node.
#[derive(Debug)]
pub struct Attachments {
    in_use: watch::Sender<InUse>,
    said: watch::Sender<Said>,
}

impl Attachments {
    pub(super) fn new(in_use: InUse) -> Attachments {
        Attachments {
            in_use: watch::channel(in_use).0,
            said: watch::channel(Said::default()).0,
        }
    }

    /// Names for the Node's `volumesInUse`.
    pub fn in_use(&self) -> Vec<String> {
        self.in_use.borrow().keys().cloned().collect()
    }

    /// Hears of every change of [`Attachments::in_use`].
    pub fn changes(&self) -> watch::Receiver<BTreeMap<String, BTreeSet<String>>> {
        self.in_use.subscribe()
    }

    /// Takes note of the Node as the API server has it.
    pub fn see(&self, node: &Node) {
        let status = node.status.as_ref();
        let attached = status.and_then(|s| s.volumes_attached.as_ref());
        let in_use = status.and_then(|s| s.volumes_in_use.as_ref());
        let said = Said {
            attached: attached
                .into_iter()
                .flatten()
                .map(|v| v.name.clone())
                .collect(),
            in_use: in_use.into_iter().flatten().cloned().collect(),
        };
        self.said.send_if_modified(|before| {
            let news = *before != said;
            *before = said;
            news
        });
    }

    /// A pod needs it.
    pub(super) fn need(&self, name: &str, pod_uid: &str) {
        self.in_use.send_if_modified(|all| {
            let pods = all.entry(name.to_owned()).or_default();
            pods.insert(pod_uid.to_owned()) && pods.len() == 1
        });
    }

    /// A pod needs it no more, or it is nothing that is attached.
    pub(super) fn release(&self, name: Option<&str>, pod_uid: &str) {
        self.in_use.send_if_modified(|all| {
            let before = all.len();
            for (_, pods) in all.iter_mut().filter(|(n, _)| name.is_none_or(|w| w == *n)) {
                pods.remove(pod_uid);
            }
            all.retain(|_, pods| !pods.is_empty());
            all.len() != before
        });
    }

    /// It is attached, and the Node says that it is in use.
    pub(super) fn is_ready(&self, name: &str) -> bool {
        let said = self.said.borrow();
        said.attached.contains(name) && said.in_use.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_is_in_use_as_long_as_one_pod_needs_it() {
        let all = Attachments::new(InUse::new());
        let mut changes = all.changes();
        all.need("v", "a");
        all.need("v", "b");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        all.release(Some("v"), "a");
        assert_eq!(all.in_use(), ["v"]);
        assert!(!changes.has_changed().unwrap(), "the Node says the same");
        all.release(None, "b");
        assert!(all.in_use().is_empty() && changes.has_changed().unwrap());
    }

    #[test]
    fn it_is_ready_when_the_node_says_both() {
        let all = Attachments::new(InUse::new());
        let see = |attached: &[&str], in_use: &[&str]| {
            let attached = attached
                .iter()
                .map(|n| json!({"name": n, "devicePath": ""}));
            let attached: Vec<_> = attached.collect();
            let node = json!({"metadata": {}, "status": {
                "volumesAttached": attached, "volumesInUse": in_use}});
            all.see(&serde_json::from_value(node).unwrap());
            all.is_ready("v")
        };
        assert!(!see(&["v"], &[]));
        assert!(!see(&[], &["v"]));
        assert!(see(&["v"], &["v"]));
        assert_eq!(name("d", "h"), "kubernetes.io/csi/d^h");
    }
}
