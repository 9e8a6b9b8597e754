//! What other runtimes were broken by, tried on ours. docs/cve.md lists all of them.

use oci_spec::runtime::UserBuilder;
use rustix::fs::{CWD, RenameFlags};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bed::{Bed, Container, mount};
use runtime::process::ContainerCgroups;

/// Exchanges two names for as long as it lives.
struct Exchange {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Exchange {
    fn start(one: &Path, other: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, one, other) = (stop.clone(), one.to_owned(), other.to_owned());
        let thread = std::thread::spawn(move || {
            let mut times = 0;
            while !flag.load(Ordering::Relaxed) {
                let flags = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, &one, CWD, &other, flags).expect("exchange");
                times += 1;
            }
            times
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("running");
        thread.join().expect("exchanges")
    }
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2021_30465_and_2024_45310_swapped_mountpoint_never_leads_to_the_host() {
    let mut bed = Bed::new("swap").await;
    let sandbox = bed.sandbox("s1").await;
    let (shared, outside) = (bed.dir.join("shared"), bed.dir.join("outside"));
    let data = bed.dir.join("data");
    for dir in [&shared.join("dir"), &outside, &data] {
        std::fs::create_dir_all(dir).expect("directory");
    }
    // Followed on the host, or without a root to stay in, it leads to `outside`.
    let up = "../".repeat(12) + outside.to_str().expect("a path").trim_start_matches('/');
    symlink(up, shared.join("link")).expect("link");
    let exchange = Exchange::start(&shared.join("dir"), &shared.join("link"));
    let (mut started, rounds) = (0, 60);
    for round in 0..rounds {
        let id = format!("c{round}");
        let container = Container::run(&["/bin/true"])
            .mount(mount("bind", &shared, "/shared", &["rbind", "rprivate"]))
            .mount(mount("bind", &data, "/shared/dir/made", &["rbind"]));
        // Some find a link where a directory was: that is an error, and no harm.
        if sandbox
            .create_container(bed.container(&id, container), ContainerCgroups::default())
            .await
            .is_ok()
        {
            sandbox.start_container(&id).await.expect("start");
            bed.exit(&id).await;
            started += 1;
        }
    }
    assert!(exchange.end() > rounds, "nothing was exchanged");
    assert!(started > 0, "no container ever started");
    let made = std::fs::read_dir(&outside).expect("outside").count();
    assert_eq!(made, 0, "something was made on the host");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let here = bed.dir.to_str().expect("a path");
    assert!(!mounts.contains(here), "something is mounted on the host");
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2025_31133_masked_file_is_our_null_device_whatever_the_image_has() {
    let mut bed = Bed::new("mask").await;
    let sandbox = bed.sandbox("s1").await;
    let layer = bed.dir.join("layer");
    std::fs::create_dir(layer.join("dev")).expect("dev");
    symlink("/etc/target", layer.join("dev/null")).expect("link");
    for file in ["target", "secret"] {
        std::fs::write(layer.join("etc").join(file), "content").expect("file");
    }
    let script = "exec 2>&1; stat -c %t:%T /etc/secret; echo x > /etc/secret; cat /etc/target; \
                  chmod 777 /etc/secret || echo kept";
    let mut container = Container::sh(script);
    let linux = container.spec.linux_mut().as_mut().expect("linux");
    linux.set_masked_paths(Some(vec!["/etc/secret".to_owned()]));
    let out = bed.output(&sandbox, "c1", container).await;
    assert!(out.starts_with("1:3\n"), "{out}");
    assert!(out.contains("content"), "{out}");
    assert!(out.ends_with("kept\n"), "{out}");
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2022_29162_inheritable_capabilities_are_none_though_asked_for() {
    let mut bed = Bed::new("inheritable").await;
    let sandbox = bed.sandbox("s1").await;
    let look = "grep CapInh /proc/self/status";
    for (id, uid) in [("root", 0), ("user", 1000u32)] {
        let mut container = Container::sh(look);
        let user = UserBuilder::default().uid(uid).gid(uid).build();
        container.process().set_user(user.expect("user"));
        let out = bed.output(&sandbox, id, container).await;
        assert_eq!(out, "CapInh:\t0000000000000000\n", "uid {uid}");
    }
    bed.run(&sandbox, "c1", Container::sh("sleep 1000")).await;
    let (exit, out, _) = bed.exec(&sandbox, "c1", look, None).await;
    assert_eq!(exit.code, 0);
    assert_eq!(out, "CapInh:\t0000000000000000\n", "exec");
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2024_21626_container_and_exec_have_three_descriptors() {
    let mut bed = Bed::new("fds").await;
    let sandbox = bed.sandbox("s1").await;
    // The fourth is the directory that ls reads.
    let look = "ls /proc/self/fd";
    let out = bed.output(&sandbox, "c1", Container::sh(look)).await;
    assert_eq!(out, "0\n1\n2\n3\n");
    bed.run(&sandbox, "c2", Container::sh("sleep 1000")).await;
    let (_, out, _) = bed.exec(&sandbox, "c2", look, None).await;
    assert_eq!(out, "0\n1\n2\n3\n", "exec");
    sandbox.shutdown().await.expect("shutdown");
}

/// Inodes of the sockets that a process has open.
fn sockets(pid: i32) -> BTreeSet<String> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let targets = fds
        .flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let names = targets.map(|t| t.to_string_lossy().into_owned());
    names
        .filter_map(|n| Some(n.strip_prefix("socket:[")?.trim_end_matches(']').to_owned()))
        .collect()
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2020_15257_no_socket_of_ours_is_abstract() {
    let bed = Bed::new("abstract").await;
    let sandbox = bed.sandbox("s1").await;
    bed.run(&sandbox, "c1", Container::sh("sleep 1000")).await;
    let all = [
        std::process::id() as i32,
        bed.spawner(),
        sandbox.monitor_pid(),
    ];
    let mut seen = 0;
    for pid in all {
        let ours = sockets(pid);
        seen += ours.len();
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/unix")).expect("table");
        // Num RefCount Protocol Flags Type St Inode Path
        let rows = table
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>());
        let bad: Vec<_> = rows
            .filter(|row| row.get(6).is_some_and(|inode| ours.contains(*inode)))
            .filter(|row| row.get(7).is_some_and(|path| path.starts_with('@')))
            .collect();
        assert!(bad.is_empty(), "{bad:?}");
    }
    assert!(seen > 2, "no socket was found at all");
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2024_21626_working_directory_of_an_image_through_a_descriptor_is_refused() {
    let bed = Bed::new("imagecwd").await;
    let sandbox = bed.sandbox("s1").await;
    for fd in 0..32 {
        let mut container = Container::run(&["/bin/true"]);
        let cwd = format!("/proc/self/fd/{fd}");
        container.process().set_cwd(cwd.into());
        let id = format!("c{fd}");
        let spec = bed.container(&id, container);
        let refused = match sandbox
            .create_container(spec, ContainerCgroups::default())
            .await
        {
            Err(_) => true,
            Ok(_) => sandbox.start_container(&id).await.is_err(),
        };
        assert!(refused, "descriptor {fd}");
    }
    sandbox.shutdown().await.expect("shutdown");
}
