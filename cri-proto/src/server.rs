//! [`Cri`] on a unix socket.

use crate::v1::image_service_server::{ImageService, ImageServiceServer};
use crate::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use crate::v1::*;
use crate::verbs::verbs;
use crate::{Cri, EventStream, deadline};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// kubernetes v1.37 staging/src/k8s.io/cri-client `maxMsgSize`: a list of many
/// pods is longer than gRPC's default of 4 MiB.
const MAX_MESSAGE_SIZE: usize = 16 * 1024 * 1024;

/// Items in one message of a `Stream…` list, so that no message nears the limit.
const STREAM_CHUNK: usize = 128;

/// Why the socket could not be served.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ServeError {
    #[error("{path} is served by another runtime; stop it, or choose another socket")]
    InUse { path: PathBuf },
    #[error("bind the CRI socket {path}")]
    Bind {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("serve the CRI socket")]
    Serve(#[source] tonic::transport::Error),
}

/// Binds the socket with mode 0600, making its directory and taking the place
/// of a socket that nobody answers on.
///
/// # Errors
/// [`ServeError::InUse`] when a live server answers on the path.
pub async fn bind(path: &Path) -> Result<UnixListener, ServeError> {
    let bind = |source| ServeError::Bind {
        path: path.to_owned(),
        source,
    };
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(ServeError::InUse {
            path: path.to_owned(),
        });
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(bind)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(bind(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(bind)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(bind)?;
    Ok(listener)
}

/// Serves both CRI services until `shutdown` resolves.
///
/// # Errors
/// When the transport fails; a broken client never ends the server.
pub async fn serve(
    cri: Arc<dyn Cri>,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let adapter = Adapter(cri);
    tonic::transport::Server::builder()
        .add_service(
            RuntimeServiceServer::new(adapter.clone())
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
        )
        .add_service(
            ImageServiceServer::new(adapter)
                .max_decoding_message_size(MAX_MESSAGE_SIZE)
                .max_encoding_message_size(MAX_MESSAGE_SIZE),
        )
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await
        .map_err(ServeError::Serve)
}

#[derive(Clone)]
struct Adapter(Arc<dyn Cri>);

impl Adapter {
    /// Runs a verb to its end even when the client goes away, as [`Cri`] asks;
    /// the answer comes within `limit`.
    async fn detached<T: Send + 'static>(
        &self,
        limit: Option<Duration>,
        call: impl AsyncFnOnceSend<T>,
    ) -> Result<Response<T>, Status> {
        let work = tokio::spawn(call.call(self.0.clone()));
        let answer = match limit {
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .map_err(|_| deadline::exceeded())?,
            None => work.await,
        };
        answer
            .unwrap_or_else(|e| Err(Status::internal(format!("the verb panicked: {e}"))))
            .map(Response::new)
    }
}

/// A verb with its request, waiting for the runtime to run on.
trait AsyncFnOnceSend<T> {
    fn call(self, cri: Arc<dyn Cri>) -> futures::future::BoxFuture<'static, Result<T, Status>>;
}

impl<T, F> AsyncFnOnceSend<T> for F
where
    F: FnOnce(Arc<dyn Cri>) -> futures::future::BoxFuture<'static, Result<T, Status>>,
{
    fn call(self, cri: Arc<dyn Cri>) -> futures::future::BoxFuture<'static, Result<T, Status>> {
        self(cri)
    }
}

type ListStream<T> = BoxStream<'static, Result<T, Status>>;

fn chunks<I: Send + 'static, T: Send + 'static>(
    items: Vec<I>,
    message: impl Fn(Vec<I>) -> T + Send + 'static,
) -> Response<ListStream<T>> {
    let chunks = stream::iter(items).chunks(STREAM_CHUNK);
    Response::new(chunks.map(move |chunk| Ok(message(chunk))).boxed())
}

macro_rules! service {
    ($service:ident { $($verb:ident $request:ident $response:ident,)* } { $($streams:item)* }) => {
        #[tonic::async_trait]
        impl $service for Adapter {
            $(
                async fn $verb(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                    let limit = deadline::of(&request);
                    let request = request.into_inner();
                    self.detached(limit, |cri: Arc<dyn Cri>| -> futures::future::BoxFuture<'static, _> {
                        Box::pin(async move { cri.$verb(request).await })
                    })
                    .await
                }
            )*
            $($streams)*
        }
    };
}

macro_rules! services {
    (RuntimeService { $($runtime:tt)* } ImageService { $($image:tt)* }) => {
        service! { RuntimeService { $($runtime)* } {
            type GetContainerEventsStream = EventStream;
            async fn get_container_events(
                &self,
                _: Request<GetEventsRequest>,
            ) -> Result<Response<EventStream>, Status> {
                self.0.get_container_events().await.map(Response::new)
            }

            type StreamPodSandboxesStream = ListStream<StreamPodSandboxesResponse>;
            async fn stream_pod_sandboxes(
                &self,
                request: Request<StreamPodSandboxesRequest>,
            ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_pod_sandbox(ListPodSandboxRequest { filter }).await?;
                Ok(chunks(list.items, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }))
            }

            type StreamContainersStream = ListStream<StreamContainersResponse>;
            async fn stream_containers(
                &self,
                request: Request<StreamContainersRequest>,
            ) -> Result<Response<Self::StreamContainersStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_containers(ListContainersRequest { filter }).await?;
                Ok(chunks(list.containers, |containers| StreamContainersResponse { containers }))
            }

            type StreamContainerStatsStream = ListStream<StreamContainerStatsResponse>;
            async fn stream_container_stats(
                &self,
                request: Request<StreamContainerStatsRequest>,
            ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_container_stats(ListContainerStatsRequest { filter }).await?;
                Ok(chunks(list.stats, |container_stats| StreamContainerStatsResponse { container_stats }))
            }

            type StreamPodSandboxStatsStream = ListStream<StreamPodSandboxStatsResponse>;
            async fn stream_pod_sandbox_stats(
                &self,
                request: Request<StreamPodSandboxStatsRequest>,
            ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter }).await?;
                Ok(chunks(list.stats, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }))
            }

            type StreamPodSandboxMetricsStream = ListStream<StreamPodSandboxMetricsResponse>;
            async fn stream_pod_sandbox_metrics(
                &self,
                _: Request<StreamPodSandboxMetricsRequest>,
            ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
                let list = self.0.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await?;
                Ok(chunks(list.pod_metrics, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics }))
            }
        } }
        service! { ImageService { $($image)* } {
            type StreamImagesStream = ListStream<StreamImagesResponse>;
            async fn stream_images(
                &self,
                request: Request<StreamImagesRequest>,
            ) -> Result<Response<Self::StreamImagesStream>, Status> {
                let filter = request.into_inner().filter;
                let list = self.0.list_images(ListImagesRequest { filter }).await?;
                Ok(chunks(list.images, |images| StreamImagesResponse { images }))
            }
        } }
    };
}
verbs!(services);
