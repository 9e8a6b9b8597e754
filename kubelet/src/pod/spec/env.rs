//! The environment of a container.
//!
//! Order and precedence as upstream: envFrom, then env (which may refer to what
//! stands before it), then variables of Services that nobody has set.

use super::env_file;
use super::expand::expand;
use super::quantity::amount;
use super::{name, namespace, uid};
use crate::pod::NodeFacts;
use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvFromSource, EnvVarSource, FileKeySelector, ObjectFieldSelector, Pod,
    ResourceFieldSelector, Secret,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// ConfigMaps and Secrets that a container names, by name; what does not exist
/// is not there.
#[derive(Debug, Default)]
pub struct Sources {
    /// ConfigMaps.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Secrets.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Texts of files, or why there is none.
    pub files: BTreeMap<VolumeFile, Result<String, String>>,
}

/// A file of a volume of the pod: the volume's name, and the path in it.
pub type VolumeFile = (String, String);

/// Names that [`Sources`] should be filled with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Files of volumes.
    pub files: BTreeSet<VolumeFile>,
}

/// What else an environment is made of.
#[allow(missing_docs)]
pub struct EnvContext<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub node: &'a NodeFacts,
    pub pod_ips: &'a [String],
    pub services: BTreeMap<String, String>,
}

/// Why an environment can't be made: `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum EnvError {
    #[error("{kind} {name:?} not found")]
    NotFound { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        key: String,
        kind: &'static str,
        namespace: String,
        name: String,
    },
    #[error("field label not supported: {path}")]
    Field { path: String },
    #[error("container {container} not found")]
    Container { container: String },
    #[error("unsupported container resource : {resource}")]
    Resource { resource: String },
    #[error("couldn't parse env file {path:?} of volume {volume:?}: {why}")]
    File {
        path: String,
        volume: String,
        why: String,
    },
    #[error("environment variable key {key:?} not found in file {path:?} of volume {volume:?}")]
    NoKeyInFile {
        key: String,
        path: String,
        volume: String,
    },
}

/// The objects that a container's environment needs.
#[must_use]
pub fn wanted(container: &Container) -> Wanted {
    let mut found = Wanted::default();
    for from in container.env_from.iter().flatten() {
        found
            .config_maps
            .extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        found
            .secrets
            .extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|e| e.value_from.as_ref())
    {
        found
            .config_maps
            .extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        found
            .secrets
            .extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
        let file = source.file_key_ref.iter();
        found
            .files
            .extend(file.map(|f| (f.volume_name.clone(), f.path.clone())));
    }
    found
}

/// The whole environment, in order; no name twice.
///
/// # Errors
/// The first reference that leads nowhere and is not optional.
pub fn build(
    context: &EnvContext<'_>,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Environment::default();
    for from in context.container.env_from.iter().flatten() {
        for (key, value) in envelope(context, from, sources)? {
            env.set(key, value);
        }
    }
    for variable in context.container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => referred(context, source, sources)?,
            None => variable.value.as_deref().map(|text| {
                expand(text, |n| {
                    env.get(n).or_else(|| context.services.get(n).cloned())
                })
            }),
        };
        if let Some(value) = value {
            env.set(variable.name.clone(), value);
        } else if variable.value_from.is_none() {
            env.set(variable.name.clone(), String::new());
        }
    }
    for (key, value) in &context.services {
        if env.get(key).is_none() {
            env.set(key.clone(), value.clone());
        }
    }
    Ok(env.list)
}

#[derive(Default)]
struct Environment {
    list: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
}

impl Environment {
    fn set(&mut self, key: String, value: String) {
        match self.index.get(&key) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.index.insert(key.clone(), self.list.len());
                self.list.push((key, value));
            }
        }
    }

    fn get(&self, key: &str) -> Option<String> {
        self.index.get(key).map(|at| self.list[*at].1.clone())
    }
}

fn envelope(
    context: &EnvContext<'_>,
    from: &EnvFromSource,
    sources: &Sources,
) -> Result<Vec<(String, String)>, EnvError> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    if let Some(wish) = &from.config_map_ref {
        let map = sources.config_maps.get(&wish.name);
        let map = present(map, wish.optional, "configmap", &wish.name)?;
        let data = map.and_then(|m| m.data.clone()).unwrap_or_default();
        found.extend(data);
    }
    if let Some(wish) = &from.secret_ref {
        let secret = present(
            sources.secrets.get(&wish.name),
            wish.optional,
            "secret",
            &wish.name,
        )?;
        let data = secret.and_then(|s| s.data.clone()).unwrap_or_default();
        found.extend(data.into_iter().map(|(k, v)| (k, text(&v.0))));
    }
    let _ = context;
    let usable = found
        .into_iter()
        .filter(|(key, _)| variable_name(prefix, key));
    Ok(usable
        .map(|(key, value)| (format!("{prefix}{key}"), value))
        .collect())
}

/// Any printable ASCII but `=`.
fn variable_name(prefix: &str, key: &str) -> bool {
    let mut bytes = prefix.bytes().chain(key.bytes()).peekable();
    bytes.peek().is_some() && bytes.all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn present<'a, T>(
    found: Option<&'a Arc<T>>,
    optional: Option<bool>,
    kind: &'static str,
    name: &str,
) -> Result<Option<&'a Arc<T>>, EnvError> {
    if found.is_none() && optional != Some(true) {
        let name = name.to_owned();
        return Err(EnvError::NotFound { kind, name });
    }
    Ok(found)
}

