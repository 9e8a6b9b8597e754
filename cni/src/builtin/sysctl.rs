//! Kernel settings of the host that pods on the bridge need. /proc/sys/net
//! shows the namespace of who reads it, so this is the agent's own.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A setting that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("set {} to {value}", path.display())]
pub struct SysctlError {
    /// The file.
    pub path: PathBuf,
    /// What should be in it.
    pub value: &'static str,
    #[allow(missing_docs)]
    pub source: io::Error,
}

/// Settings for a bridge with pods, and why.
pub fn wanted(bridge: &str, ipv6: bool) -> Vec<(String, &'static str)> {
    let mut all = vec![
        // The host is the pods' router.
        ("ipv4/ip_forward".to_owned(), "1"),
        // Host ports on 127.0.0.1; `ruleset::martians` closes what it opens.
        (format!("ipv4/conf/{bridge}/route_localnet"), "1"),
    ];
    if ipv6 {
        all.push(("ipv6/conf/all/forwarding".to_owned(), "1"));
        // Neighbours are asked from the bridge's link-local address, which
        // duplicate detection would hold back for the first second.
        all.push((format!("ipv6/conf/{bridge}/accept_dad"), "0"));
    }
    all
}

/// Makes the settings that differ: in a container with a read-only /proc/sys
/// what is right already must be no error.
pub fn apply(settings: &[(String, &'static str)]) -> Result<(), SysctlError> {
    for (name, value) in settings {
        let path = Path::new("/proc/sys/net").join(name);
        let now = fs::read_to_string(&path).unwrap_or_default();
        if now.trim() == *value {
            continue;
        }
        fs::write(&path, value).map_err(|source| SysctlError {
            path,
            value,
            source,
        })?;
    }
    Ok(())
}
