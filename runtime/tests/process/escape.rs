//! From inside: nothing of ours that could lead to the host.

use oci_spec::runtime::{Capability, LinuxCapabilitiesBuilder};

use runtime::process::{ContainerPid, PidMode, SandboxSpec};

use super::bed::{Bed, Container, process};

/// What any container of these tests may have: more in a process whose memory
/// can be written is a way out.
const CAPABILITIES: u64 = 0x0100_0808_04e7;

/// A container that may trace whatever it sees, and looks all the time for a way
/// out: a root, working directory or descriptor that is not of the image; an
/// executable or mapped file of somebody else's that is not on a read-only mount;
/// memory of a process that may do more than a container. (The image has no /usr,
/// which a host has, and no /r, which the monitors' namespace has. Whether a mount is
/// read-only is asked by touching the file: to open an executable for writing fails with
/// ETXTBSY first. A process may become another between two looks, so it is looked twice.)
fn hunter() -> Container {
    let script = "found() { echo \"$@\" >> /tmp/found; }; \
        writable() { \
            file=$(readlink $2 2>/dev/null); \
            case \"$file\" in ''|/bin/busybox|/memfd:pod-init*) return;; esac; \
            [ -z \"$(touch -c $2 2>&1)\" -a \"$(readlink $2 2>/dev/null)\" = \"$file\" ] && found $1; \
        }; \
        while [ ! -e /tmp/stop ]; do \
          for p in /proc/[0-9]*; do \
            [ -e $p/root/r -o -e $p/root/usr ] && found root; \
            [ -e $p/cwd/r -o -e $p/cwd/usr ] && found cwd; \
            for f in $p/fd/*; do \
              case \"$(readlink $f 2>/dev/null)\" in \
                ''|pipe:*|/dev/null|/proc/*|/tmp/*|/dev/pts/*) ;; \
                socket:*) ;; \
                *) found fd $(readlink $f);; \
              esac; \
            done; \
            writable exe $p/exe; \
            for f in $p/map_files/*; do writable map $f; done; \
            caps=$(sed -n 's/^CapPrm:.//p' $p/status 2>/dev/null); \
            from=$(sed -n '1s/-.*//p' $p/maps 2>/dev/null); \
            if [ -n \"$caps\" -a -n \"$from\" ] && [ $((0x$caps & ~ALLOWED)) != 0 ]; then \
              dd if=$p/mem of=/dev/null bs=1 count=1 skip=$((0x$from)) 2>/dev/null && found mem; \
            fi; \
          done; \
          [ -e /tmp/ready ] || : > /tmp/ready; \
        done; cat /tmp/found 2>/dev/null; echo done";
    let script = &script.replace("ALLOWED", &CAPABILITIES.to_string());
    let mut container = Container {
        pid: ContainerPid::Pod,
        ..Container::sh(script)
    };
    let caps: std::collections::HashSet<_> = [
        Capability::SysPtrace,
        Capability::DacOverride,
        Capability::DacReadSearch,
        Capability::Kill,
        // Without it nobody may follow what is in map_files.
        Capability::CheckpointRestore,
    ]
    .into();
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(caps.clone())
        .effective(caps.clone())
        .permitted(caps)
        .inheritable(std::collections::HashSet::new())
        .ambient(std::collections::HashSet::new())
        .build();
    container
        .process()
        .set_capabilities(Some(sets.expect("capabilities")));
    container
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn nothing_leads_to_the_host_when_execs_race_with_a_tracer_in_the_same_pid_namespace() {
    let mut bed = Bed::new("escape").await;
    let spec = SandboxSpec {
        pid: PidMode::Pod,
        ..Bed::spec("s1")
    };
    let sandbox = bed.sandbox_of(spec).await;
    bed.run(&sandbox, "hunter", hunter()).await;
    for _ in 0..60 {
        let spec = bed.exec_spec(process(&["/bin/true"]), false);
        let mut exec = sandbox.exec("hunter", spec).await.expect("exec");
        assert_eq!(exec.wait().await.code, 0);
    }
    for number in 0..5 {
        let id = format!("c{number}");
        let container = Container {
            pid: ContainerPid::Pod,
            ..Container::sh("exit 0")
        };
        bed.run(&sandbox, &id, container).await;
        assert_eq!(bed.exit(&id).await.code, 0);
    }
    let (exit, ..) = bed.exec(&sandbox, "hunter", "touch /tmp/stop", None).await;
    assert_eq!(exit.code, 0);
    assert_eq!(bed.exit("hunter").await.code, 0);
    let log = bed.log("hunter");
    assert!(
        log.ends_with("stdout F done\n") && log.lines().count() == 1,
        "{log}"
    );
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn hunter_finds_every_way_out_of_a_process_that_is_left_in_the_namespace_on_purpose() {
    let mut bed = Bed::new("leak").await;
    let spec = SandboxSpec {
        pid: PidMode::Pod,
        ..Bed::spec("s1")
    };
    let sandbox = bed.sandbox_of(spec).await;
    let pid = bed.run(&sandbox, "hunter", hunter()).await;
    // A program of the host, with its root, working directory, descriptors,
    // memory and rights, that has only entered the pod's PID namespace.
    let leak = format!("exec 7</usr; exec nsenter --target={pid} --pid sleep 1000");
    let mut leak = std::process::Command::new("sh")
        .args(["-c", &leak])
        .current_dir("/")
        .spawn()
        .expect("nsenter");
    let mut missing = vec!["root", "cwd", "fd /usr", "exe", "map", "mem"];
    for _ in 0..200 {
        let (_, found, _) = bed
            .exec(&sandbox, "hunter", "cat /tmp/found; true", None)
            .await;
        missing.retain(|way| !found.lines().any(|line| line == *way));
        if missing.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // It goes with the namespace's first process.
    sandbox.shutdown().await.expect("shutdown");
    leak.wait().expect("nsenter ends");
    assert!(missing.is_empty(), "not found: {missing:?}");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn forged_word_of_a_traced_stage_does_not_make_the_monitor_kill_a_stranger() {
    let bed = Bed::new("forged").await;
    let spec = SandboxSpec {
        pid: PidMode::Pod,
        ..Bed::spec("s1")
    };
    let sandbox = bed.sandbox_of(spec).await;
    let container = Container {
        pid: ContainerPid::Pod,
        ..Container::sh("sleep 1000")
    };
    let stage = bed.create(&sandbox, "c1", container).await;
    let mut stranger = std::process::Command::new("sleep")
        .arg("1000")
        .spawn()
        .expect("sleep");
    // A tracer has the descriptors of what it traces, the stage's channel too.
    forge(stage, stranger.id());
    let _ = sandbox.start_container("c1").await;
    let _ = sandbox.remove_container("c1").await;
    sandbox.shutdown().await.expect("shutdown");
    let ended = stranger.try_wait().expect("a child");
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
    assert!(ended.is_none(), "the stranger was killed: {ended:?}");
}

/// Says over a stage's channel that it goes on as another process.
fn forge(stage: i32, stranger: u32) {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let open = |pid: i32| {
        let pid = Pid::from_raw(pid).expect("pid");
        pidfd_open(pid, PidfdFlags::empty()).expect("pidfd")
    };
    let fds = std::fs::read_dir(format!("/proc/{stage}/fd")).expect("descriptors");
    let channel = fds.flatten().find(|entry| {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        target.to_string_lossy().starts_with("socket:")
    });
    let channel = channel.expect("a channel").file_name();
    let channel = channel.to_string_lossy().parse().expect("a number");
    let channel = pidfd_getfd(open(stage), channel, PidfdGetfdFlags::empty()).expect("traced");
    let victim = open(i32::try_from(stranger).expect("pid"));
    super::fuzz::send_done(&channel, stranger, &victim);
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2019_5736_our_executable_cannot_be_opened_for_writing_by_a_container() {
    let mut bed = Bed::new("exe").await;
    let sandbox = bed.sandbox("s1").await;
    // The command is whatever executes it: by the time the image's program runs,
    // /proc/self/exe is the image's own.
    let out = bed
        .output(&sandbox, "c1", Container::sh("readlink /proc/1/exe"))
        .await;
    assert_eq!(out, "/bin/busybox\n");
    // And the spawner's, of which stages are forks, is on a read-only mount.
    let exe = format!("/proc/{}/exe", sandbox.monitor_pid());
    let file = std::fs::File::open(exe).expect("readable");
    let mount = rustix::fs::fstatvfs(&file).expect("statvfs");
    assert!(mount.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    sandbox.shutdown().await.expect("shutdown");
}
