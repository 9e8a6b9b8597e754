//! Mirror pods: how the API server sees static pods.
//! Rules: kubernetes v1.36 pkg/kubelet/pod/mirror_client.go.

use super::{CONFIG_HASH, CONFIG_MIRROR};
use crate::objects::one_line;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// After something failed, and as a safety net.
const RETRY: Duration = Duration::from_secs(5);

/// Namespace and name.
type Place = (String, String);

/// Keeps one mirror pod for each static pod. What happens to a mirror never
/// reaches the static pod.
pub struct Mirrors {
    client: Option<kube::Client>,
    node_name: String,
    state: Mutex<State>,
    changed: Notify,
    /// Told when a mirror was made that has no status yet.
    blank: Notify,
}

#[derive(Default)]
struct State {
    statics: HashMap<Place, Arc<Pod>>,
    mirrors: HashMap<Place, Mirror>,
    listed: HashSet<Place>,
    /// UIDs of mirrors whose static pods have been reported to them.
    reported: HashMap<Place, String>,
    /// Before the first list a mirror may be there that we don't know of.
    synced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    uid: String,
    /// `kubernetes.io/config.mirror`: the static pod's hash.
    hash: String,
    deleted: bool,
}

/// What brings the API server in line.
#[derive(Debug, PartialEq)]
enum Action {
    Create(Arc<Pod>),
    Delete(Place, String),
}

impl Mirrors {
    /// Over a client for writes; nothing happens before [`Mirrors::run`].
    #[must_use]
    pub fn new(writes: kube::Client, node_name: &str) -> Arc<Self> {
        Arc::new(Self {
            client: Some(writes),
            node_name: node_name.to_owned(),
            state: Mutex::default(),
            changed: Notify::new(),
            blank: Notify::new(),
        })
    }

    /// Without an API server.
    #[must_use]
    pub fn detached() -> Arc<Self> {
        Arc::new(Self {
            client: None,
            node_name: String::new(),
            state: Mutex::default(),
            changed: Notify::new(),
            blank: Notify::new(),
        })
    }

    /// UID of the mirror of a static pod, for whoever writes its status.
    #[must_use]
    pub fn uid_of(&self, static_pod: &Pod) -> Option<String> {
        let state = self.state();
        let mirror = state.mirrors.get(&place(static_pod))?;
        (!mirror.deleted && hash(static_pod) == Some(&mirror.hash)).then(|| mirror.uid.clone())
    }

    /// A static pod is wanted, new or changed.
    pub(super) fn wanted(&self, pod: &Arc<Pod>) {
        self.state().statics.insert(place(pod), pod.clone());
        self.changed.notify_one();
    }

