//! Cpu and memory of pods that run, changed.

use crate::containers::{POD_MEMORY, POD_QUOTA, of_pods_cgroup};
use crate::kit::{FOREVER, Space, condition, container, pod, same, with, with_main};
use crate::survival::{kill_agent, start_agent};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

crate::tests!(
    resize_reaches_the_running_container_and_its_pods_cgroup,
    resize_restarts_only_the_container_that_asks_for_it,
    resize_reaches_a_sidecar,
    resize_below_what_is_used_is_an_error_until_less_is,
    resize_that_the_node_has_no_room_for_waits_and_says_why,
    resize_that_was_refused_stays_so_when_the_agent_is_killed: alone,
    resize_asked_for_while_no_agent_runs_is_judged_by_the_next: alone,
    resize_of_the_pods_own_resources_reaches_its_cgroup_and_who_has_no_limit,
    resize_of_the_pods_own_resources_starts_anew_who_asks_for_it,
    resize_of_the_pods_own_resources_waits_for_room_and_says_why,
    resize_of_the_pods_own_resources_below_what_is_used_is_an_error,
);

const MEMORY: &str =
    "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";

fn resources(cpu: &str, memory: &str) -> Value {
    let list = json!({ "cpu": cpu, "memory": memory });
    json!({ "requests": list, "limits": list })
}

fn sized(name: &str, cpu: &str, memory: &str) -> Value {
    let resources = resources(cpu, memory);
    with_main(pod(name, FOREVER), json!({ "resources": resources }))
}

fn resize(t: &Space, name: &str, resources: Value) -> Result<()> {
    let container = json!({ "name": "main", "resources": resources });
    let patch = json!({ "spec": { "containers": [container] } }).to_string();
    t.kubectl(&["patch", "pod", name, "--subresource=resize", "-p", &patch])?;
    Ok(())
}

fn main(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// All is as the newest object asks.
fn settled(pod: &Value) -> bool {
    pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
        && main(pod)["resources"] == pod["spec"]["containers"][0]["resources"]
        && condition(pod, "PodResizeInProgress").is_none()
        && condition(pod, "PodResizePending").is_none()
        && condition(pod, "Ready") == Some("True")
}

fn resize_reaches_the_running_container_and_its_pods_cgroup(t: &Space) -> Result<()> {
    t.run(&sized("grows", "100m", "64Mi"))?;
    let id = main(&t.pod("grows")?)["containerID"].clone();
    resize(t, "grows", resources("200m", "96Mi"))?;
    t.wait("grows", "resized", settled)?;
    same(t.sh("grows", MEMORY)?.trim(), "100663296")?;
    resize(t, "grows", resources("50m", "32Mi"))?;
    t.wait("grows", "resized again", settled)?;
    same(t.sh("grows", MEMORY)?.trim(), "33554432")?;
    let now = t.pod("grows")?;
    same(&main(&now)["containerID"], &id)?;
    same(&main(&now)["restartCount"], &json!(0))?;
    let requests = &now["spec"]["containers"][0]["resources"]["requests"];
    same(&main(&now)["allocatedResources"], requests)?;
    t.wait_event("grows", &["ResizeCompleted", "Pod resize completed"])
}

fn resize_restarts_only_the_container_that_asks_for_it(t: &Space) -> Result<()> {
    let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let mut pod = with_main(
        sized("again", "100m", "64Mi"),
        json!({ "resizePolicy": policy }),
    );
    // Its end must not take the whole grace period.
    pod["spec"]["terminationGracePeriodSeconds"] = json!(1);
    t.run(&pod)?;
    resize(t, "again", resources("150m", "64Mi"))?;
    t.wait("again", "resized", settled)?;
    same(&main(&t.pod("again")?)["restartCount"], &json!(0))?;
    resize(t, "again", resources("150m", "80Mi"))?;
    t.wait("again", "restarted", |p| {
        settled(p) && main(p)["restartCount"] == 1
    })?;
    same(t.sh("again", MEMORY)?.trim(), "83886080")
}

fn resize_reaches_a_sidecar(t: &Space) -> Result<()> {
    let mut side = container("side", FOREVER);
    side["restartPolicy"] = json!("Always");
    side["resources"] = resources("50m", "32Mi");
    let pod = sized("beside", "50m", "32Mi");
    t.run(&with(pod, json!({ "initContainers": [side] })))?;
    let wanted = resources("60m", "48Mi");
    let side = json!({ "name": "side", "resources": wanted });
    let patch = json!({ "spec": { "initContainers": [side] } }).to_string();
    t.kubectl(&[
        "patch",
        "pod",
        "beside",
        "--subresource=resize",
        "-p",
        &patch,
    ])?;
    t.wait("beside", "resized", |p| {
        p["status"]["initContainerStatuses"][0]["resources"] == wanted && settled(p)
    })?;
    let limit = ["exec", "beside", "-c", "side", "--", "sh", "-c", MEMORY];
    same(t.kubectl(&limit)?.trim(), "50331648")?;
    same(t.sh("beside", MEMORY)?.trim(), "33554432")?;
    let restarts = |p: &Value| p["status"]["initContainerStatuses"][0]["restartCount"].clone();
    same(restarts(&t.pod("beside")?), json!(0))
}

fn resize_below_what_is_used_is_an_error_until_less_is(t: &Space) -> Result<()> {
    t.run(&sized("holds", "50m", "64Mi"))?;
    t.sh("holds", "dd if=/dev/zero of=/dev/shm/f bs=1M count=30")?;
    resize(t, "holds", resources("50m", "16Mi"))?;
    t.wait("holds", "told that it can't be", |p| {
        let conditions = p["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|c| {
            let message = c["message"].as_str().unwrap_or_default();
            c["type"] == "PodResizeInProgress"
                && c["reason"] == "Error"
                && message.contains("below current usage")
        })
    })?;
    same(t.sh("holds", MEMORY)?.trim(), "67108864")?;
    t.sh("holds", "rm /dev/shm/f")?;
    t.wait_for("holds", "resized", 150, settled)?;
    same(t.sh("holds", MEMORY)?.trim(), "16777216")
}

