//! A container as the runtime is asked for it.

use super::expand::expand;
use super::security::{self, ImageUser, NonRootError, Subject};
use super::{labels, resources};
use crate::pod::{NodeFacts, Options};
use cri_proto::v1;
use k8s_openapi::api::core::v1::{Container, Pod};

/// Everything that goes into a container's config.
#[allow(missing_docs)]
pub struct ContainerContext<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    pub image_ref: &'a str,
    pub user: &'a ImageUser,
    pub env: &'a [(String, String)],
    pub mounts: Vec<v1::Mount>,
    pub userns: Option<&'a v1::UserNamespace>,
    /// The id of the container whose processes an ephemeral one wants to see.
    pub target: Option<String>,
    pub node: &'a NodeFacts,
    pub options: &'a Options,
}

/// CreateContainer's `ContainerConfig`.
///
/// # Errors
/// When the user it would run as is not allowed.
pub fn config(context: ContainerContext<'_>) -> Result<v1::ContainerConfig, NonRootError> {
    let c = context.container;
    let lookup = |name: &str| {
        let found = context.env.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    let words = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|w| expand(w, lookup)).collect()
    };
    let linux = linux(&context)?;
    Ok(v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: c.name.clone(),
            attempt: context.attempt,
        }),
        image: Some(v1::ImageSpec {
            image: context.image_ref.to_owned(),
            user_specified_image: c.image.clone().unwrap_or_default(),
            ..v1::ImageSpec::default()
        }),
        command: words(&c.command),
        args: words(&c.args),
        working_dir: c.working_dir.clone().unwrap_or_default(),
        envs: context.env.iter().map(variable).collect(),
        mounts: context.mounts,
        labels: labels::of_container(context.pod, c),
        annotations: labels::container_annotations(context.pod, c, context.attempt),
        log_path: log_path(&c.name, context.attempt),
        stdin: c.stdin.unwrap_or(false),
        stdin_once: c.stdin_once.unwrap_or(false),
        tty: c.tty.unwrap_or(false),
        linux: Some(linux),
        stop_signal: stop_signal(c).into(),
        ..v1::ContainerConfig::default()
    })
}

fn variable((key, value): &(String, String)) -> v1::KeyValue {
    v1::KeyValue {
        key: key.clone(),
        value: value.clone().into_bytes(),
    }
}

/// Below the pod's log directory.
#[must_use]
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

fn linux(context: &ContainerContext<'_>) -> Result<v1::LinuxContainerConfig, NonRootError> {
    let mut namespaces = security::namespaces(context.pod, context.userns);
    if let Some(id) = &context.target {
        namespaces.pid = v1::NamespaceMode::Target.into();
        namespaces.target_id.clone_from(id);
    }
    let subject = Subject {
        pod: context.pod,
        container: context.container,
        user: context.user,
        node: context.node,
        options: context.options,
    };
    let limits = resources::of_container(
        context.pod,
        context.container,
        context.options,
        context.node.memory_capacity,
    );
    Ok(v1::LinuxContainerConfig {
        resources: Some(limits),
        security_context: Some(security::of_container(subject, namespaces)?),
    })
}

/// `lifecycle.stopSignal`, by its Linux name.
fn stop_signal(container: &Container) -> v1::Signal {
    let name = container
        .lifecycle
        .as_ref()
        .and_then(|l| l.stop_signal.as_deref());
    name.and_then(|n| {
        let plain = n
            .replace("RTMIN+", "RTMINPLUS")
            .replace("RTMAX-", "RTMAXMINUS");
        v1::Signal::from_str_name(&format!("SIGNAL_{plain}"))
    })
    .unwrap_or(v1::Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::spec::testing::node;
    use serde_json::json;

    fn container(json: serde_json::Value) -> v1::ContainerConfig {
        let metadata = json!({"name": "p", "namespace": "ns", "uid": "u"});
        let pod: Pod =
            serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [json]}}))
                .unwrap_or_default();
        let spec = pod.spec.clone().unwrap_or_default();
        config(ContainerContext {
            pod: &pod,
            container: &spec.containers[0],
            attempt: 3,
            image_ref: "sha256:1",
            user: &ImageUser::default(),
            env: &[("A".into(), "x".into())],
            mounts: Vec::new(),
            userns: None,
            target: None,
            node: &node(),
            options: &Options::default(),
        })
        .unwrap_or_default()
    }

    #[test]
    fn command_and_args_are_expanded_with_the_environment() {
        let made = container(json!({"name": "c", "command": ["$(A)"], "args": ["$(B)", "$$(A)"]}));
        assert_eq!(made.command, vec!["x"]);
        assert_eq!(made.args, vec!["$(B)", "$(A)"]);
    }

    #[test]
    fn attempt_is_in_log_path_metadata_and_annotation() {
        let made = container(json!({"name": "c"}));
        assert_eq!(made.log_path, "c/3.log");
        assert_eq!(made.metadata.map(|m| m.attempt), Some(3));
        assert_eq!(
            made.annotations["io.kubernetes.container.restartCount"],
            "3"
        );
    }

    #[test]
    fn stop_signal_is_taken_by_name() {
        let signal =
            |s: &str| container(json!({"name": "c", "lifecycle": {"stopSignal": s}})).stop_signal();
        assert_eq!(signal("SIGUSR1"), v1::Signal::Sigusr1);
        assert_eq!(signal("SIGRTMIN+3"), v1::Signal::Sigrtminplus3);
    }
}
