use super::failure::Failure;
use super::netns::OpenNetns;
use super::request::{Command, Request};
use super::{ipam, masquerade};
use crate::builtin::mac_of;
use crate::defaults::MTU;
use crate::netlink::{Address, LinkInfo, Route, Rtnl, VethPair};
use crate::{Cidr, Netns};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Of the reference plugin.
const BRIDGE: &str = "cni0";

/// The plugin `bridge`.
pub async fn run(request: &Request) -> Result<Value, Failure> {
    match request.command {
        Command::Add => {
            let added = add(request).await;
            if added.is_err() {
                // The first error is the one to tell.
                let _ = del(request).await;
            }
            added
        }
        Command::Del => del(request).await.map(|()| Value::Null),
        Command::Check => check(request).await,
        Command::Gc | Command::Status => ipam::delegate(request).await.map(|_| Value::Null),
        Command::Version => Ok(Value::Null),
    }
}

async fn add(request: &Request) -> Result<Value, Failure> {
    let netns = OpenNetns::needed(request)?;
    let rtnl = Rtnl::here()?;
    let bridge = ensure_bridge(&rtnl, request)?;
    let leased = ipam::delegate(request).await?;
    let leases = Leases::of(&leased, request.flag("isDefaultGateway"));
    let wire = Wire {
        request,
        rtnl: &rtnl,
        bridge: Some(bridge.index),
        leases: &leases,
    };
    let (host, pod) = wire.pair(&netns).await?;
    rtnl.set_up_port(host.index, request.flag("hairpinMode"))?;
    let inside = netns.rtnl().await?;
    inside.set_up(pod.index)?;
    for lease in &leases.ips {
        let (ip, prefix) = (lease.ip, lease.prefix);
        inside.add_address(
            pod.index,
            Address {
                ip,
                prefix,
                prefix_route: true,
            },
        )?;
    }
    if request.flag("isGateway") || request.flag("isDefaultGateway") {
        for (ip, prefix) in leases.gateways() {
            rtnl.add_address(
                bridge.index,
                Address {
                    ip,
                    prefix,
                    prefix_route: true,
                },
            )?;
        }
        forward(&leases)?;
    }
    leases.add_routes(&inside, pod.index)?;
    if request.flag("ipMasq") {
        masquerade::add(request, &leases.addresses())?;
    }
    let bridge_name = bridge_name(request);
    let interfaces = json!([
        {"name": bridge_name, "mac": mac(&bridge.mac)},
        {"name": wire.host_name(), "mac": mac(&host.mac)},
        {"name": request.interface, "mac": mac(&pod.mac), "sandbox": sandbox(request)},
    ]);
    Ok(leases.result(interfaces, 2, &leased, &request.config["dns"]))
}

fn bridge_name(request: &Request) -> &str {
    request.config["bridge"]
        .as_str()
        .filter(|b| !b.is_empty())
        .unwrap_or(BRIDGE)
}

fn ensure_bridge(rtnl: &Rtnl, request: &Request) -> Result<LinkInfo, Failure> {
    let name = bridge_name(request);
    if rtnl.link(name)?.is_none() {
        // A link-layer address of its own, or it changes with its ports.
        let hash = name
            .bytes()
            .fold(7u32, |h, b| h.wrapping_mul(31) ^ u32::from(b));
        let mac = mac_of(IpAddr::from(hash.to_be_bytes()));
        rtnl.add_bridge(name, mac, mtu(request))?;
    }
    let missing = || Failure::config(format!("bridge {name} can't be made"));
    let bridge = rtnl.link(name)?.ok_or_else(missing)?;
    rtnl.set_up(bridge.index)?;
    Ok(bridge)
}

fn mtu(request: &Request) -> u32 {
    match request.number("mtu") {
        0 => MTU,
        mtu => mtu,
    }
}

/// Both plugins' end: what `pair` made goes by its name, and in the pod's
/// namespace whatever bears the interface's name, by whomever made.
pub async fn del(request: &Request) -> Result<(), Failure> {
    let known = known_addresses(request);
    let address = ipam::delegate(request).await.map(drop);
    let wire = async {
        Rtnl::here()?.del_link(&host_name(request))?;
        if let Some(netns) = OpenNetns::of(request) {
            netns.rtnl().await?.del_link(&request.interface)?;
        }
        Ok(())
    };
    let wire: Result<(), Failure> = wire.await;
    let masquerade = match request.flag("ipMasq") {
        true => masquerade::del(request, &known),
        false => Ok(()),
    };
    wire.and(masquerade).and(address)
}

/// Both plugins' CHECK.
pub async fn check(request: &Request) -> Result<Value, Failure> {
    ipam::delegate(request).await?;
    let inside = OpenNetns::needed(request)?.rtnl().await?;
    let missing = || Failure::config(format!("{} is missing in the pod", request.interface));
    let link = inside.link(&request.interface)?.ok_or_else(missing)?;
    let there = inside.addresses(link.index)?;
    match known_addresses(request)
        .iter()
        .find(|(ip, _)| !there.contains(ip))
    {
        Some((ip, _)) => Err(Failure::config(format!("{} lacks {ip}", request.interface))),
        None => Ok(Value::Null),
    }
}

/// Those that the last result names.
fn known_addresses(request: &Request) -> Vec<(IpAddr, u8)> {
    Leases::of(&request.config["prevResult"], false).addresses()
}

pub fn sandbox(request: &Request) -> String {
    request
        .netns
        .as_ref()
        .map(|p| p.display().to_string())
        .unwrap_or_default()
}

fn host_name(request: &Request) -> String {
    let key = format!("{}/{}", request.container, request.interface);
    let name = crate::builtin::host_interface(&key);
    name.replacen("lt", "ve", 1)
}

