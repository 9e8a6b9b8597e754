//! NFS. mount(8) and umount(8) are processes of their own: a server that is away may hold whoever
//! asks it for hours, and then it is they that wait, not a thread of the agent.
//! Rules: kubernetes v1.37 pkg/volume/nfs/nfs.go.

use super::Prepared;
use super::cleanup::{self, entries};
use super::disk::{failed, make_dirs, mountpoint};
use super::error::VolumeReason;
use super::persistent::{Persistent, Source};
use super::plugin;
use crate::metrics::StorageOperations;
use crate::metrics::storage::VOLUME_UNMOUNT;
use crate::panics::blocking;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io;
use std::net::Ipv6Addr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

/// Below `pods/<uid>/volumes`.
pub const DIR: &str = "kubernetes.io~nfs";
/// nfs.go `unMountTimeout`.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(60);
/// Ours: `umount -f` has the kernel give up what it waits for.
const FORCE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a pod is to have of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// `server:path`.
    source: String,
    target: PathBuf,
    /// As mount(8) takes them.
    options: String,
    read_only: bool,
}

impl Export {
    /// `None` for volumes of other kinds.
    pub fn of(found: &Persistent, volumes_dir: &Path) -> Option<Export> {
        let Source::Nfs(nfs) = &found.source else {
            return None;
        };
        // A colon ends the server's name.
        let server = match nfs.server.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => nfs.server.clone(),
        };
        let mut options = found.mount_options.clone();
        if found.read_only {
            options.push("ro".to_owned());
        }
        Some(Export {
            source: format!("{server}:{}", nfs.path),
            target: volumes_dir.join(DIR).join(&found.name),
            options: options.join(","),
            read_only: found.read_only,
        })
    }

    /// Mounts it unless it is. Owners and modes are the server's.
    ///
    /// # Errors
    /// What mount(8) says; also when the pod is `leaving`, which nobody waits for a server for.
    pub async fn mount(
        &self,
        leaving: &mut watch::Receiver<bool>,
    ) -> Result<Prepared, VolumeReason> {
        if !mountpoint::is_mounted(&self.target)? {
            make_dirs(&self.target).map_err(failed("mkdir", &self.target))?;
            let mut args: Vec<&OsStr> = ["-t", "nfs"].map(OsStr::new).to_vec();
            if !self.options.is_empty() {
                args.extend([OsStr::new("-o"), OsStr::new(&self.options)]);
            }
            args.push(OsStr::new(&self.source));
            tokio::select! {
                ended = run("mount", &args, &self.target) => ended?,
                _ = leaving.wait_for(|leaving| *leaving) => {
                    let ends = io::Error::other("the pod ends");
                    return Err(failed("mount(8) on", &self.target)(ends));
                }
            }
        }
        Ok(Prepared::Path {
            path: self.target.clone(),
            owned: false,
            read_only: self.read_only,
        })
    }
}

/// Whether a pod has something of a server.
pub fn has_some(pod_dir: &Path) -> bool {
    !targets(pod_dir).is_empty()
}

/// Unmounts what a pod has of servers: one that does not answer within a minute is not waited for.
///
/// # Errors
/// What umount(8) says.
pub async fn tear_down(pod_dir: &Path, operations: &StorageOperations) -> Result<(), VolumeReason> {
    let targets = targets(pod_dir);
    if targets.is_empty() {
        return Ok(());
    }
    // Binds of folders in them: the last of a server's mounts to go is to go by umount(8).
    let dir = pod_dir.to_owned();
    blocking(move || cleanup::subpaths(&dir)).await?;
    for target in targets {
        let start = Instant::now();
        let unmounted = unmount_all(&target).await;
        operations.ended(plugin::NFS, VOLUME_UNMOUNT, start, unmounted)?;
    }
    Ok(())
}

/// Once for each layer.
async fn unmount_all(target: &Path) -> Result<(), VolumeReason> {
    while mountpoint::is_mounted(target)? {
        unmount(target).await?;
    }
    Ok(())
}

