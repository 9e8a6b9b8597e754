//! The kubelet's own server: what answers where and to whom, and the summary, the same on the
//! stock node.

use crate::eviction::{CONFIG as CONFIG_FILE, restart_with, set};
use crate::kit::{FOREVER, Space, pod, same, with, with_main};
use anyhow::{Result, ensure};
use e2e::progress;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

crate::tests!(
    paths_of_the_server_answer_as_the_stock_kubelets,
    summary_has_the_fields_of_the_stock_kubelets,
    configz_has_the_fields_of_the_stock_kubelets,
    without_debugging_handlers_some_paths_are_nothing_and_others_say_so: alone,
);

/// To whomever asks: there is nothing, or it is elsewhere.
const OPEN: &[(&str, &str, u16)] = &[
    ("GET", "/", 404),
    ("GET", "/healthz/", 404),
    ("GET", "/healthz/nothing", 404),
    ("GET", "/livez", 404),
    ("GET", "/version", 404),
    ("GET", "/runningpods", 307),
    ("GET", "/metrics/", 404),
    ("GET", "/metrics/nothing", 404),
    ("GET", "/stats", 307),
    ("GET", "/logs", 307),
    ("GET", "/nothing", 404),
    ("GET", "/debug", 404),
    ("GET", "/debug/", 404),
    ("GET", "/debug/flags/", 404),
    ("GET", "/debug/nothing", 404),
    ("GET", "/debug/pprof", 307),
];

/// To those who may; `NS` is the test's namespace. Not here: those of /debug/pprof that are of Go.
const GUARDED: &[(&str, &str, u16)] = &[
    ("GET", "/healthz", 200),
    ("HEAD", "/healthz", 200),
    ("GET", "/healthz/ping", 200),
    ("GET", "/healthz/log", 200),
    ("GET", "/healthz/syncloop", 200),
    ("GET", "/pods", 200),
    ("GET", "/pods/", 200),
    ("GET", "/pods/x", 404),
    ("POST", "/pods", 405),
    ("DELETE", "/pods", 405),
    ("GET", "/runningpods/", 200),
    ("GET", "/metrics", 200),
    ("POST", "/metrics", 200),
    ("GET", "/metrics/cadvisor", 200),
    ("GET", "/metrics/resource", 200),
    ("GET", "/metrics/probes", 200),
    ("GET", "/metrics/slis", 200),
    ("GET", "/stats/", 404),
    ("GET", "/stats/summary", 200),
    ("GET", "/stats/summary/", 200),
    ("POST", "/stats/summary", 200),
    ("GET", "/stats/container", 404),
    ("GET", "/configz", 200),
    ("POST", "/configz", 200),
    ("GET", "/statusz", 200),
    ("GET", "/flagz", 200),
    ("GET", "/logs/", 200),
    ("POST", "/logs/", 405),
    ("GET", "/logs/pods", 301),
    ("GET", "/logs/pods/", 200),
    ("GET", "/logs/nothing", 404),
    ("GET", "/containerLogs/NS/p/main", 200),
    ("POST", "/containerLogs/NS/p/main", 405),
    ("GET", "/containerLogs/NS/p/nothing", 404),
    ("GET", "/containerLogs/NS/nothing/main", 404),
    ("GET", "/containerLogs/NS/p", 404),
    ("GET", "/containerLogs/NS/p/main?tailLines=x", 400),
    ("GET", "/containerLogs/NS/p/main?previous=true", 400),
    ("GET", "/exec/NS/p/main?command=true", 400),
    ("POST", "/exec/NS/p/main?command=true&output=1", 500),
    ("PUT", "/exec/NS/p/main?command=true&output=1", 405),
    ("GET", "/exec/NS/nothing/main?command=true&output=1", 404),
    ("GET", "/attach/NS/p/main", 400),
    ("POST", "/attach/NS/p/main?output=1", 500),
    ("GET", "/portForward/NS/p", 500),
    ("GET", "/portForward/NS/nothing", 404),
    ("POST", "/run/NS/p/main?cmd=true", 200),
    ("POST", "/run/NS/p/main?cmd=false", 500),
    ("POST", "/run/NS/nothing/main?cmd=true", 404),
    ("GET", "/run/NS/p/main?cmd=true", 405),
    ("POST", "/checkpoint/NS/p/main", 500),
    ("POST", "/checkpoint/NS/nothing/main", 404),
    ("GET", "/checkpoint/NS/p/main", 405),
    ("GET", "/debug/flags/v", 406),
    ("PUT", "/debug/flags/v", 400),
    ("GET", "/debug/pprof/cmdline", 200),
    ("GET", "/debug/pprof/nothing", 404),
    ("GET", "/debug/pprof/symbol?0x1", 200),
    ("POST", "/debug/pprof/symbol", 405),
];

