//! Terminals, attach and logs.

use runtime::process::ContainerIo;

use super::bed::{Bed, Container, process, read_until};

fn with_io(script: &str, io: ContainerIo) -> Container {
    Container {
        io,
        ..Container::sh(script)
    }
}

fn write(fd: &std::os::fd::OwnedFd, text: &str) {
    rustix::io::write(fd, text.as_bytes()).expect("written");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn attached_client_writes_and_reads_and_container_ends_when_it_goes() {
    let mut bed = Bed::new("attach").await;
    let sandbox = bed.sandbox("s1").await;
    let io = ContainerIo {
        stdin: true,
        stdin_once: true,
        ..ContainerIo::default()
    };
    bed.run(&sandbox, "c1", with_io("echo start; cat; exit 5", io))
        .await;
    let mut streams = sandbox.attach("c1", true).await.expect("attach");
    let stdin = streams.stdin.take().expect("stdin");
    write(&stdin, "ping\n");
    read_until(streams.stdout.as_ref().expect("stdout"), "ping\n").await;
    drop(stdin);
    assert_eq!(bed.exit("c1").await.code, 5);
    assert!(bed.log("c1").contains("stdout F ping\n"));
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn container_goes_on_when_an_attached_client_does_not_read() {
    let mut bed = Bed::new("lag").await;
    let sandbox = bed.sandbox("s1").await;
    let script = "sleep 0.2; dd if=/dev/zero bs=64k count=128 2>/dev/null; exit 0";
    bed.run(&sandbox, "c1", Container::sh(script)).await;
    let _streams = sandbox.attach("c1", false).await.expect("attach");
    assert_eq!(bed.exit("c1").await.code, 0);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn terminal_is_the_containers_own_and_follows_its_size() {
    let mut bed = Bed::new("tty").await;
    let sandbox = bed.sandbox("s1").await;
    let io = ContainerIo {
        tty: true,
        stdin: true,
        ..ContainerIo::default()
    };
    let script = "tty; stat -c %t /dev/console; read x; stty size; exit 6";
    bed.create(&sandbox, "c1", with_io(script, io)).await;
    let streams = sandbox.attach("c1", true).await.expect("attach");
    sandbox.start_container("c1").await.expect("start");
    let stdout = streams.stdout.as_ref().expect("stdout");
    read_until(stdout, "/dev/pts/0\r\n88\r\n").await;
    sandbox.resize("c1", None, 100, 30).await.expect("resize");
    write(streams.stdin.as_ref().expect("stdin"), "go\n");
    read_until(stdout, "30 100").await;
    assert_eq!(bed.exit("c1").await.code, 6);
    assert!(bed.log("c1").contains(" stdout F 30 100\r\n"));
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn exec_with_a_terminal_has_it_as_controlling_terminal() {
    let mut bed = Bed::new("exectty").await;
    let sandbox = bed.sandbox("s1").await;
    bed.run(&sandbox, "c1", Container::sh("sleep 1000")).await;
    let mut process = process(&[
        "/bin/sh",
        "-c",
        "tty; read x; stty size; echo hi > /dev/tty; exit 9",
    ]);
    process.set_terminal(Some(true));
    let spec = bed.exec_spec(process, true);
    let id = spec.id.clone();
    let mut exec = sandbox.exec("c1", spec).await.expect("exec");
    let stdout = exec.streams.stdout.take().expect("terminal");
    read_until(&stdout, "/dev/pts/0").await;
    sandbox
        .resize("c1", Some(&id), 80, 24)
        .await
        .expect("resize");
    write(exec.streams.stdin.as_ref().expect("stdin"), "\n");
    let rest = read_until(&stdout, "hi").await;
    assert!(rest.contains("24 80"), "{rest}");
    assert_eq!(exec.wait().await.code, 9);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn log_goes_on_in_a_new_file_when_it_is_reopened() {
    let mut bed = Bed::new("reopen").await;
    let sandbox = bed.sandbox("s1").await;
    let io = ContainerIo {
        stdin: true,
        ..ContainerIo::default()
    };
    bed.run(&sandbox, "c1", with_io("echo one; read x; echo two", io))
        .await;
    let streams = sandbox.attach("c1", true).await.expect("attach");
    let path = bed.dir.join("logs/c1");
    while !bed.log("c1").contains("one") {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    std::fs::rename(&path, bed.dir.join("logs/c1.old")).expect("rename");
    sandbox.reopen_log("c1").await.expect("reopen");
    write(streams.stdin.as_ref().expect("stdin"), "\n");
    assert_eq!(bed.exit("c1").await.code, 0);
    assert!(bed.log("c1").ends_with("stdout F two\n"));
    assert!(!bed.log("c1").contains("one"));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&path).expect("log").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn log_is_rotated_by_size_and_no_line_is_lost_or_torn() {
    let mut bed = Bed::new("rotate").await;
    let sandbox = bed.sandbox("s1").await;
    let io = ContainerIo {
        log_max_size: Some(20_000),
        log_max_files: 100,
        ..ContainerIo::default()
    };
    bed.run(&sandbox, "c1", with_io("seq 1 5000", io)).await;
    assert_eq!(bed.exit("c1").await.code, 0);
    let monitor = sandbox.monitor_pid();
    sandbox.shutdown().await.expect("shutdown");
    // An exit waits a moment for its log and no longer; the monitor stays until all is written.
    while std::fs::exists(format!("/proc/{monitor}")).is_ok_and(|there| there) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut files: Vec<_> = std::fs::read_dir(bed.dir.join("logs"))
        .expect("logs")
        .map(|entry| entry.expect("entry").path())
        .collect();
    // Names of rotated files sort by time; the current one is the last.
    files.sort_by_key(|path| (path.ends_with("c1"), path.clone()));
    assert!(files.len() > 2, "{files:?}");
    let all: String = files
        .iter()
        .map(|f| std::fs::read_to_string(f).expect("log"))
        .collect();
    let numbers: Vec<u32> = all
        .lines()
        .map(|l| l[40..].trim().parse().expect("whole line"))
        .collect();
    assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
}
