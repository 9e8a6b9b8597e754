//! The built-in network: a bridge, an address from the node's range, and host
//! ports, with no process started.
//!
//! A pod's address has no route to its subnet: all that a pod sends goes to
//! the host, which routes it back over the bridge if need be. So every packet
//! passes connection tracking, and Services work between two pods of one
//! bridge whether or not br_netfilter is there.

mod error;
mod filter;
mod host;
mod pod;
mod result;
pub mod ruleset;
mod sysctl;

pub use error::BuiltinError;
pub use pod::loopback_up;
pub use sysctl::SysctlError;

pub(crate) use filter::host_ports;
pub(crate) use host::mac_of;
pub(crate) use pod::host_interface;
pub(crate) use sysctl::apply as apply_sysctls;

use crate::ipam::{Range, Store};
use crate::netlink::Rtnl;
use crate::network::Builtin;
use crate::{Attachment, Cidr, Netns, PodNetwork};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::RwLock;

/// A pod's addresses, each with the range that it is of.
pub(crate) type Leases = Vec<(IpAddr, Range)>;

/// The bridge and who is on it.
#[derive(Debug)]
pub struct BridgeNetwork {
    config: Builtin,
    store: Store,
    ranges: RwLock<Vec<Range>>,
    /// What has been set up on the host, and for which ranges.
    host: tokio::sync::Mutex<Option<host::Host>>,
}

impl BridgeNetwork {
    /// Nothing of the host is touched yet.
    pub fn open(config: Builtin, store: Store) -> Self {
        Self {
            config,
            store,
            ranges: RwLock::default(),
            host: tokio::sync::Mutex::default(),
        }
    }

    /// The ranges that later pods get addresses from.
    pub fn set_ranges(&self, cidrs: &[Cidr]) -> Result<(), BuiltinError> {
        let ranges = cidrs.iter().map(|cidr| {
            let range = Range::new(*cidr, None, None, None);
            range.ok_or(BuiltinError::RangeTooSmall { cidr: *cidr })
        });
        let ranges = ranges.collect::<Result<Vec<_>, _>>()?;
        *self.ranges.write().unwrap_or_else(|e| e.into_inner()) = ranges;
        Ok(())
    }

    /// Whether there is a range to give addresses from.
    pub fn has_ranges(&self) -> bool {
        !self.ranges().is_empty()
    }

    /// Wires a pod; after an error nothing of it is left.
    pub async fn add(
        &self,
        pod: &PodNetwork,
        netns: &dyn Netns,
    ) -> Result<Attachment, BuiltinError> {
        let wired = self.wire(pod, netns).await;
        if wired.is_err() {
            // What could not be undone here is found by `gc`; the first error
            // is the one to tell.
            let _ = self.del(pod, &[]).await;
        }
        wired
    }

    async fn wire(&self, pod: &PodNetwork, netns: &dyn Netns) -> Result<Attachment, BuiltinError> {
        let attachment = match self.attach(pod, netns).await {
            Err(_) if self.lost_bridge().await? => self.attach(pod, netns).await?,
            attached => attached?,
        };
        filter::map_ports(&self.config.table, &pod.ports, &attachment.ips).await?;
        Ok(attachment)
    }

    async fn attach(
        &self,
        pod: &PodNetwork,
        netns: &dyn Netns,
    ) -> Result<Attachment, BuiltinError> {
        let ranges = self.ranges();
        let (host, inside) = tokio::join!(self.ready_host(&ranges), pod::open(netns));
        let netns_fd = netns.fd().try_clone_to_owned();
        let asked = Asked {
            pod: pod.clone(),
            host: host?,
            store: self.store.clone(),
            netns: netns_fd.map_err(BuiltinError::Netns)?,
            path: netns.path(),
        };
        let inside = inside?;
        blocking(move || asked.make(&inside)).await
    }

    /// What a pod that was wired by its id alone asks for beside.
    pub async fn settle(
        &self,
        pod: &PodNetwork,
        ips: &[IpAddr],
        netns: &dyn Netns,
    ) -> Result<(), BuiltinError> {
        if pod.ingress_rate.or(pod.egress_rate).is_some() {
            let (inside, pod) = (pod::open(netns).await?, pod.clone());
            blocking(move || pod::shape(&pod, &inside)).await?;
        }
        filter::map_ports(&self.config.table, &pod.ports, ips).await
    }

    /// Whether the addresses are of the present ranges, one of each.
    pub fn is_current(&self, ips: &[IpAddr]) -> bool {
        let ranges = self.ranges();
        ranges.len() == ips.len() && ranges.iter().zip(ips).all(|(range, ip)| range.offers(*ip))
    }

