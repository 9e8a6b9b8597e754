//! Fields and resources of a pod as text, for downward volumes and for env.
//! Form: kubernetes v1.36 pkg/fieldpath/fieldpath.go and
//! pkg/api/v1/resource/helpers.go `ExtractContainerResourceValue`.

use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::fmt::Write as _;

type Quantities = BTreeMap<String, Quantity>;

/// A field that the pod's own object holds: `metadata.*`, `spec.nodeName`,
/// `spec.serviceAccountName`. Not `status.*`, which is not the object's to say.
/// `None` for a path that is none of them; a missing label is "".
#[must_use]
pub fn field(pod: &Pod, path: &str) -> Option<String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| Some(value.cloned().unwrap_or_default());
    match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => Some(map(meta.labels.as_ref())),
        "metadata.annotations" => Some(map(meta.annotations.as_ref())),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        _ => {
            let (kind, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match kind {
                "metadata.labels" => meta.labels.as_ref(),
                "metadata.annotations" => meta.annotations.as_ref(),
                _ => return None,
            };
            text(map.and_then(|m| m.get(key)))
        }
    }
}

/// A resource of a container in units of the divisor, rounded up. A limit that
/// is not set is the pod's, or what the node has to give.
#[must_use]
pub fn resource(
    pod: &Pod,
    container: &Container,
    wanted: &ResourceFieldSelector,
    allocatable: &Quantities,
) -> Option<String> {
    let (kind, name) = wanted.resource.split_once('.')?;
    let own = container.resources.as_ref();
    let amount = match kind {
        "limits" => {
            let of_pod = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
            own.and_then(|r| set(r.limits.as_ref(), name))
                .or_else(|| of_pod.and_then(|r| set(r.limits.as_ref(), name)))
                .or_else(|| set(Some(allocatable), name))
        }
        "requests" => own.and_then(|r| set(r.requests.as_ref(), name)),
        _ => return None,
    };
    let divisor = wanted
        .divisor
        .as_ref()
        .map(Amount::from)
        .unwrap_or_default();
    Some(amount.unwrap_or_default().divided_by(divisor).to_string())
}

/// A limit of zero is no limit.
fn set(quantities: Option<&Quantities>, name: &str) -> Option<Amount> {
    let amount = Amount::from(quantities?.get(name)?);
    (amount != Amount::default()).then_some(amount)
}

/// `key="value"` lines in order of keys.
fn map(entries: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in entries.into_iter().flatten() {
        let _ = writeln!(text, "{key}={}", quoted(value));
    }
    text
}

/// As Go's `%q`, which users' parsers expect.
fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        let _ = match c {
            '"' | '\\' => write!(text, "\\{c}"),
            '\n' => write!(text, "\\n"),
            '\r' => write!(text, "\\r"),
            '\t' => write!(text, "\\t"),
            '\x07' => write!(text, "\\a"),
            '\x08' => write!(text, "\\b"),
            '\x0b' => write!(text, "\\v"),
            '\x0c' => write!(text, "\\f"),
            c if (c as u32) < 0x80 && c.is_control() => write!(text, "\\x{:02x}", c as u32),
            c if c.is_control() || (c.is_whitespace() && c != ' ') => {
                write!(text, "\\u{:04x}", c as u32)
            }
            c => write!(text, "{c}"),
        };
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ResourceRequirements;

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.metadata.labels = Some(
            [("b", "two \"2\"\n"), ("a", "één")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
        );
        pod
    }

    #[test]
    fn maps_are_sorted_and_quoted_as_go_does() {
        assert_eq!(
            field(&pod(), "metadata.labels").as_deref(),
            Some("a=\"één\"\nb=\"two \\\"2\\\"\\n\"\n")
        );
        assert_eq!(field(&pod(), "metadata.annotations").as_deref(), Some(""));
    }

    #[test]
    fn one_key_is_its_bare_value_and_a_missing_key_is_empty() {
        assert_eq!(
            field(&pod(), "metadata.labels['a']").as_deref(),
            Some("één")
        );
        assert_eq!(field(&pod(), "metadata.labels['c']").as_deref(), Some(""));
        assert_eq!(field(&pod(), "metadata.name").as_deref(), Some("web"));
        assert_eq!(field(&pod(), "status.podIP"), None);
        assert_eq!(field(&pod(), "spec.containers['x']"), None);
    }

    fn selector(resource: &str, divisor: &str) -> ResourceFieldSelector {
        ResourceFieldSelector {
            resource: resource.into(),
            divisor: Some(Quantity(divisor.into())),
            container_name: None,
        }
    }

    #[test]
    fn resources_count_in_divisors_and_default_to_what_the_node_has() {
        let quantities = |pairs: &[(&str, &str)]| -> Quantities {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned())))
                .collect()
        };
        let container = Container {
            resources: Some(ResourceRequirements {
                limits: Some(quantities(&[("cpu", "1250m")])),
                requests: Some(quantities(&[("cpu", "250m")])),
                ..ResourceRequirements::default()
            }),
            ..Container::default()
        };
        let node = quantities(&[("cpu", "2"), ("memory", "8Gi")]);
        let ask = |r, d| resource(&pod(), &container, &selector(r, d), &node);
        assert_eq!(ask("limits.cpu", "1").as_deref(), Some("2"));
        assert_eq!(ask("requests.cpu", "1m").as_deref(), Some("250"));
        assert_eq!(ask("limits.memory", "1Mi").as_deref(), Some("8192"));
        assert_eq!(ask("requests.memory", "0").as_deref(), Some("0"));
        assert_eq!(ask("cpu", "1"), None);
    }
}
