//! ResourceSlices of drivers that went: nobody takes them back but the node.

use crate::objects::{authorized, one_line};
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::{DeleteParams, ListParams};
use std::time::Duration;

/// kubernetes v1.37 pkg/kubelet/cm/dra/plugin/dra_plugin_manager.go `wipeResourceSlices`:
/// first and longest wait before it is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));

/// Those of this node.
pub struct Slices {
    client: Option<kube::Client>,
    node: String,
}

impl Slices {
    /// Of a node.
    pub fn new(client: kube::Client, node: &str) -> Slices {
        Slices {
            client: Some(client),
            node: node.to_owned(),
        }
    }

    /// Where no API server is.
    pub fn none() -> Slices {
        Slices {
            client: None,
            node: String::new(),
        }
    }

    /// Removes a driver's, or all of them; tried until it is done.
    pub async fn wipe(&self, driver: Option<&str>) {
        let Some(client) = self.client.clone() else {
            return;
        };
        let api: kube::Api<ResourceSlice> = kube::Api::all(client);
        let mut selector = format!("spec.nodeName={}", self.node);
        if let Some(driver) = driver {
            selector.push_str(&format!(",spec.driver={driver}"));
        }
        let wanted = ListParams::default().fields(&selector);
        let params = DeleteParams::default();
        let mut wait = RETRY.0;
        loop {
            match authorized(|| api.delete_collection(&params, &wanted)).await {
                Ok(_) => return tracing::debug!(selector, "ResourceSlices removed"),
                Err(error) => {
                    let why = one_line(&error);
                    tracing::warn!(selector, why, "ResourceSlices not removed");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }
}
