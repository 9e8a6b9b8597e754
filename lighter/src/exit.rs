//! Exit codes: 0 done; 1 failed; 64 wrong arguments; 70 a defect of ours;
//! 77 not root; 78 configuration. `play` answers with the exit code of a pod
//! that failed. The numbers above 63 are those of sysexits.h.

use std::process::ExitCode;

/// Wrong arguments.
pub const USAGE: u8 = 64;
/// A defect of ours.
pub const SOFTWARE: u8 = 70;
/// Root is needed.
pub const NO_PERMISSION: u8 = 77;
/// A configuration file is wrong or can't be read.
pub const CONFIG: u8 = 78;

/// An error that asks for an exit code other than 1.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Coded {
    /// One line.
    pub message: String,
    /// See the constants.
    pub code: u8,
}

/// `Coded` as an [`anyhow::Error`].
pub fn coded(code: u8, message: impl Into<String>) -> anyhow::Error {
    Coded {
        message: message.into(),
        code,
    }
    .into()
}

/// Prints what failed in one line and answers its code.
pub fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("lighter: {error:#}");
    ExitCode::from(error.downcast_ref::<Coded>().map_or(1, |c| c.code))
}

/// clap's own message; help and version are successes.
pub fn clap(error: &clap::Error) -> ExitCode {
    // Nothing is left to be done about a closed terminal.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// A defect of ours.
pub fn software(message: &str) -> ExitCode {
    eprintln!("lighter: {message}");
    ExitCode::from(SOFTWARE)
}
