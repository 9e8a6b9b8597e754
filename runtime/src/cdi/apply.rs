//! Putting what devices are made of into an OCI spec.

use super::CdiError;
use super::file::{Edits, Mount, Node};
use crate::cgroup::{Access, DeviceKind, DeviceRule};
use oci_spec::runtime::{self as oci, LinuxDevice, LinuxDeviceType, Spec};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Lays the edits over the spec; answers what the cgroup has to allow for it.
///
/// # Errors
/// When the host lacks a device node, or has another kind of it.
pub fn apply(spec: &mut Spec, edits: &[Edits]) -> Result<Vec<DeviceRule>, CdiError> {
    let mut rules = Vec::new();
    if edits.is_empty() {
        return Ok(rules);
    }
    for edits in edits {
        let (uid, gid) = process(spec, edits);
        for node in &edits.device_nodes {
            let device = device(node, uid, gid)?;
            rules.extend(rule(&device, &node.permissions));
            add_device(spec, device);
        }
        edits.mounts.iter().for_each(|m| add_mount(spec, m));
    }
    // Parents before children; what is as deep keeps its order.
    if let Some(mounts) = spec.mounts_mut() {
        mounts.sort_by_key(|m| m.destination().components().count());
    }
    Ok(rules)
}

/// Variables and groups; answers who the process runs as.
fn process(spec: &mut Spec, edits: &Edits) -> (u32, u32) {
    let Some(process) = spec.process_mut() else {
        return (0, 0);
    };
    let mut env = process.env().clone().unwrap_or_default();
    // runc adds it after all others.
    let home = env.pop_if(|last| last.starts_with("HOME="));
    for variable in &edits.env {
        let name = variable.split('=').next();
        env.retain(|known| known.split('=').next() != name);
        env.push(variable.clone());
    }
    let has_home = env.iter().any(|v| v.starts_with("HOME="));
    env.extend(home.filter(|_| !has_home));
    process.set_env(Some(env));
    let user = process.user_mut();
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    for group in edits.additional_gids.iter().filter(|g| **g != 0) {
        if !groups.contains(group) {
            groups.push(*group);
        }
    }
    user.set_additional_gids(Some(groups));
    (user.uid(), user.gid())
}

/// A node without an owner of its own belongs to the container's user.
fn device(node: &Node, uid: u32, gid: u32) -> Result<LinuxDevice, CdiError> {
    let (kind, major, minor) = numbers(node)?;
    let mut device = LinuxDevice::default();
    device
        .set_path(node.path.clone())
        .set_typ(kind)
        .set_major(major)
        .set_minor(minor)
        .set_file_mode(node.file_mode)
        .set_uid(node.uid.or((uid > 0).then_some(uid)))
        .set_gid(node.gid.or((gid > 0).then_some(gid)));
    Ok(device)
}

/// Type and numbers as given; what is missing is the host's.
fn numbers(node: &Node) -> Result<(LinuxDeviceType, i64, i64), CdiError> {
    let path = if node.host_path.as_os_str().is_empty() {
        &node.path
    } else {
        &node.host_path
    };
    let wanted = match node.kind.as_str() {
        "" => None,
        "b" => Some(LinuxDeviceType::B),
        "c" => Some(LinuxDeviceType::C),
        "u" => Some(LinuxDeviceType::U),
        "p" => Some(LinuxDeviceType::P),
        _ => return Err(wrong_type(path, node)),
    };
    if let Some(kind) = wanted
        && (node.major != 0 || kind == LinuxDeviceType::P)
    {
        return Ok((kind, node.major, node.minor));
    }
    let host = fs::metadata(path).map_err(|source| CdiError::Node {
        path: path.clone(),
        source,
    })?;
    let kind = match host.file_type() {
        t if t.is_block_device() => LinuxDeviceType::B,
        t if t.is_char_device() => LinuxDeviceType::C,
        t if t.is_fifo() => LinuxDeviceType::P,
        _ => return Err(wrong_type(path, node)),
    };
    let unbuffered = (LinuxDeviceType::U, LinuxDeviceType::C);
    if wanted.is_some_and(|w| w != kind && (w, kind) != unbuffered) {
        return Err(wrong_type(path, node));
    }
    let number = |of: fn(u64) -> u32| i64::from(of(host.rdev()));
    let (major, minor) = (number(rustix::fs::major), number(rustix::fs::minor));
    Ok((kind, major, minor))
}

