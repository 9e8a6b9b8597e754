//! The CRI verbs, a file each (or one for a few that are close).
//!
//! [`Runtime`] is the object that the kubelet calls and the socket serves. It
//! only hands on: `core` holds what verbs share, `recover` is what happens at
//! a start, `events` what happens without being asked for, and `error` maps
//! failures to gRPC codes.
//!
//! Guarantees: a verb that has begun runs to its end even when its caller
//! goes away, and the same call made again joins or finishes it; Stop and
//! Remove succeed on what is not there.

mod ahead;
mod apparmor;
mod container_record;
mod core;
mod create_container;
mod error;
mod events;
mod exec;
mod fd_stream;
mod first_container;
mod flights;
mod host;
mod host_paths;
mod lists;
mod metrics;
mod open;
mod pod_cgroups;
mod prepare_container;
mod recover;
mod run_pod_sandbox;
mod runtime_info;
mod sampler;
mod selinux;
mod start_container;
mod stats;
mod stop_container;
mod stop_pod_sandbox;
mod streams;
mod update;

pub use error::VerbError;
pub use open::OpenError;

use self::core::Core;
use crate::Config;
use crate::image::verbs as images;
use cri_proto::v1::*;
use cri_proto::{Cri, EventStream, Status};
use std::sync::Arc;

/// The container runtime: the object that the kubelet calls and the socket serves.
#[derive(Debug)]
pub struct Runtime {
    core: Arc<Core>,
    _lock: crate::lock::PidLock,
}

impl Runtime {
    /// Takes control of the state folder, finds what runs there and goes on with it.
    ///
    /// # Errors
    /// When another agent controls the folder, or a part could not be opened.
    /// Records that can't be read are reported and take down only their own pod.
    pub async fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let lock = open::control(&config.state)?;
        let core = open::core(config).await?;
        Ok(Arc::new(Self { core, _lock: lock }))
    }

    /// What it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.core.config
    }

    /// Images, for a person's `lighter image`.
    #[must_use]
    pub fn images(&self) -> &Arc<crate::image::Store> {
        &self.core.images
    }

    /// Ends the background work of this process. Containers run on.
    pub async fn shutdown(&self) {
        self.core.shutdown.cancel();
        self.core.drop_ahead().await;
        self.core.events.close();
    }

    fn core(&self) -> Arc<Core> {
        self.core.clone()
    }
}

/// Statistics walk writable layers: not where other calls would wait for it.
async fn off_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Status::internal(format!("statistics broke off: {e}"))))
}

const NO_CHECKPOINT: &str = "checkpoint and restore are not implemented: \
     restoring foreign memory images is a way into the host that this runtime leaves out";

#[async_trait::async_trait]
impl Cri for Runtime {
    async fn version(&self, _: VersionRequest) -> Result<VersionResponse, Status> {
        Ok(runtime_info::version())
    }

    async fn status(&self, request: StatusRequest) -> Result<StatusResponse, Status> {
        Ok(runtime_info::status(&self.core, request).await)
    }

    async fn runtime_config(
        &self,
        _: RuntimeConfigRequest,
    ) -> Result<RuntimeConfigResponse, Status> {
        Ok(runtime_info::runtime_config(&self.core))
    }