fn paths_of_the_server_answer_as_the_stock_kubelets(t: &Space) -> Result<()> {
    t.run(&pod("p", FOREVER))?;
    with_role(t, ask_as_three)
}

/// While the service account `may` of the namespace may ask for everything.
fn with_role(t: &Space, ask: impl FnOnce(&Space) -> Result<()>) -> Result<()> {
    let role = format!("may-{}", t.name);
    let resources = "--resource=nodes/proxy,nodes/stats,nodes/metrics,nodes/log,nodes/checkpoint,nodes/statusz,nodes/configz";
    t.kubectl(&["create", "clusterrole", &role, "--verb=*", resources])?;
    let of = format!("--serviceaccount={}:may", t.name);
    let role_of = format!("--clusterrole={role}");
    t.kubectl(&["create", "clusterrolebinding", &role, &role_of, &of])?;
    let answered = ask(t);
    t.kubectl(&["delete", "clusterrolebinding,clusterrole", &role])?;
    answered
}

fn ask_as_three(t: &Space) -> Result<()> {
    let (may, may_not) = (token(t, "may")?, token(t, "may-not")?);
    let mut wrong = Vec::new();
    for (who, token, refused) in [
        ("who may", may.as_str(), None),
        ("who may not", &may_not, Some(403)),
        ("nobody", "", Some(401)),
    ] {
        let all = || OPEN.iter().chain(GUARDED);
        let got = statuses(t, token, all())?;
        same(got.len(), all().count())?;
        for (n, ((method, path, status), got)) in all().zip(got).enumerate() {
            let guarded = n >= OPEN.len();
            let want = refused.filter(|_| guarded).unwrap_or(*status);
            if got != want {
                wrong.push(format!("{method} {path} to {who}: {got}, not {want}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// Of a new service account.
fn token(t: &Space, account: &str) -> Result<String> {
    t.kubectl(&["create", "serviceaccount", account])?;
    Ok(t.kubectl(&["create", "token", account])?.trim().to_owned())
}

/// To those who may, when `enableDebuggingHandlers` is false.
const WITHOUT_DEBUGGING: &[(&str, &str, u16)] = &[
    ("GET", "/healthz", 200),
    ("GET", "/pods", 200),
    ("GET", "/metrics", 200),
    ("GET", "/metrics/cadvisor", 200),
    ("GET", "/stats/summary", 200),
    ("GET", "/runningpods/", 405),
    ("GET", "/logs/", 405),
    ("GET", "/logs/pods/", 405),
    ("GET", "/containerLogs/NS/p/main", 405),
    ("GET", "/exec", 307),
    ("POST", "/exec/NS/p/main?command=true&output=1", 405),
    ("POST", "/attach/NS/p/main?output=1", 405),
    ("GET", "/portForward/NS/p", 405),
    ("POST", "/run/NS/p/main?cmd=true", 405),
    ("GET", "/debug/pprof/", 405),
    ("GET", "/debug/pprof/cmdline", 405),
    ("PUT", "/debug/flags/v", 404),
    ("GET", "/configz", 404),
    ("GET", "/statusz", 404),
    ("GET", "/flagz", 404),
    ("POST", "/checkpoint/NS/p/main", 404),
];

fn without_debugging_handlers_some_paths_are_nothing_and_others_say_so(t: &Space) -> Result<()> {
    t.run(&pod("p", FOREVER))?;
    let before = fs::read_to_string(t.node().path(CONFIG_FILE))?;
    let off = set(&before, "enableDebuggingHandlers: false\n");
    let result = restart_with(t, &off).and_then(|()| with_role(t, ask_without_debugging));
    result.and(restart_with(t, &before))?;
    t.run(&pod("afterwards", FOREVER))
}

fn ask_without_debugging(t: &Space) -> Result<()> {
    let token = token(t, "may")?;
    let mut got = Vec::new();
    progress::wait_for("the kubelet's server", Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        got = statuses(t, &token, WITHOUT_DEBUGGING.iter()).unwrap_or_default();
        Ok((got.first() == Some(&200)).then_some(()))
    })?;
    let all = WITHOUT_DEBUGGING.iter().zip(got);
    let wrong = all.filter(|((_, _, want), got)| want != got);
    let wrong: Vec<_> = wrong
        .map(|(asked, got)| format!("{asked:?}: {got}"))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// All with one process: there are many.
fn statuses<'a>(
    t: &Space,
    token: &str,
    asked: impl Iterator<Item = &'a (&'a str, &'a str, u16)>,
) -> Result<Vec<u16>> {
    let mut curl: Vec<String> = Vec::new();
    for (method, path, _) in asked {
        if !curl.is_empty() {
            curl.push("--next".into());
        }
        let how: &[&str] = match *method {
            "HEAD" => &["--head"],
            method => &["-X", method],
        };
        curl.extend(how.iter().map(|&h| h.to_owned()));
        if !token.is_empty() {
            curl.extend(["-H".to_owned(), format!("Authorization: Bearer {token}")]);
        }
        let rest = ["-sk", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}\n"];
        curl.extend(rest.map(str::to_owned));
        let path = path.replace("NS", &t.name);
        curl.push(format!("https://{}:10250{path}", t.node().ip));
    }
    let curl: Vec<&str> = curl.iter().map(String::as_str).collect();
    let said = t.node().run("curl", &curl)?;
    said.lines().map(|line| Ok(line.trim().parse()?)).collect()
}

/// Of the node, without pressure (cgroup v2) and the cgroups beside the pods' own.
const NODE: &str = "cpu.time cpu.usageCoreNanoSeconds cpu.usageNanoCores \
    fs.availableBytes fs.capacityBytes fs.inodes fs.inodesFree fs.inodesUsed fs.time fs.usedBytes \
    memory.availableBytes memory.majorPageFaults memory.pageFaults memory.rssBytes memory.time \
    memory.usageBytes memory.workingSetBytes \
    network.interfaces.name network.interfaces.rxBytes network.interfaces.rxErrors \
    network.interfaces.txBytes network.interfaces.txErrors network.name network.rxBytes \
    network.rxErrors network.time network.txBytes network.txErrors nodeName \
    rlimit.curproc rlimit.maxpid rlimit.time \
    runtime.containerFs.availableBytes runtime.containerFs.capacityBytes \
    runtime.containerFs.inodes runtime.containerFs.inodesFree runtime.containerFs.inodesUsed \
    runtime.containerFs.time runtime.containerFs.usedBytes \
    runtime.imageFs.availableBytes runtime.imageFs.capacityBytes runtime.imageFs.inodes \
    runtime.imageFs.inodesFree runtime.imageFs.inodesUsed runtime.imageFs.time \
    runtime.imageFs.usedBytes startTime swap.swapAvailableBytes swap.swapUsageBytes swap.time";

/// Of the cgroup that all pods are in. Its own the stock kubelet tells only once it could lower its
/// OOM score, which the machine may deny.
const PODS: &str = "cpu.time cpu.usageCoreNanoSeconds cpu.usageNanoCores memory.availableBytes \
    memory.majorPageFaults memory.pageFaults memory.rssBytes memory.time memory.usageBytes memory.workingSetBytes name \
    startTime swap.swapUsageBytes swap.time";

const POD: &str = "containers.cpu.time containers.cpu.usageCoreNanoSeconds \
    containers.cpu.usageNanoCores containers.logs.availableBytes containers.logs.capacityBytes \
    containers.logs.inodes containers.logs.inodesFree containers.logs.inodesUsed \
    containers.logs.time containers.logs.usedBytes containers.memory.availableBytes \
    containers.memory.majorPageFaults containers.memory.pageFaults containers.memory.rssBytes \
    containers.memory.time containers.memory.usageBytes containers.memory.workingSetBytes \
    containers.name containers.rootfs.availableBytes containers.rootfs.capacityBytes \
    containers.rootfs.inodes containers.rootfs.inodesFree containers.rootfs.inodesUsed \
    containers.rootfs.time containers.rootfs.usedBytes containers.startTime \
    containers.swap.swapAvailableBytes containers.swap.swapUsageBytes containers.swap.time \
    cpu.time cpu.usageCoreNanoSeconds cpu.usageNanoCores \
    ephemeral-storage.availableBytes ephemeral-storage.capacityBytes ephemeral-storage.inodes \
    ephemeral-storage.inodesFree ephemeral-storage.inodesUsed ephemeral-storage.time \
    ephemeral-storage.usedBytes memory.availableBytes memory.majorPageFaults memory.pageFaults \
    memory.rssBytes memory.time memory.usageBytes memory.workingSetBytes \
    network.interfaces.name network.interfaces.rxBytes network.interfaces.rxErrors \
    network.interfaces.txBytes network.interfaces.txErrors network.name network.rxBytes \
    network.rxErrors network.time network.txBytes network.txErrors \
    podRef.name podRef.namespace podRef.uid process_stats.process_count startTime \
    swap.swapUsageBytes swap.time volume.availableBytes volume.capacityBytes volume.inodes \
    volume.inodesFree volume.inodesUsed volume.name volume.time volume.usedBytes";

fn summary_has_the_fields_of_the_stock_kubelets(t: &Space) -> Result<()> {
    let script = format!("head -c 100000 /dev/zero > /v/f; echo said; {FOREVER}");
    let volume = json!([{ "name": "v", "emptyDir": {} }]);
    let main = json!({
        "volumeMounts": [{ "name": "v", "mountPath": "/v" }],
        "resources": { "limits": { "memory": "64Mi" } },
    });
    t.run(&with_main(
        with(pod("p", &script), json!({ "volumes": volume })),
        main,
    ))?;
    let url = format!("/api/v1/nodes/{}/proxy/stats/summary", t.node().name);
    let mut wrong = String::new();
    let beside = beside(t);
    let seen = progress::wait_for("the fields", Duration::from_secs(120), || {
        let summary: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &url])?)?;
        let mut pods = summary["pods"].as_array().into_iter().flatten();
        let Some(own) = pods.find(|p| p["podRef"]["namespace"] == t.name.as_str()) else {
            return Ok(None);
        };
        let pods = system(&summary["node"], "pods");
        wrong = [(NODE, &summary["node"]), (POD, own), (PODS, pods)]
            .map(|(want, got)| difference(want, got, &beside))
            .join("");
        if !wrong.is_empty() {
            std::thread::sleep(Duration::from_millis(500));
            return Ok(None);
        }
        Ok(Some((summary["node"].clone(), own.clone())))
    });
    let Ok((node, own)) = seen else {
        anyhow::bail!("{wrong}");
    };
    plausible(&node, &own)
}

/// What is not compared: the last of a kubelet on somebody else's runtime, since containerd does
/// not tell of swap, and cadvisor not of the network of containers that are not containerd's.
fn beside(t: &Space) -> Vec<&'static str> {
    let mut beside = vec!["psi", "io.", "systemContainers"];
    if t.suite.kind().kubelet() != t.suite.kind().runtime() {
        beside.extend(["swap", "network", "process_stats"]);
    }
    beside
}

fn system<'a>(node: &'a Value, name: &str) -> &'a Value {
    let mut all = node["systemContainers"].as_array().into_iter().flatten();
    all.find(|c| c["name"] == name).unwrap_or(&Value::Null)
}

