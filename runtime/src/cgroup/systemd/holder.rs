//! The process that a scope starts with.
//!
//! systemd makes no empty scope and removes one that becomes empty. A container's
//! first process comes later, and enters by itself; until then this one is there.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// `argv[0]` of the process.
pub const HOLDER: &str = "lighter-scope";

/// What the process does: waits for us to let go, or to die.
pub fn hold() {
    let mut byte = [0u8];
    while matches!(io::stdin().read(&mut byte), Ok(n) if n > 0) {}
}

/// Ends with this.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// This same executable under another name.
    pub fn start() -> io::Result<Self> {
        Command::new("/proc/self/exe")
            .arg0(HOLDER)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .spawn()
            .map(Self)
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
