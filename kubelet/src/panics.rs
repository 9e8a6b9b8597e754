//! What a panic costs: the try of one pod, or one answer, where that is known to be all; else
//! the agent.
//!
//! A task that is gone while all others wait for it leaves a node that looks alive and is not.
//! So the process ends, is started again and adopts what runs. Only work is spared of which
//! nothing is left behind but what its next try finds anyway.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::task::Poll;

thread_local! {
    /// A panic of this thread will be caught and told.
    static SPARED: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic ends the process (SIGABRT), but in work that is spared.
pub fn install() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tell(info);
        if !SPARED.get() {
            std::process::abort();
        }
    }));
}

/// Does work whose panic ends nothing but itself.
///
/// # Errors
/// The panic's message.
pub async fn spare<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = pin!(work);
    poll_fn(|context| {
        let _here = Here::spared(true);
        // What it has left half done is never polled again.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(panic) => Poll::Ready(Err(message(panic.as_ref()))),
        }
    })
    .await
}

/// Does on a thread of its own what would hold others up. Its panic is that of who waits for it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let spared = SPARED.get();
    let work = move || {
        let _here = Here::spared(spared);
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panicked) => resume_unwind(panicked.into_panic()),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// While it lives this thread is spared, or is not.
struct Here {
    before: bool,
}

impl Here {
    fn spared(spared: bool) -> Self {
        Self {
            before: SPARED.replace(spared),
        }
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        SPARED.set(self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, ExitStatus};

    /// Set in a copy of this program that is to panic.
    const CASE: &str = "LIGHTER_PANICS";

    /// The named case in a process of its own: a hook is the whole process'.
    fn run(case: &str) -> ExitStatus {
        let program = std::env::current_exe().expect("the tests' program");
        let name = "panics::tests::in_a_process_of_its_own";
        let mut command = Command::new(program);
        command.args(["--exact", name, "--ignored"]).env(CASE, case);
        command.output().expect("run").status
    }

    fn fail() -> u32 {
        panic!("a mistake in {}", "it")
    }

    #[test]
    #[ignore = "a part of the test below"]
    fn in_a_process_of_its_own() {
        let Ok(case) = std::env::var(CASE) else {
            return;
        };
        install();
        let tokio = tokio::runtime::Runtime::new().expect("runtime");
        let told = tokio.block_on(async {
            match case.as_str() {
                "spared" => spare(async { fail() }).await,
                "spared later" => {
                    let work = async {
                        tokio::task::yield_now().await;
                        fail()
                    };
                    tokio::spawn(spare(work)).await.expect("joined")
                }
                "spared on a thread" => spare(blocking(fail)).await,
                "on a thread" => Ok(blocking(fail).await),
                "after what was spared" => {
                    let _ = spare(async { fail() }).await;
                    tokio::spawn(async move { Ok(fail()) })
                        .await
                        .expect("joined")
                }
                _ => tokio::spawn(async move { Ok(fail()) })
                    .await
                    .expect("joined"),
            }
        });
        assert_eq!(told, Err("a mistake in it".to_owned()));
    }

    #[test]
    fn panic_ends_the_process_but_in_work_that_is_spared() {
        for case in ["spared", "spared later", "spared on a thread"] {
            assert!(run(case).success(), "{case}");
        }
        for case in ["a task", "on a thread", "after what was spared"] {
            assert_eq!(run(case).signal(), Some(6), "{case}: SIGABRT");
        }
    }
}
