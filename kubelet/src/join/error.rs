//! Why a join failed: one line each, with the next command.

use super::csr::CsrError;
use crate::api::EndpointError;
use std::path::PathBuf;

/// What the process ends with. Part of the documented interface: numbers are
/// never given a second meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Something on this host: a file, a name.
    Host = 1,
    /// The command line: token or pin of the wrong form.
    Usage = 64,
    /// The API server can't be reached.
    Unreachable = 69,
    /// Token unknown or expired, or no right to join.
    Refused = 77,
    /// The cluster is not the one that was meant: pin or signature.
    Untrusted = 76,
    /// A live node has this name.
    NameTaken = 73,
    /// The certificate was not signed in time, or denied.
    NotSigned = 75,
}

/// Why a join failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum JoinError {
    #[error(
        "the token must be 6 and 16 characters of a-z and 0-9 with a dot between; \
         on the control plane: kubeadm token create --print-join-command"
    )]
    TokenFormat,
    #[error(
        "the CA pin {pin:?} must be sha256: and 64 hexadecimal digits; \
         on the control plane: kubeadm token create --print-join-command"
    )]
    PinFormat { pin: String },
    #[error(
        "no --discovery-token-ca-cert-hash: whoever knows the token could pretend to be the \
         cluster; give the hash, or --discovery-token-unsafe-skip-ca-verification"
    )]
    NoPin,
    #[error("{server:?} is not HOST:PORT; for example: lighter join 10.0.0.1:6443 …")]
    Server { server: String },
    #[error(
        "{server} does not answer ({reason}); is the address right and port 6443 open? \
         try: curl -k https://{server}/readyz"
    )]
    Unreachable { server: String, reason: String },
    #[error(
        "{server} serves no cluster-info ({reason}); is it a kubeadm cluster? \
         on the control plane: kubeadm init phase bootstrap-token"
    )]
    NoClusterInfo { server: String, reason: String },
    #[error(
        "the token {id}.… is unknown to {server} or has expired; \
         on the control plane: kubeadm token create --print-join-command"
    )]
    TokenUnknown { id: String, server: String },
    #[error(
        "the cluster-info of {server} is not signed with this token: the secret is wrong, or \
         somebody is in between; on the control plane: kubeadm token list"
    )]
    Signature { server: String },
    #[error(
        "the CA of {server} has the pin {found}, which is not the one given; wrong cluster, or \
         somebody in between; on the control plane: kubeadm token create --print-join-command"
    )]
    Pin { server: String, found: String },
    #[error("the cluster-info of {server} is of no use: {reason}")]
    ClusterInfo { server: String, reason: String },
    #[error(
        "the cluster-info of {server} changed between two reads, the second under TLS; \
         somebody may be in between; try again"
    )]
    Changed { server: String },
    #[error("set up TLS to the API server")]
    Endpoint(#[from] EndpointError),
    #[error(
        "the token may not {what}: {reason}; \
         on the control plane: kubeadm init phase bootstrap-token"
    )]
    Forbidden { what: &'static str, reason: String },
    #[error("{what}: {reason}")]
    Api { what: &'static str, reason: String },
    #[error(
        "the cluster already has a Ready node {name:?}; choose another with --node-name, or: \
         kubectl delete node {name}"
    )]
    NameTaken { name: String },
    #[error("this host is already joined ({path} exists); to join anew: lighter reset")]
    AlreadyJoined { path: PathBuf },
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error("{path} exists and is not ours; move it away, or: lighter reset")]
    Occupied { path: PathBuf },
    #[error("write {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl JoinError {
    /// What the process should end with.
    pub fn exit_code(&self) -> ExitCode {
        use JoinError as E;
        match self {
            E::TokenFormat | E::PinFormat { .. } | E::NoPin | E::Server { .. } => ExitCode::Usage,
            E::Unreachable { .. } | E::NoClusterInfo { .. } => ExitCode::Unreachable,
            E::TokenUnknown { .. } | E::Forbidden { .. } | E::Api { .. } => ExitCode::Refused,
            E::Signature { .. } | E::Pin { .. } | E::ClusterInfo { .. } | E::Changed { .. } => {
                ExitCode::Untrusted
            }
            E::NameTaken { .. } => ExitCode::NameTaken,
            E::Csr(CsrError::Api { .. }) => ExitCode::Refused,
            E::Csr(CsrError::Key(_)) => ExitCode::Host,
            E::Csr(_) => ExitCode::NotSigned,
            E::Endpoint(_) | E::AlreadyJoined { .. } | E::Occupied { .. } | E::Write { .. } => {
                ExitCode::Host
            }
        }
    }
}
