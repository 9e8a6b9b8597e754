//! One member at a time onto disk.

use super::sparse::Extent;
use super::tar::{Entry, Kind, Reader};
use super::tree::{Attributes, Existing, MemberPath, Tree};
use super::{BUFFER, ExtractError, Extracted};
use crate::image::RootDir;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::io::Read;
use std::path::Path;

/// OCI image-spec layer.md "Whiteouts".
const WHITEOUT: &[u8] = b".wh.";
/// OCI image-spec layer.md "Opaque Whiteout".
const OPAQUE: &[u8] = b".wh..wh..opq";
/// aufs' own files, which docker skips too.
const AUFS: &[u8] = b".wh..wh.";
/// Linux Documentation/filesystems/overlayfs.rst "whiteouts and opaque directories".
pub const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Space is counted in blocks of ext4's and xfs' usual size.
const DISK_BLOCK: u64 = 4096;
/// Runs of zeros this long are left as holes.
const HOLE: usize = 64 << 10;

/// Puts members into a tree.
pub struct Applier {
    tree: Tree,
    root_dir: Option<RootDir>,
    bytes: u64,
    buffer: Vec<u8>,
    /// What new inodes get without being told.
    own: (u32, u32),
}

impl Applier {
    pub fn new(dir: &Path) -> Result<Self, ExtractError> {
        Ok(Self {
            tree: Tree::open(dir)?,
            root_dir: None,
            bytes: 0,
            buffer: vec![0; BUFFER],
            own: (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            ),
        })
    }

