//! What the whole node uses.

use crate::node::machine::meminfo_bytes;

/// Clock ticks a second in /proc: the same on every Linux ABI (USER_HZ).
pub const TICKS: f64 = 100.0;

/// Of the machine, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NodeUsage {
    /// Unix time in milliseconds.
    pub at_ms: i64,
    pub cpu_seconds: f64,
    pub memory_total: u64,
    pub memory_usage: u64,
    pub memory_working_set: u64,
    pub memory_rss: u64,
    pub memory_available: u64,
    pub swap_usage: u64,
    pub swap_available: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

impl NodeUsage {
    /// Reads /proc.
    pub fn read() -> NodeUsage {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let at_ms = jiff::Timestamp::now().as_millisecond();
        NodeUsage::parse(
            at_ms,
            &text("/proc/stat"),
            &text("/proc/meminfo"),
            &text("/proc/vmstat"),
        )
    }

    fn parse(at_ms: i64, stat: &str, meminfo: &str, vmstat: &str) -> NodeUsage {
        let mem = |field| meminfo_bytes(meminfo, field).unwrap_or_default();
        let vm = |field: &str| {
            let line = vmstat
                .lines()
                .find_map(|l| l.strip_prefix(field)?.strip_prefix(' '));
            line.and_then(|v| v.trim().parse().ok()).unwrap_or_default()
        };
        let usage = mem("MemTotal").saturating_sub(mem("MemFree"));
        NodeUsage {
            at_ms,
            cpu_seconds: cpu_seconds(stat),
            memory_total: mem("MemTotal"),
            memory_usage: usage,
            memory_working_set: usage.saturating_sub(mem("Inactive(file)")),
            memory_rss: mem("AnonPages"),
            memory_available: mem("MemAvailable"),
            swap_usage: mem("SwapTotal").saturating_sub(mem("SwapFree")),
            swap_available: mem("SwapFree"),
            page_faults: vm("pgfault"),
            major_page_faults: vm("pgmajfault"),
        }
    }
}

/// user, nice, system, irq, softirq, steal; guest time is in user already.
fn cpu_seconds(stat: &str) -> f64 {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "));
    let fields: Vec<f64> = line
        .unwrap_or_default()
        .split_whitespace()
        .map(|f| f.parse().unwrap_or_default())
        .collect();
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| fields.get(*i));
    busy.sum::<f64>() / TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_what_is_neither_idle_nor_waiting() {
        let usage = NodeUsage::parse(
            1,
            "cpu  100 10 50 9999 500 5 4 1 70 0\ncpu0 1\n",
            "MemTotal: 100 kB\nMemFree: 20 kB\nInactive(file): 30 kB\n",
            "pgfault 7\npgmajfault 2\n",
        );
        assert_eq!(usage.cpu_seconds, 1.7);
        assert_eq!(usage.memory_working_set, 50 * 1024);
        assert_eq!((usage.page_faults, usage.major_page_faults), (7, 2));
    }
}
