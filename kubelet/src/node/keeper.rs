//! Registers the Node and keeps its status true.
//!
//! The Node is watched: labels and podCIDR are news for others here, and a
//! status that somebody overwrote is corrected. A status is computed every ten
//! seconds and sent only when it differs, or every five minutes.

use super::address::Addresses;
use super::conditions::{self, Seen};
use super::pressure::{Pressure, Shortage};
use super::register::{Registration, register};
use super::status::{Fixed, RuntimeSays};
use super::{csinode, disk, lease, machine, patch, status};
use crate::api::{from_etcd, of_one};
use crate::config::Config;
use crate::defaults;
use crate::device::Devices;
use crate::event::{EventType, Recorder};
use crate::join::report::reason;
use crate::pod::NodeLabels;
use crate::volume::csi::Attachments;
use cri_proto::{Cri, Status, v1};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, ObjectReference, Taint};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the keeper is told once.
pub struct KeeperOptions {
    /// Who the node is.
    pub registration: Registration,
    /// What does not change of its status.
    pub fixed: Fixed,
    /// Who else has something to say of the Node.
    pub beside: Beside,
    /// Settings.
    pub config: Config,
    /// `/var/lib/kubelet`: nodefs.
    pub root_dir: PathBuf,
    /// For leases and statuses.
    pub writes: kube::Client,
    /// For the watch of the Node.
    pub watches: kube::Client,
}

/// What others on this node know of its status.
pub struct Beside {
    /// What device plugins offer.
    pub devices: Arc<Devices>,
    /// Volumes that are attached.
    pub attachments: Arc<Attachments>,
    /// What the host is reached at.
    pub addresses: Addresses,
    /// Whether the machine is about to go down.
    pub going_down: watch::Receiver<bool>,
}

/// The Node as the API server has it, for others on this node.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    node: watch::Receiver<Option<Arc<Node>>>,
    ready: watch::Receiver<bool>,
    shortages: watch::Receiver<Vec<Shortage>>,
    going_down: watch::Receiver<bool>,
}

impl NodeHandle {
    /// The Node, once it is known.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.node.borrow().clone()
    }

    /// Waits until the Node has been seen once.
    pub async fn known(&mut self) -> Option<Arc<Node>> {
        let known = self.node.wait_for(Option::is_some).await;
        known.ok().and_then(|node| node.clone())
    }

    /// The Node whenever it changes.
    pub fn nodes(&self) -> watch::Receiver<Option<Arc<Node>>> {
        self.node.clone()
    }

    /// What is short, by each measurement anew.
    pub fn shortages(&self) -> watch::Receiver<Vec<Shortage>> {
        self.shortages.clone()
    }

    /// Whether the last status said Ready.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }
}

impl NodeLabels for NodeHandle {
    fn labels(&self) -> BTreeMap<String, String> {
        let node = self.node();
        node.and_then(|n| n.metadata.labels.clone())
            .unwrap_or_default()
    }

    fn taints(&self) -> Vec<Taint> {
        let spec = self.node().and_then(|n| n.spec.clone());
        spec.and_then(|s| s.taints).unwrap_or_default()
    }

    fn pressures(&self) -> Vec<String> {
        let status = self.node().and_then(|n| n.status.clone());
        let conditions = status.and_then(|s| s.conditions).unwrap_or_default();
        let under = conditions.into_iter().filter(|c| c.status == "True");
        under
            .map(|c| c.type_)
            .filter(|t| t.ends_with("Pressure"))
            .collect()
    }

    fn going_down(&self) -> bool {
        *self.going_down.borrow()
    }
}

/// Keeps the Node.
pub struct Keeper {
    options: KeeperOptions,
    cri: Arc<dyn Cri>,
    events: Arc<dyn Recorder>,
    started: Instant,
    node: watch::Sender<Option<Arc<Node>>>,
    node_uid: watch::Sender<Option<String>>,
    ready: watch::Sender<bool>,
    shortages: watch::Sender<Vec<Shortage>>,
    pressure: Pressure,
    reported: Option<Instant>,
    pod_cidr: Option<String>,
}

