//! Writes all files of a volume so that a reader sees the old ones or the new
//! ones, never a mix.
//!
//! Layout (kubernetes v1.36 pkg/volume/util/atomic_writer.go; programs rely on
//! it): files live in a folder named after the time, `..data` is a link to it
//! that is replaced by rename, and every name a user sees is a link through
//! `..data`.

use super::{failed, tree};
use crate::volume::error::VolumeReason;
use crate::volume::payload::{File, Files};
use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";
const DIR_MODE: u32 = 0o755;
/// fsGroup on a volume that is read only: kubernetes v1.36
/// pkg/volume/volume_linux.go `roMask`, `execMask`, and setgid on folders.
const GROUP_FILE: u32 = 0o440;
const GROUP_DIR: u32 = 0o2550;

/// Makes the volume hold exactly `files`. Answers whether anything changed.
pub fn write(dir: &Path, files: &Files, fs_group: Option<u32>) -> Result<bool, VolumeReason> {
    let old = current(dir)?;
    if let Some(old) = &old
        && holds(old, files)
    {
        link_names(dir, files)?;
        return Ok(false);
    }
    let fresh = make_generation(dir, files, fs_group)?;
    publish(dir, &fresh)?;
    link_names(dir, files)?;
    unlink_others(dir, files)?;
    if let Some(old) = old {
        tree::remove(&old)?;
    }
    Ok(true)
}

/// The folder that `..data` names.
fn current(dir: &Path) -> Result<Option<PathBuf>, VolumeReason> {
    let link = dir.join(DATA);
    match fs::read_link(&link) {
        Ok(target) => Ok(Some(dir.join(target))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("readlink", &link)(e)),
    }
}

/// Modes are not compared: they can't change in the life of a pod.
fn holds(generation: &Path, files: &Files) -> bool {
    let same = |(path, file): (&String, &File)| {
        fs::read(generation.join(path)).is_ok_and(|data| data == file.data)
    };
    files.iter().all(same) && count_files(generation).is_ok_and(|n| n == files.len())
}

fn count_files(dir: &Path) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += match entry.file_type()?.is_dir() {
            true => count_files(&entry.path())?,
            false => 1,
        };
    }
    Ok(count)
}

fn make_generation(
    dir: &Path,
    files: &Files,
    fs_group: Option<u32>,
) -> Result<PathBuf, VolumeReason> {
    let now = jiff::Zoned::now();
    let name = format!(
        "..{}.{:09}",
        now.strftime("%Y_%m_%d_%H_%M_%S"),
        now.subsec_nanosecond()
    );
    let generation = dir.join(name);
    make_dir(&generation, fs_group)?;
    let mut made = BTreeSet::new();
    for (path, file) in files {
        let mut parents: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
        parents.pop();
        for parent in parents.into_iter().rev() {
            if made.insert(parent) {
                make_dir(&generation.join(parent), fs_group)?;
            }
        }
        write_file(&generation.join(path), file, fs_group)?;
    }
    Ok(generation)
}

fn make_dir(path: &Path, fs_group: Option<u32>) -> Result<(), VolumeReason> {
    fs::create_dir(path).map_err(failed("mkdir", path))?;
    let dir = fs::File::open(path).map_err(failed("open", path))?;
    let mode = DIR_MODE | fs_group.map_or(0, |_| GROUP_DIR);
    own(&dir, None, fs_group, mode).map_err(failed("chmod", path))
}

fn write_file(path: &Path, file: &File, fs_group: Option<u32>) -> Result<(), VolumeReason> {
    let mut how = OpenOptions::new();
    how.write(true).create_new(true).mode(0o600);
    let mut out = how.open(path).map_err(failed("create", path))?;
    out.write_all(&file.data).map_err(failed("write", path))?;
    let mode = file.mode | fs_group.map_or(0, |_| GROUP_FILE);
    own(&out, file.owner, fs_group, mode).map_err(failed("chmod", path))
}

/// Owner first: chown takes setgid away.
fn own(file: &fs::File, uid: Option<u32>, gid: Option<u32>, mode: u32) -> rustix::io::Result<()> {
    if uid.is_some() || gid.is_some() {
        fchown(file, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?;
    }
    fchmod(file, Mode::from_raw_mode(mode))
}

fn publish(dir: &Path, generation: &Path) -> Result<(), VolumeReason> {
    let next = dir.join(DATA_NEXT);
    let data = dir.join(DATA);
    let name = generation.file_name().unwrap_or_default();
    match fs::remove_file(&next) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed("unlink", &next)(e)),
        _ => {}
    }
    symlink(name, &next).map_err(failed("symlink", &next))?;
    fs::rename(&next, &data).map_err(failed("rename to", &data))
}

/// First components of the paths: what a user sees.
fn names(files: &Files) -> BTreeSet<&str> {
    files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect()
}

