//! Every mount of one container.
//! Rules: kubernetes v1.36 pkg/kubelet/kubelet_pods.go `makeMounts` and
//! pkg/kubelet/kuberuntime/kuberuntime_container.go `makeMounts`.

use super::disk::make_dirs;
use super::hosts;
use super::{MountError, MountRequest, PodFacts, PodVolumes, Prepared};
use super::{expand, hostname, subpath};
use cri_proto::v1::{self, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const ETC_HOSTS: &str = "/etc/hosts";
/// Container.terminationMessagePath of the API.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Any user may write a message: kuberuntime_container.go `makeMounts`.
const TERMINATION_LOG_MODE: u32 = 0o666;
const ETC_HOSTS_MODE: u32 = 0o644;

impl MountRequest<'_> {
    /// Whether a folder has to be looked for in what is not the kubelet's own: a server may be away.
    pub fn looks_elsewhere(&self) -> bool {
        let inside = |m: &&VolumeMount| m.sub_path.is_some() || m.sub_path_expr.is_some();
        let mut mounts = self.container.volume_mounts.iter().flatten().filter(inside);
        mounts.any(|m| {
            let volume = self.volumes.get(&m.name);
            matches!(volume, Some(Prepared::Path { owned: false, .. }))
        })
    }
}

/// A request for a thread of its own.
pub struct Owned {
    pod: Pod,
    container: Container,
    attempt: u32,
    volumes: PodVolumes,
    env: BTreeMap<String, String>,
    facts: PodFacts,
}

impl Owned {
    pub fn of(request: &MountRequest<'_>) -> Owned {
        Owned {
            pod: request.pod.clone(),
            container: request.container.clone(),
            attempt: request.attempt,
            volumes: request.volumes.clone(),
            env: request.env.clone(),
            facts: request.facts.clone(),
        }
    }

    pub fn request(&self) -> MountRequest<'_> {
        MountRequest {
            pod: &self.pod,
            container: &self.container,
            attempt: self.attempt,
            volumes: &self.volumes,
            env: &self.env,
            facts: &self.facts,
        }
    }
}

pub fn of_container(
    request: &MountRequest<'_>,
    pod_dir: &Path,
    cluster_domain: &str,
) -> Result<Vec<v1::Mount>, MountError> {
    let wanted = request
        .container
        .volume_mounts
        .as_deref()
        .unwrap_or_default();
    let mut mounts = Vec::with_capacity(wanted.len() + 2);
    for (index, mount) in wanted.iter().enumerate() {
        mounts.push(of_volume(request, pod_dir, index, mount)?);
    }
    let own_hosts = wanted
        .iter()
        .any(|m| Path::new(&m.mount_path) == Path::new(ETC_HOSTS));
    if !own_hosts && !request.facts.pod_ips.is_empty() {
        let path = write_hosts(request, pod_dir, cluster_domain)?;
        mounts.push(of_file(request, &path, ETC_HOSTS));
    }
    let container = request.container;
    let message_path = container.termination_message_path.as_deref();
    let message_path = message_path.unwrap_or(TERMINATION_LOG);
    if !message_path.is_empty() {
        let path = make_termination_log(request, pod_dir)?;
        mounts.push(of_file(request, &path, message_path));
    }
    Ok(mounts)
}

/// The block devices that a container names.
/// Rule: kubernetes v1.37 pkg/kubelet/kubelet_pods.go `makeBlockVolumes`.
pub fn devices(container: &Container, volumes: &PodVolumes) -> Result<Vec<v1::Device>, MountError> {
    let wanted = container.volume_devices.iter().flatten();
    let of = |device: &VolumeDevice| match volumes.get(&device.name) {
        Some(Prepared::Device { path, read_only }) => Ok(v1::Device {
            container_path: device.device_path.clone(),
            // A runtime looks at the path itself, which may be a link.
            host_path: text(&path.canonicalize().map_err(failed("resolve", path))?),
            permissions: if *read_only { "r" } else { "mrw" }.to_owned(),
        }),
        _ => Err(MountError::NoDevice {
            volume: device.name.clone(),
            device_path: device.device_path.clone(),
        }),
    };
    wanted.map(of).collect()
}

/// See [`super::Volumes::termination_log`].
pub fn termination_log(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    let dir = pod_dir.join("containers").join(container);
    dir.join(attempt.to_string())
}