/// The host becomes the pods' router.
pub fn forward(leases: &Leases) -> Result<(), Failure> {
    let mut wanted = vec![("ipv4/ip_forward".to_owned(), "1")];
    if leases.ips.iter().any(|l| l.ip.is_ipv6()) {
        wanted.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
    }
    Ok(crate::builtin::apply_sysctls(&wanted)?)
}

pub fn mac(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    pairs.join(":")
}

/// An address of the pod.
#[derive(Debug)]
pub struct Lease {
    pub ip: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
}

/// What the IPAM plugin gave.
#[derive(Debug)]
pub struct Leases {
    pub ips: Vec<Lease>,
    pub routes: Vec<(Cidr, Option<IpAddr>)>,
}

impl Leases {
    /// Of a result; `default` adds a default route by way of each gateway.
    pub fn of(result: &Value, default: bool) -> Self {
        let ips = result["ips"].as_array().into_iter().flatten();
        let ips: Vec<Lease> = ips.filter_map(lease).collect();
        let routes = result["routes"].as_array().into_iter().flatten();
        let mut routes: Vec<_> = routes.filter_map(route).collect();
        if default {
            let any = |gw: &IpAddr| if gw.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
            let gateways = ips.iter().filter_map(|l| l.gateway);
            routes.extend(gateways.filter_map(|gw| Some((any(&gw).parse().ok()?, Some(gw)))));
        }
        Self { ips, routes }
    }

    pub fn addresses(&self) -> Vec<(IpAddr, u8)> {
        self.ips.iter().map(|l| (l.ip, l.prefix)).collect()
    }

    pub fn gateways(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.ips.iter().filter_map(|l| Some((l.gateway?, l.prefix)))
    }

    /// Routes without a router of their own go by the family's gateway.
    pub fn add_routes(&self, inside: &Rtnl, index: u32) -> Result<(), Failure> {
        for (to, via) in &self.routes {
            let gateway = || self.ips.iter().filter_map(|l| l.gateway);
            let family = |gw: &IpAddr| gw.is_ipv6() == to.is_ipv6();
            let via = via.or_else(|| gateway().find(family));
            inside.add_route(Route {
                to: *to,
                via,
                index,
            })?;
        }
        Ok(())
    }

    /// The plugin's result: the pod's interface is number `pod`.
    pub fn result(&self, interfaces: Value, pod: usize, leased: &Value, dns: &Value) -> Value {
        let ips = self.ips.iter().map(|l| {
            let mut ip = json!({"address": format!("{}/{}", l.ip, l.prefix), "interface": pod});
            if let Some(gateway) = l.gateway {
                ip["gateway"] = json!(gateway);
            }
            ip
        });
        let routes = self.routes.iter().map(|(to, via)| match via {
            Some(via) => json!({"dst": to.to_string(), "gw": via}),
            None => json!({"dst": to.to_string()}),
        });
        let own = dns.as_object().is_some_and(|d| !d.is_empty());
        let dns = if own { dns } else { &leased["dns"] };
        json!({
            "interfaces": interfaces,
            "ips": ips.collect::<Value>(),
            "routes": routes.collect::<Value>(),
            "dns": if dns.is_null() { json!({}) } else { dns.clone() },
        })
    }
}

fn lease(entry: &Value) -> Option<Lease> {
    let (ip, prefix) = entry["address"].as_str()?.split_once('/')?;
    let gateway = entry["gateway"].as_str().and_then(|g| g.parse().ok());
    Some(Lease {
        ip: ip.parse().ok()?,
        prefix: prefix.parse().ok()?,
        gateway,
    })
}

fn route(entry: &Value) -> Option<(Cidr, Option<IpAddr>)> {
    let via = entry["gw"].as_str().and_then(|g| g.parse().ok());
    Some((entry["dst"].as_str()?.parse().ok()?, via))
}

/// The veth pair that both plugins make.
pub struct Wire<'a> {
    pub request: &'a Request,
    pub rtnl: &'a Rtnl,
    pub bridge: Option<u32>,
    pub leases: &'a Leases,
}

impl Wire<'_> {
    pub fn host_name(&self) -> String {
        host_name(self.request)
    }

    /// The host's and the pod's end.
    pub async fn pair(&self, netns: &OpenNetns) -> Result<(LinkInfo, LinkInfo), Failure> {
        let host = self.host_name();
        let first = self.leases.ips.first().map(|l| l.ip);
        let pair = VethPair {
            host: &host,
            pod: &self.request.interface,
            netns: netns.fd(),
            mac: mac_of(first.unwrap_or(IpAddr::from([0, 0, 0, 1]))),
            host_mac: None,
            mtu: mtu(self.request),
            bridge: self.bridge,
        };
        self.rtnl.add_veth(&pair)?;
        let gone = |name: &str| Failure::config(format!("{name} has gone"));
        let host_end = self.rtnl.link(&host)?.ok_or_else(|| gone(&host))?;
        let inside = netns.rtnl().await?;
        let pod = inside.link(&self.request.interface)?;
        Ok((host_end, pod.ok_or_else(|| gone(&self.request.interface))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_gateway_is_a_route_for_each_family() {
        let result = json!({"ips": [
            {"address": "10.0.0.5/24", "gateway": "10.0.0.1"},
            {"address": "fd00::5/64", "gateway": "fd00::1"},
        ]});
        let leases = Leases::of(&result, true);
        let routes: Vec<_> = leases.routes.iter().map(|(to, _)| to.to_string()).collect();
        assert_eq!(routes, ["0.0.0.0/0", "::/0"]);
        assert!(Leases::of(&result, false).routes.is_empty());
        assert!(Leases::of(&Value::Null, true).ips.is_empty());
    }
}
