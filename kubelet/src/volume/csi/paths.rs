//! Where volumes of drivers lie: kubernetes v1.37 pkg/volume/csi, so that what another kubelet has
//! made is found, and the other way round. Pure.

use std::path::{Path, PathBuf};

/// Below `pods/<uid>/volumes`.
const PLUGIN: &str = "kubernetes.io~csi";
/// `volDataFileName`.
pub(super) const RECORD: &str = "vol_data.json";

#[derive(Debug, Clone)]
pub(super) struct Paths {
    root: PathBuf,
}

/// Where one volume of one pod lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// What says what it is.
    pub record: PathBuf,
    /// Where a driver puts it.
    pub target: PathBuf,
    /// Where a driver that stages puts it first.
    pub staging: PathBuf,
    /// Of a device: where the pod's folder names it.
    pub link: Option<PathBuf>,
}

impl Place {
    /// Where the stock kubelet binds a pod's device once more.
    pub fn bound(&self) -> Option<PathBuf> {
        let pod = self.target.file_name()?;
        let own = self.record.parent()?.parent()?;
        self.link.as_ref().map(|_| own.join("dev").join(pod))
    }
}

impl Paths {
    pub fn new(root: &Path) -> Paths {
        Paths {
            root: root.to_owned(),
        }
    }

    fn plugin(&self) -> PathBuf {
        self.root.join("plugins/kubernetes.io/csi")
    }

    /// Folder of all pods.
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    /// Folder with a folder for each mounted volume of a pod.
    pub fn volumes(&self, pod_uid: &str) -> PathBuf {
        self.pods().join(pod_uid).join("volumes").join(PLUGIN)
    }

    /// Folder with a link for each device of a pod.
    pub fn devices(&self, pod_uid: &str) -> PathBuf {
        self.pods().join(pod_uid).join("volumeDevices").join(PLUGIN)
    }

    /// A volume that is mounted; `name` is the PersistentVolume's, or the volume's.
    pub fn mount(&self, pod_uid: &str, name: &str, driver: &str, handle: &str) -> Place {
        let dir = self.volumes(pod_uid).join(name);
        let staging = self.plugin().join(driver).join(hash(handle));
        Place {
            record: dir.join(RECORD),
            target: dir.join("mount"),
            staging: staging.join("globalmount"),
            link: None,
        }
    }

    /// A volume that is a device.
    pub fn device(&self, pod_uid: &str, name: &str) -> Place {
        let devices = self.plugin().join("volumeDevices");
        Place {
            record: devices.join(name).join("data").join(RECORD),
            target: devices.join("publish").join(name).join(pod_uid),
            staging: devices.join("staging").join(name),
            link: Some(self.devices(pod_uid).join(name)),
        }
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// kubernetes v1.37 pkg/volume/csi/csi_attacher.go `getAttachmentName`.
pub(super) fn attachment(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hash(&format!("{handle}{driver}{node}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_lie_where_the_stock_kubelet_puts_them() {
        let paths = Paths::new(Path::new("/k"));
        let place = paths.mount("u", "pv", "d.io", "h");
        let text = |p: &Path| p.to_string_lossy().into_owned();
        assert_eq!(
            text(&place.target),
            "/k/pods/u/volumes/kubernetes.io~csi/pv/mount"
        );
        // printf h | sha256sum
        let hash = "aaa9402664f1a41f40ebbc52c9993eb66aeb366602958fdfaa283b71e64db123";
        let staging = format!("/k/plugins/kubernetes.io/csi/d.io/{hash}/globalmount");
        assert_eq!(text(&place.staging), staging);
        let device = paths.device("u", "pv");
        let base = "/k/plugins/kubernetes.io/csi/volumeDevices";
        assert_eq!(text(&device.target), format!("{base}/publish/pv/u"));
        let bound = format!("{base}/pv/dev/u");
        assert_eq!(device.bound().map(|p| text(&p)), Some(bound));
        assert_eq!(place.bound(), None);
        assert_eq!(
            text(&device.record),
            format!("{base}/pv/data/vol_data.json")
        );
        assert!(attachment("h", "d", "n").starts_with("csi-"));
    }
}
