//! The whole engine against a runtime of a few lines: who calls what, and when
//! the API hears of it.

use super::*;
use crate::event::{EventType, Recorder};
use crate::objects::{
    CertificateSpec, Credentials, ObjectError, ObjectRef, Objects, Token, TokenSpec, TrustBundles,
};
use crate::pod::{NodeFacts, Options};
use crate::status::StatusSink;
use crate::volume::dns::DnsSettings;
use crate::volume::{Volumes, VolumesConfig};
use cri_proto::{Cri, EventStream, Status};
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, PodStatus, Secret, Service};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::{Notify, broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

#[derive(Default)]
struct Inner {
    sandboxes: Vec<v1::PodSandboxStatus>,
    containers: Vec<(String, v1::ContainerStatus)>,
    calls: Vec<String>,
    images: Vec<String>,
}

/// Containers start at once and run until told otherwise.
struct FakeCri {
    inner: Mutex<Inner>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
    /// Pulls wait for this.
    pull: Notify,
    /// What panics, once.
    mistake: Mutex<Option<&'static str>>,
}

impl FakeCri {
    fn new() -> Arc<Self> {
        let inner = Inner {
            images: vec!["here:1".into()],
            ..Inner::default()
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            events: broadcast::channel(100).0,
            pull: Notify::new(),
            mistake: Mutex::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_mistake(&self, verb: &str) {
        let mut mistake = self.mistake.lock().unwrap_or_else(PoisonError::into_inner);
        let made = mistake.take_if(|m| *m == verb);
        drop(mistake);
        assert!(made.is_none(), "a mistake in {verb}");
    }

    fn calls(&self, verb: &str) -> usize {
        self.inner()
            .calls
            .iter()
            .filter(|c| c.starts_with(verb))
            .count()
    }

    fn exit(&self, name: &str, code: i32) {
        let mut inner = self.inner();
        let found = inner
            .containers
            .iter_mut()
            .rev()
            .find(|(_, c)| label(c) == name);
        let Some((sandbox, container)) = found else {
            return;
        };
        container.set_state(v1::ContainerState::ContainerExited);
        container.exit_code = code;
        container.finished_at = now();
        let (sandbox, id) = (sandbox.clone(), container.id.clone());
        let event = v1::ContainerEventResponse {
            container_id: id,
            container_event_type: v1::ContainerEventType::ContainerStoppedEvent.into(),
            created_at: now(),
            pod_sandbox_status: inner.sandboxes.iter().find(|s| s.id == sandbox).cloned(),
            containers_statuses: inner.of(&sandbox),
        };
        let _ = self.events.send(event);
    }
}

impl Inner {
    fn of(&self, sandbox: &str) -> Vec<v1::ContainerStatus> {
        let own = self.containers.iter().filter(|(s, _)| s == sandbox);
        own.map(|(_, c)| c.clone()).collect()
    }
}

fn label(container: &v1::ContainerStatus) -> &str {
    container
        .labels
        .get(labels::CONTAINER_NAME)
        .map_or("", String::as_str)
}

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(0)
}

#[async_trait::async_trait]
impl Cri for FakeCri {
    async fn version(&self, _: v1::VersionRequest) -> Result<v1::VersionResponse, Status> {
        Ok(v1::VersionResponse {
            runtime_name: "fake".into(),
            ..v1::VersionResponse::default()
        })
    }

    async fn run_pod_sandbox(
        &self,
        request: v1::RunPodSandboxRequest,
    ) -> Result<v1::RunPodSandboxResponse, Status> {
        let config = request.config.unwrap_or_default();
        let mut inner = self.inner();
        let id = format!("sandbox{}", inner.sandboxes.len());
        inner.calls.push(format!("run {id}"));
        inner.sandboxes.push(v1::PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata,
            created_at: now(),
            network: Some(v1::PodSandboxNetworkStatus {
                ip: "10.0.0.9".into(),
                additional_ips: Vec::new(),
            }),
            labels: config.labels,
            ..v1::PodSandboxStatus::default()
        });
        Ok(v1::RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: v1::StopPodSandboxRequest,
    ) -> Result<v1::StopPodSandboxResponse, Status> {
        let mut inner = self.inner();
        inner.calls.push(format!("stop {}", request.pod_sandbox_id));
        let found = inner
            .sandboxes
            .iter_mut()
            .find(|s| s.id == request.pod_sandbox_id);
        found
            .into_iter()
            .for_each(|s| s.set_state(v1::PodSandboxState::SandboxNotready));
        Ok(v1::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: v1::RemovePodSandboxRequest,
    ) -> Result<v1::RemovePodSandboxResponse, Status> {
        self.make_mistake("remove");
        let mut inner = self.inner();
        inner
            .calls
            .push(format!("remove {}", request.pod_sandbox_id));
        inner.sandboxes.retain(|s| s.id != request.pod_sandbox_id);
        inner
            .containers
            .retain(|(s, _)| *s != request.pod_sandbox_id);
        Ok(v1::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: v1::PodSandboxStatusRequest,
    ) -> Result<v1::PodSandboxStatusResponse, Status> {
        let inner = self.inner();
        let found = inner
            .sandboxes
            .iter()
            .find(|s| s.id == request.pod_sandbox_id);
        Ok(v1::PodSandboxStatusResponse {
            status: Some(found.cloned().ok_or_else(|| Status::not_found("sandbox"))?),
            ..v1::PodSandboxStatusResponse::default()
        })
    }

    async fn list_pod_sandbox(
        &self,
        _: v1::ListPodSandboxRequest,
    ) -> Result<v1::ListPodSandboxResponse, Status> {
        let of = |s: &v1::PodSandboxStatus| v1::PodSandbox {
            id: s.id.clone(),
            labels: s.labels.clone(),
            ..v1::PodSandbox::default()
        };
        let items = self.inner().sandboxes.iter().map(of).collect();
        Ok(v1::ListPodSandboxResponse { items })
    }

    async fn create_container(
        &self,
        request: v1::CreateContainerRequest,
    ) -> Result<v1::CreateContainerResponse, Status> {
        self.make_mistake("create");
        let config = request.config.unwrap_or_default();
        let mut inner = self.inner();
        let id = format!("container{}", inner.containers.len());
        inner.calls.push(format!("create {id}"));
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata,
            created_at: now(),
            image: config.image,
            labels: config.labels,
            annotations: config.annotations,
            ..v1::ContainerStatus::default()
        };
        inner.containers.push((request.pod_sandbox_id, status));
        Ok(v1::CreateContainerResponse { container_id: id })
    }

    async fn start_container(
        &self,
        request: v1::StartContainerRequest,
    ) -> Result<v1::StartContainerResponse, Status> {
        let mut inner = self.inner();
        inner.calls.push(format!("start {}", request.container_id));
        let mut all = inner.containers.iter_mut().map(|(_, c)| c);
        let found = all.find(|c| c.id == request.container_id);
        let found = found.ok_or_else(|| Status::not_found("container"))?;
        found.set_state(v1::ContainerState::ContainerRunning);
        found.started_at = now();
        Ok(v1::StartContainerResponse {})
    }

    async fn stop_container(
        &self,
        request: v1::StopContainerRequest,
    ) -> Result<v1::StopContainerResponse, Status> {
        let mut inner = self.inner();
        inner.calls.push(format!("kill {}", request.container_id));
        let mut all = inner.containers.iter_mut().map(|(_, c)| c);
        if let Some(found) = all.find(|c| c.id == request.container_id) {
            found.set_state(v1::ContainerState::ContainerExited);
            found.finished_at = now();
        }
        Ok(v1::StopContainerResponse {})
    }

    async fn container_status(
        &self,
        request: v1::ContainerStatusRequest,
    ) -> Result<v1::ContainerStatusResponse, Status> {
        let inner = self.inner();
        let found = inner
            .containers
            .iter()
            .find(|(_, c)| c.id == request.container_id);
        Ok(v1::ContainerStatusResponse {
            status: Some(
                found
                    .map(|(_, c)| c.clone())
                    .ok_or_else(|| Status::not_found("c"))?,
            ),
            ..v1::ContainerStatusResponse::default()
        })
    }

    async fn list_containers(
        &self,
        _: v1::ListContainersRequest,
    ) -> Result<v1::ListContainersResponse, Status> {
        let of = |(sandbox, c): &(String, v1::ContainerStatus)| v1::Container {
            id: c.id.clone(),
            pod_sandbox_id: sandbox.clone(),
            labels: c.labels.clone(),
            ..v1::Container::default()
        };
        let containers = self.inner().containers.iter().map(of).collect();
        Ok(v1::ListContainersResponse { containers })
    }

    async fn image_status(
        &self,
        request: v1::ImageStatusRequest,
    ) -> Result<v1::ImageStatusResponse, Status> {
        let name = request.image.unwrap_or_default().image;
        let known = self.inner().images.contains(&name);
        let image = known.then(|| v1::Image {
            id: name,
            ..v1::Image::default()
        });
        Ok(v1::ImageStatusResponse {
            image,
            ..v1::ImageStatusResponse::default()
        })
    }

    async fn pull_image(
        &self,
        request: v1::PullImageRequest,
    ) -> Result<v1::PullImageResponse, Status> {
        let name = request.image.unwrap_or_default().image;
        self.inner().calls.push(format!("pull {name}"));
        self.pull.notified().await;
        self.inner().images.push(name.clone());
        Ok(v1::PullImageResponse { image_ref: name })
    }

    async fn get_container_events(&self) -> Result<EventStream, Status> {
        let stream = BroadcastStream::new(self.events.subscribe());
        let stream = stream.filter_map(|e| async { e.ok().map(Ok) });
        Ok(stream.boxed())
    }
}

/// Has none; knows which pods want some.
#[derive(Default)]
struct NoObjects(Mutex<BTreeSet<String>>);

#[async_trait::async_trait]
impl Objects for NoObjects {
    fn register(&self, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid);
    }
    fn unregister(&self, uid: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
    async fn config_map(&self, ns: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        Err(missing("configmap", ns, name))
    }
    async fn secret(&self, ns: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        Err(missing("secret", ns, name))
    }
    async fn token(&self, spec: &TokenSpec) -> Result<Token, ObjectError> {
        Err(missing(
            "serviceaccount",
            &spec.namespace,
            &spec.service_account,
        ))
    }
    async fn certificate(&self, spec: &CertificateSpec) -> Result<Credentials, ObjectError> {
        Err(missing("certificate", &spec.namespace, &spec.pod_name))
    }
    async fn trust_bundles(&self) -> Result<TrustBundles, ObjectError> {
        Ok(TrustBundles::default())
    }
    async fn services(&self) -> Vec<Arc<Service>> {
        Vec::new()
    }
    fn changes(&self) -> broadcast::Receiver<ObjectRef> {
        broadcast::channel(1).1
    }
}

fn missing(kind: &'static str, namespace: &str, name: &str) -> ObjectError {
    ObjectError::NotFound {
        kind,
        namespace: namespace.into(),
        name: name.into(),
    }
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Recorder for Heard {
    fn record(&self, _: &ObjectReference, _: EventType, reason: &str, message: &str) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push(format!("{reason}: {message}"));
    }
}

struct Sink(watch::Sender<(Option<PodStatus>, bool)>);

impl StatusSink for Sink {
    fn publish(&self, _: &Arc<Pod>, status: PodStatus) {
        self.0.send_modify(|s| s.0 = Some(status));
    }
    fn finished(&self, _: &Arc<Pod>, status: PodStatus) {
        self.0.send_modify(|s| *s = (Some(status), true));
    }
}

struct World {
    engine: Arc<Engine>,
    updates: mpsc::Sender<PodUpdate>,
    status: watch::Receiver<(Option<PodStatus>, bool)>,
    heard: Arc<Heard>,
    objects: Arc<NoObjects>,
    shutdown: CancellationToken,
    root: PathBuf,
}

impl World {
    fn new(cri: &Arc<FakeCri>, test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("lighter-{test}-{}", std::process::id()));
        let heard = Arc::<Heard>::default();
        let objects = Arc::<NoObjects>::default();
        let config = VolumesConfig {
            kubelet_root: root.clone(),
            node_name: "n1".into(),
            allocatable: BTreeMap::new(),
            node_labels: Arc::new(BTreeMap::new()),
            csi: None,
            dns: DnsSettings::default(),
            operations: Default::default(),
        };
        let (sender, status) = watch::channel((None, false));
        let engine = Engine::new(Deps {
            cri: cri.clone(),
            volumes: Volumes::new(config, objects.clone(), heard.clone()),
            objects: objects.clone(),
            allocations: crate::allocation::Allocations::none(),
            events: heard.clone(),
            status: Arc::new(Sink(sender)),
            node: NodeFacts {
                pod_logs_root: root.join("logs"),
                kubelet_root: root.clone(),
                ..spec::testing::node()
            },
            options: Options {
                sources: vec![Source::Api],
                ..Options::default()
            },
            metrics: Default::default(),
        });
        let (updates, receiver) = mpsc::channel(10);
        let shutdown = CancellationToken::new();
        tokio::spawn(engine.clone().run(receiver, shutdown.clone()));
        Self {
            engine,
            updates,
            status,
            heard,
            objects,
            shutdown,
            root,
        }
    }

    async fn set(&self, pod: &Pod) {
        let _ = self
            .updates
            .send(PodUpdate::Set(Source::Api, Arc::new(pod.clone())))
            .await;
    }

    /// Waits until the published status is so.
    async fn until(&mut self, is: impl Fn(&PodStatus, bool) -> bool) -> PodStatus {
        let last = self.status.clone();
        let wait = self
            .status
            .wait_for(|(status, end)| status.as_ref().is_some_and(|s| is(s, *end)));
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(Ok(found)) => found.0.clone().unwrap_or_default(),
            Ok(Err(_)) | Err(_) => panic!("never: {:?}", last.borrow().0),
        }
    }

    fn heard(&self, reason: &str) -> usize {
        let heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().filter(|h| h.starts_with(reason)).count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn pod(image: &str) -> Pod {
    let container = json!({"name": "web", "image": image, "imagePullPolicy": "IfNotPresent"});
    from(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}
    }))
}

