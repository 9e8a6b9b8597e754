//! Objects of the API server: one watch for each ConfigMap and Secret that a
//! pod of this node refers to, shared by all pods that do.

use super::bundles::{Bundles, TrustBundles};
use super::certificates::Certificates;
use super::tokens::Tokens;
use super::watched::{Quick, Watchable, Watched, authorized, one_line};
use super::{
    CertificateSpec, Credentials, ObjectError, ObjectRef, Objects, Token, TokenSpec, references,
};
use crate::api::from_cache;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service,
};
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Event, watcher};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Changes that a slow reader may be behind before it re-reads all.
const CHANGES_KEPT: usize = 1024;

/// An agent that starts without its API server runs static pods all the same:
/// so long after its start they wait for the first list.
const SERVICES_PATIENCE: Duration = Duration::from_secs(5);

type Services = Arc<Vec<Arc<Service>>>;

/// [`Objects`] over an API server.
pub struct ApiObjects {
    watches: kube::Client,
    held: Mutex<Held>,
    writes: kube::Client,
    tokens: Tokens,
    bundles: Bundles,
    certificates: Certificates,
    changes: broadcast::Sender<ObjectRef>,
    services: watch::Receiver<Option<Services>>,
    services_by: Instant,
    _services_task: AbortOnDropHandle<()>,
}

/// What is watched, and for whom.
#[derive(Default)]
struct Held {
    pods: HashMap<String, BTreeSet<ObjectRef>>,
    config_maps: HashMap<ObjectRef, Arc<Watched<ConfigMap>>>,
    secrets: HashMap<ObjectRef, Arc<Watched<Secret>>>,
}

impl ApiObjects {
    /// Starts the watch of Services; the others start with the pods. To be
    /// called in a tokio runtime.
    #[must_use]
    pub fn new(watches: kube::Client, writes: kube::Client, node_name: &str) -> Arc<Self> {
        let (publish, services) = watch::channel(None);
        let task = tokio::spawn(follow_services(Api::all(watches.clone()), publish));
        let changes = broadcast::channel(CHANGES_KEPT).0;
        Arc::new(Self {
            bundles: Bundles::new(watches.clone(), changes.clone()),
            certificates: Certificates::new(watches.clone(), writes.clone(), node_name),
            watches,
            held: Mutex::default(),
            tokens: Tokens::new(writes.clone()),
            writes,
            changes,
            services,
            services_by: Instant::now() + SERVICES_PATIENCE,
            _services_task: AbortOnDropHandle::new(task),
        })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start<K: Watchable>(&self, object: &ObjectRef) -> Arc<Watched<K>> {
        let (namespace, name) = object.parts();
        let api = Api::namespaced(self.watches.clone(), namespace);
        let (changes, about) = (self.changes.clone(), object.clone());
        let changed = move || {
            // Nobody listening is fine.
            let _ = changes.send(about.clone());
        };
        Arc::new(Watched::start(api, name, changed))
    }

    fn hold(&self, held: &mut Held, object: &ObjectRef) {
        match object {
            ObjectRef::ConfigMap { .. } if !held.config_maps.contains_key(object) => {
                held.config_maps.insert(object.clone(), self.start(object));
            }
            ObjectRef::Secret { .. } if !held.secrets.contains_key(object) => {
                held.secrets.insert(object.clone(), self.start(object));
            }
            _ => {}
        }
    }

    /// The watch of an object, or one for this call alone.
    fn config_map_watch(&self, object: &ObjectRef) -> Arc<Watched<ConfigMap>> {
        let held = self.held().config_maps.get(object).cloned();
        held.unwrap_or_else(|| self.start(object))
    }

    fn secret_watch(&self, object: &ObjectRef) -> Arc<Watched<Secret>> {
        let held = self.held().secrets.get(object).cloned();
        held.unwrap_or_else(|| self.start(object))
    }
}

impl Held {
    /// Drops the watches that no pod needs any more.
    fn sweep(&mut self) {
        let wanted: BTreeSet<&ObjectRef> = self.pods.values().flatten().collect();
        self.config_maps.retain(|object, _| wanted.contains(object));
        self.secrets.retain(|object, _| wanted.contains(object));
    }
}

#[async_trait::async_trait]
impl Objects for ApiObjects {
    fn register(&self, pod: &Pod) {
        let Some(uid) = pod.metadata.uid.clone() else {
            return;
        };
        let refs = references(pod);
        let mut held = self.held();
        if held.pods.get(&uid) == Some(&refs) {
            return;
        }
        for object in &refs {
            self.hold(&mut held, object);
        }
        held.pods.insert(uid, refs);
        held.sweep();
    }

