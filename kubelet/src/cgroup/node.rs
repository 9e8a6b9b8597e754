//! Keeps the cgroups of pods as a whole.

use super::limits::{self, Limits};
use super::shares;
use super::slices::{self, Slices};
use super::tree::{CgroupError, Identity, Tree};
use crate::config::{Config, ReservedCgroup};
use crate::defaults::{CGROUPS_PERIOD, CGROUPS_SETTLING};
use crate::event::{EventType, Recorder};
use crate::join::report::chain;
use crate::metrics::Metrics;
use crate::node::machine::Machine;
use crate::panics;
use crate::pod::{CgroupDriver, PodView, spec};
use k8s_openapi::api::core::v1::ObjectReference;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// kubernetes v1.37 pkg/kubelet/events/event.go.
const ENFORCED: &str = "NodeAllocatableEnforced";
/// See [`ENFORCED`].
const FAILED: &str = "FailedNodeAllocatableEnforcement";
/// How long systemd may take to make a slice's cgroup: tries, and what lies between them.
const SLICE_TRIES: (usize, Duration) = (100, Duration::from_millis(50));

/// A cgroup of `systemReservedCgroup` or `kubeReservedCgroup` is not held to what is reserved.
#[derive(Debug, thiserror::Error)]
#[error(
    "enforceNodeAllocatable: {whose}ReservedCgroup {cgroup} is not limited; create it before the \
     node starts, or leave {whose}-reserved out"
)]
pub struct ReservedError {
    whose: &'static str,
    cgroup: String,
    source: CgroupError,
}

/// What they are kept by.
pub struct NodeCgroupsOptions {
    /// The cgroup of all pods, from the root on.
    pub path: String,
    /// Who makes cgroups.
    pub driver: CgroupDriver,
    /// What the events are about.
    pub node: ObjectReference,
    /// Those whose requests count.
    pub pods: Arc<dyn PodView>,
    /// That something has changed in them.
    pub changes: watch::Receiver<()>,
    /// Where events go.
    pub events: Arc<dyn Recorder>,
    /// What is done is counted there.
    pub metrics: Metrics,
}

/// `kubepods` and what is in it but pods. Makes them, limits them, and does so again when one
/// has gone or the kernel refused.
pub struct NodeCgroups {
    options: NodeCgroupsOptions,
    limits: Limits,
    reserved: Vec<ReservedCgroup>,
    /// There are cgroups of classes at all (`cgroupsPerQOS`).
    on: bool,
    hands: Option<Hands>,
    state: State,
}

/// What is written already, and to which: a runtime may have made one anew.
#[derive(Default)]
struct State {
    pods: Option<Identity>,
    best_effort: Option<Identity>,
    burstable: Option<(Identity, u64)>,
    /// Why they could not be limited: told once.
    why: Option<String>,
    /// In what nobody is limited here: told once.
    without: BTreeSet<&'static str>,
}

/// The cgroups by their names from the root on.
struct Names {
    pods: String,
    burstable: String,
    best_effort: String,
}

impl NodeCgroups {
    /// Does nothing before [`NodeCgroups::start`].
    pub fn new(config: &Config, machine: &Machine, options: NodeCgroupsOptions) -> NodeCgroups {
        let all = limits::of_machine(machine, most_pids());
        let all = match config.enforcement.pods {
            true => limits::without(all, &config.allocatable.reserved),
            false => all,
        };
        let mut reserved = config.enforcement.reserved.clone();
        for one in &mut reserved {
            let amounts = std::mem::take(&mut one.amounts);
            one.amounts = limits::of_reserved(amounts, machine);
        }
        NodeCgroups {
            limits: Limits::of(&all, false),
            reserved,
            on: config.cgroups_per_qos,
            options,
            hands: None,
            state: State::default(),
        }
    }

    /// Limits the cgroups of others, and makes those of pods before there is any.
    ///
    /// # Errors
    /// When one of others can't be limited. Those of pods are tried again later.
    pub async fn start(&mut self) -> Result<(), ReservedError> {
        for reserved in &self.reserved {
            let limited = self.limit_reserved(reserved).await;
            let (whose, cgroup) = (reserved.whose, reserved.cgroup.clone());
            limited.map_err(|source| ReservedError {
                whose,
                cgroup,
                source,
            })?;
            let text = format!(
                "Updated limits on {whose} reserved cgroup {}",
                reserved.cgroup
            );
            self.tell(EventType::Normal, ENFORCED, &text);
        }
        if self.on {
            self.keep().await;
        }
        Ok(())
    }