impl Keeper {
    /// A keeper that does nothing before [`Keeper::run`].
    pub fn new(
        options: KeeperOptions,
        cri: Arc<dyn Cri>,
        events: Arc<dyn Recorder>,
    ) -> (Keeper, NodeHandle) {
        let (node, node_seen) = watch::channel(None);
        let (ready, ready_seen) = watch::channel(false);
        let (shortages, shortages_seen) = watch::channel(Vec::new());
        let handle = NodeHandle {
            node: node_seen,
            ready: ready_seen,
            shortages: shortages_seen,
            going_down: options.beside.going_down.clone(),
        };
        let keeper = Keeper {
            options,
            cri,
            events,
            started: Instant::now(),
            node,
            node_uid: watch::channel(None).0,
            ready,
            shortages,
            pressure: Pressure::default(),
            reported: None,
            pod_cidr: None,
        };
        (keeper, handle)
    }

    /// Registers, then keeps status and lease until `shutdown`. Nothing is
    /// taken back at the end: the node's pods go on.
    pub async fn run(self, shutdown: CancellationToken) {
        // Whatever it waits for, an API server that hangs as well.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.keep(shutdown.clone()) => {}
        }
    }

    async fn keep(mut self, shutdown: CancellationToken) {
        self.register().await;
        let name = self.options.registration.name.clone();
        tokio::spawn(lease::keep(
            self.options.writes.clone(),
            name.clone(),
            self.options.config.node_lease_duration,
            self.node_uid.subscribe(),
            shutdown,
        ));
        let api: Api<Node> = Api::all(self.options.watches.clone());
        let only = format!("metadata.name={name}");
        let mut nodes = from_etcd(api, &only).default_backoff().boxed();
        let mut listed = None;
        let mut devices = self.options.beside.devices.changes();
        let mut in_use = self.options.beside.attachments.changes();
        let mut going_down = self.options.beside.going_down.clone();
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = self.report().await,
                Ok(()) = devices.changed() => wait = self.report().await,
                Ok(()) = in_use.changed() => wait = self.report().await,
                Ok(()) = going_down.changed() => wait = self.report().await,
                Some(event) = nodes.next() => if self.follow(event, &mut listed).await {
                    wait = self.report().await;
                },
            }
        }
    }

    async fn register(&mut self) {
        let api: Api<Node> = Api::all(self.options.writes.clone());
        let mut delay = defaults::REGISTER_RETRY;
        loop {
            let wanted = self.status(&[]).await.0;
            let attempt = register(&api, &self.options.registration, wanted);
            let attempt = tokio::time::timeout(defaults::API_CALL_TIMEOUT, attempt).await;
            match attempt.unwrap_or_else(|_| Err(kube::Error::Service("no answer".into()))) {
                Ok((node, created)) => {
                    tracing::info!(node = self.options.registration.name, "registered");
                    if created {
                        self.reported = Some(Instant::now());
                    }
                    self.take(node).await;
                    self.event(EventType::Normal, "Starting", "Starting kubelet.");
                    self.ensure_csinode();
                    return;
                }
                Err(e) => {
                    tracing::warn!(why = reason(&e), "node not registered; trying on");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(defaults::REGISTER_RETRY_MAX);
                }
            }
        }
    }

    fn ensure_csinode(&self) {
        let client = self.options.writes.clone();
        let name = self.options.registration.name.clone();
        let uid = self.node_uid.borrow().clone().unwrap_or_default();
        tokio::spawn(async move {
            while let Err(e) = csinode::ensure(client.clone(), &name, &uid).await {
                tracing::warn!(why = reason(&e), "CSINode not made; trying on");
                tokio::time::sleep(defaults::REGISTER_RETRY_MAX).await;
            }
        });
    }

    /// News of our Node; answers whether a report should follow at once.
    async fn follow(
        &mut self,
        event: Result<watcher::Event<Node>, watcher::Error>,
        listed: &mut Option<Node>,
    ) -> bool {
        match event.map(|event| of_one(event, listed)) {
            Ok(Some(Some(node))) => self.take(node).await,
            Ok(Some(None)) => {
                tracing::warn!("the Node was deleted; registering again");
                self.register().await;
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::debug!(%error, "watch of the Node");
                false
            }
        }
    }

    /// Publishes the Node, and tells the runtime of a new podCIDR.
    async fn take(&mut self, node: Node) -> bool {
        self.node_uid.send_replace(node.metadata.uid.clone());
        self.options.beside.attachments.see(&node);
        let cidr = node.spec.as_ref().and_then(|s| match &s.pod_cidrs {
            Some(all) if !all.is_empty() => Some(all.join(",")),
            _ => s.pod_cidr.clone(),
        });
        self.node.send_replace(Some(Arc::new(node)));
        let cidr = cidr.or_else(|| self.options.config.pod_cidr.clone());
        match cidr {
            Some(cidr) if self.pod_cidr.as_ref() != Some(&cidr) => self.use_pod_cidr(cidr).await,
            _ => false,
        }
    }

    async fn use_pod_cidr(&mut self, cidr: String) -> bool {
        let request = v1::UpdateRuntimeConfigRequest {
            runtime_config: Some(v1::RuntimeConfig {
                network_config: Some(v1::NetworkConfig {
                    pod_cidr: cidr.clone(),
                }),
            }),
        };
        match self.cri.update_runtime_config(request).await {
            Ok(_) => {
                tracing::info!(pod_cidr = cidr, "pod CIDR given to the runtime");
                self.pod_cidr = Some(cidr);
                true
            }
            Err(status) => {
                tracing::warn!(
                    why = status.message(),
                    "the runtime did not take the pod CIDR"
                );
                false
            }
        }
    }

    /// Sends the status if need be; answers when to look again.
    async fn report(&mut self) -> Duration {
        let known = self.node.borrow().clone();
        let known = known.and_then(|n| n.status.clone()).unwrap_or_default();
        let conditions = known.conditions.clone().unwrap_or_default();
        let (wanted, seen) = self.status(&conditions).await;
        let is_ready = ready(&wanted);
        if ready(&known) && conditions::is_settling(self.started.elapsed(), &seen) {
            return defaults::FAST_STATUS;
        }
        let every = self.options.config.node_status_report_frequency;
        let heartbeat = self.reported.is_none_or(|at| at.elapsed() >= every);
        if let Some(patch) = patch::status(&known, &wanted, heartbeat) {
            if let Err(e) = self.send(patch).await {
                tracing::warn!(why = reason(&e), "node status not written; trying on");
                return defaults::REGISTER_RETRY_MAX;
            }
            self.tell(&conditions, &wanted);
        }
        self.ready.send_replace(is_ready);
        match is_ready {
            true => self.options.config.node_status_update_frequency,
            // Somebody is waiting for it: a CNI configuration, a podCIDR.
            false if self.started.elapsed() < defaults::SETTLING * 2 => defaults::FAST_STATUS,
            false => Duration::from_secs(1),
        }
    }

    async fn send(&mut self, patch: serde_json::Value) -> Result<(), kube::Error> {
        let api: Api<Node> = Api::all(self.options.writes.clone());
        let name = self.options.registration.name.clone();
        let patch = Patch::Strategic(patch);
        let node = api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await?;
        self.reported = Some(Instant::now());
        self.take(node).await;
        Ok(())
    }

    /// Events for conditions that changed, with the kubelet's own reasons.
    fn tell(&self, before: &[NodeCondition], after: &NodeStatus) {
        for condition in after.conditions.iter().flatten() {
            let old = before.iter().find(|c| c.type_ == condition.type_);
            if old.is_some_and(|c| c.status == condition.status) {
                continue;
            }
            let reason = match (condition.type_.as_str(), condition.status.as_str()) {
                ("Ready", "True") => "NodeReady",
                ("Ready", _) => "NodeNotReady",
                ("MemoryPressure", "True") => "NodeHasInsufficientMemory",
                ("MemoryPressure", _) => "NodeHasSufficientMemory",
                ("DiskPressure", "True") => "NodeHasDiskPressure",
                ("DiskPressure", _) => "NodeHasNoDiskPressure",
                ("PIDPressure", "True") => "NodeHasInsufficientPID",
                (_, _) => "NodeHasSufficientPID",
            };
            tracing::info!(
                condition = condition.type_,
                status = condition.status,
                why = condition.message,
                "condition changed"
            );
            let name = &self.options.registration.name;
            let message = format!("Node {name} status is now: {reason}");
            self.event(EventType::Normal, reason, &message);
        }
    }

    fn event(&self, kind: EventType, reason: &str, message: &str) {
        let name = &self.options.registration.name;
        // The kubelet has always named a Node by its name here, not its UID:
        // `kubectl describe node` looks for that.
        let about = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(name.clone()),
            uid: Some(name.clone()),
            ..ObjectReference::default()
        };
        self.events.record(&about, kind, reason, message);
    }

    async fn status(&mut self, known: &[NodeCondition]) -> (NodeStatus, Seen) {
        let (says, runtime) = self.ask_runtime().await;
        let seen = self.look(runtime).await;
        let config = &self.options.config;
        let short = self.pressure.observe(&seen, config, Instant::now());
        self.shortages.send_replace(short);
        let now = jiff::Timestamp::now();
        let conditions = conditions::decide(&seen, &self.pressure, known, now);
        self.options.fixed.addresses = self.options.beside.addresses.look();
        let mut status = status::build(&self.options.fixed, &says, conditions);
        let beside = &self.options.beside;
        status::add_resources(&mut status, beside.devices.capacity());
        status.volumes_in_use = Some(beside.attachments.in_use());
        (status, seen)
    }

    async fn ask_runtime(&self) -> (RuntimeSays, Result<v1::RuntimeStatus, String>) {
        let version = self.cri.version(v1::VersionRequest {
            version: "0.1.0".to_owned(),
        });
        let status = self.cri.status(v1::StatusRequest { verbose: false });
        let images = self.cri.list_images(v1::ListImagesRequest { filter: None });
        let (version, status, images) =
            tokio::join!(in_time(version), in_time(status), in_time(images));
        let mut says = RuntimeSays {
            images: images.map(|i| i.images).unwrap_or_default(),
            ..RuntimeSays::default()
        };
        if let Ok(version) = version {
            says.version = format!("{}://{}", version.runtime_name, version.runtime_version);
        }
        let status = status.map(|response| {
            says.handlers = response.runtime_handlers;
            says.supplemental_groups_policy = response
                .features
                .is_some_and(|f| f.supplemental_groups_policy);
            response.status.unwrap_or_default()
        });
        (says, status)
    }

    async fn look(&self, runtime: Result<v1::RuntimeStatus, String>) -> Seen {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let meminfo = text("/proc/meminfo");
        let memory = |field| machine::meminfo_bytes(&meminfo, field);
        let image_info = in_time(self.cri.image_fs_info(v1::ImageFsInfoRequest {})).await;
        let mountpoint = image_info.ok().and_then(|info| {
            let first = info.image_filesystems.into_iter().next()?;
            Some(first.fs_id?.mountpoint)
        });
        Seen {
            memory: memory("MemAvailable").zip(memory("MemTotal")),
            pids: pids(&text("/proc/loadavg"), &text("/proc/sys/kernel/pid_max")),
            nodefs: disk::of(&self.options.root_dir),
            imagefs: mountpoint.and_then(|m| disk::of(m.as_ref())),
            runtime: Some(runtime),
            going_down: *self.options.beside.going_down.borrow(),
        }
    }
}

/// A runtime that hangs is a runtime that is down.
async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, String> {
    match tokio::time::timeout(defaults::RUNTIME_STATUS_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!(
            "no answer within {}s",
            defaults::RUNTIME_STATUS_TIMEOUT.as_secs()
        )),
    }
}

/// Of /proc/loadavg's `1/234` the second number is every thread there is.
fn pids(loadavg: &str, pid_max: &str) -> Option<(u64, u64)> {
    let threads = loadavg.split_whitespace().nth(3)?.split_once('/')?.1;
    let threads: u64 = threads.parse().ok()?;
    let max: u64 = pid_max.trim().parse().ok()?;
    Some((max.saturating_sub(threads), max))
}

fn ready(status: &NodeStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_are_what_is_left_of_the_largest() {
        assert_eq!(pids("0.1 0.2 0.3 1/234 999", "1000\n"), Some((766, 1000)));
        assert_eq!(pids("", "1000"), None);
    }
}
