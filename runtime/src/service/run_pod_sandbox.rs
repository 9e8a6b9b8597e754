//! RunPodSandbox.
//!
//! The record on disk is the list of what has to be undone: it is written
//! before anything else is made, and a sandbox that fails half-way is taken
//! apart as a stopped one is, now or at the next start.

use super::VerbError;
use super::core::{Core, SandboxName, blocking, delete, new_id, now};
use super::error::chain;
use super::first_container;
use crate::cgroup::{CgroupError, CgroupPath, Limits};
use crate::process::{SandboxAhead, SandboxSpec};
use crate::sandbox::{FirstContainer, Identified, NetworkRecord, Record, Sandbox, State, VERSION};
use crate::spec;
use cni::{Attachment, PodNetwork, PortMapping, Protocol};
use cri_proto::Status;
use cri_proto::v1::{
    ContainerEventType, PodSandboxConfig, RunPodSandboxRequest, RunPodSandboxResponse,
};
use std::sync::Arc;
use tracing::Instrument;

pub(super) async fn run_pod_sandbox(
    core: Arc<Core>,
    request: RunPodSandboxRequest,
) -> Result<RunPodSandboxResponse, Status> {
    let config = request
        .config
        .ok_or(VerbError::Missing { field: "config" })?;
    if !request.runtime_handler.is_empty() {
        let handler = request.runtime_handler;
        return Err(VerbError::Handler { handler }.into());
    }
    let name = name(&config)?;
    let work = {
        let (core, name) = (core.clone(), name.clone());
        move || async move { Ok(run(&core, &name, config).await?) }
    };
    let pod_sandbox_id = core.runs.join(name, work).await?;
    Ok(RunPodSandboxResponse { pod_sandbox_id })
}

fn name(config: &PodSandboxConfig) -> Result<SandboxName, VerbError> {
    let metadata = config.metadata.clone().ok_or(VerbError::Missing {
        field: "config.metadata",
    })?;
    if metadata.name.is_empty() {
        return Err(VerbError::Missing {
            field: "config.metadata.name",
        });
    }
    Ok((
        metadata.namespace,
        metadata.name,
        metadata.uid,
        metadata.attempt,
    ))
}

async fn run(
    core: &Arc<Core>,
    name: &SandboxName,
    config: PodSandboxConfig,
) -> Result<String, VerbError> {
    if let Some(known) = known(core, name)? {
        return Ok(known);
    }
    let mut spec = spec::sandbox(&new_id(), &config, &node_name())?;
    let starting = core.starting();
    let ahead = core.take_ahead(&spec).await;
    let waited = ahead.is_some();
    if let Some(ahead) = &ahead {
        ahead.monitor.id().clone_into(&mut spec.id);
    }
    let id = spec.id.clone();
    let (namespace, pod) = (&name.0, &name.1);
    let span = tracing::info_span!(
        "run_pod_sandbox",
        sandbox = &id[..13],
        namespace,
        name = pod
    );
    let sandbox = async {
        let sandbox = match core.host.selinux {
            Some(_) => core
                .levels
                .give(|level| new_sandbox(core, &id, config, level))?,
            None => Arc::new(new_sandbox(core, &id, config, String::new())?),
        };
        let labels = sandbox.read(|r| spec::pod_labels(&core.host, &r.selinux_level, &r.config))?;
        if let Some(labels) = labels {
            (spec.mount_label, spec.process_label) = (labels.mount, labels.process);
        }
        let (ahead, container) = ahead.map(|a| (a.monitor, a.container)).unzip();
        sandbox.set_first_container(FirstContainer::new(container.unwrap_or_else(new_id)));
        match make(core, &sandbox, spec, ahead).await {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                core.discard_sandbox(&sandbox).await;
                Err(error)
            }
        }
    }
    .instrument(span)
    .await;
    if sandbox.is_err() && waited {
        // Whatever of it the sandbox's record did not name yet.
        core.give_back(&id).await;
    }
    let sandbox = sandbox?;
    core.sandboxes.insert(sandbox.clone());
    for kind in [
        ContainerEventType::ContainerCreatedEvent,
        ContainerEventType::ContainerStartedEvent,
    ] {
        core.emit(kind, &id, &sandbox);
    }
    drop(starting);
    Ok(id)
}

