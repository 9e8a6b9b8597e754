use super::{CREATE, NetlinkError, Rtnl, exists_is_fine};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::AddressMessageBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    pub fn add_address(&self, index: u32, address: Address) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::NewAddress(message(index, address));
        exists_is_fine(self.order(request, CREATE))
            .map_err(|e| NetlinkError::new("add address", address.ip.to_string(), e))
    }

    /// Addresses of an interface.
    pub fn addresses(&self, index: u32) -> Result<Vec<IpAddr>, NetlinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let told = self.socket.ask(request, NLM_F_DUMP);
        let told =
            told.map_err(|e| NetlinkError::new("list addresses of link", index.to_string(), e))?;
        let of_link = |message| match message {
            RouteNetlinkMessage::NewAddress(m) if m.header.index == index => local_address(&m),
            _ => None,
        };
        Ok(told.into_iter().filter_map(of_link).collect())
    }
}

fn message(index: u32, address: Address) -> AddressMessage {
    let mut message = match address.ip {
        IpAddr::V4(ip) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(ip, address.prefix)
            .build(),
        IpAddr::V6(ip) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(ip, address.prefix)
            .build(),
    };
    let flags = AddressAttribute::Flags(flags(address));
    message.attributes.push(flags);
    message
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
