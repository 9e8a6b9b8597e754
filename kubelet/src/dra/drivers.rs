//! DRA drivers of this node, as they come and go.

use super::health::{self, Health};
use super::instance::{Instance, Service};
use super::slices::Slices;
use crate::metrics::Metrics;
use crate::plugin::{Announced, Handler};
use crate::proto::dra as api;
use crate::proto::podresources::NodeWatchResourcesResponse;
use crate::socket;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

/// kubernetes v1.37 pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go: a stream that ended is
/// opened again.
const HEALTH_RETRY: Duration = Duration::from_secs(5);
/// kubernetes v1.37 pkg/kubelet/cm/dra/plugin/dra_plugin.go `defaultClientCallTimeout`.
const CALL_TIMEOUT: Duration = Duration::from_secs(45);
/// kubernetes v1.37 pkg/kubelet/cm/dra/manager.go `defaultWipingDelay`: for so long a driver
/// may be away, to be updated, before its ResourceSlices go.
const WIPING_DELAY: Duration = Duration::from_secs(30);
/// google.golang.org/grpc backoff `DefaultConfig.BaseDelay`.
const RECONNECT: Duration = Duration::from_secs(1);

/// Devices of a driver, by pool and name.
pub type Changed = (String, BTreeSet<(String, String)>);

/// Ends when a connection does.
type Ended = oneshot::Receiver<Infallible>;

/// All that registered.
pub struct Drivers {
    /// By name, the newest instance last.
    all: Mutex<BTreeMap<String, Vec<Instance>>>,
    /// Those whose ResourceSlices go, or went, because they are away.
    wipes: Mutex<BTreeMap<String, AbortHandle>>,
    slices: Slices,
    health: Mutex<Health>,
    /// Where it is kept.
    health_file: Option<PathBuf>,
    /// Devices that changed health.
    changed: broadcast::Sender<Changed>,
    /// One is there that was not.
    arrived: watch::Sender<()>,
    metrics: Metrics,
}