fn targets(pod_dir: &Path) -> Vec<PathBuf> {
    let dir = pod_dir.join("volumes").join(DIR);
    entries(&dir)
        .into_iter()
        .map(|name| dir.join(name))
        .collect()
}

async fn unmount(target: &Path) -> Result<(), VolumeReason> {
    if let Ok(ended) = timeout(UNMOUNT_TIMEOUT, run("umount", &[], target)).await {
        return ended;
    }
    tracing::warn!(target = %target.display(), "the NFS server does not answer: umount -f");
    // Nobody sees it any more as soon as the kernel begins: what it then waits for is its own.
    if !mountpoint::is_mounted(target)? {
        return Ok(());
    }
    match timeout(FORCE_TIMEOUT, run("umount", &[OsStr::new("-f")], target)).await {
        Ok(ended) => ended,
        Err(_) if !mountpoint::is_mounted(target)? => Ok(()),
        Err(_) => Err(failed("umount -f", target)(io::Error::from(
            io::ErrorKind::TimedOut,
        ))),
    }
}

/// Runs a program for a folder to its end. When nobody waits any more it is killed with its
/// helpers, mount.nfs and the like.
async fn run(program: &str, args: &[&OsStr], target: &Path) -> Result<(), VolumeReason> {
    let mut command = std::process::Command::new(program);
    command.args(args).arg(target).process_group(0);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = tokio::process::Command::from(command).spawn();
    let child = child.map_err(failed("run mount(8) or umount(8) for", target))?;
    let mut group = Group(child.id());
    let ended = child.wait_with_output().await;
    group.0 = None;
    let ended = ended.map_err(failed("wait for mount(8) or umount(8) of", target))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    let said = io::Error::other(format!("{}: {said}", ended.status));
    let call = match program {
        "mount" => "mount(8) on",
        _ => "umount(8) of",
    };
    Err(failed(call, target)(said))
}

/// Processes that are killed when nobody waits for their first any more.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Not reaped yet, so the number is theirs.
            let _ = killpg(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NFSVolumeSource;
    use std::time::Instant;

    fn export(server: &str, read_only: bool) -> Export {
        let found = Persistent {
            name: "pv".into(),
            source: Source::Nfs(NFSVolumeSource {
                server: server.into(),
                path: "/srv".into(),
                read_only: None,
            }),
            read_only,
            block: false,
            mount_options: vec!["vers=4.2".into(), "hard,noatime".into()],
            access_modes: Vec::new(),
            claim: None,
            growth: None,
        };
        Export::of(&found, Path::new("/k/pods/u/volumes")).unwrap()
    }

    #[test]
    fn an_export_is_named_as_mount_takes_it() {
        let named = export("files.example", true);
        assert_eq!(named.source, "files.example:/srv");
        assert_eq!(named.options, "vers=4.2,hard,noatime,ro");
        let target = Path::new("/k/pods/u/volumes/kubernetes.io~nfs/pv");
        assert_eq!(named.target, target);
        assert_eq!(export("fd00::1", false).source, "[fd00::1]:/srv");
        assert_eq!(export("10.0.0.1", false).options, "vers=4.2,hard,noatime");
    }

    #[tokio::test]
    async fn a_program_that_nobody_waits_for_is_killed_with_its_helpers() {
        let dir = super::super::scratch::Scratch::new();
        let file = dir.0.join("pid");
        let script = format!("sleep 600 & echo $! >{}; wait; :", file.display());
        let args = ["-c", &script].map(OsStr::new);
        let ran = timeout(Duration::from_millis(500), run("sh", &args, Path::new("/")));
        assert!(ran.await.is_err());
        let pid = std::fs::read_to_string(&file).unwrap();
        let status = format!("/proc/{}/status", pid.trim());
        let end = Instant::now() + Duration::from_secs(5);
        let lives = || std::fs::read_to_string(&status).is_ok_and(|s| !s.contains("State:\tZ"));
        while lives() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!lives());
    }
}
