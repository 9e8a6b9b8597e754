//! One driver, as it is called.

use crate::join::report::chain;
use crate::proto::csi as api;
use crate::proto::csi::node_client::NodeClient;
use crate::socket;
use api::node_service_capability::Type;
use api::node_service_capability::rpc::Type as Capability;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// kubernetes v1.37 pkg/volume/csi/csi_plugin.go `csiTimeout`.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Why a driver did not do it, in the words that people search for.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// Nobody answers on its socket.
    #[error("CSI driver {driver}: {why}")]
    Unreachable { driver: String, why: String },
    /// It says no.
    #[error("rpc error: code = {:?} desc = {}", status.code(), status.message())]
    Refused { status: Box<Status> },
}

impl DriverError {
    /// It may have done it, or part of it.
    pub fn code(&self) -> Option<Code> {
        match self {
            DriverError::Refused { status } => Some(status.code()),
            DriverError::Unreachable { .. } => None,
        }
    }
}

/// What a driver can.
#[derive(Debug, Clone, Default)]
pub(super) struct Capabilities(BTreeSet<i32>);

impl Capabilities {
    #[cfg(test)]
    pub fn of(all: &[Capability]) -> Capabilities {
        Capabilities(all.iter().map(|c| *c as i32).collect())
    }

    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&(capability as i32))
    }
}

/// A driver that has registered; connected to for each call, as it may be replaced any time.
#[derive(Debug, Clone)]
pub(super) struct Driver {
    name: String,
    endpoint: PathBuf,
}

impl Driver {
    pub fn new(name: &str, endpoint: PathBuf) -> Driver {
        Driver {
            name: name.to_owned(),
            endpoint,
        }
    }

    async fn call<T, F>(
        &self,
        call: impl FnOnce(NodeClient<Channel>) -> F,
    ) -> Result<T, DriverError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let unreachable = |why| DriverError::Unreachable {
            driver: self.name.clone(),
            why,
        };
        let channel = socket::connect(&self.endpoint).await;
        let channel = channel.map_err(|e| unreachable(chain(&e)))?;
        let late = || Err(Status::deadline_exceeded("context deadline exceeded"));
        let answer = tokio::time::timeout(TIMEOUT, call(NodeClient::new(channel))).await;
        let answer = answer.unwrap_or_else(|_| late());
        answer
            .map(Response::into_inner)
            .map_err(|status| DriverError::Refused {
                status: Box::new(status),
            })
    }

    pub async fn info(&self) -> Result<api::NodeGetInfoResponse, DriverError> {
        let request = api::NodeGetInfoRequest {};
        self.call(|mut c| async move { c.node_get_info(request).await })
            .await
    }

    pub async fn capabilities(&self) -> Result<Capabilities, DriverError> {
        let request = api::NodeGetCapabilitiesRequest {};
        let answer = self.call(|mut c| async move { c.node_get_capabilities(request).await });
        let all = answer.await?.capabilities.into_iter();
        let rpc = |c: api::NodeServiceCapability| c.r#type.map(|Type::Rpc(rpc)| rpc.r#type);
        Ok(Capabilities(all.filter_map(rpc).collect()))
    }

    pub async fn stage(&self, request: api::NodeStageVolumeRequest) -> Result<(), DriverError> {
        let call = |mut c: NodeClient<Channel>| async move { c.node_stage_volume(request).await };
        self.call(call).await.map(drop)
    }

    pub async fn unstage(&self, request: api::NodeUnstageVolumeRequest) -> Result<(), DriverError> {
        let call = |mut c: NodeClient<Channel>| async move { c.node_unstage_volume(request).await };
        self.call(call).await.map(drop)
    }

    pub async fn publish(&self, request: api::NodePublishVolumeRequest) -> Result<(), DriverError> {
        let call = |mut c: NodeClient<Channel>| async move { c.node_publish_volume(request).await };
        self.call(call).await.map(drop)
    }

    pub async fn unpublish(
        &self,
        request: api::NodeUnpublishVolumeRequest,
    ) -> Result<(), DriverError> {
        let call =
            |mut c: NodeClient<Channel>| async move { c.node_unpublish_volume(request).await };
        self.call(call).await.map(drop)
    }

    pub async fn expand(
        &self,
        request: api::NodeExpandVolumeRequest,
    ) -> Result<api::NodeExpandVolumeResponse, DriverError> {
        let request = Request::new(request);
        self.call(|mut c| async move { c.node_expand_volume(request).await })
            .await
    }

    pub async fn stats(
        &self,
        request: api::NodeGetVolumeStatsRequest,
    ) -> Result<api::NodeGetVolumeStatsResponse, DriverError> {
        let request = Request::new(request);
        self.call(|mut c| async move { c.node_get_volume_stats(request).await })
            .await
    }
}
