//! One line of a CRI log: `<RFC 3339 nano> stdout|stderr P|F[:tag] <text>`.
//! kubernetes v1.37 staging/src/k8s.io/cri-client/pkg/logs.

/// A line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub timestamp: &'a str,
    pub stream: &'a str,
    /// More of the same line of output follows.
    pub partial: bool,
    pub text: &'a [u8],
}

/// `None` for what no runtime writes.
pub fn parse(raw: &[u8]) -> Option<Line<'_>> {
    let (timestamp, rest) = cut(raw)?;
    let (stream, rest) = cut(rest)?;
    // An empty line may end right after its tag.
    let (tags, text) = cut(rest).unwrap_or((rest, b""));
    let stream = std::str::from_utf8(stream).ok()?;
    let first_tag = tags.split(|b| *b == b':').next()?;
    let partial = match first_tag {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    matches!(stream, "stdout" | "stderr").then_some(Line {
        timestamp: std::str::from_utf8(timestamp).ok()?,
        stream,
        partial,
        text,
    })
}

fn cut(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = raw.iter().position(|b| *b == b' ')?;
    Some((&raw[..space], &raw[space + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_cut_into_its_four_parts() {
        let line = parse(b"2016-10-06T00:17:09.669794202Z stdout P log content ").unwrap();
        assert_eq!(line.timestamp, "2016-10-06T00:17:09.669794202Z");
        assert_eq!((line.stream, line.partial), ("stdout", true));
        assert_eq!(line.text, b"log content ");
        assert!(!parse(b"t stderr F:x y").unwrap().partial);
        assert_eq!(parse(b"t stderr F ").unwrap().text, b"");
        assert_eq!(parse(b"t stderr F").unwrap().text, b"");
    }

    #[test]
    fn what_is_no_log_line_is_refused() {
        for raw in [&b""[..], b"t", b"t stdin F x", b"t stdout X x", b"t stdout"] {
            assert_eq!(parse(raw), None, "{raw:?}");
        }
    }
}