fn resize_that_the_node_has_no_room_for_waits_and_says_why(t: &Space) -> Result<()> {
    t.run(&sized("waits", "100m", "64Mi"))?;
    refuse(t, "waits")?;
    let pod = t.pod("waits")?;
    let why = pod["status"]["conditions"].as_array().cloned();
    let why = why.unwrap_or_default();
    let pending = why.iter().find(|c| c["type"] == "PodResizePending");
    let message = pending.map(|c| c["message"].to_string());
    let message = message.unwrap_or_default();
    ensure!(message.contains("enough resource: cpu"), "{message}");
    same(
        &main(&pod)["allocatedResources"],
        &json!({ "cpu": "100m", "memory": "64Mi" }),
    )?;
    same(t.sh("waits", MEMORY)?.trim(), "67108864")?;
    t.wait_event("waits", &["ResizeDeferred", "enough resource"])?;
    resize(t, "waits", resources("200m", "64Mi"))?;
    t.wait("waits", "resized", settled)
}

/// All that the node has: others have some of it. (Of more the API server says so itself.)
fn ask_for_all(t: &Space, name: &str) -> Result<()> {
    let path = "jsonpath={.status.allocatable.cpu}";
    let all = t.kubectl(&["get", "node", &t.node().name, "-o", path])?;
    resize(t, name, resources(all.trim(), "64Mi"))
}

fn refuse(t: &Space, name: &str) -> Result<()> {
    ask_for_all(t, name)?;
    t.wait(name, "refused", |p| {
        condition(p, "PodResizePending") == Some("True")
    })
}

fn resize_that_was_refused_stays_so_when_the_agent_is_killed(t: &Space) -> Result<()> {
    t.run(&sized("waits", "100m", "64Mi"))?;
    let id = main(&t.pod("waits")?)["containerID"].clone();
    // Of what has not started no status says what it was granted.
    for pod in unborn() {
        t.apply(&pod)?;
    }
    t.wait("has-init", "its init container runs", |p| {
        !p["status"]["initContainerStatuses"][0]["state"]["running"].is_null()
    })?;
    t.wait_event("has-nothing", &["FailedMount"])?;
    for name in ["waits", "has-init", "has-nothing"] {
        ask_for_all(t, name)?;
        t.wait_event(name, &["ResizeDeferred"])?;
    }
    kill_agent(t)?;
    start_agent(t)?;
    still_refused(t, &id)
}

