use super::{NetlinkError, Rtnl, exists_is_fine, io_error};
use futures::TryStreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use std::net::IpAddr;

/// An address to be put on an interface.
#[derive(Debug, Clone, Copy)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Whether the kernel makes a route to that network through the interface.
    pub prefix_route: bool,
}

impl Rtnl {
    /// Adds an address, without duplicate address detection (which would hold
    /// an IPv6 address back for a second or more). One that is there is fine.
    pub async fn add_address(&self, index: u32, address: Address) -> Result<(), NetlinkError> {
        let mut request = self.handle.address().add(index, address.ip, address.prefix);
        let flags = flags(address);
        let message = request.message_mut();
        message.attributes.push(AddressAttribute::Flags(flags));
        exists_is_fine(request.execute().await)
            .map_err(|e| NetlinkError::new("add address", address.ip.to_string(), e))
    }

    /// Addresses of an interface.
    pub async fn addresses(&self, index: u32) -> Result<Vec<IpAddr>, NetlinkError> {
        let request = self.handle.address().get().set_link_index_filter(index);
        let messages: Vec<_> = request.execute().try_collect().await.map_err(|e| {
            NetlinkError::new("list addresses of link", index.to_string(), io_error(e))
        })?;
        Ok(messages.iter().filter_map(local_address).collect())
    }
}

fn flags(address: Address) -> AddressFlags {
    let mut flags = AddressFlags::empty();
    if address.ip.is_ipv6() {
        flags |= AddressFlags::Nodad;
    }
    if !address.prefix_route {
        flags |= AddressFlags::Noprefixroute;
    }
    flags
}

fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        message.attributes.iter().find_map(wanted)
    };
    // IPv6 has no IFA_LOCAL unless the interface is point to point.
    of(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    })
    .or_else(|| {
        of(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}
