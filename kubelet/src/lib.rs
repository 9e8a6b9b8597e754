//! The kubelet: pods in, CRI calls out, status back.
//!
//! Read in this order:
//! - [`source`]: where wanted pods come from (API server, static files, `play`).
//! - [`pod`]: the life of one pod: a pure `decide` and an executor.
//! - [`status`]: what is reported, and who writes it.
//! - [`objects`]: ConfigMaps, Secrets, tokens and services that pods refer to.
//! - [`volume`]: every volume kind, prepared on the host and kept up to date.
//! - [`node`]: the Node object, its Lease and conditions.
//! - [`allocation`]: what a pod is given that others can't have: of [`device`] plugins, and
//!   [`cpu`]s and [`memory`]; where, says [`topology`].
//! - [`dra`]: what it claims from drivers of dynamic resources.
//! - [`pod_resources`]: tells monitoring agents who was given what.
//! - [`cgroup`]: the cgroups that pods as a whole and their classes are held by.
//! - [`huge_pages`]: what they are called, and who gets how many.
//! - [`oom`]: the machine itself is out of memory.
//! - [`eviction`]: who has to go when the node runs short.
//! - [`shutdown`]: the machine goes down, and pods end in order before it does.
//! - [`log_rotation`]: for runtimes that leave it to the kubelet.
//! - [`join`]: from a bootstrap token to a client certificate.
//! - [`server`]: the kubelet API on port 10250.
//! - [`metrics`]: what all of them count.
//! - [`profile`]: where its own CPU time goes.
//! - [`trace`]: what of it is told to an OpenTelemetry collector.
//! - [`play`]: the same engine with no API server.
//! - [`plugin`]: plugins that announce themselves in `plugins_registry`.
//! - [`checkpoint`]: the stock kubelet's state files.
//! - [`proto`]: what plugins are spoken to with.
//! - [`panics`]: what one costs.
//! - [`agent`]: all of it wired together.
//!
//! The runtime is known here only as [`cri_proto::Cri`].

pub mod agent;
pub mod allocation;
pub mod api;
pub mod cgroup;
pub mod checkpoint;
pub mod config;
pub mod cpu;
pub mod defaults;
pub mod device;
pub mod dra;
pub mod event;
pub mod eviction;
pub mod huge_pages;
pub mod join;
pub mod log_rotation;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod objects;
pub mod oom;
pub mod panics;
pub mod play;
pub mod plugin;
pub mod pod;
pub mod pod_resources;
pub mod profile;
pub mod proto;
pub mod quantity;
pub mod server;
pub mod shutdown;
pub mod socket;
pub mod source;
pub mod status;
pub mod topology;
pub mod trace;
pub mod volume;
