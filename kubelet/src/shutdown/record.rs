//! `graceful_node_shutdown_state`: when the last orderly shutdown began and ended.

use crate::join::files::write_atomically;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use std::path::{Path, PathBuf};

const FILE: &str = "graceful_node_shutdown_state";

/// As the stock kubelet writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    #[serde(serialize_with = "written", deserialize_with = "read")]
    pub start_time: Option<Timestamp>,
    #[serde(serialize_with = "written", deserialize_with = "read")]
    pub end_time: Option<Timestamp>,
}

/// Go's zero time stands for none.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn written<S: serde::Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.collect_str(time),
        None => to.serialize_str(NEVER),
    }
}

fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(from)?;
    match text == NEVER {
        true => Ok(None),
        false => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

fn path(root: &Path) -> PathBuf {
    root.join(FILE)
}

/// None where there is no readable record.
pub fn load(root: &Path) -> Times {
    let text = std::fs::read(path(root)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Whole or not at all.
///
/// # Errors
/// When the root can't be written.
pub fn store(root: &Path, times: Times) -> std::io::Result<()> {
    let text = serde_json::to_vec(&times).unwrap_or_default();
    write_atomically(&path(root), &text, 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_the_stock_kubelets() {
        let text =
            r#"{"startTime":"2026-11-26T10:00:00.5+01:00","endTime":"0001-01-01T00:00:00Z"}"#;
        let times: Times = serde_json::from_str(text).unwrap();
        assert_eq!(times.start_time.map(|t| t.as_second()), Some(1_795_683_600));
        assert_eq!(times.end_time, None);
        let text = serde_json::to_string(&times).unwrap();
        assert_eq!(serde_json::from_str::<Times>(&text).unwrap(), times);
        assert!(
            text.ends_with(r#""endTime":"0001-01-01T00:00:00Z"}"#),
            "{text}"
        );
    }
}
