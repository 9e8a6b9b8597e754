//! A driver at one socket, and the versions of its services.

use crate::proto::dra as api;
use crate::proto::dra::dra_plugin_client::DraPluginClient;
use crate::proto::dra::v1beta1::dra_plugin_client::DraPluginClient as DraPluginClientV1Beta1;
use crate::proto::podresources::dra_resource_health_client::DraResourceHealthClient;
use crate::proto::podresources::{NodeWatchResourcesRequest, NodeWatchResourcesResponse};
use crate::proto::podresources_v1alpha1::dra_resource_health_client::DraResourceHealthClient as DraResourceHealthClientV1Alpha1;
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// As k8s.io/kubelet v0.37 pkg/apis/dra names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    V1,
    V1Beta1,
}

impl Service {
    /// The first of a driver's list that we speak.
    pub fn chosen(versions: &[String]) -> Option<Service> {
        let known = |version: &String| match version.as_str() {
            "v1.DRAPlugin" => Some(Service::V1),
            "v1beta1.DRAPlugin" => Some(Service::V1Beta1),
            _ => None,
        };
        versions.iter().find_map(known)
    }

    /// A verb's full name.
    pub fn method(self, verb: &str) -> String {
        let version = match self {
            Service::V1 => "v1",
            Service::V1Beta1 => "v1beta1",
        };
        format!("/k8s.io.kubelet.pkg.apis.dra.{version}.DRAPlugin/{verb}")
    }
}

/// As k8s.io/kubelet v0.37 pkg/apis/dra-health names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthService {
    V1,
    V1Alpha1,
}

/// The newest of a driver's list that we speak.
pub fn health(versions: &[String]) -> Option<HealthService> {
    let has = |name: &str| versions.iter().any(|v| v == name);
    match () {
        () if has("v1.DRAResourceHealth") => Some(HealthService::V1),
        () if has("v1alpha1.DRAResourceHealth") => Some(HealthService::V1Alpha1),
        () => None,
    }
}

/// Served at one socket.
#[derive(Clone)]
pub struct Instance {
    /// Where.
    pub endpoint: PathBuf,
    /// How it is asked.
    pub service: Service,
    /// How it says how its devices are, if it does.
    pub health: Option<HealthService>,
    /// The newest connection.
    pub channel: Channel,
    /// That is there.
    pub connected: bool,
    /// It is given back.
    pub gone: CancellationToken,
}

impl Instance {
    /// NodePrepareResources.
    pub async fn prepare(
        &self,
        request: api::NodePrepareResourcesRequest,
    ) -> Result<api::NodePrepareResourcesResponse, Status> {
        let channel = self.channel.clone();
        let answer = match self.service {
            Service::V1 => {
                let mut client = DraPluginClient::new(channel);
                client.node_prepare_resources(request).await
            }
            Service::V1Beta1 => {
                let mut client = DraPluginClientV1Beta1::new(channel);
                client.node_prepare_resources(request).await
            }
        };
        answer.map(tonic::Response::into_inner)
    }

    /// NodeUnprepareResources.
    pub async fn unprepare(
        &self,
        request: api::NodeUnprepareResourcesRequest,
    ) -> Result<api::NodeUnprepareResourcesResponse, Status> {
        let channel = self.channel.clone();
        let answer = match self.service {
            Service::V1 => {
                let mut client = DraPluginClient::new(channel);
                client.node_unprepare_resources(request).await
            }
            Service::V1Beta1 => {
                let mut client = DraPluginClientV1Beta1::new(channel);
                client.node_unprepare_resources(request).await
            }
        };
        answer.map(tonic::Response::into_inner)
    }

    /// NodeWatchResources.
    pub async fn watch(&self) -> Result<Streaming<NodeWatchResourcesResponse>, Status> {
        let (channel, request) = (self.channel.clone(), NodeWatchResourcesRequest {});
        let answer = match self.health {
            Some(HealthService::V1) => {
                let mut client = DraResourceHealthClient::new(channel);
                client.node_watch_resources(request).await
            }
            Some(HealthService::V1Alpha1) => {
                let mut client = DraResourceHealthClientV1Alpha1::new(channel);
                client.node_watch_resources(request).await
            }
            None => Err(Status::unimplemented("no DRAResourceHealth")),
        };
        answer.map(tonic::Response::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_chosen_as_upstream_chooses_them() {
        let versions = |all: &[&str]| -> Vec<String> { all.iter().map(|v| (*v).into()).collect() };
        let chosen = |all: &[&str]| Service::chosen(&versions(all));
        assert_eq!(
            chosen(&["v1.DRAPlugin", "v1beta1.DRAPlugin"]),
            Some(Service::V1)
        );
        assert_eq!(
            chosen(&["v2.DRAPlugin", "v1beta1.DRAPlugin"]),
            Some(Service::V1Beta1)
        );
        assert_eq!(chosen(&["v2.DRAPlugin"]), None);
        let all = ["v1alpha1.DRAResourceHealth", "v1.DRAResourceHealth"];
        assert_eq!(health(&versions(&all)), Some(HealthService::V1));
        assert_eq!(health(&versions(&all[..1])), Some(HealthService::V1Alpha1));
        assert_eq!(health(&versions(&["v1.DRAPlugin"])), None);
        assert_eq!(
            Service::V1Beta1.method("NodePrepareResources"),
            "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources"
        );
    }
}
