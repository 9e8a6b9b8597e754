//! One GET (or a token's POST), with redirects and retries.

use super::endpoint::authority;
use super::tls::Client;
use crate::image::defaults::{
    MAX_REDIRECTS, MAX_RETRY_AFTER, MAX_TRIES, RESPONSE_TIMEOUT, RETRY_BASE, STALL_TIMEOUT,
};
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use std::time::Duration;

/// What to ask.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    pub url: String,
    /// Sent to every host of a chain of redirects.
    pub headers: HeaderMap,
    /// Sent to the first host alone: Authorization, and what the operator
    /// configured for the endpoint (CVE-2020-15157).
    pub private_headers: HeaderMap,
    pub body: Bytes,
    /// The answer is checked against a digest, so https may lead to http.
    pub pinned: bool,
}

/// Why an exchange gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ExchangeError {
    #[error("{url:?} is no URL that can be asked")]
    Url { url: String },
    #[error("{reason}")]
    Transport { reason: String, connected: bool },
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    #[error("redirect from https to {url}, which is not encrypted")]
    Downgrade { url: String },
    #[error("{status}, asks to come back in {} s", .after.as_secs())]
    RetryAfter { status: StatusCode, after: Duration },
    #[error("the answer is longer than {limit} bytes")]
    TooLong { limit: u64 },
}

impl Ask {
    pub fn get(url: String) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            private_headers: HeaderMap::new(),
            body: Bytes::new(),
            pinned: false,
        }
    }

    /// Sets a header that every host may see.
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

