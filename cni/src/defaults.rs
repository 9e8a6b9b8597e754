//! Constants that others fixed.

use std::time::Duration;

/// The pod's interface: the CRI runtimes' common name
/// (containerd v2.4.2 internal/cri/server/service_linux.go).
pub const POD_INTERFACE: &str = "eth0";
/// Index of a namespace's loopback (linux/net/core: the first device made).
pub const LOOPBACK_INDEX: u32 = 1;
/// MTU of Ethernet, where no default route tells another.
pub const MTU: u32 = 1500;
/// How long one foreign plugin may take
/// (kubernetes v1.37 runtimeRequestTimeout, 2 min, is what waits for us).
pub const PLUGIN_DEADLINE: Duration = Duration::from_secs(100);
/// Where namespaces are given paths (iproute2 lib/namespace.h `NETNS_RUN_DIR`,
/// under the name that cilium's agent watches).
pub const NETNS_DIR: &str = "/var/run/netns";
