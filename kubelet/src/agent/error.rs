//! Why an agent does not start: one line each, with the way on.

use crate::api::EndpointError;
use crate::cgroup::ReservedError;
use crate::checkpoint::CheckpointError;
use crate::cpu::CpuStartError;
use crate::join::csr::CsrError;
use crate::memory::MemoryStartError;
use crate::node::resources::ReservationError;
use crate::server::ServerError;
use crate::server::tls::ServingError;
use std::path::PathBuf;

/// What keeps a node from starting at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AgentError {
    #[error(
        "neither {kubeconfig} nor a bootstrap kubeconfig exists: this host has not joined a \
         cluster; try: lighter join HOST:6443 --token … --discovery-token-ca-cert-hash sha256:…"
    )]
    NotJoined { kubeconfig: PathBuf },
    #[error(
        "kubelet is configured to not run on a host using cgroup v1; to go on, set \
         failCgroupV1: false in the kubelet configuration, or boot with cgroup v2"
    )]
    CgroupV1,
    #[error(
        "swap is on ({device}); to go on: swapoff -a, or set failSwapOn: false in the kubelet \
         configuration"
    )]
    SwapOn { device: String },
    #[error(
        "memorySwap.swapBehavior LimitedSwap needs cgroup v2, and this host uses cgroup v1; to go \
         on: take it out of the kubelet configuration, or boot with cgroup v2"
    )]
    SwapOnCgroupV1,
    #[error("make {path}")]
    MakeDir {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Cpus(#[from] CpuStartError),
    #[error(transparent)]
    Memory(#[from] MemoryStartError),
    /// What pods claim is not known.
    #[error(transparent)]
    Claims(#[from] CheckpointError),
    #[error(
        "topologyManagerPolicy: this machine has {nodes} NUMA nodes, and no more than {most} are \
         tried; to go on, set topologyManagerPolicyOptions max-allowable-numa-nodes"
    )]
    NumaNodes { nodes: usize, most: usize },
    #[error(transparent)]
    Reservation(#[from] ReservationError),
    #[error(transparent)]
    Reserved(#[from] ReservedError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Bootstrap(#[from] CsrError),
    #[error("write {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Serving(#[from] ServingError),
}
