//! What a container is: user, capabilities, limits, namespaces, environment.

use crate::kit::{FOREVER, Space, has, phase, pod, same, status, with, with_main};
use anyhow::{Result, ensure};
use e2e::cgroup;
use serde_json::{Value, json};
use std::path::PathBuf;

crate::tests!(
    user_and_groups_are_those_of_the_security_context,
    capabilities_are_the_default_ones_and_can_be_changed,
    runtime_default_seccomp_filters_and_no_new_privs_holds,
    read_only_root_file_system_refuses_writes,
    sensitive_proc_files_are_masked,
    limits_are_the_cgroups,
    limits_of_a_pod_as_a_whole_are_its_cgroups,
    memory_over_the_limit_is_told_as_oom_killed,
    environment_comes_from_fields_resources_and_objects,
    host_namespaces_are_the_hosts,
    shared_process_namespace_shows_all_containers,
    a_pod_without_host_users_has_ids_of_its_own,
    init_containers_run_in_order_before_the_rest,
    a_sidecar_starts_first_and_does_not_hold_up_a_job,
    working_dir_and_args_are_those_of_the_spec,
);

fn user_and_groups_are_those_of_the_security_context(t: &Space) -> Result<()> {
    let context = json!({ "securityContext": {
        "runAsUser": 1001, "runAsGroup": 2002, "supplementalGroups": [3003], "fsGroup": 4004,
    }, "volumes": [{ "name": "d", "emptyDir": {} }] });
    let mounts = json!({ "volumeMounts": [{ "name": "d", "mountPath": "/d" }] });
    t.run(&with_main(with(pod("b", FOREVER), context), mounts))?;
    let id = t.sh("b", "id; touch /d/f; stat -c %g /d/f")?;
    has(&id, "uid=1001 gid=2002")?;
    has(&id, "3003")?;
    ensure!(id.trim().ends_with("4004"), "fsGroup: {id}");
    Ok(())
}

/// The containers' default set of containerd and Docker: 14 capabilities.
const DEFAULT_CAPABILITIES: &str = "00000000a80425fb";

fn capabilities_are_the_default_ones_and_can_be_changed(t: &Space) -> Result<()> {
    t.run(&pod("plain", FOREVER))?;
    has(
        &t.sh("plain", "grep CapEff /proc/self/status")?,
        DEFAULT_CAPABILITIES,
    )?;
    let none =
        json!({ "securityContext": { "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN"] } } });
    t.run(&with_main(pod("few", FOREVER), none))?;
    has(
        &t.sh("few", "grep CapEff /proc/self/status")?,
        "0000000000001000",
    )?;
    t.run(&with_main(
        pod("all", FOREVER),
        json!({ "securityContext": { "privileged": true } }),
    ))?;
    let all = t.sh(
        "all",
        "grep CapEff /proc/self/status; ls /dev/kmsg /dev/null",
    )?;
    ensure!(
        !all.contains(DEFAULT_CAPABILITIES),
        "privileged has only the default: {all}"
    );
    Ok(())
}

fn runtime_default_seccomp_filters_and_no_new_privs_holds(t: &Space) -> Result<()> {
    let context = json!({ "securityContext": {
        "seccompProfile": { "type": "RuntimeDefault" }, "allowPrivilegeEscalation": false,
    }});
    t.run(&with_main(pod("b", FOREVER), context))?;
    let text = t.sh(
        "b",
        "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; unshare -U true; echo unshare $?",
    )?;
    has(&text, "Seccomp:\t2")?;
    has(&text, "NoNewPrivs:\t1")?;
    ensure!(
        !text.contains("unshare 0"),
        "a user namespace was made: {text}"
    );
    Ok(())
}

fn read_only_root_file_system_refuses_writes(t: &Space) -> Result<()> {
    t.run(&with_main(
        pod("b", FOREVER),
        json!({ "securityContext": { "readOnlyRootFilesystem": true } }),
    ))?;
    has(
        &t.sh("b", "touch /file 2>&1 || true")?,
        "Read-only file system",
    )?;
    t.sh("b", "echo ok > /dev/shm/file").map(drop)
}

fn sensitive_proc_files_are_masked(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    same(
        t.sh("b", "cat /proc/timer_list /proc/keys 2>/dev/null | wc -c")?
            .trim(),
        "0",
    )?;
    let writable = t.sh(
        "b",
        "echo 1 > /proc/sys/kernel/sysrq 2>/dev/null && echo written || echo refused",
    )?;
    same(writable.trim(), "refused")?;
    same(t.sh("b", "ls /sys/firmware | wc -l")?.trim(), "0")
}

