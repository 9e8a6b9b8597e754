//! Kinds of volumes by the names of Kubernetes' own plugins, and how many there are of each: for
//! `/metrics`.

use super::kind::Kind;
use super::persistent::{Found, Persistent, Source};
use super::volumes::{self, Volumes};
use k8s_openapi::api::core::v1::Volume;
use std::collections::BTreeMap;
use std::path::Path;

pub const HOST_PATH: &str = "kubernetes.io/host-path";
pub const LOCAL: &str = "kubernetes.io/local-volume";
pub const IMAGE: &str = "kubernetes.io/image";
pub const NFS: &str = "kubernetes.io/nfs";
/// Told with the driver behind it.
const CSI: &str = "kubernetes.io/csi";

/// kubernetes v1.37 pkg/kubelet/volumemanager/metrics/metrics.go: what is to be mounted.
const DESIRED: &str = "desired_state_of_world";
/// The same: what is.
const ACTUAL: &str = "actual_state_of_world";

/// Of a folder `volumes/<plugin>/<name>` of a pod.
pub fn of_folder(dir: &Path) -> String {
    let plugin = dir.parent().and_then(Path::file_name).unwrap_or_default();
    plugin.to_string_lossy().replace('~', "/")
}

/// Of a driver.
pub fn of_driver(driver: &str) -> String {
    format!("{CSI}:{driver}")
}

/// Of what stands behind a claim or a foreign source.
pub fn of_persistent(found: &Persistent) -> String {
    match &found.source {
        Source::HostPath(_) => HOST_PATH.to_owned(),
        Source::Local(_) => LOCAL.to_owned(),
        Source::Nfs(_) => NFS.to_owned(),
        Source::Csi(source) => of_driver(&source.driver),
        Source::Inline(source) => of_driver(&source.driver),
    }
}

/// Of a volume of a pod; `None` while nobody knows what stands behind it.
fn of_volume(volume: &Volume, found: &Found) -> Option<String> {
    let kind = Kind::of(volume);
    if kind.is_foreign() {
        return found.get(&volume.name).map(of_persistent);
    }
    match kind {
        Kind::HostPath(_) => Some(HOST_PATH.to_owned()),
        Kind::Image(_) => Some(IMAGE.to_owned()),
        kind => Some(kind.plugin_dir()?.replace('~', "/")),
    }
}

impl Volumes {
    /// How many volumes pods here are to have, and have, by plugin and state.
    pub fn totals(&self) -> BTreeMap<(String, &'static str), i64> {
        let mut totals = BTreeMap::new();
        for mounted in self.mounted_where(|_| true) {
            let (pod, found, complete) = mounted.all();
            let plugins = volumes::of(&pod).filter_map(|v| of_volume(v, &found));
            for plugin in plugins {
                if complete {
                    *totals.entry((plugin.clone(), ACTUAL)).or_default() += 1;
                }
                *totals.entry((plugin, DESIRED)).or_default() += 1;
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn plugin_of_a_volume_is_what_its_folder_is_called() {
        let folder = Path::new("/k/pods/u/volumes/kubernetes.io~empty-dir/v");
        assert_eq!(of_folder(folder), "kubernetes.io/empty-dir");
        for (volume, plugin) in [
            (
                json!({"name": "v", "emptyDir": {}}),
                Some("kubernetes.io/empty-dir"),
            ),
            (
                json!({"name": "v", "hostPath": {"path": "/"}}),
                Some(HOST_PATH),
            ),
            (
                json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}}),
                None,
            ),
        ] {
            let volume: Volume = serde_json::from_value(volume).unwrap();
            assert_eq!(of_volume(&volume, &Found::new()).as_deref(), plugin);
        }
    }
}
