//! Every ClusterTrustBundle, watched from the first pod that needs one on.
//!
//! The Node authorizer lets a node list them all: which of them a signer's name and labels
//! select is decided here (kubernetes v1.37 pkg/kubelet/clustertrustbundle).

use super::watched::{Quick, one_line};
use super::{ObjectError, ObjectRef};
use crate::api::from_cache;
use futures::StreamExt as _;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt as _};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

/// How long a caller waits for the first list.
const PATIENCE: Duration = Duration::from_secs(10);

/// By name.
pub type TrustBundles = Arc<BTreeMap<String, Arc<ClusterTrustBundle>>>;

type State = Result<TrustBundles, String>;

pub struct Bundles {
    watches: kube::Client,
    changes: broadcast::Sender<ObjectRef>,
    started: OnceLock<Started>,
}

struct Started {
    state: watch::Receiver<State>,
    _task: AbortOnDropHandle<()>,
}

impl Bundles {
    pub fn new(watches: kube::Client, changes: broadcast::Sender<ObjectRef>) -> Self {
        Self {
            watches,
            changes,
            started: OnceLock::new(),
        }
    }

    /// All there are now.
    pub async fn all(&self) -> Result<TrustBundles, ObjectError> {
        let mut state = self.started.get_or_init(|| self.start()).state.clone();
        // In time or not: what there is by then is the answer.
        drop(tokio::time::timeout(PATIENCE, state.wait_for(Result::is_ok)).await);
        let found = state.borrow().clone();
        found.map_err(|reason| ObjectError::Unavailable {
            kind: "list of",
            namespace: "certificates.k8s.io".to_owned(),
            name: "clustertrustbundles".to_owned(),
            reason,
        })
    }

    fn start(&self) -> Started {
        let (publish, state) = watch::channel(Err("the API server does not answer".to_owned()));
        let api = Api::all(self.watches.clone());
        let task = tokio::spawn(follow(api, publish, self.changes.clone()));
        Started {
            state,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

async fn follow(
    api: Api<ClusterTrustBundle>,
    publish: watch::Sender<State>,
    changes: broadcast::Sender<ObjectRef>,
) {
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
            Ok(Event::InitApply(bundle)) => {
                insert(&mut listed, bundle);
                continue;
            }
            Ok(Event::InitDone) => known = std::mem::take(&mut listed),
            Ok(Event::Apply(bundle)) => insert(&mut known, bundle),
            Ok(Event::Delete(bundle)) => drop(known.remove(&bundle.name_any())),
            Err(error) => {
                note_failure(&publish, &error);
                continue;
            }
        }
        let first = publish.borrow().is_err();
        drop(publish.send_replace(Ok(Arc::new(known.clone()))));
        if !first {
            // Nobody listening is fine.
            let _ = changes.send(ObjectRef::TrustBundles);
        }
    }
}

fn insert(known: &mut BTreeMap<String, Arc<ClusterTrustBundle>>, mut bundle: ClusterTrustBundle) {
    bundle.metadata.managed_fields = None;
    known.insert(bundle.name_any(), Arc::new(bundle));
}

/// What was known stays good while the API server is away.
fn note_failure(publish: &watch::Sender<State>, error: &watcher::Error) {
    let reason = one_line(error);
    tracing::debug!(reason, "watch of clustertrustbundles");
    publish.send_if_modified(|state| {
        let unknown = state.is_err();
        if unknown {
            *state = Err(reason);
        }
        unknown
    });
}
