//! The packet filter's part, as data: one table of chains that never change
//! between pods, and maps with an element for each host port.

use crate::nft::uapi::*;
use crate::nft::{Batch, Element, Expr, Hook, Rule, SetSpec, Side};
use crate::{Cidr, PortMapping, Protocol};
use std::net::IpAddr;

/// Before connection tracking (linux/netfilter_ipv4.h `NF_IP_PRI_RAW`).
const RAW: i32 = -300;
/// Just after the place where kube-proxy has its DNAT (`NF_IP_PRI_NAT_DST`,
/// -100): a Service always wins over a host port (CVE-2019-9946).
const AFTER_SERVICES: i32 = -90;
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE: i32 = 100;

/// RFC 792.
const ICMP_REDIRECT: u8 = 5;
/// RFC 4861, 4.5.
const ND_REDIRECT: u8 = 137;

const MAP4: &str = "ports4";
const MAP4_IP: &str = "ports4_ip";
const MAP6: &str = "ports6";
const MAP6_IP: &str = "ports6_ip";
const SELF4: &str = "self4";
const SELF6: &str = "self6";

// nftables 1.1 include/datatype.h: types of a concatenation are six bits each.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTO: u32 = 12;
const SERVICE: u32 = 13;

const fn concat(a: u32, b: u32) -> u32 {
    (a << 6) | b
}

const fn map(name: &'static str, key: (u32, u32), addr: (u32, u32)) -> SetSpec {
    SetSpec {
        name,
        key_type: key.0,
        key_len: key.1,
        data: Some((concat(addr.0, SERVICE), addr.1 + 4)),
    }
}

const fn pairs(name: &'static str, addr: (u32, u32)) -> SetSpec {
    SetSpec {
        name,
        key_type: concat(addr.0, addr.0),
        key_len: addr.1 * 2,
        data: None,
    }
}

const PORT: (u32, u32) = (concat(PROTO, SERVICE), 8);
const IP4_PORT: (u32, u32) = (concat(concat(IPV4, PROTO), SERVICE), 12);
const IP6_PORT: (u32, u32) = (concat(concat(IPV6, PROTO), SERVICE), 24);

/// The maps and sets that pods have elements in.
pub const SETS: [SetSpec; 6] = [
    map(MAP4, PORT, (IPV4, 4)),
    map(MAP4_IP, IP4_PORT, (IPV4, 4)),
    map(MAP6, PORT, (IPV6, 16)),
    map(MAP6_IP, IP6_PORT, (IPV6, 16)),
    pairs(SELF4, (IPV4, 4)),
    pairs(SELF6, (IPV6, 16)),
];

/// Which interfaces pods are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<'a> {
    /// This bridge.
    Bridge(&'a str),
    /// Another network's, whose names are not known.
    AnyButLoopback,
}

impl Way<'_> {
    /// A rule that goes on only for packets that come from pods
    /// (`NFT_META_IIFNAME`) or go to them (`NFT_META_OIFNAME`), or don't.
    fn rule(self, key: u32, pods: bool) -> Rule {
        self.narrow(Rule::default(), key, pods)
    }

    fn narrow(self, rule: Rule, key: u32, pods: bool) -> Rule {
        match self {
            Self::Bridge(name) => rule.interface(key, name, pods),
            Self::AnyButLoopback => rule.interface(key, "lo", !pods),
        }
    }
}

/// What the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy<'a> {
    /// Which interfaces pods are behind.
    pub way: Way<'a>,
    /// The pods of this node.
    pub pods: &'a [Cidr],
    /// Others that see the pods' own addresses.
    pub no_masquerade: &'a [Cidr],
}

