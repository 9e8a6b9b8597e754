//! Where this process spends its CPU time, as a profile that `go tool pprof` opens.
//!
//! The kernel takes the samples ([`sampler`]: perf_event_open(2), by each thread's own
//! CPU clock) and copies the registers and the top of the stack. Nothing is interrupted
//! by a signal, and nothing is armed that a child would inherit. Afterwards stacks are
//! unwound ([`stack`]) with what the program's own file says ([`program`]), and written
//! ([`format`]).
//!
//! A stripped program has no names: its addresses come with the path and the build ID,
//! and `go tool pprof UNSTRIPPED PROFILE` names them.

mod format;
mod program;
mod sampler;
mod stack;

pub use program::{Program, ProgramError};

use sampler::{PERIOD, Threads};
use stack::Unwound;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant, SystemTime};
use tokio_util::sync::CancellationToken;

/// Between two looks at what the kernel wrote and at which threads there are: less than
/// it takes to fill a thread's buffer.
const LOOK: Duration = Duration::from_millis(25);

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProfileError {
    #[error("read this program")]
    Program(#[from] ProgramError),
    #[error("sample this process: perf_event_open")]
    Sample(#[source] io::Error),
    #[error("this program was built for a processor whose stacks are not unwound")]
    Architecture,
}

/// How often each stack was seen, the innermost address first.
pub(crate) type Stacks = HashMap<Vec<u64>, i64>;

/// Samples this process for `length`, or until `stop`; gzipped `profile.proto`. Blocks.
///
/// # Errors
/// Where the kernel gives no samples (no perf events, or no right to them).
pub fn cpu(length: Duration, stop: &CancellationToken) -> Result<Vec<u8>, ProfileError> {
    let program = Program::own()?;
    let mut unwound = Unwound::new(&program).ok_or(ProfileError::Architecture)?;
    let (began, start) = (SystemTime::now(), Instant::now());
    let mut threads = Threads::default();
    let mut stacks = Stacks::new();
    while start.elapsed() < length && !stop.is_cancelled() {
        threads.follow().map_err(ProfileError::Sample)?;
        std::thread::sleep(LOOK.min(length.saturating_sub(start.elapsed())));
        threads.drain(|sample| {
            let stack = unwound.stack(&sample);
            if !stack.is_empty() {
                *stacks.entry(stack).or_default() += 1;
            }
        });
    }
    let taken = format::Taken {
        began,
        length: start.elapsed(),
        period: PERIOD,
    };
    Ok(format::written(&stacks, &program, taken))
}

#[cfg(test)]
mod tests;
