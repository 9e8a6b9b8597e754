//! Forgets flows whose translation is no longer right.
//!
//! A TCP client opens a new connection; a UDP client may go on sending from
//! the same port for ever, and each packet keeps the old translation alive.

use super::message::{Messages, NLM_F_ACK, NLM_F_DUMP, attributes};
use super::socket::request;
use super::uapi::{NFNL_SUBSYS_CTNETLINK, NFPROTO_IPV4, NFPROTO_IPV6};
use std::io;
use std::net::IpAddr;

/// `linux/netfilter/nfnetlink_conntrack.h`
mod uapi {
    pub const IPCTNL_MSG_CT_GET: u16 = 1;
    pub const IPCTNL_MSG_CT_DELETE: u16 = 2;
    pub const CTA_TUPLE_ORIG: u16 = 1;
    pub const CTA_TUPLE_REPLY: u16 = 2;
    pub const CTA_ZONE: u16 = 18;
    pub const CTA_TUPLE_IP: u16 = 1;
    pub const CTA_TUPLE_PROTO: u16 = 2;
    pub const CTA_IP_V4_SRC: u16 = 1;
    pub const CTA_IP_V6_SRC: u16 = 3;
    pub const CTA_PROTO_NUM: u16 = 1;
    pub const CTA_PROTO_DST_PORT: u16 = 3;
}
use uapi::*;

/// Length of nfgenmsg.
const GENERIC: usize = 4;

/// One flow as the kernel lists it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Flow {
    protocol: u8,
    /// Where the client sent to.
    port: u16,
    /// Who answers.
    answers: Option<IpAddr>,
    tuple: Vec<u8>,
    zone: Option<Vec<u8>>,
}

/// Deletes the UDP flows that were sent to one of the ports but are answered
/// by somebody other than who has the port now (`None` = nobody). Answers how
/// many. Blocks while the kernel lists all flows of the family.
pub fn forget_udp(ipv6: bool, ports: &[u16], owner: Option<IpAddr>) -> io::Result<usize> {
    let family = if ipv6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 };
    let mut stale = Vec::new();
    let mut list = Messages::default();
    list.push(
        (NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET),
        NLM_F_DUMP,
        family,
        |_| {},
    );
    request(&list, |body| {
        let flow = parse(body);
        if is_stale(&flow, ports, owner) {
            stale.push(flow);
        }
    })?;
    for flow in &stale {
        delete(family, flow)?;
    }
    Ok(stale.len())
}

fn is_stale(flow: &Flow, ports: &[u16], owner: Option<IpAddr>) -> bool {
    i32::from(flow.protocol) == libc::IPPROTO_UDP
        && ports.contains(&flow.port)
        && (owner.is_none() || flow.answers != owner)
}

fn delete(family: u8, flow: &Flow) -> io::Result<()> {
    let mut message = Messages::default();
    message.push(
        (NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE),
        NLM_F_ACK,
        family,
        |a| {
            a.nest(CTA_TUPLE_ORIG, |a| a.raw(&flow.tuple));
            if let Some(zone) = &flow.zone {
                a.bytes(CTA_ZONE, zone);
            }
        },
    );
    match request(&message, |_| {}) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn parse(body: &[u8]) -> Flow {
    let mut flow = Flow::default();
    for (kind, value) in attributes(body.get(GENERIC..).unwrap_or(&[])) {
        match kind {
            CTA_TUPLE_ORIG => {
                flow.tuple = value.to_vec();
                (flow.protocol, flow.port) = protocol_and_port(value);
            }
            CTA_TUPLE_REPLY => flow.answers = source(value),
            CTA_ZONE => flow.zone = Some(value.to_vec()),
            _ => {}
        }
    }
    flow
}

fn protocol_and_port(tuple: &[u8]) -> (u8, u16) {
    let mut found = (0, 0);
    let proto = attributes(tuple).find(|(kind, _)| *kind == CTA_TUPLE_PROTO);
    for (kind, value) in attributes(proto.map_or(&[], |(_, value)| value)) {
        match (kind, value) {
            (CTA_PROTO_NUM, [number, ..]) => found.0 = *number,
            (CTA_PROTO_DST_PORT, [high, low, ..]) => found.1 = u16::from_be_bytes([*high, *low]),
            _ => {}
        }
    }
    found
}

fn source(tuple: &[u8]) -> Option<IpAddr> {
    let (_, ip) = attributes(tuple).find(|(kind, _)| *kind == CTA_TUPLE_IP)?;
    attributes(ip).find_map(|(kind, value)| match kind {
        CTA_IP_V4_SRC => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        CTA_IP_V6_SRC => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_to(port: u16, answers: [u8; 4]) -> Vec<u8> {
        let mut m = Messages::default();
        m.push((1, 0), 0, NFPROTO_IPV4, |a| {
            a.nest(CTA_TUPLE_ORIG, |a| {
                a.nest(CTA_TUPLE_PROTO, |a| {
                    a.bytes(CTA_PROTO_NUM, &[17]);
                    a.bytes(CTA_PROTO_DST_PORT, &port.to_be_bytes());
                });
            });
            a.nest(CTA_TUPLE_REPLY, |a| {
                a.nest(CTA_TUPLE_IP, |a| {
                    a.bytes(CTA_IP_V4_SRC, &answers);
                });
            });
        });
        m.bytes()[16..].to_vec()
    }

    #[test]
    fn flow_is_stale_when_another_than_the_owner_answers() {
        let flow = parse(&udp_to(5353, [10, 0, 0, 7]));
        let owner = |last| Some(IpAddr::from([10, 0, 0, last]));
        assert_eq!(
            (flow.protocol, flow.port, flow.answers),
            (17, 5353, owner(7))
        );
        assert!(!is_stale(&flow, &[5353], owner(7)));
        assert!(is_stale(&flow, &[5353], owner(8)));
        assert!(is_stale(&flow, &[5353], None));
        assert!(!is_stale(&flow, &[53], None));
    }

    #[test]
    fn flow_of_cut_bytes_is_nobodys() {
        let whole = udp_to(5353, [10, 0, 0, 7]);
        for cut in 0..whole.len() {
            let _ = parse(&whole[..cut]);
        }
        assert_eq!(parse(&[]), Flow::default());
    }
}
