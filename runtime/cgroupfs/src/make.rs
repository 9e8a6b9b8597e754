//! What a new cgroup needs.

use super::file::{FileError, put};
use super::hierarchy::Hierarchy;
use std::path::Path;

/// Controllers of v2 that pods need where the host has them.
pub const DELEGATED: [&str; 6] = ["cpu", "cpuset", "io", "memory", "hugetlb", "pids"];

/// Makes a new cgroup fit to have processes and cgroups in it. `alone`: there is no other
/// hierarchy; beside v1 that of v2 only tracks processes.
///
/// # Errors
/// The cpuset that can't be taken from the cgroup above.
pub fn prepare(hierarchy: &Hierarchy, dir: &Path, alone: bool) -> Result<(), FileError> {
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
