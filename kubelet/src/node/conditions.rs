//! MemoryPressure, DiskPressure, PIDPressure, Ready: pure decisions.

use super::disk::Disk;
use super::pressure::Pressure;
use crate::config::Signal;
use cri_proto::v1;
use k8s_openapi::api::core::v1::NodeCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;

/// What was measured; `None` where it could not be.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Available and total bytes.
    pub memory: Option<(u64, u64)>,
    /// Available and largest number.
    pub pids: Option<(u64, u64)>,
    pub nodefs: Option<Disk>,
    pub imagefs: Option<Disk>,
    /// CRI Status, or why there is none.
    pub runtime: Option<Result<v1::RuntimeStatus, String>>,
    /// Whether the machine is about to go down.
    pub going_down: bool,
}

/// The four conditions. Those of `known` that say the same keep their
/// transition time.
pub fn decide(
    seen: &Seen,
    pressure: &Pressure,
    known: &[NodeCondition],
    now: jiff::Timestamp,
) -> Vec<NodeCondition> {
    let memory = pressure.any(&[Signal::MemoryAvailable]);
    let disk = pressure.any(&[
        Signal::NodefsAvailable,
        Signal::NodefsInodesFree,
        Signal::ImagefsAvailable,
        Signal::ImagefsInodesFree,
        Signal::ContainerfsAvailable,
        Signal::ContainerfsInodesFree,
    ]);
    let pid = pressure.any(&[Signal::PidAvailable]);
    let pick = |met, yes: [&str; 2], no: [&str; 2]| {
        if met {
            yes.map(str::to_owned)
        } else {
            no.map(str::to_owned)
        }
    };
    let [memory_reason, memory_message] = pick(
        memory,
        [
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
        ],
        [
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ],
    );
    let [disk_reason, disk_message] = pick(
        disk,
        ["KubeletHasDiskPressure", "kubelet has disk pressure"],
        ["KubeletHasNoDiskPressure", "kubelet has no disk pressure"],
    );
    let [pid_reason, pid_message] = pick(
        pid,
        [
            "KubeletHasInsufficientPID",
            "kubelet has insufficient PID available",
        ],
        [
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ],
    );
    let not_ready = why_not_ready(seen);
    let (ready_reason, ready_message) = match &not_ready {
        None => ("KubeletReady", "kubelet is posting ready status"),
        Some(why) => ("KubeletNotReady", why.as_str()),
    };
    let make = |kind: &str, met: bool, reason: &str, message: &str| {
        condition(
            known,
            now,
            [kind, if met { "True" } else { "False" }, reason, message],
        )
    };
    vec![
        make("MemoryPressure", memory, &memory_reason, &memory_message),
        make("DiskPressure", disk, &disk_reason, &disk_message),
        make("PIDPressure", pid, &pid_reason, &pid_message),
        make("Ready", not_ready.is_none(), ready_reason, ready_message),
    ]
}

fn condition(known: &[NodeCondition], now: jiff::Timestamp, fields: [&str; 4]) -> NodeCondition {
    let [kind, status, reason, message] = fields;
    let old = known.iter().find(|c| c.type_ == kind && c.status == status);
    let since = old.and_then(|c| c.last_transition_time.clone());
    NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    }
}

/// `None` when pods can run.
fn why_not_ready(seen: &Seen) -> Option<String> {
    let down = seen.going_down.then(|| "node is shutting down".to_owned());
    let reasons = [unusable(seen.runtime.as_ref()), down];
    let reasons: Vec<_> = reasons.into_iter().flatten().collect();
    (!reasons.is_empty()).then(|| reasons.join(", "))
}

fn unusable(runtime: Option<&Result<v1::RuntimeStatus, String>>) -> Option<String> {
    let status = match runtime {
        None => {
            return Some("container runtime status check may not have completed yet".to_owned());
        }
        Some(Err(e)) => return Some(format!("container runtime is down: {e}")),
        Some(Ok(status)) => status,
    };
    let problem = |kind: &str, what: &str| match status.conditions.iter().find(|c| c.r#type == kind)
    {
        Some(c) if c.status => None,
        Some(c) => Some(format!(
            "{what} not ready: {kind}=false reason:{} message:{}",
            c.reason, c.message
        )),
        None => Some(format!(
            "{what} not ready: the runtime does not report {kind}"
        )),
    };
    let problems = [
        problem("RuntimeReady", "container runtime"),
        problem("NetworkReady", "container runtime network"),
    ];
    let problems: Vec<_> = problems.into_iter().flatten().collect();
    (!problems.is_empty()).then(|| problems.join(", "))
}

/// Whether the runtime could still be starting: a node that was Ready is not
/// called otherwise for that in the agent's first moments.
pub fn is_settling(since_start: Duration, seen: &Seen) -> bool {
    since_start < crate::defaults::SETTLING && unusable(seen.runtime.as_ref()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(network: bool) -> Seen {
        let condition = |kind: &str, status| v1::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: "R".into(),
            message: "m".into(),
        };
        Seen {
            runtime: Some(Ok(v1::RuntimeStatus {
                conditions: vec![
                    condition("RuntimeReady", true),
                    condition("NetworkReady", network),
                ],
            })),
            ..Seen::default()
        }
    }

    fn ready(seen: &Seen, known: &[NodeCondition], at: i64) -> NodeCondition {
        let now = jiff::Timestamp::from_second(at).unwrap();
        decide(seen, &Pressure::default(), known, now)
            .pop()
            .unwrap()
    }

    #[test]
    fn node_is_ready_when_runtime_and_network_are() {
        assert_eq!(ready(&runtime(true), &[], 1).status, "True");
        let not = ready(&runtime(false), &[], 1);
        assert_eq!(not.status, "False");
        assert_eq!(
            not.message.as_deref(),
            Some("container runtime network not ready: NetworkReady=false reason:R message:m")
        );
    }

    #[test]
    fn node_that_is_about_to_go_down_is_not_ready() {
        let mut seen = runtime(true);
        seen.going_down = true;
        let not = ready(&seen, &[], 1);
        assert_eq!(not.status, "False");
        assert_eq!(not.message.as_deref(), Some("node is shutting down"));
        assert!(!is_settling(Duration::ZERO, &seen));
    }

    #[test]
    fn transition_time_moves_only_when_the_status_changes() {
        let first = ready(&runtime(true), &[], 1);
        let same = ready(&runtime(true), std::slice::from_ref(&first), 2);
        assert_eq!(same.last_transition_time, first.last_transition_time);
        assert_ne!(same.last_heartbeat_time, first.last_heartbeat_time);
        let other = ready(&runtime(false), std::slice::from_ref(&first), 3);
        assert_ne!(other.last_transition_time, first.last_transition_time);
    }
}
