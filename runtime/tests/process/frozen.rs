//! A log file system that stands still.

use std::time::Duration;

use super::bed::{Bed, Container};
use super::disk::Disk;
use runtime::process::ContainerCgroups;

/// What nobody may wait longer for; the file system stays frozen.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
#[ignore = "needs root: namespaces, mounts and a loop device"]
async fn exit_and_exec_are_not_held_up_when_the_logs_file_system_is_frozen() {
    let mut bed = Bed::new("frozen").await;
    let disk = Disk::ext4(&bed.dir.join("disk"), 16 << 20);
    let sandbox = bed.sandbox("s1").await;
    let mut path = Vec::new();
    for (id, script) in [
        ("short", "echo late; exit 3"),
        ("long", "while :; do echo x; sleep 0.01; done"),
    ] {
        let mut spec = bed.container(id, Container::sh(script));
        path.push(disk.dir.join(id));
        spec.io.log = path.last().cloned();
        sandbox
            .create_container(spec, ContainerCgroups::default())
            .await
            .expect("create");
    }
    disk.freeze();
    sandbox.start_container("long").await.expect("start");
    sandbox.start_container("short").await.expect("start");
    assert_eq!(bed.exit("short").await.code, 3);
    let (exit, ..) = bed.exec(&sandbox, "long", "exit 4", None).await;
    assert_eq!(exit.code, 4);
    // What is being written would be lost to the monitor's next program, so it stays what it is.
    let busy = sandbox.renew().await.expect_err("writes are under way");
    assert!(super::bed::chain(&busy).contains("busy"), "{busy}");
    let (exit, ..) = bed.exec(&sandbox, "long", "exit 5", None).await;
    assert_eq!(exit.code, 5);
    sandbox.signal("long", 9).await.expect("kill");
    assert_eq!(bed.exit("long").await.code, 137);
    disk.thaw();
    // What was held back is written, though its container has ended.
    let written = async {
        while !std::fs::read_to_string(&path[0]).is_ok_and(|log| log.ends_with("F late\n")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written)
        .await
        .expect("written");
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces, mounts and a loop device"]
async fn container_and_sandbox_are_removed_while_the_logs_file_system_is_frozen() {
    let mut bed = Bed::new("frozen-end").await;
    let disk = Disk::ext4(&bed.dir.join("disk"), 16 << 20);
    let sandbox = bed.sandbox("s1").await;
    for (id, script) in [
        ("ended", "echo late; exit 3"),
        (
            "busy",
            "while :; do echo 0123456789012345678901234567890; done",
        ),
    ] {
        let mut spec = bed.container(id, Container::sh(script));
        spec.io.log = Some(disk.dir.join(id));
        sandbox
            .create_container(spec, ContainerCgroups::default())
            .await
            .expect("create");
    }
    disk.freeze();
    sandbox.start_container("busy").await.expect("start");
    sandbox.start_container("ended").await.expect("start");
    assert_eq!(bed.exit("ended").await.code, 3);
    let monitor = sandbox.monitor_pid();
    let teardown = async {
        sandbox.remove_container("ended").await.expect("remove");
        sandbox.remove_container("busy").await.expect("remove");
        sandbox.shutdown().await.expect("shutdown");
    };
    let ended = tokio::time::timeout(PATIENCE, teardown).await;
    assert!(ended.is_ok(), "the removal waits for the file system");
    assert!(bed.engine().found().is_empty());
    disk.thaw();
    let gone = async {
        while std::fs::exists(format!("/proc/{monitor}")).is_ok_and(|there| there) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(PATIENCE, gone).await;
    assert!(gone.is_ok(), "the monitor stays");
}
