//! Which AppArmor profile a container gets.

use super::{HostSecurity, SpecError};
use cri_proto::v1::LinuxContainerSecurityContext;
use cri_proto::v1::security_profile::ProfileType;
use std::collections::BTreeSet;

/// The profile of RuntimeDefault.
pub const APPARMOR_DEFAULT: &str = "lighter-default";

/// What there is of AppArmor on a host where it is on.
#[derive(Debug, Clone, Default)]
pub struct AppArmor {
    /// Names of the profiles that the kernel has.
    pub loaded: BTreeSet<String>,
    /// Why [`APPARMOR_DEFAULT`] is not among them.
    pub no_default: Option<String>,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// No profile.
    Unconfined,
    /// Nothing is said: the default one where there is one.
    Unsaid,
    /// The default one, by name.
    Default,
    /// One that somebody has loaded.
    Named(&'a str),
}

/// What the request asks for; the field that came later counts first.
#[must_use]
pub fn wanted(security: &LinuxContainerSecurityContext) -> Wanted<'_> {
    if security.privileged {
        return Wanted::Unconfined;
    }
    match &security.apparmor {
        Some(profile) => match profile.profile_type() {
            ProfileType::RuntimeDefault => Wanted::Default,
            ProfileType::Unconfined => Wanted::Unconfined,
            ProfileType::Localhost => Wanted::Named(bare(&profile.localhost_ref)),
        },
        None => match security.apparmor_profile.as_str() {
            "" => Wanted::Unsaid,
            "unconfined" => Wanted::Unconfined,
            "runtime/default" => Wanted::Default,
            name => Wanted::Named(bare(name)),
        },
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix("localhost/").unwrap_or(name)
}

pub(super) fn profile(
    security: &LinuxContainerSecurityContext,
    host: &HostSecurity,
) -> Result<Option<String>, SpecError> {
    let fail = |profile: &str, reason: &str| SpecError::AppArmor {
        profile: profile.to_owned(),
        reason: reason.to_owned(),
    };
    let name = match wanted(security) {
        Wanted::Unconfined => return Ok(None),
        Wanted::Unsaid => {
            let there = |a: &AppArmor| a.loaded.contains(APPARMOR_DEFAULT);
            let there = host.apparmor.as_ref().is_some_and(there);
            return Ok(there.then(|| APPARMOR_DEFAULT.to_owned()));
        }
        Wanted::Default => APPARMOR_DEFAULT,
        Wanted::Named(name) => name,
    };
    let Some(apparmor) = &host.apparmor else {
        return Err(fail(name, "AppArmor is off on this host"));
    };
    if apparmor.loaded.contains(name) {
        return Ok(Some(name.to_owned()));
    }
    match &apparmor.no_default {
        Some(reason) if name == APPARMOR_DEFAULT => Err(fail(name, reason)),
        _ => Err(fail(name, "not loaded; load it with apparmor_parser")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri_proto::v1::SecurityProfile;

    fn asking(kind: ProfileType, name: &str) -> LinuxContainerSecurityContext {
        LinuxContainerSecurityContext {
            apparmor: Some(SecurityProfile {
                profile_type: kind.into(),
                localhost_ref: name.to_owned(),
            }),
            apparmor_profile: "localhost/older".to_owned(),
            ..Default::default()
        }
    }

    fn host(loaded: &[&str], no_default: Option<&str>) -> HostSecurity {
        HostSecurity {
            apparmor: Some(AppArmor {
                loaded: loaded.iter().map(|&name| name.to_owned()).collect(),
                no_default: no_default.map(str::to_owned),
            }),
            ..HostSecurity::default()
        }
    }

    #[test]
    fn profile_must_be_loaded_when_it_is_named() {
        let security = asking(ProfileType::Localhost, "localhost/mine");
        assert!(profile(&security, &HostSecurity::default()).is_err());
        assert!(profile(&security, &host(&["older"], None)).is_err());
        let found = profile(&security, &host(&["mine"], None));
        assert_eq!(found.ok().flatten().as_deref(), Some("mine"));
    }

    #[test]
    fn profile_says_why_there_is_no_default_when_it_is_asked_for() {
        let asked = asking(ProfileType::RuntimeDefault, "");
        let without = host(&[], Some("no apparmor_parser"));
        let error = profile(&asked, &without).expect_err("not loaded");
        assert!(error.to_string().contains("no apparmor_parser"), "{error}");
        assert!(profile(&asked, &HostSecurity::default()).is_err());
        let unsaid = LinuxContainerSecurityContext::default();
        assert_eq!(profile(&unsaid, &without).ok(), Some(None));
    }

    #[test]
    fn profile_is_the_default_when_nothing_is_said() {
        let unsaid = LinuxContainerSecurityContext::default();
        let found = profile(&unsaid, &host(&[APPARMOR_DEFAULT], None));
        assert_eq!(found.ok().flatten().as_deref(), Some(APPARMOR_DEFAULT));
        let privileged = LinuxContainerSecurityContext {
            privileged: true,
            ..asking(ProfileType::Localhost, "mine")
        };
        assert_eq!(wanted(&privileged), Wanted::Unconfined);
    }
}
