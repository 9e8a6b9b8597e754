//! Header blocks: names and values, compressed in one zlib stream for the
//! whole connection and direction, which knows the common ones beforehand.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// "SPDY Protocol - Draft 3.1", section 2.6.10.1 (the text of draft 3); its
/// Adler-32 is e3c6a7c2.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");
/// Largest block once decompressed: a bomb is refused.
const MAX_BLOCK: usize = 64 * 1024;

/// Names (in lower case) and values, in order.
pub type Pairs = Vec<(String, String)>;

/// A header block that makes no sense; the connection can't go on, since the
/// compression's state is lost.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed SPDY header block")]
pub struct BadBlock;

/// Reads the client's blocks.
#[derive(Debug)]
pub struct Reader(Decompress);

impl Reader {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// The next block's pairs.
    pub fn read(&mut self, block: &[u8]) -> Result<Pairs, BadBlock> {
        let bytes = self.inflate(block)?;
        parse(&bytes).ok_or(BadBlock)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>, BadBlock> {
        let mut out = Vec::with_capacity(1024);
        loop {
            let before = (self.0.total_in(), out.len());
            let status = self
                .0
                .decompress_vec(input, &mut out, FlushDecompress::Sync);
            let used = (self.0.total_in() - before.0) as usize;
            input = input.get(used..).ok_or(BadBlock)?;
            match status {
                Err(e) if e.needs_dictionary().is_some() => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| BadBlock)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(BadBlock),
                Ok(Status::Ok | Status::BufError) => {
                    if out.len() < out.capacity() && input.is_empty() {
                        return Ok(out);
                    }
                    if out.len() >= MAX_BLOCK || (used, out.len()) == (0, before.1) {
                        return Err(BadBlock);
                    }
                    out.reserve(out.len().max(1024));
                }
            }
        }
    }
}

/// Writes our blocks.
#[derive(Debug)]
pub struct Writer(Option<Compress>);

impl Writer {
    pub fn new() -> Self {
        let mut compress = Compress::new(Compression::fast(), true);
        let ready = compress.set_dictionary(DICTIONARY).is_ok();
        Self(ready.then_some(compress))
    }

    /// A block of these pairs.
    pub fn write(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<u8>, BadBlock> {
        let compress = self.0.as_mut().ok_or(BadBlock)?;
        let plain = serialize(pairs);
        let mut out = Vec::with_capacity(plain.len() + 64);
        let mut input = &plain[..];
        loop {
            let before = compress.total_in();
            let status = compress.compress_vec(input, &mut out, FlushCompress::Sync);
            status.map_err(|_| BadBlock)?;
            input = &input[(compress.total_in() - before) as usize..];
            if input.is_empty() && out.len() < out.capacity() {
                return Ok(out);
            }
            out.reserve(256);
        }
    }
}

fn serialize(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = (pairs.len() as u32).to_be_bytes().to_vec();
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn parse(bytes: &[u8]) -> Option<Pairs> {
    let (count, mut rest) = bytes.split_first_chunk::<4>()?;
    let mut text = || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (text, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let mut pairs = Pairs::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let name = text()?.to_ascii_lowercase();
        pairs.push((name, text()?));
    }
    Some(pairs)
}

/// Pairs as they stand in a block, damaged.
#[cfg(test)]
pub fn fuzzed_pairs(plain: &[u8]) {
    if let Some(pairs) = parse(plain) {
        let text: usize = pairs.iter().map(|(n, v)| n.len() + v.len()).sum();
        // A byte that is no UTF-8 becomes three.
        assert!(pairs.len() * 8 <= plain.len() && text <= plain.len() * 3);
    }
}

/// Blocks in a row, damaged: what is made of them is bounded.
#[cfg(test)]
pub fn fuzzed_block(block: &[u8]) {
    let mut reader = Reader::new();
    for block in block.chunks(200) {
        match reader.inflate(block) {
            Ok(plain) => assert!(plain.len() <= MAX_BLOCK, "{} bytes", plain.len()),
            Err(BadBlock) => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_a_row_come_back() {
        let (mut writer, mut reader) = (Writer::new(), Reader::new());
        for n in 0..5 {
            let id = n.to_string();
            let long = "x".repeat(n * 3000);
            let pairs = [("streamtype", "stdout"), ("requestid", &id), ("pad", &long)];
            let block = writer.write(&pairs).unwrap();
            let read = reader.read(&block).unwrap();
            let read: Vec<_> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(read, pairs);
        }
    }

    #[test]
    fn first_block_names_the_dictionary_by_its_checksum() {
        let block = Writer::new().write(&[]).unwrap();
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
        assert_eq!(DICTIONARY.len(), 1423);
    }

    #[test]
    fn bomb_and_garbage_are_refused() {
        let huge = "y".repeat(MAX_BLOCK * 4);
        let block = Writer::new().write(&[("a", &huge)]).unwrap();
        assert_eq!(Reader::new().read(&block), Err(BadBlock));
        assert_eq!(Reader::new().read(&[0x78, 0x9c, 1, 2, 3]), Err(BadBlock));
        assert_eq!(Reader::new().read(&[]), Err(BadBlock));
    }

    #[test]
    fn block_that_promises_more_than_it_has_is_refused() {
        assert_eq!(parse(&[0, 0, 0, 1, 0, 0, 0, 9, b'a']), None);
        assert_eq!(parse(&[0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(parse(&[0, 0, 0, 0]), Some(vec![]));
    }
}
