use crate::Cidr;
use std::net::IpAddr;

/// Addresses that may be given out: a subnet, or a piece of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    subnet: Cidr,
    first: u128,
    last: u128,
    gateway: IpAddr,
}

impl Range {
    /// All of the subnet but network, broadcast and gateway addresses; the
    /// gateway is the first unless told. `None` when nothing is left.
    pub fn new(
        subnet: Cidr,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Option<Self> {
        let top = if subnet.is_ipv6() {
            subnet.last_index()
        } else {
            subnet.last_index().checked_sub(1)?
        };
        let within = |ip: Option<IpAddr>, default| ip.map_or(Some(default), |ip| subnet.index(ip));
        let first = within(start, 1)?;
        let last = within(end, top)?.min(top);
        let gateway = gateway.or_else(|| subnet.nth(1))?;
        (first >= 1 && first <= last).then_some(Self {
            subnet,
            first,
            last,
            gateway,
        })
    }

    /// The subnet, whose prefix the addresses carry.
    pub fn subnet(&self) -> Cidr {
        self.subnet
    }

    /// The router's address, never given out.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Whether the address may be given out.
    pub fn offers(&self, ip: IpAddr) -> bool {
        let index = self.subnet.index(ip);
        ip != self.gateway && index.is_some_and(|i| i >= self.first && i <= self.last)
    }

    /// Every address once, beginning after the one given out last: an address
    /// just released is the last to come again.
    pub fn after(&self, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
        let (first, end, subnet, gateway) = (self.first, self.last, self.subnet, self.gateway);
        let count = end - first;
        let start = last
            .and_then(|ip| subnet.index(ip))
            .filter(|i| (first..end).contains(i))
            .map_or(first, |i| i + 1);
        (0..=count)
            .map(move |n| {
                let ahead = end - start;
                if n <= ahead {
                    start + n
                } else {
                    first + (n - ahead - 1)
                }
            })
            .filter_map(move |index| subnet.nth(index))
            .filter(move |ip| *ip != gateway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subnet: &str) -> Option<Range> {
        Range::new(subnet.parse().unwrap(), None, None, None)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn range_gives_neither_network_gateway_nor_broadcast() {
        let all: Vec<_> = range("10.0.0.0/29").unwrap().after(None).collect();
        assert_eq!(all.first(), Some(&ip("10.0.0.2")));
        assert_eq!(all.last(), Some(&ip("10.0.0.6")));
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn range_goes_on_after_the_last_and_wraps() {
        let r = range("10.0.0.0/29").unwrap();
        let order: Vec<_> = r.after(Some(ip("10.0.0.5"))).collect();
        assert_eq!(order[0], ip("10.0.0.6"));
        assert_eq!(order[1], ip("10.0.0.2"));
        assert_eq!(order.len(), 5);
        assert_eq!(r.after(Some(ip("10.0.0.6"))).next(), Some(ip("10.0.0.2")));
    }

    #[test]
    fn range_is_none_when_nothing_is_left() {
        assert_eq!(range("10.0.0.0/32"), None);
        assert_eq!(range("10.0.0.0/31"), None);
        let huge = range("fd00::/64").unwrap();
        assert_eq!(huge.after(None).next(), Some(ip("fd00::2")));
    }

    #[test]
    fn range_keeps_to_its_piece_of_the_subnet() {
        let subnet = "10.0.0.0/24".parse().unwrap();
        let r = Range::new(subnet, Some(ip("10.0.0.10")), Some(ip("10.0.0.12")), None).unwrap();
        let all: Vec<_> = r.after(None).collect();
        assert_eq!(all, [ip("10.0.0.10"), ip("10.0.0.11"), ip("10.0.0.12")]);
        assert!(r.offers(ip("10.0.0.11")) && !r.offers(ip("10.0.0.13")));
        assert_eq!(Range::new(subnet, Some(ip("10.1.0.1")), None, None), None);
    }
}
