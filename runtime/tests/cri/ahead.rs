//! Sandboxes that are made before their pods: monitor, namespaces, wire and address.

use super::bed::{Bed, Pod};
use cri_proto::v1::*;
use std::path::Path;
use std::time::Duration;

/// As the runtime keeps them unless told otherwise.
const AHEAD: usize = 16;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn pod_takes_a_sandbox_made_ahead_and_a_new_agent_gives_the_rest_back() {
    let (mut bed, first, before) = stocked("ahead").await;
    let state = bed.state().to_owned();
    let second = bed.run_pod(Pod::named("second")).await;
    assert!(before.contains(&second), "{second} is none of {before:?}");
    let id = bed.start(&second, "c", &["sleep", "1000"]).await;
    let inside = bed.exec(&id, &["cat", "/proc/net/fib_trie"]).await;
    let inside = String::from_utf8_lossy(&inside.stdout).into_owned();
    let address = bed.address(&second).await;
    assert!(inside.contains(&format!("-- {address}\n")), "{inside}");
    bed.eventually("there are as many again", || full(&state))
        .await;
    assert_eq!(wires(&state), 2 + AHEAD);
    bed.restart_after(Duration::ZERO).await;
    assert_eq!(ready(&state), Vec::<String>::new());
    assert_eq!(waiting(&state), Vec::<String>::new());
    assert_eq!(bed.exec(&id, &["true"]).await.exit_code, 0);
    bed.remove_pod(&second).await;
    bed.remove_pod(&first).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn pod_with_network_settings_of_its_own_takes_none_made_ahead() {
    let (bed, first, before) = stocked("apart").await;
    let mut pod = Pod::named("second");
    let linux = pod.config.linux.get_or_insert_default();
    let setting = ("net.ipv4.conf.default.rp_filter", "2");
    linux
        .sysctls
        .insert(setting.0.to_owned(), setting.1.to_owned());
    let second = bed.run_pod(pod).await;
    assert!(!before.contains(&second), "{second} is one of {before:?}");
    let id = bed.start(&second, "c", &["sleep", "1000"]).await;
    // The interface takes it over as it is made.
    let file = "/proc/sys/net/ipv4/conf/eth0/rp_filter";
    let read: ExecSyncResponse = bed.exec(&id, &["cat", file]).await;
    assert_eq!(read.stdout, b"2\n");
    bed.remove_pod(&second).await;
    bed.remove_pod(&first).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn monitors_that_were_killed_while_they_waited_are_passed_over() {
    let (bed, first, before) = stocked("killed").await;
    let state = bed.state().to_owned();
    for pid in monitors_ahead() {
        let pid = rustix::process::Pid::from_raw(pid).expect("pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    }
    let gone = || monitors_ahead().is_empty();
    bed.eventually("they have ended", gone).await;
    let second = bed.run_pod(Pod::named("second")).await;
    assert!(!before.contains(&second), "{second} is one of {before:?}");
    let id = bed.start(&second, "c", &["sleep", "1000"]).await;
    assert_eq!(bed.exec(&id, &["true"]).await.exit_code, 0);
    bed.eventually("others are ready", || full(&state)).await;
    let left = |id: &String| ready(&state).contains(id) || waiting(&state).contains(id);
    assert!(!before.iter().any(left), "{before:?}");
    bed.remove_pod(&second).await;
    bed.remove_pod(&first).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn mounts_made_ahead_are_those_of_any_container_and_the_first_ones_alone() {
    let (bed, first, before) = stocked("mounts").await;
    let second = bed.run_pod(Pod::named("second")).await;
    assert!(before.contains(&second), "{second} is none of {before:?}");
    let one = bed.start(&second, "one", &["sleep", "1000"]).await;
    let other = bed.start(&second, "other", &["sleep", "1000"]).await;
    let seen = async |id: &str, script: &str| {
        let seen = bed.exec(id, &["sh", "-c", script]).await;
        String::from_utf8_lossy(&seen.stdout).into_owned()
    };
    for script in [
        "grep -v ' / overlay' /proc/mounts | sort",
        "stat -c '%n %F %a %u:%g %t:%T' /dev /dev/* /dev/pts/*",
        "for link in fd stdin stdout stderr ptmx; do readlink /dev/$link; done",
    ] {
        let (ours, theirs) = (seen(&one, script).await, seen(&other, script).await);
        assert!(ours.contains("/"), "{script}: {ours}");
        assert_eq!(ours, theirs, "{script}");
    }
    seen(&one, "touch /dev/mine").await;
    let others = seen(&other, "ls /dev").await;
    assert!(
        others.contains("null") && !others.contains("mine"),
        "{others}"
    );
    bed.remove_pod(&second).await;
    bed.remove_pod(&first).await;
    bed.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods"]
async fn cgroups_wait_for_the_first_container_and_go_when_there_is_none() {
    let mut bed = Bed::new("first").await;
    let pod = bed.run_pod(Pod::named("taken")).await;
    let awaited = first_container(&bed, "taken").await;
    // A container that can't be made takes nothing away.
    let mut config = bed.container("c", &["sleep", "1000"]);
    config.image.get_or_insert_default().image = "registry.test/nowhere:1".to_owned();
    bed.create(&pod, config).await.expect_err("no such image");
    let id = bed.start(&pod, "c", &["sleep", "1000"]).await;
    assert_eq!(id, awaited);
    assert_eq!(bed.exec(&id, &["true"]).await.exit_code, 0);

    let stopped = bed.run_pod(Pod::named("stopped")).await;
    first_container(&bed, "stopped").await;
    bed.stop_pod(&stopped).await;
    let none = Vec::<String>::new();
    assert_eq!(bed.cgroups_below("/kubepods/podstopped"), none);

    let left = bed.run_pod(Pod::named("left")).await;
    let awaited = first_container(&bed, "left").await;
    bed.restart_after(Duration::ZERO).await;
    assert_eq!(bed.cgroups_below("/kubepods/podleft"), none);
    // The next agent does not know whether there was one of that id.
    let id = bed.start(&left, "c", &["sleep", "1000"]).await;
    assert_ne!(id, awaited);
    for pod in [pod, stopped, left] {
        bed.remove_pod(&pod).await;
    }
    bed.close().await;
}

/// The container whose cgroups are there, in all hierarchies.
async fn first_container(bed: &Bed, pod: &str) -> String {
    let parent = format!("/kubepods/pod{pod}");
    let found = || match bed.cgroups_below(&parent).as_slice() {
        [one, others @ ..] if others.iter().all(|other| other == one) => Some(one.clone()),
        _ => None,
    };
    bed.eventually("its cgroups are there", || {
        found().is_some() && bed.cgroups_below(&parent).len() == bed.cgroups(&parent)
    })
    .await;
    found().expect("one")
}

/// A runtime with a first pod, its sandbox, and those that are ready after it.
async fn stocked(name: &str) -> (Bed, String, Vec<String>) {
    let bed = Bed::new(name).await;
    let first = bed.run_pod(Pod::named("first")).await;
    let state = bed.state().to_owned();
    bed.eventually("sandboxes are ready", || full(&state)).await;
    (bed, first, ready(&state))
}

fn full(state: &Path) -> bool {
    ready(state).len() == AHEAD
}

/// Of our spawner's children those that have no pod.
fn monitors_ahead() -> Vec<i32> {
    let children = |pid: i32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter();
        let tasks = tasks.flatten().flatten().map(|task| task.path());
        let all = tasks.filter_map(|task| std::fs::read_to_string(task.join("children")).ok());
        let all = all.collect::<Vec<_>>().join(" ");
        let pids = all.split_whitespace().map(|pid| pid.parse().expect("pid"));
        pids.collect::<Vec<i32>>()
    };
    let is = |pid: &i32, name: &str| {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        comm.is_ok_and(|comm| comm.trim() == name)
    };
    let own = children(rustix::process::getpid().as_raw_nonzero().get()).into_iter();
    let spawners = own.filter(|pid| is(pid, "lighter-spawner"));
    let all = spawners.flat_map(children);
    all.filter(|pid| is(pid, "lighter-ahead")).collect()
}

/// Ids of the engine's sandboxes that are on no record.
fn waiting(state: &Path) -> Vec<String> {
    let names = |dir: &str| {
        let entries = std::fs::read_dir(state.join(dir)).into_iter().flatten();
        let names = entries.flatten().map(|e| e.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    let mut ids = names("engine/sandboxes");
    let known = names("sandboxes");
    ids.retain(|id| !known.contains(id));
    ids
}

/// Ids of the sandboxes that networks are ready for: their records name no pod.
fn ready(state: &Path) -> Vec<String> {
    let records = std::fs::read_dir(state.join("network/results")).expect("records");
    let nobody = |entry: std::io::Result<std::fs::DirEntry>| {
        let text = std::fs::read(entry.ok()?.path()).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let pod = &record["pod"];
        (pod["name"] == "").then(|| pod["sandbox_id"].as_str().map(str::to_owned))?
    };
    let mut ids: Vec<_> = records.filter_map(nobody).collect();
    ids.sort_unstable();
    ids
}

/// Ends of pods' wires on the host, of those that the records name: others may have some too.
fn wires(state: &Path) -> usize {
    let records = std::fs::read_dir(state.join("network/results")).expect("records");
    let text = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(entry.ok()?.path()).ok()
    };
    let records: String = records.filter_map(text).collect();
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").expect("interfaces");
    let names = table.lines().filter_map(|line| line.trim().split_once(':'));
    names
        .filter(|(name, _)| name.starts_with("lt") && records.contains(&format!("\"{name}\"")))
        .count()
}
