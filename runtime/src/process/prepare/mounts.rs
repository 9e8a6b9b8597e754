//! The mounts of an OCI spec.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use oci_spec::runtime::Spec;
use rustix::fs::{CWD, FileType};
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::super::plan::{Mount, Plan, Source};
use super::super::wire::KeyValue;
use super::options::{self, Options};
use super::{Fds, Host, Trouble, overlay, trouble};
use crate::sys::{self, MountAttr};

/// The type by which a mount asks for the pod's own /dev/shm.
const POD_SHM: &str = "pod-shm";
/// The type of a mount of an image's layers.
const OVERLAY: &str = "overlay";
/// The host's, for a pod that shares its IPC namespace.
const HOST_SHM: &str = "/dev/shm";

/// Plans every mount; descriptors of prepared ones go to `fds`, cgroup v1
/// hierarchies, when they are asked for, to `hierarchies`. `scratch` is a
/// directory of the container's own.
pub fn plan(
    oci: &Spec,
    host: &Host,
    scratch: &Path,
    fds: &mut Fds,
    hierarchies: &mut Vec<KeyValue>,
) -> Result<Vec<Mount>, Trouble> {
    let mut mounts: Vec<_> = oci.mounts().iter().flatten().collect();
    // Nothing that is asked for is hidden by a mount above it. Stable: the order
    // of mounts beside each other is the caller's.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    mounts
        .into_iter()
        .map(|mount| one(mount, host, scratch, fds, hierarchies))
        .collect()
}

/// Those that are new file systems, as [`plan`] plans them.
pub fn fresh(mounts: &[oci_spec::runtime::Mount]) -> Vec<Mount> {
    let planned = mounts.iter().map(|mount| {
        let options = parse(mount);
        let source = source(mount, &options, true);
        planned(mount, source, &options)
    });
    let fresh = |m: &Mount| matches!(m.source(), Source::Fresh | Source::Sysfs);
    planned.filter(fresh).collect()
}

fn parse(mount: &oci_spec::runtime::Mount) -> Options {
    options::parse(mount.options().iter().flatten().map(String::as_str))
}

fn fstype(mount: &oci_spec::runtime::Mount) -> &str {
    mount.typ().as_deref().unwrap_or("none")
}

fn source(mount: &oci_spec::runtime::Mount, options: &Options, own_shm: bool) -> Source {
    match fstype(mount) {
        _ if options.bind.is_some() => Source::Prepared,
        "bind" | OVERLAY => Source::Prepared,
        POD_SHM if own_shm => Source::PodShm,
        POD_SHM => Source::Prepared,
        "proc" => Source::Proc,
        "sysfs" => Source::Sysfs,
        "cgroup" | "cgroup2" => Source::Cgroup,
        _ => Source::Fresh,
    }
}

/// All of it but its descriptor.
fn planned(mount: &oci_spec::runtime::Mount, source: Source, options: &Options) -> Mount {
    let mut planned = Mount {
        source: source.into(),
        destination: mount.destination().to_string_lossy().into_owned(),
        directory: true,
        attributes: options.set | options.set_recursive,
        ..Mount::default()
    };
    if source == Source::Fresh {
        fstype(mount).clone_into(&mut planned.fstype);
        planned.options.clone_from(&options.data);
    }
    planned
}

fn one(
    mount: &oci_spec::runtime::Mount,
    host: &Host,
    scratch: &Path,
    fds: &mut Fds,
    hierarchies: &mut Vec<KeyValue>,
) -> Result<Mount, Trouble> {
    let options = parse(mount);
    let source = source(mount, &options, host.ipc);
    let mut planned = planned(mount, source, &options);
    match source {
        Source::Prepared if fstype(mount) == OVERLAY => {
            let value = |key: &str| {
                let data = options.data.iter().find(|data| data.key == key);
                data.map(|data| data.value.as_str()).unwrap_or_default()
            };
            let userns = host.userns.as_ref().map(|fd| fd.as_fd());
            let tree = overlay::image((value("lowerdir"), value("context")), scratch, userns)?;
            set(&tree, options.set)?;
            planned.fd = fds.add(tree);
        }
        Source::Prepared => {
            let path = match (fstype(mount), mount.source()) {
                (POD_SHM, _) => Path::new(HOST_SHM),
                (_, Some(path)) => path.as_path(),
                (_, None) => Path::new(""),
            };
            let mapped = mount.uid_mappings().is_some() || options.idmap;
            let userns = host.userns.as_ref().filter(|_| mapped).map(|fd| fd.as_fd());
            let tree = bind(path, &options, userns)?;
            planned.directory = is_directory(&tree).map_err(trouble("look at", path.display()))?;
            planned.fd = fds.add(tree);
        }
        Source::Cgroup => *hierarchies = self::hierarchies(),
        Source::Fresh | Source::Proc | Source::Sysfs | Source::PodShm => {}
    }
    Ok(planned)
}

