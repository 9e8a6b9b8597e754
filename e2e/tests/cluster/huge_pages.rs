//! Huge pages: what the node has of them, emptyDirs that are made of them, and who may have how
//! many. The machine's number of pages is put back afterwards.

use crate::kit::{FOREVER, Space, container, phase, pod, same, with, with_main};
use crate::managers::with_settings;
use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::{cgroup, progress};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

crate::tests!(
    huge_pages_are_given_to_pods_and_their_volumes_and_taken_back: alone,
);

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
/// Pages of 2 MiB that are made for the test.
const PAGES: u64 = 8;
const NAME: &str = "hugepages-2Mi";

fn huge_pages_are_given_to_pods_and_their_volumes_and_taken_back(t: &Space) -> Result<()> {
    // The kubelet is started anew without the pages, too: it looks at them once.
    with_settings(t, |t, settings| {
        let before = number("nr_hugepages")?;
        let all = format!("{POOL}/nr_hugepages");
        fs::write(&all, (before + PAGES).to_string())?;
        let result = given(t, before, || settings.add(""));
        // Those that a pod still has go when it does.
        let back = fs::write(&all, before.to_string());
        result.and(back.map_err(Into::into))
    })
}

fn given(t: &Space, before: u64, start: impl Fn() -> Result<()>) -> Result<()> {
    let pages = number("nr_hugepages")?;
    ensure!(
        pages == before + PAGES,
        "the machine made {pages} huge pages"
    );
    start()?;
    node_has(t, &format!("{}Mi", pages * 2))?;
    let free = number("free_hugepages")?;
    t.run(&uses())?;
    mounted(t)?;
    held(t, free)?;
    told(t)?;
    let grouped = with(
        volumes("grouped", &[("any", "HugePages")]),
        json!({
            "securityContext": { "fsGroup": 4321, "runAsUser": 1000 },
        }),
    );
    t.run(&grouped)?;
    same(t.sh("grouped", "stat -c '%a %g' /any")?.trim(), "2775 4321")?;
    t.sh("grouped", "truncate -s 2M /any/file")?;
    refused(t)?;
    t.kubectl(&["delete", "pod", "uses", "grouped"])?;
    progress::wait_for("pages given back", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(200));
        Ok((number("free_hugepages")? == free).then_some(()))
    })?;
    limited(t)
}

/// A pod with volumes of huge pages at `/<name>`, that asks for two pages.
fn volumes(name: &str, media: &[(&str, &str)]) -> Value {
    let list = json!({ "cpu": "100m", "memory": "64Mi", NAME: "4Mi" });
    let mount = |(name, _): &(&str, &str)| json!({ "name": name, "mountPath": format!("/{name}") });
    let volume =
        |(name, medium): &(&str, &str)| json!({ "name": name, "emptyDir": { "medium": medium } });
    let own = json!({
        "resources": { "requests": list, "limits": list },
        "volumeMounts": media.iter().map(mount).collect::<Vec<_>>(),
    });
    let all: Vec<Value> = media.iter().map(volume).collect();
    with(
        with_main(pod(name, FOREVER), own),
        json!({ "volumes": all }),
    )
}

/// One that has both kinds, and a container beside it that asks for no pages.
fn uses() -> Value {
    let mut uses = volumes("uses", &[("any", "HugePages"), ("named", "HugePages-2Mi")]);
    let mut other = container("other", FOREVER);
    other["volumeMounts"] = json!([{ "name": "any", "mountPath": "/any" }]);
    if let Some(containers) = uses["spec"]["containers"].as_array_mut() {
        containers.push(other);
    }
    uses
}

fn mounted(t: &Space) -> Result<()> {
    for name in ["any", "named"] {
        let line = t.sh("uses", &format!("grep ' /{name} ' /proc/mounts"))?;
        let is = line.contains(" hugetlbfs ") && line.contains("pagesize=2M");
        ensure!(is, "/{name}: {line}");
    }
    same(t.sh("uses", "stat -c '%a %g' /any")?.trim(), "755 0")
}

