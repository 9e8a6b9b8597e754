//! Requests that can't be met.

/// What of a request is wrong.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum SpecError {
    #[error("no command specified: neither the image nor the container names one")]
    NoCommand,
    #[error("working directory {cwd:?} is not an absolute path without control characters")]
    WorkingDir { cwd: String },
    #[error("environment variable {name:?} is not valid: no '=' or NUL in names, no NUL in values")]
    Env { name: String },
    #[error("user {user:?}: {reason}")]
    User { user: String, reason: &'static str },
    #[error("group {group:?}: {reason}")]
    Group { group: String, reason: &'static str },
    #[error("runAsGroup is set without runAsUser")]
    GroupWithoutUser,
    #[error("unknown capability {name:?}")]
    Capability { name: String },
    #[error("mount on {path:?}: {reason}")]
    Mount { path: String, reason: &'static str },
    #[error("seccomp profile: {reason}")]
    Seccomp { reason: &'static str },
    #[error("seccomp profile path {path:?} is none of runtime/default, unconfined, localhost/PATH")]
    SeccompPath { path: String },
    #[error("AppArmor profile {profile:?}: {reason}")]
    AppArmor { profile: String, reason: String },
    #[error("SELinux label {label:?}: {reason}")]
    SeLinux { label: String, reason: &'static str },
    #[error("sysctl {name:?}: {reason}")]
    Sysctl { name: String, reason: &'static str },
    #[error("user namespace: {reason}")]
    UserNamespace { reason: &'static str },
    #[error("namespace mode {mode} is not possible for {namespace}")]
    NamespaceMode {
        namespace: &'static str,
        mode: &'static str,
    },
    #[error("namespace mode TARGET names no container")]
    NoTarget,
}
