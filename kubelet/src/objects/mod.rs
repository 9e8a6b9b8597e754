//! ConfigMaps, Secrets, ServiceAccount tokens and Services that pods refer to.
//!
//! One trait with two homes: the API server (a watch for each object that a pod
//! on this node refers to, as the Node authorizer allows) and a file (`play`).

mod api;
mod bundles;
mod certificates;
mod file;
mod pod_key;
mod references;
mod tokens;
mod watched;

pub use api::ApiObjects;
pub use bundles::TrustBundles;
pub use file::FileObjects;
pub use references::references;
pub(crate) use watched::{Quick, authorized, one_line};

use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// Which object, for change notices.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ObjectRef {
    ConfigMap {
        namespace: String,
        name: String,
    },
    Secret {
        namespace: String,
        name: String,
    },
    /// All ClusterTrustBundles: any of them may be one that a signer's name selects.
    TrustBundles,
}

impl ObjectRef {
    /// A ConfigMap.
    #[must_use]
    pub fn config_map(namespace: &str, name: &str) -> Self {
        Self::ConfigMap {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// A Secret.
    #[must_use]
    pub fn secret(namespace: &str, name: &str) -> Self {
        Self::Secret {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Namespace and name, empty for what has none.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        match self {
            Self::ConfigMap { namespace, name } | Self::Secret { namespace, name } => {
                (namespace, name)
            }
            Self::TrustBundles => ("", ""),
        }
    }
}

/// Why an object could not be had.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ObjectError {
    /// The text is the API server's, because users search for it:
    /// `configmap "x" not found`, `secret "x" not found`.
    #[error("{kind} {name:?} not found")]
    NotFound {
        kind: &'static str,
        namespace: String,
        name: String,
    },
    #[error("get {kind} {namespace}/{name}: {reason}")]
    Unavailable {
        kind: &'static str,
        namespace: String,
        name: String,
        reason: String,
    },
}

/// A token asked for on behalf of a pod (TokenRequest).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct TokenSpec {
    pub namespace: String,
    pub service_account: String,
    pub pod_name: String,
    pub pod_uid: String,
    pub audience: Option<String>,
    pub expiration_seconds: i64,
}

/// A token and its life.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Token {
    pub token: String,
    pub expires: jiff::Timestamp,
    /// When another one is to be asked for (80 % of its life, a day at most).
    pub renew_at: jiff::Timestamp,
}

/// A certificate asked for on behalf of a pod (PodCertificateRequest): one for each projection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct CertificateSpec {
    pub namespace: String,
    pub service_account: String,
    pub pod_name: String,
    pub pod_uid: String,
    /// The volume, and the place of the source in it.
    pub volume: String,
    pub index: usize,
    pub signer_name: String,
    pub key_type: String,
    pub max_expiration_seconds: Option<i32>,
    pub annotations: BTreeMap<String, String>,
}

/// A key and the chain of its certificate.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Credentials {
    pub key_pem: String,
    pub chain_pem: String,
    /// When others are to be asked for.
    pub renew_at: jiff::Timestamp,
    pub not_after: jiff::Timestamp,
}

/// What pods refer to.
#[async_trait::async_trait]
pub trait Objects: Send + Sync + 'static {
    /// Starts keeping everything this pod refers to. Idempotent; called again
    /// when the pod's spec changes.
    fn register(&self, pod: &Pod);
    /// Stops keeping what only this pod referred to.
    fn unregister(&self, pod_uid: &str);
    /// The current ConfigMap; waits for the first answer of a watch.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError>;
    /// The current Secret; waits for the first answer of a watch.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError>;
    /// A bound token, cached until it is due for renewal (80 % of its life).
    async fn token(&self, spec: &TokenSpec) -> Result<Token, ObjectError>;
    /// A key with its certificate, kept until they are due for renewal; waits a while for the
    /// signer.
    async fn certificate(&self, spec: &CertificateSpec) -> Result<Credentials, ObjectError>;
    /// Every ClusterTrustBundle, by name; waits for the first list.
    async fn trust_bundles(&self) -> Result<TrustBundles, ObjectError>;
    /// A PersistentVolumeClaim as it is now: asked for each time, as the Node authorizer allows no
    /// watch of it.
    async fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<PersistentVolumeClaim>, ObjectError> {
        Err(no_cluster("persistentvolumeclaim", namespace, name))
    }
    /// A PersistentVolume, as [`Objects::claim`].
    async fn persistent_volume(&self, name: &str) -> Result<Arc<PersistentVolume>, ObjectError> {
        Err(no_cluster("persistentvolume", "", name))
    }
    /// Every Service with a clusterIP; waits for the first list, but only for
    /// some seconds after the start, because static pods must start without an
    /// API server.
    async fn services(&self) -> Vec<Arc<Service>>;
    /// Changes of registered objects from now on (a lagging reader re-reads all).
    fn changes(&self) -> broadcast::Receiver<ObjectRef>;
}

fn no_cluster(kind: &'static str, namespace: &str, name: &str) -> ObjectError {
    ObjectError::Unavailable {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        reason: "it is an object of a cluster, and there is none".to_owned(),
    }
}
