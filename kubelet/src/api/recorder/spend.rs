//! A token bucket.

use std::time::{Duration, Instant};

/// Allows `rate` a second after a burst.
pub struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// Full. A rate of 0 means no limit.
    pub fn new(rate: u32, burst: u32, now: Instant) -> Bucket {
        let burst = f64::from(burst.max(1));
        Bucket {
            rate: f64::from(rate),
            burst,
            tokens: burst,
            filled: now,
        }
    }

    /// Takes one if there is one; nobody waits.
    pub fn allow(&mut self, now: Instant) -> bool {
        let allowed = self.take(now).is_none();
        if !allowed {
            self.tokens += 1.0;
        }
        allowed
    }

    /// Takes one, and says how long to wait before using it.
    pub fn take(&mut self, now: Instant) -> Option<Duration> {
        if self.rate == 0.0 {
            return None;
        }
        let gained = now.duration_since(self.filled).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + gained).min(self.burst) - 1.0;
        self.filled = now;
        (self.tokens < 0.0).then(|| Duration::from_secs_f64(-self.tokens / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_makes_wait_when_the_burst_is_spent() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, 2, now);
        assert_eq!(bucket.take(now), None);
        assert_eq!(bucket.take(now), None);
        assert_eq!(bucket.take(now), Some(Duration::from_millis(100)));
        assert_eq!(bucket.take(now + Duration::from_secs(1)), None);
    }

    #[test]
    fn what_is_not_allowed_takes_nothing() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, 1, now);
        assert!(bucket.allow(now));
        assert!((0..100).all(|_| !bucket.allow(now)));
        assert!(bucket.allow(now + Duration::from_millis(100)));
    }

    #[test]
    fn bucket_never_makes_wait_when_there_is_no_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(0, 1, now);
        assert!((0..100).all(|_| bucket.take(now).is_none()));
    }
}