fn wrong_type(path: &Path, node: &Node) -> CdiError {
    CdiError::Type {
        path: path.to_owned(),
        wanted: node.kind.clone(),
    }
}

/// Pipes need no permission of a cgroup.
fn rule(device: &LinuxDevice, permissions: &str) -> Option<DeviceRule> {
    let kind = match device.typ() {
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
        _ => return None,
    };
    Some(DeviceRule {
        kind,
        major: u32::try_from(device.major()).ok(),
        minor: u32::try_from(device.minor()).ok(),
        access: Access::parse(permissions),
    })
}

fn add_device(spec: &mut Spec, device: LinuxDevice) {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut devices = linux.devices().clone().unwrap_or_default();
    devices.retain(|known| known.path() != device.path());
    devices.push(device);
    linux.set_devices(Some(devices));
    spec.set_linux(Some(linux));
}

fn add_mount(spec: &mut Spec, mount: &Mount) {
    let mut options = mount.options.clone();
    let binds = options.iter().any(|o| o == "bind" || o == "rbind");
    if mount.kind.is_empty() && !binds {
        options.push("rbind".to_owned());
    }
    let mut added = oci::Mount::default();
    added
        .set_destination(mount.container_path.clone())
        .set_source(Some(mount.host_path.clone().into()))
        .set_typ((!mount.kind.is_empty()).then(|| mount.kind.clone()))
        .set_options(Some(options));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|known| *known.destination() != mount.container_path);
    mounts.push(added);
    spec.set_mounts(Some(mounts));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(json: &str) -> Edits {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn node_takes_from_the_host_what_is_not_said() {
        let mut spec = Spec::default();
        let user = spec.process_mut().as_mut().unwrap().user_mut();
        user.set_uid(1000).set_gid(1001);
        let node =
            r#"{"deviceNodes":[{"path":"/dev/mine","hostPath":"/dev/zero","permissions":"r"}]}"#;
        let rules = apply(&mut spec, &[edits(node)]).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        let device = &linux.devices().as_ref().unwrap()[0];
        assert_eq!((device.major(), device.minor()), (1, 5));
        assert_eq!((device.uid(), device.gid()), (Some(1000), Some(1001)));
        assert_eq!((rules[0].major, rules[0].minor), (Some(1), Some(5)));
        assert!(rules[0].access.read && !rules[0].access.write);
    }

    #[test]
    fn node_of_another_type_than_said_is_refused() {
        let node = r#"{"deviceNodes":[{"path":"/dev/zero","type":"b"}]}"#;
        let error = apply(&mut Spec::default(), &[edits(node)]).unwrap_err();
        assert!(matches!(error, CdiError::Type { .. }), "{error}");
        let node = r#"{"deviceNodes":[{"path":"/dev/no-such-device"}]}"#;
        let error = apply(&mut Spec::default(), &[edits(node)]).unwrap_err();
        assert!(error.to_string().contains("/dev/no-such-device"), "{error}");
    }

    #[test]
    fn variables_groups_and_mounts_take_the_place_of_the_same() {
        let mut spec = Spec::default();
        let all = r#"{"env":["A=2"],"additionalGids":[0,44],
            "mounts":[{"hostPath":"/x","containerPath":"/data","options":["ro"]}]}"#;
        let process = spec.process_mut().as_mut().unwrap();
        process.set_env(Some(["A=1", "B=1", "HOME=/"].map(String::from).to_vec()));
        apply(&mut spec, &[edits(all), edits(all)]).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.env().as_deref().unwrap(), ["B=1", "A=2", "HOME=/"]);
        assert_eq!(process.user().additional_gids().as_deref().unwrap(), [44]);
        let mounts = spec.mounts().as_ref().unwrap();
        let ours: Vec<_> = mounts
            .iter()
            .filter(|m| m.destination() == Path::new("/data"))
            .collect();
        assert_eq!(ours.len(), 1);
        assert_eq!(ours[0].options().as_deref().unwrap(), ["ro", "rbind"]);
    }
}
