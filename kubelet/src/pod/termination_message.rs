//! What a container leaves behind in its terminationMessagePath, or its log.
//! Limits: kubernetes v1.36 pkg/kubelet/container/runtime.go.

use super::spec::labels;
use cri_proto::v1;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const MAX_MESSAGE: u64 = 4096;
const MAX_LOG_MESSAGE: usize = 2048;
const MAX_LOG_LINES: usize = 80;
/// Read from the log's end: room for the lines above with their time stamps.
const LOG_TAIL: u64 = 16 * 1024;

/// The message of a container that ended; empty when it left none.
pub(super) fn read(status: &v1::ContainerStatus) -> String {
    let annotation = |key: &str| status.annotations.get(key).map(String::as_str);
    let Some(path) = annotation(labels::MESSAGE_PATH).filter(|p| !p.is_empty()) else {
        return String::new();
    };
    let mount = status.mounts.iter().find(|m| m.container_path == path);
    let from_file = mount.and_then(|m| tail(Path::new(&m.host_path), MAX_MESSAGE));
    let from_file = from_file.unwrap_or_default();
    let from_log = annotation(labels::MESSAGE_POLICY) == Some("FallbackToLogsOnError");
    if from_file.is_empty() && from_log && status.exit_code != 0 {
        let log = tail(Path::new(&status.log_path), LOG_TAIL).unwrap_or_default();
        return last_lines(&log);
    }
    from_file
}

fn tail(path: &Path, most: u64) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file
        .metadata()
        .ok()
        .filter(std::fs::Metadata::is_file)?
        .len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))
        .ok()?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of the last lines of a CRI log: `time stream tag text`.
fn last_lines(log: &str) -> String {
    let mut text = String::new();
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(MAX_LOG_LINES)..] {
        let mut parts = line.splitn(4, ' ');
        let (Some(_), Some("stdout" | "stderr"), Some(tag), Some(said)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        text.push_str(said);
        if tag.starts_with('F') {
            text.push('\n');
        }
    }
    let mut start = text.len().saturating_sub(MAX_LOG_MESSAGE);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.split_off(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_message_is_the_text_without_stamps_and_joins_partial_lines() {
        let log = "cut off line\n\
                   2026-01-01T00:00:00Z stderr P DO\n\
                   2026-01-01T00:00:00Z stderr F NE\n\
                   2026-01-01T00:00:00Z stdout F end\n";
        assert_eq!(last_lines(log), "DONE\nend\n");
    }

    #[test]
    fn log_message_keeps_the_end_when_it_is_long() {
        let log = format!("t stdout F {}\nt stdout F z\n", "a".repeat(5000));
        let message = last_lines(&log);
        assert_eq!(message.len(), MAX_LOG_MESSAGE);
        assert!(message.ends_with("a\nz\n"));
    }
}
