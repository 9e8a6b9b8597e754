//! One pod's side: the veth pair, its addresses and routes.

use super::host::{Host, mac_of};
use super::{BuiltinError, Leases};
use crate::defaults::{LOOPBACK_INDEX, POD_INTERFACE};
use crate::netlink::{Address, NetlinkError, Route, Rtnl, VethPair};
use crate::{Netns, PodNetwork};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

/// Prefix of our interfaces' names on the host.
const PREFIX: &str = "lt";

/// What a pod is to be given.
#[derive(Debug)]
pub struct Wiring<'a> {
    /// The host's side.
    pub host: &'a Host,
    /// Name of the pod's interface on the host.
    pub name: String,
    /// Addresses.
    pub leases: &'a Leases,
    /// Bits a second that the pod may receive.
    pub ingress: Option<u64>,
    /// Bits a second that the pod may send.
    pub egress: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub struct Made {
    /// Link-layer address of the pod's interface.
    pub mac: [u8; 6],
    /// Of the host's end.
    pub host_mac: [u8; 6],
}

/// The name follows from the sandbox, so that its removal needs no record.
pub fn host_interface(sandbox_id: &str) -> String {
    // FNV-1a, 64 bits; 48 of them are kept (a name has at most 15 bytes).
    let hash = sandbox_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{PREFIX}{:012x}", hash >> 16)
}

/// Which of a bridge's ports are of these `owners` of addresses but of none of these sandboxes.
///
/// A wire's owner has an address before the wire is made and until it is gone. So one whose owner
/// has none here is another runtime's, which shares the bridge.
pub fn stale<'a>(ports: &'a [String], owners: &[String], sandboxes: &[&str]) -> Vec<&'a str> {
    let ended = owners.iter().filter(|id| !sandboxes.contains(&id.as_str()));
    let wires: Vec<String> = ended.map(|id| host_interface(id)).collect();
    let ours = ports.iter().filter(|p| wires.contains(p));
    ours.map(String::as_str).collect()
}

impl Wiring<'_> {
    /// Makes the pair and brings the pod's end up with addresses and routes;
    /// `inside` is of the namespace `netns`.
    pub fn make(&self, netns: BorrowedFd<'_>, inside: &Rtnl) -> Result<Made, BuiltinError> {
        let rtnl = Rtnl::here()?;
        let mac = self.leases.first().map_or([0; 6], |(ip, _)| mac_of(*ip));
        let made = Made {
            mac,
            host_mac: host_end_of(mac),
        };
        self.pair(&rtnl, netns, &made)?;
        self.host_end(&rtnl)?;
        self.pod_end(inside)?;
        Ok(made)
    }

    fn pair(&self, rtnl: &Rtnl, netns: BorrowedFd<'_>, made: &Made) -> Result<(), NetlinkError> {
        let pair = VethPair {
            host: &self.name,
            pod: POD_INTERFACE,
            netns,
            mac: made.mac,
            host_mac: Some(made.host_mac),
            mtu: self.host.mtu,
            bridge: Some(self.host.bridge),
        };
        match rtnl.add_veth(&pair) {
            // Left by an attempt that was cut short.
            Err(e) if e.errno() == Some(libc::EEXIST) => {
                rtnl.del_link(&self.name)?;
                rtnl.add_veth(&pair)
            }
            done => done,
        }
    }

    /// Hairpin: with br_netfilter a pod's way to itself through a Service
    /// turns around within the bridge.
    fn host_end(&self, rtnl: &Rtnl) -> Result<(), BuiltinError> {
        let index = index_of(rtnl, &self.name)?;
        rtnl.set_up_port(index, true)?;
        if let Some(rate) = self.ingress {
            rtnl.set_rate(index, rate)?;
        }
        Ok(())
    }

    fn pod_end(&self, inside: &Rtnl) -> Result<(), BuiltinError> {
        inside.set_up(LOOPBACK_INDEX)?;
        let index = index_of(inside, POD_INTERFACE)?;
        inside.set_up(index)?;
        // At the pod's own end, where packets can wait: who has NET_ADMIN there can lift it.
        if let Some(rate) = self.egress {
            inside.set_rate(index, rate)?;
        }
        for (ip, range) in self.leases {
            let address = Address {
                ip: *ip,
                prefix: range.subnet().prefix(),
                prefix_route: false,
            };
            inside.add_address(index, address)?;
            let gateway = range.gateway();
            let routes = [
                Route::on_link(gateway, index),
                Route::default_via(gateway, index),
            ];
            for route in routes.into_iter().flatten() {
                inside.add_route(route)?;
            }
        }
        Ok(())
    }
}

