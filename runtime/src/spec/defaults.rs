//! Values that users rely on, with where they come from.

/// moby v28 oci/defaults.go `DefaultLinuxSpec`, with the powercap counters of
/// GHSA-7ww5-4wqc-m92c.
pub const DEFAULT_MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// moby v28 oci/defaults.go `DefaultLinuxSpec`.
pub const DEFAULT_READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// containerd v2 pkg/oci/spec.go `defaultUnixEnv`.
pub(super) const DEFAULT_PATH: &str =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// containerd v2 pkg/oci/spec.go `defaultUnixCaps`.
pub(super) const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Greatest id that Kubernetes takes: apimachinery v0.37
/// pkg/util/validation `IsValidUserID`.
pub(super) const MAX_ID: u32 = i32::MAX as u32;

/// containerd v2 internal/cri/server/podsandbox `defaultShmSize`.
pub(super) const SHM_SIZE: u64 = 64 << 20;
