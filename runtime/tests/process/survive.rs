//! Deaths of agent, spawner and monitor.

use runtime::process::{
    AdoptError, ContainerCgroups, ContainerPid, Event, PidMode, ProcessError, SandboxSpec,
};
use rustix::process::{Pid, Signal, kill_process};

use super::bed::{Bed, Container, process, read_until};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("pid"), Signal::KILL).expect("kill");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn sandbox_is_adopted_with_what_ended_meanwhile_when_the_agent_was_replaced() {
    let mut bed = Bed::new("adopt").await;
    let sandbox = bed.sandbox("s1").await;
    let monitor = sandbox.monitor_pid();
    let long = bed
        .run(
            &sandbox,
            "long",
            Container::sh("sleep 0.3; echo late; sleep 1000"),
        )
        .await;
    bed.run(&sandbox, "short", Container::sh("sleep 0.2; exit 3"))
        .await;
    bed.create(&sandbox, "created", Container::sh("exit 8"))
        .await;
    drop(sandbox);
    bed.open().await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(bed.engine().found(), ["s1"]);
    let sandbox = bed.engine().adopt("s1").await.expect("adopt");
    assert_eq!(sandbox.monitor_pid(), monitor);
    assert_eq!(sandbox.container_pid("long"), Some(long));
    assert_eq!(bed.exit("short").await.code, 3);
    assert!(bed.log("long").contains("late"));
    sandbox.start_container("created").await.expect("start");
    assert_eq!(bed.exit("created").await.code, 8);
    let (exit, ..) = bed.exec(&sandbox, "long", "exit 2", None).await;
    assert_eq!(exit.code, 2);
    sandbox.reopen_log("long").await.expect("its log is known");
    assert_eq!(bed.engine().exits("s1").len(), 2);
    sandbox.shutdown().await.expect("shutdown");
    assert_eq!(bed.exit("long").await.code, 137);
    bed.no_more_events();
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn next_sandbox_gets_a_new_spawner_when_the_spawner_was_killed() {
    let mut bed = Bed::new("spawner").await;
    let first = bed.sandbox("s1").await;
    bed.run(&first, "c1", Container::sh("sleep 1000")).await;
    kill(bed.spawner());
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let second = bed.sandbox("s2").await;
    assert_eq!(
        bed.output(&second, "c2", Container::sh("echo new")).await,
        "new\n"
    );
    let (exit, ..) = bed.exec(&first, "c1", "exit 1", None).await;
    assert_eq!(exit.code, 1);
    first.shutdown().await.expect("shutdown");
    second.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn monitors_death_is_told_with_unknown_exits() {
    let mut bed = Bed::new("monitor").await;
    let sandbox = bed.sandbox("s1").await;
    let pid = bed.run(&sandbox, "c1", Container::sh("sleep 1000")).await;
    kill(sandbox.monitor_pid());
    let exit = bed.exit("c1").await;
    assert_eq!((exit.code, exit.unknown), (255, true));
    assert!(matches!(bed.event().await, Event::MonitorDied { sandbox } if sandbox == "s1"));
    let error = sandbox.start_container("c1").await.expect_err("it is dead");
    assert!(matches!(error, ProcessError::MonitorGone { .. }), "{error}");
    let error = bed.engine().adopt("s1").await.expect_err("it is dead");
    assert!(matches!(error, AdoptError::Gone { .. }), "{error}");
    bed.engine().forget("s1");
    assert!(bed.engine().found().is_empty());
    // What is left is the caller's to kill, by cgroup; here there is none.
    kill(pid);
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn verbs_may_be_repeated() {
    let mut bed = Bed::new("idem").await;
    let sandbox = bed.sandbox("s1").await;
    sandbox
        .remove_container("nobody")
        .await
        .expect("nothing to do");
    sandbox.signal("nobody", 15).await.expect("nothing to do");
    let pid = bed.run(&sandbox, "c1", Container::sh("sleep 1000")).await;
    assert_eq!(sandbox.start_container("c1").await.expect("started"), pid);
    let again = bed.container("c1", Container::sh("true"));
    let error = sandbox
        .create_container(again, ContainerCgroups::default())
        .await
        .expect_err("exists");
    assert!(matches!(error, ProcessError::Exists { .. }), "{error}");
    sandbox.remove_container("c1").await.expect("remove");
    sandbox.remove_container("c1").await.expect("remove");
    assert_eq!(bed.exit("c1").await.code, 137);
    sandbox.shutdown().await.expect("shutdown");
    sandbox.shutdown().await.expect("shutdown");
    assert!(!bed.dir.join("state/sandboxes/s1").exists());
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn connection_reaches_a_port_inside_the_pod() {
    let mut bed = Bed::new("connect").await;
    let sandbox = bed.sandbox("s1").await;
    bed.run(&sandbox, "c1", Container::sh("echo hi | nc -l -p 80"))
        .await;
    let mut stream = loop {
        match sandbox.connect_tcp(80).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    };
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text)
        .await
        .expect("read");
    assert_eq!(text, "hi\n");
    drop(stream);
    assert_eq!(bed.exit("c1").await.code, 0);
    let refused = sandbox.connect_tcp(81).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let netlink = sandbox.netns().netlink_socket(0).await;
    assert!(netlink.is_ok());
    sandbox.shutdown().await.expect("shutdown");
}

/// `argv[0]` of a process.
fn name(pid: i32) -> String {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("cmdline");
    line.split('\0').next().unwrap_or_default().to_owned()
}

fn descriptors(pid: i32) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fds");
    fds.count()
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn monitor_keeps_all_it_has_when_it_goes_on_as_another_program() {
    let mut bed = Bed::new("renew").await;
    let spec = SandboxSpec {
        pid: PidMode::Pod,
        ..Bed::spec("s1")
    };
    let sandbox = bed.sandbox_of(spec).await;
    let script = "printf 'half a '; read x; echo line; echo $x; sleep 0.3; exit 4";
    let mut talks = Container::sh(script);
    talks.io.stdin = true;
    let talks = bed.run(&sandbox, "talks", talks).await;
    let mut terminal = Container::sh("read x; stty size; echo got $x; read x; exit 6");
    (terminal.io.tty, terminal.io.stdin) = (true, true);
    terminal.process().set_terminal(Some(true));
    bed.run(&sandbox, "terminal", terminal).await;
    let mut shares = Container::sh("echo shares; exit 5");
    shares.pid = ContainerPid::Pod;
    bed.create(&sandbox, "created", shares).await;
    bed.run(&sandbox, "ended", Container::sh("exit 2")).await;
    assert_eq!(bed.exit("ended").await.code, 2);
    let attached = sandbox.attach("talks", true).await.expect("attach");
    let spec = bed.exec_spec(process(&["/bin/sh", "-c", "read x; exit $x"]), true);
    let mut exec = sandbox.exec("talks", spec).await.expect("exec");
    let monitor = sandbox.monitor_pid();
    assert_eq!(name(monitor), runtime::process::SPAWNER);

    for _ in 0..3 {
        sandbox.renew().await.expect("renew");
        assert_eq!(name(monitor), "lighter-monitor");
    }

    // What ran runs on, with its streams and its log.
    assert_eq!(sandbox.container_pid("talks"), Some(talks));
    let stdin = attached.stdin.as_ref().expect("stdin");
    rustix::io::write(stdin, b"word\n").expect("write");
    let stdout = attached.stdout.as_ref().expect("stdout");
    assert!(read_until(stdout, "word\n").await.contains("line\n"));
    let stdin = exec.streams.stdin.take().expect("stdin");
    rustix::io::write(&stdin, b"7\n").expect("write");
    assert_eq!(exec.wait().await.code, 7);
    assert_eq!(bed.exit("talks").await.code, 4);
    let log = bed.log("talks");
    assert!(log.contains(" stdout F half a line\n"), "{log}");
    // The terminal is the same, its size as it is told.
    sandbox
        .resize("terminal", None, 91, 17)
        .await
        .expect("size");
    let streams = sandbox.attach("terminal", true).await.expect("attach");
    let stdin = streams.stdin.as_ref().expect("stdin");
    rustix::io::write(stdin, b"this\n").expect("write");
    let stdout = streams.stdout.as_ref().expect("stdout");
    let told = read_until(stdout, "got this").await;
    assert!(told.contains("17 91"), "{told}");
    rustix::io::write(stdin, b"\n").expect("write");
    assert_eq!(bed.exit("terminal").await.code, 6);
    // A stage that waited becomes its container, new ones are made.
    sandbox.start_container("created").await.expect("start");
    assert_eq!(bed.exit("created").await.code, 5);
    assert!(bed.log("created").contains("stdout F shares"));
    let made = bed
        .output(&sandbox, "made", Container::sh("hostname"))
        .await;
    assert_eq!(made, "pod-host\n");
    assert_eq!(bed.engine().exits("s1").len(), 5);
    sandbox.remove_container("ended").await.expect("remove");
    // Another agent finds it where it was.
    drop(sandbox);
    bed.open().await;
    let sandbox = bed.engine().adopt("s1").await.expect("adopt");
    assert_eq!(sandbox.monitor_pid(), monitor);
    // What had ended is told to it again.
    for _ in 0..4 {
        bed.event().await;
    }
    // What belonged to the last agent is closed in its own time, after which the number of its
    // descriptors is the same from one program to the next. One that is kept by mistake adds to it
    // each time.
    let mut fds = vec![descriptors(monitor)];
    while fds.len() < 2 || fds[fds.len() - 2] != fds[fds.len() - 1] {
        assert!(fds.len() < 12, "descriptors grow: {fds:?}");
        sandbox.renew().await.expect("renew");
        fds.push(descriptors(monitor));
    }
    sandbox.shutdown().await.expect("shutdown");
}
