//! Host paths of a request, before they are mounted: links followed, what is
//! missing made, propagation checked against the host's mounts.

use super::VerbError;
use cri_proto::v1::{ContainerConfig, Mount, MountPropagation};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(super) fn settle(config: &mut ContainerConfig) -> Result<(), VerbError> {
    let mut mounts = None;
    for mount in &mut config.mounts {
        if mount.image.as_ref().is_some_and(|i| !i.image.is_empty()) {
            continue;
        }
        let path = real(mount)?;
        if mount.propagation() == MountPropagation::PropagationBidirectional {
            let mounts = mounts.get_or_insert_with(|| {
                fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()
            });
            check_shared(&path, mounts)?;
        }
        mount.host_path = path.display().to_string();
    }
    Ok(())
}

/// The path without links. A missing one becomes a directory, as users of
/// hostPath without a type rely on.
fn real(mount: &Mount) -> Result<PathBuf, VerbError> {
    let path = Path::new(&mount.host_path);
    let fail = |source| VerbError::HostPath {
        path: path.to_owned(),
        source,
    };
    if !path.is_absolute() {
        let reason = io::Error::new(io::ErrorKind::InvalidInput, "not absolute");
        return Err(fail(reason));
    }
    match fs::canonicalize(path) {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(path).map_err(fail)?;
            fs::canonicalize(path).map_err(fail)
        }
        Err(error) => Err(fail(error)),
    }
}

fn check_shared(path: &Path, mountinfo: &str) -> Result<(), VerbError> {
    match mount_of(path, mountinfo) {
        Some((mount, false)) => Err(VerbError::NotShared {
            path: path.to_owned(),
            mount,
        }),
        _ => Ok(()),
    }
}

/// The mount that a path is on, and whether it is shared. Of several on one
/// place the last is on top.
fn mount_of(path: &Path, mountinfo: &str) -> Option<(PathBuf, bool)> {
    let mut best: Option<(PathBuf, bool)> = None;
    for line in mountinfo.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let Some(mount) = fields
            .get(4)
            .map(|m| PathBuf::from(m.replace("\\040", " ")))
        else {
            continue;
        };
        let longer =
            |(old, _): &(PathBuf, bool)| mount.components().count() >= old.components().count();
        if path.starts_with(&mount) && best.as_ref().is_none_or(longer) {
            let optional = fields.iter().skip(6).take_while(|f| **f != "-");
            let shared = optional.into_iter().any(|f| f.starts_with("shared:"));
            best = Some((mount, shared));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:5 / /var rw shared:7 - tmpfs tmpfs rw
22 21 0:6 / /var/lib rw master:7 - tmpfs tmpfs rw
";

    #[test]
    fn nearest_mount_decides_whether_a_path_is_shared() {
        let shared = |path: &str| mount_of(Path::new(path), MOUNTS).map(|(_, shared)| shared);
        assert_eq!(shared("/etc"), Some(false));
        assert_eq!(shared("/var/log"), Some(true));
        assert_eq!(shared("/var/lib/kubelet"), Some(false));
        assert_eq!(shared("/variable"), Some(false));
    }

    #[test]
    fn error_names_the_mount_to_be_shared() {
        let error = check_shared(Path::new("/etc/x"), MOUNTS).expect_err("private");
        assert!(
            error
                .to_string()
                .contains("is mounted on / but it is not a shared mount")
        );
    }
}
