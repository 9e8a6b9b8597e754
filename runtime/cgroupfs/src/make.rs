//! A new cgroup, and what it needs.

use super::file::{FileError, put};
use super::hierarchy::Hierarchy;
use std::fs::create_dir;
use std::io::ErrorKind;
use std::path::Path;

/// Controllers of v2 that pods need where the host has them.
pub const DELEGATED: [&str; 6] = ["cpu", "cpuset", "io", "memory", "hugetlb", "pids"];

/// How often a directory that vanishes while it is made is made again.
const TRIES: usize = 5;

/// Makes a cgroup by its path below the mount, and what is missing above it, fit to have processes
/// and cgroups in it. `alone`: there is no other hierarchy; beside v1 that of v2 only tracks
/// processes. Answers how many levels were there before; nothing when all were.
///
/// # Errors
/// The directory that can't be made, or the cpuset that can't be taken from the cgroup above.
pub fn make(hierarchy: &Hierarchy, path: &str, alone: bool) -> Result<Option<usize>, FileError> {
    for _ in 1..TRIES {
        match make_once(hierarchy, path, alone) {
            // A removal of an empty one came between two levels.
            Err(FileError::Make { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            done => return done,
        }
    }
    make_once(hierarchy, path, alone)
}

fn make_once(hierarchy: &Hierarchy, path: &str, alone: bool) -> Result<Option<usize>, FileError> {
    let names = || path.split('/').filter(|name| !name.is_empty());
    // The usual case first: all above it is there.
    match create(
        hierarchy,
        &hierarchy.mount.join(path.trim_matches('/')),
        alone,
    ) {
        Err(FileError::Make { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        made => return Ok(made?.then(|| names().count().saturating_sub(1))),
    }
    let mut there = None;
    let mut dir = hierarchy.mount.clone();
    for (level, name) in names().enumerate() {
        dir.push(name);
        if create(hierarchy, &dir, alone)? {
            there.get_or_insert(level);
        }
    }
    Ok(there)
}

/// Answers whether it was not there.
fn create(hierarchy: &Hierarchy, dir: &Path, alone: bool) -> Result<bool, FileError> {
    match create_dir(dir) {
        Ok(()) => prepare(hierarchy, dir, alone).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(FileError::Make {
            path: dir.to_owned(),
            source,
        }),
    }
}

fn prepare(hierarchy: &Hierarchy, dir: &Path, alone: bool) -> Result<(), FileError> {
    match (hierarchy.v2, dir.parent()) {
        (true, Some(above)) if alone => pass_on(hierarchy, above),
        // An empty one takes no process.
        (false, Some(above)) if hierarchy.has("cpuset") => {
            inherit(above, dir, "cpuset.cpus")?;
            inherit(above, dir, "cpuset.mems")?;
        }
        _ => {}
    }
    Ok(())
}

/// v2: lets controllers be used below a cgroup. One that can't be had shows when a limit needs it.
pub fn pass_on(hierarchy: &Hierarchy, dir: &Path) {
    for controller in DELEGATED.iter().filter(|c| hierarchy.has(c)) {
        let _ = put(
            &dir.join("cgroup.subtree_control"),
            &format!("+{controller}"),
        );
    }
}

fn inherit(above: &Path, dir: &Path, file: &str) -> Result<(), FileError> {
    let path = above.join(file);
    let value =
        std::fs::read_to_string(&path).map_err(|source| FileError::Read { path, source })?;
    let (path, value) = (dir.join(file), value.trim());
    put(&path, value).map_err(|source| FileError::Write {
        path,
        value: value.to_owned(),
        source,
    })
}
