//! The plugins of a node and what they gave away.

use super::checkpoint;
use super::given::Given;
use super::inventory::{AllocateError, Allocation, Ids, Inventory, Place, Request};
use super::plugin::Plugin;
use super::registration::Registrar;
use crate::pod::lifecycle::restartable_init;
use crate::proto::deviceplugin as api;
use crate::proto::deviceplugin::registration_server::RegistrationServer;
use crate::quantity::Amount;
use crate::socket;
use crate::topology::{Hints, NodeMask};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceHealth, ResourceStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The socket that plugins announce themselves on, below `device-plugins`.
const SOCKET: &str = "kubelet.sock";

/// Device plugins of one node.
pub struct Devices {
    dir: PathBuf,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Pods whose devices changed health.
    unwell: tokio::sync::broadcast::Sender<BTreeSet<String>>,
}

#[derive(Default)]
struct State {
    inventory: Inventory,
    /// By resource; the newest counts.
    plugins: BTreeMap<String, Vec<Connection>>,
    serial: u64,
}

struct Connection {
    serial: u64,
    plugin: Plugin,
    devices: Vec<api::Device>,
}

/// A container that wants devices.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The pod's uid.
    pub pod: &'a str,
    /// The container.
    pub container: &'a Container,
    /// Where devices had better be.
    pub affinity: Option<NodeMask>,
}

impl Devices {
    /// With what an earlier agent wrote down in `<root>/device-plugins`.
    pub fn new(root: &Path) -> Arc<Devices> {
        let dir = root.join("device-plugins");
        let path = dir.join(checkpoint::FILE);
        let inventory = checkpoint::read(&path, Instant::now()).unwrap_or_else(|error| {
            tracing::warn!(path = %path.display(), %error, "devices given before are not known");
            Inventory::default()
        });
        Devices::made_of(dir, inventory)
    }

    /// None, and none will come.
    pub fn none() -> Arc<Devices> {
        Devices::made_of(PathBuf::new(), Inventory::default())
    }

    fn made_of(dir: PathBuf, inventory: Inventory) -> Arc<Devices> {
        Arc::new(Devices {
            dir,
            state: Mutex::new(State {
                inventory,
                ..State::default()
            }),
            changed: watch::channel(()).0,
            unwell: tokio::sync::broadcast::channel(64).0,
        })
    }

