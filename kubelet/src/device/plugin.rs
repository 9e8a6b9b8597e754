//! One plugin, as it is called.

use super::inventory::{AllocateError, Ids};
use crate::proto::deviceplugin as api;
use crate::proto::deviceplugin::device_plugin_client::DevicePluginClient;
use crate::socket;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// kubernetes v1.37 deviceplugin/v1beta1/constants.go `KubeletPreStartContainerRPCTimeoutInSecs`.
const PRE_START_TIMEOUT: Duration = Duration::from_secs(30);

/// A connected plugin; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Plugin {
    pub socket: PathBuf,
    pub options: api::DevicePluginOptions,
    client: DevicePluginClient<Channel>,
}

impl Plugin {
    /// Connects and asks for its options.
    pub async fn connect(socket: &Path) -> Result<Plugin, Status> {
        let channel = socket::connect(socket).await;
        let channel = channel.map_err(|e| Status::unavailable(crate::join::report::chain(&e)))?;
        let mut client = DevicePluginClient::new(channel);
        let options = client.get_device_plugin_options(api::Empty {}).await?;
        Ok(Plugin {
            socket: socket.to_owned(),
            options: options.into_inner(),
            client,
        })
    }

    pub async fn list_and_watch(&self) -> Result<Streaming<api::ListAndWatchResponse>, Status> {
        let answer = self.client.clone().list_and_watch(api::Empty {}).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Which of these it would rather give; nothing if it has no opinion.
    pub async fn prefer(
        &self,
        (available, must_include, count): (Vec<String>, Vec<String>, usize),
    ) -> Result<Vec<String>, AllocateError> {
        if !self.options.get_preferred_allocation_available {
            return Ok(Vec::new());
        }
        let one = api::ContainerPreferredAllocationRequest {
            available_device_i_ds: available,
            must_include_device_i_ds: must_include,
            allocation_size: i32::try_from(count).unwrap_or(i32::MAX),
        };
        let request = api::PreferredAllocationRequest {
            container_requests: vec![one],
        };
        let answer = self.client.clone().get_preferred_allocation(request).await;
        let answers = answer.map_err(refused)?.into_inner().container_responses;
        let first = answers.into_iter().next();
        Ok(first.map(|a| a.device_i_ds).unwrap_or_default())
    }

    pub async fn allocate(
        &self,
        resource: &str,
        ids: &Ids,
    ) -> Result<api::ContainerAllocateResponse, AllocateError> {
        let request = api::AllocateRequest {
            container_requests: vec![api::ContainerAllocateRequest {
                devices_ids: ids.iter().cloned().collect(),
            }],
        };
        let answer = self.client.clone().allocate(request).await;
        let answers = answer.map_err(refused)?.into_inner().container_responses;
        let first = answers.into_iter().next();
        first.ok_or_else(|| AllocateError::NoAnswer {
            resource: resource.to_owned(),
        })
    }

    /// Lets it make devices ready, if it wants to.
    pub async fn pre_start(&self, ids: &Ids) -> Result<(), Status> {
        if !self.options.pre_start_required {
            return Ok(());
        }
        let request = api::PreStartContainerRequest {
            devices_ids: ids.iter().cloned().collect(),
        };
        let mut client = self.client.clone();
        let call = client.pre_start_container(request);
        match tokio::time::timeout(PRE_START_TIMEOUT, call).await {
            Ok(answer) => answer.map(drop),
            Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
        }
    }
}

fn refused(status: Status) -> AllocateError {
    AllocateError::Plugin {
        status: Box::new(status),
    }
}
