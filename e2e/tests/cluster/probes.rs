//! Probes of every kind.

use crate::kit::{AGNHOST, FOREVER, Space, condition, pod, restarts, with, with_main};
use anyhow::{Result, ensure};
use serde_json::json;

crate::tests!(
    readiness_follows_the_probe,
    a_failed_liveness_probe_restarts_the_container,
    a_startup_probe_holds_the_others_back,
    http_tcp_and_grpc_probes_reach_the_pod,
    readiness_gates_hold_a_pod_back,
);

fn readiness_follows_the_probe(t: &Space) -> Result<()> {
    let probe = json!({ "readinessProbe": {
        "exec": { "command": ["test", "-e", "/tmp/ready"] }, "periodSeconds": 1, "failureThreshold": 1,
    }});
    t.apply(&with_main(pod("b", FOREVER), probe))?;
    t.wait("b", "running, not Ready", |p| {
        crate::kit::phase(p) == "Running" && condition(p, "Ready") == Some("False")
    })?;
    t.sh("b", "touch /tmp/ready")?;
    t.wait_ready("b")?;
    t.sh("b", "rm /tmp/ready")?;
    t.wait("b", "not Ready again", |p| {
        condition(p, "Ready") == Some("False")
    })?;
    t.wait_event("b", &["Unhealthy", "Readiness probe failed"])
}

fn a_failed_liveness_probe_restarts_the_container(t: &Space) -> Result<()> {
    let probe = json!({ "livenessProbe": {
        "exec": { "command": ["sh", "-c", "test ! -e /tmp/sick"] }, "periodSeconds": 1, "failureThreshold": 1,
    }});
    t.run(&with_main(pod("b", FOREVER), probe))?;
    t.sh("b", "touch /tmp/sick")?;
    t.wait("b", "restarted", |p| restarts(p) == 1)?;
    t.wait_event("b", &["Killing", "failed liveness probe"])?;
    t.wait_ready("b")
}

fn a_startup_probe_holds_the_others_back(t: &Space) -> Result<()> {
    let probes = json!({
        "startupProbe": { "exec": { "command": ["test", "-e", "/tmp/started"] }, "periodSeconds": 1, "failureThreshold": 60 },
        "livenessProbe": { "exec": { "command": ["test", "-e", "/tmp/started"] }, "periodSeconds": 1, "failureThreshold": 1 },
    });
    t.apply(&with_main(
        pod("b", "sleep 4; touch /tmp/started; sleep 1000"),
        probes,
    ))?;
    t.wait_ready("b")?;
    let restarted = restarts(&t.pod("b")?);
    ensure!(
        restarted == 0,
        "the liveness probe ran too early: {restarted} restarts"
    );
    Ok(())
}

fn http_tcp_and_grpc_probes_reach_the_pod(t: &Space) -> Result<()> {
    let serve = "mkdir /www; echo x > /www/index.html; exec httpd -f -p 8080 -h /www";
    let mut web = with_main(
        pod("web", serve),
        json!({ "ports": [{ "name": "http", "containerPort": 8080 }] }),
    );
    web = with_main(
        web,
        json!({
            "readinessProbe": { "httpGet": { "port": "http", "path": "/" }, "periodSeconds": 1 },
            "livenessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
        }),
    );
    t.run(&web)?;
    let missing = json!({ "readinessProbe": { "httpGet": { "port": 8080, "path": "/no" }, "periodSeconds": 1 } });
    t.apply(&with_main(pod("bad", serve), missing))?;
    t.wait_event("bad", &["Unhealthy", "404"])?;
    let grpc = with(
        pod("grpc", ""),
        json!({ "containers": [{
            "name": "main", "image": AGNHOST, "imagePullPolicy": "IfNotPresent",
            "args": ["grpc-health-checking"],
            "readinessProbe": { "grpc": { "port": 5000 }, "periodSeconds": 1 },
        }]}),
    );
    t.run(&grpc)?;
    let restarted = restarts(&t.pod("web")?);
    ensure!(restarted == 0, "{restarted} restarts by the TCP probe");
    Ok(())
}

fn readiness_gates_hold_a_pod_back(t: &Space) -> Result<()> {
    t.apply(&with(
        pod("b", FOREVER),
        json!({ "readinessGates": [{ "conditionType": "test.io/go" }] }),
    ))?;
    t.wait("b", "containers ready, pod not", |p| {
        condition(p, "ContainersReady") == Some("True") && condition(p, "Ready") == Some("False")
    })?;
    let patch = r#"{"status":{"conditions":[{"type":"test.io/go","status":"True"}]}}"#;
    t.kubectl(&["patch", "pod", "b", "--subresource=status", "-p", patch])?;
    t.wait_ready("b")
}