fn from(json: Value) -> Pod {
    serde_json::from_value(json).unwrap_or_default()
}

fn deleted(mut pod: Pod) -> Pod {
    let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now());
    pod.metadata.deletion_timestamp = Some(at);
    pod.metadata.deletion_grace_period_seconds = Some(1);
    pod
}

fn ready(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

fn restarts(status: &PodStatus) -> i32 {
    status
        .container_statuses
        .iter()
        .flatten()
        .map(|c| c.restart_count)
        .sum()
}

#[tokio::test]
async fn pod_is_run_reported_and_described() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "run");
    world.set(&pod("here:1")).await;
    let status = world.until(|s, _| ready(s)).await;
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.9"));
    let containers = status.container_statuses.unwrap_or_default();
    assert_eq!(
        containers[0].container_id.as_deref(),
        Some("fake://container0")
    );
    for reason in ["Pulled", "Created", "Started"] {
        assert_eq!(world.heard(reason), 1, "{reason}");
    }
}

#[tokio::test]
async fn exit_is_reported_and_the_container_restarted_when_an_event_says_so() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "exit");
    world.set(&pod("here:1")).await;
    world.until(|s, _| ready(s)).await;
    cri.exit("web", 3);
    let status = world.until(|s, _| ready(s) && restarts(s) == 1).await;
    let containers = status.container_statuses.unwrap_or_default();
    let last = containers[0].last_state.clone().and_then(|s| s.terminated);
    assert_eq!(
        last.map(|t| (t.exit_code, t.reason)),
        Some((3, Some("Error".into())))
    );
    let previous = world.engine.container_id("u", "web", true);
    assert_eq!(previous.as_deref(), Some("container0"));
}