/// Lays the table down anew; elements of its maps stay.
pub fn lay(batch: &mut Batch, policy: &Policy<'_>) {
    batch.add_table();
    for set in &SETS {
        batch.add_set(set);
    }
    let nat = |number, priority| {
        Some(Hook {
            kind: "nat",
            number,
            priority,
        })
    };
    batch.add_chain("ports", None);
    batch.add_chain("prerouting", nat(NF_INET_PRE_ROUTING, AFTER_SERVICES));
    batch.add_chain("output", nat(NF_INET_LOCAL_OUT, AFTER_SERVICES));
    batch.add_chain("postrouting", nat(NF_INET_POST_ROUTING, SOURCE));
    let raw = Hook {
        kind: "filter",
        number: NF_INET_PRE_ROUTING,
        priority: RAW,
    };
    batch.add_chain("martians", Some(raw));
    let output = Hook {
        kind: "filter",
        number: NF_INET_LOCAL_OUT,
        priority: 0,
    };
    batch.add_chain("redirects", Some(output));
    for (chain, rule) in rules(policy) {
        batch.add_rule(chain, &rule);
    }
}

/// All rules in order, each with its chain.
pub fn rules(policy: &Policy<'_>) -> Vec<(&'static str, Rule)> {
    let local = || Rule::default().to_this_host().jump("ports");
    let mut rules = vec![("prerouting", local()), ("output", local())];
    rules.extend(martians(policy).map(|r| ("martians", r)));
    rules.extend(redirects(policy).map(|r| ("redirects", r)));
    rules.extend(ports().into_iter().map(|r| ("ports", r)));
    rules.extend(source(policy).into_iter().map(|r| ("postrouting", r)));
    rules
}

/// Host ports on 127.0.0.1 need route_localnet on the bridge, which alone
/// would let pods reach what listens on the host's loopback (CVE-2020-8558).
/// Answers to the host's own connections are not caught: before connection
/// tracking they bear the bridge's address.
fn martians(policy: &Policy<'_>) -> impl Iterator<Item = Rule> {
    let loopback = Cidr::new([127, 0, 0, 0].into(), 8);
    let sides = [Side::Source, Side::Destination];
    let from_pods = policy.way.rule(NFT_META_IIFNAME, true);
    sides
        .into_iter()
        .zip([loopback; 2])
        .filter_map(move |(side, range)| {
            let rule = from_pods.clone().family(false).in_range(side, range?);
            Some(rule.verdict(NF_DROP))
        })
}

/// Pods reach each other through the host on purpose; it must not tell them
/// of a shorter way, which they could not use: they know no neighbour but it.
fn redirects(policy: &Policy<'_>) -> impl Iterator<Item = Rule> {
    let to_pods = policy.way.rule(NFT_META_OIFNAME, true);
    let kinds = [
        (libc::IPPROTO_ICMP, ICMP_REDIRECT),
        (libc::IPPROTO_ICMPV6, ND_REDIRECT),
    ];
    kinds.into_iter().map(move |(protocol, kind)| {
        let rule = to_pods.clone().icmp(protocol as u8, kind);
        rule.verdict(NF_DROP)
    })
}

fn ports() -> Vec<Rule> {
    let look = |ipv6, at, set| {
        let family = if ipv6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 };
        let words = if ipv6 { 4 } else { 1 };
        let rule = Rule::default().family(ipv6);
        let (rule, key) = match at {
            Some(side) => (rule.load_address(ipv6, side, 0), words),
            None => (rule, 0),
        };
        rule.load_port(key)
            .with(Expr::Lookup {
                set,
                at: 0,
                to: Some(0),
            })
            .with(Expr::Dnat {
                family,
                addr: 0,
                port: words,
            })
    };
    let here = Some(Side::Destination);
    let mut rules = Vec::new();
    // ::1 can't be routed out of the host, so it is refused at once instead.
    if let Some(loopback) = Cidr::new(std::net::Ipv6Addr::LOCALHOST.into(), 128) {
        let rule = Rule::default()
            .family(true)
            .in_range(Side::Destination, loopback);
        rules.push(rule.verdict(NFT_RETURN));
    }
    rules.push(look(false, here, MAP4_IP));
    rules.push(look(false, None, MAP4));
    rules.push(look(true, here, MAP6_IP));
    rules.push(look(true, None, MAP6));
    rules
}