    /// A static pod is no longer wanted.
    pub(super) fn unwanted(&self, pod: &Pod) {
        let mut state = self.state();
        let at = place(pod);
        // Another one of that name may have come meanwhile.
        if state.statics.get(&at).is_some_and(|p| p.uid() == pod.uid()) {
            state.statics.remove(&at);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn list_begins(&self) {
        self.state().listed.clear();
    }

    pub(super) fn list_ends(&self) {
        let mut state = self.state();
        let listed = std::mem::take(&mut state.listed);
        state.mirrors.retain(|at, _| listed.contains(at));
        state.synced = true;
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn seen(&self, mirror: &Pod) {
        let known = Mirror {
            uid: mirror.uid().unwrap_or_default(),
            hash: mirror
                .annotations()
                .get(CONFIG_MIRROR)
                .cloned()
                .unwrap_or_default(),
            deleted: mirror.metadata.deletion_timestamp.is_some(),
        };
        let mut state = self.state();
        state.listed.insert(place(mirror));
        let before = state.mirrors.insert(place(mirror), known.clone());
        drop(state);
        self.blank.notify_one();
        // Status writes of our own come back as events: they change nothing here.
        if before != Some(known) {
            self.changed.notify_one();
        }
    }

    pub(super) fn gone(&self, mirror: &Pod) {
        let mut state = self.state();
        let at = place(mirror);
        if state.mirrors.get(&at).map(|m| &m.uid) == mirror.metadata.uid.as_ref() {
            state.mirrors.remove(&at);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits for mirrors that are new, and answers with their static pods: their
    /// statuses are to be written once more.
    pub(super) async fn unreported(&self) -> Vec<Arc<Pod>> {
        loop {
            let found = self.state().unreported();
            if !found.is_empty() {
                return found;
            }
            self.blank.notified().await;
        }
    }

    /// Makes and removes mirrors until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let Some(client) = self.client.clone() else {
            return;
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
            let actions = self.state().actions();
            for action in actions {
                self.act(&client, action).await;
            }
        }
    }

    async fn act(&self, client: &kube::Client, action: Action) {
        let (what, result) = match &action {
            Action::Create(pod) => ("create", self.create(client, pod).await),
            Action::Delete((namespace, name), uid) => {
                let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
                ("delete", pods.delete(name, &at_once(uid)).await.map(|_| ()))
            }
        };
        match result {
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => {
                let (error, pod) = (one_line(&error), action.name());
                tracing::warn!(error, pod, "{what} a mirror pod; tried again in 5 s");
            }
            Ok(()) => {}
        }
    }

    async fn create(&self, client: &kube::Client, pod: &Pod) -> kube::Result<()> {
        let nodes: Api<Node> = Api::all(client.clone());
        let node = nodes.get(&self.node_name).await?;
        let namespace = pod.namespace().unwrap_or_default();
        let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let made = pods
            .create(&PostParams::default(), &mirror_of(pod, &node))
            .await?;
        self.seen(&made);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Action {
    fn name(&self) -> String {
        match self {
            Action::Create(pod) => pod.name_any(),
            Action::Delete((_, name), _) => name.clone(),
        }
    }
}

impl State {
    fn unreported(&mut self) -> Vec<Arc<Pod>> {
        let mut found = Vec::new();
        for (at, pod) in &self.statics {
            let mirror = self.mirrors.get(at).filter(|m| hash(pod) == Some(&m.hash));
            if let Some(mirror) = mirror
                && self.reported.get(at) != Some(&mirror.uid)
            {
                self.reported.insert(at.clone(), mirror.uid.clone());
                found.push(pod.clone());
            }
        }
        found
    }

    fn actions(&self) -> Vec<Action> {
        if !self.synced {
            return Vec::new();
        }
        let missing = self
            .statics
            .iter()
            .filter(|(at, _)| !self.mirrors.contains_key(*at));
        let creates = missing.map(|(_, pod)| Action::Create(pod.clone()));
        let over = self.mirrors.iter().filter(|(at, mirror)| {
            let of_this = self
                .statics
                .get(*at)
                .is_some_and(|pod| hash(pod) == Some(&mirror.hash));
            mirror.deleted || !of_this
        });
        let deletes = over.map(|(at, mirror)| Action::Delete(at.clone(), mirror.uid.clone()));
        deletes.chain(creates).collect()
    }
}

fn at_once(uid: &str) -> DeleteParams {
    DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

fn place(pod: &Pod) -> Place {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

fn hash(pod: &Pod) -> Option<&String> {
    pod.annotations().get(CONFIG_HASH)
}

fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let meta = &mut mirror.metadata;
    let hash = hash(pod).cloned().unwrap_or_default();
    meta.annotations
        .get_or_insert_default()
        .insert(CONFIG_MIRROR.to_owned(), hash);
    meta.uid = None;
    meta.resource_version = None;
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.name_any(),
        uid: node.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, annotation: &str, hash: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("kube-system".into());
        pod.metadata.name = Some("etcd-node".into());
        pod.metadata.uid = Some(uid.into());
        pod.metadata.annotations = Some([(annotation.to_owned(), hash.to_owned())].into());
        pod
    }

    fn actions(mirrors: &Mirrors) -> Vec<&'static str> {
        let word = |action: &Action| match action {
            Action::Create(_) => "create",
            Action::Delete(..) => "delete",
        };
        mirrors.state().actions().iter().map(word).collect()
    }

    #[test]
    fn a_mirror_is_made_kept_and_made_again_when_it_is_gone_or_of_another_hash() {
        let mirrors = Mirrors::detached();
        mirrors.wanted(&Arc::new(pod("h", CONFIG_HASH, "h")));
        assert!(
            actions(&mirrors).is_empty(),
            "nothing before the first list"
        );
        mirrors.list_begins();
        mirrors.list_ends();
        assert_eq!(actions(&mirrors), ["create"]);
        let mirror = pod("m", CONFIG_MIRROR, "h");
        mirrors.seen(&mirror);
        assert!(actions(&mirrors).is_empty());
        assert_eq!(
            mirrors.uid_of(&pod("h", CONFIG_HASH, "h")).as_deref(),
            Some("m")
        );
        mirrors.gone(&mirror);
        assert_eq!(actions(&mirrors), ["create"]);
        mirrors.seen(&pod("m", CONFIG_MIRROR, "old"));
        assert_eq!(actions(&mirrors), ["delete"]);
        assert_eq!(mirrors.uid_of(&pod("h", CONFIG_HASH, "h")), None);
    }

    #[test]
    fn a_static_pod_is_reported_once_to_each_of_its_mirrors() {
        let mirrors = Mirrors::detached();
        mirrors.wanted(&Arc::new(pod("h", CONFIG_HASH, "h")));
        let count = |uid: Option<&str>| {
            uid.iter()
                .for_each(|uid| mirrors.seen(&pod(uid, CONFIG_MIRROR, "h")));
            mirrors.state().unreported().len()
        };
        assert_eq!(count(None), 0);
        assert_eq!(
            (count(Some("m")), count(Some("m")), count(Some("n"))),
            (1, 0, 1)
        );
    }

    #[test]
    fn a_mirror_without_its_static_pod_is_removed() {
        let mirrors = Mirrors::detached();
        mirrors.list_begins();
        mirrors.seen(&pod("m", CONFIG_MIRROR, "h"));
        mirrors.list_ends();
        assert_eq!(actions(&mirrors), ["delete"]);
    }

    #[test]
    fn the_mirror_belongs_to_the_node_and_has_no_uid_of_its_own() {
        let mut node = Node::default();
        node.metadata.name = Some("node".into());
        node.metadata.uid = Some("n".into());
        let mirror = mirror_of(&pod("h", CONFIG_HASH, "h"), &node);
        assert_eq!(mirror.metadata.uid, None);
        assert_eq!(mirror.annotations()[CONFIG_MIRROR], "h");
        let owner = &mirror.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), owner.uid.as_str(), owner.controller),
            ("Node", "n", Some(true))
        );
    }
}
