//! The door of the room: mounts, keeps up to date, unmounts.

use super::csi::Csi;
use super::dns::{self, DnsSettings};
use super::error::VolumeReason;
use super::kind::Kind;
use super::payload::{self, Origin, Payload};
use super::persistent::Found;
use super::plan::{Place, Work};
use super::{MountError, MountRequest, PodVolumes, VolumeError, cleanup, mounts, nfs, refresh};
use crate::event::{EventType, Recorder};
use crate::metrics::StorageOperations;
use crate::objects::{ObjectRef, Objects};
use crate::panics::blocking;
use crate::pod::NodeLabels;
use cri_proto::v1;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, OwnedMutexGuard, watch};

/// What the room is told once.
#[derive(Debug, Clone)]
pub struct VolumesConfig {
    /// Usually /var/lib/kubelet.
    pub kubelet_root: PathBuf,
    /// The Node's name.
    pub node_name: String,
    /// `status.allocatable` of the Node: what a resourceFieldRef without a
    /// limit means, and the bound of a memory emptyDir.
    pub allocatable: BTreeMap<String, Quantity>,
    /// Of the Node as it is: local volumes belong to some nodes only.
    pub node_labels: Arc<dyn NodeLabels>,
    /// CSI drivers; `None` where there is no cluster to say what they are.
    pub csi: Option<Arc<Csi>>,
    /// DNS of pods.
    pub dns: DnsSettings,
    /// What is counted of them.
    pub operations: StorageOperations,
}

/// Volumes of every pod on this node.
pub struct Volumes {
    pub(super) config: VolumesConfig,
    pub(super) objects: Arc<dyn Objects>,
    recorder: Arc<dyn Recorder>,
    pods: Mutex<BTreeMap<String, Arc<Mounted>>>,
    /// Told when a token may be due earlier than any before.
    sooner: Arc<Notify>,
}

/// One pod's volumes.
pub(super) struct Mounted {
    /// Held while its folder is worked on, also by work whose caller has gone;
    /// false once the folder is gone.
    wanted: Arc<tokio::sync::Mutex<bool>>,
    /// Held while drivers work, which may take long: also by work whose caller has gone.
    driving: Arc<tokio::sync::Mutex<()>>,
    /// Whether it is being unmounted: what still mounts is not waited for.
    leaving: watch::Sender<bool>,
    seen: Mutex<Seen>,
}

/// The right to have drivers and servers work for a pod.
pub(super) struct Driving {
    _one: OwnedMutexGuard<()>,
    /// Whether the pod's volumes are being unmounted.
    pub leaving: watch::Receiver<bool>,
}

/// What of a pod decides when it is looked at again.
#[derive(Default, Clone)]
pub(super) struct Seen {
    pub pod: Arc<Pod>,
    pub refs: BTreeSet<ObjectRef>,
    pub renew_at: Option<jiff::Timestamp>,
    /// What stands behind claims and foreign sources.
    pub found: Found,
    /// Whether all of it was mounted once; until then the pod's worker tries.
    pub complete: bool,
}

impl Default for Mounted {
    fn default() -> Self {
        Self {
            wanted: Arc::new(tokio::sync::Mutex::new(true)),
            driving: Arc::default(),
            leaving: watch::Sender::new(false),
            seen: Mutex::default(),
        }
    }
}

impl Mounted {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn found(&self) -> (Arc<Pod>, Found) {
        let seen = self.seen();
        (seen.pod.clone(), seen.found.clone())
    }

    /// The same, and whether all of it is mounted.
    pub(super) fn all(&self) -> (Arc<Pod>, Found, bool) {
        let seen = self.seen();
        (seen.pod.clone(), seen.found.clone(), seen.complete)
    }

    pub(super) fn retry_at(&self, when: jiff::Timestamp) {
        self.seen().renew_at = Some(when);
    }
}