fn resize_asked_for_while_no_agent_runs_is_judged_by_the_next(t: &Space) -> Result<()> {
    t.run(&sized("waits", "100m", "64Mi"))?;
    let id = main(&t.pod("waits")?)["containerID"].clone();
    for pod in unborn() {
        t.apply(&pod)?;
    }
    t.wait("has-init", "its init container runs", |p| {
        !p["status"]["initContainerStatuses"][0]["state"]["running"].is_null()
    })?;
    t.wait_event("has-nothing", &["FailedMount"])?;
    kill_agent(t)?;
    let names = ["waits", "has-init", "has-nothing"];
    let asked = names.map(|name| ask_for_all(t, name));
    start_agent(t)?;
    asked.into_iter().collect::<Result<()>>()?;
    for name in names {
        t.wait_event(name, &["ResizeDeferred"])?;
    }
    still_refused(t, &id)
}

/// What [`unborn`] and the pod that runs were granted is what they have.
fn still_refused(t: &Space, id: &Value) -> Result<()> {
    // A pod that comes up shows that the new agent is at work.
    // Past the scheduler, for which the refused one's wish counts.
    let later = json!({ "nodeName": t.node().name });
    t.run(&with(sized("later", "10m", "16Mi"), later))?;
    t.wait("waits", "still refused", |p| {
        condition(p, "PodResizePending") == Some("True")
    })?;
    let pod = t.pod("waits")?;
    same(&main(&pod)["containerID"], id)?;
    granted_little(&pod)?;
    t.make_secret("late", "a=b")?;
    t.kubectl(&["exec", "has-init", "-c", "first", "--", "touch", "/go"])?;
    for name in ["has-init", "has-nothing"] {
        t.wait_ready(name)?;
        same(t.sh(name, MEMORY)?.trim(), "67108864")?;
        let pod = t.pod(name)?;
        same(condition(&pod, "PodResizePending"), Some("True"))?;
        granted_little(&pod)?;
    }
    Ok(())
}

fn granted_little(pod: &Value) -> Result<()> {
    same(
        &main(pod)["allocatedResources"],
        &json!({ "cpu": "100m", "memory": "64Mi" }),
    )
}

/// Two pods whose container waits: for the one before it, and for a Secret that is not there.
fn unborn() -> [Value; 2] {
    let mut first = container("first", "until [ -e /go ]; do sleep 0.1; done");
    first["resources"] = resources("100m", "64Mi");
    let secret = json!([{ "name": "s", "secret": { "secretName": "late" } }]);
    [
        with(
            sized("has-init", "100m", "64Mi"),
            json!({ "initContainers": [first] }),
        ),
        with_main(
            with(
                sized("has-nothing", "100m", "64Mi"),
                json!({ "volumes": secret }),
            ),
            json!({ "volumeMounts": [{ "name": "s", "mountPath": "/s" }] }),
        ),
    ]
}

/// What a pod has as a whole: the limits are twice the requests.
fn whole(cpu: u64, memory: u64) -> Value {
    let list =
        |n: u64| json!({ "cpu": format!("{}m", n * cpu), "memory": format!("{}Mi", n * memory) });
    json!({ "requests": list(1), "limits": list(2) })
}

fn resize_whole(t: &Space, name: &str, resources: Value) -> Result<()> {
    let patch = json!({ "spec": { "resources": resources } }).to_string();
    t.kubectl(&["patch", "pod", name, "--subresource=resize", "-p", &patch])?;
    Ok(())
}

/// The pod has as a whole what the newest object asks for.
fn settled_whole(pod: &Value) -> bool {
    pod["status"]["observedGeneration"] == pod["metadata"]["generation"]
        && pod["status"]["resources"] == pod["spec"]["resources"]
        && pod["status"]["allocatedResources"] == pod["spec"]["resources"]["requests"]
        && condition(pod, "PodResizeInProgress").is_none()
        && condition(pod, "PodResizePending").is_none()
        && condition(pod, "Ready") == Some("True")
}

fn why<'a>(pod: &'a Value, kind: &str) -> Option<(&'a str, &'a str)> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind)?;
    Some((found["reason"].as_str()?, found["message"].as_str()?))
}