    /// Until `shutdown`; limits stay.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut changes = self.options.changes.clone();
        while self.on {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(CGROUPS_PERIOD) => {}
                // Pods come by the dozen.
                Ok(()) = changes.changed() => tokio::time::sleep(CGROUPS_SETTLING).await,
            }
            self.keep().await;
        }
    }

    async fn keep(&mut self) {
        let burstable = shares::of_burstable(&self.options.pods.pods());
        match self.apply(burstable).await {
            Ok(false) => {}
            Ok(true) => {
                self.state.why = None;
                let text = "Updated Node Allocatable limit across pods";
                self.tell(EventType::Normal, ENFORCED, text);
            }
            Err(error) => self.failed(chain(&error)),
        }
    }

    fn failed(&mut self, why: String) {
        self.state.pods = None;
        if self.state.why.as_ref() == Some(&why) {
            return;
        }
        let path = &self.options.path;
        tracing::warn!(path, why, "pods as a whole are not limited; trying on");
        let text = format!("Failed to update Node Allocatable Limits {path:?}: {why}");
        self.tell(EventType::Warning, FAILED, &text);
        self.state.why = Some(why);
    }

    /// Makes what is missing and writes what is not written; answers whether that was the limits
    /// of all pods.
    async fn apply(&mut self, burstable: u64) -> Result<bool, CgroupError> {
        // Anew after an error: a bus, for one, may have gone.
        let hands = match self.hands.take() {
            Some(hands) => hands,
            None => Hands::new(self.options.driver).await?,
        };
        let names = names(&self.options.path, self.options.driver);
        let State {
            pods: of_pods,
            best_effort: of_best_effort,
            burstable: of_burstable,
            ..
        } = &self.state;
        let of_burstable = of_burstable.as_ref().map(|(identity, _)| identity);
        let pods = self.create(&hands, &names.pods, of_pods.as_ref()).await?;
        let best_effort = self.create(&hands, &names.best_effort, of_best_effort.as_ref());
        let best_effort = Some(best_effort.await?);
        let identity = self.create(&hands, &names.burstable, of_burstable).await?;
        let (pods, burstable) = (Some(pods), Some((identity, burstable)));
        let mut without = BTreeSet::new();
        if self.state.best_effort != best_effort {
            let least = Limits::of_shares(shares::OF_BEST_EFFORT);
            without.append(&mut self.set(&hands, &names.best_effort, &least).await?);
            self.state.best_effort = best_effort;
        }
        if self.state.burstable != burstable {
            let shares = burstable.as_ref().map(|(_, shares)| *shares);
            let shares = Limits::of_shares(shares.unwrap_or(shares::OF_BEST_EFFORT));
            without.append(&mut self.set(&hands, &names.burstable, &shares).await?);
            self.state.burstable = burstable;
        }
        let limited = self.state.pods != pods;
        if limited {
            without.append(&mut self.set(&hands, &names.pods, &self.limits).await?);
            self.state.pods = pods;
        }
        self.lacks(without);
        self.hands = Some(hands);
        Ok(limited)
    }

    /// What is missing of it; counted when it is another one than that which is known.
    async fn create(
        &self,
        hands: &Hands,
        path: &str,
        known: Option<&Identity>,
    ) -> Result<Identity, CgroupError> {
        let begun = Instant::now();
        let identity = hands.create(path).await?;
        if known != Some(&identity) {
            let metrics = &self.options.metrics;
            metrics.cgroup_managed("create", begun.elapsed());
        }
        Ok(identity)
    }

    async fn set(
        &self,
        hands: &Hands,
        path: &str,
        limits: &Limits,
    ) -> Result<BTreeSet<&'static str>, CgroupError> {
        let begun = Instant::now();
        let without = hands.set(path, limits).await?;
        let metrics = &self.options.metrics;
        metrics.cgroup_managed("update", begun.elapsed());
        Ok(without)
    }

    /// A node of a host that can't limit something is a node all the same.
    fn lacks(&mut self, without: BTreeSet<&'static str>) {
        for controller in without {
            if self.state.without.insert(controller) {
                let path = &self.options.path;
                tracing::warn!(
                    path,
                    controller,
                    "pods as a whole are not limited in this: the host has no such controller for them"
                );
            }
        }
    }

    async fn limit_reserved(&self, reserved: &ReservedCgroup) -> Result<(), CgroupError> {
        let hands = Hands::new(self.options.driver).await?;
        let limits = Limits::of(&reserved.amounts, reserved.compressible);
        let path = match self.options.driver {
            CgroupDriver::Cgroupfs => reserved.cgroup.clone(),
            CgroupDriver::Systemd => spec::cgroup::of_slice(&reserved.cgroup),
        };
        hands.tree.check(&path)?;
        for controller in hands.set(&path, &limits).await? {
            tracing::warn!(path, controller, "a reserved cgroup is not limited in this");
        }
        Ok(())
    }

    fn tell(&self, kind: EventType, reason: &str, text: &str) {
        let about = &self.options.node;
        self.options.events.record(about, kind, reason, text);
    }
}

