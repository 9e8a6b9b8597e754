//! Pods that the API server assigned to this node.

use super::{CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, Mirrors, PodUpdate, Source};
use crate::api::from_etcd;
use crate::objects::Quick;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::Event;
use kube::{Api, ResourceExt as _};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The watch of this node's pods.
pub struct ApiPods {
    pods: Api<Pod>,
    node_name: String,
    mirrors: Arc<Mirrors>,
}

impl ApiPods {
    /// Over a client for watches. Mirror pods go to `mirrors` and nowhere else.
    #[must_use]
    pub fn new(watches: kube::Client, node_name: &str, mirrors: Arc<Mirrors>) -> Self {
        Self {
            pods: Api::all(watches),
            node_name: node_name.to_owned(),
            mirrors,
        }
    }

    /// Tells `updates` of every pod until `shutdown` or until nobody listens.
    /// `Synced` is sent after each complete list; whatever was known and is not
    /// in it is removed.
    pub async fn run(self, updates: mpsc::Sender<PodUpdate>, shutdown: CancellationToken) {
        let only = format!("spec.nodeName={}", self.node_name);
        let mut events = from_etcd(self.pods, &only)
            .backoff(Quick::default())
            .boxed();
        let mut known = Known::default();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => event,
            };
            let said = match event {
                None => return,
                Some(Err(error)) => {
                    tracing::warn!(error = crate::objects::one_line(&error), "watch of pods");
                    continue;
                }
                Some(Ok(event)) => known.follow(event, &self.mirrors),
            };
            for update in said {
                if updates.send(update).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// UIDs that were sent, and since when they are known.
#[derive(Default)]
struct Known {
    seen: HashMap<String, String>,
    listed: HashSet<String>,
}

impl Known {
    fn follow(&mut self, event: Event<Pod>, mirrors: &Mirrors) -> Vec<PodUpdate> {
        match event {
            Event::Init => {
                self.listed.clear();
                mirrors.list_begins();
                Vec::new()
            }
            Event::InitApply(pod) => {
                self.listed.extend(pod.uid());
                self.apply(pod, mirrors).into_iter().collect()
            }
            Event::InitDone => {
                mirrors.list_ends();
                self.end_of_list()
            }
            Event::Apply(pod) => self.apply(pod, mirrors).into_iter().collect(),
            Event::Delete(pod) => self.delete(&pod, mirrors).into_iter().collect(),
        }
    }

    fn apply(&mut self, mut pod: Pod, mirrors: &Mirrors) -> Option<PodUpdate> {
        pod.metadata.managed_fields = None;
        if pod.annotations().contains_key(CONFIG_MIRROR) {
            mirrors.seen(&pod);
            return None;
        }
        let seen = self.seen.entry(pod.uid()?).or_insert_with(now);
        annotate(&mut pod, Source::Api, seen);
        Some(PodUpdate::Set(Source::Api, Arc::new(pod)))
    }

    fn delete(&mut self, pod: &Pod, mirrors: &Mirrors) -> Option<PodUpdate> {
        if pod.annotations().contains_key(CONFIG_MIRROR) {
            mirrors.gone(pod);
            return None;
        }
        let uid = pod.uid()?;
        self.seen.remove(&uid)?;
        Some(PodUpdate::Remove(Source::Api, uid))
    }

    fn end_of_list(&mut self) -> Vec<PodUpdate> {
        let listed = std::mem::take(&mut self.listed);
        let gone: Vec<String> = self
            .seen
            .keys()
            .filter(|u| !listed.contains(*u))
            .cloned()
            .collect();
        self.seen.retain(|uid, _| listed.contains(uid));
        let removed = gone
            .into_iter()
            .map(|uid| PodUpdate::Remove(Source::Api, uid));
        removed.chain([PodUpdate::Synced(Source::Api)]).collect()
    }
}

/// Downward volumes and env show these, as they do under every kubelet.
pub(super) fn annotate(pod: &mut Pod, source: Source, seen: &str) {
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_SOURCE.to_owned(), source.as_str().to_owned());
    annotations.insert(CONFIG_SEEN.to_owned(), seen.to_owned());
}

pub(super) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, uid: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.into());
        pod.metadata.uid = Some(uid.into());
        pod
    }

    fn text(updates: &[PodUpdate]) -> Vec<String> {
        let word = |update: &PodUpdate| match update {
            PodUpdate::Set(_, pod) => format!("set {}", pod.uid().unwrap_or_default()),
            PodUpdate::Remove(_, uid) => format!("remove {uid}"),
            PodUpdate::Synced(_) => "synced".to_owned(),
        };
        updates.iter().map(word).collect()
    }

    #[test]
    fn a_relist_removes_what_went_away_while_nobody_watched() {
        let mirrors = Mirrors::detached();
        let mut known = Known::default();
        let mut run = |events: Vec<Event<Pod>>| {
            let said = events.into_iter().flat_map(|e| known.follow(e, &mirrors));
            text(&said.collect::<Vec<_>>())
        };
        let first = vec![
            Event::Init,
            Event::InitApply(pod("a", "1")),
            Event::InitApply(pod("b", "2")),
            Event::InitDone,
        ];
        assert_eq!(run(first), ["set 1", "set 2", "synced"]);
        let again = vec![
            Event::Init,
            Event::InitApply(pod("a", "9")),
            Event::InitApply(pod("b", "2")),
            Event::InitDone,
        ];
        assert_eq!(
            run(again),
            ["set 9", "set 2", "remove 1", "synced"],
            "same name, other pod"
        );
        assert_eq!(run(vec![Event::Delete(pod("b", "2"))]), ["remove 2"]);
        assert_eq!(run(vec![Event::Delete(pod("b", "2"))]), [""; 0]);
    }

    #[test]
    fn the_first_sight_of_a_pod_is_kept_in_its_annotations() {
        let mirrors = Mirrors::detached();
        let mut known = Known::default();
        let mut seen = || match known.apply(pod("a", "1"), &mirrors) {
            Some(PodUpdate::Set(_, pod)) => pod.annotations().clone(),
            other => panic!("{other:?}"),
        };
        let first = seen();
        assert_eq!(first[CONFIG_SOURCE], "api");
        assert_eq!(seen()[CONFIG_SEEN], first[CONFIG_SEEN]);
    }

    #[test]
    fn mirror_pods_are_no_pods_of_this_source() {
        let mirrors = Mirrors::detached();
        let mut mirror = pod("etcd-node", "m");
        mirror.metadata.annotations = Some([(CONFIG_MIRROR.to_owned(), "h".to_owned())].into());
        let mut known = Known::default();
        assert!(
            known
                .follow(Event::Apply(mirror.clone()), &mirrors)
                .is_empty()
        );
        assert!(known.follow(Event::Delete(mirror), &mirrors).is_empty());
    }
}
