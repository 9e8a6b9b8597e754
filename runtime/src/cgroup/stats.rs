//! What a cgroup uses.

use super::{CgroupPath, Cgroups};
use cgroupfs::{number, text};
use cgroups_rs::fs::blkio::BlkIoController;
use cgroups_rs::fs::pid::PidController;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A look at a cgroup's counters. Zero where the host does not count.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Stats {
    pub cpu_usage_ns: u64,
    pub cpu_user_ns: u64,
    pub cpu_system_ns: u64,
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub cpu_throttled_ns: u64,
    pub memory_usage: u64,
    pub memory_max_usage: u64,
    /// `None` = no limit.
    pub memory_limit: Option<u64>,
    pub memory_failcnt: u64,
    /// Usage less the file cache that can be dropped first.
    pub working_set: u64,
    pub rss: u64,
    pub cache: u64,
    pub mapped_file: u64,
    pub kernel_memory: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap_usage: u64,
    pub swap_limit: Option<u64>,
    pub pids: u64,
    pub pids_max: Option<u64>,
    pub oom_kills: u64,
    /// By device `major:minor` and operation.
    pub io_bytes: Vec<(String, String, u64)>,
    pub io_operations: Vec<(String, String, u64)>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// Pressure stall information of one resource; v2 only.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Pressure {
    pub some: PressureLine,
    pub full: PressureLine,
}

/// Averages in percent over 10, 60 and 300 seconds, and the total.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[allow(missing_docs)]
pub struct PressureLine {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

/// Limits at or above this are "none": v1 shows the largest page count in bytes.
const UNLIMITED: u64 = 1 << 62;

impl Cgroups {
    /// Reads the counters; `None` when the cgroup is gone.
    #[must_use]
    pub fn stats(&self, path: &CgroupPath) -> Option<Stats> {
        let memory = self.controller("memory").map(|h| (h.v2, self.dir(h, path)));
        let cpu = self.controller("cpu").map(|h| (h.v2, self.dir(h, path)));
        let probe = memory.as_ref().or(cpu.as_ref())?;
        if !probe.1.exists() {
            return None;
        }
        let mut stats = Stats::default();
        match &memory {
            Some((true, dir)) => memory_v2(dir, &mut stats),
            Some((false, dir)) => memory_v1(dir, &mut stats),
            None => {}
        }
        match &cpu {
            Some((true, dir)) => cpu_v2(dir, &mut stats),
            Some((false, dir)) => self.cpu_v1(path, dir, &mut stats),
            None => {}
        }
        self.pids_and_io(path, &mut stats);
        Some(stats)
    }

    fn cpu_v1(&self, path: &CgroupPath, cpu: &Path, stats: &mut Stats) {
        let account = self.controller("cpuacct").map(|h| self.dir(h, path));
        if let Some(dir) = account {
            stats.cpu_usage_ns = number(&dir.join("cpuacct.usage")).unwrap_or(0);
            stats.cpu_user_ns = number(&dir.join("cpuacct.usage_user")).unwrap_or(0);
            stats.cpu_system_ns = number(&dir.join("cpuacct.usage_sys")).unwrap_or(0);
        }
        let throttled = table(&cpu.join("cpu.stat"));
        let get = |key: &str| throttled.get(key).copied().unwrap_or(0);
        stats.cpu_periods = get("nr_periods");
        stats.cpu_throttled_periods = get("nr_throttled");
        stats.cpu_throttled_ns = get("throttled_time");
    }

