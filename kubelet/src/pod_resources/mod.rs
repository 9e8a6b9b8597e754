//! Who was given what, told to monitoring agents on `pod-resources/kubelet.sock`.
//!
//! - `view`: what is told; pure.
//! - `service`: the gRPC of it, v1 and the deprecated v1alpha1.

mod service;
mod view;

pub use service::PodResources;
