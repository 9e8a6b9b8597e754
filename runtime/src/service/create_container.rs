//! CreateContainer.

use super::VerbError;
use super::core::{ContainerName, Core, blocking, delete, new_id, now};
use super::error::chain;
use super::host_paths;
use super::selinux;
use crate::cdi;
use crate::cgroup::{DeviceRule, Limits, default_rules};
use crate::container::{Container, Record, State, host_devices, lookup_dirs, requested_devices};
use crate::image::Image;
use crate::process::{self, ContainerIo, ContainerSpec, PreparedContainer, ProcessError, Rootfs};
use crate::sandbox::{Identified, Sandbox, VERSION, write_record};
use crate::spec::{self, ImageMount, PodFiles};
use cri_proto::Status;
use cri_proto::v1::{
    ContainerConfig, ContainerEventType, CreateContainerRequest, CreateContainerResponse,
    LinuxContainerResources, PodSandboxConfig,
};
use oci_spec::runtime::Spec;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::Instrument;

pub(super) async fn create_container(
    core: Arc<Core>,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse, Status> {
    let sandbox = core.sandbox(&request.pod_sandbox_id)?;
    let config = request
        .config
        .ok_or(VerbError::Missing { field: "config" })?;
    let metadata = config.metadata.clone().ok_or(VerbError::Missing {
        field: "config.metadata",
    })?;
    if metadata.name.is_empty() {
        return Err(VerbError::Missing {
            field: "config.metadata.name",
        }
        .into());
    }
    let name = (sandbox.id().to_owned(), metadata.name, metadata.attempt);
    // What the sandbox was made with counts; callers may send less here.
    let pod = request.sandbox_config;
    let work = {
        let (core, name) = (core.clone(), name.clone());
        move || async move { Ok(create(&core, &sandbox, &name, config, pod).await?) }
    };
    let container_id = core.creates.join(name, work).await?;
    Ok(CreateContainerResponse { container_id })
}

/// All that has been made before the engine is asked.
struct Prepared {
    container: Arc<Container>,
    engine: Result<PreparedContainer, ProcessError>,
}

/// A request with what it refers to.
struct Request {
    id: String,
    dir: PathBuf,
    layer: PathBuf,
    config: ContainerConfig,
    pod: PodSandboxConfig,
    image: Arc<Image>,
    image_mounts: Vec<(String, Arc<Image>)>,
}

async fn create(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    name: &ContainerName,
    config: ContainerConfig,
    pod: Option<PodSandboxConfig>,
) -> Result<String, VerbError> {
    if let Some(known) = known(core, name)? {
        return Ok(known);
    }
    let not_ready = || VerbError::SandboxNotReady {
        id: sandbox.id().to_owned(),
    };
    let engine = sandbox
        .engine()
        .filter(|_| sandbox.is_ready())
        .ok_or_else(not_ready)?;
    let id = new_id();
    let span = tracing::info_span!(
        "create_container",
        id = &id[..13],
        sandbox = &name.0[..13],
        name = name.1
    );
    let request = Request {
        dir: sandbox.containers_dir().join(&id),
        layer: core.layers_dir().join(&id),
        image: resolve(core, &config)?,
        image_mounts: mounted_images(core, &config)?,
        pod: log_pod(sandbox, pod),
        config,
        id: id.clone(),
    };
    let container = async {
        let prepared = {
            let (core, sandbox, engine) = (core.clone(), sandbox.clone(), engine.clone());
            let work = move || prepare(&core, &sandbox, &engine, request);
            blocking(work)
                .instrument(tracing::info_span!("prepare"))
                .await
        };
        let made = match prepared {
            Ok(prepared) => {
                let made = match prepared.engine {
                    Ok(container) => engine.create_prepared(container).await,
                    Err(error) => Err(error),
                };
                let cgroup = prepared.container.read(|r| r.cgroup.clone());
                core.cgroups.entered(&cgroup);
                let made = made.map_err(VerbError::from);
                made.and_then(|_| {
                    prepared.container.update(|r| r.state = State::Created)?;
                    Ok(prepared.container)
                })
            }
            Err(error) => Err(error),
        };
        if made.is_err() {
            undo(core, sandbox, &id).await;
        }
        made
    }
    .instrument(span)
    .await?;
    core.containers.insert(container);
    core.emit(ContainerEventType::ContainerCreatedEvent, &id, sandbox);
    Ok(id)
}

fn known(core: &Core, name: &ContainerName) -> Result<Option<String>, VerbError> {
    let same = |container: &&Arc<Container>| {
        container.read(|record| {
            let m = record.config.metadata.as_ref();
            m.is_some_and(|m| (&m.name, m.attempt) == (&name.1, name.2))
        })
    };
    let all = core.containers_of(&name.0);
    let Some(container) = all.iter().find(same) else {
        return Ok(None);
    };
    match container.state() {
        State::Creating | State::Created => Ok(Some(container.id().to_owned())),
        state => Err(VerbError::Exists {
            what: format!("container {} attempt {}", name.1, name.2),
            id: container.id().to_owned(),
            state: state.to_cri().as_str_name().to_owned(),
        }),
    }
}

/// Where logs go and which namespaces there are is decided by what the sandbox
/// was run with; only a log directory may be added later.
fn log_pod(sandbox: &Sandbox, given: Option<PodSandboxConfig>) -> PodSandboxConfig {
    let mut pod = sandbox.read(|r| r.config.clone());
    if pod.log_directory.is_empty() {
        pod.log_directory = given.map(|g| g.log_directory).unwrap_or_default();
    }
    pod
}

fn resolve(core: &Core, config: &ContainerConfig) -> Result<Arc<Image>, VerbError> {
    let spec = config.image.clone().unwrap_or_default();
    let names = [&spec.image_ref, &spec.image];
    let found = names
        .iter()
        .filter(|name| !name.is_empty())
        .find_map(|name| core.images.resolve(name));
    found.ok_or(VerbError::ImageNotFound { image: spec.image })
}

fn mounted_images(
    core: &Core,
    config: &ContainerConfig,
) -> Result<Vec<(String, Arc<Image>)>, VerbError> {
    let mut images = Vec::new();
    for mount in &config.mounts {
        let Some(image) = mount.image.as_ref().filter(|i| !i.image.is_empty()) else {
            continue;
        };
        if !mount.readonly {
            let path = mount.container_path.clone();
            return Err(VerbError::ImageWritable { path });
        }
        let found = core.images.resolve(&image.image);
        let found = found.ok_or_else(|| VerbError::ImageNotFound {
            image: image.image.clone(),
        })?;
        images.push((mount.container_path.clone(), found));
    }
    Ok(images)
}

fn prepare(
    core: &Core,
    sandbox: &Arc<Sandbox>,
    engine: &process::Sandbox,
    mut request: Request,
) -> Result<Prepared, VerbError> {
    let accounts = core.accounts.get(&request.image)?;
    let image_mounts = image_layers(&request)?;
    let asked = request.config.clone();
    host_paths::settle(&mut request.config)?;
    let security = security(&request.config);
    let devices = requested_devices(&request.config.devices)?;
    let cdi = cdi::resolve(&core.config.cdi_dirs, &cdi::requested(&request.config))?;
    let nodes = if security.privileged {
        host_devices()
    } else {
        devices.nodes
    };
    let cgroup = sandbox.read(|r| core.cgroups.of_container(&r.cgroup, &request.id));
    let files = sandbox.files();
    let level = sandbox.read(|r| r.selinux_level.clone());
    let mut plan = spec::container(spec::Input {
        config: &request.config,
        sandbox: &request.pod,
        sandbox_id: sandbox.id(),
        image: &request.image.config,
        accounts: &accounts,
        host: &core.host_for(&security),
        selinux_level: &level,
        files: &files,
        image_mounts: &image_mounts,
        devices: nodes,
        seccomp_dir: &core.config.seccomp_dir,
    })?;
    if let Some(labels) = &plan.labels {
        relabel(&request.config, &files, &labels.mount)?;
    }
    let mut rules = device_rules(security.privileged, devices.rules);
    rules.extend(cdi::apply(&mut plan.spec, &cdi)?);
    let filter = core.seccomp.get(&plan.seccomp, &plan.capabilities)?;
    process::moment("spec made");
    make_dir(&request.dir)?;
    make_dir(&request.layer)?;
    hold(core, &request)?;
    let record = record(sandbox, &request, asked, &plan, cgroup.clone());
    write(&request.dir, &plan.spec, &record)?;
    process::moment("records written");
    core.cgroups.create(&cgroup)?;
    core.cgroups
        .apply_new(&cgroup, &Limits::from(&record.resources))?;
    core.cgroups.set_devices(&cgroup, &rules)?;
    process::moment("cgroups made");
    let engine = engine.prepare(ContainerSpec {
        id: request.id.clone(),
        oci: plan.spec.clone(),
        rootfs: Rootfs {
            layers: [
                core.mountpoints.below(&plan.spec),
                request.image.layers.clone(),
            ]
            .concat(),
            writable: request.layer.clone(),
            read_only: security.readonly_rootfs,
        },
        io: io(core, &request.config, record.log_path.clone())?,
        pid: plan.pid,
        cgroups: core.cgroups.doors(&cgroup)?,
        seccomp: filter.to_vec(),
    });
    process::moment("mounts made");
    let Request { dir, layer, .. } = request;
    let container = Container::new(dir, layer, sandbox.clone(), plan.spec, record);
    Ok(Prepared {
        container: Arc::new(container),
        engine,
    })
}

fn security(config: &ContainerConfig) -> cri_proto::v1::LinuxContainerSecurityContext {
    let linux = config.linux.as_ref();
    linux
        .and_then(|l| l.security_context.clone())
        .unwrap_or_default()
}

fn image_layers(request: &Request) -> Result<Vec<ImageMount>, VerbError> {
    let mut mounts = Vec::new();
    for (path, image) in &request.image_mounts {
        let of = |m: &&cri_proto::v1::Mount| m.container_path == *path;
        let sub_path = request.config.mounts.iter().find(of);
        let sub_path = sub_path
            .map(|m| m.image_sub_path.clone())
            .unwrap_or_default();
        let layers = lookup_dirs(&image.layers, Path::new(&sub_path))?;
        if layers.is_empty() {
            return Err(VerbError::ImageSubPath {
                path: path.clone(),
                sub_path,
            });
        }
        mounts.push(ImageMount {
            container_path: path.clone(),
            layers,
        });
    }
    Ok(mounts)
}

/// What the caller says is the pod's alone, and the pod's own files.
fn relabel(config: &ContainerConfig, files: &PodFiles, label: &str) -> Result<(), VerbError> {
    let asked = config.mounts.iter().filter(|m| m.selinux_relabel);
    let asked = asked.map(|m| Path::new(m.host_path.as_str()));
    let own = [&files.hostname, &files.hosts, &files.resolv_conf];
    let own = own.into_iter().flatten().map(PathBuf::as_path);
    let mut paths = asked.filter(|path| path.is_absolute()).chain(own);
    paths.try_for_each(|path| selinux::relabel(path, label))
}

fn device_rules(privileged: bool, requested: Vec<DeviceRule>) -> Vec<DeviceRule> {
    if privileged {
        return vec![DeviceRule::ANY];
    }
    let mut rules = default_rules();
    rules.extend(requested);
    rules
}

fn make_dir(dir: &Path) -> Result<(), VerbError> {
    std::fs::create_dir_all(dir).map_err(|source| VerbError::Make {
        path: dir.to_owned(),
        source,
    })
}

/// Layers stay while the container is there, also when the image is removed.
fn hold(core: &Core, request: &Request) -> Result<(), VerbError> {
    let images = std::iter::once(&request.image).chain(request.image_mounts.iter().map(|(_, i)| i));
    for (number, image) in images.enumerate() {
        let owner = owner(&request.id, number);
        core.images
            .hold(image)
            .keep(&owner)
            .map_err(|source| VerbError::Hold {
                id: request.id.clone(),
                path: core.config.state.join("held"),
                source,
            })?;
    }
    Ok(())
}

/// Who holds layers: the container itself, and one more for each image mount.
pub(super) fn owner(id: &str, number: usize) -> String {
    match number {
        0 => id.to_owned(),
        number => format!("{id}-{number}"),
    }
}

fn record(
    sandbox: &Sandbox,
    request: &Request,
    asked: ContainerConfig,
    plan: &spec::Plan,
    cgroup: crate::cgroup::CgroupPath,
) -> Record {
    let linux = asked.linux.as_ref();
    let resources: LinuxContainerResources =
        linux.and_then(|l| l.resources.clone()).unwrap_or_default();
    let image_config = request.image.config.config().as_ref();
    let image_signal = image_config.and_then(|c| c.stop_signal().as_deref());
    let (stop_signal, _) = spec::stop_signal(asked.stop_signal(), image_signal);
    let digest = request.image.repo_digests.first();
    let log = Path::new(&request.pod.log_directory).join(&asked.log_path);
    let has_log = !request.pod.log_directory.is_empty() && !asked.log_path.is_empty();
    Record {
        version: VERSION,
        id: request.id.clone(),
        sandbox_id: sandbox.id().to_owned(),
        state: State::Creating,
        created_at: now(),
        started_at: 0,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        config: asked,
        resources,
        image_id: request.image.id.clone(),
        image_ref: digest.unwrap_or(&request.image.id).clone(),
        image_mounts: request
            .image_mounts
            .iter()
            .map(|(path, image)| (path.clone(), image.id.clone()))
            .collect(),
        user: plan.user.clone(),
        stop_signal,
        log_path: has_log.then_some(log),
        cgroup,
        pid: plan.pid.clone(),
        seccomp: plan.seccomp.clone(),
        capabilities: plan.capabilities.clone(),
    }
}

/// The spec never changes, so it has a file of its own.
pub(super) const SPEC: &str = "spec.json";

fn write(dir: &Path, spec: &Spec, record: &Record) -> Result<(), VerbError> {
    let path = dir.join(SPEC);
    let text = serde_json::to_vec(spec).map_err(std::io::Error::other);
    text.and_then(|text| std::fs::write(&path, text))
        .map_err(|source| VerbError::Make { path, source })?;
    Ok(write_record(dir, record)?)
}

fn io(
    core: &Core,
    config: &ContainerConfig,
    log: Option<PathBuf>,
) -> Result<ContainerIo, VerbError> {
    if let Some(dir) = log.as_ref().and_then(|log| log.parent()) {
        make_dir(dir)?;
    }
    Ok(ContainerIo {
        tty: config.tty,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        log,
        log_max_size: core.config.log_max_size,
        log_max_files: core.config.log_max_files,
    })
}

/// A container that could not be made leaves nothing.
pub(super) async fn undo(core: &Core, sandbox: &Sandbox, id: &str) {
    if let Some(engine) = sandbox.engine() {
        let _ = engine.remove_container(id).await;
    }
    let cgroup = sandbox.read(|r| core.cgroups.of_container(&r.cgroup, id));
    if let Err(error) = core.cgroups.kill_and_remove(&cgroup).await {
        let error = chain(&error);
        tracing::warn!(container = id, error, "cgroup of a failed container stays");
    }
    core.release_layers(id);
    core.discard_layer(&core.layers_dir().join(id));
    delete(&sandbox.containers_dir().join(id));
}