fn index_of(rtnl: &Rtnl, name: &str) -> Result<u32, BuiltinError> {
    let no_link = || BuiltinError::NoInterface {
        name: name.to_owned(),
    };
    rtnl.index_of(name)?.ok_or_else(no_link)
}

/// The host's end has an address of its own, as the pod's end has: told beforehand, it need
/// not be asked for. Nobody sends to it: it is a port of a bridge.
fn host_end_of(pod: [u8; 6]) -> [u8; 6] {
    let mut mac = pod;
    mac[1] ^= 1;
    mac
}

/// Limits what a pod that is wired sends and receives.
pub fn shape(pod: &PodNetwork, inside: &Rtnl) -> Result<(), BuiltinError> {
    let rtnl = Rtnl::here()?;
    let name = host_interface(&pod.sandbox_id);
    for (rtnl, name, rate) in [
        (&rtnl, name.as_str(), pod.ingress_rate),
        (inside, POD_INTERFACE, pod.egress_rate),
    ] {
        if let (Some(rate), Some(index)) = (rate, rtnl.index_of(name)?) {
            rtnl.set_rate(index, rate)?;
        }
    }
    Ok(())
}

/// Brings the loopback of a namespace up.
pub async fn loopback_up(netns: &dyn Netns) -> Result<(), BuiltinError> {
    Ok(open(netns).await?.set_up(LOOPBACK_INDEX)?)
}

/// Removes the pair; none is fine (the namespace's end takes it along).
pub fn remove(sandbox_id: &str) -> Result<(), BuiltinError> {
    Ok(Rtnl::here()?.del_link(&host_interface(sandbox_id))?)
}

/// Whether the pod's interface is there with these addresses.
pub async fn check(netns: &dyn Netns, ips: &[IpAddr]) -> Result<(), BuiltinError> {
    let inside = open(netns).await?;
    let there = inside.addresses(index_of(&inside, POD_INTERFACE)?)?;
    match ips.iter().find(|ip| !there.contains(ip)) {
        Some(ip) => Err(BuiltinError::NoAddress { ip: *ip }),
        None => Ok(()),
    }
}

/// A connection to the links and routes of the pod.
pub async fn open(netns: &dyn Netns) -> Result<Rtnl, BuiltinError> {
    let protocol = netlink_sys::protocols::NETLINK_ROUTE as i32;
    let socket = netns.netlink_socket(protocol).await;
    Ok(Rtnl::over(socket.map_err(BuiltinError::Netns)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_interface_is_short_and_follows_from_the_sandbox() {
        let a = host_interface("9c5e4b1f");
        assert_eq!(a, host_interface("9c5e4b1f"));
        assert_ne!(a, host_interface("9c5e4b1e"));
        assert_eq!(a.len(), 14);
    }

    #[test]
    fn stale_ports_are_ours_without_a_sandbox() {
        let ports = [host_interface("a"), host_interface("b"), "vnet0".to_owned()];
        let owners = ["a".to_owned(), "b".to_owned()];
        assert_eq!(stale(&ports, &owners, &["a"]), [ports[1].as_str()]);
        assert!(
            stale(&ports, &owners[..1], &["a"]).is_empty(),
            "another runtime's"
        );
    }
}