#[tokio::test]
async fn deleted_pod_is_finished_once_nothing_is_left_in_the_runtime() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "delete");
    world.set(&pod("here:1")).await;
    world.until(|s, _| ready(s)).await;
    world.set(&deleted(pod("here:1"))).await;
    let status = world.until(|_, finished| finished).await;
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    assert_eq!((cri.calls("kill"), cri.calls("remove sandbox")), (1, 1));
    let _ = world
        .updates
        .send(PodUpdate::Remove(Source::Api, "u".into()))
        .await;
    while !world.engine.pods().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn effect_that_panics_is_told_and_tried_again() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "panic");
    let mistake = |verb| *cri.mistake.lock().unwrap_or_else(PoisonError::into_inner) = Some(verb);
    mistake("create");
    world.set(&pod("here:1")).await;
    let reason = |s: &PodStatus| {
        let container = s.container_statuses.iter().flatten().next()?;
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        waiting.message.clone()
    };
    let failed = world.until(|s, _| reason(s).is_some_and(|m| m.contains("panicked")));
    let told = reason(&failed.await);
    let want = "CreateContainer web panicked: a mistake in create";
    assert_eq!(told.as_deref(), Some(want));
    world.until(|s, _| ready(s)).await;
    let text = format!("FailedSync: error syncing pod, trying again: {want}");
    assert_eq!(world.heard(&text), 1);
    // Where failures are shown nowhere else, too.
    mistake("remove");
    world.set(&deleted(pod("here:1"))).await;
    world.until(|_, finished| finished).await;
    let text = "FailedSync: error syncing pod, trying again: RemoveSandbox panicked";
    assert_eq!((world.heard(text), cri.calls("remove sandbox")), (1, 1));
}

