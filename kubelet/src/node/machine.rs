//! What this host is: read from /proc, /sys and /etc once, or now and then.

use std::collections::BTreeMap;
use std::path::Path;

/// What does not change while the host is up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Machine {
    pub cpus: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub swap: u64,
    /// Page size in bytes to number of pages.
    pub hugepages: BTreeMap<u64, u64>,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel_version: String,
    pub os_image: String,
    /// As Go names it: `amd64`.
    pub architecture: String,
    /// Root here is not the machine's root.
    pub in_user_namespace: bool,
}

impl Machine {
    /// Reads it; what can't be read stays empty, because a node without, say, a
    /// DMI table is a node all the same.
    pub fn read() -> Machine {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let word = |path: &str| text(path).trim().to_owned();
        let meminfo = text("/proc/meminfo");
        let machine_id = match word("/etc/machine-id") {
            id if id.is_empty() => word("/var/lib/dbus/machine-id"),
            id => id,
        };
        let system_uuid = match word("/sys/class/dmi/id/product_uuid") {
            id if id.is_empty() => machine_id.clone(),
            id => id,
        };
        Machine {
            cpus: cpus(&text("/sys/devices/system/cpu/online")),
            memory: meminfo_bytes(&meminfo, "MemTotal").unwrap_or_default(),
            swap: meminfo_bytes(&meminfo, "SwapTotal").unwrap_or_default(),
            hugepages: hugepages(Path::new(HUGE_PAGES)),
            machine_id,
            system_uuid,
            boot_id: word("/proc/sys/kernel/random/boot_id"),
            kernel_version: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            os_image: os_image(&text("/etc/os-release")),
            architecture: go_architecture(std::env::consts::ARCH).to_owned(),
            in_user_namespace: is_mapped(&text("/proc/self/uid_map")),
        }
    }
}

/// Only the first user namespace maps every id to itself (user_namespaces(7)).
fn is_mapped(uid_map: &str) -> bool {
    let numbers: Vec<&str> = uid_map.split_whitespace().collect();
    !numbers.is_empty() && numbers != ["0", "0", "4294967295"]
}

/// Go's name of an architecture.
pub fn go_architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `0-3,8` is five.
fn cpus(online: &str) -> u64 {
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    };
    let total = online.trim().split(',').filter_map(count).sum::<u64>();
    match total {
        0 => std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        n => n,
    }
}

/// A line of /proc/meminfo in bytes.
pub fn meminfo_bytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|l| l.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// A folder for each size.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// Bytes of each size that the kernel knows, of which there may be no pages.
pub fn huge_page_sizes() -> Vec<u64> {
    hugepages(Path::new(HUGE_PAGES)).into_keys().collect()
}

/// Pages by size in bytes, of the machine or a NUMA node.
pub fn hugepages(dir: &Path) -> BTreeMap<u64, u64> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kib = name.strip_prefix("hugepages-")?.strip_suffix("kB")?;
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        Some((kib.parse::<u64>().ok()? * 1024, count.trim().parse().ok()?))
    });
    sizes.collect()
}

fn os_image(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |n| n.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_counts_ranges() {
        assert_eq!(cpus("0-3,8\n"), 5);
        assert_eq!(cpus("0"), 1);
    }

    #[test]
    fn the_first_user_namespace_maps_every_id_to_itself() {
        assert!(!is_mapped("         0          0 4294967295\n"));
        assert!(is_mapped("         0     100000      65536\n"));
        assert!(is_mapped("0 1000 1\n1 100000 65536\n"));
        assert!(!is_mapped(""));
    }

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:       16303428 kB\nMemFree: 1 kB\n";
        assert_eq!(meminfo_bytes(text, "MemTotal"), Some(16_303_428 * 1024));
        assert_eq!(meminfo_bytes(text, "Mem"), None);
    }

    #[test]
    fn os_image_is_the_pretty_name() {
        let text = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(os_image(text), "Debian GNU/Linux 12 (bookworm)");
    }
}
