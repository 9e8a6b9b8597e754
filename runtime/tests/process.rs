//! The engine on a real kernel: every test makes sandboxes of its own, in a
//! state folder of its own, and leaves nothing behind.

#![allow(unsafe_code)]

#[path = "process/bed.rs"]
mod bed;
#[path = "process/cves.rs"]
mod cves;
#[path = "common/disk.rs"]
mod disk;
#[path = "process/escape.rs"]
mod escape;
#[path = "process/frozen.rs"]
mod frozen;
#[path = "process/fuzz.rs"]
mod fuzz;
#[path = "process/modes.rs"]
mod modes;
#[path = "process/rootfs.rs"]
mod rootfs;
#[path = "process/streams.rs"]
mod streams;
#[path = "process/survive.rs"]
mod survive;

use bed::{Bed, Container};
use runtime::process::Event;

/// The engine starts itself anew as its spawner: in tests that is the test
/// program, which has to become it before the test harness starts.
#[used]
#[unsafe(link_section = ".init_array")]
static BECOME_SPAWNER: extern "C" fn() = become_spawner;

extern "C" fn become_spawner() {
    runtime::process::dispatch();
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn container_runs_logs_and_ends_with_its_exit_code() {
    let mut bed = Bed::new("runs").await;
    let sandbox = bed.sandbox("s1").await;
    let container = Container::sh("echo hello; echo oops >&2; exit 3");
    let pid = bed.create(&sandbox, "c1", container).await;
    assert!(pid > 0);
    sandbox.start_container("c1").await.expect("start");
    let exit = bed.exit("c1").await;
    assert_eq!((exit.code, exit.unknown), (3, false));
    let log = bed.log("c1");
    assert!(log.contains(" stdout F hello\n"), "{log}");
    assert!(log.contains(" stderr F oops\n"), "{log}");
    sandbox.shutdown().await.expect("shutdown");
    assert!(bed.engine().found().is_empty());
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn start_names_the_command_when_there_is_none() {
    let mut bed = Bed::new("nocmd").await;
    let sandbox = bed.sandbox("s1").await;
    bed.create(&sandbox, "c1", Container::run(&["nope"])).await;
    let error = sandbox.start_container("c1").await.expect_err("no command");
    let sentence = "exec: \"nope\": executable file not found in $PATH";
    assert_eq!(error.to_string(), sentence);
    sandbox.remove_container("c1").await.expect("remove");
    sandbox.shutdown().await.expect("shutdown");
    bed.no_more_events();
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn exec_gives_output_and_exit_code_without_waiting_for_background_children() {
    let mut bed = Bed::new("exec").await;
    let sandbox = bed.sandbox("s1").await;
    bed.run(&sandbox, "c1", Container::sh("sleep 1000")).await;
    let script = "cat; echo err >&2; sleep 1000 & exit 7";
    let (exit, stdout, stderr) = bed.exec(&sandbox, "c1", script, Some("in\n")).await;
    assert_eq!(
        (exit.code, stdout.as_str(), stderr.as_str()),
        (7, "in\n", "err\n")
    );
    let (exit, ..) = bed.exec(&sandbox, "c1", "exit 0", None).await;
    assert_eq!(exit.code, 0);
    sandbox.signal("c1", 9).await.expect("kill");
    assert_eq!(bed.exit("c1").await.code, 137);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn events_are_of_the_container_that_ended() {
    let mut bed = Bed::new("events").await;
    let sandbox = bed.sandbox("s1").await;
    bed.run(&sandbox, "one", Container::sh("exit 1")).await;
    bed.run(&sandbox, "two", Container::sh("exit 2")).await;
    let mut codes = std::collections::BTreeMap::new();
    while codes.len() < 2 {
        if let Event::ContainerExited {
            container, exit, ..
        } = bed.event().await
        {
            codes.insert(container, exit.code);
        }
    }
    assert_eq!(codes.into_values().collect::<Vec<_>>(), [1, 2]);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn container_sees_what_a_cri_container_sees() {
    let mut bed = Bed::new("sees").await;
    let sandbox = bed.sandbox("s1").await;
    let script = "exec 2>&1; ls -1 /proc/self/fd | wc -l; \
        hostname; \
        grep -E '^(Sig(Blk|Ign|Cgt)|CapInh|CapEff|CapBnd|NoNewPrivs)' /proc/self/status; \
        for l in fd stdin ptmx; do readlink /dev/$l; done; \
        stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/tty; \
        cat /proc/self/cgroup | wc -l; umask; echo $$; \
        ls -A /sys/firmware | wc -l; \
        stat -c '%t:%T' /proc/timer_list; \
        echo 1 > /proc/sys/kernel/domainname; echo $?; \
        cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
        mount | grep -c ' /dev/shm .*size=65536k'; \
        pwd";
    let out = bed.output(&sandbox, "c1", Container::sh(script)).await;
    let lines: Vec<_> = out.lines().collect();
    // 0, 1, 2 and the directory that ls has open.
    assert_eq!(lines[0], "4", "{out}");
    assert_eq!(lines[1], "pod-host");
    let status = lines[2..9].join("\n");
    for zero in [
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "CapInh:\t0000000000000000",
        "NoNewPrivs:\t0",
    ] {
        assert!(status.contains(zero), "{status}");
    }
    assert!(status.contains("CapEff:\t00000000080004e3"), "{status}");
    assert!(status.contains("CapBnd:\t00000000080004e3"), "{status}");
    sandbox.shutdown().await.expect("shutdown");
    let rest = lines[9..].join("\n");
    let expected = "/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n\
        /dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/tty 5:0 666";
    assert!(rest.starts_with(expected), "{rest}");
    assert!(rest.ends_with("0022\n1\n0\n1:3\n/bin/sh: can't create /proc/sys/kernel/domainname: Read-only file system\n1\n0\n1\n/"), "{rest}");
}
