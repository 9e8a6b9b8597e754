//! The runtime's words turned into ours.

use super::observed::{ContainerSeen, Exit, Run, SandboxSeen, User};
use super::resize;
use super::spec::labels;
use super::termination_message;
use cri_proto::{Cri, Status, v1};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};

/// Everything the runtime has of one pod.
#[derive(Debug, Clone, Default)]
pub struct PodSeen {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Its sandboxes.
    pub sandboxes: Vec<SandboxSeen>,
    /// Its containers.
    pub containers: Vec<ContainerSeen>,
}

impl PodSeen {
    /// What its newest sandbox says that the pod had been granted.
    #[must_use]
    pub fn granted(&self) -> &str {
        let newest = self.sandboxes.iter().max_by_key(|s| (s.attempt, s.created));
        newest.map_or("", |s| &s.granted)
    }
}

/// Every pod the runtime knows; what has no kubelet's labels is not ours.
///
/// # Errors
/// When a list fails. What vanishes between list and status is left out.
pub async fn all(cri: &dyn Cri) -> Result<BTreeMap<String, PodSeen>, Status> {
    look(cri, HashMap::new()).await
}

/// One pod.
///
/// # Errors
/// As [`all`].
pub async fn pod(cri: &dyn Cri, uid: &str) -> Result<PodSeen, Status> {
    let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
    let mut found = look(cri, selector).await?;
    Ok(found.remove(uid).unwrap_or_default())
}

async fn look(
    cri: &dyn Cri,
    selector: HashMap<String, String>,
) -> Result<BTreeMap<String, PodSeen>, Status> {
    let mut pods: BTreeMap<String, PodSeen> = BTreeMap::new();
    let filter = v1::PodSandboxFilter {
        label_selector: selector.clone(),
        ..v1::PodSandboxFilter::default()
    };
    let request = v1::ListPodSandboxRequest {
        filter: Some(filter),
    };
    for item in cri.list_pod_sandbox(request).await?.items {
        let Some(uid) = item.labels.get(labels::POD_UID) else {
            continue;
        };
        let entry = pods.entry(uid.clone()).or_default();
        name(entry, &item.labels);
        if let Some(seen) = sandbox_status(cri, &item.id).await? {
            entry.sandboxes.push(seen);
        }
    }
    let filter = v1::ContainerFilter {
        label_selector: selector,
        ..v1::ContainerFilter::default()
    };
    let request = v1::ListContainersRequest {
        filter: Some(filter),
    };
    for item in cri.list_containers(request).await?.containers {
        let Some(uid) = item.labels.get(labels::POD_UID) else {
            continue;
        };
        let entry = pods.entry(uid.clone()).or_default();
        name(entry, &item.labels);
        if let Some(seen) = container_status(cri, &item.id, &item.pod_sandbox_id).await? {
            entry.containers.push(seen);
        }
    }
    Ok(pods)
}

fn name(pod: &mut PodSeen, found: &HashMap<String, String>) {
    let of = |key: &str| found.get(key).cloned().unwrap_or_default();
    pod.uid = of(labels::POD_UID);
    pod.namespace = of(labels::POD_NAMESPACE);
    pod.name = of(labels::POD_NAME);
}

/// A sandbox by its id; `None` when there is none.
///
/// # Errors
/// Whatever the runtime answers but NotFound.
pub async fn sandbox_status(cri: &dyn Cri, id: &str) -> Result<Option<SandboxSeen>, Status> {
    let request = v1::PodSandboxStatusRequest {
        pod_sandbox_id: id.to_owned(),
        verbose: false,
    };
    match cri.pod_sandbox_status(request).await {
        Ok(answer) => Ok(answer.status.map(sandbox)),
        Err(status) if status.code() == cri_proto::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// A container by its id; `None` when there is none.
///
/// # Errors
/// Whatever the runtime answers but NotFound.
pub async fn container_status(
    cri: &dyn Cri,
    id: &str,
    sandbox: &str,
) -> Result<Option<ContainerSeen>, Status> {
    let request = v1::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    match cri.container_status(request).await {
        Ok(answer) => Ok(answer.status.map(|s| container(s, sandbox))),
        Err(status) if status.code() == cri_proto::Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// What an event says of its pod; `None` if it is not a kubelet's.
#[must_use]
pub fn event(event: v1::ContainerEventResponse) -> Option<PodSeen> {
    let status = event.pod_sandbox_status?;
    let mut seen = PodSeen::default();
    status.labels.get(labels::POD_UID)?;
    name(&mut seen, &status.labels);
    let id = status.id.clone();
    let own = event.containers_statuses.into_iter();
    seen.containers = own.map(|c| container(c, &id)).collect();
    seen.sandboxes.push(sandbox(status));
    Some(seen)
}

fn sandbox(status: v1::PodSandboxStatus) -> SandboxSeen {
    let network = status.network.clone().unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|i| i.ip);
    let ips = std::iter::once(network.ip).chain(more);
    SandboxSeen {
        ready: status.state() == v1::PodSandboxState::SandboxReady,
        attempt: status.metadata.as_ref().map_or(0, |m| m.attempt),
        created: time(status.created_at),
        ips: ips.filter(|ip| !ip.is_empty()).collect(),
        id: status.id,
        runtime_handler: status.runtime_handler,
        granted: (status.annotations.get(resize::GRANTED).cloned()).unwrap_or_default(),
    }
}

fn container(status: v1::ContainerStatus, sandbox: &str) -> ContainerSeen {
    let metadata = status.metadata.clone().unwrap_or_default();
    let annotation = |key: &str| status.annotations.get(key).cloned();
    let label = |key: &str| status.labels.get(key).cloned();
    let image = status.image.clone().unwrap_or_default();
    let user = status.user.clone().and_then(|u| u.linux);
    ContainerSeen {
        sandbox: sandbox.to_owned(),
        name: label(labels::CONTAINER_NAME).unwrap_or(metadata.name),
        attempt: annotation(labels::RESTART_COUNT)
            .and_then(|c| c.parse().ok())
            .unwrap_or(metadata.attempt),
        run: run(&status),
        created: time(status.created_at),
        image: first_of(image.user_specified_image, image.image),
        image_id: first_of(status.image_ref, status.image_id),
        hash: annotation(labels::CONTAINER_HASH).unwrap_or_default(),
        user: user.map(|u| User {
            uid: u.uid,
            gid: u.gid,
            groups: u.supplemental_groups,
        }),
        log_path: status.log_path,
        id: status.id,
    }
}

fn first_of(one: String, other: String) -> String {
    if one.is_empty() { other } else { one }
}

fn run(status: &v1::ContainerStatus) -> Run {
    match status.state() {
        v1::ContainerState::ContainerCreated => Run::Created,
        v1::ContainerState::ContainerRunning => Run::Running {
            started: time(status.started_at),
        },
        v1::ContainerState::ContainerExited => Run::Exited(exit(status)),
        // Nobody knows what became of it, so it is not counted on.
        v1::ContainerState::ContainerUnknown => Run::Exited(Exit {
            code: 255,
            reason: "ContainerStatusUnknown".into(),
            ..exit(status)
        }),
    }
}

fn exit(status: &v1::ContainerStatus) -> Exit {
    let reason = match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let own = termination_message::read(status);
    Exit {
        code: status.exit_code,
        reason: reason.to_owned(),
        message: match (status.message.as_str(), own.as_str()) {
            (said, "") => said.to_owned(),
            ("", own) => own.to_owned(),
            (said, own) => format!("{said}: {own}"),
        },
        started: (status.started_at > 0).then(|| time(status.started_at)),
        finished: time(status.finished_at),
    }
}

fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}