/// What is written takes pages, others see it, and nobody gets more than he asked for.
fn held(t: &Space, free: u64) -> Result<()> {
    t.sh("uses", "fallocate -l 4194304 /any/file")?;
    same(number("free_hugepages")?, free - 2)?;
    let other = |script: &str| {
        let words = ["exec", "uses", "-c", "other", "--", "sh", "-c", script];
        t.output(&words)
    };
    let seen = other("stat -c %s /any/file")?;
    same(String::from_utf8_lossy(&seen.stdout).trim(), "4194304")?;
    if cgroup::unified() {
        let more = t.sh("uses", "fallocate -l 2097152 /named/more");
        ensure!(more.is_err(), "a third page of two was had");
        let some = other("fallocate -l 2097152 /any/some")?;
        ensure!(
            !some.status.success(),
            "a page was had that nobody asked for"
        );
        same(number("free_hugepages")?, free - 2)?;
    }
    Ok(())
}

/// The summary knows the volume, and counts none of it as storage on disk.
fn told(t: &Space) -> Result<()> {
    let url = format!("/api/v1/nodes/{}/proxy/stats/summary", t.node().name);
    let mut last = Value::Null;
    // The stock kubelet looks at volumes once a minute.
    let limit = Duration::from_secs(150);
    progress::wait_for("the volume in the summary", limit, || {
        std::thread::sleep(Duration::from_millis(500));
        let summary: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &url])?)?;
        let mut pods = summary["pods"].as_array().into_iter().flatten();
        let found =
            pods.find(|p| p["podRef"]["name"] == "uses" && p["podRef"]["namespace"] == *t.name);
        last = found.cloned().unwrap_or_default();
        let mut volumes = last["volume"].as_array().into_iter().flatten();
        let any = volumes.find(|v| v["name"] == "any");
        let used = any.and_then(|v| v["usedBytes"].as_u64());
        Ok(used.filter(|used| *used >= 4 << 20).map(drop))
    })
    .map_err(|e| anyhow!("{e}: {last}"))?;
    let disk = last["ephemeral-storage"]["usedBytes"].as_u64();
    let disk = disk.context("no ephemeral-storage")?;
    ensure!(disk < 4 << 20, "{disk} bytes on disk");
    Ok(())
}

/// A volume of pages that the pod does not ask for.
fn refused(t: &Space) -> Result<()> {
    let mount = json!({ "volumeMounts": [{ "name": "any", "mountPath": "/any" }] });
    let plain = with(
        with_main(pod("plain", FOREVER), mount),
        json!({
            "volumes": [{ "name": "any", "emptyDir": { "medium": "HugePages" } }],
        }),
    );
    t.apply(&plain)?;
    t.wait_event("plain", &["FailedMount", "any", "HugePages"])?;
    t.apply(&volumes("odd", &[("odd", "HugePages-1Gi")]))?;
    t.wait_event("odd", &["FailedMount", "odd", "HugePages-1Gi"])?;
    t.kubectl(&["delete", "pod", "plain", "odd"]).map(drop)
}

/// A limit of the volume is held by eviction: the kernel does not know it.
fn limited(t: &Space) -> Result<()> {
    let mut pod = volumes("limited", &[("any", "HugePages")]);
    pod["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = "2Mi".into();
    t.run(&pod)?;
    t.sh("limited", "fallocate -l 4194304 /any/file")?;
    t.wait_for("limited", "evicted", 180, |p| {
        phase(p) == "Failed" && p["status"]["reason"] == "Evicted"
    })?;
    t.wait_event("limited", &["Evicted", "exceeds the limit"])?;
    t.kubectl(&["delete", "pod", "limited"]).map(drop)
}

fn node_has(t: &Space, amount: &str) -> Result<()> {
    let mut last = Value::Null;
    let what = format!("{amount} of {NAME}");
    progress::wait_for(&what, Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        let node = t.kubectl(&["get", "node", &t.node().name, "-o", "json"]);
        let node: Value = serde_json::from_str(&node.unwrap_or_default()).unwrap_or_default();
        let of = |list: &str| node["status"][list][NAME].clone();
        last = json!([of("capacity"), of("allocatable")]);
        Ok((last == json!([amount, amount])).then_some(()))
    })
    .map_err(|e| anyhow!("{e}: {last}"))
}

/// A number of the pool of pages.
fn number(file: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("{POOL}/{file}"))?;
    text.trim().parse().with_context(|| text.clone())
}
