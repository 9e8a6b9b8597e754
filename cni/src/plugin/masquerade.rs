//! `ipMasq`: a table for each network, with a set of its pods.

use super::failure::Failure;
use super::request::Request;
use crate::Cidr;
use crate::builtin::BuiltinError;
use crate::nft::uapi::{NF_INET_POST_ROUTING, NFT_RETURN};
use crate::nft::{Batch, Element, Expr, Hook, Rule, SetSpec, Side};
use std::io;
use std::net::IpAddr;

// Types of nftables 1.1 include/datatype.h.
const PODS4: SetSpec = SetSpec {
    name: "pods4",
    key_type: 7,
    key_len: 4,
    data: None,
};
const PODS6: SetSpec = SetSpec {
    name: "pods6",
    key_type: 8,
    key_len: 16,
    data: None,
};
/// `NF_IP_PRI_NAT_SRC`.
const SOURCE: i32 = 100;

/// Pods' traffic out of the subnets bears the host's address from now on.
pub fn add(request: &Request, ips: &[(IpAddr, u8)]) -> Result<(), Failure> {
    let table = table(request);
    let mut batch = Batch::new(&table);
    batch.add_table();
    batch.add_set(&PODS4);
    batch.add_set(&PODS6);
    let hook = Hook {
        kind: "nat",
        number: NF_INET_POST_ROUTING,
        priority: SOURCE,
    };
    batch.add_chain("postrouting", Some(hook));
    for (ip, prefix) in ips {
        for rule in rules(*ip, *prefix) {
            batch.add_rule("postrouting", &rule);
        }
        batch.add_element(&element(*ip));
    }
    commit("masquerade a pod", table, batch)
}

/// Forgets a pod; one that isn't there is fine.
pub fn del(request: &Request, ips: &[(IpAddr, u8)]) -> Result<(), Failure> {
    for (ip, _) in ips {
        let mut batch = Batch::new(&table(request));
        batch.delete_element(&element(*ip));
        match batch.commit() {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(filter("forget a masqueraded pod", table(request), e));
            }
            _ => {}
        }
    }
    Ok(())
}

fn rules(ip: IpAddr, prefix: u8) -> Vec<Rule> {
    let ipv6 = ip.is_ipv6();
    let (set, multicast) = if ipv6 {
        (PODS6.name, "ff00::/8")
    } else {
        (PODS4.name, "224.0.0.0/4")
    };
    let from = || {
        let rule = Rule::default()
            .family(ipv6)
            .load_address(ipv6, Side::Source, 0);
        rule.with(Expr::Lookup {
            set,
            at: 0,
            to: None,
        })
    };
    let inside = [Cidr::new(ip, prefix), multicast.parse().ok()];
    let stay = inside.into_iter().flatten();
    let mut rules: Vec<Rule> = stay
        .map(|range| {
            from()
                .in_range(Side::Destination, range)
                .verdict(NFT_RETURN)
        })
        .collect();
    rules.push(from().with(Expr::Masquerade));
    rules
}

fn element(ip: IpAddr) -> Element {
    let (set, key) = match ip {
        IpAddr::V4(a) => (PODS4.name, a.octets().to_vec()),
        IpAddr::V6(a) => (PODS6.name, a.octets().to_vec()),
    };
    Element {
        set,
        key,
        data: None,
    }
}

fn table(request: &Request) -> String {
    format!("cni-{}", request.network())
}

fn commit(what: &'static str, table: String, batch: Batch) -> Result<(), Failure> {
    batch.commit().map_err(|source| filter(what, table, source))
}

fn filter(what: &'static str, table: String, source: io::Error) -> Failure {
    BuiltinError::Filter {
        what,
        table,
        source,
    }
    .into()
}