/// `None` for what is optional and missing.
fn referred(
    context: &EnvContext<'_>,
    source: &EnvVarSource,
    sources: &Sources,
) -> Result<Option<String>, EnvError> {
    let space = namespace(context.pod);
    let no_key = |kind, key: &str, name: &str| EnvError::NoKey {
        key: key.to_owned(),
        kind,
        namespace: space.to_owned(),
        name: name.to_owned(),
    };
    if let Some(field) = &source.field_ref {
        return field_value(context, field).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(context, resource).map(Some);
    }
    if let Some(wish) = &source.config_map_key_ref {
        let map = sources.config_maps.get(&wish.name);
        let map = present(map, wish.optional, "configmap", &wish.name)?;
        let value = map
            .and_then(|m| m.data.as_ref())
            .and_then(|d| d.get(&wish.key))
            .cloned();
        return match value {
            None if wish.optional != Some(true) => Err(no_key("ConfigMap", &wish.key, &wish.name)),
            value => Ok(value),
        };
    }
    if let Some(wish) = &source.secret_key_ref {
        let secret = present(
            sources.secrets.get(&wish.name),
            wish.optional,
            "secret",
            &wish.name,
        )?;
        let value = secret
            .and_then(|s| s.data.as_ref())
            .and_then(|d| d.get(&wish.key));
        return match value {
            None if wish.optional != Some(true) => Err(no_key("Secret", &wish.key, &wish.name)),
            value => Ok(value.map(|v| text(&v.0))),
        };
    }
    if let Some(wish) = &source.file_key_ref {
        return of_file(wish, sources);
    }
    Ok(Some(String::new()))
}

/// Only the key is optional: a file that is missing or broken is an error in any case.
fn of_file(wish: &FileKeySelector, sources: &Sources) -> Result<Option<String>, EnvError> {
    let (volume, path) = (wish.volume_name.clone(), wish.path.clone());
    let text = sources.files.get(&(volume.clone(), path.clone()));
    let text = text.cloned().unwrap_or_else(|| Err("not read".to_owned()));
    let value = text.and_then(|t| env_file::value(&t, &wish.key).map_err(|e| e.to_string()));
    match value {
        Err(why) => Err(EnvError::File { path, volume, why }),
        Ok(value) if !value.is_empty() => Ok(Some(value)),
        Ok(_) if wish.optional == Some(true) => Ok(None),
        Ok(_) => Err(EnvError::NoKeyInFile {
            key: wish.key.clone(),
            path,
            volume,
        }),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// kubernetes v1.36 pkg/fieldpath and pkg/kubelet `podFieldSelectorRuntimeValue`.
fn field_value(context: &EnvContext<'_>, field: &ObjectFieldSelector) -> Result<String, EnvError> {
    let pod = context.pod;
    let spec = pod.spec.as_ref();
    let host_ips: Vec<String> = context.node.ips.texts();
    let first = |list: &[String]| list.first().cloned().unwrap_or_default();
    let service_account = spec.and_then(|s| s.service_account_name.clone());
    Ok(match field.field_path.as_str() {
        "metadata.name" => name(pod).to_owned(),
        "metadata.namespace" => namespace(pod).to_owned(),
        "metadata.uid" => uid(pod).to_owned(),
        "spec.nodeName" => context.node.name.clone(),
        "spec.serviceAccountName" => service_account.unwrap_or_default(),
        "status.hostIP" => first(&host_ips),
        "status.hostIPs" => host_ips.join(","),
        "status.podIP" => first(context.pod_ips),
        "status.podIPs" => context.pod_ips.join(","),
        path => subscript(pod, path).ok_or_else(|| EnvError::Field {
            path: path.to_owned(),
        })?,
    })
}

/// `metadata.labels['x']` and `metadata.annotations['x']`; empty when not set.
fn subscript(pod: &Pod, path: &str) -> Option<String> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    let of = match map {
        "metadata.labels" => &pod.metadata.labels,
        "metadata.annotations" => &pod.metadata.annotations,
        _ => return None,
    };
    Some(
        of.as_ref()
            .and_then(|m| m.get(key))
            .cloned()
            .unwrap_or_default(),
    )
}

fn pod_limits(pod: &Pod) -> Option<&BTreeMap<String, Quantity>> {
    pod.spec.as_ref()?.resources.as_ref()?.limits.as_ref()
}

fn resource_value(
    context: &EnvContext<'_>,
    wish: &ResourceFieldSelector,
) -> Result<String, EnvError> {
    let own = match wish.container_name.as_deref().filter(|n| !n.is_empty()) {
        None => Some(context.container.clone()),
        Some(name) => context.pod.spec.as_ref().and_then(|s| super::find(s, name)),
    };
    let container = own.ok_or_else(|| EnvError::Container {
        container: wish.container_name.clone().unwrap_or_default(),
    })?;
    let unsupported = || EnvError::Resource {
        resource: wish.resource.clone(),
    };
    let (side, kind) = wish.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.unwrap_or_default();
    let value = match side {
        // A limit that is not set is the pod's, and then the node's.
        "limits" => amount(resources.limits.as_ref(), kind)
            .or_else(|| amount(pod_limits(context.pod), kind))
            .or_else(|| amount(Some(&context.node.allocatable), kind)),
        "requests" => amount(resources.requests.as_ref(), kind),
        _ => return Err(unsupported()),
    };
    let divisor = wish.divisor.as_ref().and_then(|q| Amount::parse(&q.0));
    let divisor = divisor
        .filter(|d| *d > Amount::default())
        .unwrap_or(Amount::from_units(1));
    Ok(value.unwrap_or_default().divided_by(divisor).to_string())
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
