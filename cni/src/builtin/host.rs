//! The host's side, which all pods share.

use super::{BuiltinError, blocking, filter, sysctl};
use crate::defaults::MTU;
use crate::ipam::Range;
use crate::netlink::{Address, NetlinkError, Rtnl};
use crate::network::Builtin;
use std::net::IpAddr;

/// What pods need to know of the host's side.
#[derive(Debug, Clone)]
pub struct Host {
    /// Index of the bridge.
    pub bridge: u32,
    /// Its name.
    pub bridge_name: String,
    /// MTU of pods' interfaces.
    pub mtu: u32,
    /// The ranges it was set up for.
    pub ranges: Vec<Range>,
}

/// Makes the bridge with its gateway addresses, the kernel's settings and the
/// packet filter's table; what is there already stays.
pub async fn set_up(config: &Builtin, ranges: &[Range]) -> Result<Host, BuiltinError> {
    let host = {
        let (config, ranges) = (config.clone(), ranges.to_vec());
        blocking(move || lay_bridge(&config, ranges)).await?
    };
    let cidrs: Vec<_> = ranges.iter().map(Range::subnet).collect();
    filter::lay(config, &cidrs).await?;
    Ok(host)
}

fn lay_bridge(config: &Builtin, ranges: Vec<Range>) -> Result<Host, BuiltinError> {
    let rtnl = &Rtnl::here()?;
    let name = &config.bridge;
    let mtu = mtu(rtnl, config.mtu)?;
    let mac = ranges.first().map_or([0; 6], |r| mac_of(r.gateway()));
    rtnl.add_bridge(name, mac, mtu)?;
    let bridge = rtnl.link(name)?.ok_or_else(|| gone(name))?;
    let ipv6 = ranges.iter().any(|r| r.subnet().is_ipv6());
    sysctl::apply(&sysctl::wanted(name, ipv6))?;
    if !bridge.up {
        rtnl.set_up(bridge.index)?;
    }
    for range in &ranges {
        let address = Address {
            ip: range.gateway(),
            prefix: range.subnet().prefix(),
            prefix_route: true,
        };
        rtnl.add_address(bridge.index, address)?;
    }
    Ok(Host {
        bridge: bridge.index,
        bridge_name: name.clone(),
        mtu,
        ranges,
    })
}

fn mtu(rtnl: &Rtnl, configured: u32) -> Result<u32, BuiltinError> {
    if configured != 0 {
        return Ok(configured);
    }
    let Some(index) = rtnl.default_interface()? else {
        return Ok(MTU);
    };
    Ok(rtnl.mtu_of(index)?.unwrap_or(MTU))
}

fn gone(name: &str) -> NetlinkError {
    let source = std::io::Error::from_raw_os_error(libc::ENODEV);
    NetlinkError::new("look up bridge", name, source)
}

/// A link-layer address that follows from the network address, so that it is
/// the same after every restart and no neighbour's cache goes stale.
pub fn mac_of(ip: IpAddr) -> [u8; 6] {
    // Locally administered, unicast.
    let [a, b] = [0x0a, 0x58];
    let [c, d, e, f] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => {
            let o = ip.octets();
            [o[12], o[13], o[14], o[15]]
        }
    };
    [a, b, c, d, e, f]
}
