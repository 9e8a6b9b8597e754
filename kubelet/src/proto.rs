//! The gRPC of plugins on this node, generated from `proto/`.

/// The Container Storage Interface.
#[allow(clippy::all, rustdoc::all, unused_qualifications, missing_docs)]
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// How plugins are found.
#[allow(clippy::all, rustdoc::all, unused_qualifications, missing_docs)]
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}

/// Device plugins.
#[allow(clippy::all, rustdoc::all, unused_qualifications, missing_docs)]
pub mod deviceplugin {
    tonic::include_proto!("v1beta1");
}

/// Who was given what: for monitoring agents; and the health of DRA devices, whose package has
/// the same name.
#[allow(clippy::all, rustdoc::all, unused_qualifications, missing_docs)]
pub mod podresources {
    tonic::include_proto!("v1");
}

/// What the generated code calls it.
use podresources as v1;

/// Both in their first version; that of pod resources tells of devices alone.
#[allow(clippy::all, rustdoc::all, unused_qualifications, missing_docs)]
pub mod podresources_v1alpha1 {
    tonic::include_proto!("v1alpha1");
}

/// Dynamic resource allocation.
#[allow(clippy::all, rustdoc::all, unused_qualifications, missing_docs)]
pub mod dra {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");

    /// What the generated code calls it.
    use super::dra as v1;

    /// The service under its older name.
    pub mod v1beta1 {
        tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1beta1");
    }
}