fn limits_are_the_cgroups(t: &Space) -> Result<()> {
    let limits = json!({ "resources": { "limits": { "memory": "48Mi", "cpu": "250m" }, "requests": { "cpu": "100m" } } });
    t.run(&with_main(pod("b", FOREVER), limits))?;
    let memory = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
    same(t.sh("b", memory)?.trim(), "50331648")?;
    let cpu = "cat /sys/fs/cgroup/cpu.max 2>/dev/null || echo $(cat /sys/fs/cgroup/cpu*/cpu.cfs_quota_us | head -1) $(cat /sys/fs/cgroup/cpu*/cpu.cfs_period_us | head -1)";
    same(t.sh("b", cpu)?.trim(), "25000 100000")
}

fn limits_of_a_pod_as_a_whole_are_its_cgroups(t: &Space) -> Result<()> {
    let resources = json!({ "resources": { "limits": { "cpu": "200m", "memory": "64Mi" } } });
    t.run(&with(pod("whole", FOREVER), resources))?;
    let seen = t.pod("whole")?;
    same(seen["status"]["qosClass"].as_str(), Some("Guaranteed"))?;
    let memory = of_pods_cgroup(t, &seen, POD_MEMORY);
    same(memory.as_deref(), Some("67108864"))?;
    same(
        of_pods_cgroup(t, &seen, POD_QUOTA).as_deref(),
        Some("20000"),
    )
}

pub const POD_MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];
pub const POD_QUOTA: [&str; 2] = ["cpu.cfs_quota_us", "cpu.max"];

/// The first word of a file of a pod's cgroup, by its names on v1 and v2.
pub fn of_pods_cgroup(t: &Space, pod: &Value, files: [&str; 2]) -> Option<String> {
    let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
    let group = |dir: &PathBuf| dir.ends_with(format!("pod{uid}"));
    let roots = cgroup::hierarchies().into_iter();
    let all = roots.flat_map(|root| cgroup::tree(&root.join(&t.node().cgroup)));
    let mut files = all.filter(group).flat_map(|g| files.map(|f| g.join(f)));
    let text = files.find_map(|file| std::fs::read_to_string(file).ok())?;
    text.split_whitespace().next().map(str::to_owned)
}

fn memory_over_the_limit_is_told_as_oom_killed(t: &Space) -> Result<()> {
    let hog = with(
        pod("b", "tail /dev/zero"),
        json!({ "restartPolicy": "Never" }),
    );
    t.apply(&with_main(
        hog,
        json!({
            "command": ["tail", "/dev/zero"], "resources": { "limits": { "memory": "20Mi" } },
        }),
    ))?;
    t.wait("b", "Failed", |p| phase(p) == "Failed")?;
    let seen = t.pod("b")?;
    let ended = &status(&seen)["state"]["terminated"];
    same(ended["reason"].as_str(), Some("OOMKilled"))?;
    same(ended["exitCode"].as_i64(), Some(137))
}

