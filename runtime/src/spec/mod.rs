//! From a CRI request and an image to an OCI runtime spec; no I/O.
//!
//! [`container`] is the whole of it. What it has to know of the host and of
//! files inside the image comes in as [`Input`]; what the engine needs beside
//! the spec goes out in [`Plan`].

mod annotations;
mod apparmor;
pub(crate) mod capabilities;
mod command;
mod defaults;
mod error;
#[cfg(test)]
mod fuzz;
mod mounts;
mod namespaces;
mod security;
mod selinux;
mod stop_signal;
mod sysctl;
mod user;

pub use apparmor::{
    APPARMOR_DEFAULT, AppArmor, Wanted as WantedAppArmor, wanted as wanted_apparmor,
};
pub use defaults::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS};
pub use error::SpecError;
pub(crate) use mounts::usual as usual_mounts;
pub use mounts::{ImageMount, PodFiles};
pub use namespaces::{sandbox, user_namespace};
pub use security::HostSecurity;
pub use selinux::{Labels, SeLinux, level as selinux_level, pod_labels};
pub use stop_signal::{cri_signal, stop_signal};
pub use sysctl::{is_default_sysctl, sysctls};
pub use user::{Accounts, ResolvedUser};

use crate::process::ContainerPid;
use crate::seccomp::Selection;
use cri_proto::v1::{
    ContainerConfig, LinuxContainerSecurityContext, NamespaceMode, PodSandboxConfig,
};
use oci_spec::image::ImageConfiguration;
use oci_spec::runtime::{Linux, LinuxDevice, Process, Root, Spec};
use std::collections::BTreeSet;
use std::path::Path;

/// All that decides what a container is.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Input<'a> {
    pub config: &'a ContainerConfig,
    pub sandbox: &'a PodSandboxConfig,
    pub sandbox_id: &'a str,
    pub image: &'a ImageConfiguration,
    /// The image's users and groups.
    pub accounts: &'a Accounts,
    pub host: &'a HostSecurity,
    /// The pod's own; empty without SELinux.
    pub selinux_level: &'a str,
    pub files: &'a PodFiles,
    /// Lower directories of image mounts, in the order of the config's mounts.
    pub image_mounts: &'a [ImageMount],
    /// Nodes beside the default ones.
    pub devices: Vec<LinuxDevice>,
    /// Where relative Localhost seccomp profiles live.
    pub seccomp_dir: &'a Path,
}

/// A spec, and what the engine takes beside it.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Plan {
    pub spec: Spec,
    pub user: ResolvedUser,
    pub seccomp: Selection,
    /// Bounding set, with `CAP_`.
    pub capabilities: BTreeSet<String>,
    pub pid: ContainerPid,
    /// Of SELinux.
    pub labels: Option<Labels>,
}

impl Input<'_> {
    fn security(&self) -> LinuxContainerSecurityContext {
        let linux = self.config.linux.as_ref();
        linux
            .and_then(|l| l.security_context.clone())
            .unwrap_or_default()
    }
}

/// The spec of a container.
///
/// # Errors
/// The first field of the request that can't be had.
pub fn container(input: Input<'_>) -> Result<Plan, SpecError> {
    let security = input.security();
    let user = user::resolve(&security, input.image, input.accounts)?;
    let capabilities = capabilities::resolve(&security, &input.host.bounding)?;
    let seccomp = security::seccomp(&security, input.seccomp_dir)?;
    let labels = selinux::labels(&input, &security)?;
    let mut process = process(&input, &security, &user, &capabilities)?;
    process.set_selinux_label(labels.as_ref().map(|l| l.process.clone()));
    let mut linux = linux(&input, &security);
    linux.set_mount_label(labels.as_ref().map(|l| l.mount.clone()));
    let mut mounts = mounts::resolve(&input, &security)?;
    selinux::label_mounts(&mut mounts, labels.as_ref());
    let mut root = Root::default();
    root.set_readonly(Some(security.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_process(Some(process))
        .set_root(Some(root))
        .set_hostname(None)
        .set_mounts(Some(mounts))
        .set_annotations(Some(annotations::of_container(&input)))
        .set_linux(Some(linux));
    Ok(Plan {
        spec,
        user,
        seccomp,
        capabilities: capabilities.bounding,
        pid: pid(&security)?,
        labels,
    })
}

fn process(
    input: &Input<'_>,
    security: &LinuxContainerSecurityContext,
    user: &ResolvedUser,
    capabilities: &capabilities::Resolved,
) -> Result<Process, SpecError> {
    let resources = input
        .config
        .linux
        .as_ref()
        .and_then(|l| l.resources.as_ref());
    let mut process = Process::default();
    process
        .set_terminal(Some(input.config.tty))
        .set_args(Some(command::args(input.config, input.image)?))
        .set_env(Some(command::env(input, user)?))
        .set_cwd(command::cwd(input.config, input.image)?)
        .set_user(user.to_oci())
        .set_capabilities(Some(capabilities.to_oci()))
        .set_rlimits(None)
        .set_no_new_privileges(Some(security.no_new_privs))
        .set_oom_score_adj(resources.map(|r| r.oom_score_adj as i32))
        .set_apparmor_profile(apparmor::profile(security, input.host)?);
    Ok(process)
}

fn linux(input: &Input<'_>, security: &LinuxContainerSecurityContext) -> Linux {
    let (masked, readonly) = security::paths(security, input.sandbox);
    let mut linux = Linux::default();
    linux
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly))
        .set_devices(Some(input.devices.clone()))
        .set_rootfs_propagation(mounts::rootfs_propagation(input.config).map(str::to_owned))
        .set_namespaces(None)
        .set_resources(None);
    linux
}

fn pid(security: &LinuxContainerSecurityContext) -> Result<ContainerPid, SpecError> {
    let Some(options) = &security.namespace_options else {
        return Ok(ContainerPid::Pod);
    };
    Ok(match options.pid() {
        NamespaceMode::Pod => ContainerPid::Pod,
        NamespaceMode::Container => ContainerPid::Own,
        NamespaceMode::Node => ContainerPid::Node,
        NamespaceMode::Target if options.target_id.is_empty() => {
            return Err(SpecError::NoTarget);
        }
        NamespaceMode::Target => ContainerPid::Target(options.target_id.clone()),
    })
}

#[cfg(test)]
mod tests;
