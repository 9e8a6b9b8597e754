//! A log and the files it was rotated into.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Which file it is, whatever its name is now.
pub type Identity = (u64, u64);

pub fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

/// Oldest first, the one being written last. `3.log` is rotated to
/// `3.log.20060102-150405`; compressed ones are left out.
pub fn of(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return vec![log.to_owned()];
    };
    let is_rotated = |path: &PathBuf| {
        let rest = path.file_name().and_then(|n| n.to_str());
        let rest = rest.and_then(|n| n.strip_prefix(name)?.strip_prefix('.'));
        rest.is_some_and(|r| r.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<_> = entries.map(|e| e.path()).filter(is_rotated).collect();
    all.sort();
    all.push(log.to_owned());
    all
}

/// The file that took over after the one of this identity; `None` while that
/// is still the one being written.
pub fn successor(log: &Path, of_file: Identity) -> io::Result<Option<File>> {
    let all = of(log);
    let position = all
        .iter()
        .position(|path| std::fs::metadata(path).is_ok_and(|m| identity(&m) == of_file));
    let next = match position {
        Some(last) if last + 1 == all.len() => return Ok(None),
        Some(at) => &all[at + 1],
        // Compressed or removed meanwhile: go on with what is left.
        None => match all.first() {
            Some(first) => first,
            None => return Ok(None),
        },
    };
    match File::open(next) {
        Ok(file) => Ok(Some(file)),
        // Between rename and creation.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Where the last `lines` begin: an index into `files` and an offset. A line
/// counts once, however many parts it was written in; `counts` tells which do.
pub fn tail(
    files: &[PathBuf],
    lines: u64,
    counts: impl Fn(&[u8]) -> bool,
) -> io::Result<(usize, u64)> {
    let mut left = lines;
    for (index, path) in files.iter().enumerate().rev() {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        if let Some(offset) = tail_of(&file, &mut left, &counts)? {
            return Ok((index, offset));
        }
    }
    Ok((0, 0))
}

/// Reads backwards; `None` when the whole file belongs to the tail.
fn tail_of(
    file: &File,
    left: &mut u64,
    counts: &impl Fn(&[u8]) -> bool,
) -> io::Result<Option<u64>> {
    const BLOCK: u64 = 64 * 1024;
    let mut start = file.metadata()?.len();
    // What of a line lies behind the block at hand.
    let mut carried: Vec<u8> = Vec::new();
    let mut seen_newline = false;
    while start > 0 {
        let length = start.min(BLOCK);
        start -= length;
        let mut block = vec![0; usize::try_from(length).unwrap_or_default()];
        file.read_exact_at(&mut block, start)?;
        let mut end = block.len();
        while let Some(newline) = block[..end].iter().rposition(|b| *b == b'\n') {
            let line = [&block[newline + 1..end], &carried].concat();
            carried.clear();
            // What follows the last newline is not a line yet.
            if seen_newline && counts(&line) {
                if *left == 0 {
                    let behind = newline + 1 + line.len() + 1;
                    return Ok(Some(start + behind as u64));
                }
                *left -= 1;
            }
            seen_newline = true;
            end = newline;
        }
        carried = [&block[..end], &carried].concat();
    }
    if seen_newline && counts(&carried) {
        if *left == 0 {
            return Ok(Some(carried.len() as u64 + 1));
        }
        *left -= 1;
    }
    Ok(None)
}