fn set(tree: &OwnedFd, attributes: u64) -> Result<(), Trouble> {
    let attr = MountAttr {
        set: attributes,
        ..MountAttr::default()
    };
    sys::set_mount_attr(tree, attr).map_err(trouble("set attributes of", "an image"))
}

/// A detached clone of what is at `path`, with all that was asked of it.
fn bind(
    path: &Path,
    options: &Options,
    userns: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Trouble> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let recursive = options.bind.unwrap_or(true);
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    let tree = rustix::mount::open_tree(CWD, path, flags)
        .map_err(trouble("clone the mount at", path.display()))?;
    let set = |attr| {
        sys::set_mount_attr(&tree, attr).map_err(trouble("set attributes of", path.display()))
    };
    let propagates = options
        .propagation
        .is_some_and(|(flag, _)| flag == options::MS_SHARED);
    let (flag, whole) = options.propagation.unwrap_or((options::MS_PRIVATE, true));
    // The clone is in the source's peer group already; a mount of the host that
    // is private can't be shared back to it.
    if !propagates {
        set(MountAttr {
            propagation: flag,
            recursive: whole && recursive,
            ..MountAttr::default()
        })?;
    }
    if let Some(userns) = userns {
        set(MountAttr {
            set: u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits()),
            userns: Some(userns),
            recursive,
            ..MountAttr::default()
        })?;
    }
    if options.set | options.clear != 0 {
        set(MountAttr {
            set: options.set,
            clear: options.clear,
            ..MountAttr::default()
        })?;
    }
    if options.set_recursive != 0 {
        set(MountAttr {
            set: options.set_recursive,
            recursive: true,
            ..MountAttr::default()
        })?;
    }
    Ok(tree)
}

/// The plan's hierarchies as mounts, where there is one of each and the container has a cgroup
/// namespace, which is what they show.
pub fn views(
    plan: &Plan,
    mut made: Vec<(String, OwnedFd)>,
    fds: &mut Fds,
) -> Result<Vec<u32>, Trouble> {
    let Some(mount) = plan.mounts.iter().find(|m| m.source() == Source::Cgroup) else {
        return Ok(Vec::new());
    };
    let mut take = |name: &str| {
        let at = made.iter().position(|(made, _)| made == name)?;
        Some(made.swap_remove(at))
    };
    let views: Option<Vec<_>> = plan.hierarchies.iter().map(|h| take(&h.key)).collect();
    let Some(views) = views.filter(|_| plan.private_cgroup) else {
        return Ok(Vec::new());
    };
    let mut positions = Vec::new();
    for (name, view) in views {
        let attr = MountAttr {
            set: mount.attributes,
            propagation: options::MS_PRIVATE,
            ..MountAttr::default()
        };
        sys::set_mount_attr(&view, attr).map_err(trouble("set attributes of", name))?;
        positions.push(fds.add(view));
    }
    Ok(positions)
}

fn is_directory(tree: &OwnedFd) -> rustix::io::Result<bool> {
    let mode = rustix::fs::fstat(tree)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

/// The host's cgroup v1 hierarchies; none on a host that has only v2. The v2 hierarchy of
/// a hybrid host is not shown: programs would take its limits for theirs, and runc shows
/// none. Looked up once: they are mounted for good, and the list of mounts grows with the pods.
fn hierarchies() -> Vec<KeyValue> {
    static FOUND: OnceLock<Vec<KeyValue>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        parse_hierarchies(&text)
    });
    found.clone()
}

/// Controllers of v1, as options that pick a hierarchy; the rest of a mount's
/// super options (`rw`, `xattr`, `release_agent`) does not.
fn parse_hierarchies(mountinfo: &str) -> Vec<KeyValue> {
    const OTHERS: [&str; 6] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "seclabel",
    ];
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else {
            continue;
        };
        let mut after = after.split(' ');
        let (fstype, options) = (
            after.next().unwrap_or_default(),
            after.nth(1).unwrap_or_default(),
        );
        let path = before.split(' ').nth(4).unwrap_or_default();
        let key = path.rsplit('/').next().unwrap_or_default().to_owned();
        let below = path.starts_with("/sys/fs/cgroup/");
        if fstype == "cgroup" && below {
            let kept = options
                .split(',')
                .filter(|o| !OTHERS.contains(o) && !o.starts_with("release_agent="));
            let value = kept.collect::<Vec<_>>().join(",");
            found.push(KeyValue { key, value });
        }
    }
    found.dedup_by(|a, b| a.key == b.key);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_none_when_the_host_has_only_v2() {
        let v2 = "35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert!(parse_hierarchies(v2).is_empty());
    }

    #[test]
    fn hierarchies_are_picked_by_controllers_and_name_when_the_host_is_hybrid() {
        let info = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found: Vec<_> = parse_hierarchies(info)
            .into_iter()
            .map(|h| (h.key, h.value))
            .collect();
        let expected = [("cpu,cpuacct", "cpu,cpuacct"), ("systemd", "name=systemd")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