/// What cgroups are made and written with.
struct Hands {
    tree: Tree,
    /// With the cgroup driver systemd.
    slices: Option<Slices>,
}

impl Hands {
    async fn new(driver: CgroupDriver) -> Result<Hands, CgroupError> {
        let slices = match driver {
            CgroupDriver::Cgroupfs => None,
            CgroupDriver::Systemd => Some(Slices::connect().await?),
        };
        let tree = Tree::read()?;
        Ok(Hands { tree, slices })
    }

    /// What is missing of it; answers which it is now.
    async fn create(&self, path: &str) -> Result<Identity, CgroupError> {
        let Some(slices) = &self.slices else {
            return self.tree.create(path);
        };
        if !self.tree.is_tracked(path) {
            slices.start(slices::unit(path)).await?;
            let (tries, between) = SLICE_TRIES;
            for _ in 0..tries {
                if self.tree.is_tracked(path) {
                    break;
                }
                tokio::time::sleep(between).await;
            }
        }
        // What systemd has no controller for on v1 it makes no cgroup for.
        let identity = self.tree.create(path)?;
        self.tree.adopt(path);
        Ok(identity)
    }

    /// Answers in what nobody can be limited here.
    async fn set(
        &self,
        path: &str,
        limits: &Limits,
    ) -> Result<BTreeSet<&'static str>, CgroupError> {
        if let Some(slices) = &self.slices {
            let unit = slices::unit(path);
            slices.set(unit, limits, self.tree.is_unified()).await?;
        }
        let (tree, path, limits) = (self.tree.clone(), path.to_owned(), limits.clone());
        // Memory that has to be taken back first takes its time.
        panics::blocking(move || tree.apply(&path, &limits)).await
    }
}

fn names(pods: &str, driver: CgroupDriver) -> Names {
    let class = |name: &str| match driver {
        CgroupDriver::Cgroupfs => format!("{pods}/{name}"),
        CgroupDriver::Systemd => {
            let stem = slices::unit(pods).trim_end_matches(".slice");
            format!("{pods}/{stem}-{name}.slice")
        }
    };
    Names {
        pods: pods.to_owned(),
        burstable: class("burstable"),
        best_effort: class("besteffort"),
    }
}

/// kubernetes v1.37 pkg/kubelet/stats/pidlimit/pidlimit_linux.go: the lesser of the kernel's two.
fn most_pids() -> Option<u64> {
    let files = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let texts = files.iter().filter_map(|f| std::fs::read_to_string(f).ok());
    texts.filter_map(|t| t.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_named_as_the_pods_in_them_expect() {
        let fs = names("/n/kubepods", CgroupDriver::Cgroupfs);
        assert_eq!(fs.burstable, "/n/kubepods/burstable");
        let systemd = names("/n.slice/n-kubepods.slice", CgroupDriver::Systemd);
        assert_eq!(
            systemd.best_effort,
            "/n.slice/n-kubepods.slice/n-kubepods-besteffort.slice"
        );
    }
}
