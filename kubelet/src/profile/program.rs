//! This program's own file: how to unwind it, and its symbols as far as it has them.
//!
//! ELF of 64 bits, as elf(5) describes it. The program is linked to fixed addresses
//! (`.cargo/config.toml`), so what the file says of addresses holds in memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Linux: the file of the process that reads it, even when it was replaced on disk.
const OWN: &str = "/proc/self/exe";

// elf(5) and /usr/include/elf.h.
const MAGIC: [u8; 5] = *b"\x7fELF\x02";
const ET_EXEC: u16 = 2;
const HEADER: usize = 64;
const SECTION: usize = 64;
const SYMBOL: usize = 24;
const STT_FUNC: u8 = 2;
const NT_GNU_BUILD_ID_AT: usize = 16;

/// Why it can't be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProgramError {
    #[error("read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} is no program of 64 bits that is linked to fixed addresses")]
    Form(PathBuf),
}

/// A part of the file, and where it is in memory.
#[derive(Debug, Default, Clone)]
pub struct Section {
    pub addresses: Range<u64>,
    pub data: Vec<u8>,
    offset: u64,
}

#[derive(Debug)]
struct Symbol {
    addresses: Range<u64>,
    name: Range<usize>,
}

/// What a profile needs to know.
#[derive(Debug)]
pub struct Program {
    /// Where it is, for who reads the profile.
    pub path: PathBuf,
    /// In hexadecimal; empty where the linker made none.
    pub build_id: String,
    /// Machine code: addresses and place in the file, without the code.
    pub text: Section,
    pub eh_frame: Section,
    pub eh_frame_hdr: Section,
    symbols: Vec<Symbol>,
    names: Vec<u8>,
}

impl Program {
    /// Of this process.
    ///
    /// # Errors
    /// When the file can't be read, or is of another form.
    pub fn own() -> Result<Program, ProgramError> {
        let path = std::fs::read_link(OWN).unwrap_or_else(|_| OWN.into());
        Program::read(Path::new(OWN), path)
    }

    fn read(file: &Path, path: PathBuf) -> Result<Program, ProgramError> {
        let failed = |e| ProgramError::Read(path.clone(), e);
        let file = File::open(file).map_err(failed)?;
        let sections = Sections::read(&file).map_err(failed)?;
        let sections = sections.ok_or_else(|| ProgramError::Form(path.clone()))?;
        let whole = |name| {
            sections
                .find(name)
                .map_or(Ok(Section::default()), |s| s.with_data(&file))
        };
        let text = sections.find(".text").cloned();
        let (table, names) = (
            whole(".symtab").map_err(failed)?,
            whole(".strtab").map_err(failed)?,
        );
        let note = whole(".note.gnu.build-id").map_err(failed)?;
        let id = note.data.get(NT_GNU_BUILD_ID_AT..).unwrap_or_default();
        Ok(Program {
            build_id: id.iter().map(|b| format!("{b:02x}")).collect(),
            text: text.ok_or_else(|| ProgramError::Form(path.clone()))?,
            eh_frame: whole(".eh_frame").map_err(failed)?,
            eh_frame_hdr: whole(".eh_frame_hdr").map_err(failed)?,
            symbols: functions(&table.data),
            names: names.data,
            path,
        })
    }

    /// Whether functions have names.
    pub fn has_names(&self) -> bool {
        !self.symbols.is_empty()
    }

    /// Where in the file its code begins.
    pub fn text_offset(&self) -> u64 {
        self.text.offset
    }

    /// The function at an address, as the linker calls it.
    pub fn name(&self, address: u64) -> Option<&str> {
        let next = self
            .symbols
            .partition_point(|s| s.addresses.start <= address);
        let symbol = self.symbols.get(next.checked_sub(1)?)?;
        let name = symbol
            .addresses
            .contains(&address)
            .then_some(&symbol.name)?;
        let name = self.names.get(name.start..)?;
        let end = name.iter().position(|&b| b == 0)?;
        std::str::from_utf8(&name[..end]).ok()
    }
}

struct Sections(Vec<(String, Section)>);

impl Sections {
    /// `None`: not such a file.
    fn read(file: &File) -> io::Result<Option<Sections>> {
        let header = at(file, 0, HEADER)?;
        if header[..5] != MAGIC || u16_at(&header, 16) != ET_EXEC {
            return Ok(None);
        }
        let (offset, count) = (u64_at(&header, 40), usize::from(u16_at(&header, 60)));
        let table = at(file, offset, count * SECTION)?;
        let all: Vec<&[u8]> = table.chunks_exact(SECTION).collect();
        let Some(names) = all.get(usize::from(u16_at(&header, 62))) else {
            return Ok(None);
        };
        let names = of(names).with_data(file)?.data;
        let name = |entry: &[u8]| {
            let name = names.get(u32_at(entry, 0) as usize..).unwrap_or_default();
            let name = name.split(|&b| b == 0).next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        };
        Ok(Some(Sections(
            all.iter().map(|entry| (name(entry), of(entry))).collect(),
        )))
    }

    fn find(&self, name: &str) -> Option<&Section> {
        let found = self.0.iter().find(|(n, _)| n == name);
        found.map(|(_, section)| section)
    }
}

fn of(entry: &[u8]) -> Section {
    let (address, size) = (u64_at(entry, 16), u64_at(entry, 32));
    Section {
        addresses: address..address.saturating_add(size),
        data: Vec::new(),
        offset: u64_at(entry, 24),
    }
}

impl Section {
    fn with_data(&self, file: &File) -> io::Result<Section> {
        let size = (self.addresses.end - self.addresses.start) as usize;
        Ok(Section {
            data: at(file, self.offset, size)?,
            ..self.clone()
        })
    }
}

fn functions(table: &[u8]) -> Vec<Symbol> {
    let entries = table.chunks_exact(SYMBOL);
    let functions = entries.filter(|e| e[4] & 0xf == STT_FUNC && u64_at(e, 8) != 0);
    let mut all: Vec<Symbol> = functions
        .map(|e| {
            let (start, size) = (u64_at(e, 8), u64_at(e, 16).max(1));
            let name = u32_at(e, 0) as usize;
            Symbol {
                addresses: start..start.saturating_add(size),
                name: name..name,
            }
        })
        .collect();
    all.sort_by_key(|s| s.addresses.start);
    all
}

fn at(file: &File, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    // A size that no file has must not be asked for.
    let whole = file.metadata()?.len();
    if offset.saturating_add(size as u64) > whole {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut data = vec![0; size];
    file.read_exact_at(&mut data, offset)?;
    Ok(data)
}

fn number<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
    let bytes = data.get(at..at + N).and_then(|b| b.try_into().ok());
    bytes.unwrap_or([0; N])
}

fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(number(data, at))
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(number(data, at))
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(data, at))
}
