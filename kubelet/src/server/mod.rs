//! The kubelet API on :10250.
//!
//! A request goes [`tls`] -> [`authn`] (who) -> [`authz`] (may they) -> a
//! handler. Paths and their subresources are those of kubernetes v1.37
//! pkg/kubelet/server.

mod accept;
pub mod authn;
pub mod authz;
mod debug;
mod guard;
mod healthz;
mod listen;
mod log_query;
mod logs;
mod metrics;
mod node_logs;
mod places;
mod pods;
mod pprof;
mod query;
mod routes;
mod stream;
mod summary;
pub mod tls;

pub use accept::{Server, ServerError};
pub use debug::Verbosity;
pub use healthz::serve_healthz;
pub use metrics::Metrics;
pub use routes::State;
pub use summary::CpuSamples;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// An answer that is not a success: a code and a sentence.
#[derive(Debug)]
pub(crate) struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

impl From<cri_proto::Status> for Refusal {
    fn from(status: cri_proto::Status) -> Self {
        use cri_proto::Code;
        let code = match status.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument | Code::FailedPrecondition => StatusCode::BAD_REQUEST,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal(code, status.message().to_owned())
    }
}