    /// Makes what the entry says; reads its data from `reader`.
    pub fn apply(
        &mut self,
        entry: Entry,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), ExtractError> {
        let path = MemberPath::parse(&entry.path)?;
        if path.name.is_empty() {
            return self.root(entry);
        }
        let parent = self.tree.parent(&path)?;
        if let Some(hidden) = path.name.strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, &path, hidden);
        }
        match &entry.kind {
            Kind::Directory => self.directory(&parent, &path, entry),
            Kind::File(size, extents) => {
                let data = (*size, extents.as_deref());
                let file = self.file(&parent, &path, data, reader)?;
                self.set(&file, &path, &entry)
            }
            Kind::HardLink(target) => self.hard_link(&parent, &path, target),
            _ => self.special(&parent, &path, &entry),
        }
    }

    /// Sets what directories get, the innermost first.
    pub fn finish(mut self) -> Result<Extracted, ExtractError> {
        let directories = std::mem::take(&mut self.tree.directories);
        for (path, attributes) in directories.iter().rev() {
            match self.tree.open_dir(path) {
                Ok(dir) => set_attributes(&dir, attributes, self.own)
                    .map_err(|e| ExtractError::new("set attributes of", path, e))?,
                // Replaced by something else, which has its own.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(ExtractError::new("open", path, e)),
            }
        }
        if !directories.contains_key(&b""[..]) {
            rustix::fs::fchmod(self.tree.root(), Mode::from_raw_mode(0o755))
                .map_err(|e| ExtractError::new("set the mode of", b"/", e))?;
        }
        Ok(Extracted {
            bytes: self.bytes + self.tree.inodes * DISK_BLOCK,
            inodes: self.tree.inodes,
            root_dir: self.root_dir,
            implicit: self.tree.implicit.into_iter().collect(),
        })
    }

    fn root(&mut self, entry: Entry) -> Result<(), ExtractError> {
        if entry.kind != Kind::Directory {
            return Err(ExtractError::outside(&entry.path));
        }
        self.root_dir = Some(RootDir {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
        });
        self.tree.directories.insert(Vec::new(), attributes(entry));
        Ok(())
    }

    /// A whiteout hides what lower layers have at a name, and never what this
    /// layer has.
    fn whiteout(
        &mut self,
        parent: &OwnedFd,
        path: &MemberPath,
        hidden: &[u8],
    ) -> Result<(), ExtractError> {
        if path.name == OPAQUE {
            return set_opaque(parent, &path.parent);
        }
        if path.name.starts_with(AUFS) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(ExtractError::outside(&path.whole()));
        }
        match self.tree.kind(parent, hidden) {
            Some(Existing::Directory) => {
                let inside = MemberPath {
                    parent: path.parent.clone(),
                    name: hidden.to_vec(),
                };
                let dir = self.open_real_dir(parent, &inside)?;
                set_opaque(&dir, &inside.whole())
            }
            Some(_) => Ok(()),
            None => {
                let mode = Mode::empty();
                rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, mode, 0)
                    .map_err(|e| ExtractError::new("make whiteout of", &path.whole(), e))?;
                self.tree.inodes += 1;
                Ok(())
            }
        }
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        path: &MemberPath,
        entry: Entry,
    ) -> Result<(), ExtractError> {
        let whole = path.whole();
        match self.tree.kind(parent, &path.name) {
            Some(Existing::Directory) => {}
            Some(existing) => {
                self.tree.remove(parent, path)?;
                self.tree.make_dir(parent, &path.name, &whole)?;
                if existing == Existing::Whiteout {
                    // What the whiteout hid stays hidden.
                    let dir = self.open_real_dir(parent, path)?;
                    set_opaque(&dir, &whole)?;
                }
            }
            None => self.tree.make_dir(parent, &path.name, &whole)?,
        }
        self.tree.implicit.remove(&whole);
        self.tree.directories.insert(whole, attributes(entry));
        Ok(())
    }

    fn open_real_dir(&self, parent: &OwnedFd, path: &MemberPath) -> Result<OwnedFd, ExtractError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, &path.name[..], flags, Mode::empty())
            .map_err(|e| ExtractError::new("open", &path.whole(), e))
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        path: &MemberPath,
        (size, extents): (u64, Option<&[Extent]>),
        reader: &mut Reader<impl Read>,
    ) -> Result<OwnedFd, ExtractError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = self.replace(parent, path, "make file", |parent, name| {
            rustix::fs::openat(parent, name, flags, mode)
        })?;
        let whole_file = [Extent {
            offset: 0,
            length: size,
        }];
        let mut end = 0;
        for extent in extents.unwrap_or(&whole_file) {
            end = self.copy(&file, *extent, path, reader)?;
        }
        if end != size {
            rustix::fs::ftruncate(&file, size)
                .map_err(|e| ExtractError::new("set the size of", &path.whole(), e))?;
        }
        Ok(file)
    }

    /// Writes a run of data; yields where the last byte written ends.
    fn copy(
        &mut self,
        file: &OwnedFd,
        extent: Extent,
        path: &MemberPath,
        reader: &mut Reader<impl Read>,
    ) -> Result<u64, ExtractError> {
        let mut offset = extent.offset;
        let mut written_to = 0;
        let end = extent.offset + extent.length;
        while offset < end {
            let want = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let want = want.min(self.buffer.len());
            let got = reader.read(&mut self.buffer[..want])?;
            for piece in self.buffer[..got].chunks(HOLE) {
                if piece.len() < HOLE || piece.iter().any(|b| *b != 0) {
                    write_all(file, piece, offset)
                        .map_err(|e| ExtractError::new("write", &path.whole(), e))?;
                    self.bytes += (piece.len() as u64).next_multiple_of(DISK_BLOCK);
                    written_to = offset + piece.len() as u64;
                }
                offset += piece.len() as u64;
            }
        }
        Ok(written_to)
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        path: &MemberPath,
        target: &[u8],
    ) -> Result<(), ExtractError> {
        let to = MemberPath::parse(target)?;
        if to == *path {
            return Ok(());
        }
        let dangling = || ExtractError::DanglingLink {
            path: String::from_utf8_lossy(&path.whole()).into_owned(),
            target: String::from_utf8_lossy(target).into_owned(),
        };
        let from = self.tree.open_dir(&to.parent).map_err(|_| dangling())?;
        let linked = self.replace(parent, path, "make hard link", |parent, name| {
            rustix::fs::linkat(&from, &to.name[..], parent, name, AtFlags::empty())
        });
        match linked {
            Err(ExtractError::File {
                source: Errno::NOENT,
                ..
            }) => Err(dangling()),
            // A link adds a name, not an inode.
            other => other.map(|()| self.tree.inodes -= 1),
        }
    }

    fn special(
        &mut self,
        parent: &OwnedFd,
        path: &MemberPath,
        entry: &Entry,
    ) -> Result<(), ExtractError> {
        let node = |kind, device| {
            move |parent: &OwnedFd, name: &[u8]| {
                rustix::fs::mknodat(parent, name, kind, Mode::empty(), device)
            }
        };
        match &entry.kind {
            Kind::Symlink(target) => {
                self.replace(parent, path, "make symlink", |parent, name| {
                    rustix::fs::symlinkat(&target[..], parent, name)
                })?
            }
            Kind::Char(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                let make = node(FileType::CharacterDevice, device);
                self.replace(parent, path, "make device", make)?;
            }
            Kind::Block(major, minor) => {
                let device = rustix::fs::makedev(*major, *minor);
                let make = node(FileType::BlockDevice, device);
                self.replace(parent, path, "make device", make)?;
            }
            _ => self.replace(parent, path, "make fifo", node(FileType::Fifo, 0))?,
        }
        let is_link = matches!(entry.kind, Kind::Symlink(_));
        set_by_name(parent, &path.name, entry, self.own, is_link)
            .map_err(|e| ExtractError::new("set attributes of", &path.whole(), e))
    }

    /// Makes an inode at a name, in place of what is there.
    fn replace<T>(
        &mut self,
        parent: &OwnedFd,
        path: &MemberPath,
        action: &'static str,
        make: impl Fn(&OwnedFd, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, ExtractError> {
        let made = match make(parent, &path.name) {
            Err(Errno::EXIST) => {
                self.tree.remove(parent, path)?;
                make(parent, &path.name)
            }
            other => other,
        };
        let made = made.map_err(|e| ExtractError::new(action, &path.whole(), e))?;
        self.tree.inodes += 1;
        Ok(made)
    }

    fn set(&self, file: &OwnedFd, path: &MemberPath, entry: &Entry) -> Result<(), ExtractError> {
        let attributes = Attributes {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        };
        set_attributes(file, &attributes, self.own)
            .map_err(|e| ExtractError::new("set attributes of", &path.whole(), e))
    }
}

fn attributes(entry: Entry) -> Attributes {
    Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs,
    }
}