    /// Unwires a pod whose addresses these were; does all it can, then tells
    /// the first error.
    pub async fn del(&self, pod: &PodNetwork, ips: &[IpAddr]) -> Result<(), BuiltinError> {
        let ports = filter::unmap_ports(&self.config.table, &pod.ports, ips).await;
        let (store, owner, ips) = (self.store.clone(), pod.sandbox_id.clone(), ips.to_vec());
        let rest = blocking(move || {
            let link = pod::remove(&owner);
            // Last: while the address answers it must not be given to another.
            let address = store.give_back(&owner, &ips);
            link.and(address.map_err(BuiltinError::from))
        });
        ports.and(rest.await)
    }

    /// Compares what is there with what was given.
    pub async fn check(
        &self,
        netns: &dyn Netns,
        attachment: &Attachment,
    ) -> Result<(), BuiltinError> {
        pod::check(netns, &attachment.ips).await
    }

    /// Keeps only what belongs to these pods: addresses, interfaces, ports.
    pub async fn gc(&self, pods: &[(PodNetwork, Vec<IpAddr>)]) -> Result<(), BuiltinError> {
        let ids: Vec<&str> = pods.iter().map(|(p, _)| p.sandbox_id.as_str()).collect();
        let rtnl = Rtnl::here()?;
        if let Some(bridge) = rtnl.index_of(&self.config.bridge)? {
            let ports = rtnl.ports_of(bridge)?;
            let reserved = self.store.own()?;
            let owners: Vec<String> = reserved.into_iter().map(|(_, owner, _)| owner).collect();
            for stale in pod::stale(&ports, &owners, &ids) {
                rtnl.del_link(stale)?;
            }
            let elements = pods
                .iter()
                .flat_map(|(pod, ips)| ruleset::elements(&pod.ports, ips))
                .collect();
            filter::restore(&self.config, &self.cidrs(), elements).await?;
        }
        self.store.release_where(|id, _| !ids.contains(&id))?;
        Ok(())
    }

    fn ranges(&self) -> Vec<Range> {
        let ranges = self.ranges.read();
        ranges.unwrap_or_else(|e| e.into_inner()).clone()
    }

    fn cidrs(&self) -> Vec<Cidr> {
        self.ranges().iter().map(Range::subnet).collect()
    }

    /// Host side as the ranges want it, made once.
    async fn ready_host(&self, ranges: &[Range]) -> Result<host::Host, BuiltinError> {
        let mut ready = self.host.lock().await;
        if let Some(host) = ready.as_ref().filter(|host| host.ranges == ranges) {
            return Ok(host.clone());
        }
        let host = host::set_up(&self.config, ranges).await?;
        *ready = Some(host.clone());
        Ok(host)
    }

    /// Whether somebody has removed the bridge; the next pod finds it made again.
    async fn lost_bridge(&self) -> Result<bool, BuiltinError> {
        let mut ready = self.host.lock().await;
        let Some(made) = ready.as_ref().map(|host| host.bridge) else {
            return Ok(false);
        };
        let name = self.config.bridge.clone();
        let there = blocking(move || Ok(Rtnl::here()?.index_of(&name)?)).await?;
        let lost = there != Some(made);
        if lost {
            *ready = None;
        }
        Ok(lost)
    }
}

/// A pod that is to be wired, with all it takes.
struct Asked {
    pod: PodNetwork,
    host: host::Host,
    store: Store,
    netns: OwnedFd,
    path: Option<PathBuf>,
}

impl Asked {
    fn make(&self, inside: &Rtnl) -> Result<Attachment, BuiltinError> {
        let leases = self.lease()?;
        let wiring = pod::Wiring {
            host: &self.host,
            name: host_interface(&self.pod.sandbox_id),
            leases: &leases,
            ingress: self.pod.ingress_rate,
            egress: self.pod.egress_rate,
        };
        let made = wiring.make(self.netns.as_fd(), inside)?;
        let result = result::json(&wiring, &made, self.path.clone());
        let ips = leases.iter().map(|(ip, _)| *ip).collect();
        Ok(Attachment { ips, result })
    }

    fn lease(&self) -> Result<Leases, BuiltinError> {
        let lease = |(slot, range): (usize, &Range)| {
            let interface = crate::defaults::POD_INTERFACE;
            let ip = self
                .store
                .reserve_first(range, slot, &self.pod.sandbox_id, interface)?;
            Ok((ip, range.clone()))
        };
        self.host.ranges.iter().enumerate().map(lease).collect()
    }
}

/// Runs what waits for a disk or a lock beside the executor's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuiltinError> + Send + 'static,
) -> Result<T, BuiltinError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(BuiltinError::ShuttingDown),
    }
}
