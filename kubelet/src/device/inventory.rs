//! Which devices there are, and who has them. Pure.

use crate::proto::deviceplugin::{ContainerAllocateResponse, Device};
use crate::topology::NodeMask;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The word for a device that may be given away.
/// kubernetes v1.37 staging/src/k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/constants.go.
const HEALTHY: &str = "Healthy";

/// How long a plugin may be away before its devices are forgotten.
/// kubernetes v1.37 pkg/kubelet/cm/devicemanager/types.go `endpointStopGracePeriod`.
const PLUGIN_GRACE: Duration = Duration::from_secs(5 * 60);

/// Ids of devices of one resource.
pub type Ids = BTreeSet<String>;

/// Why a container can't have its devices.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AllocateError {
    #[error("cannot allocate unregistered device {resource}")]
    Unregistered { resource: String },
    #[error("no healthy devices present; cannot allocate unhealthy devices {resource}")]
    NoneHealthy { resource: String },
    #[error(
        "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
    )]
    Unhealthy { resource: String },
    #[error(
        "requested number of devices unavailable for {resource}. Requested: {requested}, Available: {available}"
    )]
    Unavailable {
        resource: String,
        requested: usize,
        available: usize,
    },
    #[error("the device plugin of {resource} gave no answer for the container")]
    NoAnswer { resource: String },
    #[error("rpc error: code = {:?} desc = {}", .status.code(), .status.message())]
    Plugin { status: Box<tonic::Status> },
}

/// A device as its plugin describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// May be given away.
    pub healthy: bool,
    /// The NUMA nodes it is near; empty when it does not matter.
    pub nodes: NodeMask,
}

/// A resource that a plugin offers, or offered.
#[derive(Debug, Clone, Default)]
pub struct Resource {
    /// By id; empty after an agent's start until the plugin is back.
    pub devices: BTreeMap<String, Described>,
    /// Since when no plugin is connected; `None` while one is.
    pub gone: Option<Instant>,
}

impl Resource {
    /// Devices that may be given away, or are.
    pub fn healthy(&self) -> impl Iterator<Item = (&String, &Described)> {
        let usable = self.devices.iter().filter(|(_, d)| d.healthy);
        usable.filter(|_| self.gone.is_none())
    }

    /// `capacity` and `allocatable` of the Node; nothing is left of a plugin that
    /// did not come back.
    pub fn counts(&self, now: Instant) -> (usize, usize) {
        match self.is_over(now) {
            true => (0, 0),
            false => (self.devices.len(), self.healthy().count()),
        }
    }

    /// Its plugin has been away for long.
    pub fn is_over(&self, now: Instant) -> bool {
        let away = self.gone.map(|at| now.saturating_duration_since(at));
        away.is_some_and(|away| away > PLUGIN_GRACE)
    }
}

/// What one container was given of one resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Allocation {
    /// The devices.
    pub ids: Ids,
    /// Where they were near when they were given.
    pub nodes: NodeMask,
    /// What the plugin says the container needs for them.
    pub answer: ContainerAllocateResponse,
}

/// One container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Place {
    pub pod: String,
    pub container: String,
    pub resource: String,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// By name.
    pub resources: BTreeMap<String, Resource>,
    /// Who has what.
    pub allocations: BTreeMap<Place, Allocation>,
}

/// What a container asks of one resource.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its name.
    pub resource: &'a str,
    /// How many devices.
    pub count: usize,
    /// Devices that init containers of the pod had: taken first.
    pub reusable: &'a Ids,
    /// Where the devices had better be; `None`: wherever.
    pub affinity: Option<NodeMask>,
}

/// A choice that the plugin may still have a wish about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    taken: Ids,
    count: usize,
    /// To be taken from next, best first.
    candidates: Vec<String>,
    offered: Ids,
}

impl Inventory {
    /// Whether it is a plugin's resource, now or once.
    pub fn knows(&self, resource: &str) -> bool {
        self.resources.contains_key(resource)
            || self.allocations.keys().any(|p| p.resource == resource)
    }

    /// A plugin's newest list; answers the pods whose devices changed health.
    pub fn list(&mut self, name: &str, devices: &[Device]) -> BTreeSet<String> {
        let resource = self.resources.entry(name.to_owned()).or_default();
        let before = std::mem::take(&mut resource.devices);
        resource.devices = devices.iter().map(described).collect();
        resource.gone = None;
        let differs = |id: &String| {
            let health = |all: &BTreeMap<String, Described>| all.get(id).map(|d| d.healthy);
            health(&before) != health(&resource.devices)
        };
        let of = |(place, a): (&Place, &Allocation)| {
            let hit = place.resource == name && a.ids.iter().any(differs);
            hit.then(|| place.pod.clone())
        };
        self.allocations.iter().filter_map(of).collect()
    }

    /// Nobody answers for a resource any more: none of its devices can be given away.
    pub fn lose(&mut self, name: &str, now: Instant) {
        if let Some(resource) = self.resources.get_mut(name) {
            resource.gone.get_or_insert(now);
        }
    }

