//! Deaths of agent, spawner and monitor.

use runtime::process::{AdoptError, Event, ProcessError};
use rustix::process::{Pid, Signal, kill_process};

use super::bed::{Bed, Container};

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
    let error = sandbox.create_container(again).await.expect_err("exists");
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
