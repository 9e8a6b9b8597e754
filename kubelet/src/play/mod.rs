//! Pods from a file, through the same engine, with no API server.
//!
//! [`load`] reads the file, [`run`] runs it. What a play made is found again by
//! a label on its pods, so that playing the file once more takes over what
//! runs, and `down` removes it.

mod existing;
mod host;
mod logs;
mod manifest;
mod progress;
mod run;
mod templates;
mod terminal;
mod unknown;

pub use manifest::{Manifest, ManifestError, load};
pub use run::{Outcome, PlayError, PlayOptions, run};

/// Label of every pod of a play; its value names the file.
const PLAY_LABEL: &str = "lighter.dev/play";
