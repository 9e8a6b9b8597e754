//! The CNI plugins as a program of their own: what `lighter` does when it is
//! called by one of their names, for tests and for hosts that want no more.

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv0 = std::env::args_os().next().unwrap_or_default();
    cni::plugin::dispatch(&argv0).unwrap_or_else(|| {
        eprintln!(
            "call it by the name of a plugin, with CNI_COMMAND set: {:?}",
            cni::plugin::NAMES
        );
        ExitCode::from(64)
    })
}
