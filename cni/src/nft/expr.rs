//! Expressions of a rule: what `nft` prints as one word or two.

use super::message::Attributes;
use super::uapi::*;
use crate::Cidr;
use std::net::IpAddr;

/// Which address of the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the packet comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// One expression. Registers are counted in words of four bytes from
/// `NFT_REG32_00`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// `meta KEY` into a register.
    Meta { key: u32, to: u32 },
    /// Bytes of the packet into a register.
    Payload {
        base: u32,
        offset: u32,
        len: u32,
        to: u32,
    },
    /// `register & mask`, in place.
    Mask { mask: Vec<u8>, at: u32 },
    /// Goes on only if the register equals (or not) the value.
    Compare {
        at: u32,
        equal: bool,
        value: Vec<u8>,
    },
    /// Kind of the destination address as the routing table has it.
    FibDaddrType { to: u32 },
    /// Goes on only if the registers are in the set; a map puts its value into `to`.
    Lookup {
        set: &'static str,
        at: u32,
        to: Option<u32>,
    },
    /// New destination: address at one register, port at another.
    Dnat { family: u8, addr: u32, port: u32 },
    /// Source becomes the address of the outgoing interface.
    Masquerade,
    /// Ends the rule with a verdict.
    Verdict {
        code: i32,
        chain: Option<&'static str>,
    },
}

impl Expr {
    pub(super) fn encode(&self, a: &mut Attributes<'_>) {
        a.text(NFTA_EXPR_NAME, self.name());
        a.nest(NFTA_EXPR_DATA, |a| self.data(a));
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Payload { .. } => "payload",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::FibDaddrType { .. } => "fib",
            Self::Lookup { .. } => "lookup",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Verdict { .. } => "immediate",
        }
    }

    fn data(&self, a: &mut Attributes<'_>) {
        let reg = |n: &u32| NFT_REG32_00 + n;
        match self {
            Self::Meta { key, to } => {
                a.number(NFTA_META_KEY, *key);
                a.number(NFTA_META_DREG, reg(to));
            }
            Self::Payload {
                base,
                offset,
                len,
                to,
            } => {
                a.number(NFTA_PAYLOAD_DREG, reg(to));
                a.number(NFTA_PAYLOAD_BASE, *base);
                a.number(NFTA_PAYLOAD_OFFSET, *offset);
                a.number(NFTA_PAYLOAD_LEN, *len);
            }
            Self::Mask { mask, at } => {
                a.number(NFTA_BITWISE_SREG, reg(at));
                a.number(NFTA_BITWISE_DREG, reg(at));
                a.number(NFTA_BITWISE_LEN, mask.len() as u32);
                value(a, NFTA_BITWISE_MASK, mask);
                value(a, NFTA_BITWISE_XOR, &vec![0; mask.len()]);
            }
            Self::Compare {
                at,
                equal,
                value: v,
            } => {
                a.number(NFTA_CMP_SREG, reg(at));
                a.number(NFTA_CMP_OP, if *equal { NFT_CMP_EQ } else { NFT_CMP_NEQ });
                value(a, NFTA_CMP_DATA, v);
            }
            Self::FibDaddrType { to } => {
                a.number(NFTA_FIB_DREG, reg(to));
                a.number(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
                a.number(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
            }
            Self::Lookup { set, at, to } => {
                a.text(NFTA_LOOKUP_SET, set);
                a.number(NFTA_LOOKUP_SREG, reg(at));
                if let Some(to) = to {
                    a.number(NFTA_LOOKUP_DREG, reg(to));
                }
            }
            Self::Dnat { family, addr, port } => {
                a.number(NFTA_NAT_TYPE, NFT_NAT_DNAT);
                a.number(NFTA_NAT_FAMILY, u32::from(*family));
                a.number(NFTA_NAT_REG_ADDR_MIN, reg(addr));
                a.number(NFTA_NAT_REG_PROTO_MIN, reg(port));
            }
            Self::Masquerade => {
                a.number(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY);
            }
            Self::Verdict { code, chain } => {
                a.number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
                a.nest(NFTA_IMMEDIATE_DATA, |a| verdict(a, *code, *chain));
            }
        }
    }
}

fn value(a: &mut Attributes<'_>, kind: u16, bytes: &[u8]) {
    a.nest(kind, |a| {
        a.bytes(NFTA_DATA_VALUE, bytes);
    });
}

fn verdict(a: &mut Attributes<'_>, code: i32, chain: Option<&str>) {
    a.nest(NFTA_DATA_VERDICT, |a| {
        a.number(NFTA_VERDICT_CODE, code.cast_unsigned());
        if let Some(chain) = chain {
            a.text(NFTA_VERDICT_CHAIN, chain);
        }
    });
}

/// Expressions in a row that say one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule(pub Vec<Expr>);

impl Rule {
    /// `meta nfproto ipv4|ipv6`
    pub fn family(self, ipv6: bool) -> Self {
        let proto = if ipv6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 };
        self.with(Expr::Meta {
            key: NFT_META_NFPROTO,
            to: 0,
        })
        .equals(0, true, vec![proto])
    }

    /// `iifname NAME` (or `oifname`), or any other
    pub fn interface(self, key: u32, name: &str, equal: bool) -> Self {
        let mut padded = name.as_bytes().to_vec();
        padded.resize(IFNAMSIZ, 0);
        self.with(Expr::Meta { key, to: 0 })
            .equals(0, equal, padded)
    }

    /// The family's address into register `to`.
    pub fn load_address(self, ipv6: bool, side: Side, to: u32) -> Self {
        let (offset, len) = address_at(ipv6, side);
        let base = NFT_PAYLOAD_NETWORK_HEADER;
        self.with(Expr::Payload {
            base,
            offset,
            len,
            to,
        })
    }

    /// `ip saddr|daddr RANGE`; a family's rule must come first.
    pub fn in_range(self, side: Side, range: Cidr) -> Self {
        let (bytes, mask) = range_bytes(range);
        self.load_address(range.is_ipv6(), side, 0)
            .with(Expr::Mask { mask, at: 0 })
            .equals(0, true, bytes)
    }

    /// Transport protocol and destination port into two registers.
    pub fn load_port(self, to: u32) -> Self {
        self.with(Expr::Meta {
            key: NFT_META_L4PROTO,
            to,
        })
        .with(Expr::Payload {
            base: NFT_PAYLOAD_TRANSPORT_HEADER,
            offset: 2,
            len: 2,
            to: to + 1,
        })
    }

    /// `icmp type KIND`, or of another protocol that begins with its type
    pub fn icmp(self, protocol: u8, kind: u8) -> Self {
        let base = NFT_PAYLOAD_TRANSPORT_HEADER;
        self.with(Expr::Meta {
            key: NFT_META_L4PROTO,
            to: 0,
        })
        .equals(0, true, vec![protocol])
        .with(Expr::Payload {
            base,
            offset: 0,
            len: 1,
            to: 0,
        })
        .equals(0, true, vec![kind])
    }

    /// `fib daddr type local`
    pub fn to_this_host(self) -> Self {
        // linux/rtnetlink.h RTN_LOCAL, in the host's own byte order
        let local = u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec();
        self.with(Expr::FibDaddrType { to: 0 })
            .equals(0, true, local)
    }

    /// Ends with a verdict.
    pub fn verdict(self, code: i32) -> Self {
        self.with(Expr::Verdict { code, chain: None })
    }

    /// Ends with a jump.
    pub fn jump(self, chain: &'static str) -> Self {
        self.with(Expr::Verdict {
            code: NFT_JUMP,
            chain: Some(chain),
        })
    }

    /// One more expression.
    pub fn with(mut self, expr: Expr) -> Self {
        self.0.push(expr);
        self
    }

    fn equals(self, at: u32, equal: bool, value: Vec<u8>) -> Self {
        self.with(Expr::Compare { at, equal, value })
    }
}

