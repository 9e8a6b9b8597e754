//! PID modes and user namespaces.

use runtime::process::{ContainerPid, IdMap, PidMode, SandboxSpec};

use super::bed::{Bed, Container, mount};

fn pod(id: &str) -> SandboxSpec {
    SandboxSpec {
        pid: PidMode::Pod,
        ..Bed::spec(id)
    }
}

/// `hostUsers: false`.
fn user(id: &str) -> SandboxSpec {
    let map = IdMap {
        container: 0,
        host: 1_000_000,
        length: 65536,
    };
    SandboxSpec {
        user: Some((vec![map], vec![map])),
        ..Bed::spec(id)
    }
}

fn with_pid(script: &str, pid: ContainerPid) -> Container {
    Container {
        pid,
        ..Container::sh(script)
    }
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn containers_see_each_other_when_the_pod_shares_its_pid_namespace() {
    let mut bed = Bed::new("podpid").await;
    let sandbox = bed.sandbox_of(pod("s1")).await;
    bed.run(&sandbox, "c1", with_pid("sleep 1111", ContainerPid::Pod))
        .await;
    let (_, out, _) = bed
        .exec(
            &sandbox,
            "c1",
            "ps -o pid,args; ls -l /proc/1/fd | grep -c pipe",
            None,
        )
        .await;
    assert!(
        out.lines()
            .any(|l| l.trim().starts_with("1 ") && l.ends_with(" pause")),
        "{out}"
    );
    assert!(out.contains("sleep 1111"), "{out}");
    assert!(out.ends_with("\n0\n"), "{out}");
    let second = with_pid(
        "ps -o args | grep '[s]leep 1111'; sleep 0.1 & exit 0",
        ContainerPid::Pod,
    );
    assert!(
        bed.output(&sandbox, "c2", second)
            .await
            .contains("sleep 1111")
    );
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn container_joins_the_pid_namespace_of_its_target() {
    let mut bed = Bed::new("target").await;
    let sandbox = bed.sandbox("s1").await;
    bed.run(&sandbox, "c1", Container::sh("sleep 2222")).await;
    let debug = with_pid("ps -o pid,args", ContainerPid::Target("c1".into()));
    let out = bed.output(&sandbox, "debug", debug).await;
    assert!(
        out.lines()
            .any(|l| l.trim() == "1 sleep 2222" || l.trim().starts_with("1 /bin/sh")),
        "{out}"
    );
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn container_sees_the_hosts_processes_when_its_pid_mode_is_node() {
    let mut bed = Bed::new("node").await;
    let sandbox = bed.sandbox("s1").await;
    let script = format!("cat /proc/{}/comm; echo $$", std::process::id());
    let out = bed
        .output(&sandbox, "c1", with_pid(&script, ContainerPid::Node))
        .await;
    assert!(out.lines().count() == 2 && !out.ends_with("\n1\n"), "{out}");
    bed.run(&sandbox, "c2", with_pid("sleep 1000", ContainerPid::Node))
        .await;
    let (exit, ..) = bed.exec(&sandbox, "c2", "exit 4", None).await;
    assert_eq!(exit.code, 4);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn root_is_nobody_on_the_host_when_the_pod_has_a_user_namespace() {
    let mut bed = Bed::new("userns").await;
    let sandbox = bed.sandbox_of(user("s1")).await;
    let volume = bed.dir.join("volume");
    std::fs::create_dir(&volume).expect("volume");
    let script = "cat /proc/self/uid_map; id -u; touch /tmp/mine /data/theirs && stat -c %u /bin/busybox; \
        echo x > /dev/null && hostname; ls /sys/class/net; \
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start; mount | grep -c mqueue; echo > /dev/shm/x && echo ok; \
        echo $$; ls -A /sys/firmware | wc -l";
    let data = mount("bind", &volume, "/data", &["rbind", "rprivate", "idmap"]);
    let out = bed
        .output(&sandbox, "c1", Container::sh(script).mount(data))
        .await;
    let words: Vec<_> = out.split_whitespace().collect();
    let expected = [
        "0", "1000000", "65536", "0", "0", "pod-host", "lo", "0", "1", "ok", "1", "0",
    ];
    assert_eq!(words, expected, "{out}");
    use std::os::unix::fs::MetadataExt;
    let owner = |path: std::path::PathBuf| std::fs::metadata(path).expect("made").uid();
    assert_eq!(owner(bed.dir.join("writable/c1/upper/tmp/mine")), 1_000_000);
    assert_eq!(owner(volume.join("theirs")), 0);
    bed.run(&sandbox, "c2", Container::sh("sleep 1000")).await;
    let (exit, out, _) = bed
        .exec(
            &sandbox,
            "c2",
            "id -u; cat /proc/self/uid_map; ps | grep -c sleep",
            None,
        )
        .await;
    assert!(
        out.starts_with("0\n") && out.contains("1000000"),
        "{out} {exit:?}"
    );
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn user_namespace_and_shared_pid_namespace_go_together() {
    let mut bed = Bed::new("userpod").await;
    let spec = SandboxSpec {
        pid: PidMode::Pod,
        ..user("s1")
    };
    let sandbox = bed.sandbox_of(spec).await;
    let out = bed
        .output(
            &sandbox,
            "c1",
            with_pid("ps -o pid,args; id -u", ContainerPid::Pod),
        )
        .await;
    assert!(out.contains(" pause\n") && out.ends_with("\n0\n"), "{out}");
    sandbox.shutdown().await.expect("shutdown");
}
