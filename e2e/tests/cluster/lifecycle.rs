//! How pods end and are replaced.

use crate::kit::{FOREVER, Space, has, pod, same, with, with_main};
use anyhow::{Result, ensure};
use e2e::image::catalog::STOP_SIGNAL;
use e2e::progress;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

crate::tests!(
    delete_runs_pre_stop_then_terminates_within_the_grace,
    delete_kills_after_the_grace_and_not_before,
    delete_now_ends_a_pod_at_once,
    stop_signal_of_a_container_ends_it: our_kubelet,
    stop_signal_of_the_image_ends_a_container_that_names_none,
    post_start_runs_before_the_container_is_ready,
    rollout_of_a_new_version_fails_no_request,
);

fn delete_runs_pre_stop_then_terminates_within_the_grace(t: &Space) -> Result<()> {
    let hook = json!({ "lifecycle": { "preStop": { "exec": {
        "command": ["sh", "-c", "echo pre-stop > /proc/1/fd/1; sleep 1"],
    }}}});
    let script = "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.1; done";
    let spec = json!({ "terminationGracePeriodSeconds": 20 });
    t.run(&with_main(with(pod("b", script), spec), hook))?;
    let mut follow = t.background(&["logs", "-f", "b"])?;
    follow.wait_text("up")?;
    let start = Instant::now();
    t.kubectl(&["delete", "pod", "b", "--wait=false"])?;
    follow.end()?;
    t.wait_gone("b")?;
    let text = follow.text();
    let (stop, term) = (text.find("pre-stop"), text.find("term"));
    ensure!(
        stop.is_some() && term > stop,
        "order of preStop and SIGTERM: {text:?}"
    );
    ensure!(
        start.elapsed().as_secs() < 15,
        "the whole grace was waited for"
    );
    Ok(())
}

fn delete_kills_after_the_grace_and_not_before(t: &Space) -> Result<()> {
    t.run(&pod("b", "trap '' TERM; while :; do sleep 0.2; done"))?;
    let start = Instant::now();
    t.kubectl(&["delete", "pod", "b", "--grace-period=4"])?;
    t.wait_gone("b")?;
    let took = start.elapsed().as_secs_f64();
    ensure!(
        (3.5..20.0).contains(&took),
        "gone after {took:.1} s with a grace of 4 s"
    );
    Ok(())
}

fn delete_now_ends_a_pod_at_once(t: &Space) -> Result<()> {
    let spec = json!({ "terminationGracePeriodSeconds": 120 });
    t.run(&with(
        pod("b", "trap '' TERM; while :; do sleep 0.2; done"),
        spec,
    ))?;
    let start = Instant::now();
    t.kubectl(&["delete", "pod", "b", "--now"])?;
    ensure!(
        start.elapsed().as_secs() < 30,
        "it took {:?}",
        start.elapsed()
    );
    t.wait_gone("b")
}

/// In a static pod: the API server takes the field only with a feature that is off by default, as
/// the stock kubelet does.
fn stop_signal_of_a_container_ends_it(t: &Space) -> Result<()> {
    let script = "trap 'echo usr1 >/seen/signal; exit 0' USR1; trap 'echo term >/seen/signal; exit 0' TERM; \
                  echo >/seen/ready; while :; do sleep 0.1; done";
    let dir = format!("/var/lib/{}", t.name);
    let volume =
        json!({ "name": "seen", "hostPath": { "path": dir, "type": "DirectoryOrCreate" } });
    let mut manifest = with_main(
        with(
            pod("still", script),
            json!({ "os": { "name": "linux" }, "volumes": [volume] }),
        ),
        json!({
            "lifecycle": { "stopSignal": "SIGUSR1" },
            "volumeMounts": [{ "name": "seen", "mountPath": "/seen" }],
        }),
    );
    manifest["metadata"]["namespace"] = json!(t.name);
    let path = format!("/etc/kubernetes/manifests/{}.json", t.name);
    t.node().write(&path, &manifest.to_string())?;
    let mirror = format!("still-{}", t.node().name);
    // A shell that has just been started has no traps yet, and the mirror pod may go before the
    // container has ended.
    let written = |file: &str| {
        let path = format!("{dir}/{file}");
        progress::wait_for(file, Duration::from_secs(60), || {
            std::thread::sleep(Duration::from_millis(50));
            let text = t.node().run("cat", &[&path]).ok();
            Ok(text.filter(|text| text.ends_with('\n')))
        })
    };
    let ready = t.wait_ready(&mirror).and_then(|_| written("ready"));
    std::fs::remove_file(t.node().path(&path))?;
    ready?;
    t.wait_gone(&mirror)?;
    same(written("signal")?.trim(), "usr1")
}

