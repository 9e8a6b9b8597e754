//! Annotations that device plugins, security agents and hooks read.

use super::Input;
use std::collections::HashMap;

/// containerd v2 internal/cri/annotations. Nothing of the image's labels:
/// CVE-2026-53488.
pub(super) fn of_container(input: &Input<'_>) -> HashMap<String, String> {
    let pod = input.sandbox.metadata.clone().unwrap_or_default();
    let name = input.config.metadata.clone().unwrap_or_default().name;
    let image = input.config.image.clone().unwrap_or_default();
    let image = if image.user_specified_image.is_empty() {
        image.image
    } else {
        image.user_specified_image
    };
    let pairs = [
        ("container-type", "container".to_owned()),
        ("container-name", name),
        ("image-name", image),
        ("sandbox-id", input.sandbox_id.to_owned()),
        ("sandbox-name", pod.name),
        ("sandbox-namespace", pod.namespace),
        ("sandbox-uid", pod.uid),
    ];
    pairs
        .into_iter()
        .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value))
        .collect()
}