#[tokio::test]
async fn pull_that_hangs_does_not_hold_up_a_deletion() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "pull");
    world.set(&pod("far:1")).await;
    while cri.calls("pull") == 0 {
        tokio::task::yield_now().await;
    }
    world.set(&deleted(pod("far:1"))).await;
    let status = world.until(|_, finished| finished).await;
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}

#[tokio::test]
async fn next_agent_adopts_what_runs_and_never_loses_readiness() {
    let cri = FakeCri::new();
    let mut first = World::new(&cri, "adopt1");
    let mut object = pod("here:1");
    let containers = object.spec.get_or_insert_default();
    let probe = json!({"tcpSocket": {"port": 1}, "initialDelaySeconds": 3600});
    containers.containers[0].readiness_probe = serde_json::from_value(probe).ok();
    first.set(&object).await;
    let status = first
        .until(|s, _| s.phase.as_deref() == Some("Running"))
        .await;
    // As a probe would have found it.
    let mut status = status;
    status
        .container_statuses
        .iter_mut()
        .flatten()
        .for_each(|c| c.ready = true);
    object.status = Some(status);
    first.shutdown.cancel();
    let before = cri.inner().calls.len();
    let mut next = World::new(&cri, "adopt2");
    next.set(&object).await;
    next.until(|s, _| ready(s)).await;
    assert_eq!(cri.inner().calls.len(), before);
}

