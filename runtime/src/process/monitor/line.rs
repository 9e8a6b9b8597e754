//! The CRI log format: `<RFC3339Nano> <stream> <P|F> <content>`.
//!
//! kubernetes v1.37.2 pkg/kubelet/kuberuntime/logs reads it.

/// Longest content of one entry; containerd v2 `max_container_log_line_size`.
pub const LINE_MAX: usize = 16384;

/// Which stream a line is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What of a stream's last line has not been ended yet.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Goes on with what was read of a line so far.
    pub fn begun(partial: Vec<u8>) -> Self {
        Self { partial }
    }

    /// What waits for the end of its line.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Appends the entries that `data` completes to `log`; what is no whole line
    /// waits, unless it is as long as an entry may be.
    pub fn push(&mut self, stream: Stream, data: &[u8], now: i64, log: &mut Vec<u8>) {
        let mut rest = data;
        while !rest.is_empty() {
            let room = LINE_MAX - self.partial.len();
            let end = rest.iter().take(room + 1).position(|byte| *byte == b'\n');
            match end {
                Some(end) => {
                    self.partial.extend_from_slice(&rest[..end]);
                    rest = &rest[end + 1..];
                    self.write(stream, b'F', now, log);
                }
                None if rest.len() > room => {
                    self.partial.extend_from_slice(&rest[..room]);
                    rest = &rest[room..];
                    self.write(stream, b'P', now, log);
                }
                None => {
                    self.partial.extend_from_slice(rest);
                    rest = &[];
                }
            }
        }
    }

    /// The stream has ended: what is left was no whole line, and is told as such.
    pub fn end(&mut self, stream: Stream, now: i64, log: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.write(stream, b'P', now, log);
        }
    }

    fn write(&mut self, stream: Stream, tag: u8, now: i64, log: &mut Vec<u8>) {
        timestamp(now, log);
        log.extend_from_slice(match stream {
            Stream::Stdout => b" stdout ",
            Stream::Stderr => b" stderr ",
        });
        log.push(tag);
        log.push(b' ');
        log.extend_from_slice(&self.partial);
        log.push(b'\n');
        self.partial = Vec::new();
    }
}

/// Nanoseconds since the epoch as RFC 3339 in UTC, always with nine digits.
pub fn timestamp(nanos: i64, out: &mut Vec<u8>) {
    use std::io::Write;
    let seconds = nanos.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let fraction = nanos.rem_euclid(1_000_000_000);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z"
    );
}

/// Days since the epoch as a date of the Gregorian calendar. Years are counted
/// from March, so that the leap day is a year's last.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097; // days in 400 years
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, date)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_709_210_096_000_000_007; // 2024-02-29T12:34:56.000000007Z

    fn log(chunks: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(Stream::Stdout, chunk, NOW, &mut out);
        }
        lines.end(Stream::Stdout, NOW, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn line_is_whole_when_it_came_in_pieces() {
        let line = "2024-02-29T12:34:56.000000007Z stdout F hello world\n";
        assert_eq!(log(&[b"hel", b"lo wor", b"ld\n"]), line);
    }

    #[test]
    fn last_line_is_partial_when_nothing_ended_it() {
        assert!(log(&[b"a\nb"]).ends_with("stdout P b\n"));
    }

    #[test]
    fn long_line_is_split_and_ended_when_its_newline_comes() {
        let data = [vec![b'x'; LINE_MAX + 1], vec![b'\n']].concat();
        let entries = log(&[&data]);
        let tags: Vec<_> = entries
            .lines()
            .map(|l| (&l[38..39], l.len() - 40))
            .collect();
        assert_eq!(tags, [("P", LINE_MAX), ("F", 1)]);
    }

    #[test]
    fn line_of_the_greatest_length_is_one_entry() {
        let data = [vec![b'x'; LINE_MAX], vec![b'\n']].concat();
        assert_eq!(log(&[&data]).lines().count(), 1);
    }

    #[test]
    fn date_is_right_at_the_ends_of_years_and_before_the_epoch() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(-1), (1969, 12, 31));
        assert_eq!(civil(10_956), (1999, 12, 31));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(47_540), (2100, 2, 28));
        assert_eq!(civil(47_541), (2100, 3, 1));
    }
}