fn of_volume(
    request: &MountRequest<'_>,
    pod_dir: &Path,
    index: usize,
    mount: &VolumeMount,
) -> Result<v1::Mount, MountError> {
    let volume = request
        .volumes
        .get(&mount.name)
        .ok_or_else(|| MountError::UnknownVolume {
            volume: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
        })?;
    let sub_path = sub_path(request, mount)?;
    let mut made = v1::Mount {
        container_path: absolute(&mount.mount_path),
        readonly: mount.read_only.unwrap_or(false),
        propagation: propagation(mount).into(),
        mount_options: mount.bind_mount_options.clone().unwrap_or_default(),
        ..plain(request)
    };
    match volume {
        Prepared::Path {
            path,
            owned,
            read_only,
        } => {
            made.readonly |= read_only;
            made.selinux_relabel = *owned;
            let target = pod_dir
                .join("volume-subpaths")
                .join(&mount.name)
                .join(&request.container.name)
                .join(index.to_string());
            made.host_path = text(&match sub_path.as_str() {
                "" => path.clone(),
                sub => subpath::bind(path, Path::new(sub), &target)
                    .map_err(|failure| failure.in_mount(mount, request.container))?,
            });
        }
        Prepared::Device { .. } => {
            return Err(MountError::IsDevice {
                volume: mount.name.clone(),
                mount_path: mount.mount_path.clone(),
            });
        }
        Prepared::Image(spec) => {
            made.readonly = true;
            made.image = Some(spec.clone());
            made.image_sub_path = sub_path;
        }
    }
    made.recursive_read_only = recursive(request, mount)?;
    Ok(made)
}

fn sub_path(request: &MountRequest<'_>, mount: &VolumeMount) -> Result<String, MountError> {
    let bad = |sub_path: &str, why| MountError::BadSubPath {
        volume: mount.name.clone(),
        sub_path: sub_path.to_owned(),
        why,
    };
    let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
    let sub_path = if expression.is_empty() {
        mount.sub_path.clone().unwrap_or_default()
    } else {
        expand::strict(expression, request.env)
            .map_err(|_| bad(expression, "a variable in it is not in the container's env"))?
    };
    if sub_path.starts_with('/') {
        return Err(bad(&sub_path, "must not be an absolute path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(bad(&sub_path, "must not contain '..'"));
    }
    Ok(sub_path)
}

fn propagation(mount: &VolumeMount) -> MountPropagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}

fn recursive(request: &MountRequest<'_>, mount: &VolumeMount) -> Result<bool, MountError> {
    let can = request.facts.recursive_read_only;
    match mount.recursive_read_only.as_deref() {
        Some("Enabled") if !can => Err(MountError::RecursiveReadOnly {
            container: request.container.name.clone(),
        }),
        Some("Enabled") => Ok(true),
        Some("IfPossible") => Ok(can),
        _ => Ok(false),
    }
}

/// A mount with the pod's id mappings.
fn plain(request: &MountRequest<'_>) -> v1::Mount {
    v1::Mount {
        uid_mappings: request.facts.uid_mappings.clone(),
        gid_mappings: request.facts.gid_mappings.clone(),
        ..v1::Mount::default()
    }
}

fn of_file(request: &MountRequest<'_>, host: &Path, container: &str) -> v1::Mount {
    v1::Mount {
        container_path: absolute(container),
        host_path: text(host),
        selinux_relabel: true,
        ..plain(request)
    }
}

/// Older clients may send a relative mountPath; it means the root.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    }
}

/// CRI paths are text; those made by the kubelet and those of the API are.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn write_hosts(
    request: &MountRequest<'_>,
    pod_dir: &Path,
    cluster_domain: &str,
) -> Result<PathBuf, MountError> {
    let spec = request.pod.spec.as_ref();
    let aliases = spec
        .and_then(|s| s.host_aliases.as_deref())
        .unwrap_or_default();
    let content = if spec.and_then(|s| s.host_network).unwrap_or(false) {
        let of_node = fs::read_to_string(ETC_HOSTS);
        hosts::of_host(
            &of_node.map_err(failed("read", Path::new(ETC_HOSTS)))?,
            aliases,
        )
    } else {
        let name = hostname::of(request.pod, cluster_domain);
        hosts::managed(&request.facts.pod_ips, &name, aliases)
    };
    let path = pod_dir.join("etc-hosts");
    // In place: containers that run have this very file mounted.
    if fs::read_to_string(&path).is_ok_and(|old| old == content) {
        return Ok(path);
    }
    make_dirs(pod_dir).map_err(failed("mkdir", pod_dir))?;
    fs::write(&path, content).map_err(failed("write", &path))?;
    chmod(&path, ETC_HOSTS_MODE)?;
    Ok(path)
}

fn make_termination_log(request: &MountRequest<'_>, pod_dir: &Path) -> Result<PathBuf, MountError> {
    let path = termination_log(pod_dir, &request.container.name, request.attempt);
    let dir = path.parent().unwrap_or(pod_dir);
    make_dirs(dir).map_err(failed("mkdir", dir))?;
    // The one before may still be read for lastState; older ones are over.
    if let Some(over) = request.attempt.checked_sub(2) {
        let _ = fs::remove_file(dir.join(over.to_string()));
    }
    let mut how = OpenOptions::new();
    how.write(true)
        .create(true)
        .truncate(false)
        .custom_flags(nofollow());
    how.open(&path).map_err(failed("create", &path))?;
    chmod(&path, TERMINATION_LOG_MODE)?;
    Ok(path)
}

fn nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

fn chmod(path: &Path, mode: u32) -> Result<(), MountError> {
    let mode = fs::Permissions::from_mode(mode);
    fs::set_permissions(path, mode).map_err(failed("chmod", path))
}

fn failed(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MountError {
    move |source| MountError::Io {
        call,
        path: path.to_owned(),
        source,
    }
}