/// What one has and the other has not.
fn difference(want: &str, got: &Value, beside: &[&str]) -> String {
    let counts = |field: &String| !beside.iter().any(|b| field.contains(b));
    let mut fields = BTreeSet::new();
    walk(got, "", &mut fields);
    fields.retain(counts);
    let want = want.split_whitespace().map(str::to_owned);
    let want: BTreeSet<String> = want.filter(counts).collect();
    let missing = want.difference(&fields).map(|f| format!(" -{f}"));
    missing
        .chain(fields.difference(&want).map(|f| format!(" +{f}")))
        .collect()
}

fn walk(value: &Value, path: &str, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                walk(value, &path, fields);
            }
        }
        Value::Array(list) => list.iter().for_each(|v| walk(v, path, fields)),
        _ => drop(fields.insert(path.to_owned())),
    }
}

fn plausible(node: &Value, pod: &Value) -> Result<()> {
    let number = |value: &Value, path: &str| {
        let found = path.split('/').fold(value, |v, name| &v[name]);
        found.as_f64().unwrap_or(-1.0)
    };
    let (main, all_pods) = (&pod["containers"][0], system(node, "pods"));
    let volume = &pod["volume"]
        .as_array()
        .and_then(|all| all.iter().find(|v| v["name"] == "v"));
    let volume = volume.unwrap_or(&Value::Null);
    for (what, value, path, least, most) in [
        ("node", node, "memory/workingSetBytes", 1e8, 1e13),
        ("node", node, "network/rxBytes", 1e3, 1e13),
        ("node", node, "rlimit/curproc", 10.0, 1e5),
        ("all pods", all_pods, "memory/workingSetBytes", 1e5, 1e10),
        ("all pods", all_pods, "cpu/usageCoreNanoSeconds", 1e6, 1e13),
        (
            "container",
            main,
            "memory/workingSetBytes",
            1e4,
            64.0 * 1048576.0,
        ),
        (
            "container",
            main,
            "memory/availableBytes",
            1e6,
            64.0 * 1048576.0,
        ),
        ("container", main, "logs/usedBytes", 5.0, 1e5),
        ("volume", volume, "usedBytes", 100_000.0, 2e5),
        ("pod", pod, "ephemeral-storage/usedBytes", 100_000.0, 1e6),
        ("pod", pod, "cpu/usageCoreNanoSeconds", 1e6, 1e10),
    ] {
        let got = number(value, path);
        ensure!((least..=most).contains(&got), "{what} {path}: {got}");
    }
    let used = number(node, "fs/usedBytes") + number(node, "fs/availableBytes");
    ensure!(used <= number(node, "fs/capacityBytes"), "{}", node["fs"]);
    Ok(())
}

