//! What the agent makes of a container before its monitor is asked.
//!
//! Two threads, of which each takes as long: one makes mounts, which wait for a disk and for
//! overlay, the other cgroups. None has to be first: what a crash leaves is swept by the id in
//! its name.

use super::VerbError;
use super::container_record::{record, resources, write_spec};
use super::core::{Core, blocking};
use super::first_container::make_cgroups;
use super::{host_paths, selinux};
use crate::cdi;
use crate::cgroup::{CgroupPath, DeviceRule, Limits, default_rules};
use crate::container::{Container, host_devices, lookup_dirs, requested_devices};
use crate::image::Image;
use crate::process::{
    self, ContainerCgroups, ContainerIo, ContainerSpec, PreparedContainer, ProcessError, Rootfs,
};
use crate::sandbox::{CgroupsBegun, Identified, Sandbox};
use crate::spec::{self, ImageMount, PodFiles};
use cri_proto::v1::{ContainerConfig, PodSandboxConfig};
use oci_spec::runtime::Spec;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::Instrument;

/// All that has been made before the engine is asked.
pub(super) struct Prepared {
    pub container: Arc<Container>,
    pub engine: Result<PreparedContainer, ProcessError>,
    /// Ends when the spec is written, which the engine need not wait for.
    pub spec: JoinHandle<Result<(), VerbError>>,
}

/// A request with what it refers to.
pub(super) struct Request {
    pub id: String,
    /// Of its records.
    pub dir: PathBuf,
    /// The writable one.
    pub layer: PathBuf,
    pub config: ContainerConfig,
    pub pod: PodSandboxConfig,
    pub image: Arc<Image>,
    pub image_mounts: Vec<(String, Arc<Image>)>,
    /// Somebody makes them already.
    pub cgroups: Option<CgroupsBegun>,
}

/// # Errors
/// The first step that failed. Whatever was made by then is the caller's to undo.
pub(super) async fn prepare(
    core: &Arc<Core>,
    sandbox: &Arc<Sandbox>,
    engine: &Arc<process::Sandbox>,
    mut request: Request,
) -> Result<Prepared, VerbError> {
    let cgroup = sandbox.read(|r| core.cgroups.of_container(&r.cgroup, &request.id));
    let (plan, planned) = oneshot::channel();
    let (made, entrance) = oneshot::channel();
    let spec = {
        let (core, cgroup) = (core.clone(), cgroup.clone());
        let (dir, limits) = (
            request.dir.clone(),
            Limits::from(&resources(&request.config)),
        );
        let begun = request.cgroups.take();
        let span = tracing::debug_span!("cgroups_and_spec");
        let work = move || match cgroups(&core, (&cgroup, begun), (&limits, &dir), planned) {
            Ok((cgroups, spec)) => {
                // Nobody waits for it when the mounts have failed.
                let _ = made.send(Ok(cgroups));
                write_spec(&dir, &spec)
            }
            Err(error) => {
                let _ = made.send(Err(error));
                Ok(())
            }
        };
        tokio::task::spawn_blocking(move || span.in_scope(work))
    };
    // The two wait for each other: they go to the pool as a pair, so that no crowd of one kind
    // takes all its threads.
    let mounts = {
        let (core, sandbox, engine) = (core.clone(), sandbox.clone(), engine.clone());
        let beside = Beside { plan, entrance };
        blocking(move || mounts(&core, &sandbox, &engine, request, (cgroup, beside)))
            .instrument(tracing::info_span!("prepare"))
    };
    match mounts.await {
        Ok((container, engine)) => Ok(Prepared {
            container: Arc::new(container),
            engine,
            spec,
        }),
        Err(error) => {
            // To its end, so that an undo does not race with it.
            let _ = spec.await;
            Err(error)
        }
    }
}

/// What the thread of the cgroups needs to know of the spec.
struct Plan {
    spec: Arc<Spec>,
    devices: Vec<DeviceRule>,
}

/// The other thread.
struct Beside {
    plan: oneshot::Sender<Plan>,
    entrance: oneshot::Receiver<Result<ContainerCgroups, VerbError>>,
}

fn cgroups(
    core: &Core,
    (cgroup, begun): (&CgroupPath, Option<CgroupsBegun>),
    (limits, dir): (&Limits, &Path),
    planned: oneshot::Receiver<Plan>,
) -> Result<(ContainerCgroups, Arc<Spec>), VerbError> {
    let made = begun.and_then(|begun| begun.blocking_recv().ok()?.ok());
    let cgroups = match made {
        Some(made) => made,
        // Again, so that the error is that of now.
        None => make_cgroups(&core.cgroups, cgroup)?,
    };
    core.cgroups.apply_new(cgroup, limits)?;
    process::moment("cgroups made");
    // There is none when it could not be made.
    let plan = planned.blocking_recv();
    let plan = plan.map_err(|_| VerbError::ShuttingDown)?;
    core.cgroups.set_devices(cgroup, &plan.devices)?;
    // Before the monitor knows of the container: a folder without a record is undone.
    make_dir(dir)?;
    Ok((cgroups, plan.spec))
}

fn mounts(
    core: &Core,
    sandbox: &Arc<Sandbox>,
    engine: &process::Sandbox,
    mut request: Request,
    (cgroup, beside): (CgroupPath, Beside),
) -> Result<(Container, Result<PreparedContainer, ProcessError>), VerbError> {
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
    let record = record(sandbox, &request, asked, &plan, cgroup);
    let spec = Arc::new(plan.spec);
    let told = Plan {
        spec: spec.clone(),
        devices: rules,
    };
    // When it has failed already its error is the answer, below.
    let _ = beside.plan.send(told);
    make_dir(&request.layer)?;
    hold(core, &request)?;
    let engine = engine.mount(ContainerSpec {
        id: request.id.clone(),
        oci: spec.clone(),
        rootfs: Rootfs {
            layers: [core.mountpoints.below(&spec), request.image.layers.clone()].concat(),
            writable: request.layer.clone(),
            read_only: security.readonly_rootfs,
        },
        io: io(core, &request.config, record.log_path.clone())?,
        pid: plan.pid,
        seccomp: filter.to_vec(),
    });
    process::moment("mounts made");
    let cgroups = beside.entrance.blocking_recv();
    let cgroups = cgroups.map_err(|_| VerbError::ShuttingDown)??;
    let engine = engine.and_then(|mounted| mounted.in_cgroups(cgroups));
    let Request { dir, layer, .. } = request;
    let container = Container::new(dir, layer, sandbox.clone(), spec, record);
    Ok((container, engine))
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
