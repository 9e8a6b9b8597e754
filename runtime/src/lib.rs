//! Container runtime: CRI on one side, the kernel on the other.
//!
//! Read in this order:
//! - [`service`]: the CRI verbs, a file a verb. [`Runtime`] is the object that
//!   the kubelet calls and the socket serves.
//! - [`sandbox`], [`container`]: what is known of each and kept on disk.
//! - [`spec`]: a CRI request as an OCI runtime spec, a pure function.
//! - [`cdi`]: devices that a vendor's file describes, laid over the spec.
//! - [`process`]: the engine that turns an OCI spec into processes: spawner,
//!   monitor (one a pod) and stage (one a container start or exec).
//! - [`image`]: registries, the content store, layers.
//! - [`cgroup`], [`seccomp`]: limits and filters.
//! - [`streaming`]: exec, attach and port-forward over SPDY and WebSocket.
//! - [`sys`]: every system call that the libraries lack; the only unsafe code
//!   beside `process::stage`.

pub mod cdi;
pub mod cgroup;
pub mod config;
pub mod container;
pub mod image;
mod lock;
pub mod process;
pub mod sandbox;
pub mod seccomp;
pub mod service;
pub mod spec;
pub mod streaming;
pub mod sys;

pub use config::Config;
pub use service::{OpenError, Runtime};
