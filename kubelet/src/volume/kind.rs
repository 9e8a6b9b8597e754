//! Which kind a volume is.

use k8s_openapi::api::core::v1::{
    CSIVolumeSource, ConfigMapVolumeSource, DownwardAPIVolumeSource, EmptyDirVolumeSource,
    HostPathVolumeSource, ImageVolumeSource, NFSVolumeSource, ProjectedVolumeSource,
    SecretVolumeSource, Volume,
};

/// A volume's one source.
#[derive(Debug, Clone, Copy)]
pub enum Kind<'a> {
    ConfigMap(&'a ConfigMapVolumeSource),
    Secret(&'a SecretVolumeSource),
    Downward(&'a DownwardAPIVolumeSource),
    Projected(&'a ProjectedVolumeSource),
    EmptyDir(&'a EmptyDirVolumeSource),
    HostPath(&'a HostPathVolumeSource),
    Image(&'a ImageVolumeSource),
    /// A claim, or an ephemeral volume, which has one.
    Claim,
    Nfs(&'a NFSVolumeSource),
    Csi(&'a CSIVolumeSource),
    /// Named as in the API.
    Unsupported(&'static str),
}

/// Names what is not supported by its field in the API.
macro_rules! first_set {
    ($volume:ident: $($field:ident $name:literal,)*) => {
        $(if $volume.$field.is_some() { return Kind::Unsupported($name); })*
    };
}

/// Folders of volumes that are made for the pod.
pub const OWN: [&str; 5] = [
    "kubernetes.io~configmap",
    "kubernetes.io~downward-api",
    "kubernetes.io~empty-dir",
    "kubernetes.io~projected",
    "kubernetes.io~secret",
];

impl<'a> Kind<'a> {
    pub fn of(volume: &'a Volume) -> Self {
        if let Some(source) = &volume.config_map {
            return Kind::ConfigMap(source);
        }
        if let Some(source) = &volume.secret {
            return Kind::Secret(source);
        }
        if let Some(source) = &volume.downward_api {
            return Kind::Downward(source);
        }
        if let Some(source) = &volume.projected {
            return Kind::Projected(source);
        }
        if let Some(source) = &volume.empty_dir {
            return Kind::EmptyDir(source);
        }
        if let Some(source) = &volume.host_path {
            return Kind::HostPath(source);
        }
        if let Some(source) = &volume.image {
            return Kind::Image(source);
        }
        if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
            return Kind::Claim;
        }
        if let Some(source) = &volume.nfs {
            return Kind::Nfs(source);
        }
        if let Some(source) = &volume.csi {
            return Kind::Csi(source);
        }
        Self::unsupported(volume)
    }

    /// It is not made of what the pod itself says.
    pub fn is_foreign(self) -> bool {
        matches!(self, Kind::Claim | Kind::Nfs(_) | Kind::Csi(_))
    }

    /// It holds files that follow their objects.
    pub fn has_files(self) -> bool {
        matches!(
            self,
            Kind::ConfigMap(_) | Kind::Secret(_) | Kind::Downward(_) | Kind::Projected(_)
        )
    }

    fn unsupported(volume: &Volume) -> Self {
        first_set! { volume:
            iscsi "iscsi",
            fc "fc",
            // Never: CVE-2024-10220 and CVE-2025-1767 are what it is good for.
            git_repo "gitRepo",
            rbd "rbd",
            cephfs "cephfs",
            glusterfs "glusterfs",
            cinder "cinder",
            aws_elastic_block_store "awsElasticBlockStore",
            gce_persistent_disk "gcePersistentDisk",
            azure_disk "azureDisk",
            azure_file "azureFile",
            vsphere_volume "vsphereVolume",
            flex_volume "flexVolume",
            flocker "flocker",
            photon_persistent_disk "photonPersistentDisk",
            portworx_volume "portworxVolume",
            quobyte "quobyte",
            scale_io "scaleIO",
            storageos "storageos",
        }
        Kind::Unsupported("of no known source")
    }

    /// Folder below `pods/<uid>/volumes`, kubernetes `pkg/volume/*` plugin names
    /// with `/` as `~`.
    pub fn plugin_dir(self) -> Option<&'static str> {
        match self {
            Kind::ConfigMap(_) => Some("kubernetes.io~configmap"),
            Kind::Secret(_) => Some("kubernetes.io~secret"),
            Kind::Downward(_) => Some("kubernetes.io~downward-api"),
            Kind::Projected(_) => Some("kubernetes.io~projected"),
            Kind::EmptyDir(_) => Some("kubernetes.io~empty-dir"),
            Kind::Nfs(_) => Some("kubernetes.io~nfs"),
            Kind::Csi(_) => Some("kubernetes.io~csi"),
            Kind::HostPath(_) | Kind::Image(_) | Kind::Claim | Kind::Unsupported(_) => None,
        }
    }
}
