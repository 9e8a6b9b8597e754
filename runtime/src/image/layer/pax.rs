//! PAX extended headers: `length key=value\n` records.
//!
//! Facts: POSIX pax "Extended Header"; star's SCHILY.xattr; GNU tar
//! "Sparse Formats" for GNU.sparse.

/// What a layer needs of them.
#[derive(Debug, Default, PartialEq)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: PaxSparse,
}

/// GNU.sparse.*, of all three versions.
#[derive(Debug, Default, PartialEq)]
pub struct PaxSparse {
    /// 1: the map stands before the data; 0: it is in `map`.
    pub major: Option<u64>,
    pub real_size: Option<u64>,
    pub name: Option<Vec<u8>>,
    /// Offsets and lengths in turn.
    pub map: Vec<u64>,
}

/// Parses all records of one header.
pub fn parse(mut text: &[u8]) -> Result<Pax, &'static str> {
    let mut pax = Pax::default();
    while !text.is_empty() {
        // Some writers pad with zeros.
        if text.iter().all(|b| *b == 0) {
            break;
        }
        let (key, value, rest) = record(text).ok_or("a PAX record")?;
        take(&mut pax, key, value)?;
        text = rest;
    }
    Ok(pax)
}

fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(number(&text[..space])?).ok()?;
    let body = text.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &text[length..]))
}

fn take(pax: &mut Pax, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    let text = |value: &[u8]| {
        // A name with a NUL would be cut by the kernel and kept by a check.
        (!value.contains(&0))
            .then(|| value.to_vec())
            .ok_or("a NUL in a PAX record")
    };
    let numeric = |value: &[u8]| number(value).ok_or("a number in a PAX record").map(Some);
    match key {
        // An empty value takes back what an earlier header said.
        b"path" if !value.is_empty() => pax.path = Some(text(value)?),
        b"linkpath" if !value.is_empty() => pax.linkpath = Some(text(value)?),
        b"size" => pax.size = numeric(value)?,
        b"uid" => pax.uid = numeric(value)?,
        b"gid" => pax.gid = numeric(value)?,
        b"mtime" => pax.mtime = time(value),
        b"GNU.sparse.major" => pax.sparse.major = numeric(value)?,
        b"GNU.sparse.name" => pax.sparse.name = Some(text(value)?),
        b"GNU.sparse.realsize" | b"GNU.sparse.size" => pax.sparse.real_size = numeric(value)?,
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => pax.sparse.map.extend(numeric(value)?),
        b"GNU.sparse.map" => {
            for part in value.split(|b| *b == b',') {
                pax.sparse.map.extend(numeric(part)?);
            }
        }
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                pax.xattrs.push((text(name)?, value.to_vec()));
            }
        }
    }
    Ok(())
}

/// Decimal digits only: no sign, no space.
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// `[-]seconds[.fraction]`.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(number(&text[..dot])?).ok()?;
    let mut nanos = 0;
    let mut scale = 100_000_000;
    for digit in text[dot..].iter().skip(1).take(9) {
        nanos += u32::from(digit.checked_sub(b'0').filter(|d| *d < 10)?) * scale;
        scale /= 10;
    }
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_reads_names_numbers_times_and_xattrs() {
        let pax = parse(
            b"12 path=a/b\n13 size=1234\n20 mtime=1700000.25\n29 SCHILY.xattr.user.k=a=\n\0c\n",
        );
        let pax = pax.unwrap();
        assert_eq!(pax.path.unwrap(), b"a/b");
        assert_eq!(pax.size, Some(1234));
        assert_eq!(pax.mtime, Some((1_700_000, 250_000_000)));
        assert_eq!(pax.xattrs, [(b"user.k".to_vec(), b"a=\n\0c".to_vec())]);
    }

    #[test]
    fn pax_is_refused_when_a_record_lies_about_its_length() {
        for text in [
            &b"99 path=a\n"[..],
            b"3 path=a\n",
            b"0 \n",
            b"path=a\n",
            b"9 path=a",
            b"18446744073709551616 a=b\n",
            b"10 size=-1\n",
            b"10 path=a\0\n",
        ] {
            assert!(parse(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn pax_time_before_the_epoch_counts_its_fraction_backwards() {
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"x"), None);
    }
}