/// A sandbox of that name that still lives is the answer; a stopped one keeps
/// its name until it is removed.
fn known(core: &Core, name: &SandboxName) -> Result<Option<String>, VerbError> {
    let same = |sandbox: &&Arc<Sandbox>| {
        sandbox.read(|record| {
            let m = record.config.metadata.as_ref();
            m.is_some_and(|m| {
                (&m.namespace, &m.name, &m.uid, m.attempt) == (&name.0, &name.1, &name.2, name.3)
            })
        })
    };
    let all = core.sandboxes.list();
    let Some(sandbox) = all.iter().find(same) else {
        return Ok(None);
    };
    if sandbox.is_ready() {
        return Ok(Some(sandbox.id().to_owned()));
    }
    Err(VerbError::Exists {
        what: format!("pod sandbox {}/{} attempt {}", name.0, name.1, name.3),
        id: sandbox.id().to_owned(),
        state: "NOTREADY".to_owned(),
    })
}

fn new_sandbox(
    core: &Core,
    id: &str,
    config: PodSandboxConfig,
    selinux_level: String,
) -> Result<Sandbox, VerbError> {
    let linux = config.linux.as_ref();
    let parent = linux.map(|l| l.cgroup_parent.as_str()).unwrap_or_default();
    let cgroup = if parent.is_empty() {
        core.cgroups.of_sandbox(id)
    } else {
        core.cgroups.name(parent)?
    };
    let record = Record {
        version: VERSION,
        id: id.to_owned(),
        state: State::Creating,
        created_at: now(),
        runtime_handler: String::new(),
        cgroup,
        cgroup_made: None,
        selinux_level,
        network: None,
        config,
    };
    Ok(Sandbox::new(core.sandboxes_dir().join(id), record))
}

/// Files and cgroups are made while the monitor starts; the network needs both.
async fn make(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    spec: SandboxSpec,
    ahead: Option<SandboxAhead>,
) -> Result<(), VerbError> {
    let hostname = spec.hostname.clone().unwrap_or_else(node_name);
    let network = spec.network;
    let prepared = {
        let (core, sandbox) = (core.clone(), sandbox.clone());
        let work = move || prepare(&core, &sandbox, &hostname, network);
        blocking(work).instrument(tracing::info_span!("files_and_cgroup"))
    };
    let monitor = async {
        let monitor = core.engine.run_sandbox(spec, ahead).await?;
        sandbox.set_engine(Some(monitor));
        Ok(())
    };
    // Both to their ends, so that an undo does not race with either.
    let (prepared, monitor): (_, Result<(), VerbError>) = tokio::join!(prepared, monitor);
    prepared?;
    monitor?;
    let attachment = match network {
        true => {
            let wired = wire(core, sandbox);
            wired.instrument(tracing::info_span!("network")).await?
        }
        false => None,
    };
    sandbox.update(|record| {
        record.state = State::Ready;
        if let Some(network) = &mut record.network {
            network.attachment = attachment;
        }
    })?;
    first_container::begin(core, sandbox);
    Ok(())
}

fn prepare(core: &Core, sandbox: &Sandbox, hostname: &str, network: bool) -> Result<(), VerbError> {
    let dir = sandbox.containers_dir();
    std::fs::create_dir_all(&dir).map_err(|source| VerbError::Make { path: dir, source })?;
    let cgroup = sandbox.read(|record| record.cgroup.clone());
    let pod = network.then(|| pod_network(&sandbox.record()));
    let intend = |made: Option<CgroupPath>| {
        let written = sandbox.update(|record| {
            record.cgroup_made = made;
            record.network = pod.map(|pod| NetworkRecord {
                pod,
                attachment: None,
                released: false,
            });
        });
        Ok(written?)
    };
    let ours = core
        .pod_cgroups
        .make(&core.cgroups, sandbox.id(), &cgroup, intend)?;
    if ours {
        limit(core, sandbox, &cgroup)?;
    }
    sandbox.write_files(hostname)?;
    Ok(())
}

