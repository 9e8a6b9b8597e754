use super::{CREATE, NetlinkError, Rtnl, exists_is_fine};
use crate::Cidr;
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::RouteMessageBuilder;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A route through an interface.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Where to.
    pub to: Cidr,
    /// By way of; `None` = on the link.
    pub via: Option<IpAddr>,
    /// Index of the interface.
    pub index: u32,
}

impl Route {
    /// The default route of the gateway's family.
    pub fn default_via(gateway: IpAddr, index: u32) -> Option<Self> {
        let any: IpAddr = if gateway.is_ipv6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        Some(Self {
            to: Cidr::new(any, 0)?,
            via: Some(gateway),
            index,
        })
    }

    /// The host itself, straight on the link.
    pub fn on_link(host: IpAddr, index: u32) -> Option<Self> {
        let prefix = if host.is_ipv6() { 128 } else { 32 };
        Some(Self {
            to: Cidr::new(host, prefix)?,
            via: None,
            index,
        })
    }
}

impl Rtnl {
    /// Adds a route; one that is there is fine.
    pub fn add_route(&self, route: Route) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::NewRoute(message(route));
        exists_is_fine(self.order(request, CREATE))
            .map_err(|e| NetlinkError::new("add route", route.to.to_string(), e))
    }

    /// Index of the interface of the IPv4 default route.
    pub fn default_interface(&self) -> Result<Option<u32>, NetlinkError> {
        let all = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let told = self
            .socket
            .ask(RouteNetlinkMessage::GetRoute(all), NLM_F_DUMP);
        let told = told.map_err(|e| NetlinkError::new("list", "routes", e))?;
        let default = told.iter().find_map(|message| match message {
            RouteNetlinkMessage::NewRoute(r) if r.header.destination_prefix_length == 0 => Some(r),
            _ => None,
        });
        Ok(default.and_then(output_interface))
    }
}

fn message(route: Route) -> RouteMessage {
    let scope = match route.via {
        Some(_) => RouteScope::Universe,
        None => RouteScope::Link,
    };
    match (route.to.addr(), route.via) {
        (IpAddr::V4(to), via) => {
            let mut b = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(to, route.to.prefix())
                .output_interface(route.index)
                .scope(scope);
            if let Some(IpAddr::V4(via)) = via {
                b = b.gateway(via);
            }
            b.build()
        }
        (IpAddr::V6(to), via) => {
            let mut b = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(to, route.to.prefix())
                .output_interface(route.index);
            if let Some(IpAddr::V6(via)) = via {
                b = b.gateway(via);
            }
            b.build()
        }
    }
}

fn output_interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}