    fn unregister(&self, pod_uid: &str) {
        self.tokens.forget(pod_uid);
        self.certificates.forget(pod_uid);
        let mut held = self.held();
        if held
            .pods
            .remove(pod_uid)
            .is_some_and(|refs| !refs.is_empty())
        {
            held.sweep();
        }
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        let object = ObjectRef::config_map(namespace, name);
        let watched = self.config_map_watch(&object);
        answer::<ConfigMap>(&object, watched.get().await)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        let object = ObjectRef::secret(namespace, name);
        let watched = self.secret_watch(&object);
        answer::<Secret>(&object, watched.get().await)
    }

    async fn token(&self, spec: &TokenSpec) -> Result<Token, ObjectError> {
        self.tokens.get(spec).await
    }

    async fn certificate(&self, spec: &CertificateSpec) -> Result<Credentials, ObjectError> {
        self.certificates.get(spec).await
    }

    async fn trust_bundles(&self) -> Result<TrustBundles, ObjectError> {
        self.bundles.all().await
    }

    async fn claim(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<PersistentVolumeClaim>, ObjectError> {
        let api = Api::namespaced(self.writes.clone(), namespace);
        get(api, "persistentvolumeclaim", namespace, name).await
    }

    async fn persistent_volume(&self, name: &str) -> Result<Arc<PersistentVolume>, ObjectError> {
        get(Api::all(self.writes.clone()), "persistentvolume", "", name).await
    }

    async fn services(&self) -> Vec<Arc<Service>> {
        let mut services = self.services.clone();
        let listed = services.wait_for(Option::is_some);
        drop(tokio::time::timeout_at(self.services_by, listed).await);
        let list = self.services.borrow().clone();
        list.map(|list| list.to_vec()).unwrap_or_default()
    }

    fn changes(&self) -> broadcast::Receiver<ObjectRef> {
        self.changes.subscribe()
    }
}

/// Asks once, and again while the authorizer does not know the pod.
async fn get<K>(
    api: Api<K>,
    kind: &'static str,
    namespace: &str,
    name: &str,
) -> Result<Arc<K>, ObjectError>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    match authorized(|| api.get_opt(&name)).await {
        Ok(Some(found)) => Ok(Arc::new(found)),
        Ok(None) => Err(ObjectError::NotFound {
            kind,
            namespace,
            name,
        }),
        Err(error) => Err(ObjectError::Unavailable {
            kind,
            namespace,
            name,
            reason: one_line(&error),
        }),
    }
}

fn answer<K: Watchable>(
    object: &ObjectRef,
    got: Result<Option<Arc<K>>, String>,
) -> Result<Arc<K>, ObjectError> {
    let (namespace, name) = object.parts();
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let kind = K::KIND;
    match got {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(ObjectError::NotFound {
            kind,
            namespace,
            name,
        }),
        Err(reason) => Err(ObjectError::Unavailable {
            kind,
            namespace,
            name,
            reason,
        }),
    }
}

async fn follow_services(api: Api<Service>, publish: watch::Sender<Option<Services>>) {
    let config = from_cache();
    let mut events = watcher(api, config).backoff(Quick::default()).boxed();
    let mut known = BTreeMap::new();
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                listed = BTreeMap::new();
                continue;
            }
            Ok(Event::InitApply(service)) => {
                insert(&mut listed, service);
                continue;
            }
            Ok(Event::InitDone) => known = std::mem::take(&mut listed),
            Ok(Event::Apply(service)) => insert(&mut known, service),
            Ok(Event::Delete(service)) => {
                known.remove(&key(&service));
            }
            Err(error) => {
                tracing::debug!(%error, "watch of services");
                continue;
            }
        }
        publish.send_replace(Some(Arc::new(known.values().cloned().collect())));
    }
}

fn key(service: &Service) -> (Option<String>, Option<String>) {
    (
        service.metadata.namespace.clone(),
        service.metadata.name.clone(),
    )
}

/// Headless Services have no environment to give.
fn insert(
    known: &mut BTreeMap<(Option<String>, Option<String>), Arc<Service>>,
    mut service: Service,
) {
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref());
    let key = key(&service);
    if matches!(ip, None | Some("" | "None")) {
        known.remove(&key);
        return;
    }
    service.metadata.managed_fields = None;
    known.insert(key, Arc::new(service));
}
