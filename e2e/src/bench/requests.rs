//! What a node asks of the API server in the same life of pods: kinds, numbers, and whether any
//! was for nothing.

use super::Options;
use super::api::{self, Api, Watch};
use crate::cluster::{Bed, audit, down};
use crate::node::Kind;
use crate::progress::step;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PODS: usize = 10;
/// Leases are renewed every ten seconds, caches asked anew every minute.
const IDLE: Duration = Duration::from_secs(90);
/// A container that fails is started again after 10 s and 20 s.
const CRASHES: Duration = Duration::from_secs(45);

/// What one node has asked for, from its first request on.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub kind: Kind,
    pub requests: BTreeMap<String, usize>,
    /// With what the API server said.
    pub denied: Vec<String>,
    /// Writes after which the object was the same as before.
    pub idle: Vec<String>,
}

pub fn bench(bed: &Bed, options: &Options) -> Result<Vec<Figures>> {
    let one = |kind: &Kind| {
        let cluster = super::cluster(bed, options, "bench-requests", *kind)?;
        let lived = Api::proxied(&cluster.control_plane, |api| live(api, *kind));
        // The log is written beside the requests.
        std::thread::sleep(Duration::from_secs(2));
        let requests = audit::read(&cluster.control_plane);
        down::down(bed, &cluster.name)?;
        lived.with_context(|| format!("requests of {kind}"))?;
        Ok(figures(*kind, &requests?))
    };
    options.kinds.iter().map(one).collect()
}

fn figures(kind: Kind, requests: &[audit::Request]) -> Figures {
    let denied = audit::denied(requests);
    let idle = audit::idle(requests);
    Figures {
        kind,
        requests: audit::count(requests),
        denied: denied.iter().map(ToString::to_string).collect(),
        idle: idle.iter().map(ToString::to_string).collect(),
    }
}

/// The same for every node: pods one by one and at once, with what they read changed, failing,
/// ending by themselves, and nothing at all for a while.
fn live(api: &Api, kind: Kind) -> Result<()> {
    let mut watch = api.watch()?;
    api.post("secrets", &object("Secret", "stringData", "one"))?;
    api.post("configmaps", &object("ConfigMap", "data", "one"))?;
    let names: Vec<String> = (0..PODS).map(|i| format!("pod-{i}")).collect();
    step(&format!("{kind}: {PODS} pods one by one"), || {
        for name in &names {
            watch.ready(std::slice::from_ref(name), || api.post("pods", &pod(name)))?;
            watch.gone(std::slice::from_ref(name), || api.delete(name))?;
        }
        Ok(())
    })?;
    step(
        &format!("{kind}: {PODS} pods at once, changed and idle"),
        || {
            watch.ready(&names, || {
                names.iter().try_for_each(|n| api.post("pods", &pod(n)))
            })?;
            api.put("secrets/read", &object("Secret", "stringData", "two"))?;
            api.put("configmaps/read", &object("ConfigMap", "data", "two"))?;
            std::thread::sleep(IDLE);
            watch.gone(&names, || names.iter().try_for_each(|n| api.delete(n)))?;
            Ok(())
        },
    )?;
    step(&format!("{kind}: a pod that fails, one that ends"), || {
        failing(api, &mut watch)
    })
}

fn failing(api: &Api, watch: &mut Watch) -> Result<()> {
    let mut fails = pod("fails");
    fails["spec"]["containers"][0]["command"] = json!(["false"]);
    let mut ends = pod("ends");
    ends["spec"]["containers"][0]["command"] = json!(["true"]);
    ends["spec"]["restartPolicy"] = "Never".into();
    let over = |event: &Value| event["object"]["status"]["phase"] == "Succeeded";
    watch.clock(&["ends".into()], || api.post("pods", &ends), over)?;
    api.post("pods", &fails)?;
    std::thread::sleep(CRASHES);
    let both = ["fails".into(), "ends".into()];
    watch.gone(&both, || {
        api.delete("fails")?;
        api.delete("ends")
    })?;
    Ok(())
}

fn object(kind: &str, field: &str, content: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": kind, "metadata": { "name": "read" },
        field: { "content": content },
    })
}

/// Reads a Secret, a ConfigMap and a token; is probed.
fn pod(name: &str) -> Value {
    let mut pod = api::pod(name);
    let container = &mut pod["spec"]["containers"][0];
    container["readinessProbe"] = json!({ "exec": { "command": ["true"] }, "periodSeconds": 5 });
    container["env"] = json!([{ "name": "CONTENT", "valueFrom": {
        "configMapKeyRef": { "name": "read", "key": "content" } } }]);
    container["volumeMounts"] = json!([{ "name": "read", "mountPath": "/read" }]);
    pod["spec"]["volumes"] = json!([{ "name": "read", "secret": { "secretName": "read" } }]);
    pod
}

/// A line a kind, and what there is to say against either side.
pub fn table(all: &[Figures]) -> String {
    let mut text = format!("\n{:<56}", "requests to the API server");
    all.iter()
        .for_each(|f| text += &format!("{:>12}", f.kind.to_string()));
    let kinds: BTreeSet<&String> = all.iter().flat_map(|f| f.requests.keys()).collect();
    for kind in kinds {
        text += &format!("\n{kind:<56}");
        for figures in all {
            text += &format!("{:>12}", figures.requests.get(kind).unwrap_or(&0));
        }
    }
    text += &format!("\n{:<56}", "all");
    for figures in all {
        text += &format!("{:>12}", figures.requests.values().sum::<usize>());
    }
    text += "\n";
    for figures in all {
        for denied in &figures.denied {
            text += &format!("{}: denied: {denied}\n", figures.kind);
        }
        for idle in &figures.idle {
            text += &format!("{}: changed nothing: {idle}\n", figures.kind);
        }
    }
    text
}

pub fn json(all: &[Figures]) -> Value {
    json!(all)
}