fn link_names(dir: &Path, files: &Files) -> Result<(), VolumeReason> {
    for name in names(files) {
        let link = dir.join(name);
        match symlink(Path::new(DATA).join(name), &link) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("symlink", &link)(e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Also what a crash left: generations that nothing points to.
fn unlink_others(dir: &Path, files: &Files) -> Result<(), VolumeReason> {
    let wanted = names(files);
    let current = fs::read_link(dir.join(DATA)).unwrap_or_default();
    for entry in fs::read_dir(dir).map_err(failed("read", dir))? {
        let entry = entry.map_err(failed("read", dir))?;
        let name = entry.file_name();
        let keep = name
            .to_str()
            .is_some_and(|n| n == DATA || wanted.contains(n));
        if !keep && Path::new(&name) != current {
            tree::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn files(entries: &[(&str, &str)]) -> Files {
        let file = |data: &str| File {
            data: data.into(),
            mode: 0o644,
            owner: None,
        };
        entries
            .iter()
            .map(|(path, data)| ((*path).to_owned(), file(data)))
            .collect()
    }

    fn listing(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn names_lead_through_data_to_the_dated_folder() {
        let dir = Scratch::new();
        assert!(write(&dir.0, &files(&[("a", "1"), ("sub/b", "2")]), None).unwrap());
        assert_eq!(
            fs::read_link(dir.0.join("a")).unwrap(),
            Path::new("..data/a")
        );
        assert_eq!(
            fs::read_link(dir.0.join("sub")).unwrap(),
            Path::new("..data/sub")
        );
        assert_eq!(fs::read_to_string(dir.0.join("sub/b")).unwrap(), "2");
        let generation = fs::read_link(dir.0.join("..data")).unwrap();
        assert!(
            generation.to_str().unwrap().starts_with("..20"),
            "{generation:?}"
        );
    }

    #[test]
    fn a_change_swaps_data_and_removes_what_is_no_longer_wanted() {
        let dir = Scratch::new();
        write(&dir.0, &files(&[("a", "1"), ("b", "1")]), None).unwrap();
        let before = fs::read_link(dir.0.join("..data")).unwrap();
        assert!(write(&dir.0, &files(&[("b", "2"), ("c", "3")]), None).unwrap());
        let after = fs::read_link(dir.0.join("..data")).unwrap();
        assert_ne!(before, after);
        assert_eq!(
            listing(&dir.0),
            [after.to_str().unwrap(), "..data", "b", "c"]
        );
        assert_eq!(fs::read_to_string(dir.0.join("b")).unwrap(), "2");
    }

    #[test]
    fn the_same_files_are_not_written_again() {
        let dir = Scratch::new();
        write(&dir.0, &files(&[("a", "1")]), None).unwrap();
        let before = listing(&dir.0);
        assert!(!write(&dir.0, &files(&[("a", "1")]), None).unwrap());
        assert_eq!(listing(&dir.0), before);
        assert!(
            write(&dir.0, &files(&[]), None).unwrap(),
            "a removed key is a change"
        );
    }

    #[test]
    fn a_crash_between_the_steps_is_repaired_by_the_next_write() {
        let dir = Scratch::new();
        write(&dir.0, &files(&[("a", "1")]), None).unwrap();
        fs::create_dir(dir.0.join("..2020_01_01_00_00_00.1")).unwrap();
        symlink("..2020_01_01_00_00_00.1", dir.0.join("..data_tmp")).unwrap();
        fs::remove_file(dir.0.join("a")).unwrap();
        write(&dir.0, &files(&[("a", "1")]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.0.join("a")).unwrap(), "1");
        write(&dir.0, &files(&[("a", "2")]), None).unwrap();
        assert_eq!(listing(&dir.0).len(), 3);
    }

    #[test]
    fn modes_are_exact_whatever_the_umask_and_fs_group_adds_reading() {
        let dir = Scratch::new();
        let gid = rustix::process::getegid().as_raw();
        let mut wanted = files(&[("a", "1"), ("sub/b", "2")]);
        wanted.get_mut("a").unwrap().mode = 0o600;
        write(&dir.0, &wanted, Some(gid)).unwrap();
        let seen = |path: &str| fs::metadata(dir.0.join(path)).unwrap();
        assert_eq!(seen("a").permissions().mode() & 0o7777, 0o640);
        assert_eq!(seen("sub/b").permissions().mode() & 0o7777, 0o644);
        assert_eq!(seen("sub").permissions().mode() & 0o7777, 0o2755);
        assert_eq!(seen("a").gid(), gid);
        let other = Scratch::new();
        wanted.get_mut("a").unwrap().mode = 0o666;
        write(&other.0, &wanted, None).unwrap();
        assert_eq!(
            fs::metadata(other.0.join("a"))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o666
        );
    }
}
