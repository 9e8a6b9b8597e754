//! What an OpenTelemetry collector is told, by OpenTelemetry's own reading of it.

use crate::eviction::{CONFIG, restart_with};
use crate::kit::{FOREVER, Running, Space, pod, same};
use anyhow::{Context, Result, ensure};
use e2e::node::Maker;
use e2e::peer::{self, COLLECTOR};
use e2e::progress;
use serde_json::Value;
use std::fs;
use std::time::Duration;

crate::tests!(
    work_on_a_pod_is_traced_with_its_calls_of_the_runtime: alone,
    traces_reach_a_collector_that_comes_late_on_a_unix_socket: alone: our_kubelet,
);

const TCP: &str = "127.0.0.1:4317";
const UNIX: &str = "unix:/run/otel.sock";
const KEPT: &str = "/tmp/traces.json";

/// On the node; it ends with the test.
struct Collector<'a> {
    t: &'a Space<'a>,
    child: Option<Running>,
}

impl<'a> Collector<'a> {
    fn start(t: &'a Space<'a>, address: &str) -> Result<Collector<'a>> {
        let bed = &t.suite.bed;
        let program = peer::path(&bed.cache, &bed.peers(), &COLLECTOR)?;
        let name = format!("collector-{}", t.name);
        t.node().install(&program, &name)?;
        let mut command = t.node().command(&name);
        let child = Running::spawn(t, &name, command.args([address, KEPT]))?;
        let child = Some(child);
        Ok(Collector { t, child })
    }

    /// Requests, as OTLP's JSON has them.
    fn kept(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.t.node().path(KEPT)).unwrap_or_default();
        // The last line may still be being written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }

    fn spans(&self) -> Result<Vec<Value>> {
        let requests = self.kept()?;
        let resources = requests.iter().flat_map(|r| list(r, "resourceSpans"));
        let scopes = resources.flat_map(|r| list(r, "scopeSpans"));
        Ok(scopes.flat_map(|s| list(s, "spans")).cloned().collect())
    }

    fn wait_span(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        progress::wait_for(what, Duration::from_secs(30), || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(self.spans()?.into_iter().find(&is))
        })
    }

    /// A call of the runtime, and the work on a pod that it was made for.
    fn wait_call(&self, name: &str, pod: &str) -> Result<(Value, Value)> {
        progress::wait_for(name, Duration::from_secs(30), || {
            std::thread::sleep(Duration::from_millis(200));
            Ok(call_of(&self.spans()?, name, pod))
        })
    }
}

impl Drop for Collector<'_> {
    fn drop(&mut self) {
        self.child = None;
        let _ = fs::remove_file(self.t.node().path(KEPT));
        let _ = fs::remove_file(self.t.node().path("/run/otel.sock"));
    }
}

fn list<'a>(of: &'a Value, name: &str) -> std::slice::Iter<'a, Value> {
    of[name]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
}

/// The text of an attribute.
fn attribute<'a>(of: &'a Value, key: &str) -> Option<&'a str> {
    let found = list(of, "attributes").find(|a| a["key"] == key)?;
    found["value"]["stringValue"].as_str()
}

/// Spans may stand between the two.
fn call_of(spans: &[Value], name: &str, pod: &str) -> Option<(Value, Value)> {
    let parent = |span: &Value| {
        let is_it =
            |s: &&Value| s["spanId"] == span["parentSpanId"] && s["traceId"] == span["traceId"];
        spans.iter().find(is_it)
    };
    let sync_of = |call| {
        let mut above = std::iter::successors(Some(call), |span: &&Value| parent(span));
        above.find(|s| s["name"] == "syncPod" && attribute(s, "k8s.pod.name") == Some(pod))
    };
    let calls = spans.iter().filter(|s| s["name"] == name);
    calls
        .filter_map(|call| Some((call.clone(), sync_of(call)?.clone())))
        .next()
}

