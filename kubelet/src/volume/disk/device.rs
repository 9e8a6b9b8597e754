//! A file system on a device: made if there is none, mounted once for all pods.
//! Rules: k8s.io/mount-utils v0.37 mount_linux.go `formatAndMountSensitive`.

use super::{failed, make_dirs, mountpoint};
use crate::volume::error::VolumeReason;
use rustix::fs::{FileType, stat};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// kubernetes v1.37 pkg/volume/local/local.go `defaultFSType`.
const DEFAULT: &str = "ext4";
/// blkid(8): nothing was found.
const NOTHING: i32 = 2;
/// fsck(8): errors were left.
const UNCORRECTED: i32 = 4;

/// Where the file system of a device goes, should the source be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    pub dir: PathBuf,
    /// What a device without a file system gets.
    pub fs_type: Option<String>,
}

/// Whether it is a block device.
pub fn is_device(path: &Path) -> Result<bool, VolumeReason> {
    let seen = stat(path).map_err(failed("stat", path))?;
    Ok(FileType::from_raw_mode(seen.st_mode) == FileType::BlockDevice)
}

impl Shared {
    /// Mounts the device's file system unless it is.
    pub fn mount(&self, device: &Path, options: &[String]) -> Result<(), VolumeReason> {
        make_dirs(&self.dir).map_err(failed("mkdir", &self.dir))?;
        if mountpoint::is_mounted(&self.dir)? {
            return Ok(());
        }
        let there = found_on(device)?;
        let fs_type = there.as_deref().or(self.fs_type.as_deref());
        let fs_type = fs_type.filter(|t| !t.is_empty()).unwrap_or(DEFAULT);
        match there {
            None => make(device, fs_type)?,
            Some(_) => check(device)?,
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", fs_type]);
        if !options.is_empty() {
            mount.args(["-o", &options.join(",")]);
        }
        mount.arg(device).arg(&self.dir);
        succeeded("mount(8) of", device, &run(&mut mount, device)?)
    }

    /// Whether a bind of the folder shows the file system, and not the folder that it was
    /// unmounted from meanwhile.
    pub fn is_seen_at(&self, target: &Path) -> Result<bool, VolumeReason> {
        let of = |path: &Path| stat(path).map(|s| s.st_dev).map_err(failed("stat", path));
        let around = self.dir.parent().unwrap_or(&self.dir);
        Ok(of(target)? != of(around)?)
    }
}

/// The file system on a device. What blkid(8) knows and is none is never written over.
fn found_on(device: &Path) -> Result<Option<String>, VolumeReason> {
    let mut blkid = Command::new("blkid");
    blkid.args(["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export"]);
    let said = run(blkid.arg(device), device)?;
    if said.status.code() == Some(NOTHING) {
        return Ok(None);
    }
    succeeded("blkid(8) on", device, &said)?;
    let text = String::from_utf8_lossy(&said.stdout);
    match text.lines().find_map(|l| l.strip_prefix("TYPE=")) {
        Some(fs_type) => Ok(Some(fs_type.to_owned())),
        None => {
            let other = io::Error::other("it holds something that is no file system");
            Err(failed("mount", device)(other))
        }
    }
}

fn make(device: &Path, fs_type: &str) -> Result<(), VolumeReason> {
    let mut mkfs = Command::new(format!("mkfs.{fs_type}"));
    match fs_type {
        // Nothing is kept back for root.
        "ext3" | "ext4" => mkfs.args(["-F", "-m0"]),
        "xfs" => mkfs.arg("-f"),
        _ => &mut mkfs,
    };
    tracing::info!(device = %device.display(), fs_type, "making a file system");
    succeeded("mkfs(8) on", device, &run(mkfs.arg(device), device)?)
}

fn check(device: &Path) -> Result<(), VolumeReason> {
    let mut fsck = Command::new("fsck");
    match run(fsck.arg("-a").arg(device), device) {
        Ok(said) if said.status.code() == Some(UNCORRECTED) => {
            succeeded("fsck(8) of", device, &said)
        }
        // Without fsck(8) the kernel has to judge.
        _ => Ok(()),
    }
}

fn run(command: &mut Command, device: &Path) -> Result<Output, VolumeReason> {
    let ended = command.stdin(Stdio::null()).output();
    ended.map_err(failed("run a program for", device))
}

fn succeeded(call: &'static str, path: &Path, said: &Output) -> Result<(), VolumeReason> {
    if said.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    let why = io::Error::other(format!("{}: {text}", said.status));
    Err(failed(call, path)(why))
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::fs;

    #[test]
    fn what_is_on_a_device_is_found_and_something_unknown_is_kept() {
        let dir = Scratch::new();
        let image = dir.0.join("image");
        fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
        assert_eq!(found_on(&image).unwrap(), None);
        make(&image, "ext4").unwrap();
        assert_eq!(found_on(&image).unwrap().as_deref(), Some("ext4"));
        // A partition table: 0x55 0xaa behind an entry.
        let mut table = vec![0; 8 << 20];
        table[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 9, 0, 8, 0, 0, 0, 0, 8, 0, 0]);
        table[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(&image, table).unwrap();
        assert!(found_on(&image).is_err());
    }

    #[test]
    fn a_folder_is_no_device() {
        assert!(!is_device(Path::new("/")).unwrap());
    }
}