    /// Which devices a container gets.
    ///
    /// # Errors
    /// When there are not enough of them.
    pub fn choose(&self, request: Request<'_>) -> Result<Choice, AllocateError> {
        let name = || request.resource.to_owned();
        let Some(resource) = self.resources.get(request.resource) else {
            return Err(AllocateError::Unregistered { resource: name() });
        };
        if resource.healthy().next().is_none() {
            return Err(AllocateError::NoneHealthy { resource: name() });
        }
        let taken: Ids = request
            .reusable
            .iter()
            .take(request.count)
            .cloned()
            .collect();
        let missing = request.count - taken.len();
        let used = self.used(request.resource);
        let free: Vec<&String> = resource
            .healthy()
            .map(|(id, _)| id)
            .filter(|id| !used.contains(*id))
            .collect();
        if free.len() < missing {
            return Err(AllocateError::Unavailable {
                resource: name(),
                requested: missing,
                available: free.len(),
            });
        }
        let [near, far, anywhere] = resource.by_distance(&free, request.affinity);
        let near_is_enough = missing < near.len();
        let mut choice = Choice {
            taken,
            count: request.count,
            candidates: Vec::new(),
            offered: near.iter().chain(&far).chain(&anywhere).cloned().collect(),
        };
        if near_is_enough {
            choice.offered = near.iter().cloned().collect();
            choice.candidates = near;
        } else {
            // All that are near, whatever the plugin would rather have.
            choice.taken.extend(near);
            choice.candidates = [far, anywhere].concat();
        }
        Ok(choice)
    }

    /// Checks what a container of a pod that begins anew had before.
    ///
    /// # Errors
    /// When its devices are no more what they were.
    pub fn check(&self, place: &Place) -> Result<(), AllocateError> {
        let resource = || place.resource.clone();
        let Some(known) = self.resources.get(&place.resource) else {
            return Err(AllocateError::Unregistered {
                resource: resource(),
            });
        };
        let healthy: BTreeSet<&String> = known.healthy().map(|(id, _)| id).collect();
        if healthy.is_empty() {
            return Err(AllocateError::NoneHealthy {
                resource: resource(),
            });
        }
        let had = self.allocations.get(place);
        match had.is_some_and(|a| a.ids.iter().all(|id| healthy.contains(id))) {
            true => Ok(()),
            false => Err(AllocateError::Unhealthy {
                resource: resource(),
            }),
        }
    }

    /// The nodes that devices are near.
    pub fn nodes(&self, resource: &str, ids: &Ids) -> NodeMask {
        let known = self.resources.get(resource);
        let of = |id| known.and_then(|r| r.devices.get(id)).map(|d| d.nodes);
        ids.iter()
            .filter_map(of)
            .fold(NodeMask::default(), NodeMask::or)
    }

    /// Devices of a resource that somebody has.
    pub fn used(&self, resource: &str) -> Ids {
        let of = self.allocations.iter();
        let of = of.filter(|(place, _)| place.resource == resource);
        of.flat_map(|(_, a)| a.ids.clone()).collect()
    }

    /// What a container was given, by resource.
    pub fn of<'a>(
        &'a self,
        pod: &'a str,
        container: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Allocation)> {
        let all = self.allocations.iter();
        let own = all.filter(move |(p, _)| p.pod == pod && p.container == container);
        own.map(|(p, a)| (p.resource.as_str(), a))
    }
}

fn described(device: &Device) -> (String, Described) {
    let nodes = device.topology.iter().flat_map(|t| &t.nodes);
    let nodes = nodes.filter_map(|n| u32::try_from(n.id).ok());
    let described = Described {
        healthy: device.health == HEALTHY,
        nodes: NodeMask::of(nodes),
    };
    (device.id.clone(), described)
}

impl Resource {
    /// Near, far, and without a place of their own.
    fn by_distance(&self, free: &[&String], affinity: Option<NodeMask>) -> [Vec<String>; 3] {
        let mut groups = <[Vec<String>; 3]>::default();
        let placed = self.devices.values().any(|d| !d.nodes.is_empty());
        let affinity = affinity.filter(|_| placed);
        for id in free {
            let nodes = self.devices.get(*id).map(|d| d.nodes).unwrap_or_default();
            let group = match affinity {
                Some(wish) if !nodes.and(wish).is_empty() => 0,
                Some(_) if !nodes.is_empty() => 1,
                Some(_) | None => 2,
            };
            groups[group].push((*id).clone());
        }
        groups
    }
}

impl Choice {
    /// What to ask the plugin's wish about: available, must be included, how many.
    /// `None` when nothing is left to choose.
    pub fn question(&self) -> Option<(Vec<String>, Vec<String>, usize)> {
        if self.taken.len() >= self.count {
            return None;
        }
        let available = self.offered.union(&self.taken).cloned().collect();
        Some((available, self.taken.iter().cloned().collect(), self.count))
    }

    /// The devices, with the plugin's wish heeded as far as it goes.
    pub fn settle(self, preferred: &[String]) -> Ids {
        let mut taken = self.taken;
        let wished = preferred.iter().filter(|id| self.offered.contains(*id));
        for id in wished.chain(&self.candidates) {
            if taken.len() >= self.count {
                break;
            }
            taken.insert(id.clone());
        }
        taken
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
