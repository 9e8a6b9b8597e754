//! Named members of a tar file or of a directory.

use crate::image::layer::tar::{Kind, Reader, TarError};
use crate::image::pull::layer::decompress;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Old docker wrote repeated layers as symlinks to the first.
const MAX_LINKS: usize = 8;
/// Members of an archive: five for a layer at most.
const MAX_MEMBERS: usize = 16 << 10;

/// Where members are read from.
pub enum Source {
    Directory(PathBuf),
    Tar {
        file: Arc<File>,
        members: HashMap<String, Member>,
    },
}

pub enum Member {
    /// Where its data is.
    Data { offset: u64, size: u64 },
    /// Another member's name.
    Link(String),
}

impl Source {
    /// A directory, or a tar file; `spool` is used when that is compressed.
    pub fn open(path: &Path, spool: &Path) -> Result<Self, TarError> {
        let failed = |source| TarError::Read { offset: 0, source };
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = File::open(path).map_err(failed)?;
        Self::tar(file, spool)
    }

    /// A tar stream, compressed or not, that is kept in a file meanwhile.
    pub fn stream(stream: impl Read, spool: &Path) -> Result<Self, TarError> {
        let failed = |source| TarError::Read { offset: 0, source };
        let mut file = unnamed(spool).map_err(failed)?;
        let copied = decompress(stream).and_then(|mut plain| io::copy(&mut plain, &mut file));
        copied.and_then(|_| file.rewind()).map_err(failed)?;
        Self::index(file)
    }

    fn tar(mut file: File, spool: &Path) -> Result<Self, TarError> {
        let failed = |source| TarError::Read { offset: 0, source };
        let mut head = [0; 4];
        let filled = file.read(&mut head).map_err(failed)?;
        file.rewind().map_err(failed)?;
        match crate::image::pull::layer::is_compressed(&head[..filled]) {
            true => Self::stream(file, spool),
            false => Self::index(file),
        }
    }

    fn index(file: File) -> Result<Self, TarError> {
        let mut members = HashMap::new();
        let mut reader = Reader::new(io::BufReader::with_capacity(64 << 10, &file));
        while let Some(entry) = reader.next()? {
            let name = normal(&String::from_utf8_lossy(&entry.path));
            let member = match entry.kind {
                Kind::File(size, None) => Member::Data {
                    offset: reader.offset(),
                    size,
                },
                Kind::HardLink(to) => Member::Link(normal(&String::from_utf8_lossy(&to))),
                Kind::Symlink(to) => {
                    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    Member::Link(normal(&format!("{dir}/{}", String::from_utf8_lossy(&to))))
                }
                _ => continue,
            };
            if members.len() == MAX_MEMBERS {
                return Err(reader.bad("too many members for an image"));
            }
            members.insert(name, member);
        }
        drop(reader);
        Ok(Self::Tar {
            file: Arc::new(file),
            members,
        })
    }

    /// A member's data, or `None` when it is not there.
    pub fn member(&self, name: &str) -> io::Result<Option<Box<dyn Read + Send>>> {
        match self {
            Self::Directory(dir) => match File::open(dir.join(normal(name))) {
                Ok(file) => Ok(Some(Box::new(file))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            },
            Self::Tar { file, members } => {
                let mut name = normal(name);
                for _ in 0..MAX_LINKS {
                    match members.get(&name) {
                        Some(Member::Data { offset, size }) => {
                            return Ok(Some(Box::new(Slice {
                                file: file.clone(),
                                offset: *offset,
                                left: *size,
                            })));
                        }
                        Some(Member::Link(to)) => name.clone_from(to),
                        None => return Ok(None),
                    }
                }
                Ok(None)
            }
        }
    }

    /// A small member whole.
    pub fn read(&self, name: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(member) = self.member(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        member.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{name} is longer than {limit} bytes"),
            ));
        }
        Ok(Some(bytes))
    }
}

/// A file that goes when it is closed, whatever happens.
pub fn unnamed(dir: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(file))
}

/// Without `.`, `..` and doubled slashes, so that a name has one form and
/// stays inside.
fn normal(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Part of a file that several read at once.
struct Slice {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX);
        let want = want.min(buffer.len());
        let n = self.file.read_at(&mut buffer[..want], self.offset)?;
        if n == 0 && want > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