fn environment_comes_from_fields_resources_and_objects(t: &Space) -> Result<()> {
    t.kubectl(&[
        "create",
        "configmap",
        "c",
        "--from-literal=data-1=one",
        "--from-literal=A=two",
    ])?;
    t.make_secret("s", "key=hidden")?;
    let env = json!({
        "env": [
            { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
            { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
            { "name": "NODE", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
            { "name": "MEMORY", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
            { "name": "SECRET", "valueFrom": { "secretKeyRef": { "name": "s", "key": "key" } } },
            { "name": "BOTH", "value": "$(NAME)-$(SECRET)" },
            { "name": "NONE", "valueFrom": { "configMapKeyRef": { "name": "no", "key": "x", "optional": true } } },
        ],
        "envFrom": [{ "prefix": "C_", "configMapRef": { "name": "c" } }],
        "resources": { "limits": { "memory": "64Mi" } },
    });
    t.run(&with_main(pod("b", FOREVER), env))?;
    // Not through a shell: it would drop names that are no shell names.
    let text = t.kubectl(&["exec", "b", "--", "env"])?;
    let ip = t.pod("b")?["status"]["podIP"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    for line in [
        "NAME=b",
        &format!("IP={ip}"),
        &format!("NODE={}", t.node().name),
        "MEMORY=64",
        "SECRET=hidden",
        "BOTH=b-hidden",
        "C_data-1=one",
        "C_A=two",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "HOSTNAME=b",
    ] {
        ensure!(text.lines().any(|l| l == line), "no {line} in {text}");
    }
    ensure!(
        !text.contains("NONE="),
        "an optional key that is missing sets nothing"
    );
    Ok(())
}

fn host_namespaces_are_the_hosts(t: &Space) -> Result<()> {
    let host = json!({ "hostNetwork": true, "hostPID": true, "hostIPC": true });
    t.run(&with(pod("b", FOREVER), host))?;
    let holder = t.node().holder.pid;
    let net = std::fs::read_link(format!("/proc/{holder}/ns/net"))?;
    let pid = std::fs::read_link("/proc/self/ns/pid")?;
    let seen = t.sh(
        "b",
        "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; hostname",
    )?;
    has(&seen, &net.to_string_lossy())?;
    has(&seen, &pid.to_string_lossy())?;
    same(
        t.pod("b")?["status"]["podIP"].as_str(),
        Some(t.node().ip.as_str()),
    )?;
    has(&seen, &t.node().name)
}

fn shared_process_namespace_shows_all_containers(t: &Space) -> Result<()> {
    let mut both = with(
        pod("b", "exec sleep 4321"),
        json!({ "shareProcessNamespace": true }),
    );
    if let Some(containers) = both["spec"]["containers"].as_array_mut() {
        containers.push(crate::kit::container("other", FOREVER));
    }
    t.run(&both)?;
    let seen = t.kubectl(&["exec", "b", "-c", "other", "--", "sh", "-c", "ps -o args"])?;
    has(&seen, "sleep 4321")
}

fn a_pod_without_host_users_has_ids_of_its_own(t: &Space) -> Result<()> {
    let volumes = json!({ "hostUsers": false, "volumes": [{ "name": "d", "emptyDir": {} }] });
    let mounts = json!({ "volumeMounts": [{ "name": "d", "mountPath": "/d" }] });
    t.run(&with_main(
        with(pod("b", "id -u; touch /d/f; sleep 1000"), volumes),
        mounts,
    ))?;
    let map = t.sh(
        "b",
        "cat /proc/self/uid_map; id -u; stat -c %u /d/f /etc/passwd",
    )?;
    let mut words = map.split_whitespace();
    same(words.next(), Some("0"))?;
    let host: u64 = words.next().unwrap_or("0").parse()?;
    ensure!(host >= 65536, "root in the pod is {host} on the host");
    same(words.skip(1).collect::<Vec<_>>(), vec!["0", "0", "0"])
}

fn init_containers_run_in_order_before_the_rest(t: &Space) -> Result<()> {
    let mount = json!([{ "name": "d", "mountPath": "/d" }]);
    let init = |name: &str, script: &str| {
        let mut c = crate::kit::container(name, script);
        c["volumeMounts"] = mount.clone();
        c
    };
    let spec = json!({
        "volumes": [{ "name": "d", "emptyDir": {} }],
        "initContainers": [init("one", "echo 1 >> /d/f"), init("two", "echo 2 >> /d/f")],
    });
    t.run(&with_main(
        with(pod("b", "echo 3 >> /d/f; cat /d/f; sleep 1000"), spec),
        json!({ "volumeMounts": mount }),
    ))?;
    t.wait_log("b", "3")?;
    same(t.logs("b")?.as_str(), "1\n2\n3\n")
}

fn a_sidecar_starts_first_and_does_not_hold_up_a_job(t: &Space) -> Result<()> {
    let mut side = crate::kit::container(
        "side",
        "touch /d/side; trap 'exit 0' TERM; while :; do sleep 0.1; done",
    );
    side["restartPolicy"] = json!("Always");
    side["volumeMounts"] = json!([{ "name": "d", "mountPath": "/d" }]);
    side["startupProbe"] =
        json!({ "exec": { "command": ["test", "-e", "/d/side"] }, "periodSeconds": 1 });
    let mut main = crate::kit::container("main", "test -e /d/side");
    main["volumeMounts"] = side["volumeMounts"].clone();
    t.apply(&json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "j" },
        "spec": { "backoffLimit": 0, "template": { "spec": {
            "restartPolicy": "Never", "initContainers": [side], "containers": [main],
            "volumes": [{ "name": "d", "emptyDir": {} }],
        }}},
    }))?;
    t.kubectl(&["wait", "job/j", "--for=condition=Complete", "--timeout=60s"])
        .map(drop)
}

fn working_dir_and_args_are_those_of_the_spec(t: &Space) -> Result<()> {
    let fields: Value = json!({ "workingDir": "/tmp", "command": ["sh", "-c"], "args": ["pwd; echo $0; sleep 1000", "$(HOME_X)"], "env": [{ "name": "HOME_X", "value": "x" }] });
    t.run(&with_main(pod("b", ""), fields))?;
    t.wait_log("b", "x")?;
    same(t.logs("b")?.as_str(), "/tmp\nx\n")
}
