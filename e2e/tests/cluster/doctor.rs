//! `lighter doctor` on the node.

use crate::kit::{FOREVER, Space, has, pod, same};
use crate::survival::with_agent_down;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

crate::tests!(
    doctor_finds_a_healthy_node_and_what_was_broken: our_kubelet: our_runtime,
    doctor_finds_that_no_agent_runs: alone: our_kubelet: our_runtime,
);

/// The exit code and the report.
fn doctor(t: &Space, args: &[&str]) -> Result<(i32, Value)> {
    let mut doctor = t.node().command("lighter");
    let root = format!("--cgroup-root=/{}", t.node().cgroup);
    let output = e2e::command::output(doctor.args(["doctor", "--output=json", &root]).args(args))?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code().unwrap_or(-1), report))
}

fn finding<'a>(report: &'a Value, check: &str) -> Result<&'a Value> {
    let found = report["findings"].as_array().into_iter().flatten();
    let mut found = found.filter(|f| f["check"] == check);
    found
        .next()
        .with_context(|| format!("no finding {check} in {report}"))
}

/// Its verdict and what it says.
fn says(report: &Value, check: &str, verdict: &str, words: &[&str]) -> Result<()> {
    let found = finding(report, check)?;
    same((check, &found["verdict"]), (check, &Value::from(verdict)))?;
    words
        .iter()
        .try_for_each(|word| has(&found.to_string(), word))?;
    let is_told = found["cause"].is_string() && found["remedy"].is_string();
    ensure!(verdict == "ok" || is_told, "no cause or no remedy: {found}");
    Ok(())
}

fn doctor_finds_a_healthy_node_and_what_was_broken(t: &Space) -> Result<()> {
    let (code, report) = doctor(t, &[])?;
    let findings = report["findings"].as_array().map_or(0, Vec::len);
    ensure!(findings > 35, "{findings} findings");
    for (check, words) in [
        ("api-server", "runs v1.37"),
        ("node", "Ready"),
        ("clock", "API server"),
        ("client-cert", "days left"),
        ("runtime", "lighter"),
        ("network-ready", "yes"),
        ("port-kubelet", "the agent's"),
        ("port-healthz", "the agent's"),
        ("overlay-mount", "works"),
        ("pods", "processes run in pods"),
    ] {
        says(&report, check, "ok", &[words])?;
    }
    let errors = report["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|f| f["verdict"] == "error");
    same((code, errors.collect::<Vec<_>>()), (0, Vec::new()))?;
    broken(t)
}

fn broken(t: &Space) -> Result<()> {
    let dir = format!("/tmp/{}", t.name);
    let conf = std::fs::read_to_string(t.node().path("/etc/kubernetes/kubelet.conf"))?;
    t.node().write(
        &format!("{dir}/kubelet.conf"),
        &conf.replace(":6443", ":6444"),
    )?;
    t.node()
        .write(&format!("{dir}/config.yaml"), "maxPods: many\n")?;
    t.node().write(
        &format!("{dir}/net.d/10-x.conflist"),
        r#"{"plugins": [{"type": "nobodys"}]}"#,
    )?;
    t.node().write(
        &format!("{dir}/lighter.yaml"),
        &format!("cniConfDir: {dir}/net.d\n"),
    )?;
    t.node()
        .write(&format!("{dir}/pki/kubelet-client-current.pem"), "no PEM")?;
    let flags = [
        format!("--kubeconfig={dir}/kubelet.conf"),
        format!("--config={dir}/config.yaml"),
        format!("--runtime-config={dir}/lighter.yaml"),
        format!("--cert-dir={dir}/pki"),
        format!("--state={dir}/state"),
    ];
    let (code, report) = doctor(t, &flags.each_ref().map(String::as_str))?;
    same((code, &report["verdict"]), (1, &Value::from("error")))?;
    says(&report, "kubelet-config", "error", &["maxPods"])?;
    says(&report, "cni", "error", &["nobodys"])?;
    says(&report, "client-cert", "error", &["no certificate"])?;
    says(
        &report,
        "runtime",
        "error",
        &["nobody serves", "systemctl start lighter"],
    )?;
    says(
        &report,
        "port-kubelet",
        "error",
        &["10250 is taken by lighter"],
    )?;
    // With a certificate that can be used, it is the server that is not there.
    let (code, report) = doctor(t, &[&flags[0]])?;
    says(
        &report,
        "api-server",
        "error",
        &["6444", "refused", "curl -k"],
    )?;
    same(code, 1)
}

fn doctor_finds_that_no_agent_runs(t: &Space) -> Result<()> {
    t.run(&pod("lonely", FOREVER))?;
    with_agent_down(t, |t| {
        let (code, report) = doctor(t, &[])?;
        same(code, 1)?;
        says(&report, "runtime", "error", &["no agent runs"])?;
        says(&report, "pods", "warning", &["no agent does"])?;
        says(&report, "mounts", "warning", &["never rm -rf"])?;
        says(&report, "port-kubelet", "ok", &["free"])?;
        let mut text = t.node().command("lighter");
        let output = e2e::command::output(text.arg("check"))?;
        same(output.status.code(), Some(1))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        has(&said, "ERROR    runtime")?;
        has(&said, "-> systemctl start lighter")?;
        has(&said, " errors\n")
    })
}
