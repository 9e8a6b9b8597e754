//! What this host can do about confinement.

use super::apparmor;
use super::core::Core;
use super::selinux;
use crate::spec::{AppArmor, HostSecurity, WantedAppArmor, capabilities, wanted_apparmor};
use cri_proto::v1::LinuxContainerSecurityContext;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;

impl Core {
    /// The same with what changes: which AppArmor profiles are loaded. Loads the default one
    /// for who is to have it.
    pub(super) fn host_for(
        &self,
        security: &LinuxContainerSecurityContext,
    ) -> Cow<'_, HostSecurity> {
        let default = match wanted_apparmor(security) {
            WantedAppArmor::Unconfined => return Cow::Borrowed(&self.host),
            WantedAppArmor::Unsaid | WantedAppArmor::Default => true,
            WantedAppArmor::Named(_) => false,
        };
        if self.host.apparmor.is_none() {
            return Cow::Borrowed(&self.host);
        }
        Cow::Owned(HostSecurity {
            apparmor: Some(self.apparmor.state(default)),
            ..self.host.clone()
        })
    }
}

/// What does not change while the host is up.
pub(super) fn security() -> HostSecurity {
    HostSecurity {
        bounding: bounding(),
        apparmor: apparmor::enabled().then(AppArmor::default),
        selinux: selinux::policy(),
    }
}

/// "ALL" can mean no more than what this process may give.
fn bounding() -> BTreeSet<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    capabilities::names(mask.unwrap_or(0))
}
