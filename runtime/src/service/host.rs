//! What this host can do about confinement, read once at start.

use crate::spec::{HostSecurity, capabilities};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

pub(super) fn security() -> HostSecurity {
    HostSecurity {
        bounding: bounding(),
        apparmor: apparmor(),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
    }
}

/// "ALL" can mean no more than what this process may give.
fn bounding() -> BTreeSet<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    capabilities::names(mask.unwrap_or(0))
}

fn apparmor() -> Option<BTreeSet<String>> {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").ok()?;
    if !enabled.starts_with('Y') {
        return None;
    }
    // "name (mode)" a line.
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    let name = |line: &str| line.rsplit_once(" (").map(|(name, _)| name.to_owned());
    Some(loaded.lines().filter_map(name).collect())
}