#[tokio::test]
async fn pod_that_nobody_wants_is_removed_after_every_source_has_spoken() {
    let cri = FakeCri::new();
    let mut first = World::new(&cri, "orphan1");
    first.set(&pod("here:1")).await;
    first.until(|s, _| ready(s)).await;
    first.shutdown.cancel();
    let next = World::new(&cri, "orphan2");
    let _ = next.updates.send(PodUpdate::Synced(Source::Api)).await;
    let gone = async {
        while cri.calls("remove sandbox") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn completed_pod_leaves_nothing_when_its_object_vanishes_at_once() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "vanish");
    let mut object = pod("here:1");
    object.spec.get_or_insert_default().restart_policy = Some("Never".into());
    world.set(&object).await;
    world.until(|s, _| ready(s)).await;
    cri.exit("web", 0);
    world
        .until(|s, _| s.phase.as_deref() == Some("Succeeded"))
        .await;
    let _ = world
        .updates
        .send(PodUpdate::Remove(Source::Api, "u".into()))
        .await;
    let gone = async {
        while cri.calls("remove sandbox") == 0 || !world.engine.pods().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), gone).await;
    assert!(gone.is_ok());
}

#[tokio::test]
async fn changed_static_pod_waits_for_the_end_of_its_old_version() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "static");
    let version = |uid: &str| {
        let mut object = pod("here:1");
        object.metadata.uid = Some(uid.into());
        let annotation = ("kubernetes.io/config.source".to_owned(), "file".to_owned());
        object.metadata.annotations = Some([annotation].into());
        let ports = json!([{"containerPort": 80, "hostPort": 8080}]);
        let spec = object.spec.get_or_insert_default();
        spec.containers[0].ports = serde_json::from_value(ports).ok();
        Arc::new(object)
    };
    for update in [
        PodUpdate::Set(Source::File, version("one")),
        PodUpdate::Set(Source::File, version("two")),
    ] {
        let _ = world.updates.send(update).await;
    }
    world.until(|s, _| ready(s)).await;
    assert_eq!(cri.calls("run"), 1);
    let _ = world
        .updates
        .send(PodUpdate::Remove(Source::File, "one".into()))
        .await;
    let next = async {
        while world.engine.container_id("two", "web", false).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let next = tokio::time::timeout(Duration::from_secs(20), next).await;
    assert!(next.is_ok());
    assert_eq!((cri.calls("run"), cri.calls("remove sandbox")), (2, 1));
}