/// Asks until there is an answer that another try would not change.
pub async fn exchange(client: &Client, ask: &Ask) -> Result<Response<Incoming>, ExchangeError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = follow(client, ask).await;
        let pause = match &answer {
            Ok(response) if is_transient(response.status()) => match retry_after(response) {
                Some(after) if after > MAX_RETRY_AFTER => {
                    return Err(ExchangeError::RetryAfter {
                        status: response.status(),
                        after,
                    });
                }
                after => after.unwrap_or_else(|| backoff(tries)),
            },
            // A pooled connection may have been closed meanwhile.
            Err(ExchangeError::Transport {
                connected: true, ..
            }) => backoff(tries),
            _ => return answer,
        };
        if tries == MAX_TRIES {
            return answer;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Reads a whole body of at most `limit` bytes.
pub async fn read(body: Incoming, limit: u64) -> Result<Bytes, ExchangeError> {
    let mut body = body;
    let mut bytes = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut body).await? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(ExchangeError::TooLong { limit });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// The next bytes of a body; one that stands still is an error.
pub async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, ExchangeError> {
    loop {
        let frame = tokio::time::timeout(STALL_TIMEOUT, body.frame()).await;
        match frame {
            Err(_) => return Err(ExchangeError::Timeout(STALL_TIMEOUT)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(transport(&error, true)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn follow(client: &Client, ask: &Ask) -> Result<Response<Incoming>, ExchangeError> {
    let mut url = ask.url.clone();
    let mut private = true;
    for _ in 0..=MAX_REDIRECTS {
        let request = request(ask, &url, private)?;
        let answer = tokio::time::timeout(RESPONSE_TIMEOUT, client.request(request)).await;
        let response = answer
            .map_err(|_| ExchangeError::Timeout(RESPONSE_TIMEOUT))?
            .map_err(|e| transport(&e, !e.is_connect()))?;
        let Some(location) = location(&response) else {
            return Ok(marked(response, private));
        };
        let next = join(&url, &location);
        if url.starts_with("https:") && !next.starts_with("https:") && !ask.pinned {
            return Err(ExchangeError::Downgrade { url: next });
        }
        // Once gone, a secret does not come back on a further redirect.
        private = private && same_origin(&url, &next);
        url = next;
    }
    Err(ExchangeError::Redirects)
}

/// The answer came from another host than the one that was asked: a challenge
/// in it is not to be answered.
#[derive(Debug, Clone, Copy)]
pub struct FromElsewhere;

fn marked(mut response: Response<Incoming>, private: bool) -> Response<Incoming> {
    if !private {
        response.extensions_mut().insert(FromElsewhere);
    }
    response
}

fn request(ask: &Ask, url: &str, private: bool) -> Result<Request<Full<Bytes>>, ExchangeError> {
    let wrong = || ExchangeError::Url {
        url: url.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err(wrong());
    }
    let mut request = Request::new(Full::new(ask.body.clone()));
    *request.method_mut() = ask.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = ask.headers.clone();
    if private {
        request.headers_mut().extend(ask.private_headers.clone());
    }
    let agent = HeaderValue::from_static(concat!("lighter/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().insert(header::USER_AGENT, agent);
    Ok(request)
}

fn location(response: &Response<Incoming>) -> Option<String> {
    let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    redirect.then(|| location.to_owned())
}

/// A Location as a whole URL.
fn join(base: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let scheme = base.split("://").next().unwrap_or("https");
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    let authority = authority(base);
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}");
    }
    let path = base.split(['?', '#']).next().unwrap_or(base);
    let dir = path.rsplit_once('/').map_or(path, |(dir, _)| dir);
    format!("{dir}/{location}")
}

/// Same scheme, host and port.
fn same_origin(a: &str, b: &str) -> bool {
    let origin = |url: &str| -> Option<(String, String, u16)> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let default = if scheme == "https" { 443 } else { 80 };
        let host = uri.host()?.to_ascii_lowercase();
        Some((scheme, host, uri.port_u16().unwrap_or(default)))
    };
    origin(a).is_some() && origin(a) == origin(b)
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Seconds; a date is rare here and means the usual pause.
fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    seconds(response.headers().get(header::RETRY_AFTER)?)
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Doubles with every try, with up to a half more so that nodes spread.
pub fn backoff(tries: u32) -> Duration {
    let base = RETRY_BASE * 2u32.saturating_pow(tries.saturating_sub(1).min(6));
    let mut random = [0u8; 1];
    // Without randomness all nodes wait alike, which works too.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::NONBLOCK);
    base + base.mul_f64(f64::from(random[0]) / 512.0)
}

/// An error of hyper with all its causes in one line: its own text is only
/// "client error".
fn transport(error: &(dyn std::error::Error + 'static), connected: bool) -> ExchangeError {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    if parts.len() > 1 && parts[0].starts_with("client error") {
        parts.remove(0);
    }
    ExchangeError::Transport {
        reason: parts.join(": "),
        connected,
    }
}

/// Where damaged redirects lead, for the tests with damaged input.
#[cfg(test)]
pub fn fuzzed_location(base: &str, location: &str) {
    let url = join(base, location);
    // A secret stays with the host that it is meant for.
    if same_origin(base, &url) {
        let uri: Uri = url.parse().expect("an origin has been read of it");
        let host = uri.host().unwrap_or_default();
        assert!(host.eq_ignore_ascii_case("a.io"), "{location:?}");
    }
    if let Ok(request) = request(&Ask::get(String::new()), &url, true) {
        assert!(request.uri().host().is_some(), "{location:?}");
    }
}

/// A pause that can be compared and told.
#[cfg(test)]
pub fn fuzzed_retry_after(value: &HeaderValue) {
    if let Some(after) = seconds(value) {
        assert_eq!(after.subsec_nanos(), 0, "{value:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn location_is_joined_in_every_form() {
        let base = "https://a.io/v2/x/blobs/y?z=1";
        for (location, want) in [
            ("http://b/c", "http://b/c"),
            ("//b/c", "https://b/c"),
            ("/c?d", "https://a.io/c?d"),
            ("c", "https://a.io/v2/x/blobs/c"),
        ] {
            assert_eq!(join(base, location), want);
        }
    }

    #[test]
    fn origin_is_another_when_scheme_host_or_port_differ() {
        assert!(same_origin("https://a/x", "https://A:443/y"));
        for other in [
            "http://a/x",
            "https://b/x",
            "https://a:444/x",
            "x",
            "https://a.b/x",
        ] {
            assert!(!same_origin("https://a/x", other), "{other}");
        }
    }

    #[test]
    fn url_without_a_host_is_refused() {
        for url in [
            "ftp://a/x",
            "/x",
            "http://",
            "file:///etc/passwd",
            "http://a b/",
        ] {
            assert!(
                request(&Ask::get(String::new()), url, true).is_err(),
                "{url}"
            );
        }
    }
}
