//! Objects of a file: what `play` was given, and nothing else.

use super::{
    CertificateSpec, Credentials, ObjectError, ObjectRef, Objects, Token, TokenSpec, TrustBundles,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// [`Objects`] over the documents of a file; they never change.
pub struct FileObjects {
    config_maps: HashMap<ObjectRef, Arc<ConfigMap>>,
    secrets: HashMap<ObjectRef, Arc<Secret>>,
    changes: broadcast::Sender<ObjectRef>,
}

impl FileObjects {
    /// Each object under its own namespace (`default` if it names none).
    #[must_use]
    pub fn new(config_maps: Vec<ConfigMap>, secrets: Vec<Secret>) -> Arc<Self> {
        let place = |meta: &kube::core::ObjectMeta| {
            let namespace = meta
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned());
            (namespace, meta.name.clone().unwrap_or_default())
        };
        let config_maps = config_maps.into_iter().map(|object| {
            let (namespace, name) = place(&object.metadata);
            (ObjectRef::ConfigMap { namespace, name }, Arc::new(object))
        });
        let secrets = secrets.into_iter().map(|object| {
            let (namespace, name) = place(&object.metadata);
            (ObjectRef::Secret { namespace, name }, Arc::new(object))
        });
        Arc::new(Self {
            config_maps: config_maps.collect(),
            secrets: secrets.collect(),
            changes: broadcast::channel(1).0,
        })
    }
}

#[async_trait::async_trait]
impl Objects for FileObjects {
    fn register(&self, _: &Pod) {}

    fn unregister(&self, _: &str) {}

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        let found = self
            .config_maps
            .get(&ObjectRef::config_map(namespace, name));
        found
            .cloned()
            .ok_or_else(|| not_found("configmap", namespace, name))
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        let found = self.secrets.get(&ObjectRef::secret(namespace, name));
        found
            .cloned()
            .ok_or_else(|| not_found("secret", namespace, name))
    }

    async fn token(&self, spec: &TokenSpec) -> Result<Token, ObjectError> {
        Err(ObjectError::Unavailable {
            kind: "token of serviceaccount",
            namespace: spec.namespace.clone(),
            name: spec.service_account.clone(),
            reason: "tokens are issued by an API server, and there is none".to_owned(),
        })
    }

    async fn certificate(&self, spec: &CertificateSpec) -> Result<Credentials, ObjectError> {
        Err(ObjectError::Unavailable {
            kind: "certificate of pod",
            namespace: spec.namespace.clone(),
            name: spec.pod_name.clone(),
            reason: "certificates are issued by a cluster, and there is none".to_owned(),
        })
    }

    /// A file brings none.
    async fn trust_bundles(&self) -> Result<TrustBundles, ObjectError> {
        Ok(TrustBundles::default())
    }

    async fn services(&self) -> Vec<Arc<Service>> {
        Vec::new()
    }

    fn changes(&self) -> broadcast::Receiver<ObjectRef> {
        self.changes.subscribe()
    }
}

fn not_found(kind: &'static str, namespace: &str, name: &str) -> ObjectError {
    ObjectError::NotFound {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}
