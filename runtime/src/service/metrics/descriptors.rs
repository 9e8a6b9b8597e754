//! Names, explanations and labels of the metrics. The names are cAdvisor's, as
//! cri-tools pkg/validate/pod.go lists them.

/// Labels of every metric: the container's name, its cgroup, its image, its
/// id, and its pod's namespace and name.
pub(super) const BASE_LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

type Descriptor = (&'static str, &'static str, &'static [&'static str]);

const DEVICE: &[&str] = &["device"];
const INTERFACE: &[&str] = &["interface"];

/// Name, explanation, further labels.
pub(super) const DESCRIPTORS: &[Descriptor] = &[
    (
        "container_blkio_device_usage_total",
        "Bytes read from and written to a device",
        &["device", "major", "minor", "operation"],
    ),
    (
        "container_cpu_cfs_periods_total",
        "Enforcement periods of the CPU quota that have passed",
        &[],
    ),
    (
        "container_cpu_cfs_throttled_periods_total",
        "Enforcement periods in which the CPU quota was used up",
        &[],
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "Seconds spent waiting for the next period",
        &[],
    ),
    (
        "container_cpu_system_seconds_total",
        "CPU seconds in the kernel",
        &[],
    ),
    ("container_cpu_usage_seconds_total", "CPU seconds", &["cpu"]),
    (
        "container_cpu_user_seconds_total",
        "CPU seconds outside the kernel",
        &[],
    ),
    ("container_file_descriptors", "Open file descriptors", &[]),
    (
        "container_fs_inodes_free",
        "Free inodes of the file system of the writable layer",
        DEVICE,
    ),
    (
        "container_fs_inodes_total",
        "Inodes of the file system of the writable layer",
        DEVICE,
    ),
    (
        "container_fs_limit_bytes",
        "Size of the file system of the writable layer",
        DEVICE,
    ),
    (
        "container_fs_reads_bytes_total",
        "Bytes read from devices",
        DEVICE,
    ),
    ("container_fs_reads_total", "Reads from devices", DEVICE),
    (
        "container_fs_usage_bytes",
        "Bytes that the writable layer takes",
        DEVICE,
    ),
    (
        "container_fs_writes_bytes_total",
        "Bytes written to devices",
        DEVICE,
    ),
    ("container_fs_writes_total", "Writes to devices", DEVICE),
    (
        "container_last_seen",
        "When these values were read, in seconds since the epoch",
        &[],
    ),
    ("container_memory_cache", "Bytes of file cache", &[]),
    (
        "container_memory_failcnt",
        "Times the memory limit was hit",
        &[],
    ),
    (
        "container_memory_failures_total",
        "Page faults",
        &["failure_type", "scope"],
    ),
    (
        "container_memory_kernel_usage",
        "Bytes of kernel memory",
        &[],
    ),
    ("container_memory_mapped_file", "Bytes of mapped files", &[]),
    (
        "container_memory_max_usage_bytes",
        "Most bytes of memory used so far",
        &[],
    ),
    ("container_memory_rss", "Bytes of anonymous memory", &[]),
    ("container_memory_swap", "Bytes of swap", &[]),
    (
        "container_memory_usage_bytes",
        "Bytes of memory used, file cache included",
        &[],
    ),
    (
        "container_memory_working_set_bytes",
        "Bytes of memory used, less the inactive file cache",
        &[],
    ),
    (
        "container_network_receive_bytes_total",
        "Bytes received",
        INTERFACE,
    ),
    (
        "container_network_receive_errors_total",
        "Errors while receiving",
        INTERFACE,
    ),
    (
        "container_network_receive_packets_dropped_total",
        "Packets dropped while receiving",
        INTERFACE,
    ),
    (
        "container_network_receive_packets_total",
        "Packets received",
        INTERFACE,
    ),
    (
        "container_network_transmit_bytes_total",
        "Bytes sent",
        INTERFACE,
    ),
    (
        "container_network_transmit_errors_total",
        "Errors while sending",
        INTERFACE,
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "Packets dropped while sending",
        INTERFACE,
    ),
    (
        "container_network_transmit_packets_total",
        "Packets sent",
        INTERFACE,
    ),
    (
        "container_oom_events_total",
        "Processes killed for want of memory",
        &[],
    ),
    (
        "container_pressure_cpu_stalled_seconds_total",
        "Seconds in which no process had the CPU that it wanted",
        &[],
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "Seconds in which some process waited for the CPU",
        &[],
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "Seconds in which all processes waited for I/O",
        &[],
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "Seconds in which some process waited for I/O",
        &[],
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "Seconds in which all processes waited for memory",
        &[],
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "Seconds in which some process waited for memory",
        &[],
    ),
    ("container_processes", "Processes", &[]),
    ("container_sockets", "Open sockets", &[]),
    (
        "container_spec_cpu_period",
        "Period of the CPU quota in microseconds",
        &[],
    ),
    (
        "container_spec_cpu_quota",
        "CPU quota in microseconds a period",
        &[],
    ),
    ("container_spec_cpu_shares", "CPU shares", &[]),
    (
        "container_spec_memory_limit_bytes",
        "Memory limit; 0 = none",
        &[],
    ),
    (
        "container_spec_memory_swap_limit_bytes",
        "Limit of memory and swap together; 0 = none",
        &[],
    ),
    (
        "container_start_time_seconds",
        "When the container was started, in seconds since the epoch",
        &[],
    ),
    ("container_threads", "Threads", &[]),
    ("container_threads_max", "Limit of threads; 0 = none", &[]),
];
