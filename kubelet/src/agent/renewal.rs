//! When a certificate is to be replaced. Pure.

use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// kubernetes v1.37 staging/src/k8s.io/client-go/util/certificate `certificateRenewBackoff`.
const FIRST_RETRY: Duration = Duration::from_secs(2);

/// How long a certificate is good for, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Not before.
    pub from: i64,
    /// Not after.
    pub until: i64,
    /// When we were given it.
    pub since: i64,
}

impl Life {
    /// Of a certificate in DER form.
    pub fn of(der: &[u8], since: Option<i64>) -> Option<Life> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        let from = validity.not_before.timestamp();
        Some(Life {
            from,
            until: validity.not_after.timestamp(),
            since: since.unwrap_or(from),
        })
    }

    /// Whether it is of no use any more.
    pub fn is_over(&self, now: i64) -> bool {
        self.until <= now
    }

    /// When to ask for the next: `share` of its life after its beginning. The controller manager
    /// dates short-lived ones back by five minutes; one that would be due on arrival has the same
    /// share of what is left.
    pub fn due(&self, share: f64) -> i64 {
        let part = |from: i64| from + ((self.until - from) as f64 * share) as i64;
        let due = part(self.from);
        match due > self.since {
            true => due,
            false => part(self.since.min(self.until)),
        }
    }
}

/// 0.7 to 0.9: not every node of a cluster asks in the same minute.
pub fn share() -> f64 {
    let mut bytes = [0_u8; 4];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    let fraction = match filled {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    };
    0.7 + 0.2 * fraction
}

/// The wait after so many failures in a row, from the first on.
pub fn back_off(failures: u32, most: Duration) -> Duration {
    let doubled = 1_u32
        .checked_shl(failures.saturating_sub(1))
        .unwrap_or(u32::MAX);
    FIRST_RETRY.saturating_mul(doubled).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(from: i64, until: i64, since: i64) -> Life {
        Life { from, until, since }
    }

    #[test]
    fn renewal_is_due_within_the_last_third_of_life() {
        let life = life(1000, 2000, 1100);
        assert_eq!(life.due(0.7), 1700);
        assert_eq!(life.due(0.9), 1900);
        assert!((0.7..=0.9).contains(&share()));
    }

    #[test]
    fn certificate_that_is_dated_back_is_not_due_on_arrival() {
        // A minute, dated back by five.
        assert_eq!(life(700, 1060, 1000).due(0.7), 1042);
        // One that is over on arrival is due at once, and not later than that.
        assert_eq!(life(100, 900, 1000).due(0.7), 900);
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let most = Duration::from_secs(60);
        let waits = [1, 2, 3, 5, 6, 60].map(|n| back_off(n, most).as_secs());
        assert_eq!(waits, [2, 4, 8, 32, 60, 60]);
    }
}