/// In this order: chown clears setuid bits and capabilities, and everything
/// but utimes touches the times.
fn set_attributes(file: impl AsFd, attributes: &Attributes, own: (u32, u32)) -> Result<(), Errno> {
    let (uid, gid) = (attributes.uid, attributes.gid);
    if (uid, gid) != own {
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(attributes.mode))?;
    for (name, value) in &attributes.xattrs {
        if !is_kept(name) {
            continue;
        }
        match rustix::fs::fsetxattr(&file, &name[..], value, XattrFlags::empty()) {
            // The file system has none; docker and containerd go on too.
            Err(Errno::NOTSUP) => {}
            other => other?,
        }
    }
    rustix::fs::futimens(&file, &times(attributes.mtime))
}

fn set_by_name(
    parent: &OwnedFd,
    name: &[u8],
    entry: &Entry,
    own: (u32, u32),
    is_link: bool,
) -> Result<(), Errno> {
    if (entry.uid, entry.gid) != own {
        let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)?;
    }
    if !is_link {
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
    }
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(parent, name, &times(entry.mtime), flags)
}

/// What a container can see and an image may say. `trusted.overlay.*` would
/// steer the host's overlay; labels of the build host mean nothing here.
pub fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || matches!(
            name,
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
        )
}

fn set_opaque(dir: impl AsFd, path: &[u8]) -> Result<(), ExtractError> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
        .map_err(|e| ExtractError::new("make opaque", path, e))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(nanos),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, bytes, offset))?;
        if n == 0 {
            return Err(Errno::IO);
        }
        offset += n as u64;
        bytes = &bytes[n..];
    }
    Ok(())
}