/// With what the bed's file says. Where the serving certificate lies is each kubelet's own.
const CONFIG: &str = "address apiVersion authentication.anonymous.enabled \
    authentication.webhook.cacheTTL authentication.webhook.enabled \
    authentication.x509.clientCAFile authorization.mode authorization.webhook.cacheAuthorizedTTL \
    authorization.webhook.cacheUnauthorizedTTL cgroupDriver cgroupRoot cgroupsPerQOS clusterDNS \
    clusterDomain configMapAndSecretChangeDetectionStrategy containerLogMaxFiles \
    containerLogMaxSize containerLogMaxWorkers containerLogMonitorInterval contentType \
    cpuCFSQuota cpuCFSQuotaPeriod cpuManagerPolicy cpuManagerReconcilePeriod \
    crashLoopBackOff.maxContainerRestartPeriod enableControllerAttachDetach \
    enableDebugFlagsHandler enableDebuggingHandlers enableProfilingHandler enableServer \
    enableSystemLogHandler enableSystemLogQuery enforceNodeAllocatable eventBurst eventRecordQPS \
    evictionHard.imagefs.available evictionHard.memory.available evictionHard.nodefs.available \
    evictionHard.nodefs.inodesFree evictionPressureTransitionPeriod failCgroupV1 failSwapOn \
    fileCheckFrequency hairpinMode healthzBindAddress healthzPort httpCheckFrequency \
    imageGCHighThresholdPercent imageGCLowThresholdPercent imageMaximumGCAge imageMinimumGCAge \
    imagePullCredentialsVerificationPolicy iptablesDropBit iptablesMasqueradeBit kind \
    kubeAPIBurst kubeAPIQPS localStorageCapacityIsolation logging.flushFrequency logging.format \
    logging.options.json.infoBufferSize logging.options.text.infoBufferSize logging.verbosity \
    makeIPTablesUtilChains maxOpenFiles maxPods memoryManagerPolicy memoryReservationPolicy \
    mergeDefaultEvictionSettings nodeLeaseDurationSeconds nodeStatusMaxImages \
    nodeStatusReportFrequency nodeStatusUpdateFrequency oomScoreAdj podLogsDir podPidsLimit port \
    registerNode registryBurst registryPullQPS resolvConf rotateCertificates \
    runtimeRequestTimeout seccompDefault serializeImagePulls shutdownGracePeriod \
    shutdownGracePeriodCriticalPods staticPodPath streamingConnectionIdleTimeout syncFrequency \
    topologyManagerPolicy topologyManagerScope volumePluginDir volumeStatsAggPeriod";

fn configz_has_the_fields_of_the_stock_kubelets(t: &Space) -> Result<()> {
    let url = format!("/api/v1/nodes/{}/proxy/configz", t.node().name);
    let told: Value = serde_json::from_str(&t.kubectl(&["get", "--raw", &url])?)?;
    let mut config = told["kubeletconfig"].clone();
    if let Value::Object(fields) = &mut config {
        for own in [
            "tlsCertFile",
            "tlsPrivateKeyFile",
            "containerRuntimeEndpoint",
            "memorySwap",
        ] {
            fields.remove(own);
        }
    }
    same(difference(CONFIG, &config, &[]).as_str(), "")?;
    same(&config["maxPods"], &json!(250))?;
    same(&config["nodeStatusUpdateFrequency"], &json!("10s"))
}
