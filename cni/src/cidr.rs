//! An address range.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address range such as a node's podCIDR; the host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a CIDR such as 10.88.0.0/24")]
pub struct ParseCidrError(String);

impl Cidr {
    /// The range of this prefix length around the address; `None` when the
    /// prefix is longer than the address.
    pub fn new(addr: IpAddr, prefix: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(a) if prefix <= 32 => {
                IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & mask(prefix, 32) as u32))
            }
            IpAddr::V6(a) if prefix <= 128 => {
                IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & mask(prefix, 128)))
            }
            _ => return None,
        };
        Some(Self { addr, prefix })
    }

    /// The first address, whose host bits are zero.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether this is a range of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.addr.is_ipv6()
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, addr: IpAddr) -> bool {
        Self::new(addr, self.prefix) == Some(*self)
    }

    /// The n-th address of the range, host bits and all; `None` past its end.
    pub fn nth(&self, n: u128) -> Option<IpAddr> {
        if n > self.last_index() {
            return None;
        }
        Some(match self.addr {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() | n as u32)),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() | n)),
        })
    }

    /// Position of the address in the range.
    pub fn index(&self, addr: IpAddr) -> Option<u128> {
        if !self.contains(addr) {
            return None;
        }
        match (self.addr, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => Some(u128::from(b.to_bits() - a.to_bits())),
            (IpAddr::V6(a), IpAddr::V6(b)) => Some(b.to_bits() - a.to_bits()),
            _ => None,
        }
    }

    /// Index of the last address (the broadcast address of IPv4).
    pub fn last_index(&self) -> u128 {
        let bits = if self.is_ipv6() { 128 } else { 32 };
        let host = bits - u32::from(self.prefix);
        if host == 128 {
            u128::MAX
        } else {
            (1 << host) - 1
        }
    }
}

fn mask(prefix: u8, bits: u32) -> u128 {
    let host = bits - u32::from(prefix);
    if host == 128 { 0 } else { u128::MAX << host }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseCidrError(text.to_owned());
        let (addr, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        let addr = addr.parse().map_err(|_| bad())?;
        let prefix = prefix.parse().map_err(|_| bad())?;
        Self::new(addr, prefix).ok_or_else(bad)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidr_drops_host_bits_and_knows_its_members() {
        let c: Cidr = "10.88.3.7/24".parse().unwrap();
        assert_eq!(c.to_string(), "10.88.3.0/24");
        assert!(c.contains("10.88.3.255".parse().unwrap()));
        assert!(!c.contains("10.88.4.0".parse().unwrap()));
        assert!(!c.contains("fd00::1".parse().unwrap()));
        assert_eq!(c.nth(1), Some("10.88.3.1".parse().unwrap()));
        assert_eq!(c.nth(256), None);
        assert_eq!(c.index("10.88.3.9".parse().unwrap()), Some(9));
    }

    #[test]
    fn cidr_of_everything_has_no_overflow() {
        let c: Cidr = "::/0".parse().unwrap();
        assert_eq!(c.last_index(), u128::MAX);
        let c: Cidr = "0.0.0.0/0".parse().unwrap();
        assert_eq!(c.last_index(), u128::from(u32::MAX));
        assert!(c.contains("255.1.2.3".parse().unwrap()));
    }

    #[test]
    fn cidr_refuses_what_is_none() {
        for text in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129", ""] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
