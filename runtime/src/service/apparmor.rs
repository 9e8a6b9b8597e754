//! AppArmor's profiles in the kernel, and the one that is ours.

use crate::spec::{APPARMOR_DEFAULT, AppArmor};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Debian and SUSE put it there; an agent's PATH need not have them.
const PARSERS: [&str; 3] = [
    "/sbin/apparmor_parser",
    "/usr/sbin/apparmor_parser",
    "/usr/bin/apparmor_parser",
];

/// Whether this agent has loaded the default profile: an older one's may differ.
#[derive(Debug, Default)]
pub(super) struct Loader(Mutex<bool>);

/// Whether the kernel has it, and it is on.
pub(super) fn enabled() -> bool {
    fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

impl Loader {
    /// What is loaded now; with `default` ours is loaded if it has to be.
    pub fn state(&self, default: bool) -> AppArmor {
        let mut state = AppArmor {
            loaded: loaded(),
            no_default: None,
        };
        if !default {
            return state;
        }
        let mut done = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // `aa-remove-unknown` takes away what is not in /etc/apparmor.d.
        if *done && state.loaded.contains(APPARMOR_DEFAULT) {
            return state;
        }
        match load(&profile(APPARMOR_DEFAULT)) {
            Ok(()) => {
                *done = true;
                state.loaded = loaded();
            }
            Err(reason) => {
                tracing::warn!(reason, "the default AppArmor profile can't be loaded");
                state.no_default = Some(reason);
            }
        }
        state
    }
}

/// "name (mode)" a line.
fn loaded() -> BTreeSet<String> {
    let text = fs::read_to_string(PROFILES).unwrap_or_default();
    let name = |line: &str| line.rsplit_once(" (").map(|(name, _)| name.to_owned());
    text.lines().filter_map(name).collect()
}

/// Adds it, or puts it in the place of one with its name.
fn load(text: &str) -> Result<(), String> {
    let parser = PARSERS.iter().find(|path| Path::new(path).exists());
    let parser = parser.ok_or("apparmor_parser is not installed: install the package apparmor")?;
    let spawned = Command::new(parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|e| format!("run {parser}: {e}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A parser that ends early says why itself.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|e| format!("wait for {parser}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{parser}: {}: {}", output.status, said.trim()))
}

/// What a container may do that nobody has asked to be confined otherwise: nearly all that
/// its capabilities allow, but no mounts, no settings of the kernel in /proc and /sys, and
/// neither signals to nor traces of others than its like. It needs nothing of
/// /etc/apparmor.d.
fn profile(name: &str) -> String {
    format!(
        r"profile {name} flags=(attach_disconnected,mediate_deleted) {{
  network,
  capability,
  file,
  umount,

  signal (receive) peer=unconfined,
  signal (send, receive) peer={name},
  ptrace (trace, read, tracedby, readby) peer={name},

  deny mount,

  deny /proc/* w,
  deny /proc/{{acpi,asound,bus,driver,fs,irq,scsi,tty}}/** w,
  deny /proc/{{kcore,kmem,mem,sysrq-trigger,timer_list}} rwklx,
  deny /proc/sys/{{abi,debug,dev,fs,net,sunrpc,user,vm}}/** w,
  # Shared memory's limits belong to the pod's own IPC namespace.
  deny /proc/sys/kernel/{{?,??,[^s]*,s[^h]*,sh[^m]*}} w,
  deny /proc/sys/kernel/*/** w,

  # All of /sys but the container's own cgroup.
  deny /sys/{{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}}/** wklx,
  deny /sys/fs/{{[^c],c[^g],cg[^r]}}*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_is_named_and_braces_are_balanced() {
        let text = profile(APPARMOR_DEFAULT);
        assert!(text.starts_with("profile lighter-default "), "{text}");
        let count = |c| text.matches(c).count();
        assert_eq!(count('{'), count('}'));
    }
}