/// linux/if.h
const IFNAMSIZ: usize = 16;

/// Where an address stands in the IP header (RFC 791, RFC 8200), and its length.
fn address_at(ipv6: bool, side: Side) -> (u32, u32) {
    match (ipv6, side) {
        (false, Side::Source) => (12, 4),
        (false, Side::Destination) => (16, 4),
        (true, Side::Source) => (8, 16),
        (true, Side::Destination) => (24, 16),
    }
}

fn range_bytes(range: Cidr) -> (Vec<u8>, Vec<u8>) {
    let (bytes, bits) = match range.addr() {
        IpAddr::V4(a) => (a.octets().to_vec(), 32),
        IpAddr::V6(a) => (a.octets().to_vec(), 128),
    };
    let host = bits - u32::from(range.prefix());
    let mask = if host == 128 { 0 } else { u128::MAX << host };
    let all = mask.to_be_bytes();
    (bytes, all[16 - bits as usize / 8..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_becomes_address_and_mask_of_the_same_length() {
        let (a, m) = range_bytes("10.88.0.0/20".parse().unwrap());
        assert_eq!((a, m), (vec![10, 88, 0, 0], vec![255, 255, 240, 0]));
        let (a, m) = range_bytes("fd00::/8".parse().unwrap());
        assert_eq!(a.len(), 16);
        assert_eq!(m, [vec![255], vec![0; 15]].concat());
        assert_eq!(range_bytes("::/0".parse().unwrap()).1, vec![0; 16]);
    }
}
