//! The table of verbs. Trait, server and client are all made from it, so that
//! a verb can't be known to one of them only.

use crate::v1::*;
use futures::stream::BoxStream;
use tonic::Status;

/// Container events from the moment of the call on.
pub type EventStream = BoxStream<'static, Result<ContainerEventResponse, Status>>;

/// Calls `$with!` with every unary verb: `service { method Request Response }`.
macro_rules! verbs {
    ($with:ident) => {
        $with! {
            RuntimeService {
                version VersionRequest VersionResponse,
                run_pod_sandbox RunPodSandboxRequest RunPodSandboxResponse,
                stop_pod_sandbox StopPodSandboxRequest StopPodSandboxResponse,
                remove_pod_sandbox RemovePodSandboxRequest RemovePodSandboxResponse,
                pod_sandbox_status PodSandboxStatusRequest PodSandboxStatusResponse,
                list_pod_sandbox ListPodSandboxRequest ListPodSandboxResponse,
                create_container CreateContainerRequest CreateContainerResponse,
                start_container StartContainerRequest StartContainerResponse,
                stop_container StopContainerRequest StopContainerResponse,
                remove_container RemoveContainerRequest RemoveContainerResponse,
                list_containers ListContainersRequest ListContainersResponse,
                container_status ContainerStatusRequest ContainerStatusResponse,
                update_container_resources UpdateContainerResourcesRequest UpdateContainerResourcesResponse,
                reopen_container_log ReopenContainerLogRequest ReopenContainerLogResponse,
                exec_sync ExecSyncRequest ExecSyncResponse,
                exec ExecRequest ExecResponse,
                attach AttachRequest AttachResponse,
                port_forward PortForwardRequest PortForwardResponse,
                container_stats ContainerStatsRequest ContainerStatsResponse,
                list_container_stats ListContainerStatsRequest ListContainerStatsResponse,
                pod_sandbox_stats PodSandboxStatsRequest PodSandboxStatsResponse,
                list_pod_sandbox_stats ListPodSandboxStatsRequest ListPodSandboxStatsResponse,
                update_runtime_config UpdateRuntimeConfigRequest UpdateRuntimeConfigResponse,
                status StatusRequest StatusResponse,
                checkpoint_container CheckpointContainerRequest CheckpointContainerResponse,
                checkpoint_pod CheckpointPodRequest CheckpointPodResponse,
                restore_pod RestorePodRequest RestorePodResponse,
                list_metric_descriptors ListMetricDescriptorsRequest ListMetricDescriptorsResponse,
                list_pod_sandbox_metrics ListPodSandboxMetricsRequest ListPodSandboxMetricsResponse,
                runtime_config RuntimeConfigRequest RuntimeConfigResponse,
                update_pod_sandbox_resources UpdatePodSandboxResourcesRequest UpdatePodSandboxResourcesResponse,
            }
            ImageService {
                list_images ListImagesRequest ListImagesResponse,
                image_status ImageStatusRequest ImageStatusResponse,
                pull_image PullImageRequest PullImageResponse,
                remove_image RemoveImageRequest RemoveImageResponse,
                image_fs_info ImageFsInfoRequest ImageFsInfoResponse,
            }
        }
    };
}
pub(crate) use verbs;

macro_rules! declare {
    ($($service:ident { $($verb:ident $request:ident $response:ident,)* })*) => {
        /// Every verb of CRI v1, one method each, with the proto's own names.
        ///
        /// A verb that is not overridden answers `Unimplemented` with its name.
        /// The `Stream…` list RPCs have no method: the server makes them from
        /// the lists.
        ///
        /// # Guarantees expected of an implementor
        /// - Stop and Remove verbs succeed on what does not exist.
        /// - Status verbs answer `NotFound` for what does not exist.
        /// - Dropping the future of a call (a client's deadline) does not leave
        ///   the work half done: the same call made again joins or finishes it.
        #[async_trait::async_trait]
        pub trait Cri: Send + Sync + 'static {
            $($(
                #[allow(missing_docs)]
                async fn $verb(&self, request: $request) -> Result<$response, Status> {
                    let _ = request;
                    Err(Status::unimplemented(concat!(stringify!($verb), " is not implemented")))
                }
            )*)*

            /// GetContainerEvents.
            async fn get_container_events(&self) -> Result<EventStream, Status> {
                Err(Status::unimplemented("get_container_events is not implemented"))
            }
        }
    };
}
verbs!(declare);
