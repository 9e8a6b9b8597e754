//! `/etc/lighter/config.yaml`: the runtime's settings in one file. Every field
//! has a default, so the file may be absent.

use crate::exit::{CONFIG, coded};
use std::path::Path;

/// Where it is looked for when no `--config` names one.
pub const DEFAULT_PATH: &str = "/etc/lighter/config.yaml";

/// Reads the runtime's settings.
///
/// # Errors
/// When a file that was asked for does not exist, or one that exists is wrong.
pub fn runtime(path: Option<&Path>) -> anyhow::Result<runtime::Config> {
    let named = path.is_some();
    let path = path.unwrap_or(Path::new(DEFAULT_PATH));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !named => {
            return Ok(Default::default());
        }
        Err(e) => return Err(coded(CONFIG, format!("read {}: {e}", path.display()))),
    };
    serde_saphyr::from_str(&text).map_err(|e| {
        let first = e.to_string();
        coded(
            CONFIG,
            format!(
                "{}: {}",
                path.display(),
                first.lines().next().unwrap_or_default()
            ),
        )
    })
}
