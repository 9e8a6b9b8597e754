//! `bed hold`: makes a machine's namespaces and keeps them until it is killed.

use crate::cgroup;
use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root, sethostname};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Hold {
    #[arg(long)]
    name: String,
    #[arg(long)]
    cgroup: String,
    /// Directory with `upper`, `work`, `var`, `root`; absent for a bare network namespace.
    #[arg(long)]
    root: Option<PathBuf>,
    /// Created when everything stands.
    #[arg(long)]
    ready: PathBuf,
}

impl Hold {
    pub fn run(&self) -> Result<()> {
        cgroup::enter(&self.cgroup)?;
        // A session of its own: a Ctrl-C at the terminal must not end the cluster.
        let _ = nix::unistd::setsid();
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
            .context("unshare network, mount and UTS namespaces")?;
        sethostname(&self.name)?;
        let ready = fs::File::open(self.ready.parent().context("--ready has no directory")?)?;
        // Nothing mounted from here on may reach the host.
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        if let Some(dir) = &self.root {
            enter_root(dir)?;
        }
        rustix::fs::openat(
            &ready,
            self.ready.file_name().context("--ready names no file")?,
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
            rustix::fs::Mode::RUSR,
        )?;
        drop(ready);
        loop {
            nix::unistd::pause();
        }
    }
}

const NONE: Option<&str> = None;

const WHOLE_PROC: &str = "/run/proc";

fn enter_root(dir: &Path) -> Result<()> {
    let root = dir.join("root");
    let layers = format!(
        "lowerdir=/,upperdir={},workdir={}",
        dir.join("upper").display(),
        dir.join("work").display()
    );
    mount(
        Some("overlay"),
        &root,
        Some("overlay"),
        MsFlags::empty(),
        Some(layers.as_str()),
    )
    .with_context(|| format!("mount overlay on {}", root.display()))?;
    bind(&dir.join("var"), &root.join("var"))?;
    for shared in ["proc", "dev"] {
        bind(&Path::new("/").join(shared), &root.join(shared))?;
    }
    // A sysfs of this network namespace, with the host's cgroups in it.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), &root.join("sys"), Some("sysfs"), flags, NONE).context("mount sysfs")?;
    bind(Path::new("/sys/fs/cgroup"), &root.join("sys/fs/cgroup"))?;
    for own in ["run", "tmp"] {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("tmpfs"),
            &root.join(own),
            Some("tmpfs"),
            flags,
            Some("mode=1777"),
        )
        .with_context(|| format!("mount tmpfs on /{own}"))?;
    }
    chdir(&root)?;
    pivot_root(".", ".").context("pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    be_first_process()?;
    // As on a real node: what Bidirectional volumes and CNI plugins mount is seen by all.
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)?;
    Ok(())
}

/// Has who looks for the machine's first process in `/proc` find this one, which is in its
/// namespaces, and not the host's. Upstream's suite enters the mount namespace of process 1.
fn be_first_process() -> Result<()> {
    // A `/proc` that something is mounted on is no leave for user namespaces to mount their
    // own; a whole one anywhere is.
    fs::create_dir(WHOLE_PROC).with_context(|| format!("create {WHOLE_PROC}"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), WHOLE_PROC, Some("proc"), flags, NONE).context("mount proc")?;
    let own = format!("/proc/{}", std::process::id());
    bind(Path::new(&own), Path::new("/proc/1"))
}

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(
        Some(from),
        to,
        NONE,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        NONE,
    )
    .with_context(|| format!("bind {} on {}", from.display(), to.display()))
}