/// Runs `test` with this in the configuration, then as before.
fn with_tracing(t: &Space, endpoint: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = fs::read_to_string(t.node().path(CONFIG))?;
    let tracing =
        format!("\ntracing: {{endpoint: \"{endpoint}\", samplingRatePerMillion: 1000000}}\n");
    let result = restart_with(t, &format!("{}{tracing}", before.trim_end())).and_then(|()| test());
    let restored = restart_with(t, &before);
    result.and(restored)?;
    t.run(&pod("afterwards", FOREVER))
}

fn work_on_a_pod_is_traced_with_its_calls_of_the_runtime(t: &Space) -> Result<()> {
    let collector = Collector::start(t, TCP)?;
    with_tracing(t, TCP, || traced(t, &collector))
}

fn traced(t: &Space, collector: &Collector) -> Result<()> {
    t.run(&pod("seen", FOREVER))?;
    for call in ["RunPodSandbox", "CreateContainer", "StartContainer"] {
        let name = format!("runtime.v1.RuntimeService/{call}");
        let (call, sync) = collector.wait_call(&name, "seen")?;
        same(
            attribute(&sync, "k8s.namespace.name"),
            Some(t.name.as_str()),
        )?;
        let uid = t.pod("seen")?["metadata"]["uid"].clone();
        same(attribute(&sync, "k8s.pod.uid"), uid.as_str())?;
        same(&call["kind"], &Value::from("SPAN_KIND_CLIENT"))?;
        let time = |span: &Value, which: &str| -> Result<u64> {
            let text = span[which].as_str().context("no time")?;
            Ok(text.parse()?)
        };
        let (start, end) = ("startTimeUnixNano", "endTimeUnixNano");
        let within = time(&sync, start)? <= time(&call, start)?
            && time(&call, start)? < time(&call, end)?
            && time(&call, end)? <= time(&sync, end)?;
        ensure!(within, "{call} is not within {sync}");
    }
    requests(t, collector)?;
    let kept = collector.kept()?;
    let resource = kept.iter().flat_map(|r| list(r, "resourceSpans")).next();
    let resource = &resource.context("no resource")?["resource"];
    same(attribute(resource, "service.name"), Some("kubelet"))?;
    same(
        attribute(resource, "host.name"),
        Some(t.node().name.as_str()),
    )
}

/// Those that are served, and those to the API server.
fn requests(t: &Space, collector: &Collector) -> Result<()> {
    t.logs("seen")?;
    let is = |span: &Value, kind: &str, key: &str, part: &str| {
        span["kind"] == kind && attribute(span, key).is_some_and(|value| value.contains(part))
    };
    let code = |span: &Value| {
        let mut all = list(span, "attributes");
        let found = all.find(|a| a["key"] == "http.response.status_code");
        let code = found.map(|a| a["value"]["intValue"].to_string());
        code.map(|code| code.trim_matches('"').to_owned())
    };
    let served = collector.wait_span("a request that is served", |span| {
        is(span, "SPAN_KIND_SERVER", "http.route", "/containerLogs/")
    })?;
    same(code(&served).as_deref(), Some("200"))?;
    same(attribute(&served, "http.request.method"), Some("GET"))?;
    // The stock kubelet tells of these only where it does not rotate its certificate.
    if t.suite.kind().kubelet() == Maker::Stock {
        return Ok(());
    }
    let path = format!("/api/v1/namespaces/{}/pods/seen/status", t.name);
    let asked = collector.wait_span("a request to the API server", |span| {
        is(span, "SPAN_KIND_CLIENT", "url.full", &path)
    })?;
    same(code(&asked).as_deref(), Some("200"))?;
    same(asked["name"].as_str(), Some("HTTP PATCH"))
}

fn traces_reach_a_collector_that_comes_late_on_a_unix_socket(t: &Space) -> Result<()> {
    with_tracing(t, UNIX, || {
        // Its spans may be lost, and nothing waits for them.
        t.run(&pod("unseen", FOREVER))?;
        std::thread::sleep(Duration::from_secs(6));
        let collector = Collector::start(t, UNIX)?;
        t.run(&pod("seen", FOREVER))?;
        let name = "runtime.v1.RuntimeService/StartContainer";
        collector.wait_call(name, "seen").map(drop)
    })
}
