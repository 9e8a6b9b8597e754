//! A tar stream, entry by entry, with bounded memory.
//!
//! Header fields are read by the `tar` crate. What stands around them is read
//! here, because its iterator takes GNU and PAX headers of any size into
//! memory and turns holes of sparse files into zeros.

use super::pax::{self, Pax};
use super::sparse::{self, Extent};
use std::io::{self, Read};
use tar::Header;

/// Go archive/tar `maxSpecialFileSize`: of a PAX header or a GNU long name.
const MAX_SPECIAL: u64 = 1 << 20;
pub(super) const BLOCK: u64 = 512;

/// One member.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// As it stands in the archive.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch, and nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Length, and where its data is when it has holes.
    File(u64, Option<Vec<Extent>>),
    Directory,
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    /// Major and minor.
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Why a stream is no tar archive that can be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TarError {
    #[error("read the archive at byte {offset}")]
    Read { offset: u64, source: io::Error },
    #[error("the archive is malformed at byte {offset}: {what}")]
    Malformed { offset: u64, what: &'static str },
}

/// Reads members in order; the data of one is read through [`Reader::read`]
/// before the next is asked for, or skipped.
pub struct Reader<R> {
    input: R,
    offset: u64,
    /// Of the current member, still to be read.
    data: u64,
    /// Up to the next block.
    padding: u64,
}

/// Headers that speak of the next member.
#[derive(Default)]
struct Ahead {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Pax,
}

impl<R: Read> Reader<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            data: 0,
            padding: 0,
        }
    }

    /// The next member, or `None` at the end of the archive.
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut ahead = Ahead::default();
        loop {
            self.skip(self.data + self.padding)?;
            (self.data, self.padding) = (0, 0);
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let stored = self.number(&header.as_old().size, header.entry_size(), "size")?;
            match header.entry_type().as_byte() {
                b'L' => ahead.name = Some(cut_at_nul(self.special(stored)?)),
                b'K' => ahead.link = Some(cut_at_nul(self.special(stored)?)),
                b'x' => {
                    let text = self.special(stored)?;
                    ahead.pax = pax::parse(&text).map_err(|what| self.bad(what))?;
                }
                // Says nothing that a layer needs (git writes a commit id).
                b'g' => {
                    self.special(stored)?;
                }
                _ => return self.member(&header, ahead, stored).map(Some),
            }
        }
    }

    /// Data of the current member as stored, without holes.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.data).unwrap_or(usize::MAX);
        let want = want.min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        self.fill(&mut buffer[..want])?;
        self.data -= want as u64;
        Ok(want)
    }

    /// Reads on to the end of the stream, which a digest covers.
    pub fn drain(mut self, limit: u64) -> Result<(), TarError> {
        let copied = io::copy(&mut (&mut self.input).take(limit + 1), &mut io::sink());
        match copied {
            Ok(n) if n > limit => Err(self.bad("much follows the end of the archive")),
            Ok(_) => Ok(()),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Bytes of the archive read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// An error at this place of the archive.
    pub fn bad(&self, what: &'static str) -> TarError {
        TarError::Malformed {
            offset: self.offset,
            what,
        }
    }

    fn failed(&self, source: io::Error) -> TarError {
        TarError::Read {
            offset: self.offset,
            source,
        }
    }

    fn member(&mut self, header: &Header, ahead: Ahead, stored: u64) -> Result<Entry, TarError> {
        let mut pax = ahead.pax;
        // Where both are given the PAX size counts, in this reader and in the
        // hash alike; parsers that disagree here let archives hide members.
        let stored = pax.size.unwrap_or(stored);
        let kind_byte = header.entry_type().as_byte();
        let has_data = matches!(kind_byte, 0 | b'0' | b'7' | b'S');
        self.data = if has_data { stored } else { 0 };
        self.padding = if has_data { padding(stored) } else { 0 };
        let path = pax.path.take().or(ahead.name);
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = pax.linkpath.take().or(ahead.link);
        let link = link.or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let old = header.as_old();
        let mut entry = Entry {
            kind: Kind::Directory,
            mode: self.number(&old.mode, header.mode(), "mode")? & 0o7777,
            uid: self.id(pax.uid, &old.uid, header.uid())?,
            gid: self.id(pax.gid, &old.gid, header.gid())?,
            mtime: pax.mtime.unwrap_or_else(|| mtime(header)),
            xattrs: std::mem::take(&mut pax.xattrs),
            path,
        };
        entry.kind = match kind_byte {
            // Old archives mark a directory by its trailing slash.
            0 | b'0' if entry.path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => self.file(header, &mut pax, &mut entry.path)?,
            b'1' => Kind::HardLink(link.ok_or_else(|| self.bad("a hard link to nothing"))?),
            b'2' => Kind::Symlink(link.ok_or_else(|| self.bad("a symlink to nothing"))?),
            b'3' | b'4' => {
                let (major, minor) = self.device(header)?;
                if kind_byte == b'3' {
                    Kind::Char(major, minor)
                } else {
                    Kind::Block(major, minor)
                }
            }
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return Err(self.bad("unknown kind of member")),
        };
        Ok(entry)
    }

    fn file(
        &mut self,
        header: &Header,
        pax: &mut Pax,
        path: &mut Vec<u8>,
    ) -> Result<Kind, TarError> {
        if header.entry_type().as_byte() == b'S' {
            let (size, extents) = sparse::gnu(self, header)?;
            return Ok(Kind::File(size, Some(extents)));
        }
        match sparse::pax(self, &mut pax.sparse)? {
            Some((size, extents)) => {
                if let Some(name) = pax.sparse.name.take() {
                    *path = name;
                }
                Ok(Kind::File(size, Some(extents)))
            }
            None => Ok(Kind::File(self.data, None)),
        }
    }

    /// Bytes of the current member still to come.
    pub(super) fn stored(&self) -> u64 {
        self.data
    }

    /// A block that stands between a header and its data.
    pub(super) fn block(&mut self) -> Result<[u8; BLOCK as usize], TarError> {
        let mut block = [0; BLOCK as usize];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn id(&self, pax: Option<u64>, field: &[u8], read: io::Result<u64>) -> Result<u32, TarError> {
        let id = match pax {
            Some(id) => id,
            None => self.number(field, read, "uid or gid")?,
        };
        u32::try_from(id).map_err(|_| self.bad("uid or gid of more than 32 bits"))
    }

    /// A field that was left blank is 0, as GNU tar and Go take it.
    fn number<T: Default>(
        &self,
        field: &[u8],
        read: io::Result<T>,
        what: &'static str,
    ) -> Result<T, TarError> {
        let blank = field.iter().all(|b| matches!(b, 0 | b' '));
        match read {
            Ok(value) => Ok(value),
            Err(_) if blank => Ok(T::default()),
            Err(_) => Err(self.bad(what)),
        }
    }

    fn device(&self, header: &Header) -> Result<(u32, u32), TarError> {
        match (header.device_major(), header.device_minor()) {
            (Ok(Some(major)), Ok(Some(minor))) => Ok((major, minor)),
            _ => Err(self.bad("a device without its numbers")),
        }
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut header = Header::new_old();
        if !self.fill_or_end(header.as_mut_bytes())? {
            // Some writers leave the closing blocks out.
            return Ok(None);
        }
        let bytes = header.as_bytes();
        if bytes.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
        // The checksum's own eight bytes count as spaces.
        let sum = sum(&bytes[..148]) + 8 * 32 + sum(&bytes[156..]);
        if header.cksum().ok() != Some(sum) {
            return Err(self.bad("header checksum"));
        }
        Ok(Some(header))
    }

    fn special(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_SPECIAL {
            return Err(self.bad("an extended header of more than 1 MiB"));
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        self.fill(&mut text)?;
        self.skip(padding(size))?;
        Ok(text)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), TarError> {
        let copied = io::copy(&mut (&mut self.input).take(bytes), &mut io::sink());
        let copied = copied.map_err(|e| self.failed(e))?;
        self.offset += copied;
        if copied < bytes {
            return Err(self.bad("it ends within a member"));
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        if buffer.is_empty() || self.fill_or_end(buffer)? {
            return Ok(());
        }
        Err(self.bad("it ends within a member"))
    }

    /// `false` when the stream ended before the first byte.
    fn fill_or_end(&mut self, buffer: &mut [u8]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.bad("it ends within a member")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        self.offset += filled as u64;
        Ok(true)
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

fn cut_at_nul(mut text: Vec<u8>) -> Vec<u8> {
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    text.truncate(end);
    text
}

fn mtime(header: &Header) -> (i64, u32) {
    // Times before 1970 arrive as huge numbers; no layer means those.
    let seconds = header.mtime().unwrap_or(0);
    (i64::try_from(seconds).unwrap_or(0), 0)
}
