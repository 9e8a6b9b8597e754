//! A monitor's answers, in the agent's words.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::ProcessError;
use super::link::Answer;
use super::step::Step;
use super::wire::{Body, Failed, Mark, State, Why};

/// What comes with a monitor's state.
#[derive(Debug)]
pub struct StateFds {
    /// The monitor's pidfd and its network namespace.
    pub required: [OwnedFd; 2],
    /// The pod's user namespace.
    pub userns: Option<OwnedFd>,
}

/// The first answer on a connection.
pub fn state(sandbox: &str, answer: io::Result<Answer>) -> Result<(State, StateFds), ProcessError> {
    let answer = answer.map_err(|error| lost(sandbox, error))?;
    let state = match answer.body {
        Body::State(state) => state,
        Body::Failed(why) => return Err(failed(sandbox, "", why)),
        _ => return Err(garbled(sandbox)),
    };
    let mut fds = answer.fds;
    let userns = if state.userns { fds.pop() } else { None };
    let required = <[OwnedFd; 2]>::try_from(fds).map_err(|_| garbled(sandbox))?;
    Ok((state, StateFds { required, userns }))
}

/// Pid of a pidfd's process, in our PID namespace (proc_pid_fdinfo(5)).
pub fn pid_of(pidfd: &OwnedFd) -> io::Result<i32> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.and_then(|pid| pid.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

pub fn garbled(sandbox: &str) -> ProcessError {
    ProcessError::Protocol {
        sandbox: sandbox.to_owned(),
        source: io::ErrorKind::InvalidData.into(),
    }
}

/// A connection that broke is a monitor that died.
pub fn lost(sandbox: &str, error: io::Error) -> ProcessError {
    let sandbox = sandbox.to_owned();
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ProcessError::MonitorGone { sandbox }
        }
        _ => ProcessError::Protocol {
            sandbox,
            source: error,
        },
    }
}

/// A refusal, as an error. `container` is empty when the sandbox itself is meant.
pub fn failed(sandbox: &str, container: &str, failed: Failed) -> ProcessError {
    let (sandbox, container) = (sandbox.to_owned(), container.to_owned());
    match failed.why() {
        Why::NotFound => ProcessError::NotFound { sandbox, container },
        Why::NotRunning => ProcessError::NotRunning { container },
        Why::Exists => ProcessError::Exists { container },
        Why::Unknown => ProcessError::Protocol {
            sandbox,
            source: io::ErrorKind::Unsupported.into(),
        },
        Why::Busy => ProcessError::Protocol {
            sandbox,
            source: io::ErrorKind::ResourceBusy.into(),
        },
        Why::Step => step(sandbox, container, failed),
    }
}

fn step(sandbox: String, container: String, failed: Failed) -> ProcessError {
    let step = failed.step();
    let source = io::Error::from_raw_os_error(failed.errno);
    let context = failed.context;
    match step {
        Step::Execute => ProcessError::Command {
            reason: reason(&context, failed.errno),
            command: context,
        },
        // What the kernel says of a PID namespace whose first process is gone.
        Step::JoinNamespaces | Step::JoinPidNamespace | Step::Fork
            if matches!(failed.errno, libc::ESRCH | libc::ENOMEM) && !container.is_empty() =>
        {
            ProcessError::NotRunning { container }
        }
        _ if container.is_empty() => ProcessError::Sandbox {
            sandbox,
            step: step.to_string(),
            context,
            source,
        },
        _ => ProcessError::Stage {
            subject: container,
            step: step.to_string(),
            context,
            source,
        },
    }
}

/// The words that users know from runc.
fn reason(command: &str, errno: i32) -> String {
    match Errno::from_raw_os_error(errno) {
        Errno::NOENT if !command.contains('/') => "executable file not found in $PATH".to_owned(),
        Errno::NOENT => "no such file or directory".to_owned(),
        Errno::ACCESS => "permission denied".to_owned(),
        Errno::NOEXEC => "exec format error".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        other => other.to_string(),
    }
}

/// Now, on the clock of the monitors' marks.
pub fn mark(what: &str) -> Mark {
    let time = clock_gettime(ClockId::Monotonic);
    Mark {
        what: what.to_owned(),
        at: time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
    }
}

/// Nanoseconds since the epoch.
pub fn now() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Hands on when what was done: events of the target `lighter::waterfall` in the
/// span of the verb, with `at` in nanoseconds of CLOCK_MONOTONIC.
pub fn mark_waterfall(marks: &[Mark]) {
    for mark in marks {
        tracing::debug!(target: "lighter::waterfall", what = mark.what, at = mark.at);
    }
}

/// Something of the span of this thread is done, now: see [`mark_waterfall`].
pub fn moment(what: &str) {
    mark_waterfall(&[mark(what)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(step: Step, errno: i32, context: &str) -> Failed {
        Failed {
            why: Why::Step.into(),
            step: step.into(),
            errno,
            context: context.into(),
        }
    }

    #[test]
    fn error_names_the_command_when_it_is_not_found() {
        let error = failed("s", "c", at(Step::Execute, libc::ENOENT, "nope"));
        let sentence = "exec: \"nope\": executable file not found in $PATH";
        assert_eq!(error.to_string(), sentence);
    }

    #[test]
    fn error_says_not_running_when_the_pid_namespace_is_dead() {
        let error = failed("s", "c", at(Step::Fork, libc::ENOMEM, ""));
        assert!(matches!(error, ProcessError::NotRunning { .. }));
    }

    #[test]
    fn error_names_step_path_and_errno_when_a_mount_fails() {
        let error = failed("s", "c", at(Step::AttachMount, libc::EBUSY, "/data"));
        assert_eq!(error.to_string(), "set up c: mount on /data");
        let source = std::error::Error::source(&error).expect("errno");
        assert!(source.to_string().contains("busy"), "{source}");
    }
}