impl Volumes {
    /// Starts the task that keeps mounted volumes up to date; it ends when the
    /// last reference is gone. To be called in a tokio runtime.
    #[must_use]
    pub fn new(
        config: VolumesConfig,
        objects: Arc<dyn Objects>,
        recorder: Arc<dyn Recorder>,
    ) -> Arc<Self> {
        let changes = objects.changes();
        let sooner = Arc::new(Notify::new());
        let volumes = Arc::new(Self {
            config,
            objects,
            recorder,
            pods: Mutex::default(),
            sooner: sooner.clone(),
        });
        tokio::spawn(refresh::run(Arc::downgrade(&volumes), changes, sooner));
        if volumes.config.csi.is_some() {
            tokio::spawn(refresh::keep(Arc::downgrade(&volumes)));
        }
        volumes
    }

    /// Prepares every volume of the pod and keeps ConfigMaps, Secrets, tokens
    /// and downward fields in it up to date from then on. Called again with a
    /// changed pod it refreshes what depends on labels and annotations.
    /// Registers the pod with [`Objects`].
    ///
    /// # Errors
    /// The first volume that can't be had; what was prepared stays, and the
    /// next call goes on from there.
    pub async fn mount(&self, pod: &Arc<Pod>) -> Result<PodVolumes, VolumeError> {
        self.objects.register(pod);
        let found = self.find(pod).await?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let published = self.publish(self.drive(&uid).await, pod, &found).await?;
        let (mounted, wanted) = self.hold(&uid).await;
        mounted.seen().pod = pod.clone();
        let mut works = self.plan(&mounted, pod, |kind| !kind.is_foreign()).await?;
        works.extend(self.foreign(pod, &found));
        let mut prepared: PodVolumes = works
            .iter()
            .map(|(name, work)| (name.clone(), work.prepared()))
            .collect();
        drop(self.apply(wanted, works, Work::apply).await?);
        prepared.extend(published);
        mounted.seen().found = found;
        mounted.seen().complete = true;
        if mounted.seen().renew_at.is_some() {
            self.sooner.notify_one();
        }
        Ok(prepared)
    }

    /// Ends updates, unmounts and removes everything of the pod's folder, and
    /// unregisters the pod from [`Objects`]. Succeeds on what doesn't exist.
    /// Never removes anything below a mount.
    ///
    /// # Errors
    /// A mount that is busy, a file that can't be removed; call again later.
    pub async fn unmount(&self, pod_uid: &str) -> Result<(), VolumeError> {
        self.entry(pod_uid).leaving.send_replace(true);
        let (mounted, mut wanted) = self.hold(pod_uid).await;
        let seen = std::mem::take(&mut *mounted.seen());
        let dir = self.pod_dir(pod_uid);
        let _driving = mounted.driving.lock().await;
        let mut given_back = match &self.config.csi {
            Some(csi) => csi.tear_down(pod_uid, &self.config.operations).await,
            None => Ok(()),
        };
        if given_back.is_ok() {
            given_back = nfs::tear_down(&dir, &self.config.operations).await;
        }
        let operations = self.config.operations.clone();
        let clear = move || {
            let cleared = given_back.and_then(|()| cleanup::clear(&dir, &operations));
            (cleared, wanted)
        };
        let cleared = blocking(clear).await;
        wanted = cleared.1;
        if let Err(reason) = cleared.0 {
            *mounted.seen() = Seen {
                complete: false,
                ..seen
            };
            mounted.leaving.send_replace(false);
            return Err(of_volume("")(reason));
        }
        *wanted = false;
        self.pods().remove(pod_uid);
        self.objects.unregister(pod_uid);
        Ok(())
    }

    /// Every mount of one container: its volumeMounts, /etc/hosts, the
    /// termination log. Idempotent for one attempt.
    ///
    /// # Errors
    /// See [`MountError`]; all of them mean `CreateContainerConfigError`.
    pub async fn container_mounts(
        &self,
        request: MountRequest<'_>,
    ) -> Result<Vec<v1::Mount>, MountError> {
        let uid = request.pod.metadata.uid.as_deref().unwrap_or_default();
        let dir = self.pod_dir(uid);
        let domain = &self.config.dns.cluster_domain;
        if !request.looks_elsewhere() {
            // Few and short calls; a thread of their own would cost more.
            return mounts::of_container(&request, &dir, domain);
        }
        let (owned, domain) = (mounts::Owned::of(&request), domain.clone());
        blocking(move || mounts::of_container(&owned.request(), &dir, &domain)).await
    }

