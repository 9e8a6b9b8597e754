//! Where a pod's cgroups are.

use super::qos::{self, Qos};
use super::uid;
use crate::pod::CgroupDriver;
use k8s_openapi::api::core::v1::Pod;

/// The pod's cgroup as CRI's `cgroup_parent` names it.
///
/// kubernetes v1.36 pkg/kubelet/cm/cgroup_manager_linux.go: with systemd the name
/// of the slice alone, dashes of the uid as underscores.
#[must_use]
pub fn parent(pod: &Pod, root: &str, driver: CgroupDriver) -> String {
    let class = match qos::of(pod) {
        Qos::Guaranteed => None,
        Qos::Burstable => Some("burstable"),
        Qos::BestEffort => Some("besteffort"),
    };
    match driver {
        CgroupDriver::Cgroupfs => {
            let root = root.trim_end_matches('/');
            let class = class.map(|c| format!("/{c}")).unwrap_or_default();
            format!("{root}/kubepods{class}/pod{}", uid(pod))
        }
        CgroupDriver::Systemd => {
            let root = root.trim_matches('/').trim_end_matches(".slice");
            let root = if root.is_empty() {
                String::new()
            } else {
                format!("{root}-")
            };
            let class = class.map(|c| format!("-{c}")).unwrap_or_default();
            format!(
                "{root}kubepods{class}-pod{}.slice",
                uid(pod).replace('-', "_")
            )
        }
    }
}

/// The path of the cgroup that all pods are in.
#[must_use]
pub fn of_pods(root: &str, driver: CgroupDriver) -> String {
    let root = root.trim_matches('/');
    match driver {
        CgroupDriver::Cgroupfs if root.is_empty() => "/kubepods".to_owned(),
        CgroupDriver::Cgroupfs => format!("/{root}/kubepods"),
        CgroupDriver::Systemd => of_slice(&format!("{}-kubepods", root.trim_end_matches(".slice"))),
    }
}

/// The path of a slice by its name, of which only what is behind the last `/` counts.
///
/// systemd.slice(5): a slice is below that of the name up to its last dash.
#[must_use]
pub fn of_slice(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let words = name.trim_end_matches(".slice").split('-');
    let (mut path, mut slice) = (String::new(), String::new());
    for word in words.filter(|w| !w.is_empty()) {
        if !slice.is_empty() {
            slice.push('-');
        }
        slice += word;
        path += &format!("/{slice}.slice");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(class: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"uid": "a-b"}, "status": {"qosClass": class}
        }))
        .unwrap_or_default()
    }

    #[test]
    fn parent_is_named_as_the_driver_wants() {
        let name = |class, root, driver| parent(&pod(class), root, driver);
        let (fs, systemd) = (CgroupDriver::Cgroupfs, CgroupDriver::Systemd);
        assert_eq!(name("Guaranteed", "", fs), "/kubepods/poda-b");
        assert_eq!(
            name("Burstable", "/n1/", fs),
            "/n1/kubepods/burstable/poda-b"
        );
        assert_eq!(
            name("BestEffort", "/", systemd),
            "kubepods-besteffort-poda_b.slice"
        );
    }

    #[test]
    fn cgroup_of_all_pods_is_above_those_of_each() {
        let (fs, systemd) = (CgroupDriver::Cgroupfs, CgroupDriver::Systemd);
        for (root, driver, path) in [
            ("", fs, "/kubepods"),
            ("/n1/", fs, "/n1/kubepods"),
            ("/", systemd, "/kubepods.slice"),
            (
                "/a-b.slice",
                systemd,
                "/a.slice/a-b.slice/a-b-kubepods.slice",
            ),
        ] {
            assert_eq!(of_pods(root, driver), path);
        }
        assert_eq!(of_slice("/a/b-c.slice"), "/b.slice/b-c.slice");
    }
}
