//! What is written down of a container before it is made.

use super::VerbError;
use super::core::now;
use super::prepare_container::Request;
use crate::cgroup::CgroupPath;
use crate::container::{Record, State};
use crate::sandbox::{Identified, Sandbox, VERSION};
use crate::spec;
use cri_proto::v1::{ContainerConfig, LinuxContainerResources};
use oci_spec::runtime::Spec;
use std::path::Path;

/// The spec never changes, so it has a file of its own.
pub(super) const SPEC: &str = "spec.json";

/// The limits that are asked for.
pub(super) fn resources(asked: &ContainerConfig) -> LinuxContainerResources {
    let linux = asked.linux.as_ref();
    linux.and_then(|l| l.resources.clone()).unwrap_or_default()
}

/// A container that has nothing yet.
pub(super) fn record(
    sandbox: &Sandbox,
    request: &Request,
    asked: ContainerConfig,
    plan: &spec::Plan,
    cgroup: CgroupPath,
) -> Record {
    let resources = resources(&asked);
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

/// In the folder of the container, before its record.
pub(super) fn write_spec(dir: &Path, spec: &Spec) -> Result<(), VerbError> {
    let path = dir.join(SPEC);
    let text = serde_json::to_vec(spec).map_err(std::io::Error::other);
    text.and_then(|text| std::fs::write(&path, text))
        .map_err(|source| VerbError::Make { path, source })?;
    crate::process::moment("spec written");
    Ok(())
}