    /// The block devices that a container is to have.
    ///
    /// # Errors
    /// As [`Volumes::container_mounts`].
    pub fn container_devices(
        &self,
        container: &Container,
        volumes: &PodVolumes,
    ) -> Result<Vec<v1::Device>, MountError> {
        mounts::devices(container, volumes)
    }

    /// The host's file behind a container's terminationMessagePath.
    #[must_use]
    pub fn termination_log(&self, pod_uid: &str, container: &str, attempt: u32) -> PathBuf {
        mounts::termination_log(&self.pod_dir(pod_uid), container, attempt)
    }

    /// The pod's DNS configuration; what had to be left out becomes an Event.
    #[must_use]
    pub fn dns(&self, pod: &Pod) -> v1::DnsConfig {
        let text = std::fs::read_to_string(&self.config.dns.resolv_conf).unwrap_or_default();
        let (config, remarks) = dns::config(pod, &self.config.dns, &dns::parse(&text));
        let about = reference(pod);
        for remark in remarks {
            let dns::Remark { reason, message } = remark;
            self.recorder
                .record(&about, EventType::Warning, reason, &message);
        }
        config
    }

    pub(super) fn pod_dir(&self, pod_uid: &str) -> PathBuf {
        self.config.kubelet_root.join("pods").join(pod_uid)
    }

    pub(super) fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Mounted>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod's entry, and the right to work on its folder.
    async fn hold(&self, uid: &str) -> (Arc<Mounted>, OwnedMutexGuard<bool>) {
        loop {
            let mounted = self.entry(uid);
            let wanted = mounted.wanted.clone().lock_owned().await;
            // Unmounted while we waited: there is, or will be, another entry.
            if *wanted {
                return (mounted, wanted);
            }
        }
    }

    async fn drive(&self, uid: &str) -> Driving {
        let mounted = self.entry(uid);
        Driving {
            _one: mounted.driving.clone().lock_owned().await,
            leaving: mounted.leaving.subscribe(),
        }
    }

    fn entry(&self, uid: &str) -> Arc<Mounted> {
        self.pods().entry(uid.to_owned()).or_default().clone()
    }

