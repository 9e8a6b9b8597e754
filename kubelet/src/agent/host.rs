//! What the host must be like.

use super::AgentError;
use crate::config::Config;
use crate::event::{EventType, Recorder};
use crate::{eviction, volume};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// kubernetes v1.37 pkg/kubelet/events/event.go.
const MAY_BE_SWAPPED: &str = "PossibleMemoryBackedVolumesOnDisk";

/// Refuses what the kubelet refuses.
pub fn check(config: &Config) -> Result<(), AgentError> {
    let unified = cgroupfs::is_unified();
    if !unified && config.fail_cgroup_v1 {
        return Err(AgentError::CgroupV1);
    }
    if !unified {
        tracing::warn!("this host uses cgroup v1, which Kubernetes has given up");
    }
    if !unified && config.limited_swap {
        return Err(AgentError::SwapOnCgroupV1);
    }
    match first_swap(&swaps()) {
        Some(device) if config.fail_swap_on => Err(AgentError::SwapOn {
            device: device.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Where there is swap, Secrets may reach it on kernels before 6.4.
pub fn tell_of_swap(node_name: &str, events: &dyn Recorder) {
    if first_swap(&swaps()).is_none() || volume::tmpfs_avoids_swap() {
        return;
    }
    let text = "this kernel can't keep a tmpfs from swap: Secrets and emptyDirs in memory may be \
                written to disk";
    tracing::warn!("{text}");
    let node = eviction::node(node_name);
    events.record(&node, EventType::Warning, MAY_BE_SWAPPED, text);
}

fn swaps() -> String {
    std::fs::read_to_string("/proc/swaps").unwrap_or_default()
}

fn first_swap(swaps: &str) -> Option<&str> {
    let lines = swaps.lines().skip(1);
    let mut devices = lines.filter_map(|l| l.split_whitespace().next());
    // A compressed tmpfs-like swap in memory is none that the kubelet minds.
    devices.find(|d| !d.is_empty())
}

/// Drivers and charts expect these to be there.
pub fn make_dirs(root: &Path) -> Result<(), AgentError> {
    for (dir, mode) in [
        ("", 0o750),
        ("pods", 0o750),
        ("plugins", 0o750),
        ("plugins_registry", 0o750),
        ("pki", 0o750),
    ] {
        let path = root.join(dir);
        let made = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&path);
        made.map_err(|source| AgentError::MakeDir { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_the_first_line_after_the_heading() {
        let head = "Filename\t\t\tType\t\tSize\n";
        assert_eq!(first_swap(head), None);
        assert_eq!(
            first_swap(&format!("{head}/dev/sda2 partition 1")),
            Some("/dev/sda2")
        );
    }
}