/// A kubelet that makes pod cgroups itself limits them itself.
fn limit(core: &Core, sandbox: &Sandbox, cgroup: &CgroupPath) -> Result<(), CgroupError> {
    let linux = sandbox.read(|record| record.config.linux.clone());
    match linux.and_then(|l| l.resources) {
        Some(resources) => core.cgroups.apply(cgroup, &Limits::of_pod(&resources)),
        None => Ok(()),
    }
}

async fn wire(core: &Core, sandbox: &Sandbox) -> Result<Option<Attachment>, VerbError> {
    let (Some(engine), Some(network)) = (sandbox.engine(), sandbox.read(|r| r.network.clone()))
    else {
        return Ok(None);
    };
    let netns = engine.netns();
    let mut added = core.network.add(&network.pod, netns.as_ref()).await;
    // Networks that wait for their pods may have the last addresses.
    if added.is_err() && core.drop_ahead().await {
        added = core.network.add(&network.pod, netns.as_ref()).await;
    }
    Ok(Some(added?))
}

fn pod_network(record: &Record) -> PodNetwork {
    let metadata = record.metadata();
    let annotation = |name: &str| {
        let value = record.config.annotations.get(name)?;
        rate(value).or_else(|| {
            tracing::warn!(name, value, "bandwidth annotation is not a quantity");
            None
        })
    };
    PodNetwork {
        sandbox_id: record.id.clone(),
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        ports: record
            .config
            .port_mappings
            .iter()
            .filter_map(port)
            .collect(),
        ingress_rate: annotation("kubernetes.io/ingress-bandwidth"),
        egress_rate: annotation("kubernetes.io/egress-bandwidth"),
    }
}

fn port(mapping: &cri_proto::v1::PortMapping) -> Option<PortMapping> {
    let host_port = u16::try_from(mapping.host_port).ok().filter(|p| *p > 0)?;
    Some(PortMapping {
        host_port,
        container_port: u16::try_from(mapping.container_port).ok()?,
        protocol: match mapping.protocol() {
            cri_proto::v1::Protocol::Tcp => Protocol::Tcp,
            cri_proto::v1::Protocol::Udp => Protocol::Udp,
            cri_proto::v1::Protocol::Sctp => Protocol::Sctp,
        },
        host_ip: mapping.host_ip.parse().ok(),
    })
}

/// Bits a second; a Kubernetes quantity with a decimal or binary suffix.
fn rate(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: f64 = match &text[digits.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    (number > 0.0).then_some((number * factor) as u64)
}

/// The host's own hostname.
pub(super) fn node_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}

impl Core {
    /// Takes apart what of a sandbox has been made, and forgets it.
    pub(super) async fn discard_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        if let Err(error) = self.end_sandbox(sandbox).await {
            tracing::warn!(
                sandbox = sandbox.id(),
                error = chain(&error),
                "leftovers of a sandbox that could not be made stay until the next start"
            );
            return;
        }
        self.leave_cgroup(sandbox);
        delete(sandbox.dir());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_is_read_as_a_quantity() {
        assert_eq!(rate("10M"), Some(10_000_000));
        assert_eq!(rate("1Gi"), Some(1 << 30));
        assert_eq!(rate("1.5k"), Some(1500));
        assert_eq!(rate("10 M"), None);
        assert_eq!(rate("-1M"), None);
        assert_eq!(rate("fast"), None);
    }

    #[test]
    fn ports_without_a_host_port_are_not_mapped() {
        let mapping = cri_proto::v1::PortMapping {
            container_port: 80,
            ..Default::default()
        };
        assert!(port(&mapping).is_none());
        let mapping = cri_proto::v1::PortMapping {
            host_port: 8080,
            host_ip: "127.0.0.1".to_owned(),
            ..mapping
        };
        let mapped = port(&mapping).expect("mapped");
        assert_eq!((mapped.host_port, mapped.container_port), (8080, 80));
        assert!(mapped.host_ip.is_some());
    }
}
