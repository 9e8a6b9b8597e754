//! What tests of this room share.

use crate::pod::NodeFacts;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) fn node() -> NodeFacts {
    let allocatable = [("cpu", "2"), ("memory", "4Gi"), ("pods", "110")];
    NodeFacts {
        name: "n1".into(),
        ips: vec![std::net::IpAddr::from([192, 168, 0, 1])].into(),
        allocatable: allocatable
            .map(|(k, v)| (k.to_owned(), Quantity(v.to_owned())))
            .into(),
        memory_capacity: 4 << 30,
        labels: Arc::new(BTreeMap::from([("disk".to_owned(), "ssd".to_owned())])),
        pod_logs_root: "/var/log/pods".into(),
        container_links: std::path::PathBuf::new(),
        kubelet_root: "/var/lib/kubelet".into(),
        cluster_domain: "cluster.local".into(),
    }
}
