//! The API server, the clock, and what the cluster says of this node.

use super::{Finding, Place};
use kubelet::api::{Probe, Standing};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
/// Ours: tokens and certificates that are just issued are refused beyond this, in seconds.
const SKEW_WARNING: i64 = 5;
const SKEW_ERROR: i64 = 60;

pub async fn findings(place: &Place) -> Vec<Finding> {
    if !place.kubeconfig.exists() {
        let seen = match place.bootstrap_kubeconfig.exists() {
            true => "the agent will ask for a certificate with the bootstrap kubeconfig",
            false => "not joined yet: lighter join HOST:6443 --token …",
        };
        return vec![Finding::ok("api-server", seen)];
    }
    let name = place.name().unwrap_or_default();
    let probe = kubelet::api::probe(&place.kubeconfig, &place.pki, &name);
    match tokio::time::timeout(PATIENCE, probe).await {
        Ok(Ok(probe)) => judge(&probe),
        Ok(Err(e)) => vec![unusable(place, &format!("{:#}", anyhow::Error::new(e)))],
        Err(_) => vec![unreachable("the API server", "no answer within 5s")],
    }
}

fn unusable(place: &Place, why: &str) -> Finding {
    let seen = format!("{}: {why}", place.kubeconfig.display());
    let remedy = "lighter reset, then lighter join";
    Finding::error(
        "api-server",
        [&seen, "the agent can't speak to the cluster", remedy],
    )
}

fn unreachable(server: &str, why: &str) -> Finding {
    let cause =
        "pods run on, but nothing new comes and nothing is reported; the Node becomes NotReady";
    let remedy = format!(
        "is it up, and the way there open? curl -k {}/readyz",
        server.trim_end_matches('/')
    );
    Finding::error("api-server", [&format!("{server}: {why}"), cause, &remedy])
}

fn judge(probe: &Probe) -> Vec<Finding> {
    let mut all = vec![match &probe.version {
        Ok(version) => Finding::ok("api-server", format!("{} runs {version}", probe.server)),
        Err(why) => unreachable(&probe.server, why),
    }];
    all.extend(probe.skew.map(clock));
    if probe.version.is_ok() {
        all.push(node(&probe.node));
    }
    all
}

fn clock(skew: i64) -> Finding {
    let seen = format!(
        "{} s {} the API server's",
        skew.abs(),
        if skew < 0 { "behind" } else { "ahead of" }
    );
    let words = [
        seen.as_str(),
        "certificates and tokens that are just issued count as not valid yet, or as over",
        "timedatectl set-ntp true, or another NTP client",
    ];
    match skew.abs() {
        0..SKEW_WARNING => Finding::ok("clock", "the API server's"),
        SKEW_WARNING..SKEW_ERROR => Finding::warning("clock", words),
        _ => Finding::error("clock", words),
    }
}

fn node(standing: &Standing) -> Finding {
    const CHECK: &str = "node";
    match standing {
        Standing::Ready => Finding::ok(CHECK, "Ready"),
        Standing::NotReady { reason, message } => Finding::error(
            CHECK,
            [
                &format!("NotReady: {reason}: {message}"),
                "no pod is scheduled here, and those that are here leave after five minutes",
                "the lines above with ERROR; then: kubectl describe node",
            ],
        ),
        Standing::Missing => Finding::warning(
            CHECK,
            [
                "the cluster has no Node of this name",
                "it was deleted, or has another name (--hostname-override)",
                "start the agent: it registers",
            ],
        ),
        Standing::Refused(why) => Finding::error(
            CHECK,
            [
                why,
                "the API server does not take this node's certificate",
                "lighter reset, then lighter join",
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn probe(version: Result<String, String>, node: Standing) -> Probe {
        Probe {
            server: "https://h:6443/".to_owned(),
            version,
            skew: Some(0),
            node,
        }
    }

    #[test]
    fn silent_server_is_one_error_and_not_two() {
        let all = judge(&probe(Err("refused".to_owned()), Standing::Missing));
        let errors = all.iter().filter(|f| f.verdict == Verdict::Error).count();
        assert_eq!(errors, 1, "{all:?}");
        assert!(all[0].remedy.contains("curl -k https://h:6443/readyz"));
    }

    #[test]
    fn node_that_is_not_ready_is_told_with_its_message() {
        let standing = Standing::NotReady {
            reason: "KubeletNotReady".to_owned(),
            message: "node is shutting down".to_owned(),
        };
        let all = judge(&probe(Ok("v1".to_owned()), standing));
        assert!(all[2].seen.ends_with("node is shutting down"), "{all:?}");
    }

    #[test]
    fn clock_may_differ_by_seconds_only() {
        assert_eq!(
            [0, -4, 5, -59, 60].map(|s| clock(s).verdict),
            [
                Verdict::Ok,
                Verdict::Ok,
                Verdict::Warning,
                Verdict::Warning,
                Verdict::Error,
            ]
        );
    }
}
