//! Compiles what plugins on the node are spoken to with, without a system protoc.

/// Below `proto/`.
const FILES: &[&str] = &[
    "csi.proto",
    "deviceplugin.proto",
    "dra.proto",
    "dra_health.proto",
    "dra_health_v1alpha1.proto",
    "dra_v1beta1.proto",
    "pluginregistration.proto",
    "podresources.proto",
    "podresources_v1alpha1.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
