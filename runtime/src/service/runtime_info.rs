//! Version, Status, RuntimeConfig and UpdateRuntimeConfig.

use super::VerbError;
use super::core::Core;
use super::error::chain;
use cri_proto::Status;
use cri_proto::v1::*;
use serde_json::json;
use std::collections::HashMap;

/// The version of the kubelet's side that Version answers with.
const KUBELET_API_VERSION: &str = "0.1.0";

pub(super) fn version() -> VersionResponse {
    VersionResponse {
        version: KUBELET_API_VERSION.to_owned(),
        runtime_name: "lighter".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    }
}

pub(super) async fn status(core: &Core, request: StatusRequest) -> StatusResponse {
    let network = core.network.status().await;
    let runtime = condition("RuntimeReady", None, "");
    let network = match network {
        Ok(()) => condition("NetworkReady", None, ""),
        Err(error) => condition("NetworkReady", Some(chain(&error)), "NetworkPluginNotReady"),
    };
    let features = RuntimeHandlerFeatures {
        recursive_read_only_mounts: true,
        user_namespaces: true,
    };
    StatusResponse {
        status: Some(RuntimeStatus {
            conditions: vec![runtime, network],
        }),
        info: if request.verbose {
            info(core)
        } else {
            HashMap::new()
        },
        runtime_handlers: vec![RuntimeHandler {
            name: String::new(),
            features: Some(features),
        }],
        features: Some(RuntimeFeatures {
            supplemental_groups_policy: true,
            ..RuntimeFeatures::default()
        }),
    }
}

fn condition(kind: &str, trouble: Option<String>, reason: &str) -> RuntimeCondition {
    RuntimeCondition {
        r#type: kind.to_owned(),
        status: trouble.is_none(),
        reason: reason.to_owned(),
        message: trouble.unwrap_or_default(),
    }
}

/// Callers know containerd's `stateDir`, below which it has the root file systems of containers:
/// critest asks there whether ids can be mapped. Ours are not on /run.
fn info(core: &Core) -> HashMap<String, String> {
    let config = json!({
        "rootDir": core.config.root,
        "stateDir": core.config.root,
        "runDir": core.config.state,
        "cgroupMode": format!("{:?}", core.cgroups.mode()).to_lowercase(),
        "cgroupDriver": core.config.cgroup_driver,
        "cniConfDir": core.config.cni_conf_dir,
    });
    HashMap::from([("config".to_owned(), config.to_string())])
}

pub(super) fn runtime_config(core: &Core) -> RuntimeConfigResponse {
    let driver = match core.config.cgroup_driver {
        crate::config::CgroupDriver::Cgroupfs => CgroupDriver::Cgroupfs,
        crate::config::CgroupDriver::Systemd => CgroupDriver::Systemd,
    };
    RuntimeConfigResponse {
        linux: Some(LinuxRuntimeConfiguration {
            cgroup_driver: driver.into(),
        }),
    }
}

/// The node's pod ranges, one for each family, by commas.
pub(super) fn update_runtime_config(
    core: &Core,
    request: UpdateRuntimeConfigRequest,
) -> Result<UpdateRuntimeConfigResponse, Status> {
    let network = request.runtime_config.and_then(|c| c.network_config);
    let text = network.map(|n| n.pod_cidr).unwrap_or_default();
    if !text.is_empty() {
        set_pod_cidrs(&core.network, &text)?;
    }
    Ok(UpdateRuntimeConfigResponse {})
}

pub(super) fn set_pod_cidrs(network: &cni::network::Network, text: &str) -> Result<(), VerbError> {
    let mut cidrs = Vec::new();
    for cidr in text.split(',').map(str::trim).filter(|c| !c.is_empty()) {
        let parsed = cidr.parse().map_err(|source| VerbError::Cidr {
            cidr: cidr.to_owned(),
            source,
        })?;
        cidrs.push(parsed);
    }
    Ok(network.set_pod_cidrs(&cidrs)?)
}
