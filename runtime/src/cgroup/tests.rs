use super::*;

fn hybrid(root: &str) -> Cgroups {
    Cgroups {
        hierarchies: vec![Hierarchy {
            mount: "/sys/fs/cgroup/memory".into(),
            controllers: vec!["memory".into()],
            v2: false,
        }],
        mode: Mode::V1,
        root: root.to_owned(),
        systemd: None,
    }
}

#[test]
fn names_stay_below_the_root_whether_or_not_they_repeat_it() {
    let cgroups = hybrid("/lighter/a");
    for given in [
        "/kubepods/podx",
        "kubepods/podx/",
        "/lighter/a/kubepods/podx",
    ] {
        let path = cgroups.name(given).expect("name");
        let dir = cgroups.dir(&cgroups.hierarchies[0], &path.child("c"));
        assert_eq!(
            dir,
            PathBuf::from("/sys/fs/cgroup/memory/lighter/a/kubepods/podx/c")
        );
    }
}

#[test]
fn names_that_leave_the_root_or_are_systemds_are_refused() {
    assert!(matches!(
        CgroupPath::parse("/kubepods/../../x"),
        Err(CgroupError::Name { .. })
    ));
    assert!(matches!(
        hybrid("").name("kubepods-pod1.slice"),
        Err(CgroupError::SystemdName { .. })
    ));
}

#[test]
#[ignore = "needs root: makes cgroups"]
fn cgroup_is_made_limited_emptied_and_removed() {
    let root = format!("/lighter-test-{}", std::process::id());
    let cgroups = Cgroups::open(&root, CgroupDriver::Cgroupfs).expect("hierarchies");
    let pod = cgroups.name("/kubepods/podx").expect("name");
    let container = pod.child("c");
    assert_eq!(
        cgroups.create(&container).expect("made"),
        CgroupPath::parse("/kubepods").ok()
    );
    assert_eq!(cgroups.create(&container).expect("there"), None);
    let below = pod.child("d").child("e");
    let top = cgroups.create(&below).expect("made");
    assert_eq!(top, Some(pod.child("d")));
    cgroups.prune(&below, &pod.child("d"));
    let limits = Limits {
        memory: Some(32 << 20),
        cpu_shares: Some(512),
        ..Limits::default()
    };
    cgroups.apply(&container, &limits).expect("limits");
    cgroups
        .set_devices(&container, &default_rules())
        .expect("devices");
    let stats = cgroups.stats(&container).expect("stats");
    assert_eq!(stats.memory_limit, Some(32 << 20));
    let bad = Limits {
        cpu_shares: Some(256),
        cpuset_cpus: Some("nonsense".to_owned()),
        ..Limits::default()
    };
    assert!(cgroups.apply(&container, &bad).is_err());
    let home = cgroups.controller("cpu").expect("cpu");
    if !home.v2 {
        let file = cgroups.dir(home, &container).join("cpu.shares");
        assert_eq!(std::fs::read_to_string(file).expect("shares").trim(), "512");
    }
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("sleep");
    for hierarchy in cgroups.hierarchies() {
        let procs = cgroups.dir(hierarchy, &container).join("cgroup.procs");
        std::fs::write(procs, child.id().to_string()).expect("enter");
    }
    assert_eq!(cgroups.pids(&container), [child.id() as i32]);
    assert!(matches!(
        cgroups.remove(&container),
        Err(CgroupError::Busy { .. })
    ));
    cgroups.kill(&pod);
    child.wait().expect("killed");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime
        .expect("runtime")
        .block_on(cgroups.kill_and_remove(&container))
        .expect("removed");
    let top = CgroupPath::parse("/kubepods").expect("name");
    cgroups.prune(&pod, &top);
    assert!(!cgroups.exists(&top));
    for hierarchy in cgroups.hierarchies() {
        let _ = std::fs::remove_dir(cgroups.dir(hierarchy, &CgroupPath(String::new())));
    }
}

#[test]
#[ignore = "needs root: makes a cgroup"]
fn program_denies_what_no_rule_allows() {
    let hierarchies = cgroupfs::read().expect("hierarchies");
    let unified = hierarchies.iter().find(|h| h.v2).expect("cgroup v2");
    let dir = unified
        .mount
        .join(format!("lighter-test-filter-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("made");
    let null = DeviceRule {
        kind: DeviceKind::Char,
        major: Some(1),
        minor: Some(3),
        access: Access::ALL,
    };
    apply::filter_devices(&dir, &[null]).expect("attached");
    let inside = |command: &str| {
        let enter = format!("echo $$ >{}/cgroup.procs && {command}", dir.display());
        let shell = std::process::Command::new("sh")
            .args(["-c", &enter])
            .output();
        let output = shell.expect("sh");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(inside("true </dev/null"), (true, String::new()));
    let (opened, why) = inside("true </dev/full");
    assert!(!opened && why.contains("not permitted"), "{why}");
    std::fs::remove_dir(&dir).expect("removed");
}

#[test]
fn systemd_names_and_ours_are_told_apart() {
    let ours = hybrid("");
    let theirs = Cgroups {
        systemd: Some(Arc::new(systemd::Systemd::new().expect("thread"))),
        ..hybrid("")
    };
    let id = "0".repeat(64);
    let pod = theirs.name("kubepods-burstable-pod1.slice").expect("slice");
    let container = theirs.of_container(&pod, &id);
    assert_eq!(container.name(), format!("lighter-{id}.scope"));
    assert_eq!(theirs.owner(container.name()), Some(id.as_str()));
    assert!(theirs.of_sandbox(&id).is_within(&theirs.own_parent()));
    assert_eq!(
        theirs.owner(theirs.of_sandbox(&id).name()),
        Some(id.as_str())
    );
    assert_eq!(
        (theirs.owner(&id), ours.owner(&id)),
        (None, Some(id.as_str()))
    );
    let refused = theirs.name("/kubepods/pod1");
    assert!(matches!(refused, Err(CgroupError::NoSlice { .. })));
}
