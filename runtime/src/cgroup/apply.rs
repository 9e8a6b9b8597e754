//! Writes limits: all of them, or none.

use super::devices::{DeviceRule, Kind};
use super::limits::Write;
use super::{CgroupError, CgroupPath, Cgroups, Limits, filter};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

impl Cgroups {
    /// Sets limits. When one can't be set, those already written get their old
    /// values back.
    ///
    /// # Errors
    /// The file and value that the kernel refused.
    pub fn apply(&self, path: &CgroupPath, limits: &Limits) -> Result<(), CgroupError> {
        if let Some((systemd, _)) = self.unit(path) {
            systemd.set(path.name(), limits);
        }
        let mut undo: Vec<(PathBuf, String)> = Vec::new();
        for write in limits.writes(&self.hierarchies, self.memsw(path)) {
            match self.write_one(path, &write) {
                Ok(step) => undo.extend(step),
                Err(error) => {
                    for (file, old) in undo.iter().rev() {
                        let _ = fs::write(file, old);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// As [`apply`](Self::apply), of a cgroup that was just made, and that goes
    /// when a limit can't be set: there are no old values to read.
    ///
    /// # Errors
    /// The file and value that the kernel refused.
    pub fn apply_new(&self, path: &CgroupPath, limits: &Limits) -> Result<(), CgroupError> {
        if let Some((systemd, _)) = self.unit(path) {
            systemd.set(path.name(), limits);
        }
        for write in limits.writes(&self.hierarchies, None) {
            let Some(file) = self.file(path, &write)? else {
                continue;
            };
            match put(&file, &write.value) {
                Err(CgroupError::Write { source, .. })
                    if write.optional && source.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Answers the file with its old value.
    fn write_one(
        &self,
        path: &CgroupPath,
        write: &Write,
    ) -> Result<Option<(PathBuf, String)>, CgroupError> {
        let Some(file) = self.file(path, write)? else {
            return Ok(None);
        };
        if write.optional && !file.exists() {
            return Ok(None);
        }
        let old = fs::read_to_string(&file).unwrap_or_default();
        put(&file, &write.value)?;
        Ok(Some((file, old.trim().to_owned())))
    }

    /// Where a value goes; nowhere, if the host has no such controller and can do
    /// without.
    fn file(&self, path: &CgroupPath, write: &Write) -> Result<Option<PathBuf>, CgroupError> {
        let home = match self.controller(&write.controller) {
            Some(home) => home,
            // `cgroup.…` files belong to v2 itself.
            None if write.controller == "cgroup" && self.unified().is_some() => {
                self.unified().ok_or(CgroupError::NoHierarchy)?
            }
            None if write.optional => return Ok(None),
            None => {
                return Err(CgroupError::NoController {
                    controller: write.controller.clone(),
                    file: write.file.clone(),
                });
            }
        };
        Ok(Some(self.dir(home, path).join(&write.file)))
    }

    fn memsw(&self, path: &CgroupPath) -> Option<u64> {
        let home = self.controller("memory").filter(|h| !h.v2)?;
        let file = self.dir(home, path).join("memory.memsw.limit_in_bytes");
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Denies every device but those that a rule allows: by files on v1, by a
    /// program on v2.
    ///
    /// # Errors
    /// The rule or program that the kernel refused.
    pub fn set_devices(&self, path: &CgroupPath, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        match (self.controller("devices"), self.unified()) {
            (Some(home), _) => list_devices(&self.dir(home, path), rules),
            (None, Some(home)) => filter_devices(&self.dir(home, path), rules),
            (None, None) => Ok(()),
        }
    }
}

fn list_devices(dir: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    if rules.iter().any(|rule| rule.kind == Kind::All) {
        return put(&dir.join("devices.allow"), "a");
    }
    put(&dir.join("devices.deny"), "a")?;
    // The kernel takes a rule a write.
    let path = dir.join("devices.allow");
    let failed = |value: &str, source| CgroupError::Write {
        path: path.clone(),
        value: value.to_owned(),
        source,
    };
    let allow = fs::File::options().write(true).open(&path);
    let mut allow = allow.map_err(|e| failed("", e))?;
    rules.iter().map(DeviceRule::line).try_for_each(|line| {
        let written = io::Write::write_all(&mut allow, line.as_bytes());
        written.map_err(|e| failed(&line, e))
    })
}

pub(super) fn filter_devices(dir: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let Some(program) = filter::program(rules) else {
        return Ok(());
    };
    let attach = || {
        let cgroup = fs::File::open(dir)?;
        crate::sys::attach_device_filter(&cgroup, &program).map_err(io::Error::from)
    };
    attach().map_err(|source| CgroupError::DeviceFilter {
        path: dir.to_owned(),
        source,
    })
}

pub(super) fn put(path: &Path, value: &str) -> Result<(), CgroupError> {
    cgroupfs::put(path, value).map_err(|source| CgroupError::Write {
        path: path.to_owned(),
        value: value.to_owned(),
        source,
    })
}
