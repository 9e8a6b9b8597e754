//! Reads a log from where a question begins, across rotations.

use super::files::{self, Identity};
use super::line;
use super::options::LogOptions;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Read from a file in one go.
const BLOCK: usize = 64 * 1024;

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Call again.
    More,
    /// All that is there has been read.
    AtEnd,
    /// limitBytes is used up.
    LimitReached,
}

/// A position in a log.
pub struct Reader {
    log: PathBuf,
    file: Option<File>,
    identity: Identity,
    /// Of a line whose end has not been written yet.
    pending: Vec<u8>,
    options: LogOptions,
    left: Option<u64>,
    at_line_start: bool,
}

impl Reader {
    /// Begins at the first line of the oldest file, or where the tail begins.
    ///
    /// # Errors
    /// When a file can't be read. A log that is not there yet is no error.
    pub fn open(log: PathBuf, options: LogOptions) -> io::Result<Reader> {
        let all = files::of(&log);
        let stream = options.stream;
        let is_line = |raw: &[u8]| {
            line::parse(raw).is_some_and(|l| !l.partial && stream.is_none_or(|s| s == l.stream))
        };
        let (index, offset) = match options.tail {
            Some(lines) => files::tail(&all, lines, is_line)?,
            None => (0, 0),
        };
        let mut reader = Reader {
            left: options.limit_bytes,
            log,
            file: None,
            identity: (0, 0),
            pending: Vec::new(),
            options,
            at_line_start: true,
        };
        match all.get(index).map(File::open) {
            Some(Ok(mut file)) => {
                file.seek(SeekFrom::Start(offset))?;
                reader.take(file)?;
            }
            Some(Err(e)) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        Ok(reader)
    }

    fn take(&mut self, file: File) -> io::Result<()> {
        self.identity = files::identity(&file.metadata()?);
        self.file = Some(file);
        self.pending.clear();
        Ok(())
    }

    /// Appends what is asked for of the next block to `out`.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn step(&mut self, out: &mut Vec<u8>) -> io::Result<Step> {
        let Some(file) = &mut self.file else {
            return match File::open(&self.log) {
                Ok(file) => self.take(file).map(|()| Step::More),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Step::AtEnd),
                Err(e) => Err(e),
            };
        };
        let before = self.pending.len();
        self.pending.resize(before + BLOCK, 0);
        let read = file.read(&mut self.pending[before..]);
        self.pending.truncate(before + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            return self.next_file();
        }
        Ok(self.emit(out))
    }

    fn next_file(&mut self) -> io::Result<Step> {
        let Some(file) = files::successor(&self.log, self.identity)? else {
            return Ok(Step::AtEnd);
        };
        // The writer may have finished the old one since we read its end.
        let mut rest = Vec::new();
        if let Some(old) = &mut self.file {
            old.read_to_end(&mut rest)?;
        }
        if !rest.is_empty() {
            self.pending.extend(rest);
            return Ok(Step::More);
        }
        self.take(file)?;
        Ok(Step::More)
    }

    fn emit(&mut self, out: &mut Vec<u8>) -> Step {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        while let Some(newline) = rest.iter().position(|b| *b == b'\n') {
            let (raw, tail) = rest.split_at(newline);
            rest = &tail[1..];
            if self.emit_line(raw, out) == Step::LimitReached {
                return Step::LimitReached;
            }
        }
        self.pending = rest.to_vec();
        Step::More
    }

    fn emit_line(&mut self, raw: &[u8], out: &mut Vec<u8>) -> Step {
        let Some(line) = line::parse(raw).filter(|l| self.options.wants(l)) else {
            return Step::More;
        };
        let before = out.len();
        if self.options.timestamps && self.at_line_start {
            out.extend(line.timestamp.as_bytes());
            out.push(b' ');
        }
        out.extend(line.text);
        if !line.partial {
            out.push(b'\n');
        }
        self.at_line_start = !line.partial;
        let Some(left) = &mut self.left else {
            return Step::More;
        };
        let added = (out.len() - before) as u64;
        if added >= *left {
            out.truncate(before + usize::try_from(*left).unwrap_or(usize::MAX));
            *left = 0;
            return Step::LimitReached;
        }
        *left -= added;
        Step::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let dir =
                std::env::temp_dir().join(format!("lighter-log-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }
        fn write(&self, file: &str, lines: &[&str]) {
            let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
            std::fs::write(self.0.join(file), text).unwrap();
        }
        fn log(&self) -> PathBuf {
            self.0.join("0.log")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn drain(reader: &mut Reader) -> (String, Step) {
        let mut out = Vec::new();
        loop {
            let step = reader.step(&mut out).unwrap();
            if step != Step::More {
                return (String::from_utf8(out).unwrap(), step);
            }
        }
    }

    fn read(log: &Path, options: LogOptions) -> String {
        drain(&mut Reader::open(log.to_owned(), options).unwrap()).0
    }

    fn tail(n: u64) -> LogOptions {
        LogOptions {
            tail: Some(n),
            ..LogOptions::default()
        }
    }

    #[test]
    fn parts_become_one_line_with_one_timestamp() {
        let scratch = Scratch::new("parts");
        scratch.write(
            "0.log",
            &[
                "t1 stdout P ab",
                "t2 stdout P cd",
                "t3 stdout F ef",
                "t4 stderr F g",
            ],
        );
        assert_eq!(read(&scratch.log(), LogOptions::default()), "abcdef\ng\n");
        let options = LogOptions {
            timestamps: true,
            ..LogOptions::default()
        };
        assert_eq!(read(&scratch.log(), options), "t1 abcdef\nt4 g\n");
    }

    #[test]
    fn tail_counts_whole_lines_across_rotated_files() {
        let scratch = Scratch::new("tail");
        scratch.write("0.log.20260101-000000", &["t stdout F 1", "t stdout F 2"]);
        scratch.write("0.log", &["t stdout P 3", "t stdout F 3", "t stdout F 4"]);
        let log = scratch.log();
        assert_eq!(read(&log, LogOptions::default()), "1\n2\n33\n4\n");
        assert_eq!(read(&log, tail(0)), "");
        assert_eq!(read(&log, tail(1)), "4\n");
        assert_eq!(read(&log, tail(2)), "33\n4\n");
        assert_eq!(read(&log, tail(3)), "2\n33\n4\n");
        assert_eq!(read(&log, tail(4)), "1\n2\n33\n4\n");
        assert_eq!(read(&log, tail(9)), "1\n2\n33\n4\n");
    }

    #[test]
    fn tail_is_found_when_lines_are_longer_than_a_block() {
        let scratch = Scratch::new("long");
        let long = format!("t stdout F {}", "x".repeat(100_000));
        scratch.write("0.log", &[&long, "t stdout F a", &long]);
        assert_eq!(read(&scratch.log(), tail(2)).len(), 2 + 100_001);
        assert_eq!(read(&scratch.log(), tail(1)).len(), 100_001);
    }

    #[test]
    fn limit_cuts_in_the_middle_of_a_line() {
        let scratch = Scratch::new("limit");
        scratch.write("0.log", &["t stdout F abc", "t stdout F def"]);
        let options = LogOptions {
            limit_bytes: Some(6),
            ..LogOptions::default()
        };
        let mut reader = Reader::open(scratch.log(), options).unwrap();
        assert_eq!(
            drain(&mut reader),
            ("abc\nde".to_owned(), Step::LimitReached)
        );
    }

    #[test]
    fn no_line_is_lost_when_the_log_is_rotated_twice_between_reads() {
        let scratch = Scratch::new("rotate");
        scratch.write("0.log", &["t stdout F 1"]);
        let mut reader = Reader::open(scratch.log(), LogOptions::default()).unwrap();
        assert_eq!(drain(&mut reader).0, "1\n");
        let rotate = |to: &str| std::fs::rename(scratch.log(), scratch.0.join(to)).unwrap();
        rotate("0.log.20260101-000000");
        scratch.write("0.log", &["t stdout F 2"]);
        rotate("0.log.20260101-000001");
        scratch.write("0.log", &["t stdout F 3"]);
        assert_eq!(drain(&mut reader).0, "2\n3\n");
    }

    #[test]
    fn unfinished_line_waits_for_its_end() {
        let scratch = Scratch::new("unfinished");
        std::fs::write(scratch.log(), "t stdout F ab").unwrap();
        let mut reader = Reader::open(scratch.log(), LogOptions::default()).unwrap();
        assert_eq!(drain(&mut reader).0, "");
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(scratch.log())
            .unwrap();
        file.write_all(b"c\n").unwrap();
        assert_eq!(drain(&mut reader).0, "abc\n");
    }
}