fn stop_signal_of_the_image_ends_a_container_that_names_none(t: &Space) -> Result<()> {
    let script = "trap 'echo usr1; exit 0' USR1; trap 'echo term; exit 0' TERM; echo up; \
                  while :; do sleep 0.1; done";
    let grace = json!({ "terminationGracePeriodSeconds": 20 });
    let image = json!({ "image": STOP_SIGNAL.names[0] });
    let ended = |name: &str, manifest: &Value| -> Result<String> {
        t.run(manifest)?;
        let mut follow = t.background(&["logs", "-f", name])?;
        // A shell that has just been started has no traps yet.
        follow.wait_text("up")?;
        t.kubectl(&["delete", "pod", name, "--wait=false"])?;
        follow.end()?;
        t.wait_gone(name)?;
        let words = follow.text();
        Ok(words.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let plain = with(pod("plain", script), grace);
    let image = with_main(plain.clone(), image);
    same(ended("plain", &image)?.as_str(), "up usr1")?;
    // The same without it.
    same(ended("plain", &plain)?.as_str(), "up term")
}

fn post_start_runs_before_the_container_is_ready(t: &Space) -> Result<()> {
    let hook = json!({ "lifecycle": { "postStart": { "exec": {
        "command": ["sh", "-c", "sleep 1; touch /tmp/hooked"],
    }}}});
    t.run(&with_main(pod("b", FOREVER), hook))?;
    t.sh("b", "test -e /tmp/hooked").map(drop)
}

fn web(version: &str) -> Value {
    let script =
        format!("mkdir /www; echo {version} > /www/index.html; exec httpd -f -p 80 -h /www");
    let mut container = crate::kit::container("web", &script);
    container["readinessProbe"] =
        json!({ "httpGet": { "port": 80, "path": "/" }, "periodSeconds": 1 });
    container["lifecycle"] = json!({ "preStop": { "exec": { "command": ["sleep", "3"] } } });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": {
                "terminationGracePeriodSeconds": 10, "containers": [container],
            }},
        },
    })
}

fn rollout_of_a_new_version_fails_no_request(t: &Space) -> Result<()> {
    t.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
    }))?;
    t.apply(&web("one"))?;
    let rolled = || t.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    rolled()?;
    // Rules follow endpoints by a moment: the client begins when the service answers.
    let client = "until wget -q -T 2 -O- http://web/ >/dev/null; do sleep 0.1; done; echo begin; \
        while :; do wget -q -T 5 -O- http://web/ || echo FAILED; sleep 0.03; done";
    t.run(&pod("client", client))?;
    t.wait_log("client", "one")?;
    t.apply(&web("two"))?;
    rolled()?;
    t.wait_log("client", "two")?;
    // The last old pod sleeps in its preStop hook and goes after that.
    std::thread::sleep(Duration::from_secs(5));
    let log = t.logs("client")?;
    let failed = log
        .lines()
        .skip_while(|l| *l != "begin")
        .filter(|l| *l == "FAILED")
        .count();
    ensure!(
        failed == 0,
        "{failed} of {} requests failed",
        log.lines().count()
    );
    has(&log, "two")
}
