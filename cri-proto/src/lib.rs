//! The Container Runtime Interface: what a kubelet says to a runtime.
//!
//! - [`v1`]: messages and gRPC services, generated from `proto/api.proto`.
//! - [`Cri`]: every verb as an object-safe trait, so that a kubelet in the same
//!   process calls the runtime without a socket.
//! - [`serve`]: the same object on a unix socket, for crictl, critest and
//!   other kubelets.
//! - [`connect`]: a runtime behind a socket as the same trait.
//! - [`observed`]: any of them, with somebody who counts its calls.
//! - [`traced`]: any of them, with calls that belong to traces.
//!
//! No decision is taken here. Whoever implements [`Cri`] sees the same calls
//! from all three sides.

/// CRI v1 messages and services.
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    rustdoc::all,
    unused_qualifications
)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

mod client;
mod deadline;
mod observed;
mod server;
mod traced;
mod verbs;

pub use client::{ConnectError, connect};
pub use observed::{CallObserver, Ended, observed};
pub use server::{ServeError, bind, serve};
pub use traced::{CallTracer, traced};
pub use verbs::{Cri, EventStream};

pub use tonic::{Code, Status};
