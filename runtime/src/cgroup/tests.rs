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
        CgroupPath::parse("kubepods-pod1.slice"),
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