impl Drivers {
    /// None yet. How their devices were is kept below `root` (`/var/lib/kubelet`).
    pub fn new(slices: Slices, metrics: Metrics, root: Option<&Path>) -> Arc<Drivers> {
        let health_file = root.map(|root| root.join(health::FILE));
        let health = health_file
            .as_deref()
            .map_or(Ok(Health::default()), Health::read);
        // Drivers will tell again.
        let health = health.unwrap_or_else(|error| {
            tracing::warn!(
                why = crate::join::report::chain(&error),
                "health of devices is unknown"
            );
            Health::default()
        });
        Arc::new(Drivers {
            all: Mutex::default(),
            wipes: Mutex::default(),
            slices,
            health: Mutex::new(health),
            health_file,
            changed: broadcast::channel(64).0,
            arrived: watch::channel(()).0,
            metrics,
        })
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Instance>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest that is connected; the newest if none is.
    fn instance(&self, name: &str) -> Result<Instance, String> {
        let all = self.all();
        let instances = all.get(name).map(Vec::as_slice).unwrap_or_default();
        let connected = instances.iter().rfind(|i| i.connected);
        let best = connected.or(instances.last()).cloned();
        best.ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    /// Whether a driver can be asked.
    ///
    /// # Errors
    /// When it is not registered.
    pub fn check(&self, name: &str) -> Result<(), String> {
        self.instance(name).map(drop)
    }

    /// Has a driver make claims ready: what became of each, by uid.
    ///
    /// # Errors
    /// When it is away, or fails altogether.
    pub async fn prepare(
        &self,
        name: &str,
        claims: Vec<api::Claim>,
    ) -> Result<BTreeMap<String, api::NodePrepareResourceResponse>, String> {
        let driver = self.instance(name)?;
        let call = driver.prepare(api::NodePrepareResourcesRequest { claims });
        let answer = self.timed(name, (&driver, "NodePrepareResources"), call);
        Ok(answer.await?.claims.into_iter().collect())
    }

    /// Has a driver take claims back.
    ///
    /// # Errors
    /// When it is away, or fails altogether.
    pub async fn unprepare(
        &self,
        name: &str,
        claims: Vec<api::Claim>,
    ) -> Result<BTreeMap<String, api::NodeUnprepareResourceResponse>, String> {
        let driver = self.instance(name)?;
        let call = driver.unprepare(api::NodeUnprepareResourcesRequest { claims });
        let answer = self.timed(name, (&driver, "NodeUnprepareResources"), call);
        Ok(answer.await?.claims.into_iter().collect())
    }

    async fn timed<T>(
        &self,
        name: &str,
        (driver, verb): (&Instance, &str),
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, String> {
        let began = Instant::now();
        let answer = match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
        };
        let code = answer.as_ref().err().map_or(tonic::Code::Ok, Status::code);
        let method = driver.service.method(verb);
        self.metrics.dra_called(name, method, code, began.elapsed());
        answer.map_err(|status| {
            let (code, why) = (status.code(), status.message());
            format!("{verb}: rpc error: code = {code:?} desc = {why}")
        })
    }

    /// How devices are.
    pub fn look<T>(&self, look: impl FnOnce(&Health) -> T) -> T {
        look(&self.health())
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, and keeps what is new.
    fn change<T>(&self, change: impl FnOnce(&mut Health) -> BTreeSet<T>) -> BTreeSet<T> {
        let mut health = self.health();
        let changed = change(&mut health);
        if let (Some(file), false) = (&self.health_file, changed.is_empty())
            && let Err(error) = health.write(file)
        {
            tracing::warn!(
                why = crate::join::report::chain(&error),
                "the next agent won't know"
            );
        }
        changed
    }

    /// Hears of devices that changed health.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changed.subscribe()
    }

    /// Hears of drivers that are there, when they were not before.
    pub fn arrivals(&self) -> watch::Receiver<()> {
        self.arrived.subscribe()
    }

    fn tell(&self, driver: &str, devices: BTreeSet<(String, String)>) {
        if !devices.is_empty() {
            // Nobody listens before the engine runs.
            let _ = self.changed.send((driver.to_owned(), devices));
        }
    }

    /// Follows what an instance says of its devices until it has gone.
    async fn follow_health(
        self: Arc<Self>,
        name: String,
        endpoint: PathBuf,
        gone: CancellationToken,
    ) {
        let of = |all: &Vec<Instance>| all.iter().find(|i| i.endpoint == endpoint).cloned();
        loop {
            let found = self.all().get(&name).and_then(of);
            let Some(instance) = found else { return };
            let heard = async {
                match instance.watch().await {
                    Ok(stream) => self.hear(&name, stream).await,
                    Err(status) => status,
                }
            };
            let why = tokio::select! {
                () = gone.cancelled() => Status::cancelled("the driver has gone"),
                why = heard => why,
            };
            let forgotten = self.change(|health| health.forget(&name));
            self.tell(&name, forgotten);
            if gone.is_cancelled() || why.code() == tonic::Code::Unimplemented {
                return;
            }
            tokio::select! {
                () = gone.cancelled() => return,
                () = tokio::time::sleep(HEALTH_RETRY) => {}
            }
        }
    }

    async fn hear(
        &self,
        name: &str,
        mut stream: tonic::Streaming<NodeWatchResourcesResponse>,
    ) -> Status {
        loop {
            match stream.message().await {
                Ok(Some(report)) => {
                    let now = jiff::Timestamp::now();
                    let changed = self.change(|health| health.take(name, report.devices, now));
                    self.tell(name, changed);
                }
                Ok(None) => return Status::ok("the stream ended"),
                Err(status) => return status,
            }
        }
    }

    /// Keeps an instance connected until it has gone.
    async fn hold(self: Arc<Self>, name: String, instance: Instance, mut ended: Ended) {
        let (endpoint, gone) = (instance.endpoint, instance.gone);
        loop {
            tokio::select! {
                () = gone.cancelled() => return,
                _ = &mut ended => self.connected(&name, &endpoint, None),
            }
            let (channel, again) = tokio::select! {
                () = gone.cancelled() => return,
                found = reconnect(&endpoint) => found,
            };
            ended = again;
            self.connected(&name, &endpoint, Some(channel));
        }
    }

    /// An instance is connected anew, or no more.
    fn connected(self: &Arc<Self>, name: &str, endpoint: &Path, channel: Option<Channel>) {
        tracing::info!(driver = name, connected = channel.is_some(), "DRA driver");
        let mut all = self.all();
        let mut instances = all.get_mut(name).into_iter().flatten();
        if let Some(instance) = instances.find(|i| i.endpoint == endpoint) {
            instance.connected = channel.is_some();
            instance.channel = channel.unwrap_or_else(|| instance.channel.clone());
        }
        drop(all);
        self.settle(name);
    }

    /// The ResourceSlices of a driver that stays away go; one that is back in time keeps them.
    fn settle(self: &Arc<Self>, name: &str) {
        let usable = |all: &Vec<Instance>| all.iter().any(|i| i.connected);
        let usable = self.all().get(name).is_some_and(usable);
        let mut wipes = self.wipes.lock().unwrap_or_else(PoisonError::into_inner);
        if usable {
            if let Some(wipe) = wipes.remove(name) {
                wipe.abort();
            }
            self.arrived.send_replace(());
        } else if !wipes.contains_key(name) {
            let wipe = tokio::spawn(self.clone().wipe_later(name.to_owned()));
            wipes.insert(name.to_owned(), wipe.abort_handle());
        }
    }

    async fn wipe_later(self: Arc<Self>, name: String) {
        tokio::time::sleep(WIPING_DELAY).await;
        self.slices.wipe(Some(&name)).await;
    }

    /// Removes all ResourceSlices that the node had under an earlier agent: drivers that are
    /// there publish them anew, and nobody waits on the node for those that are not.
    pub async fn wipe(&self) {
        self.slices.wipe(None).await;
    }
}

async fn reconnect(endpoint: &Path) -> (Channel, Ended) {
    loop {
        tokio::time::sleep(RECONNECT).await;
        if let Ok(found) = socket::connect_told(endpoint).await {
            return found;
        }
    }
}

/// Takes drivers that announce themselves.
pub struct Registrar(pub Arc<Drivers>);

#[async_trait::async_trait]
impl Handler for Registrar {
    fn kind(&self) -> &'static str {
        "DRAPlugin"
    }

    async fn register(&self, plugin: &Announced) -> Result<(), String> {
        let service = Service::chosen(&plugin.versions).ok_or_else(|| {
            format!(
                "invalid supported gRPC versions of DRA driver plugin {} at endpoint {}: none of \
                 services supported by the plugin ({:?}) are supported by the kubelet",
                plugin.name,
                plugin.endpoint.display(),
                plugin.versions
            )
        })?;
        let connected = socket::connect_told(&plugin.endpoint).await;
        let (channel, ended) = connected.map_err(|e| crate::join::report::chain(&e))?;
        let instance = Instance {
            endpoint: plugin.endpoint.clone(),
            service,
            health: super::instance::health(&plugin.versions),
            channel,
            connected: true,
            gone: CancellationToken::new(),
        };
        let (drivers, name) = (&self.0, plugin.name.clone());
        let watched = instance.health.is_some();
        remove(&mut drivers.all(), plugin);
        let mut all = drivers.all();
        all.entry(name.clone()).or_default().push(instance.clone());
        drop(all);
        drivers.settle(&name);
        if watched {
            let (endpoint, gone) = (plugin.endpoint.clone(), instance.gone.clone());
            tokio::spawn(drivers.clone().follow_health(name.clone(), endpoint, gone));
        }
        tokio::spawn(drivers.clone().hold(name, instance, ended));
        Ok(())
    }

    async fn deregister(&self, plugin: &Announced) {
        remove(&mut self.0.all(), plugin);
        self.0.settle(&plugin.name);
    }
}

fn remove(all: &mut BTreeMap<String, Vec<Instance>>, plugin: &Announced) {
    let Some(instances) = all.get_mut(&plugin.name) else {
        return;
    };
    for gone in instances.extract_if(.., |i| i.endpoint == plugin.endpoint) {
        gone.gone.cancel();
    }
    if instances.is_empty() {
        all.remove(&plugin.name);
    }
}