    /// Listens for plugins until `shutdown`.
    pub async fn serve(self: Arc<Self>, shutdown: CancellationToken) {
        self.remove_sockets();
        let path = self.dir.join(SOCKET);
        let listener = match socket::bind(&path, 0o750) {
            Ok(listener) => listener,
            Err(error) => {
                let why = crate::join::report::chain(&error);
                tracing::warn!(why, "no device plugin can register");
                return;
            }
        };
        let registrar = Registrar {
            dir: self.dir.clone(),
            devices: self,
        };
        let served = tonic::transport::Server::builder()
            .add_service(RegistrationServer::new(registrar))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown.cancelled());
        if let Err(error) = served.await {
            let why = crate::join::report::chain(&error);
            tracing::warn!(why, "registration of device plugins ended");
        }
    }

    /// Plugins see by it that the agent was started anew, and register again.
    fn remove_sockets(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_socket()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of every change of [`Devices::capacity`].
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Hears of pods whose devices changed health.
    pub fn unwell(&self) -> tokio::sync::broadcast::Receiver<BTreeSet<String>> {
        self.unwell.subscribe()
    }

    /// Connects to a plugin and follows its list of devices.
    pub(super) async fn connect(
        self: &Arc<Self>,
        resource: &str,
        socket: &Path,
    ) -> Result<(), Status> {
        let plugin = Plugin::connect(socket).await?;
        let serial = {
            let mut state = self.state();
            state.serial += 1;
            let connection = Connection {
                serial: state.serial,
                plugin: plugin.clone(),
                devices: Vec::new(),
            };
            let all = state.plugins.entry(resource.to_owned()).or_default();
            all.retain(|c| c.plugin.socket != socket);
            all.push(connection);
            state.serial
        };
        tracing::info!(resource, socket = %socket.display(), "device plugin registered");
        let (devices, resource) = (self.clone(), resource.to_owned());
        tokio::spawn(async move { devices.follow(resource, plugin, serial).await });
        Ok(())
    }

    async fn follow(self: Arc<Self>, resource: String, plugin: Plugin, serial: u64) {
        let why = match plugin.list_and_watch().await {
            Ok(mut lists) => loop {
                match lists.message().await {
                    Ok(Some(list)) => self.list(&resource, serial, list.devices),
                    Ok(None) => break "it ended the list".to_owned(),
                    Err(status) => break status.message().to_owned(),
                }
            },
            Err(status) => status.message().to_owned(),
        };
        tracing::info!(resource, why, "device plugin gone");
        self.disconnect(&resource, serial);
    }

    fn list(&self, resource: &str, serial: u64, devices: Vec<api::Device>) {
        let mut state = self.state();
        let connections = state.plugins.entry(resource.to_owned()).or_default();
        let newest = connections.last().is_some_and(|c| c.serial == serial);
        if let Some(own) = connections.iter_mut().find(|c| c.serial == serial) {
            own.devices.clone_from(&devices);
        }
        if newest {
            let pods = state.inventory.list(resource, &devices);
            self.save(&state.inventory);
            drop(state);
            self.tell(pods);
        }
    }

    /// The plugin that was there before it, if one still is, takes over.
    fn disconnect(&self, resource: &str, serial: u64) {
        let mut state = self.state();
        let connections = state.plugins.entry(resource.to_owned()).or_default();
        let newest = connections.last().is_some_and(|c| c.serial == serial);
        connections.retain(|c| c.serial != serial);
        if !newest {
            return;
        }
        let pods = match connections.last().map(|c| c.devices.clone()) {
            Some(devices) => state.inventory.list(resource, &devices),
            None => {
                state.inventory.lose(resource, Instant::now());
                BTreeSet::new()
            }
        };
        drop(state);
        self.tell(pods);
    }

    fn tell(&self, pods: BTreeSet<String>) {
        self.changed.send_replace(());
        if !pods.is_empty() {
            // Nobody listens before the engine runs.
            let _ = self.unwell.send(pods);
        }
    }

    fn save(&self, inventory: &Inventory) {
        let path = self.dir.join(checkpoint::FILE);
        if let Err(error) = checkpoint::write(&path, inventory) {
            tracing::warn!(path = %path.display(), %error, "devices given are not written down");
        }
    }

    /// Capacity and allocatable of every resource that a plugin offers or offered.
    pub fn capacity(&self) -> Vec<(String, Quantity, Quantity)> {
        let now = Instant::now();
        let state = self.state();
        let all = state.inventory.resources.iter();
        all.map(|(name, resource)| {
            let (capacity, allocatable) = resource.counts(now);
            let quantity = |n: usize| Quantity(n.to_string());
            (name.clone(), quantity(capacity), quantity(allocatable))
        })
        .collect()
    }

    /// What a container asks of plugins: how many of which resource.
    pub fn asked(&self, container: &Container) -> Vec<(String, usize)> {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        let state = self.state();
        let of = |(name, quantity): (&String, &Quantity)| {
            let count = usize::try_from(Amount::from(quantity).units()).ok()?;
            (count > 0 && state.inventory.knows(name)).then(|| (name.clone(), count))
        };
        limits.into_iter().flatten().filter_map(of).collect()
    }

    /// Gives a container its devices; `reusable` are those of the pod's init
    /// containers, by resource. One call at a time.
    ///
    /// # Errors
    /// When there are too few, or the plugin says no.
    pub async fn allocate(
        &self,
        wanted: &Wanted<'_>,
        reusable: &BTreeMap<String, Ids>,
    ) -> Result<(), AllocateError> {
        for (resource, count) in self.asked(wanted.container) {
            let none = Ids::new();
            let request = Request {
                resource: &resource,
                count,
                reusable: reusable.get(&resource).unwrap_or(&none),
                affinity: wanted.affinity,
            };
            self.allocate_one(wanted, request).await?;
        }
        Ok(())
    }

    async fn allocate_one(
        &self,
        wanted: &Wanted<'_>,
        request: Request<'_>,
    ) -> Result<(), AllocateError> {
        let resource = request.resource;
        let place = Place {
            pod: wanted.pod.to_owned(),
            container: wanted.container.name.clone(),
            resource: resource.to_owned(),
        };
        let (choice, plugin) = {
            let state = self.state();
            if state.inventory.allocations.contains_key(&place) {
                // From before the machine was started anew.
                return state.inventory.check(&place);
            }
            (state.inventory.choose(request)?, state.plugin(resource)?)
        };
        let preferred = match choice.question() {
            Some(question) => plugin.prefer(question).await?,
            None => Vec::new(),
        };
        let ids = choice.settle(&preferred);
        let answer = plugin.allocate(resource, &ids).await?;
        tracing::debug!(
            pod = wanted.pod,
            container = place.container,
            resource,
            ?ids,
            "devices given"
        );
        let mut state = self.state();
        let nodes = state.inventory.nodes(resource, &ids);
        let allocation = Allocation { ids, nodes, answer };
        state.inventory.allocations.insert(place, allocation);
        self.save(&state.inventory);
        Ok(())
    }

    /// What a container has, by resource.
    pub fn of(&self, pod: &str, container: &str) -> BTreeMap<String, Allocation> {
        let state = self.state();
        let own = state.inventory.of(pod, container);
        own.map(|(name, a)| (name.to_owned(), a.clone())).collect()
    }

    /// Lets plugins make a container's devices ready, and says what it needs for them.
    ///
    /// # Errors
    /// When a plugin that wants to be asked says no.
    pub async fn given(&self, pod: &str, container: &str) -> Result<Given, Status> {
        let mut given = Given::default();
        for (resource, allocation) in self.of(pod, container) {
            let plugin = self.state().plugin(&resource);
            if let Ok(plugin) = plugin {
                let ready = plugin.pre_start(&allocation.ids).await;
                ready.map_err(|status| {
                    let (code, why) = (status.code(), status.message());
                    Status::aborted(format!(
                        "device plugin PreStartContainer rpc failed with err: rpc error: code = {code:?} desc = {why}"
                    ))
                })?;
            }
            given.add(&allocation.answer);
        }
        Ok(given)
    }

    /// Takes back what these pods do not have, by uid.
    pub fn release(&self, keep: impl Fn(&str) -> bool) {
        let mut state = self.state();
        let before = state.inventory.allocations.len();
        state
            .inventory
            .allocations
            .retain(|place, _| keep(&place.pod));
        if state.inventory.allocations.len() != before {
            self.save(&state.inventory);
        }
    }

    /// `allocatedResourcesStatus` of a container.
    pub fn health(&self, pod: &str, container: &str) -> Vec<ResourceStatus> {
        let state = self.state();
        let of = |(name, allocation): (&str, &Allocation)| {
            let known = state.inventory.resources.get(name);
            let health = |id: &String| {
                let device = known.and_then(|r| r.devices.get(id));
                let healthy = device.is_none_or(|d| d.healthy);
                ResourceHealth {
                    resource_id: id.clone(),
                    health: Some(if healthy { "Healthy" } else { "Unhealthy" }.to_owned()),
                    ..ResourceHealth::default()
                }
            };
            ResourceStatus {
                name: name.to_owned(),
                resources: Some(allocation.ids.iter().map(health).collect()),
            }
        };
        state.inventory.of(pod, container).map(of).collect()
    }

    /// Where a container could have its devices, a list for each resource.
    pub fn hints(
        &self,
        pod: &str,
        container: &Container,
        reusable: &BTreeMap<String, Ids>,
    ) -> Vec<Hints> {
        let (asked, none) = (self.asked(container), Ids::new());
        let state = self.state();
        let of = |(resource, count): (String, usize)| {
            let mut own = state.inventory.of(pod, &container.name);
            let had = own.find(|(name, _)| *name == resource);
            let had = had.map_or_else(Ids::new, |(_, a)| a.ids.clone());
            let reusable = reusable.get(&resource).unwrap_or(&none);
            state.inventory.hints(&resource, count, &had, reusable)
        };
        asked.into_iter().map(of).collect()
    }

    /// The same for all containers of a pod.
    pub fn hints_of_pod(&self, pod: &Pod) -> Vec<Hints> {
        let uid = crate::pod::spec::uid(pod);
        let asked = self.asked_by_pod(pod);
        let state = self.state();
        let of = |(resource, count): (String, usize)| {
            let own = state.inventory.allocations.iter();
            let own = own.filter(|(p, _)| p.pod == uid && p.resource == resource);
            let had: Ids = own.flat_map(|(_, a)| a.ids.clone()).collect();
            state.inventory.hints(&resource, count, &had, &Ids::new())
        };
        asked.into_iter().map(of).collect()
    }

    /// What a whole pod asks for: its greatest moment.
    fn asked_by_pod(&self, pod: &Pod) -> BTreeMap<String, usize> {
        let spec = pod.spec.as_ref();
        let mut running: BTreeMap<String, usize> = BTreeMap::new();
        let mut most = BTreeMap::new();
        let init = spec
            .into_iter()
            .flat_map(|s| s.init_containers.iter().flatten());
        for container in init {
            for (resource, count) in self.asked(container) {
                let beside = running.entry(resource.clone()).or_default();
                if restartable_init(container) {
                    *beside += count;
                } else {
                    let slot: &mut usize = most.entry(resource).or_default();
                    *slot = (*slot).max(*beside + count);
                }
            }
        }
        for container in spec.into_iter().flat_map(|s| &s.containers) {
            for (resource, count) in self.asked(container) {
                *running.entry(resource).or_default() += count;
            }
        }
        for (resource, count) in running {
            let slot = most.entry(resource).or_default();
            *slot = (*slot).max(count);
        }
        most
    }

    /// Looks at what there is: for hints and for podresources.
    pub fn look<T>(&self, look: impl FnOnce(&Inventory) -> T) -> T {
        look(&self.state().inventory)
    }
}

impl State {
    fn plugin(&self, resource: &str) -> Result<Plugin, AllocateError> {
        let connections = self.plugins.get(resource);
        let newest = connections.and_then(|all| all.last());
        let plugin = newest.map(|c| c.plugin.clone());
        plugin.ok_or_else(|| AllocateError::Unregistered {
            resource: resource.to_owned(),
        })
    }
}
