//! Progress lines: what the bed does now, and how long each step took.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};

/// Runs one step and prints how long it took; an error is prefixed with the step's name.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let result = work().with_context(|| name.to_owned());
    if result.is_ok() {
        println!("  {:<44} {:>8}", name, seconds(start.elapsed()));
    }
    result
}

/// "1.2 s", or "3 m 04 s" from a minute on.
pub fn seconds(time: Duration) -> String {
    let all = time.as_secs_f64();
    if all < 60.0 {
        format!("{all:.1} s")
    } else {
        format!("{} m {:02} s", all as u64 / 60, all as u64 % 60)
    }
}

/// How much longer than on a machine of its own everything may take: `PATIENCE=5` for an
/// emulated one.
fn patience() -> u32 {
    let given = std::env::var("PATIENCE").ok();
    given.and_then(|p| p.parse().ok()).unwrap_or(1)
}

/// Polls every 20 ms until `probe` yields a value; `what` says in the error what never came.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let limit = limit * patience();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            anyhow::bail!("{what}: not so after {}", seconds(limit));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_turns_to_minutes_from_sixty_on() {
        assert_eq!(seconds(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(184)), "3 m 04 s");
    }

    #[test]
    fn wait_for_names_what_never_came() {
        let error = wait_for::<()>("moon", Duration::ZERO, || Ok(None)).expect_err("never");
        assert!(error.to_string().starts_with("moon"));
    }
}
