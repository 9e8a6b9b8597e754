//! Where the data of a sparse file is. Holes are never written, so a file of
//! terabytes costs what its data costs.
//!
//! Facts: GNU tar manual "Sparse Formats"; Go archive/tar/reader.go.

use super::pax::{PaxSparse, number};
use super::tar::{BLOCK, Reader, TarError};
use std::io::Read;
use tar::{GnuExtSparseHeader, Header};

/// ext4 with 4 KiB blocks: the largest file.
const MAX_FILE: u64 = 1 << 44;
/// A map of more than this many runs is an attack.
const MAX_EXTENTS: usize = 1 << 16;

/// Of a 64-bit number: a line without an end must not be kept.
const MAX_DIGITS: usize = 20;

/// A run of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// GNU's old format: in the header and in blocks that follow it.
pub fn gnu<R: Read>(
    reader: &mut Reader<R>,
    header: &Header,
) -> Result<(u64, Vec<Extent>), TarError> {
    let gnu = header.as_gnu().ok_or_else(|| reader.bad("sparse map"))?;
    let size = gnu.real_size().map_err(|_| reader.bad("sparse size"))?;
    let mut extents = Vec::new();
    let mut take = |reader: &Reader<R>, block: &tar::GnuSparseHeader| {
        if block.is_empty() {
            return Ok(());
        }
        match (block.offset(), block.length()) {
            (Ok(offset), Ok(length)) if extents.len() < MAX_EXTENTS => {
                extents.push(Extent { offset, length });
                Ok(())
            }
            _ => Err(reader.bad("sparse map")),
        }
    };
    for block in &gnu.sparse {
        take(reader, block)?;
    }
    let mut more = gnu.is_extended();
    while more {
        let mut extension = GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(&reader.block()?);
        for block in extension.sparse() {
            take(reader, block)?;
        }
        more = extension.is_extended();
    }
    check(size, &extents, reader.stored()).map_err(|what| reader.bad(what))?;
    Ok((size, extents))
}

/// PAX formats 0.0, 0.1 and 1.0; `None` when the file is not sparse.
pub fn pax<R: Read>(
    reader: &mut Reader<R>,
    sparse: &mut PaxSparse,
) -> Result<Option<(u64, Vec<Extent>)>, TarError> {
    let Some(size) = sparse.real_size else {
        return Ok(None);
    };
    if sparse.major == Some(1) {
        sparse.map = map_before_data(reader)?;
    }
    if !sparse.map.len().is_multiple_of(2) || sparse.map.len() > 2 * MAX_EXTENTS {
        return Err(reader.bad("sparse map"));
    }
    let extents: Vec<Extent> = sparse
        .map
        .chunks_exact(2)
        .map(|pair| Extent {
            offset: pair[0],
            length: pair[1],
        })
        .collect();
    check(size, &extents, reader.stored()).map_err(|what| reader.bad(what))?;
    Ok(Some((size, extents)))
}

/// Decimal lines, the first of which counts the pairs, in whole blocks.
fn map_before_data<R: Read>(reader: &mut Reader<R>) -> Result<Vec<u64>, TarError> {
    let mut numbers = Vec::new();
    let mut wanted = 1;
    let mut line = Vec::new();
    while numbers.len() < wanted {
        let mut block = [0; BLOCK as usize];
        if reader.read(&mut block)? < block.len() {
            return Err(reader.bad("sparse map"));
        }
        for byte in block {
            if numbers.len() == wanted {
                break;
            }
            if byte != b'\n' {
                if line.len() == MAX_DIGITS {
                    return Err(reader.bad("sparse map"));
                }
                line.push(byte);
                continue;
            }
            let value = number(&line).ok_or_else(|| reader.bad("sparse map"))?;
            line.clear();
            numbers.push(value);
            if numbers.len() == 1 {
                let pairs = usize::try_from(value).ok().filter(|n| *n <= MAX_EXTENTS);
                wanted += 2 * pairs.ok_or_else(|| reader.bad("sparse map"))?;
            }
        }
    }
    numbers.remove(0);
    Ok(numbers)
}

fn check(size: u64, extents: &[Extent], stored: u64) -> Result<(), &'static str> {
    if size > MAX_FILE {
        return Err("a sparse file of more than 16 TiB");
    }
    let mut end = 0;
    let mut sum = 0;
    for extent in extents {
        if extent.offset < end {
            return Err("a sparse map whose runs overlap");
        }
        end = extent
            .offset
            .checked_add(extent.length)
            .filter(|end| *end <= size)
            .ok_or("a sparse map beyond the end of its file")?;
        sum += extent.length;
    }
    if sum != stored {
        return Err("a sparse map that is not of its data");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn cve_2025_58183_sparse_map_is_refused_when_it_overlaps_or_leaves_its_file() {
        assert!(check(100, &[extent(0, 10), extent(50, 50)], 60).is_ok());
        assert!(check(100, &[extent(50, 10), extent(0, 10)], 20).is_err());
        assert!(check(100, &[extent(0, 10), extent(5, 10)], 20).is_err());
        assert!(check(100, &[extent(95, 10)], 10).is_err());
        assert!(check(100, &[extent(u64::MAX, 2)], 2).is_err());
        assert!(check(100, &[extent(0, 10)], 11).is_err());
        assert!(check(1 << 60, &[], 0).is_err());
    }
}
