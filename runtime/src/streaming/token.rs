//! URLs that open one request once, for a minute.

use cri_proto::v1;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// k8s.io/cri-streaming v0.37 pkg/streaming/request_cache.go `cacheTTL`.
const LIFETIME: Duration = Duration::from_secs(60);
/// The same file, `maxInFlight`.
const MAX_WAITING: usize = 1000;

/// What a URL opens.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Request {
    Exec(v1::ExecRequest),
    Attach(v1::AttachRequest),
    PortForward(v1::PortForwardRequest),
}

impl Request {
    /// The verb in its URL.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

/// Requests whose URL has not been opened.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<String, (Instant, Request)>>);

impl Waiting {
    /// Keeps the request and answers its token. When too many wait, the
    /// oldest one's URL goes stale.
    pub fn put(&self, request: Request, now: Instant) -> String {
        let token = token();
        let mut waiting = self.0.lock().unwrap_or_else(|e| e.into_inner());
        waiting.retain(|_, (since, _)| now.duration_since(*since) < LIFETIME);
        if waiting.len() >= MAX_WAITING {
            let oldest = waiting.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(oldest) = oldest.map(|(token, _)| token.clone()) {
                waiting.remove(&oldest);
            }
        }
        waiting.insert(token.clone(), (now, request));
        token
    }

    /// The request of a token, once, if it is of this verb and not too old.
    pub fn take(&self, verb: &str, token: &str, now: Instant) -> Option<Request> {
        let mut waiting = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let (_, request) = waiting.get(token)?;
        if request.verb() != verb {
            return None;
        }
        let (since, request) = waiting.remove(token)?;
        (now.duration_since(since) < LIFETIME).then_some(request)
    }
}

/// 128 random bits in hexadecimal.
fn token() -> String {
    let mut bytes = [0u8; 16];
    // Blocks until the kernel has booted that far, then gives this few bytes
    // whole; a token that can be guessed is never handed out.
    while rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) != Ok(16) {}
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(id: &str) -> Request {
        Request::Exec(v1::ExecRequest {
            container_id: id.to_owned(),
            ..Default::default()
        })
    }

    #[test]
    fn token_opens_once_and_only_its_verb() {
        let waiting = Waiting::default();
        let now = Instant::now();
        let token = waiting.put(exec("c"), now);
        assert_eq!(token.len(), 32);
        assert_eq!(waiting.take("attach", &token, now), None);
        assert_eq!(waiting.take("exec", &token, now), Some(exec("c")));
        assert_eq!(waiting.take("exec", &token, now), None);
    }

    #[test]
    fn token_is_stale_after_a_minute() {
        let waiting = Waiting::default();
        let now = Instant::now();
        let token = waiting.put(exec("c"), now);
        assert_eq!(waiting.take("exec", &token, now + LIFETIME), None);
    }

    #[test]
    fn oldest_goes_when_too_many_wait() {
        let waiting = Waiting::default();
        let now = Instant::now();
        let first = waiting.put(exec("first"), now);
        for n in 0..MAX_WAITING {
            let later = now + Duration::from_millis(1 + n as u64);
            waiting.put(exec("c"), later);
        }
        assert_eq!(waiting.take("exec", &first, now), None);
    }
}
