//! The runtime behind the CRI socket.

use super::{Finding, Place};
use cri_proto::v1;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const START: &str = "systemctl start lighter, or lighter agent; its log says why it ended";

/// What it answered.
struct Answer {
    version: String,
    conditions: Vec<v1::RuntimeCondition>,
}

pub async fn findings(place: &Place, agent: Option<i32>) -> Vec<Finding> {
    let own = format!("unix://{}", place.socket.display());
    let foreign = place
        .config()
        .container_runtime_endpoint
        .filter(|e| !e.is_empty());
    let endpoint = foreign.unwrap_or(own.clone());
    if endpoint == own && agent.is_none() {
        return vec![not_running(&own, place.joined())];
    }
    match tokio::time::timeout(PATIENCE, ask(&endpoint)).await {
        Ok(Ok(answer)) => conditions(&endpoint, answer),
        Ok(Err(why)) => vec![silent(&endpoint, &why)],
        Err(_) => vec![silent(&endpoint, "no answer within 5s")],
    }
}

async fn ask(endpoint: &str) -> Result<Answer, String> {
    let cri = cri_proto::connect(endpoint)
        .await
        .map_err(|e| format!("{:#}", anyhow::Error::new(e)))?;
    let said = |status: cri_proto::Status| status.message().to_owned();
    let version = cri
        .version(v1::VersionRequest::default())
        .await
        .map_err(said)?;
    let status = cri
        .status(v1::StatusRequest { verbose: false })
        .await
        .map_err(said)?;
    Ok(Answer {
        version: format!("{} {}", version.runtime_name, version.runtime_version),
        conditions: status.status.unwrap_or_default().conditions,
    })
}

fn not_running(socket: &str, joined: bool) -> Finding {
    match joined {
        false => Finding::ok("runtime", "no agent runs yet"),
        true => Finding::error(
            "runtime",
            [
                &format!("nobody serves {socket}"),
                "this machine has joined a cluster, and no agent runs",
                START,
            ],
        ),
    }
}

fn silent(endpoint: &str, why: &str) -> Finding {
    Finding::error(
        "runtime",
        [
            &format!("{endpoint}: {why}"),
            "no pod starts, and the Node is NotReady",
            START,
        ],
    )
}

fn conditions(endpoint: &str, answer: Answer) -> Vec<Finding> {
    let mut all = vec![Finding::ok(
        "runtime",
        format!("{} at {endpoint}", answer.version),
    )];
    for (check, kind, cause, remedy) in [
        (
            "runtime-ready",
            "RuntimeReady",
            "no pod starts",
            "its log says more: journalctl -u lighter",
        ),
        (
            "network-ready",
            "NetworkReady",
            "pods wait for a network, but for those with hostNetwork",
            "see the line cni; the network's DaemonSet may not run yet: kubectl -n kube-system get pods -o wide",
        ),
    ] {
        let found = answer.conditions.iter().find(|c| c.r#type == kind);
        all.push(match found {
            Some(c) if c.status => Finding::ok(check, "yes"),
            Some(c) => Finding::error(
                check,
                [&format!("{}: {}", c.reason, c.message), cause, remedy],
            ),
            None => Finding::error(check, ["the runtime does not say", cause, remedy]),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn condition_that_does_not_hold_is_an_error_with_its_message() {
        let condition = |kind: &str, status| v1::RuntimeCondition {
            r#type: kind.to_owned(),
            status,
            reason: "R".to_owned(),
            message: "cni plugin not initialized".to_owned(),
        };
        let answer = Answer {
            version: "x 1".to_owned(),
            conditions: vec![
                condition("RuntimeReady", true),
                condition("NetworkReady", false),
            ],
        };
        let all = conditions("unix:///s", answer);
        assert_eq!(all[1].verdict, Verdict::Ok);
        assert_eq!(
            (all[2].verdict, all[2].seen.as_str()),
            (Verdict::Error, "R: cni plugin not initialized")
        );
        assert_eq!(not_running("s", true).verdict, Verdict::Error);
        assert_eq!(not_running("s", false).verdict, Verdict::Ok);
    }
}
