//! A pod's volumes from mount to unmount, over objects that change.

use super::disk::mountpoint;
use super::scratch::Scratch;
use super::*;
use crate::event::{EventType, Recorder};
use crate::objects::{
    CertificateSpec, Credentials, ObjectError, ObjectRef, Objects, Token, TokenSpec, TrustBundles,
};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Secret, Service};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, mpsc};

/// Objects that a test changes.
struct Changing {
    objects: Mutex<BTreeMap<ObjectRef, Value>>,
    changes: broadcast::Sender<ObjectRef>,
    tokens: AtomicU32,
    /// Life of a token as it is handed out.
    renew_in: SignedDuration,
}

impl Changing {
    fn new(renew_in: SignedDuration) -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            changes: broadcast::channel(16).0,
            tokens: AtomicU32::new(0),
            renew_in,
        })
    }

    fn set(&self, object: ObjectRef, value: Option<Value>) {
        let mut objects = self.objects.lock().unwrap();
        match value {
            Some(value) => objects.insert(object.clone(), value),
            None => objects.remove(&object),
        };
        drop(objects);
        let _ = self.changes.send(object);
    }

    fn get<T: serde::de::DeserializeOwned>(
        &self,
        kind: &'static str,
        object: &ObjectRef,
    ) -> Result<Arc<T>, ObjectError> {
        let (namespace, name) = object.parts();
        let found = self.objects.lock().unwrap().get(object).cloned();
        let value = found.ok_or(ObjectError::NotFound {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        })?;
        Ok(Arc::new(serde_json::from_value(value).unwrap()))
    }
}

#[async_trait::async_trait]
impl Objects for Changing {
    fn register(&self, _: &Pod) {}
    fn unregister(&self, _: &str) {}
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        self.get("configmap", &ObjectRef::config_map(namespace, name))
    }
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        self.get("secret", &ObjectRef::secret(namespace, name))
    }
    async fn token(&self, _: &TokenSpec) -> Result<Token, ObjectError> {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let now = jiff::Timestamp::now();
        Ok(Token {
            token: format!("token-{number}"),
            expires: now + SignedDuration::from_hours(1),
            renew_at: now + self.renew_in,
        })
    }
    async fn certificate(&self, _: &CertificateSpec) -> Result<Credentials, ObjectError> {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        let now = jiff::Timestamp::now();
        Ok(Credentials {
            key_pem: format!("key-{number}\n"),
            chain_pem: format!("chain-{number}\n"),
            not_after: now + SignedDuration::from_hours(1),
            renew_at: now + self.renew_in,
        })
    }
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

/// Hands events to the test.
struct Told(mpsc::UnboundedSender<String>);

impl Recorder for Told {
    fn record(&self, _: &ObjectReference, _: EventType, reason: &str, message: &str) {
        let _ = self.0.send(format!("{reason}: {message}"));
    }
}

struct Room {
    root: Scratch,
    objects: Arc<Changing>,
    volumes: Arc<Volumes>,
    events: mpsc::UnboundedReceiver<String>,
}

fn room(renew_in: SignedDuration) -> Room {
    let root = Scratch::new();
    let objects = Changing::new(renew_in);
    let (tell, events) = mpsc::unbounded_channel();
    let config = VolumesConfig {
        kubelet_root: root.0.clone(),
        node_name: "n".into(),
        allocatable: BTreeMap::new(),
        node_labels: Arc::new(BTreeMap::new()),
        csi: None,
        dns: dns::DnsSettings::default(),
        operations: Default::default(),
    };
    let volumes = Volumes::new(config, objects.clone(), Arc::new(Told(tell)));
    Room {
        root,
        objects,
        volumes,
        events,
    }
}

