//! A runtime behind a unix socket as [`Cri`].

use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;
use crate::verbs::verbs;
use crate::{Cri, EventStream, traced};
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// As the server's: see there.
const MAX_MESSAGE_SIZE: usize = 16 * 1024 * 1024;

/// Nothing answers on the runtime's socket.
#[derive(Debug, thiserror::Error)]
#[error("connect to the container runtime at {path}; is it running, and is this its CRI socket?")]
pub struct ConnectError {
    path: PathBuf,
    source: tonic::transport::Error,
}

/// Connects to the CRI socket of a runtime: a path, or `unix://` and a path.
///
/// # Errors
/// When nothing listens there.
pub async fn connect(endpoint: &str) -> Result<Arc<dyn Cri>, ConnectError> {
    let path = PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
    let channel = channel(&path)
        .await
        .map_err(|source| ConnectError { path, source })?;
    Ok(Arc::new(Client {
        runtime: RuntimeServiceClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE),
        image: ImageServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_SIZE)
            .max_encoding_message_size(MAX_MESSAGE_SIZE),
    }))
}

async fn channel(path: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_owned();
    // The authority is never looked at, but an encoded path is refused by
    // some HTTP/2 servers.
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                tokio::net::UnixStream::connect(path)
                    .await
                    .map(TokioIo::new)
            }
        }))
        .await
}

struct Client {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
}

macro_rules! client {
    (
        RuntimeService { $($rv:ident $rq:ident $rs:ident,)* }
        ImageService { $($iv:ident $iq:ident $is:ident,)* }
    ) => {
        #[async_trait::async_trait]
        impl Cri for Client {
            $(async fn $rv(&self, request: $rq) -> Result<$rs, Status> {
                Ok(self.runtime.clone().$rv(traced::request(request)).await?.into_inner())
            })*
            $(async fn $iv(&self, request: $iq) -> Result<$is, Status> {
                Ok(self.image.clone().$iv(traced::request(request)).await?.into_inner())
            })*

            async fn get_container_events(&self) -> Result<EventStream, Status> {
                let events = self.runtime.clone().get_container_events(GetEventsRequest {}).await?;
                Ok(events.into_inner().boxed())
            }
        }
    };
}
verbs!(client);
