//! The time that a client gives a call.
//!
//! The transport enforces it too, but answers Cancelled, and then a client that
//! waits for DeadlineExceeded depends on whose clock is first. So a call is
//! answered here, a little before.

use std::time::Duration;
use tonic::{Request, Status};

const HEADER: &str = "grpc-timeout";
/// How much earlier than asked, at most half of it.
const EARLY: Duration = Duration::from_millis(1);

/// When a call is to be answered at the latest, from now on.
pub fn of<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get(HEADER)?.to_str().ok()?;
    let given = parse(text)?;
    Some(given.saturating_sub(EARLY.min(given / 2)))
}

/// The call's work goes on: the same call made again joins it.
pub fn exceeded() -> Status {
    Status::deadline_exceeded("the call's deadline has passed; what it began goes on")
}

/// gRPC over HTTP2: at most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_is_a_number_with_a_unit() {
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(parse("999u"), Some(Duration::from_micros(999)));
        for wrong in ["", "S", "1", "-1S", "1x", "123456789S", "1é"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn call_is_answered_before_the_transport_gives_up() {
        let mut request = Request::new(());
        assert_eq!(of(&request), None);
        request.set_timeout(Duration::from_secs(2));
        assert_eq!(of(&request), Some(Duration::from_millis(1999)));
        request.set_timeout(Duration::from_millis(1));
        assert_eq!(of(&request), Some(Duration::from_micros(500)));
    }
}
