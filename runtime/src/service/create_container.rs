//! CreateContainer.

use super::VerbError;
use super::core::{ContainerName, Core, delete, new_id};
use super::error::chain;
use super::prepare_container::{Request, prepare};
use crate::container::{Container, State};
use crate::image::Image;
use crate::sandbox::{FirstContainer, Identified, Sandbox};
use cri_proto::Status;
use cri_proto::v1::{
    ContainerConfig, ContainerEventType, CreateContainerRequest, CreateContainerResponse,
    PodSandboxConfig,
};
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
    let _starting = core.starting();
    let image = resolve(core, &config)?;
    let image_mounts = mounted_images(core, &config)?;
    // From here on it is this one's to undo.
    let first = sandbox.take_first_container();
    let FirstContainer { id, cgroups } = first.unwrap_or_else(|| FirstContainer::new(new_id()));
    let span = tracing::info_span!(
        "create_container",
        id = &id[..13],
        sandbox = &name.0[..13],
        name = name.1
    );
    let request = Request {
        dir: sandbox.containers_dir().join(&id),
        layer: core.layers_dir().join(&id),
        image,
        image_mounts,
        pod: log_pod(sandbox, pod),
        config,
        id: id.clone(),
        cgroups,
    };
    let container = async {
        let made = match prepare(core, sandbox, &engine, request).await {
            Ok(prepared) => {
                let made = match prepared.engine {
                    Ok(container) => engine.create_prepared(container).await,
                    Err(error) => Err(error),
                };
                let spec = prepared.spec.await.unwrap_or(Err(VerbError::ShuttingDown));
                let cgroup = prepared.container.read(|r| r.cgroup.clone());
                core.cgroups.entered(&cgroup);
                let made = made.map(drop).map_err(VerbError::from);
                made.and(spec).and_then(|()| {
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
