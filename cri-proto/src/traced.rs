//! A runtime whose calls belong to traces.

use crate::v1::*;
use crate::verbs::verbs;
use crate::{Cri, Ended, EventStream};
use std::sync::Arc;
use tonic::Status;

/// W3C Trace Context, and the metadata's key: <https://www.w3.org/TR/trace-context/>.
const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    static CALL: String;
}

/// Knows of each call which trace it belongs to.
pub trait CallTracer: Send + Sync + 'static {
    /// A call begins, `run_pod_sandbox` of `RuntimeService` for example: the traceparent of its
    /// own span, and whom to tell of its end. `None` where it belongs to no trace.
    fn begins(&self, service: &'static str, verb: &'static str) -> Option<(String, Ended)>;
}

/// The same runtime; where it is behind a socket, calls carry their traceparent.
pub fn traced(inner: Arc<dyn Cri>, tracer: Arc<dyn CallTracer>) -> Arc<dyn Cri> {
    Arc::new(Traced { inner, tracer })
}

struct Traced {
    inner: Arc<dyn Cri>,
    tracer: Arc<dyn CallTracer>,
}

macro_rules! pass_on {
    ($($service:ident { $($verb:ident $request:ident $response:ident,)* })*) => {
        #[async_trait::async_trait]
        impl Cri for Traced {
            $($(
                async fn $verb(&self, request: $request) -> Result<$response, Status> {
                    let begun = self.tracer.begins(stringify!($service), stringify!($verb));
                    let Some((traceparent, ended)) = begun else {
                        return self.inner.$verb(request).await;
                    };
                    let answer = CALL.scope(traceparent, self.inner.$verb(request)).await;
                    ended(answer.is_err());
                    answer
                }
            )*)*

            async fn get_container_events(&self) -> Result<EventStream, Status> {
                self.inner.get_container_events().await
            }
        }
    };
}
verbs!(pass_on);

/// A message on its way to a socket, with the traceparent of the call that it is part of.
pub(crate) fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let value = CALL.try_with(|call| call.parse()).ok();
    if let Some(Ok(value)) = value {
        request.metadata_mut().insert(TRACEPARENT, value);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One;

    impl CallTracer for One {
        fn begins(&self, service: &'static str, verb: &'static str) -> Option<(String, Ended)> {
            let of_trace = (service, verb) == ("ImageService", "list_images");
            of_trace.then(|| ("00-a-b-01".to_owned(), Box::new(drop) as Ended))
        }
    }

    /// Answers with the traceparent that a request would be sent with.
    struct Sends;

    #[async_trait::async_trait]
    impl Cri for Sends {
        async fn list_images(
            &self,
            message: ListImagesRequest,
        ) -> Result<ListImagesResponse, Status> {
            Err(Status::aborted(sent(message)))
        }

        async fn version(&self, message: VersionRequest) -> Result<VersionResponse, Status> {
            Err(Status::aborted(sent(message)))
        }
    }

    fn sent<T>(message: T) -> String {
        format!("{:?}", request(message).metadata().get(TRACEPARENT))
    }

    #[tokio::test]
    async fn calls_of_a_trace_are_sent_with_their_traceparent_and_others_are_not() {
        let cri = traced(Arc::new(Sends), Arc::new(One));
        let said = cri
            .list_images(ListImagesRequest::default())
            .await
            .unwrap_err();
        assert_eq!(said.message(), "Some(\"00-a-b-01\")");
        let said = cri.version(VersionRequest::default()).await.unwrap_err();
        assert_eq!(said.message(), "None");
    }
}
