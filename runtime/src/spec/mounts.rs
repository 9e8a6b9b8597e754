//! Mounts of a container, in the order in which they are made: the defaults,
//! the pod's files, then the request's, parents before children.

use super::{Input, SpecError};
use cri_proto::v1::{
    ContainerConfig, IdMapping, LinuxContainerSecurityContext, Mount as CriMount, MountPropagation,
    NamespaceMode,
};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};
use std::path::{Path, PathBuf};

/// The pod's files in /etc; `None` where the container has the image's.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct PodFiles {
    pub hostname: Option<PathBuf>,
    pub hosts: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
}

/// Lower directories of a mount whose source is an image, the lowest first.
#[derive(Debug, Clone)]
pub struct ImageMount {
    /// Where it goes.
    pub container_path: String,
    /// Directories, or a single file.
    pub layers: Vec<PathBuf>,
}

pub(super) fn resolve(
    input: &Input<'_>,
    security: &LinuxContainerSecurityContext,
) -> Result<Vec<Mount>, SpecError> {
    let mut requested = Vec::new();
    for mount in &input.config.mounts {
        requested.push(of_request(mount, input)?);
    }
    requested.sort_by_key(|m| m.destination().components().count());
    let taken = |path: &Path| {
        requested
            .iter()
            .any(|m| m.destination() == path || is_whole_dev(m.destination()) && in_dev(path))
    };
    let mut mounts = defaults(input, security);
    mounts.extend(pod_files(input, security));
    mounts.retain(|m| !taken(m.destination()));
    mounts.extend(requested);
    Ok(mounts)
}

fn is_whole_dev(path: &Path) -> bool {
    path == Path::new("/dev")
}

fn in_dev(path: &Path) -> bool {
    path.starts_with("/dev")
}

/// containerd v2 pkg/oci/mounts.go `defaultMounts`.
fn defaults(input: &Input<'_>, security: &LinuxContainerSecurityContext) -> Vec<Mount> {
    let mode = if security.privileged { "rw" } else { "ro" };
    let host_ipc = namespace(security, |o| o.ipc()) == NamespaceMode::Node;
    all(mode, host_ipc, sysfs(input, security, mode))
}

/// Those of a container that is not privileged and shares no namespace with the host.
pub(crate) fn usual() -> Vec<Mount> {
    all("ro", false, own_sysfs("ro"))
}

fn all(mode: &str, host_ipc: bool, sysfs: Mount) -> Vec<Mount> {
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
    ];
    mounts.push(if host_ipc {
        mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate", "rw"])
    } else {
        mount("/dev/shm", "pod-shm", "shm", &["nosuid", "noexec", "nodev"])
    });
    // Shows the queues of the IPC namespace it is mounted in, the host's too; a host need not
    // have a /dev/mqueue of its own to bind.
    mounts.push(mount(
        "/dev/mqueue",
        "mqueue",
        "mqueue",
        &["nosuid", "noexec", "nodev"],
    ));
    mounts.push(sysfs);
    // On v1 hosts the engine shows every hierarchy below it, each with the
    // container's own cgroup as its root.
    let options = ["nosuid", "noexec", "nodev", "relatime", mode];
    mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &options));
    mounts
}

/// A sysfs can be mounted only by who owns the network namespace: a user
/// namespace on the host's network sees the host's.
fn sysfs(input: &Input<'_>, security: &LinuxContainerSecurityContext, mode: &str) -> Mount {
    let host_network = namespace(security, |o| o.network()) == NamespaceMode::Node;
    let users = super::user_namespace(input.sandbox).ok().flatten();
    if host_network && users.is_some() {
        let options = ["rbind", "rprivate", "nosuid", "noexec", "nodev", mode];
        return mount("/sys", "bind", "/sys", &options);
    }
    own_sysfs(mode)
}

fn own_sysfs(mode: &str) -> Mount {
    let options = ["nosuid", "noexec", "nodev", mode];
    mount("/sys", "sysfs", "sysfs", &options)
}

/// With a read-only root these are, too.
fn pod_files(input: &Input<'_>, security: &LinuxContainerSecurityContext) -> Vec<Mount> {
    let mode = if security.readonly_rootfs { "ro" } else { "rw" };
    let files = [
        ("/etc/hostname", &input.files.hostname),
        ("/etc/hosts", &input.files.hosts),
        ("/etc/resolv.conf", &input.files.resolv_conf),
    ];
    let mut mounts = Vec::new();
    for (path, source) in files {
        if let Some(source) = source {
            let mut mount = mount(path, "bind", "", &["rbind", "rprivate", mode]);
            mount.set_source(Some(source.clone()));
            mounts.push(mount);
        }
    }
    mounts
}