fn resize_of_the_pods_own_resources_reaches_its_cgroup_and_who_has_no_limit(
    t: &Space,
) -> Result<()> {
    let mut pod = with(
        pod("whole", FOREVER),
        json!({ "resources": whole(100, 64) }),
    );
    let mut own = container("own", FOREVER);
    own["resources"] = resources("50m", "32Mi");
    if let Some(containers) = pod["spec"]["containers"].as_array_mut() {
        containers.push(own);
    }
    t.run(&pod)?;
    let limits = |cpu: u64, memory: u64| -> Result<()> {
        t.wait("whole", "resized", settled_whole)?;
        let seen = t.pod("whole")?;
        let bytes = (memory << 20).to_string();
        same(
            of_pods_cgroup(t, &seen, POD_MEMORY).as_deref(),
            Some(&*bytes),
        )?;
        let quota = (cpu * 100).to_string();
        same(
            of_pods_cgroup(t, &seen, POD_QUOTA).as_deref(),
            Some(&*quota),
        )?;
        same(t.sh("whole", MEMORY)?.trim(), bytes.as_str())?;
        let of_own = ["exec", "whole", "-c", "own", "--", "sh", "-c", MEMORY];
        same(t.kubectl(&of_own)?.trim(), "33554432")?;
        // What is the pod's alone is not told of the container.
        same(&main(&seen)["resources"], &json!({}))?;
        let restarts = |i: usize| &seen["status"]["containerStatuses"][i]["restartCount"];
        same((restarts(0), restarts(1)), (&json!(0), &json!(0)))
    };
    limits(200, 128)?;
    resize_whole(t, "whole", whole(150, 96))?;
    limits(300, 192)?;
    t.wait_event("whole", &["ResizeCompleted", "Pod resize completed"])?;
    resize_whole(t, "whole", whole(75, 48))?;
    limits(150, 96)
}

fn resize_of_the_pods_own_resources_starts_anew_who_asks_for_it(t: &Space) -> Result<()> {
    let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    let pod = with(pod("anew", FOREVER), json!({ "resources": whole(100, 64) }));
    t.run(&with_main(pod, json!({ "resizePolicy": policy })))?;
    resize_whole(t, "anew", whole(150, 64))?;
    t.wait("anew", "resized", settled_whole)?;
    same(&main(&t.pod("anew")?)["restartCount"], &json!(0))?;
    resize_whole(t, "anew", whole(150, 96))?;
    t.wait("anew", "restarted", |p| {
        settled_whole(p) && main(p)["restartCount"] == 1
    })?;
    same(t.sh("anew", MEMORY)?.trim(), "201326592")?;
    let memory = of_pods_cgroup(t, &t.pod("anew")?, POD_MEMORY);
    same(memory.as_deref(), Some("201326592"))
}

fn resize_of_the_pods_own_resources_waits_for_room_and_says_why(t: &Space) -> Result<()> {
    let before = whole(100, 64);
    t.run(&with(pod("room", FOREVER), json!({ "resources": before })))?;
    let path = "jsonpath={.status.allocatable.cpu}";
    let all = t.kubectl(&["get", "node", &t.node().name, "-o", path])?;
    let all: u64 = all.trim().parse()?;
    resize_whole(t, "room", whole(all * 1000, 64))?;
    t.wait("room", "deferred", |p| {
        let message = why(p, "PodResizePending");
        message.is_some_and(|(reason, text)| {
            reason == "Deferred" && text.contains("enough resource: cpu")
        })
    })?;
    let seen = t.pod("room")?;
    same(&seen["status"]["allocatedResources"], &before["requests"])?;
    same(&seen["status"]["resources"], &before)?;
    same(
        of_pods_cgroup(t, &seen, POD_QUOTA).as_deref(),
        Some("20000"),
    )?;
    t.wait_event("room", &["ResizeDeferred", "enough resource"])?;
    resize_whole(t, "room", whole(200, 64))?;
    t.wait("room", "resized", settled_whole)
}

fn resize_of_the_pods_own_resources_below_what_is_used_is_an_error(t: &Space) -> Result<()> {
    t.run(&with(
        pod("holds", FOREVER),
        json!({ "resources": whole(50, 40) }),
    ))?;
    t.sh("holds", "dd if=/dev/zero of=/dev/shm/f bs=1M count=40")?;
    resize_whole(t, "holds", whole(50, 10))?;
    t.wait("holds", "told that it can't be", |p| {
        let error = why(p, "PodResizeInProgress");
        error
            .is_some_and(|(reason, text)| reason == "Error" && text.contains("below current usage"))
    })?;
    same(t.sh("holds", MEMORY)?.trim(), "83886080")?;
    t.sh("holds", "rm /dev/shm/f")?;
    t.wait_for("holds", "resized", 150, settled_whole)?;
    same(t.sh("holds", MEMORY)?.trim(), "20971520")
}