fn source(policy: &Policy<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    // The host itself through 127.0.0.1: a pod can't answer to that address.
    if let Some(loopback) = Cidr::new([127, 0, 0, 0].into(), 8) {
        let rule = policy
            .way
            .rule(NFT_META_OIFNAME, true)
            .family(false)
            .in_range(Side::Source, loopback);
        rules.push(rule.with(Expr::Masquerade));
    }
    // A pod that reaches itself by its host port.
    for (ipv6, set, words) in [(false, SELF4, 1), (true, SELF6, 4)] {
        let rule = Rule::default()
            .family(ipv6)
            .load_address(ipv6, Side::Source, 0)
            .load_address(ipv6, Side::Destination, words)
            .with(Expr::Lookup {
                set,
                at: 0,
                to: None,
            })
            .with(Expr::Masquerade);
        rules.push(rule);
    }
    for pods in policy.pods {
        let from = || {
            Rule::default()
                .family(pods.is_ipv6())
                .in_range(Side::Source, *pods)
        };
        let seen = policy.no_masquerade.iter().chain(policy.pods);
        for range in seen.filter(|r| r.is_ipv6() == pods.is_ipv6()) {
            rules.push(
                from()
                    .in_range(Side::Destination, *range)
                    .verdict(NFT_RETURN),
            );
        }
        if let Some(range) = multicast(pods.is_ipv6()) {
            rules.push(
                from()
                    .in_range(Side::Destination, range)
                    .verdict(NFT_RETURN),
            );
        }
        let out = policy.way.narrow(from(), NFT_META_OIFNAME, false);
        rules.push(out.with(Expr::Masquerade));
    }
    rules
}

fn multicast(ipv6: bool) -> Option<Cidr> {
    if ipv6 {
        "ff00::/8".parse().ok()
    } else {
        "224.0.0.0/4".parse().ok()
    }
}

/// The elements of one pod: for each port one of each family that the pod and
/// the mapping have, and one that marks the pod's way to itself.
pub fn elements(ports: &[PortMapping], ips: &[IpAddr]) -> Vec<Element> {
    let mut all: Vec<Element> = ports
        .iter()
        .flat_map(|port| ips.iter().filter_map(|ip| port_element(port, *ip)))
        .collect();
    if !ports.is_empty() {
        all.extend(ips.iter().map(|ip| Element {
            set: if ip.is_ipv6() { SELF6 } else { SELF4 },
            key: [octets(*ip), octets(*ip)].concat(),
            data: None,
        }));
    }
    all
}

fn port_element(port: &PortMapping, pod: IpAddr) -> Option<Element> {
    let host = port.host_ip.filter(|ip| !ip.is_unspecified());
    if port.host_ip.is_some_and(|ip| ip.is_ipv6() != pod.is_ipv6()) {
        return None;
    }
    let service = [
        padded(&[protocol_number(port.protocol)]),
        padded(&port.host_port.to_be_bytes()),
    ];
    let set = match (pod.is_ipv6(), host.is_some()) {
        (false, false) => MAP4,
        (false, true) => MAP4_IP,
        (true, false) => MAP6,
        (true, true) => MAP6_IP,
    };
    let mut key = host.map(octets).unwrap_or_default();
    key.extend(service.concat());
    let mut data = octets(pod);
    data.extend(padded(&port.container_port.to_be_bytes()));
    Some(Element {
        set,
        key,
        data: Some(data),
    })
}

/// Each part of a concatenation fills whole registers.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(4, 0);
    padded
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn protocol_number(protocol: Protocol) -> u8 {
    let number = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    };
    number as u8
}

#[cfg(test)]
#[path = "ruleset_tests.rs"]
mod tests;
