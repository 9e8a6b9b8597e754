//! From inside: nothing of ours that could lead to the host.

use oci_spec::runtime::{Capability, LinuxCapabilitiesBuilder};

use runtime::process::{ContainerPid, PidMode, SandboxSpec};

use super::bed::{Bed, Container, process};

/// A container that may trace whatever it sees, and looks all the time for a way
/// out: a root, descriptor or executable that is not of the image. (The image has
/// no /usr, which a host has, and no /r, which the monitors' namespace has.)
fn hunter() -> Container {
    let script = "while [ ! -e /tmp/stop ]; do \
          for p in /proc/[0-9]*; do \
            [ -e $p/root/r -o -e $p/root/usr ] && echo root >> /tmp/found; \
            for f in $p/fd/*; do \
              case \"$(readlink $f 2>/dev/null)\" in \
                ''|pipe:*|/dev/null|/proc/*|/tmp/*|/dev/pts/*) ;; \
                socket:*) ;; \
                *) readlink $f >> /tmp/found;; \
              esac; \
            done; \
            case \"$(readlink $p/exe 2>/dev/null)\" in *process*|*lighter*) \
              (: > $p/exe) 2>/dev/null && echo exe >> /tmp/found;; \
            esac; \
          done; \
        done; cat /tmp/found 2>/dev/null; echo done";
    let mut container = Container {
        pid: ContainerPid::Pod,
        ..Container::sh(script)
    };
    let caps: std::collections::HashSet<_> = [
        Capability::SysPtrace,
        Capability::DacOverride,
        Capability::DacReadSearch,
        Capability::Kill,
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
