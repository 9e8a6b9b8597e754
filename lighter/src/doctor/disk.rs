//! Space, inodes, file systems that images and pods live on.

use super::{Finding, Place};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::path::{Path, PathBuf};

/// kubernetes v1.37 pkg/kubelet/eviction/defaults_linux.go: pods are evicted below.
const SPACE_PERCENT: u64 = 15;
const INODES_PERCENT: u64 = 5;
/// Ours: images of a small node.
const SPACE_FLOOR: u64 = 1 << 30;

pub fn findings(place: &Place) -> Vec<Finding> {
    let logs = place.config().pod_logs_dir;
    let mut all = Vec::new();
    let dirs = [
        ("disk-images", place.runtime.root.clone()),
        ("disk-pods", place.root_dir.clone()),
        ("disk-logs", logs),
    ];
    for (check, dir) in dirs {
        let near = nearest(&dir);
        match rustix::fs::statvfs(&near) {
            Ok(stat) => all.push(space(check, &dir.display().to_string(), &Room::of(&stat))),
            Err(e) => {
                let seen = format!("{}: {e}", near.display());
                all.push(Finding::error(
                    check,
                    [
                        &seen,
                        "nothing can be kept there",
                        "mount a file system there",
                    ],
                ));
            }
        }
    }
    all.push(overlay(
        &place.runtime.root,
        try_overlay(&place.runtime.root),
    ));
    all.push(types(
        &place.runtime.root,
        has_types(&nearest(&place.runtime.root)),
    ));
    all
}

/// The folder itself, or the one it will be made in.
fn nearest(dir: &Path) -> PathBuf {
    let there = dir.ancestors().find(|d| d.exists());
    there.unwrap_or(Path::new("/")).to_owned()
}

/// Bytes and inodes: free for us, and in all.
struct Room {
    free: u64,
    size: u64,
    inodes_free: u64,
    inodes: u64,
}

impl Room {
    fn of(stat: &rustix::fs::StatVfs) -> Room {
        Room {
            free: stat.f_bavail * stat.f_frsize,
            size: stat.f_blocks * stat.f_frsize,
            inodes_free: stat.f_favail,
            inodes: stat.f_files,
        }
    }
}

fn space(check: &'static str, dir: &str, room: &Room) -> Finding {
    let percent = |part: u64, whole: u64| (part * 100).checked_div(whole).unwrap_or(100);
    let (space, inodes) = (
        percent(room.free, room.size),
        percent(room.inodes_free, room.inodes),
    );
    let seen = format!(
        "{dir}: {} MiB free ({space} %), inodes {inodes} % free",
        room.free >> 20
    );
    let remedy = "make room, or give the folder a disk of its own";
    if room.free < SPACE_FLOOR {
        return Finding::error(
            check,
            [&seen, "no room for images and what pods write", remedy],
        );
    }
    if space < SPACE_PERCENT || inodes < INODES_PERCENT {
        let cause =
            "below what the kubelet evicts pods at by default (15 % of space, 5 % of inodes)";
        return Finding::warning(check, [&seen, cause, remedy]);
    }
    Finding::ok(check, seen)
}

/// Makes an overlay that is attached nowhere, in folders that go again.
fn try_overlay(root: &Path) -> std::io::Result<()> {
    let dir = nearest(root).join(format!(".lighter-doctor-{}", std::process::id()));
    let part = |name: &str| dir.join(name);
    let made = (|| {
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir_all(part(name))?;
        }
        let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (option, name) in [
            ("lowerdir", "lower"),
            ("upperdir", "upper"),
            ("workdir", "work"),
        ] {
            rustix::mount::fsconfig_set_string(&fs, option, part(name))?;
        }
        rustix::mount::fsconfig_create(&fs)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        rustix::mount::fsmount(&fs, flags, MountAttrFlags::empty())?;
        Ok(())
    })();
    let _ = std::fs::remove_dir_all(&dir);
    made
}

fn overlay(root: &Path, tried: std::io::Result<()>) -> Finding {
    let root = root.display();
    match tried {
        Ok(()) => Finding::ok("overlay-mount", format!("works below {root}")),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Finding::warning(
            "overlay-mount",
            [
                "not tried: no permission",
                "only root may",
                "sudo lighter doctor",
            ],
        ),
        Err(e) => Finding::error(
            "overlay-mount",
            [
                &format!("{root}: {e}"),
                "no container can be made there: overlay, NFS and some FUSE file systems can't hold one",
                "put it on ext4, xfs or btrfs: root: in /etc/lighter/config.yaml",
            ],
        ),
    }
}

/// Whether directories tell what is in them (d_type), which xfs made with ftype=0 does not.
fn has_types(dir: &Path) -> Option<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty()).ok()?;
    let mut entries = Dir::read_from(fd).ok()?.filter_map(Result::ok);
    let first = entries.next()?;
    Some(first.file_type() != FileType::Unknown)
}

fn types(root: &Path, has: Option<bool>) -> Finding {
    match has {
        Some(false) => Finding::error(
            "d_type",
            [
                &format!(
                    "the file system of {} does not tell types of entries",
                    root.display()
                ),
                "overlay does not see deleted files as deleted",
                "make it anew, for example: mkfs.xfs -n ftype=1",
            ],
        ),
        _ => Finding::ok("d_type", "told"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn judged(free: u64, size: u64, inodes_free: u64) -> Verdict {
        let room = Room {
            free,
            size,
            inodes_free,
            inodes: 100,
        };
        space("x", "/x", &room).verdict
    }

    #[test]
    fn space_is_judged_by_what_evicts_pods() {
        let g = 1 << 30;
        assert_eq!(judged(50 * g, 100 * g, 50), Verdict::Ok);
        assert_eq!(judged(10 * g, 100 * g, 50), Verdict::Warning);
        assert_eq!(judged(50 * g, 100 * g, 4), Verdict::Warning);
        assert_eq!(judged(g / 2, g, 50), Verdict::Error);
    }

    #[test]
    fn folder_that_is_not_there_is_judged_by_the_one_above() {
        assert_eq!(nearest(Path::new("/no/such/folder")), Path::new("/"));
        assert_eq!(has_types(Path::new("/proc")), Some(true));
        assert_eq!(types(Path::new("/x"), Some(false)).verdict, Verdict::Error);
    }
}
