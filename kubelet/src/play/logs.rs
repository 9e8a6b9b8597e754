//! Follows the logs of containers on disk.
//! Form of a line: kubernetes v1.36 pkg/kubelet/kuberuntime/logs:
//! `<RFC 3339 time> stdout|stderr F|P <text>`.

use super::terminal::Terminal;
use k8s_openapi::api::core::v1::Pod;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// For a person's eyes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Prints what the pod's containers write, from their first line on, until
/// `ended`; what was written before that is printed still.
pub async fn follow(pod: &Pod, logs_root: &Path, ended: CancellationToken) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let dir = logs_root.join(format!(
        "{}_{name}_{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.uid.as_deref().unwrap_or_default()
    ));
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let mut readers: Vec<(String, Reader)> = containers
        .map(|c| (c.name.clone(), Reader::new(dir.join(&c.name))))
        .collect();
    loop {
        let last = ended.is_cancelled();
        for (container, reader) in &mut readers {
            reader.read(|line| Terminal::log(&name, container, line));
        }
        if last {
            return;
        }
        tokio::select! {
            () = ended.cancelled() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Reads `<dir>/0.log`, `1.log`, … one after the other as they appear.
struct Reader {
    dir: PathBuf,
    attempt: u32,
    file: Option<File>,
    /// Bytes after the last newline.
    rest: Vec<u8>,
    /// Partial lines of each stream.
    partial: HashMap<String, String>,
}

impl Reader {
    fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            attempt: 0,
            file: None,
            rest: Vec::new(),
            partial: HashMap::new(),
        }
    }

    fn read(&mut self, mut print: impl FnMut(&str)) {
        loop {
            if self.file.is_none() {
                self.file = File::open(self.path(self.attempt)).ok();
            }
            self.drain(&mut print);
            if !self.advance() {
                return;
            }
        }
    }

    fn path(&self, attempt: u32) -> PathBuf {
        self.dir.join(format!("{attempt}.log"))
    }

    /// Goes on to the new file after a rotation, or to the next attempt.
    fn advance(&mut self) -> bool {
        let inode = |m: std::fs::Metadata| (m.dev(), m.ino());
        let here = std::fs::metadata(self.path(self.attempt)).map(inode).ok();
        let open = self
            .file
            .as_ref()
            .and_then(|f| f.metadata().map(inode).ok());
        if here.is_some() && open.is_some() && here != open {
            self.file = None;
            return true;
        }
        let newest = newest_attempt(&self.dir);
        if newest.is_some_and(|newest| newest > self.attempt) {
            // Attempts between may have been cleaned up already.
            self.attempt += 1;
            self.file = None;
            return true;
        }
        false
    }

    fn drain(&mut self, print: &mut impl FnMut(&str)) {
        let Some(file) = &mut self.file else {
            return;
        };
        // What can't be read now may be readable at the next look.
        let _ = file.read_to_end(&mut self.rest);
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else {
            return;
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        for line in String::from_utf8_lossy(&whole).lines() {
            if let Some(text) = joined(&mut self.partial, line) {
                print(&text);
            }
        }
    }
}

fn newest_attempt(dir: &Path) -> Option<u32> {
    let entries = std::fs::read_dir(dir).ok()?;
    let number = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".log")?.parse().ok()
    };
    entries.flatten().filter_map(number).max()
}

/// The text of a line once it is complete.
fn joined(partial: &mut HashMap<String, String>, line: &str) -> Option<String> {
    let mut parts = line.splitn(4, ' ');
    let (_, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    let text = parts.next().unwrap_or_default();
    let before = partial.entry(stream.to_owned()).or_default();
    before.push_str(text);
    (!tag.starts_with('P')).then(|| std::mem::take(before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::scratch::Scratch;
    use std::fs;

    fn read(reader: &mut Reader) -> Vec<String> {
        let mut lines = Vec::new();
        reader.read(|line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_are_joined_across_reads_rotation_and_restarts() {
        let dir = Scratch::new();
        let mut reader = Reader::new(dir.0.clone());
        let log = dir.0.join("0.log");
        assert!(read(&mut reader).is_empty());
        fs::write(
            &log,
            "t stdout P one \nt stderr F other\nt stdout F two\nt std",
        )
        .unwrap();
        assert_eq!(read(&mut reader), ["other", "one two"]);
        fs::write(
            &log,
            "t stdout P one \nt stderr F other\nt stdout F two\nt stdout F three\n",
        )
        .unwrap();
        assert_eq!(read(&mut reader), ["three"]);
        fs::rename(&log, dir.0.join("0.log.old")).unwrap();
        fs::write(&log, "t stdout F four\n").unwrap();
        fs::write(dir.0.join("2.log"), "t stdout F five\n").unwrap();
        assert_eq!(read(&mut reader), ["four", "five"]);
        assert!(read(&mut reader).is_empty());
    }
}
