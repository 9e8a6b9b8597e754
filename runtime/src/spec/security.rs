//! Confinement: seccomp, hidden paths.

use super::defaults::{DEFAULT_MASKED_PATHS, DEFAULT_READONLY_PATHS};
use super::{AppArmor, SeLinux, SpecError, user_namespace};
use crate::seccomp::Selection;
use cri_proto::v1::security_profile::ProfileType;
use cri_proto::v1::{LinuxContainerSecurityContext, PodSandboxConfig};
use std::collections::BTreeSet;
use std::path::Path;

/// What the host can do about confinement.
#[derive(Debug, Clone, Default)]
pub struct HostSecurity {
    /// Capabilities that this process can give, with `CAP_`.
    pub bounding: BTreeSet<String>,
    /// AppArmor is on.
    pub apparmor: Option<AppArmor>,
    /// SELinux is on.
    pub selinux: Option<SeLinux>,
}

pub(super) fn seccomp(
    security: &LinuxContainerSecurityContext,
    dir: &Path,
) -> Result<Selection, SpecError> {
    if security.privileged {
        return Ok(Selection::Unconfined);
    }
    let Some(profile) = &security.seccomp else {
        return seccomp_path(&security.seccomp_profile_path, dir);
    };
    match profile.profile_type() {
        ProfileType::Unconfined => Ok(Selection::Unconfined),
        ProfileType::RuntimeDefault => Ok(Selection::RuntimeDefault),
        ProfileType::Localhost => localhost(&profile.localhost_ref, dir),
    }
}

/// The field that `seccomp` took the place of.
fn seccomp_path(path: &str, dir: &Path) -> Result<Selection, SpecError> {
    match path {
        "" | "unconfined" => Ok(Selection::Unconfined),
        "runtime/default" | "docker/default" => Ok(Selection::RuntimeDefault),
        path => match path.strip_prefix("localhost/") {
            Some(name) => localhost(name, dir),
            None => Err(SpecError::SeccompPath { path: path.into() }),
        },
    }
}

/// An empty name must not mean "no filter": CVE-2023-2431.
fn localhost(name: &str, dir: &Path) -> Result<Selection, SpecError> {
    let fail = |reason| Err(SpecError::Seccomp { reason });
    let name = name.strip_prefix("localhost/").unwrap_or(name);
    if name.is_empty() {
        return fail("type Localhost needs localhost_ref");
    }
    if name.split('/').any(|part| part == "..") {
        return fail("localhost_ref has .. in it");
    }
    Ok(Selection::Localhost(dir.join(name)))
}

/// Masked and read-only paths. A kubelet names them; callers that name none
/// get the defaults, except in user namespaces, where an empty list is the
/// kubelet's `procMount: Unmasked`.
pub(super) fn paths(
    security: &LinuxContainerSecurityContext,
    sandbox: &PodSandboxConfig,
) -> (Vec<String>, Vec<String>) {
    if security.privileged {
        return (Vec::new(), Vec::new());
    }
    let named = !security.masked_paths.is_empty() || !security.readonly_paths.is_empty();
    let user_namespace = matches!(user_namespace(sandbox), Ok(Some(_)));
    if named || user_namespace {
        return (
            security.masked_paths.clone(),
            security.readonly_paths.clone(),
        );
    }
    (
        DEFAULT_MASKED_PATHS.map(str::to_owned).to_vec(),
        DEFAULT_READONLY_PATHS.map(str::to_owned).to_vec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri_proto::v1::SecurityProfile;

    fn with(kind: ProfileType, path: &str) -> LinuxContainerSecurityContext {
        LinuxContainerSecurityContext {
            seccomp: Some(SecurityProfile {
                profile_type: kind.into(),
                localhost_ref: path.to_owned(),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn cve_2023_2431_localhost_without_a_name_is_refused() {
        let dir = Path::new("/seccomp");
        assert!(seccomp(&with(ProfileType::Localhost, ""), dir).is_err());
        assert!(seccomp(&with(ProfileType::Localhost, "localhost/"), dir).is_err());
        assert!(seccomp(&with(ProfileType::Localhost, "../x"), dir).is_err());
    }

    #[test]
    fn profile_is_chosen_by_field_then_by_the_old_path() {
        let dir = Path::new("/seccomp");
        let local = seccomp(&with(ProfileType::Localhost, "a/b.json"), dir);
        assert_eq!(
            local.ok(),
            Some(Selection::Localhost("/seccomp/a/b.json".into()))
        );
        let local = seccomp(&with(ProfileType::Localhost, "/x.json"), dir);
        assert_eq!(local.ok(), Some(Selection::Localhost("/x.json".into())));
        let none = LinuxContainerSecurityContext::default();
        assert_eq!(seccomp(&none, dir).ok(), Some(Selection::Unconfined));
        let mut privileged = with(ProfileType::RuntimeDefault, "");
        assert_eq!(
            seccomp(&privileged, dir).ok(),
            Some(Selection::RuntimeDefault)
        );
        privileged.privileged = true;
        assert_eq!(seccomp(&privileged, dir).ok(), Some(Selection::Unconfined));
    }
}
