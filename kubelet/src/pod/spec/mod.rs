//! From a pod's spec to what the runtime is told. Pure.

pub mod cgroup;
pub mod container;
pub mod env;
pub mod env_file;
pub mod expand;
mod hash;
pub mod labels;
pub mod qos;
pub mod quantity;
pub mod resources;
pub mod sandbox;
pub mod security;
pub mod services;
pub mod swap;

#[cfg(test)]
pub(crate) mod testing;

pub use hash::hash;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// An ephemeral container as a plain one: the fields mean the same.
#[must_use]
pub fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        name: e.name,
        resources: e.resources,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..Container::default()
    }
}

/// A container of whatever kind by its name.
#[must_use]
pub fn find(spec: &PodSpec, name: &str) -> Option<Container> {
    let init = spec.init_containers.iter().flatten();
    let plain = spec.containers.iter().chain(init);
    plain
        .clone()
        .into_iter()
        .find(|c| c.name == name)
        .cloned()
        .or_else(|| {
            let mut ephemeral = spec.ephemeral_containers.iter().flatten();
            ephemeral
                .find(|e| e.name == name)
                .map(ephemeral_as_container)
        })
}

/// `metadata.uid`.
#[must_use]
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `metadata.namespace`.
#[must_use]
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// `metadata.name`.
#[must_use]
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `hostNetwork`.
#[must_use]
pub fn host_network(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|s| s.host_network)
        .unwrap_or(false)
}
