//! What lies elsewhere, mounted into the pod's folder.

use super::device::{self, Shared};
use super::ownership::Ownership;
use super::{failed, make_dirs, mountpoint};
use crate::volume::error::VolumeReason;
use rustix::fs::{FileType, stat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use std::path::{Path, PathBuf};

/// Something to be mounted.
#[derive(Debug, Clone, PartialEq)]
pub struct Attached {
    /// A path of the host: a folder, or a device with a file system.
    pub source: String,
    pub target: PathBuf,
    pub options: Vec<String>,
    pub read_only: bool,
    pub ownership: Option<Ownership>,
    /// Of the source, if it is a device.
    pub shared: Shared,
}

impl Attached {
    /// Mounts it unless it is; then its content is given to the group.
    pub fn mount(&self) -> Result<(), VolumeReason> {
        if mountpoint::is_mounted(&self.target)? {
            return Ok(());
        }
        let source = Path::new(&self.source);
        if device::is_device(source)? {
            return self.device(source);
        }
        let flags = flags(&self.options, self.read_only)?;
        make_dirs(&self.target).map_err(failed("mkdir", &self.target))?;
        self.bind(source, flags)
    }

    fn device(&self, device: &Path) -> Result<(), VolumeReason> {
        let flags = flags(&[], self.read_only)?;
        // First: by this folder others see that the file system is needed.
        make_dirs(&self.target).map_err(failed("mkdir", &self.target))?;
        self.shared.mount(device, &self.options)?;
        self.bind(&self.shared.dir, flags)?;
        if self.shared.is_seen_at(&self.target)? {
            return Ok(());
        }
        mountpoint::unmount_all(&self.target)?;
        Err(failed("bind", device)(Errno::AGAIN))
    }

    fn bind(&self, source: &Path, flags: MountFlags) -> Result<(), VolumeReason> {
        // Before it is mounted, which says that nothing is left to do.
        if let Some(ownership) = self.ownership.filter(|_| !self.read_only) {
            ownership.apply(source)?;
        }
        let seen = stat(source).map_err(failed("stat", source))?;
        if FileType::from_raw_mode(seen.st_mode) != FileType::Directory {
            return Err(failed("mount", source)(Errno::NOTDIR));
        }
        mount_bind(source, &self.target).map_err(failed("bind", source))?;
        if flags.is_empty() {
            return Ok(());
        }
        let flags = flags | MountFlags::BIND;
        mount_remount(&self.target, flags, "").map_err(|errno| {
            let _ = mountpoint::unmount_all(&self.target);
            failed("remount", &self.target)(errno)
        })
    }
}

/// Checks that a path of the host is a block device.
pub fn check_device(path: &Path) -> Result<(), VolumeReason> {
    match device::is_device(path)? {
        true => Ok(()),
        false => Err(failed("use as a block device", path)(Errno::NOTBLK)),
    }
}

/// What a bind mount can be told, mount(8).
fn flags(options: &[String], read_only: bool) -> Result<MountFlags, VolumeReason> {
    let mut flags = match read_only {
        true => MountFlags::RDONLY,
        false => MountFlags::empty(),
    };
    for option in options.iter().flat_map(|o| o.split(',')) {
        flags |= match option {
            "" | "bind" | "rw" | "defaults" | "suid" | "dev" | "exec" => MountFlags::empty(),
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            "strictatime" => MountFlags::STRICTATIME,
            _ => {
                return Err(VolumeReason::MountOption {
                    option: option.to_owned(),
                });
            }
        };
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::{fs, io};

    #[test]
    fn bind_mounts_take_the_options_that_they_can() {
        let of = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
            flags(&options, false)
        };
        let both = MountFlags::NOEXEC | MountFlags::RDONLY;
        assert_eq!(of(&["noexec,ro"]).unwrap(), both);
        assert!(of(&["vers=4"]).unwrap_err().to_string().contains("vers=4"));
    }

    #[test]
    #[ignore = "needs root: bind mounts"]
    fn a_folder_is_bound_once_with_its_options_and_never_removed() {
        let dir = Scratch::new();
        let disk = dir.0.join("disk");
        fs::create_dir(&disk).unwrap();
        fs::write(disk.join("precious"), "x").unwrap();
        let attached = Attached {
            source: disk.to_string_lossy().into_owned(),
            target: dir.0.join("pod/v"),
            options: Vec::new(),
            read_only: true,
            ownership: None,
            shared: Shared {
                dir: dir.0.join("shared"),
                fs_type: None,
            },
        };
        attached.mount().unwrap();
        attached.mount().unwrap();
        let refused = fs::write(attached.target.join("new"), "x").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(super::super::tree::remove(&dir.0.join("pod")).is_err());
        mountpoint::unmount_all(&attached.target).unwrap();
        super::super::tree::remove(&dir.0.join("pod")).unwrap();
        assert!(disk.join("precious").exists());
    }
}