fn of_request(cri: &CriMount, input: &Input<'_>) -> Result<Mount, SpecError> {
    let fail = |reason| SpecError::Mount {
        path: cri.container_path.clone(),
        reason,
    };
    let destination = absolute(&cri.container_path).ok_or_else(|| fail("not a path"))?;
    if destination == Path::new("/") {
        return Err(fail("the container's root can't be mounted over"));
    }
    if cri.image.as_ref().is_some_and(|i| !i.image.is_empty()) {
        return of_image(cri, destination, input);
    }
    if !cri.host_path.starts_with('/') {
        return Err(fail("its host path is not absolute"));
    }
    if cri.recursive_read_only && !cri.readonly {
        return Err(fail("recursive_read_only needs readonly"));
    }
    if cri.recursive_read_only && cri.propagation() != MountPropagation::PropagationPrivate {
        return Err(fail("recursive_read_only needs private propagation"));
    }
    let mode = match (cri.readonly, cri.recursive_read_only) {
        (_, true) => "rro",
        (true, _) => "ro",
        _ => "rw",
    };
    let mut options = vec!["rbind", propagation(cri.propagation()), mode];
    if !cri.uid_mappings.is_empty() {
        options.push("idmap");
    }
    let mut mount = mount("/", "bind", &cri.host_path, &options);
    mount.set_destination(destination);
    if !cri.uid_mappings.is_empty() {
        mount
            .set_uid_mappings(Some(mappings(&cri.uid_mappings)))
            .set_gid_mappings(Some(mappings(&cri.gid_mappings)));
    }
    Ok(mount)
}

/// Read-only, but programs in it may be run.
fn of_image(cri: &CriMount, destination: PathBuf, input: &Input<'_>) -> Result<Mount, SpecError> {
    let found = input
        .image_mounts
        .iter()
        .find(|m| m.container_path == cri.container_path);
    let layers = found.map(|m| m.layers.as_slice()).unwrap_or_default();
    let fail = |reason| SpecError::Mount {
        path: cri.container_path.clone(),
        reason,
    };
    let mut out = match layers {
        [] => return Err(fail("the image has nothing there")),
        [one] => {
            let mut out = mount(
                "/",
                "bind",
                "",
                &["bind", "rprivate", "nosuid", "nodev", "ro"],
            );
            out.set_source(Some(one.clone()));
            out
        }
        many => {
            // Overlay's own order: the uppermost first.
            let lower: Vec<String> = many.iter().rev().map(|l| l.display().to_string()).collect();
            let lower = format!("lowerdir={}", lower.join(":"));
            mount(
                "/",
                "overlay",
                "overlay",
                &["nosuid", "nodev", "ro", &lower],
            )
        }
    };
    out.set_destination(destination);
    Ok(out)
}

fn absolute(path: &str) -> Option<PathBuf> {
    if path.is_empty() || path.contains('\0') {
        return None;
    }
    // Relative to the container's root, as runc reads it.
    let mut out = PathBuf::from("/");
    for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part == ".." {
            out.pop();
        } else {
            out.push(part);
        }
    }
    Some(out)
}

fn propagation(mode: MountPropagation) -> &'static str {
    match mode {
        MountPropagation::PropagationPrivate => "rprivate",
        MountPropagation::PropagationHostToContainer => "rslave",
        MountPropagation::PropagationBidirectional => "rshared",
    }
}

/// The root must let through what its mounts are to exchange with the host.
pub(super) fn rootfs_propagation(config: &ContainerConfig) -> Option<&'static str> {
    let modes = config.mounts.iter().map(CriMount::propagation);
    let most = modes.max_by_key(|mode| *mode as i32)?;
    (most != MountPropagation::PropagationPrivate).then(|| propagation(most))
}

fn namespace(
    security: &LinuxContainerSecurityContext,
    of: impl Fn(&cri_proto::v1::NamespaceOption) -> NamespaceMode,
) -> NamespaceMode {
    let options = security.namespace_options.as_ref();
    options.map_or(NamespaceMode::Pod, of)
}

fn mappings(cri: &[IdMapping]) -> Vec<LinuxIdMapping> {
    let one = |m: &IdMapping| {
        let out = LinuxIdMappingBuilder::default()
            .container_id(m.container_id)
            .host_id(m.host_id)
            .size(m.length);
        // Nothing is required that has not been set.
        out.build().unwrap_or_default()
    };
    cri.iter().map(one).collect()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}
