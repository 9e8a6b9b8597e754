//! The CRI verbs on a real kernel: pods of a static busybox, pulled from a
//! registry in this process, in a network namespace, a state folder and a
//! cgroup root of their own. Every test ends by looking for what was left.

#![allow(unsafe_code)]

#[path = "cri/ahead.rs"]
mod ahead;
#[path = "cri/bed.rs"]
mod bed;
#[path = "common/disk.rs"]
mod disk;
#[path = "cri/full.rs"]
mod full;
#[path = "cri/registry.rs"]
mod registry;

use bed::{Bed, Pod};
use cri_proto::v1::*;
use cri_proto::{Code, Cri};
use futures::StreamExt;
use std::time::{Duration, Instant};

/// The engine starts itself anew as its spawner: in tests that is the test
/// program, which has to become it before the test harness starts. The tests'
/// own network namespace is entered here too, while there is one thread.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

extern "C" fn before_main() {
    runtime::process::dispatch();
    bed::enter_network_namespace();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn pod_runs_logs_answers_exec_stops_and_leaves_nothing() {
    let bed = Bed::new("life").await;
    let pod = bed.run_pod(Pod::named("life")).await;
    let id = bed
        .start(&pod, "c", &["sh", "-c", "echo hello; exec sleep 1000"])
        .await;
    let status = bed.status(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    assert!(status.started_at > 0 && status.created_at > 0);
    bed.eventually("the log has its line", || {
        bed.log(&pod, "c").contains(" stdout F hello\n")
    })
    .await;
    let out = bed
        .exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 3"])
        .await;
    assert_eq!(
        (out.exit_code, out.stdout.as_slice(), out.stderr.as_slice()),
        (3, &b"out\n"[..], &b"err\n"[..])
    );
    let begun = Instant::now();
    bed.stop(&id, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(30));
    let status = bed.status(&id).await;
    assert_eq!(status.state(), ContainerState::ContainerExited);
    assert_eq!((status.exit_code, status.reason.as_str()), (143, "Error"));
    assert!(status.finished_at >= status.started_at);
    bed.remove_pod(&pod).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn last_of_the_pods_below_one_cgroup_removes_it() {
    let bed = Bed::new("shared").await;
    let run = |number: usize| {
        let mut pod = Pod::named(&format!("shared{number}"));
        let linux = pod.config.linux.get_or_insert_default();
        linux.cgroup_parent = "/kubepods/shared".to_owned();
        bed.run_pod(pod)
    };
    // All at once: nobody knows of the others when it makes what it finds missing.
    let pods = futures::future::join_all((0..12).map(run)).await;
    futures::future::join_all(pods.iter().map(|pod| bed.remove_pod(pod))).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn exit_codes_and_reasons_are_the_kernels() {
    let bed = Bed::new("exits").await;
    let pod = bed.run_pod(Pod::named("exits")).await;
    let done = bed.start(&pod, "done", &["true"]).await;
    let failed = bed.start(&pod, "failed", &["sh", "-c", "exit 7"]).await;
    let done = bed.ended(&done).await;
    let failed = bed.ended(&failed).await;
    assert_eq!((done.exit_code, done.reason.as_str()), (0, "Completed"));
    assert_eq!((failed.exit_code, failed.reason.as_str()), (7, "Error"));
    let mut hungry = bed.container(
        "hungry",
        &["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=100M"],
    );
    let limit = LinuxContainerResources {
        memory_limit_in_bytes: 15 << 20,
        memory_swap_limit_in_bytes: 15 << 20,
        ..Default::default()
    };
    hungry.linux.get_or_insert_default().resources = Some(limit);
    let hungry = bed.create(&pod, hungry).await.expect("created");
    bed.start_created(&hungry).await.expect("started");
    let hungry = bed.ended(&hungry).await;
    assert_eq!(
        (hungry.exit_code, hungry.reason.as_str()),
        (137, "OOMKilled")
    );
    let none = bed
        .create(&pod, bed.container("none", &["nosuch"]))
        .await
        .expect("created");
    let error = bed.start_created(&none).await.expect_err("no such command");
    assert!(
        error
            .message()
            .contains("executable file not found in $PATH"),
        "{error}"
    );
    let none = bed.status(&none).await;
    assert_eq!((none.exit_code, none.reason.as_str()), (128, "StartError"));
    bed.remove_pod(&pod).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn verbs_may_be_repeated_and_what_is_not_there_is_not_found() {
    let bed = Bed::new("again").await;
    let cri = &bed.runtime;
    let missing = "0".repeat(64);
    for _ in 0..2 {
        bed.stop(&missing, 0).await;
        bed.remove(&missing).await;
        bed.remove_pod(&missing).await;
    }
    let request = ContainerStatusRequest {
        container_id: missing.clone(),
        verbose: false,
    };
    let error = cri.container_status(request).await.expect_err("missing");
    assert_eq!(error.code(), Code::NotFound);
    let pod = bed.run_pod(Pod::named("again")).await;
    assert_eq!(
        bed.run_pod(Pod::named("again")).await,
        pod,
        "the same request is the same pod"
    );
    let first = bed
        .create(&pod, bed.container("c", &["sleep", "1000"]))
        .await
        .expect("created");
    let again = bed
        .create(&pod, bed.container("c", &["sleep", "1000"]))
        .await
        .expect("joined");
    assert_eq!(first, again);
    bed.start_created(&first[..13])
        .await
        .expect("started by a beginning of its id");
    bed.start_created(&first).await.expect("started already");
    // A running container is ended and removed.
    bed.remove(&first).await;
    bed.remove(&first).await;
    for _ in 0..2 {
        bed.stop_pod(&pod).await;
    }
    let error = bed
        .create(&pod, bed.container("late", &["true"]))
        .await
        .expect_err("stopped");
    assert_eq!(error.code(), Code::FailedPrecondition);
    for _ in 0..2 {
        bed.remove_pod(&pod).await;
    }
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn exec_timeout_kills_the_command_and_not_the_container() {
    let bed = Bed::new("timeout").await;
    let pod = bed.run_pod(Pod::named("timeout")).await;
    let id = bed.start(&pod, "c", &["sleep", "1000"]).await;
    let request = ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".to_owned(), "4321".to_owned()],
        timeout: 1,
    };
    let error = bed.runtime.exec_sync(request).await.expect_err("over time");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("timeout 1s exceeded"), "{error}");
    let list = bed
        .exec(&id, &["sh", "-c", "ps | grep -c '[s]leep 4321' || true"])
        .await;
    assert_eq!(String::from_utf8_lossy(&list.stdout).trim(), "0");
    // What a command leaves in the background holds up nobody.
    let begun = Instant::now();
    let out = bed.exec(&id, &["sh", "-c", "sleep 1000 & echo done"]).await;
    assert_eq!(out.stdout, b"done\n");
    assert!(begun.elapsed() < Duration::from_secs(60));
    bed.remove_pod(&pod).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn events_tell_every_step_with_the_state_after_it() {
    let bed = Bed::new("events").await;
    let mut events = bed.runtime.get_container_events().await.expect("stream");
    let pod = bed.run_pod(Pod::named("events")).await;
    let id = bed.start(&pod, "c", &["true"]).await;
    bed.ended(&id).await;
    bed.remove(&id).await;
    bed.remove_pod(&pod).await;
    use ContainerEventType::*;
    let mut seen = Vec::new();
    while let Some(Ok(event)) = events.next().await {
        let last =
            event.container_id == pod && event.container_event_type() == ContainerDeletedEvent;
        assert!(event.pod_sandbox_status.is_some());
        seen.push((event.container_id.clone(), event.container_event_type()));
        if last {
            break;
        }
    }
    let of = |id: &str| -> Vec<ContainerEventType> {
        seen.iter()
            .filter(|(of, _)| of == id)
            .map(|(_, kind)| *kind)
            .collect()
    };
    let all = [
        ContainerCreatedEvent,
        ContainerStartedEvent,
        ContainerStoppedEvent,
        ContainerDeletedEvent,
    ];
    assert_eq!(of(&pod), all);
    let mut kinds = of(&id);
    kinds.sort();
    assert_eq!(kinds, all);
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn containers_outlive_the_agent_and_are_adopted() {
    let mut bed = Bed::new("adopt").await;
    let pod = bed.run_pod(Pod::named("adopt")).await;
    let id = bed.start(&pod, "c", &["sleep", "1000"]).await;
    let brief = bed
        .start(&pod, "brief", &["sh", "-c", "sleep 0.3; exit 9"])
        .await;
    let pid = bed.pid(&id).await;
    bed.restart_after(Duration::from_millis(600)).await;
    assert_eq!(bed.pid(&id).await, pid);
    assert_eq!(
        bed.status(&id).await.state(),
        ContainerState::ContainerRunning
    );
    assert_eq!(bed.exec(&id, &["echo", "here"]).await.stdout, b"here\n");
    let brief = bed.ended(&brief).await;
    assert_eq!((brief.exit_code, brief.reason.as_str()), (9, "Error"));
    bed.remove_pod(&pod).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn unreadable_record_takes_down_its_own_pod_only() {
    let mut bed = Bed::new("broken").await;
    let good = bed.run_pod(Pod::named("good")).await;
    let kept = bed.start(&good, "c", &["sleep", "1000"]).await;
    let bad = bed.run_pod(Pod::named("bad")).await;
    bed.start(&bad, "c", &["sleep", "1000"]).await;
    bed.break_record(&bad);
    bed.restart_after(Duration::ZERO).await;
    assert_eq!(
        bed.status(&kept).await.state(),
        ContainerState::ContainerRunning
    );
    assert_eq!(bed.pods().await, std::slice::from_ref(&good));
    bed.remove_pod(&good).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn death_of_a_monitor_is_the_end_of_its_pod_only() {
    let bed = Bed::new("dead").await;
    let (one, two) = (
        bed.run_pod(Pod::named("one")).await,
        bed.run_pod(Pod::named("two")).await,
    );
    let (a, b) = (
        bed.start(&one, "c", &["sleep", "1000"]).await,
        bed.start(&two, "c", &["sleep", "1000"]).await,
    );
    bed.kill_monitor(&one).await;
    let lost = bed.ended(&a).await;
    assert_eq!(
        (lost.exit_code, lost.reason.as_str()),
        (255, "ContainerStatusUnknown")
    );
    bed.pod_is(&one, PodSandboxState::SandboxNotready).await;
    assert_eq!(
        bed.status(&b).await.state(),
        ContainerState::ContainerRunning
    );
    for pod in [&one, &two] {
        bed.remove_pod(pod).await;
    }
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn default_filter_is_loaded_also_without_no_new_privileges() {
    let bed = Bed::new("filter").await;
    let pod = bed.run_pod(Pod::named("filter")).await;
    let mut config = bed.container("c", &["sleep", "1000"]);
    let linux = config.linux.get_or_insert_default();
    let security = linux.security_context.get_or_insert_default();
    security.seccomp = Some(SecurityProfile::default());
    let id = bed.create(&pod, config).await.expect("created");
    bed.start_created(&id).await.expect("started");
    let out = bed
        .exec(&id, &["cat", "/proc/1/status", "/proc/self/status"])
        .await;
    let status = String::from_utf8_lossy(&out.stdout);
    assert!(status.contains("NoNewPrivs:\t0"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    bed.remove_pod(&pod).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn pods_of_every_namespace_mode_run() {
    let bed = Bed::new("modes").await;
    type Set = fn(&mut NamespaceOption);
    let modes: [(&str, Set); 4] = [
        ("own-pid", |o| o.set_pid(NamespaceMode::Container)),
        ("host-pid", |o| o.set_pid(NamespaceMode::Node)),
        ("host-ipc", |o| o.set_ipc(NamespaceMode::Node)),
        ("host-net", |o| o.set_network(NamespaceMode::Node)),
    ];
    for (name, set) in modes {
        let mut pod = Pod::named(name);
        let linux = pod.config.linux.get_or_insert_default();
        let security = linux.security_context.get_or_insert_default();
        let options = security.namespace_options.get_or_insert_default();
        set(options);
        let options = options.clone();
        let pod = bed.run_pod(pod).await;
        let mut config = bed.container("c", &["sleep", "1000"]);
        let linux = config.linux.get_or_insert_default();
        let security = linux.security_context.get_or_insert_default();
        security.namespace_options = Some(options);
        let id = bed.create(&pod, config).await.expect(name);
        bed.start_created(&id).await.expect(name);
        let out = bed
            .exec(&id, &["sh", "-c", "cat /proc/1/cmdline | head -c 5"])
            .await;
        let first = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(
            first == "sleep",
            name == "own-pid",
            "{name}: pid 1 is {first}"
        );
        bed.remove_pod(&pod).await;
    }
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn image_is_mounted_read_only_as_a_volume() {
    let bed = Bed::new("volume").await;
    let pod = bed.run_pod(Pod::named("volume")).await;
    let mount = |path: &str, sub_path: &str| Mount {
        container_path: path.to_owned(),
        image: Some(ImageSpec {
            image: bed::IMAGE.to_owned(),
            ..Default::default()
        }),
        image_sub_path: sub_path.to_owned(),
        readonly: true,
        ..Default::default()
    };
    let mut config = bed.container("c", &["sleep", "1000"]);
    config.mounts = vec![mount("/whole", ""), mount("/part", "etc")];
    let id = bed.create(&pod, config).await.expect("created");
    bed.start_created(&id).await.expect("started");
    let script = "cat /whole/etc/second /part/second; grep -c root /part/passwd; \
        /whole/bin/echo runs; touch /whole/x 2>&1";
    let out = bed.exec(&id, &["sh", "-c", script]).await;
    let out = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(
        out,
        "layer\nlayer\n1\nruns\ntouch: /whole/x: Read-only file system\n"
    );
    let image_id = bed.status(&id).await.image_id;
    let mounts = bed.status(&id).await.mounts;
    let of = mounts[0]
        .image
        .as_ref()
        .map(|image| image.image_ref.as_str());
    assert_eq!(of, Some(image_id.as_str()));
    let mut config = bed.container("none", &["true"]);
    config.mounts = vec![mount("/part", "no/such")];
    let error = bed.create(&pod, config).await.expect_err("no such path");
    assert_eq!(error.code(), Code::InvalidArgument);
    let mut config = bed.container("writable", &["true"]);
    config.mounts = vec![mount("/part", "etc")];
    config.mounts[0].readonly = false;
    let error = bed.create(&pod, config).await.expect_err("to be written");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("read-only"), "{error}");
    bed.remove_pod(&pod).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn cve_2025_47291_pod_in_a_user_namespace_runs_as_mapped_and_limited() {
    let bed = Bed::new("userns").await;
    let mut pod = Pod::named("userns");
    let map = IdMapping {
        host_id: 100_000,
        container_id: 0,
        length: 65_536,
    };
    let options = NamespaceOption {
        userns_options: Some(UserNamespace {
            mode: NamespaceMode::Pod.into(),
            uids: vec![map],
            gids: vec![map],
        }),
        ..Default::default()
    };
    let linux = pod.config.linux.get_or_insert_default();
    let security = linux.security_context.get_or_insert_default();
    security.namespace_options = Some(options.clone());
    let pod = bed.run_pod(pod).await;
    let mut config = bed.container("c", &["sleep", "1000"]);
    let linux = config.linux.get_or_insert_default();
    let security = linux.security_context.get_or_insert_default();
    security.namespace_options = Some(options);
    linux.resources = Some(LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    });
    let id = bed.create(&pod, config).await.expect("created");
    bed.start_created(&id).await.expect("started");
    let out = bed
        .exec(
            &id,
            &[
                "sh",
                "-c",
                "id -u; cat /proc/self/uid_map; touch /x && echo made; \
                 cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null",
            ],
        )
        .await;
    let out = String::from_utf8_lossy(&out.stdout).into_owned();
    let words: Vec<&str> = out.split_whitespace().collect();
    let limited = ["0", "0", "100000", "65536", "made", "67108864"];
    assert_eq!(words, limited, "{out}");
    bed.remove_pod(&pod).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn container_is_confined_as_asked() {
    let bed = Bed::new("confined").await;
    let pod = bed.run_pod(Pod::named("confined")).await;
    let mut config = bed.container("c", &["sleep", "1000"]);
    let linux = config.linux.get_or_insert_default();
    let security = linux.security_context.get_or_insert_default();
    security.run_as_user = Some(Int64Value { value: 1000 });
    security.supplemental_groups = vec![1234];
    security.readonly_rootfs = true;
    security.no_new_privs = true;
    security.seccomp = Some(SecurityProfile::default());
    linux.resources = Some(LinuxContainerResources {
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    });
    let id = bed.create(&pod, config).await.expect("created");
    bed.start_created(&id).await.expect("started");
    let say = async |script: &str| {
        let out = bed.exec(&id, &["sh", "-c", script]).await;
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    assert_eq!(say("id -u; id -G").await, "1000\n1000 1234 50000");
    let status = say("cat /proc/self/status").await;
    for line in [
        "CapEff:\t0000000000000000",
        "CapInh:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert_eq!(
        say("touch /x 2>&1; echo $?").await,
        "touch: /x: Read-only file system\n1"
    );
    assert_eq!(
        say("unshare -m true 2>&1 | grep -c 'not permitted'").await,
        "1"
    );
    assert_eq!(say("cat /proc/kcore | wc -c").await, "0");
    assert_eq!(
        say("hostname; cat /etc/hostname").await,
        "confined\nconfined"
    );
    let user = bed
        .status(&id)
        .await
        .user
        .and_then(|u| u.linux)
        .expect("user");
    assert_eq!(
        (user.uid, user.gid, user.supplemental_groups),
        (1000, 1000, vec![1000, 1234, 50000])
    );
    let update = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(LinuxContainerResources {
            memory_limit_in_bytes: 96 << 20,
            ..Default::default()
        }),
        ..Default::default()
    };
    bed.runtime
        .update_container_resources(update)
        .await
        .expect("updated");
    let resources = bed
        .status(&id)
        .await
        .resources
        .and_then(|r| r.linux)
        .expect("resources");
    assert_eq!(
        (resources.memory_limit_in_bytes, resources.cpu_shares),
        (96 << 20, 512)
    );
    let stats = bed.runtime.container_stats(ContainerStatsRequest {
        container_id: id.clone(),
    });
    let stats = stats.await.expect("stats").stats.expect("stats");
    let memory = stats.memory.expect("memory");
    let available = memory.available_bytes.expect("available").value;
    assert!(
        available > (64 << 20) && available <= (96 << 20),
        "{available}"
    );
    bed.remove_pod(&pod).await;
    bed.close().await;
}
