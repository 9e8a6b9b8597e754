//! Which ConfigMaps, Secrets and trust bundles a pod refers to.

use super::ObjectRef;
use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EphemeralContainer, Pod, PodSpec, Volume, VolumeProjection,
};
use std::collections::BTreeSet;

/// Every ConfigMap and Secret that the pod names: imagePullSecrets, env,
/// envFrom, volumes.
#[must_use]
pub fn references(pod: &Pod) -> BTreeSet<ObjectRef> {
    let mut found = Found {
        namespace: pod.metadata.namespace.as_deref().unwrap_or("default"),
        refs: BTreeSet::new(),
    };
    if let Some(spec) = &pod.spec {
        found.of_spec(spec);
    }
    found.refs
}

struct Found<'a> {
    namespace: &'a str,
    refs: BTreeSet<ObjectRef>,
}

impl Found<'_> {
    fn of_spec(&mut self, spec: &PodSpec) {
        for secret in spec.image_pull_secrets.iter().flatten() {
            self.secret(&secret.name);
        }
        let containers = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers);
        for Container { env, env_from, .. } in containers {
            self.of_env(env.as_deref(), env_from.as_deref());
        }
        for EphemeralContainer { env, env_from, .. } in spec.ephemeral_containers.iter().flatten() {
            self.of_env(env.as_deref(), env_from.as_deref());
        }
        for volume in spec.volumes.iter().flatten() {
            self.of_volume(volume);
        }
    }

    fn of_env(&mut self, env: Option<&[EnvVar]>, env_from: Option<&[EnvFromSource]>) {
        for source in env
            .into_iter()
            .flatten()
            .filter_map(|e| e.value_from.as_ref())
        {
            if let Some(key) = &source.config_map_key_ref {
                self.config_map(&key.name);
            }
            if let Some(key) = &source.secret_key_ref {
                self.secret(&key.name);
            }
        }
        for source in env_from.into_iter().flatten() {
            if let Some(source) = &source.config_map_ref {
                self.config_map(&source.name);
            }
            if let Some(source) = &source.secret_ref {
                self.secret(&source.name);
            }
        }
    }

    fn of_volume(&mut self, volume: &Volume) {
        if let Some(source) = &volume.config_map {
            self.config_map(&source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|s| s.secret_name.as_ref()) {
            self.secret(name);
        }
        let projected = volume.projected.as_ref().and_then(|p| p.sources.as_ref());
        for VolumeProjection {
            config_map,
            secret,
            cluster_trust_bundle,
            ..
        } in projected.into_iter().flatten()
        {
            if cluster_trust_bundle.is_some() {
                self.refs.insert(ObjectRef::TrustBundles);
            }
            if let Some(source) = config_map {
                self.config_map(&source.name);
            }
            if let Some(source) = secret {
                self.secret(&source.name);
            }
        }
    }

    /// An empty name is a mistake that is reported where it is used.
    fn config_map(&mut self, name: &str) {
        if !name.is_empty() {
            self.refs
                .insert(ObjectRef::config_map(self.namespace, name));
        }
    }

    fn secret(&mut self, name: &str) {
        if !name.is_empty() {
            self.refs.insert(ObjectRef::secret(self.namespace, name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_can_name_an_object_is_looked_at() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "ns"},
            "spec": {
                "imagePullSecrets": [{"name": "pull"}],
                "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "c1"}}, {"secretRef": {"name": "s1"}}]}],
                "containers": [{"name": "a", "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}]}],
                "ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "s3"}}]}],
                "volumes": [
                    {"name": "v1", "configMap": {"name": "c3"}},
                    {"name": "v2", "secret": {"secretName": "s4"}},
                    {"name": "v3", "projected": {"sources": [{"configMap": {"name": "c4"}}, {"secret": {"name": "s5"}}, {"clusterTrustBundle": {"path": "p"}}]}}]
            }
        })).unwrap();
        let name = |r: ObjectRef| match r {
            ObjectRef::ConfigMap { name, .. } | ObjectRef::Secret { name, .. } => name,
            ObjectRef::TrustBundles => "bundles".to_owned(),
        };
        let names: BTreeSet<String> = references(&pod).into_iter().map(name).collect();
        let wanted = [
            "bundles", "c1", "c2", "c3", "c4", "pull", "s1", "s2", "s3", "s4", "s5",
        ];
        assert_eq!(names, wanted.map(str::to_owned).into());
    }
}
