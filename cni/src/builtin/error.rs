use super::SysctlError;
use crate::Cidr;
use crate::ipam::StoreError;
use crate::netlink::NetlinkError;
use std::io;
use std::net::IpAddr;

/// Why the built-in network could not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum BuiltinError {
    /// The kernel refused a link, an address or a route.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A kernel setting can't be made.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// No address, or none given back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No socket inside the pod.
    #[error("open a netlink socket in the pod's network namespace")]
    Netns(#[source] io::Error),
    /// The kernel refused a change of the packet filter.
    #[error(
        "{what} in nf_tables table inet {table} (does the kernel have nf_tables with nat, masq and fib?)"
    )]
    Filter {
        /// What was changed.
        what: &'static str,
        /// Our table.
        table: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// Another pod has one of the host ports.
    #[error("one of the host ports {ports} is taken by another pod")]
    PortTaken {
        /// The ports asked for.
        ports: String,
    },
    /// Connection tracking did not forget flows of a port.
    #[error("forget the UDP flows of host ports")]
    Conntrack(#[source] io::Error),
    /// No pod fits into it.
    #[error("pod CIDR {cidr} has no room for a gateway and a pod")]
    RangeTooSmall {
        /// The range.
        cidr: Cidr,
    },
    /// An end of the pod's wire has gone.
    #[error("interface {name} has gone while the pod was wired or looked at")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// The pod's interface lacks an address.
    #[error("the pod's interface lacks {ip}")]
    NoAddress {
        /// The address.
        ip: IpAddr,
    },
    /// The agent is ending.
    #[error("interrupted: the agent is shutting down")]
    ShuttingDown,
}