    /// The works of those volumes whose kind passes the filter; notes what
    /// they depend on.
    async fn plan(
        &self,
        mounted: &Mounted,
        pod: &Arc<Pod>,
        filter: fn(Kind<'_>) -> bool,
    ) -> Result<Vec<(String, Work)>, VolumeError> {
        let chosen: Vec<&Volume> = of(pod).filter(|v| filter(Kind::of(v))).collect();
        let payloads = try_join_all(chosen.iter().map(|v| self.payload(pod, v))).await?;
        note(mounted, &payloads);
        let volumes_dir = self.volumes_dir(pod);
        let place = self.place(pod, &volumes_dir);
        let works = chosen.into_iter().zip(payloads).map(|(volume, payload)| {
            let work = place.work(volume, payload.map(|p| p.files));
            work.map(|w| (volume.name.clone(), w))
                .map_err(of_volume(&volume.name))
        });
        works.collect()
    }

    /// What is done here, not by a driver.
    fn foreign(&self, pod: &Pod, found: &Found) -> Vec<(String, Work)> {
        let volumes_dir = self.volumes_dir(pod);
        let place = self.place(pod, &volumes_dir);
        let works = found
            .iter()
            .map(|(name, persistent)| Some((name.clone(), place.foreign(persistent)?)));
        works.flatten().collect()
    }

    pub(super) fn volumes_dir(&self, pod: &Pod) -> PathBuf {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.pod_dir(uid).join("volumes")
    }

    pub(super) fn place<'a>(&'a self, pod: &'a Pod, volumes_dir: &'a Path) -> Place<'a> {
        Place {
            pod,
            volumes_dir,
            allocatable: &self.config.allocatable,
        }
    }

    async fn payload(&self, pod: &Pod, volume: &Volume) -> Result<Option<Payload>, VolumeError> {
        let origin = Origin {
            pod,
            objects: &self.objects,
            allocatable: &self.config.allocatable,
        };
        let built = payload::build(volume, origin).await;
        built.map_err(of_volume(&volume.name))
    }

    /// Earliest token renewal of all pods.
    pub(super) fn next_renewal(&self) -> Option<jiff::Timestamp> {
        let due = |m: &Arc<Mounted>| {
            let seen = m.seen();
            seen.renew_at.filter(|_| seen.complete)
        };
        self.pods().values().filter_map(due).min()
    }

    /// A pod with what stands behind its claims, once it is mounted.
    pub(super) fn found(&self, pod_uid: &str) -> Option<(Arc<Pod>, Found)> {
        self.pods().get(pod_uid).map(|m| m.found())
    }

    pub(super) fn mounted_where(&self, filter: impl Fn(&Seen) -> bool) -> Vec<Arc<Mounted>> {
        let pods = self.pods();
        pods.values()
            .filter(|m| filter(&m.seen()))
            .cloned()
            .collect()
    }

    /// Writes files again whose content changed.
    pub(super) async fn refresh(&self, mounted: &Mounted) -> Result<(), VolumeError> {
        let wanted = mounted.wanted.clone().lock_owned().await;
        if !*wanted {
            return Ok(());
        }
        let pod = mounted.seen().pod.clone();
        let works = self.plan(mounted, &pod, |kind| kind.has_files());
        let again = |work: &Work| match work.still_mounted()? {
            true => work.apply(),
            false => Ok(()),
        };
        self.apply(wanted, works.await?, again).await.map(drop)
    }

    /// Works one after the other, away from the async threads. Whoever waits may
    /// go: the folder stays held until the work is done.
    async fn apply(
        &self,
        held: OwnedMutexGuard<bool>,
        works: Vec<(String, Work)>,
        how: fn(&Work) -> Result<(), VolumeReason>,
    ) -> Result<OwnedMutexGuard<bool>, VolumeError> {
        if works.is_empty() {
            return Ok(held);
        }
        let operations = self.config.operations.clone();
        let all = move || {
            for (name, work) in &works {
                let start = Instant::now();
                let done = how(work);
                let done = operations.ended(&work.plugin(), work.operation(), start, done);
                done.map_err(of_volume(name))?;
            }
            Ok(held)
        };
        blocking(all).await
    }

    pub(super) fn complain(&self, mounted: &Mounted, error: &VolumeError) {
        let pod = mounted.seen().pod.clone();
        self.warn(&pod, error);
    }

    pub(super) fn warn(&self, pod: &Pod, error: &VolumeError) {
        let about = reference(pod);
        let message = error.to_string();
        self.recorder
            .record(&about, EventType::Warning, "FailedMount", &message);
    }
}

/// What the payloads depend on replaces what was known.
fn note(mounted: &Mounted, payloads: &[Option<Payload>]) {
    let mut seen = mounted.seen();
    let payloads = || payloads.iter().flatten();
    seen.refs = payloads().flat_map(|p| p.refs.iter().cloned()).collect();
    seen.renew_at = payloads().filter_map(|p| p.renew_at).min();
}

/// The pod's volumes that one of its containers uses; nothing is made of the others.
///
/// kubernetes v1.37 pkg/kubelet/volumemanager/populator.
pub(super) fn of(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let used = used(pod);
    let all = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    all.filter(move |v| used.contains(v.name.as_str()))
}

/// Names of what the pod's containers of all kinds mount or have as devices.
#[must_use]
pub fn used(pod: &Pod) -> BTreeSet<&str> {
    let spec = || pod.spec.iter();
    let plain = spec().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let extra = spec().flat_map(|s| s.ephemeral_containers.iter().flatten());
    let of_plain = plain.map(|c| (&c.volume_mounts, &c.volume_devices));
    let all = of_plain.chain(extra.map(|c| (&c.volume_mounts, &c.volume_devices)));
    let names = all.flat_map(|(mounts, devices)| {
        let mounts = mounts.iter().flatten().map(|m| m.name.as_str());
        mounts.chain(devices.iter().flatten().map(|d| d.name.as_str()))
    });
    names.collect()
}

pub(super) fn of_volume(name: &str) -> impl FnOnce(VolumeReason) -> VolumeError {
    move |reason| VolumeError {
        volume: name.to_owned(),
        reason,
    }
}

/// The pod as an event's subject.
fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}
