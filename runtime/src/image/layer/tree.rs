//! A directory tree written through its root's descriptor: no name, symlink
//! or `..` in a layer leads out of it.

use super::ExtractError;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Mode of directories until their layer is complete; nobody else looks at
/// them meanwhile, and a setgid bit would reach what is made inside.
const WORKING_MODE: Mode = Mode::from_raw_mode(0o700);
/// Mode of directories that the layer does not speak of.
const IMPLICIT_MODE: u32 = 0o755;

/// A layer's directory in the making.
pub struct Tree {
    root: OwnedFd,
    /// The last parent used: members of a directory follow each other.
    last: Option<(Vec<u8>, OwnedFd)>,
    /// Attributes of directories, set when all members are there.
    pub directories: BTreeMap<Vec<u8>, Attributes>,
    /// Directories that only names of members speak of.
    pub implicit: BTreeSet<Vec<u8>>,
    /// Inodes made, the root included.
    pub inodes: u64,
}

/// What is set on an inode.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A member's path: components that are safe to walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPath {
    /// Without leading or trailing slash; empty for the root's members.
    pub parent: Vec<u8>,
    /// Empty for the root itself.
    pub name: Vec<u8>,
}

impl MemberPath {
    /// Drops `.`, doubled and leading slashes; `..` is refused, since no tool
    /// that makes layers writes it.
    pub fn parse(path: &[u8]) -> Result<Self, ExtractError> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(ExtractError::outside(path)),
                part if part.contains(&0) => return Err(ExtractError::outside(path)),
                part => parts.push(part),
            }
        }
        let name = parts.pop().unwrap_or_default().to_vec();
        Ok(Self {
            parent: parts.join(&b'/'),
            name,
        })
    }

    /// Parent and name together.
    pub fn whole(&self) -> Vec<u8> {
        if self.parent.is_empty() {
            return self.name.clone();
        }
        [&self.parent, &b"/"[..], &self.name].concat()
    }
}

impl Tree {
    /// Begins with an existing empty directory.
    pub fn open(dir: &Path) -> Result<Self, ExtractError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, dir, flags, Mode::empty())
            .map_err(|e| ExtractError::new("open", dir.as_os_str().as_encoded_bytes(), e))?;
        Ok(Self {
            root,
            last: None,
            directories: BTreeMap::new(),
            implicit: BTreeSet::new(),
            inodes: 1,
        })
    }

    /// The layer's root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory that a member goes into, made if nothing spoke of it.
    pub fn parent(&mut self, path: &MemberPath) -> Result<OwnedFd, ExtractError> {
        let dir = &path.parent;
        if let Some((last, fd)) = &self.last
            && last == dir
        {
            return fd.try_clone().map_err(|e| {
                let errno = Errno::from_io_error(&e).unwrap_or(Errno::IO);
                ExtractError::new("open", dir, errno)
            });
        }
        let fd = match self.open_dir(dir) {
            Err(Errno::NOENT) => self.make_parents(dir)?,
            other => other.map_err(|e| ExtractError::new("open", dir, e))?,
        };
        let copy = fd.try_clone().ok();
        self.last = copy.map(|copy| (dir.clone(), copy));
        Ok(fd)
    }

    /// Opens a directory below the root, its symlinks seen as from a chroot.
    pub fn open_dir(&self, dir: &[u8]) -> Result<OwnedFd, Errno> {
        let dir = if dir.is_empty() { b"." } else { dir };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, dir, flags, Mode::empty(), resolve)
    }

    fn make_parents(&mut self, dir: &[u8]) -> Result<OwnedFd, ExtractError> {
        let mut made = Vec::new();
        let mut fd = self
            .open_dir(b"")
            .map_err(|e| ExtractError::new("open", b"/", e))?;
        for part in dir.split(|b| *b == b'/') {
            if !made.is_empty() {
                made.push(b'/');
            }
            made.extend_from_slice(part);
            fd = match self.open_dir(&made) {
                Err(Errno::NOENT) => {
                    self.make_dir(&fd, part, &made)?;
                    self.implicit.insert(made.clone());
                    let attributes = Attributes {
                        mode: IMPLICIT_MODE,
                        ..Attributes::default()
                    };
                    self.directories.insert(made.clone(), attributes);
                    self.open_dir(&made)
                }
                other => other,
            }
            .map_err(|e| ExtractError::new("open", &made, e))?;
        }
        Ok(fd)
    }

    /// Makes a directory with the working mode; `whole` is for the error.
    pub fn make_dir(
        &mut self,
        parent: impl AsFd,
        name: &[u8],
        whole: &[u8],
    ) -> Result<(), ExtractError> {
        rustix::fs::mkdirat(parent, name, WORKING_MODE)
            .map_err(|e| ExtractError::new("make directory", whole, e))?;
        self.inodes += 1;
        Ok(())
    }

    /// What a name is now, without following it.
    pub fn kind(&self, parent: impl AsFd, name: &[u8]) -> Option<Existing> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Existing::Directory,
            FileType::CharacterDevice if stat.st_rdev == 0 => Existing::Whiteout,
            _ => Existing::Other,
        })
    }

    /// Removes what a member replaces, a whole directory too.
    pub fn remove(&mut self, parent: impl AsFd, path: &MemberPath) -> Result<(), ExtractError> {
        // A cached descriptor may be of what goes.
        self.last = None;
        let whole = path.whole();
        let gone = remove_tree(parent.as_fd(), &path.name);
        self.inodes -= gone.map_err(|e| ExtractError::new("replace", &whole, e))?;
        self.directories.remove(&whole);
        self.implicit.remove(&whole);
        let inside = [&whole[..], b"/"].concat();
        self.directories.retain(|dir, _| !dir.starts_with(&inside));
        self.implicit.retain(|dir| !dir.starts_with(&inside));
        Ok(())
    }
}

/// What stands at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    Directory,
    /// Overlay's mark of a removed name.
    Whiteout,
    Other,
}

/// Removes a name with all below it; counts the names.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<u64, Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other.map(|()| 1),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let mut gone = 1;
    for entry in rustix::fs::Dir::read_from(&dir)? {
        let entry = entry?;
        let inside = entry.file_name().to_bytes();
        if inside != b"." && inside != b".." {
            gone += remove_tree(dir.as_fd(), inside)?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Option<(String, String)> {
        let path = MemberPath::parse(path.as_bytes()).ok()?;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Some((text(path.parent), text(path.name)))
    }

    #[test]
    fn member_path_drops_what_means_nothing() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(parse("./a//b/./c/"), pair("a/b", "c"));
        assert_eq!(parse("/etc/passwd"), pair("etc", "passwd"));
        assert_eq!(parse("./"), pair("", ""));
        assert_eq!(parse("..."), pair("", "..."));
    }

    #[test]
    fn member_path_is_refused_when_it_climbs() {
        for path in ["..", "../a", "a/../../b", "a/..", "a\0b"] {
            assert_eq!(parse(path), None, "{path:?}");
        }
    }
}