/// A container uses all of them but `idle`.
fn pod(volumes: Value) -> Arc<Pod> {
    let names = volumes.as_array().unwrap().iter().map(|v| &v["name"]);
    let mounts: Vec<Value> = names
        .filter(|name| *name != "idle")
        .map(|name| json!({"name": name, "mountPath": "/m"}))
        .collect();
    let pod = json!({
        "metadata": {"namespace": "ns", "name": "p", "uid": "u", "labels": {"a": "1"}},
        "spec": {
            "securityContext": {"fsGroup": 4242},
            "containers": [{"name": "c", "volumeMounts": [
                {"name": "config", "mountPath": "/config", "subPath": "k"},
                {"name": "scratch", "mountPath": "/scratch"}]},
                {"name": "all", "volumeMounts": mounts}],
            "volumes": volumes
        }
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn config_map() -> ObjectRef {
    ObjectRef::config_map("ns", "c")
}

/// A change is written in its own time; a test that never sees it hangs and
/// fails by the harness.
async fn eventually(path: &Path, wanted: &str) {
    while fs::read_to_string(path).unwrap_or_default() != wanted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: mounts tmpfs, binds subpaths, changes groups"]
async fn volumes_live_from_mount_over_changes_to_unmount() {
    let room = room(SignedDuration::from_hours(1));
    room.objects
        .set(config_map(), Some(json!({"data": {"k": "1"}})));
    room.objects.set(
        ObjectRef::secret("ns", "s"),
        Some(json!({"data": {"key": "c2VjcmV0"}})),
    );
    let pod = pod(json!([
        {"name": "config", "configMap": {"name": "c"}},
        {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "labels", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}, {"configMap": {"name": "c"}},
            {"secret": {"name": "none", "optional": true}}]}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "idle", "secret": {"secretName": "not there"}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}
    ]));
    let prepared = room.volumes.mount(&pod).await.unwrap();
    assert_eq!(
        room.volumes.mount(&pod).await.unwrap(),
        prepared,
        "idempotent"
    );
    let base = room.root.0.join("pods/u/volumes");
    let secret = base.join("kubernetes.io~secret/secret");
    assert!(!secret.with_file_name("idle").exists(), "nobody uses it");
    assert!(mountpoint::is_mounted(&secret).unwrap());
    let key = fs::metadata(secret.join("key")).unwrap();
    assert_eq!(
        (key.permissions().mode() & 0o7777, key.gid()),
        (0o440, 4242)
    );
    let token = fs::metadata(base.join("kubernetes.io~projected/all/token")).unwrap();
    assert_eq!(token.permissions().mode() & 0o7777, 0o640);
    let scratch = fs::metadata(base.join("kubernetes.io~empty-dir/scratch")).unwrap();
    assert_eq!(
        (scratch.permissions().mode() & 0o7777, scratch.gid()),
        (0o2777, 4242)
    );

    room.objects
        .set(config_map(), Some(json!({"data": {"k": "2"}})));
    eventually(&base.join("kubernetes.io~configmap/config/k"), "2").await;
    eventually(&base.join("kubernetes.io~projected/all/k"), "2").await;
    room.objects.set(
        ObjectRef::secret("ns", "none"),
        Some(json!({"data": {"late": "eA=="}})),
    );
    eventually(&base.join("kubernetes.io~projected/all/late"), "x").await;

    let mut relabelled = Pod::clone(&pod);
    relabelled.metadata.labels = Some([("a".to_owned(), "2".to_owned())].into());
    room.volumes.mount(&Arc::new(relabelled)).await.unwrap();
    eventually(
        &base.join("kubernetes.io~downward-api/labels/l"),
        "a=\"2\"\n",
    )
    .await;

    let spec = pod.spec.as_ref().unwrap();
    let facts = PodFacts {
        pod_ips: vec!["10.0.0.5".into()],
        ..PodFacts::default()
    };
    let request = MountRequest {
        pod: &pod,
        container: &spec.containers[0],
        attempt: 0,
        volumes: &prepared,
        env: &BTreeMap::new(),
        facts: &facts,
    };
    let mounts = room.volumes.container_mounts(request).await.unwrap();
    let paths: Vec<_> = mounts
        .iter()
        .map(|m| (m.container_path.as_str(), m.readonly))
        .collect();
    assert_eq!(
        paths,
        [
            ("/config", true),
            ("/scratch", false),
            ("/etc/hosts", false),
            ("/dev/termination-log", false)
        ]
    );
    assert_eq!(fs::read_to_string(&mounts[0].host_path).unwrap(), "2");
    let log = fs::metadata(&mounts[3].host_path).unwrap();
    assert_eq!(log.permissions().mode() & 0o777, 0o666);

    room.volumes.unmount("u").await.unwrap();
    room.volumes.unmount("u").await.unwrap();
    assert!(!room.root.0.join("pods/u").exists());
    room.objects
        .set(config_map(), Some(json!({"data": {"k": "3"}})));
    room.volumes.mount(&pod).await.unwrap();
    assert_eq!(
        room.volumes
            .orphans(&BTreeSet::from(["u".to_owned()]))
            .await,
        [""; 0]
    );
    room.volumes.unmount("u").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_fails_the_mount_and_a_later_one_mends_it() {
    let mut room = room(SignedDuration::from_hours(1));
    let pod = pod(json!([{"name": "config", "configMap": {"name": "c"}}]));
    let group = rustix::process::getegid().as_raw();
    let mut pod = Pod::clone(&pod);
    let spec = pod.spec.as_mut().unwrap();
    spec.security_context.as_mut().unwrap().fs_group = Some(group.into());
    let pod = Arc::new(pod);
    let refused = room.volumes.mount(&pod).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "MountVolume.SetUp failed for volume \"config\" : configmap \"c\" not found"
    );
    room.objects
        .set(config_map(), Some(json!({"data": {"k": "1"}})));
    room.volumes.mount(&pod).await.unwrap();
    let file = room
        .root
        .0
        .join("pods/u/volumes/kubernetes.io~configmap/config/k");
    assert_eq!(fs::read_to_string(&file).unwrap(), "1");
    room.objects.set(config_map(), None);
    let told = room.events.recv().await.unwrap();
    assert!(
        told.starts_with("FailedMount: MountVolume.SetUp failed"),
        "{told}"
    );
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "1",
        "what was there stays"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: mounts a tmpfs"]
async fn a_token_is_renewed_when_it_is_due() {
    let room = room(SignedDuration::from_millis(1));
    let pod = pod(
        json!([{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]),
    );
    room.volumes.mount(&pod).await.unwrap();
    let file = room
        .root
        .0
        .join("pods/u/volumes/kubernetes.io~projected/t/token");
    eventually(&file, "token-3").await;
    room.volumes.unmount("u").await.unwrap();
}
