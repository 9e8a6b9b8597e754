//! Device nodes of the host, for containers that ask for some or get all.

use crate::cgroup::{Access, DeviceKind, DeviceRule};
use cri_proto::v1::Device;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Nodes to make, and what the cgroup has to allow for them.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Devices {
    pub nodes: Vec<LinuxDevice>,
    pub rules: Vec<DeviceRule>,
}

/// A device that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("device {path}")]
pub struct DeviceError {
    /// On the host.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Made for every container, or a directory of its own: not taken from the
/// host. containerd v2 pkg/oci/utils_unix.go `getDevices`.
const NOT_COPIED: [&str; 9] = [
    "pts",
    "shm",
    "fd",
    "mqueue",
    "console",
    "ptmx",
    ".lxc",
    ".lxd-mounts",
    ".udev",
];

/// Everything below the host's /dev: privileged containers.
#[must_use]
pub fn host_devices() -> Vec<LinuxDevice> {
    let mut nodes = Vec::new();
    collect(Path::new("/dev"), Path::new("/dev"), &mut nodes);
    nodes
}

/// What a request names; a directory stands for all nodes in it.
///
/// # Errors
/// When the host has no such device.
pub fn requested_devices(requested: &[Device]) -> Result<Devices, DeviceError> {
    let mut devices = Devices::default();
    for device in requested {
        let host = PathBuf::from(&device.host_path);
        let fail = |source| DeviceError {
            path: host.clone(),
            source,
        };
        let metadata = fs::metadata(&host).map_err(fail)?;
        let inside = if device.container_path.is_empty() {
            &device.host_path
        } else {
            &device.container_path
        };
        let from = devices.nodes.len();
        if metadata.is_dir() {
            collect(&host, Path::new(inside), &mut devices.nodes);
        } else {
            let node = node(&metadata, Path::new(inside));
            let none = || io::Error::new(io::ErrorKind::InvalidInput, "not a device node");
            devices.nodes.push(node.ok_or_else(|| fail(none()))?);
        }
        let access = Access::parse(&device.permissions);
        let rules = devices.nodes[from..].iter().map(|node| rule(node, access));
        devices.rules.extend(rules.collect::<Vec<_>>());
    }
    Ok(devices)
}

fn collect(host: &Path, inside: &Path, nodes: &mut Vec<LinuxDevice>) {
    for entry in fs::read_dir(host).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if NOT_COPIED.iter().any(|skip| name == **skip) {
            continue;
        }
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let inside = inside.join(&name);
        if metadata.is_dir() {
            collect(&entry.path(), &inside, nodes);
        } else {
            nodes.extend(node(&metadata, &inside));
        }
    }
}

fn node(metadata: &fs::Metadata, path: &Path) -> Option<LinuxDevice> {
    let kind = match metadata.file_type() {
        t if t.is_char_device() => LinuxDeviceType::C,
        t if t.is_block_device() => LinuxDeviceType::B,
        _ => return None,
    };
    let mut device = LinuxDevice::default();
    device
        .set_path(path.to_owned())
        .set_typ(kind)
        .set_major(rustix::fs::major(metadata.rdev()).into())
        .set_minor(rustix::fs::minor(metadata.rdev()).into())
        .set_file_mode(Some(metadata.mode() & 0o7777))
        .set_uid(Some(metadata.uid()))
        .set_gid(Some(metadata.gid()));
    Some(device)
}

fn rule(node: &LinuxDevice, access: Access) -> DeviceRule {
    DeviceRule {
        kind: if node.typ() == LinuxDeviceType::B {
            DeviceKind::Block
        } else {
            DeviceKind::Char
        },
        major: u32::try_from(node.major()).ok(),
        minor: u32::try_from(node.minor()).ok(),
        access,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requested_device_becomes_a_node_and_a_rule() {
        let device = Device {
            container_path: "/dev/mine".to_owned(),
            host_path: "/dev/null".to_owned(),
            permissions: "rw".to_owned(),
        };
        let devices = requested_devices(&[device]).expect("null");
        let node = &devices.nodes[0];
        assert_eq!((node.major(), node.minor()), (1, 3));
        assert_eq!(node.path(), Path::new("/dev/mine"));
        assert!(devices.rules[0].access.write && !devices.rules[0].access.mknod);
    }

    #[test]
    fn file_that_is_no_device_is_refused() {
        let device = Device {
            host_path: "/proc/version".to_owned(),
            ..Default::default()
        };
        assert!(requested_devices(&[device]).is_err());
    }
}
