//! An extracted layer back to a tar stream.

use crate::image::digest::{Digest, Hasher};
use crate::image::layer::{OPAQUE_XATTR, is_kept};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// What a packed layer is.
pub struct Packed {
    pub diff_id: Digest,
    pub size: u64,
}

/// Writes a layer's members, sorted, so that one layer gives one stream.
pub fn pack(diff: &Path, out: impl Write) -> io::Result<Packed> {
    let counted = Counted {
        inner: out,
        hasher: Hasher::sha256(),
        size: 0,
    };
    let mut packer = Packer {
        builder: Builder::new(counted),
        links: HashMap::new(),
    };
    packer.member(diff, Path::new("."), &fs::symlink_metadata(diff)?)?;
    packer.directory(diff, Path::new(""))?;
    let counted = packer.builder.into_inner()?;
    Ok(Packed {
        diff_id: counted.hasher.finish(),
        size: counted.size,
    })
}

struct Packer<W: Write> {
    builder: Builder<Counted<W>>,
    /// Names of inodes with several.
    links: HashMap<u64, PathBuf>,
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, dir: &Path, name: &Path) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), name.join(entry.file_name()));
            let meta = fs::symlink_metadata(&path)?;
            self.member(&path, &name, &meta)?;
            if meta.is_dir() {
                self.directory(&path, &name)?;
            }
        }
        Ok(())
    }

    fn member(&mut self, path: &Path, name: &Path, meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        if kind.is_char_device() && meta.rdev() == 0 {
            return self.whiteout(name, meta);
        }
        let mut header = header(meta);
        if !meta.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.links.get(&meta.ino()) {
                header.set_entry_type(EntryType::Link);
                header.set_size(0);
                let first = first.clone();
                return self.builder.append_link(&mut header, name, first);
            }
            self.links.insert(meta.ino(), name.to_owned());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            return self
                .builder
                .append_link(&mut header, name, fs::read_link(path)?);
        }
        self.xattrs(path)?;
        if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(meta.len());
            return self
                .builder
                .append_data(&mut header, name, File::open(path)?);
        }
        header.set_entry_type(match () {
            () if kind.is_dir() => EntryType::Directory,
            () if kind.is_fifo() => EntryType::Fifo,
            () if kind.is_char_device() => EntryType::Char,
            () if kind.is_block_device() => EntryType::Block,
            // A socket is of no use in an image.
            () => return Ok(()),
        });
        if kind.is_char_device() || kind.is_block_device() {
            header.set_device_major(rustix::fs::major(meta.rdev()))?;
            header.set_device_minor(rustix::fs::minor(meta.rdev()))?;
        }
        self.builder.append_data(&mut header, name, io::empty())?;
        if meta.is_dir() && is_opaque(path) {
            self.whiteout(&name.join(".wh..opq"), meta)?;
        }
        Ok(())
    }

    /// OCI image-spec layer.md "Whiteouts": `.wh.` before the name.
    fn whiteout(&mut self, hidden: &Path, meta: &Metadata) -> io::Result<()> {
        let mut name = b".wh.".to_vec();
        name.extend_from_slice(hidden.file_name().unwrap_or_default().as_bytes());
        let mut header = header(meta);
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        let name = hidden.with_file_name(OsStr::from_bytes(&name));
        self.builder.append_data(&mut header, name, io::empty())
    }

    fn xattrs(&mut self, path: &Path) -> io::Result<()> {
        let mut names = vec![0; 64 << 10];
        let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for name in names[..length]
            .split(|b| *b == 0)
            .filter(|name| is_kept(name))
        {
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            value.truncate(length);
            found.push((
                format!("SCHILY.xattr.{}", String::from_utf8_lossy(name)),
                value,
            ));
        }
        found.sort();
        let records = found
            .iter()
            .map(|(name, value)| (name.as_str(), &value[..]));
        match found.is_empty() {
            true => Ok(()),
            false => self.builder.append_pax_extensions(records),
        }
    }
}

fn header(meta: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(meta.mode() & 0o7777);
    header.set_uid(u64::from(meta.uid()));
    header.set_gid(u64::from(meta.gid()));
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 4];
    matches!(rustix::fs::lgetxattr(path, OPAQUE_XATTR, &mut value), Ok(1)) && value[0] == b'y'
}

struct Counted<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