    async fn update_runtime_config(
        &self,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse, Status> {
        runtime_info::update_runtime_config(&self.core, request)
    }

    async fn run_pod_sandbox(
        &self,
        request: RunPodSandboxRequest,
    ) -> Result<RunPodSandboxResponse, Status> {
        run_pod_sandbox::run_pod_sandbox(self.core(), request).await
    }

    async fn stop_pod_sandbox(
        &self,
        request: StopPodSandboxRequest,
    ) -> Result<StopPodSandboxResponse, Status> {
        stop_pod_sandbox::stop_pod_sandbox(self.core(), request).await
    }

    async fn remove_pod_sandbox(
        &self,
        request: RemovePodSandboxRequest,
    ) -> Result<RemovePodSandboxResponse, Status> {
        stop_pod_sandbox::remove_pod_sandbox(self.core(), request).await
    }

    async fn pod_sandbox_status(
        &self,
        request: PodSandboxStatusRequest,
    ) -> Result<PodSandboxStatusResponse, Status> {
        lists::pod_sandbox_status(&self.core, &request)
    }

    async fn list_pod_sandbox(
        &self,
        request: ListPodSandboxRequest,
    ) -> Result<ListPodSandboxResponse, Status> {
        Ok(lists::list_pod_sandbox(&self.core, request))
    }

    async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<CreateContainerResponse, Status> {
        create_container::create_container(self.core(), request).await
    }

    async fn start_container(
        &self,
        request: StartContainerRequest,
    ) -> Result<StartContainerResponse, Status> {
        start_container::start_container(self.core(), request).await
    }

    async fn stop_container(
        &self,
        request: StopContainerRequest,
    ) -> Result<StopContainerResponse, Status> {
        stop_container::stop_container(self.core(), request).await
    }

    async fn remove_container(
        &self,
        request: RemoveContainerRequest,
    ) -> Result<RemoveContainerResponse, Status> {
        stop_container::remove_container(self.core(), request).await
    }

    async fn list_containers(
        &self,
        request: ListContainersRequest,
    ) -> Result<ListContainersResponse, Status> {
        Ok(lists::list_containers(&self.core, request))
    }

    async fn container_status(
        &self,
        request: ContainerStatusRequest,
    ) -> Result<ContainerStatusResponse, Status> {
        lists::container_status(&self.core, &request)
    }

    async fn update_container_resources(
        &self,
        request: UpdateContainerResourcesRequest,
    ) -> Result<UpdateContainerResourcesResponse, Status> {
        update::update_container_resources(&self.core, request)
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: UpdatePodSandboxResourcesRequest,
    ) -> Result<UpdatePodSandboxResourcesResponse, Status> {
        update::update_pod_sandbox_resources(&self.core, request)
    }

    async fn reopen_container_log(
        &self,
        request: ReopenContainerLogRequest,
    ) -> Result<ReopenContainerLogResponse, Status> {
        update::reopen_container_log(self.core(), request).await
    }

    async fn exec_sync(&self, request: ExecSyncRequest) -> Result<ExecSyncResponse, Status> {
        exec::exec_sync(self.core(), request).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<ExecResponse, Status> {
        streams::exec(&self.core, request)
    }

    async fn attach(&self, request: AttachRequest) -> Result<AttachResponse, Status> {
        streams::attach(&self.core, request)
    }

    async fn port_forward(
        &self,
        request: PortForwardRequest,
    ) -> Result<PortForwardResponse, Status> {
        streams::port_forward(&self.core, request)
    }

    async fn container_stats(
        &self,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse, Status> {
        let core = self.core();
        off_loop(move || stats::container_stats(&core, &request)).await
    }

    async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse, Status> {
        let core = self.core();
        off_loop(move || Ok(stats::list_container_stats(&core, request))).await
    }

    async fn pod_sandbox_stats(
        &self,
        request: PodSandboxStatsRequest,
    ) -> Result<PodSandboxStatsResponse, Status> {
        let core = self.core();
        off_loop(move || stats::pod_sandbox_stats(&core, &request)).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse, Status> {
        let core = self.core();
        off_loop(move || Ok(stats::list_pod_sandbox_stats(&core, request))).await
    }

    async fn list_metric_descriptors(
        &self,
        _: ListMetricDescriptorsRequest,
    ) -> Result<ListMetricDescriptorsResponse, Status> {
        Ok(metrics::list_metric_descriptors())
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: ListPodSandboxMetricsRequest,
    ) -> Result<ListPodSandboxMetricsResponse, Status> {
        let core = self.core();
        off_loop(move || Ok(metrics::list_pod_sandbox_metrics(&core))).await
    }

    async fn get_container_events(&self) -> Result<EventStream, Status> {
        Ok(self.core.events.listen())
    }

    async fn checkpoint_container(
        &self,
        _: CheckpointContainerRequest,
    ) -> Result<CheckpointContainerResponse, Status> {
        lists::refuse(NO_CHECKPOINT)
    }

    async fn checkpoint_pod(
        &self,
        _: CheckpointPodRequest,
    ) -> Result<CheckpointPodResponse, Status> {
        lists::refuse(NO_CHECKPOINT)
    }

    async fn restore_pod(&self, _: RestorePodRequest) -> Result<RestorePodResponse, Status> {
        lists::refuse(NO_CHECKPOINT)
    }

    async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse, Status> {
        images::list_images(&self.core.images, request).await
    }

    async fn image_status(
        &self,
        request: ImageStatusRequest,
    ) -> Result<ImageStatusResponse, Status> {
        images::image_status(&self.core.images, request).await
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, Status> {
        images::pull_image(&self.core.images, request).await
    }

    async fn remove_image(
        &self,
        request: RemoveImageRequest,
    ) -> Result<RemoveImageResponse, Status> {
        images::remove_image(&self.core.images, request).await
    }

    async fn image_fs_info(
        &self,
        request: ImageFsInfoRequest,
    ) -> Result<ImageFsInfoResponse, Status> {
        images::image_fs_info(&self.core.images, request).await
    }
}
