//! Mounts, users and what an image must not be able to do.

use std::os::unix::fs::symlink;

use oci_spec::runtime::UserBuilder;

use super::bed::{Bed, Container, chain, mount};
use runtime::process::ContainerCgroups;

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn volumes_are_mounted_as_asked_over_a_read_only_root() {
    let mut bed = Bed::new("volumes").await;
    let sandbox = bed.sandbox("s1").await;
    let (data, file) = (bed.dir.join("data"), bed.dir.join("hosts"));
    std::fs::create_dir(&data).expect("data");
    std::fs::write(data.join("x"), "content\n").expect("x");
    std::fs::write(&file, "127.0.0.1 localhost\n").expect("file");
    let script = "exec 2>&1; cat /vol/x /etc/hosts; touch /vol/y; touch /rw/y && echo rw; touch /z; \
        mkdir -p /mnt 2>/dev/null; ls -d /deep/er/vol; exit 0";
    let container = Container::sh(script)
        .mount(mount("bind", &data, "/vol", &["rbind", "rprivate", "ro"]))
        .mount(mount("bind", &data, "/rw", &["rbind", "rslave"]))
        .mount(mount("bind", &data, "/deep/er/vol", &["rbind", "rro"]))
        .mount(mount("bind", &file, "/etc/hosts", &["rbind", "ro"]));
    let container = Container {
        read_only: true,
        ..container
    };
    let out = bed.output(&sandbox, "c1", container).await;
    let expected = "content\n127.0.0.1 localhost\n\
        touch: /vol/y: Read-only file system\nrw\ntouch: /z: Read-only file system\n/deep/er/vol\n";
    assert_eq!(out, expected);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn mount_made_on_the_host_is_seen_when_the_volume_propagates() {
    let mut bed = Bed::new("propagate").await;
    let sandbox = bed.sandbox("s1").await;
    let data = bed.dir.join("data");
    std::fs::create_dir_all(data.join("later")).expect("data");
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
    rustix::mount::mount_bind(&data, &data).expect("a mount to share");
    rustix::mount::mount_change(&data, MountPropagationFlags::SHARED).expect("shared");
    let slave = mount("bind", &data, "/vol", &["rbind", "rslave"]);
    let container =
        Container::sh("while ! mount | grep /vol/later; do sleep 0.01; done").mount(slave);
    bed.run(&sandbox, "c1", container).await;
    rustix::mount::mount(
        "tmpfs",
        data.join("later"),
        "tmpfs",
        MountFlags::empty(),
        None,
    )
    .expect("tmpfs");
    let exit = bed.exit("c1").await;
    rustix::mount::unmount(data.join("later"), UnmountFlags::DETACH).expect("unmount");
    rustix::mount::unmount(&data, UnmountFlags::DETACH).expect("unmount");
    assert_eq!(exit.code, 0);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2019_19921_image_with_a_symlink_at_proc_is_refused() {
    let bed = Bed::new("procsym").await;
    let sandbox = bed.sandbox("s1").await;
    symlink("/tmp", bed.dir.join("layer/proc")).expect("link");
    let spec = bed.container("c1", Container::sh("true"));
    let error = sandbox
        .create_container(spec, ContainerCgroups::default())
        .await
        .expect_err("refused");
    let text = chain(&error);
    assert!(text.contains("open the mountpoint /proc"), "{text}");
    // It never was, so it can be made again once the image is mended.
    std::fs::remove_file(bed.dir.join("layer/proc")).expect("mended");
    bed.create(&sandbox, "c1", Container::sh("true")).await;
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2026_41579_host_is_untouched_when_the_images_dev_is_a_symlink_out() {
    let mut bed = Bed::new("devsym").await;
    let sandbox = bed.sandbox("s1").await;
    let outside = bed.dir.join("outside");
    std::fs::create_dir(&outside).expect("outside");
    symlink(&outside, bed.dir.join("layer/dev")).expect("link");
    let out = bed
        .output(&sandbox, "c1", Container::sh("ls /dev/null"))
        .await;
    assert_eq!(out, "/dev/null\n");
    assert_eq!(std::fs::read_dir(&outside).expect("outside").count(), 0);
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn cve_2024_21626_working_directory_through_a_descriptor_is_refused() {
    let mut bed = Bed::new("cwd").await;
    let sandbox = bed.sandbox("s1").await;
    bed.run(&sandbox, "c0", Container::sh("sleep 1000")).await;
    for fd in 0..32 {
        let cwd = std::path::PathBuf::from(format!("/proc/self/fd/{fd}"));
        let mut process = super::bed::process(&["/bin/true"]);
        process.set_cwd(cwd);
        let spec = bed.exec_spec(process, false);
        let error = sandbox.exec("c0", spec).await.expect_err("refused");
        assert!(
            error.to_string().contains("working directory"),
            "{}",
            chain(&error)
        );
    }
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn process_is_the_user_with_its_groups_and_no_capabilities() {
    let mut bed = Bed::new("user").await;
    let sandbox = bed.sandbox("s1").await;
    let mut container = Container::sh(
        "exec 2>&1; id -u; id -g; id -G; grep CapEff /proc/self/status; pwd; echo x > /dev/stderr; touch /proc/self/comm",
    );
    let user = UserBuilder::default()
        .uid(1000u32)
        .gid(1001u32)
        .additional_gids(vec![1001, 2002])
        .build()
        .expect("user");
    container.process().set_user(user);
    container.process().set_cwd("/made/on/demand".into());
    let out = bed.output(&sandbox, "c1", container).await;
    let expected = "1000\n1001\n1001 2002\nCapEff:\t0000000000000000\n/made/on/demand\n";
    assert!(out.starts_with(expected), "{out}");
    assert!(out.contains('x'), "{out}");
    sandbox.shutdown().await.expect("shutdown");
}

#[tokio::test]
#[ignore = "needs root: namespaces and mounts"]
async fn seccomp_filter_and_no_new_privs_are_in_force() {
    let mut bed = Bed::new("seccomp").await;
    let sandbox = bed.sandbox("s1").await;
    // mkdir and mkdirat fail with EPERM, all else is allowed (x86_64 numbers).
    let program: Vec<u8> = [
        [0x20u16, 0, 0, 0],
        [0x15, 0x0001, 83, 0],
        [0x15, 0x0100, 258, 0],
        [0x06, 0, 1, 5],
        [0x06, 0, 0, 0x7fff],
    ]
    .iter()
    .flat_map(|[code, jumps, low, high]| [*code, *jumps, *low, *high])
    .flat_map(u16::to_ne_bytes)
    .collect();
    for (id, no_new_privs) in [("without", false), ("with", true)] {
        let script = "exec 2>&1; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; mkdir /tmp/d || echo refused";
        let mut container = Container::sh(script);
        container
            .process()
            .set_no_new_privileges(Some(no_new_privs));
        container.seccomp = program.clone();
        let out = bed.output(&sandbox, id, container).await;
        let expected = format!("NoNewPrivs:\t{}\nSeccomp:\t2\n", u8::from(no_new_privs));
        assert!(
            out.starts_with(&expected) && out.ends_with("refused\n"),
            "{out}"
        );
    }
    sandbox.shutdown().await.expect("shutdown");
}