    fn pids_and_io(&self, path: &CgroupPath, stats: &mut Stats) {
        if let Some(home) = self.controller("pids") {
            let dir = self.dir(home, path);
            let pids = PidController::new(dir.clone(), dir, home.v2);
            stats.pids = pids.get_pid_current().unwrap_or(0);
            stats.pids_max = match pids.get_pid_max() {
                Ok(cgroups_rs::fs::MaxValue::Value(max)) => u64::try_from(max).ok(),
                _ => None,
            };
        }
        let home = self.controller("io").or(self.controller("blkio"));
        let Some(home) = home else { return };
        let dir = self.dir(home, path);
        if home.v2 {
            io_v2(&dir, stats);
        } else {
            io_v1(&dir, stats);
        }
    }
}

/// What the kernel counts here and below; `None` when the cgroup is gone.
pub(super) fn oom_kills_in(dir: &Path, v2: bool) -> Option<u64> {
    let file = match v2 {
        true => "memory.events",
        false => "memory.oom_control",
    };
    let text = fs::read_to_string(dir.join(file)).ok()?;
    Some(parse_table(&text).get("oom_kill").copied().unwrap_or(0))
}

fn memory_v1(dir: &Path, stats: &mut Stats) {
    let stat = table(&dir.join("memory.stat"));
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let read = |file: &str| number(&dir.join(file));
    stats.memory_usage = read("memory.usage_in_bytes").unwrap_or(0);
    stats.memory_max_usage = read("memory.max_usage_in_bytes").unwrap_or(0);
    stats.memory_limit = read("memory.limit_in_bytes").filter(|n| *n < UNLIMITED);
    stats.memory_failcnt = read("memory.failcnt").unwrap_or(0);
    stats.kernel_memory = read("memory.kmem.usage_in_bytes").unwrap_or(0);
    stats.inactive_file = get("total_inactive_file");
    stats.active_file = get("total_active_file");
    stats.working_set = stats.memory_usage.saturating_sub(stats.inactive_file);
    stats.rss = get("total_rss");
    stats.cache = get("total_cache");
    stats.mapped_file = get("total_mapped_file");
    stats.page_faults = get("total_pgfault");
    stats.major_page_faults = get("total_pgmajfault");
    let both = read("memory.memsw.usage_in_bytes");
    stats.swap_usage = both.map_or(get("total_swap"), |n| n.saturating_sub(stats.memory_usage));
    stats.swap_limit = read("memory.memsw.limit_in_bytes")
        .filter(|n| *n < UNLIMITED)
        .map(|n| n.saturating_sub(stats.memory_limit.unwrap_or(0)));
    stats.oom_kills = table(&dir.join("memory.oom_control"))
        .get("oom_kill")
        .copied()
        .unwrap_or(0);
}

fn memory_v2(dir: &Path, stats: &mut Stats) {
    let stat = table(&dir.join("memory.stat"));
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    let read = |file: &str| number(&dir.join(file));
    stats.memory_usage = read("memory.current").unwrap_or(0);
    stats.memory_max_usage = read("memory.peak").unwrap_or(0);
    stats.memory_limit = read("memory.max");
    stats.inactive_file = get("inactive_file");
    stats.active_file = get("active_file");
    stats.working_set = stats.memory_usage.saturating_sub(stats.inactive_file);
    stats.rss = get("anon");
    stats.cache = get("file");
    stats.mapped_file = get("file_mapped");
    stats.kernel_memory = get("kernel");
    stats.page_faults = get("pgfault");
    stats.major_page_faults = get("pgmajfault");
    stats.swap_usage = read("memory.swap.current").unwrap_or(0);
    stats.swap_limit = read("memory.swap.max");
    let events = table(&dir.join("memory.events"));
    stats.oom_kills = events.get("oom_kill").copied().unwrap_or(0);
    stats.memory_failcnt = events.get("max").copied().unwrap_or(0);
    stats.memory_pressure = pressure(&dir.join("memory.pressure"));
}

fn cpu_v2(dir: &Path, stats: &mut Stats) {
    let stat = table(&dir.join("cpu.stat"));
    let get = |key: &str| stat.get(key).copied().unwrap_or(0);
    stats.cpu_usage_ns = get("usage_usec") * 1000;
    stats.cpu_user_ns = get("user_usec") * 1000;
    stats.cpu_system_ns = get("system_usec") * 1000;
    stats.cpu_periods = get("nr_periods");
    stats.cpu_throttled_periods = get("nr_throttled");
    stats.cpu_throttled_ns = get("throttled_usec") * 1000;
    stats.cpu_pressure = pressure(&dir.join("cpu.pressure"));
    stats.io_pressure = pressure(&dir.join("io.pressure"));
}

fn io_v1(dir: &Path, stats: &mut Stats) {
    let io = BlkIoController::new(dir.to_owned(), dir.to_owned(), false).blkio();
    for device in &io.throttle.io_service_bytes_recursive {
        let name = format!("{}:{}", device.major, device.minor);
        stats
            .io_bytes
            .push((name.clone(), "Read".to_owned(), device.read));
        stats
            .io_bytes
            .push((name, "Write".to_owned(), device.write));
    }
    for device in &io.throttle.io_serviced_recursive {
        let name = format!("{}:{}", device.major, device.minor);
        stats
            .io_operations
            .push((name.clone(), "Read".to_owned(), device.read));
        stats
            .io_operations
            .push((name, "Write".to_owned(), device.write));
    }
}

fn io_v2(dir: &Path, stats: &mut Stats) {
    for line in text(&dir.join("io.stat")).lines() {
        let Some((device, fields)) = line.split_once(' ') else {
            continue;
        };
        for (key, value) in fields.split(' ').filter_map(|f| f.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            let (list, operation) = match key {
                "rbytes" => (&mut stats.io_bytes, "Read"),
                "wbytes" => (&mut stats.io_bytes, "Write"),
                "rios" => (&mut stats.io_operations, "Read"),
                "wios" => (&mut stats.io_operations, "Write"),
                _ => continue,
            };
            list.push((device.to_owned(), operation.to_owned(), value));
        }
    }
}

/// A file of `key value` lines.
fn table(path: &Path) -> HashMap<String, u64> {
    parse_table(&text(path))
}

fn parse_table(text: &str) -> HashMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn pressure(path: &Path) -> Option<Pressure> {
    parse_pressure(&fs::read_to_string(path).ok()?)
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let (kind, fields) = line.split_once(' ')?;
        let target = match kind {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in fields.split(' ').filter_map(|f| f.split_once('=')) {
            match key {
                "avg10" => target.avg10 = value.parse().ok()?,
                "avg60" => target.avg60 = value.parse().ok()?,
                "avg300" => target.avg300 = value.parse().ok()?,
                "total" => target.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    Some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_line_by_line() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=123\n\
                    full avg10=0.10 avg60=0.00 avg300=0.00 total=45\n";
        let pressure = parse_pressure(text).expect("pressure");
        assert_eq!(pressure.some.total, 123);
        assert_eq!(pressure.some.avg10, 1.5);
        assert_eq!(pressure.full.total, 45);
    }
}
