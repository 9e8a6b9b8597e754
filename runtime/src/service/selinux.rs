//! SELinux on the host: its policy's defaults, the levels of pods, labels of files.

use super::VerbError;
use super::core::random;
use crate::sandbox::Sandbox;
use crate::spec::{self, SeLinux};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, XattrFlags};
use rustix::io::{Errno, Result};
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Lists selinuxfs where the kernel has SELinux and was not told to leave it off. A policy may
/// keep the runtime away from selinuxfs itself, and then it must not pass for absent.
const FILE_SYSTEMS: &str = "/proc/filesystems";
const CONFIG: &str = "/etc/selinux/config";
/// The context of everybody while no policy is loaded; include/security/initial_sid_to_string.h.
const NO_POLICY: &str = "kernel";

/// The policy's defaults; `None` = off, or on without a policy.
pub(super) fn policy() -> Option<SeLinux> {
    let systems = fs::read_to_string(FILE_SYSTEMS).unwrap_or_default();
    let own = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    if !is_on(&systems, &own) {
        return None;
    }
    let config = fs::read_to_string(CONFIG).unwrap_or_default();
    let name = setting(&config, "SELINUXTYPE").unwrap_or("targeted");
    let contexts = format!("/etc/selinux/{name}/contexts/lxc_contexts");
    Some(defaults(&fs::read_to_string(contexts).unwrap_or_default()))
}

fn is_on(file_systems: &str, own_context: &str) -> bool {
    let there = |line: &str| line.split_whitespace().last() == Some("selinuxfs");
    file_systems.lines().any(there) && own_context.trim_end_matches(['\0', '\n']) != NO_POLICY
}

/// lxc_contexts(5): `process = "…"`, `file = "…"`.
fn defaults(text: &str) -> SeLinux {
    let known = SeLinux::default();
    let of = |key, otherwise| setting(text, key).map_or(otherwise, str::to_owned);
    SeLinux {
        process: of("process", known.process),
        file: of("file", known.file),
    }
}

fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let mut values = lines.filter(|(name, _)| name.trim() == key);
    values
        .next()
        .map(|(_, value)| value.trim().trim_matches('"'))
}

/// Which pod has which level: two pods that live have never the same.
#[derive(Debug, Default)]
pub(super) struct Levels(Mutex<HashMap<String, Weak<Sandbox>>>);

impl Levels {
    /// A sandbox with a level that nobody has.
    pub fn give(
        &self,
        make: impl FnOnce(String) -> std::result::Result<Sandbox, VerbError>,
    ) -> std::result::Result<Arc<Sandbox>, VerbError> {
        let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        levels.retain(|_, sandbox| sandbox.strong_count() > 0);
        let mut level = spec::selinux_level(random());
        while levels.contains_key(&level) {
            level = spec::selinux_level(random());
        }
        let sandbox = Arc::new(make(level.clone())?);
        levels.insert(level, Arc::downgrade(&sandbox));
        Ok(sandbox)
    }

    /// A sandbox of an earlier agent has its level already.
    pub fn adopt(&self, sandbox: &Arc<Sandbox>) {
        let level = sandbox.read(|r| r.selinux_level.clone());
        if !level.is_empty() {
            let mut levels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            levels.insert(level, Arc::downgrade(sandbox));
        }
    }
}

const LABEL: &CStr = c"security.selinux";

/// Trees that hold the host's own files; a container that was given one of them must not
/// take them away from everybody else. opencontainers/selinux go-selinux/label `Relabel`.
const HOSTS_OWN: [&str; 18] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
];

/// Labels all that is at and below `path`, which has no links in it. File systems that have
/// no labels are left as they are.
pub(super) fn relabel(path: &Path, label: &str) -> std::result::Result<(), VerbError> {
    if HOSTS_OWN.iter().any(|own| Path::new(own) == path) {
        return Err(VerbError::RelabelHost {
            path: path.to_owned(),
        });
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let labelled = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .and_then(|top| tree(&top, label.as_bytes()));
    match labelled {
        Err(Errno::OPNOTSUPP) | Ok(()) => Ok(()),
        Err(errno) => Err(VerbError::Relabel {
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

/// By descriptor at every step: the tree may change hands while it is walked.
fn tree(top: &OwnedFd, label: &[u8]) -> Result<()> {
    one(top.as_fd(), label)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(top)?.st_mode);
    if kind != FileType::Directory {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(top, c".", flags, Mode::empty())?;
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&dir, name, flags, Mode::empty()) {
            Ok(below) => tree(&below, label)?,
            // Gone meanwhile.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The link in /proc leads to the file itself, also when that is a symbolic link.
fn one(file: BorrowedFd<'_>, label: &[u8]) -> Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::setxattr(path, LABEL, label, XattrFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_policys_where_it_has_them() {
        let text = "process = \"system_u:system_r:mine_t:s0\"\ncontent = \"x\"\n";
        let found = defaults(text);
        assert_eq!(found.process, "system_u:system_r:mine_t:s0");
        assert_eq!(found.file, SeLinux::default().file);
    }

    #[test]
    fn selinux_is_on_when_the_kernel_has_it_and_a_policy_is_loaded() {
        let (with, without) = ("nodev\tsysfs\nnodev\tselinuxfs\n", "nodev\tsysfs\n");
        assert!(is_on(with, "system_u:system_r:dockerd_t:s0\0"));
        assert!(
            is_on(with, ""),
            "what can't be told is no reason to go without"
        );
        assert!(!is_on(with, "kernel\0"));
        assert!(!is_on(without, "unconfined\n"));
    }

    #[test]
    fn relabel_refuses_the_hosts_own_trees() {
        let error = relabel(Path::new("/usr"), "x").expect_err("refused");
        assert!(error.to_string().contains("/usr"), "{error}");
    }
}