#[tokio::test]
async fn pod_that_comes_back_is_started_anew_after_its_end() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "back");
    world.set(&pod("here:1")).await;
    world.until(|s, _| ready(s)).await;
    let _ = world
        .updates
        .send(PodUpdate::Remove(Source::Api, "u".into()))
        .await;
    world.set(&pod("here:1")).await;
    let again = async {
        while cri.calls("run") < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let again = tokio::time::timeout(Duration::from_secs(20), again).await;
    assert!(again.is_ok());
    assert_eq!(cri.calls("remove sandbox"), 1);
}

#[tokio::test]
async fn ended_pod_needs_no_objects_however_often_it_changes() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "ended");
    let mut object = pod("here:1");
    object.spec.get_or_insert_default().restart_policy = Some("Never".into());
    world.set(&object).await;
    world.until(|s, _| ready(s)).await;
    let registered = |world: &World| {
        let pods = world.objects.0.lock();
        pods.unwrap_or_else(PoisonError::into_inner).len()
    };
    assert_eq!(registered(&world), 1);
    cri.exit("web", 0);
    world
        .until(|s, _| s.phase.as_deref() == Some("Succeeded"))
        .await;
    let given_back = async {
        while registered(&world) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(Duration::from_secs(20), given_back)
            .await
            .is_ok()
    );
    object.metadata.generation = Some(2);
    world.set(&deleted(object)).await;
    world.until(|_, finished| finished).await;
    assert_eq!(registered(&world), 0);
}

#[tokio::test]
async fn second_pod_with_the_same_host_port_is_rejected() {
    let cri = FakeCri::new();
    let mut world = World::new(&cri, "ports");
    let with_port = |name: &str| {
        let mut object = pod("here:1");
        object.metadata.name = Some(name.into());
        object.metadata.uid = Some(name.into());
        let ports = json!([{"containerPort": 80, "hostPort": 8080}]);
        let spec = object.spec.get_or_insert_default();
        spec.containers[0].ports = serde_json::from_value(ports).ok();
        object
    };
    world.set(&with_port("a")).await;
    world.set(&with_port("b")).await;
    let status = world.until(|s, _| s.reason.is_some()).await;
    assert_eq!(status.reason.as_deref(), Some("NodePorts"));
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}
