//! Which drivers there are, here and in the API.
//! Rules: kubernetes v1.37 pkg/volume/csi/csi_plugin.go `RegistrationHandler`, nodeinfomanager.

use super::driver::Driver;
use crate::join::report::reason;
use crate::objects::one_line;
use crate::plugin::{Announced, Handler};
use crate::proto::csi::NodeGetInfoResponse;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, VolumeNodeResources};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// nodeinfomanager.go `annotationKeyNodeID`: driver to the node's id, as JSON.
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";
/// Ours: others write CSINodes too, seldom.
const TRIES: u32 = 5;
/// Ours: how long somebody waits for a driver that may just be starting.
const PATIENCE: Duration = Duration::from_secs(10);

/// Drivers that have registered.
pub(super) struct Drivers {
    client: kube::Client,
    node: String,
    /// Where each is served.
    known: Mutex<BTreeMap<String, PathBuf>>,
    /// CSINode and Node are written by one at a time.
    writing: tokio::sync::Mutex<()>,
    came: tokio::sync::Notify,
}

impl Drivers {
    pub fn new(client: kube::Client, node: &str) -> Arc<Drivers> {
        Arc::new(Drivers {
            client,
            node: node.to_owned(),
            known: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
            came: tokio::sync::Notify::new(),
        })
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, PathBuf>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_empty(&self) -> bool {
        self.known().is_empty()
    }

    /// One that is there.
    pub fn get(&self, name: &str) -> Option<Driver> {
        let endpoint = self.known().get(name).cloned();
        endpoint.map(|endpoint| Driver::new(name, endpoint))
    }

    /// One that is there, or comes within some seconds.
    pub async fn wait(&self, name: &str) -> Option<Driver> {
        let wait = async {
            loop {
                let came = self.came.notified();
                if let Some(driver) = self.get(name) {
                    return driver;
                }
                // A notice may be missed: it is looked anyway.
                let _ = tokio::time::timeout(Duration::from_millis(500), came).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.ok()
    }

    async fn register(&self, plugin: &Announced) -> Result<(), String> {
        check(plugin)?;
        let name = &plugin.name;
        let info = Driver::new(name, plugin.endpoint.clone()).info().await;
        let info = info.map_err(|e| format!("failed to get node info: {e}"))?;
        self.publish(name, &info).await?;
        self.known().insert(name.clone(), plugin.endpoint.clone());
        self.came.notify_waiters();
        Ok(())
    }

    async fn publish(&self, name: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
        let _writing = self.writing.lock().await;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.get(&self.node).await.map_err(|e| one_line(&e))?;
        let empty = BTreeMap::new();
        let segments = info.accessible_topology.as_ref().map(|t| &t.segments);
        let topology: BTreeMap<_, _> = segments.into_iter().flatten().collect();
        let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
        for (key, value) in &topology {
            // Topology is where the node is: it has one.
            if labels.get(*key).is_some_and(|known| known != *value) {
                return Err(format!(
                    "the Node has another value of topology label {key:?}"
                ));
            }
        }
        let mut ids = node_ids(&node);
        if ids.insert(name.to_owned(), info.node_id.clone()) != Some(info.node_id.clone())
            || topology.keys().any(|key| !labels.contains_key(*key))
        {
            self.patch_node(&ids, json!(topology)).await?;
        }
        self.change_csinode(|drivers| add(drivers, name, info))
            .await
    }

    async fn patch_node(
        &self,
        ids: &BTreeMap<String, String>,
        labels: serde_json::Value,
    ) -> Result<(), String> {
        let text = (!ids.is_empty()).then(|| json!(ids).to_string());
        let patch = json!({"metadata": {"annotations": { NODE_IDS: text }, "labels": labels}});
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        // By way of its status, as the stock kubelet does: the rest of a node may be closed to it.
        let patched = nodes.patch_status(&self.node, &params, &patch);
        patched.await.map(drop).map_err(|e| one_line(&e))
    }

    /// Writes it unless nothing differs.
    async fn change_csinode(
        &self,
        change: impl Fn(&mut Vec<CSINodeDriver>) -> bool,
    ) -> Result<(), String> {
        let api: Api<CSINode> = Api::all(self.client.clone());
        for _ in 0..TRIES {
            let mut node = api.get(&self.node).await.map_err(|e| one_line(&e))?;
            if !change(&mut node.spec.drivers) {
                return Ok(());
            }
            match api.replace(&self.node, &PostParams::default(), &node).await {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(e) => return Err(one_line(&e)),
            }
        }
        Err("the CSINode is written by too many at once".to_owned())
    }

    async fn deregister(&self, plugin: &Announced) {
        let name = &plugin.name;
        {
            let mut known = self.known();
            if known.get(name) != Some(&plugin.endpoint) {
                return;
            }
            known.remove(name);
        }
        tracing::info!(driver = name, "CSI driver gone");
        let _writing = self.writing.lock().await;
        if self.known().contains_key(name) {
            // It came back meanwhile.
            return;
        }
        let removed = self.change_csinode(|drivers| {
            let before = drivers.len();
            drivers.retain(|d| d.name != *name);
            drivers.len() != before
        });
        if let Err(why) = removed.await {
            tracing::warn!(driver = name, why, "CSI driver stays in the CSINode");
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let forgotten = match nodes.get(&self.node).await {
            Ok(node) => {
                let mut ids = node_ids(&node);
                match ids.remove(name) {
                    Some(_) => self.patch_node(&ids, json!({})).await,
                    None => Ok(()),
                }
            }
            Err(e) => Err(reason(&e)),
        };
        if let Err(why) = forgotten {
            tracing::warn!(
                driver = name,
                why,
                "CSI driver stays in the Node's annotation"
            );
        }
    }
}

fn node_ids(node: &Node) -> BTreeMap<String, String> {
    let text = node
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(NODE_IDS));
    text.and_then(|t| serde_json::from_str(t).ok())
        .unwrap_or_default()
}

fn check(plugin: &Announced) -> Result<(), String> {
    let name = &plugin.name;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 63 || !name.chars().all(word) {
        return Err(format!("the driver's name {name:?} is no domain"));
    }
    let major = |v: &String| {
        v.trim_start_matches('v')
            .split('.')
            .next()
            .map(str::to_owned)
    };
    if !plugin
        .versions
        .iter()
        .any(|v| major(v).as_deref() == Some("1"))
    {
        let versions = plugin.versions.join(", ");
        return Err(format!(
            "versions of CSI driver {name} are not supported: {versions}; 1.x is"
        ));
    }
    Ok(())
}

/// Answers whether the list is another one now.
fn add(drivers: &mut Vec<CSINodeDriver>, name: &str, info: &NodeGetInfoResponse) -> bool {
    let topology = info.accessible_topology.as_ref();
    let mut keys: Vec<String> = topology
        .iter()
        .flat_map(|t| t.segments.keys().cloned())
        .collect();
    keys.sort();
    let limit = i32::try_from(info.max_volumes_per_node).unwrap_or(i32::MAX);
    let wanted = CSINodeDriver {
        name: name.to_owned(),
        node_id: info.node_id.clone(),
        topology_keys: Some(keys).filter(|k| !k.is_empty()),
        allocatable: (limit > 0).then_some(VolumeNodeResources { count: Some(limit) }),
    };
    if drivers.contains(&wanted) {
        return false;
    }
    drivers.retain(|d| d.name != name);
    drivers.push(wanted);
    true
}

/// Takes plugins of type `CSIPlugin`.
#[derive(Clone)]
pub struct Registrar(pub(super) Arc<Drivers>);

#[async_trait::async_trait]
impl Handler for Registrar {
    fn kind(&self) -> &'static str {
        "CSIPlugin"
    }

    async fn register(&self, plugin: &Announced) -> Result<(), String> {
        self.0.register(plugin).await
    }

    async fn deregister(&self, plugin: &Announced) {
        self.0.deregister(plugin).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::csi::Topology;

    #[test]
    fn a_driver_has_a_domains_name_and_speaks_version_one() {
        let of = |name: &str, version: &str| {
            check(&Announced {
                name: name.into(),
                endpoint: "/s".into(),
                versions: vec![version.into()],
            })
        };
        assert!(of("hostpath.csi.k8s.io", "1.0.0").is_ok());
        assert!(of("a/b", "1.0.0").is_err());
        assert!(of("a", "0.3.0").is_err());
    }

    #[test]
    fn a_drivers_entry_is_written_once_and_replaced_when_it_changes() {
        let mut drivers = Vec::new();
        let mut info = NodeGetInfoResponse {
            node_id: "n".into(),
            max_volumes_per_node: 3,
            accessible_topology: Some(Topology {
                segments: [("zone".into(), "a".into())].into(),
            }),
        };
        assert!(add(&mut drivers, "d", &info));
        assert!(!add(&mut drivers, "d", &info));
        info.max_volumes_per_node = 0;
        assert!(add(&mut drivers, "d", &info));
        assert_eq!(drivers.len(), 1);
        assert_eq!(drivers[0].allocatable, None);
    }
}
