//! The terminal of whoever typed the command.

use anyhow::Context;
use rustix::termios::{self, OptionalActions, Termios};
use std::io;

/// A terminal that hands on every key, until this is dropped.
pub struct Terminal {
    before: Termios,
}

impl Terminal {
    /// `None` where stdin is no terminal: then there is nothing to prepare.
    pub fn raw() -> anyhow::Result<Option<Terminal>> {
        if !termios::isatty(io::stdin()) {
            return Ok(None);
        }
        let before = termios::tcgetattr(io::stdin()).context("the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw).context("set the terminal")?;
        Ok(Some(Terminal { before }))
    }

    /// As a resize message has it.
    pub fn size(&self) -> Option<String> {
        let size = termios::tcgetwinsize(io::stdin()).ok()?;
        let (width, height) = (size.ws_col, size.ws_row);
        Some(format!(r#"{{"Width":{width},"Height":{height}}}"#))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
