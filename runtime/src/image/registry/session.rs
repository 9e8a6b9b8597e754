//! Manifests and blobs of one repository, from the first endpoint that has them.

use super::challenge;
use super::endpoint::Endpoint;
use super::exchange::{Ask, ExchangeError, FromElsewhere, backoff, exchange, next_chunk, read};
use super::manifest::{ACCEPT, Descriptor};
use super::tls::{Client, Clients, TlsError};
use super::token::{TokenError, authorize};
use crate::image::defaults::{MAX_MANIFEST, MAX_TRIES};
use crate::image::digest::Digest;
use crate::image::{Auth, Reference};
use bytes::Bytes;
use http::header::{ACCEPT as ACCEPT_HEADER, AUTHORIZATION, HeaderName, HeaderValue, RANGE};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// A registry's explanation of an error is a line or two.
const MAX_ERROR_BODY: u64 = 16 << 10;

/// The endpoints of one pull, with what they have granted so far.
pub struct Session {
    /// The registry in the image's name.
    host: String,
    places: Vec<Place>,
}

struct Place {
    endpoint: Endpoint,
    client: Result<Client, String>,
    auth: Option<Auth>,
    granted: Mutex<Option<HeaderValue>>,
}

/// A manifest as it came.
pub struct Fetched {
    pub bytes: Bytes,
    pub media_type: String,
    pub digest: Digest,
}

/// A blob that is being downloaded.
pub struct Blob<'a> {
    pub session: &'a Session,
    pub descriptor: &'a Descriptor,
    /// Endpoints before this one are not asked.
    pub from: usize,
}

/// What one endpoint said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub endpoint: String,
    pub answer: AttemptError,
}

/// Why one endpoint did not serve.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum AttemptError {
    #[error("{0}")]
    Tls(String),
    #[error(transparent)]
    Exchange(ExchangeError),
    #[error(transparent)]
    Token(TokenError),
    #[error("{status}{detail}")]
    Status { status: StatusCode, detail: String },
    #[error("it sent {got} where {want} was asked for")]
    Digest { want: String, got: String },
    #[error("it sent {got} bytes where {want} were announced")]
    Size { want: u64, got: u64 },
}

/// No endpoint served. The text names every one with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchError {
    pub attempts: Vec<Attempt>,
}

impl std::error::Error for FetchError {}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.attempts.is_empty() {
            return f.write_str("no endpoint is configured that may serve it");
        }
        for (i, attempt) in self.attempts.iter().enumerate() {
            let joint = if i == 0 { "" } else { "; " };
            write!(f, "{joint}{}: {}", attempt.endpoint, attempt.answer)?;
        }
        Ok(())
    }
}

impl Session {
    pub fn new(
        clients: &Clients,
        reference: &Reference,
        endpoints: Vec<Endpoint>,
        auth: Option<&Auth>,
    ) -> Self {
        let place = |endpoint: Endpoint| Place {
            client: clients.get(&endpoint.tls).map_err(|e| tls_text(&e)),
            auth: endpoint.auth.clone().or_else(|| auth.cloned()),
            endpoint,
            granted: Mutex::default(),
        };
        Self {
            host: reference.host().to_owned(),
            places: endpoints.into_iter().map(place).collect(),
        }
    }

    /// Whether an endpoint after this one may have blobs.
    pub fn has_more(&self, at: usize) -> bool {
        self.places.iter().skip(at + 1).any(|p| p.endpoint.pull)
    }

    /// A manifest by tag: what it is depends on the endpoint.
    pub async fn manifest_by_tag(&self, tag: &str) -> Result<Fetched, FetchError> {
        let mut attempts = Vec::new();
        for place in self.places.iter().filter(|p| p.endpoint.resolve) {
            match self.manifest(place, tag, false).await {
                Ok(fetched) => return Ok(fetched),
                Err(answer) => attempts.push(place.attempt(answer)),
            }
        }
        Err(FetchError { attempts })
    }

    /// A manifest by digest, checked.
    pub async fn manifest_by_digest(&self, digest: &Digest) -> Result<Fetched, FetchError> {
        let mut attempts = Vec::new();
        for place in self.places.iter().filter(|p| p.endpoint.pull) {
            let fetched = self.manifest(place, digest.as_str(), true).await;
            let checked = fetched.and_then(|fetched| {
                let mut hasher = digest.hasher();
                hasher.update(&fetched.bytes);
                let got = hasher.finish();
                if got != *digest {
                    return Err(AttemptError::Digest {
                        want: digest.to_string(),
                        got: got.to_string(),
                    });
                }
                Ok(Fetched {
                    digest: got,
                    ..fetched
                })
            });
            match checked {
                Ok(fetched) => return Ok(fetched),
                Err(answer) => attempts.push(place.attempt(answer)),
            }
        }
        Err(FetchError { attempts })
    }

    async fn manifest(
        &self,
        place: &Place,
        version: &str,
        pinned: bool,
    ) -> Result<Fetched, AttemptError> {
        let mut ask = Ask::get(self.url(place, "manifests", version));
        ask.pinned = pinned;
        let response = place.ask(ask.header(ACCEPT_HEADER, ACCEPT)).await?;
        let text = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let media_type = text("content-type").unwrap_or_default();
        let claimed = text("docker-content-digest").and_then(|d| Digest::parse(&d).ok());
        let bytes = read(response.into_body(), MAX_MANIFEST).await;
        let bytes = bytes.map_err(AttemptError::Exchange)?;
        let digest = Digest::sha256(&bytes);
        // A header of another algorithm says nothing about this sum.
        let same_kind = |d: &Digest| d.as_str().starts_with("sha256:");
        if let Some(want) = claimed.filter(same_kind).filter(|d| *d != digest) {
            return Err(AttemptError::Digest {
                want: want.to_string(),
                got: digest.to_string(),
            });
        }
        Ok(Fetched {
            bytes,
            media_type,
            digest,
        })
    }

    fn url(&self, place: &Place, kind: &str, what: &str) -> String {
        let Endpoint {
            base, repository, ..
        } = &place.endpoint;
        let mut url = format!("{base}/{repository}/{kind}/{what}");
        if !place.endpoint.origin {
            // containerd's way of telling a mirror of several registries which is meant.
            let _ = write!(url, "?ns={}", self.host);
        }
        url
    }
}

/// How a download ended that did not give the blob.
pub enum BlobError {
    /// No endpoint served.
    Fetch(FetchError),
    /// An endpoint sent something else, part of which has been passed on:
    /// begin anew with the endpoints after it.
    Lie { at: usize, attempt: Attempt },
    /// Who takes the bytes wants no more.
    Unwanted,
}

impl Blob<'_> {
    /// Passes the blob's bytes on in order, each once, resuming where a
    /// connection breaks. At `Ok` size and digest have been verified.
    pub async fn download<F>(&self, mut take: impl FnMut(Bytes) -> F) -> Result<(), BlobError>
    where
        F: Future<Output = bool>,
    {
        let mut hasher = self.descriptor.digest.hasher();
        let mut done = 0;
        let mut attempts = Vec::new();
        for (at, place) in self.session.places.iter().enumerate().skip(self.from) {
            if !place.endpoint.pull {
                continue;
            }
            let mut idle_tries = 0;
            while idle_tries < MAX_TRIES {
                let before = done;
                let sum = (&mut hasher, &mut done);
                let answer = match self.stream(place, sum, &mut take).await {
                    Ok(true) => return self.verify(at, place, hasher),
                    Ok(false) => return Err(BlobError::Unwanted),
                    Err(answer) => answer,
                };
                if let AttemptError::Size { .. } = answer {
                    let attempt = place.attempt(answer);
                    return Err(BlobError::Lie { at, attempt });
                }
                let broken = matches!(answer, AttemptError::Exchange(ref e) if is_broken(e));
                idle_tries = if done > before { 1 } else { idle_tries + 1 };
                if !broken || idle_tries == MAX_TRIES {
                    attempts.push(place.attempt(answer));
                    break;
                }
                tokio::time::sleep(backoff(idle_tries)).await;
            }
        }
        Err(BlobError::Fetch(FetchError { attempts }))
    }

    fn verify(
        &self,
        at: usize,
        place: &Place,
        hasher: crate::image::digest::Hasher,
    ) -> Result<(), BlobError> {
        let got = hasher.finish();
        if got == self.descriptor.digest {
            return Ok(());
        }
        let attempt = place.attempt(AttemptError::Digest {
            want: self.descriptor.digest.to_string(),
            got: got.to_string(),
        });
        Err(BlobError::Lie { at, attempt })
    }

    /// One connection's worth. `Ok(false)` when nobody wants more.
    async fn stream<F>(
        &self,
        place: &Place,
        (hasher, done): (&mut crate::image::digest::Hasher, &mut u64),
        take: &mut impl FnMut(Bytes) -> F,
    ) -> Result<bool, AttemptError>
    where
        F: Future<Output = bool>,
    {
        let Descriptor { digest, size, .. } = self.descriptor;
        if *done == *size && *size > 0 {
            return Ok(true);
        }
        let mut ask = Ask::get(self.session.url(place, "blobs", digest.as_str()));
        ask.pinned = true;
        if *done > 0 {
            ask = ask.header(RANGE, &format!("bytes={done}-{}", size - 1));
        }
        let response = place.ask(ask).await?;
        // A server may ignore the range and begin anew.
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let mut skip = if partial { 0 } else { *done };
        let length = hyper::body::Body::size_hint(response.body()).exact();
        let expected = if partial { size - *done } else { *size };
        if let Some(got) = length.filter(|length| *length != expected) {
            return Err(AttemptError::Size {
                want: expected,
                got,
            });
        }
        let mut body = response.into_body();
        while let Some(mut chunk) = next_chunk(&mut body)
            .await
            .map_err(AttemptError::Exchange)?
        {
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            let _ = chunk.split_to(usize::try_from(skipped).unwrap_or(chunk.len()));
            let total = *done + chunk.len() as u64;
            if total > *size {
                return Err(AttemptError::Size {
                    want: *size,
                    got: total,
                });
            }
            hasher.update(&chunk);
            *done = total;
            if !chunk.is_empty() && !take(chunk).await {
                return Ok(false);
            }
        }
        if *done < *size {
            return Err(AttemptError::Exchange(cut(*done, *size)));
        }
        Ok(true)
    }
}

/// Whether trying again may help.
fn is_broken(error: &ExchangeError) -> bool {
    matches!(
        error,
        ExchangeError::Transport {
            connected: true,
            ..
        } | ExchangeError::Timeout(_)
    )
}

fn cut(done: u64, size: u64) -> ExchangeError {
    ExchangeError::Transport {
        reason: format!("the connection ended after {done} of {size} bytes"),
        connected: true,
    }
}

impl Place {
    /// Asks, answers a challenge once, and takes 200 and 206 for success.
    async fn ask(&self, mut ask: Ask) -> Result<Response<Incoming>, AttemptError> {
        let client = match &self.client {
            Ok(client) => client,
            Err(reason) => return Err(AttemptError::Tls(reason.clone())),
        };
        for (name, value) in &self.endpoint.headers {
            let header = (name.parse::<HeaderName>(), HeaderValue::from_str(value));
            if let (Ok(name), Ok(value)) = header {
                ask.private_headers.append(name, value);
            }
        }
        let known = self.granted();
        if let Some(header) = &known {
            ask.private_headers.insert(AUTHORIZATION, header.clone());
        }
        let mut response = exchange(client, &ask)
            .await
            .map_err(AttemptError::Exchange)?;
        let elsewhere = response.extensions().get::<FromElsewhere>().is_some();
        if response.status() == StatusCode::UNAUTHORIZED && !elsewhere {
            let header = self.grant(client, &response, known).await?;
            ask.private_headers.insert(AUTHORIZATION, header);
            response = exchange(client, &ask)
                .await
                .map_err(AttemptError::Exchange)?;
            if response.status() == StatusCode::UNAUTHORIZED {
                return Err(AttemptError::Token(match self.auth {
                    Some(_) => TokenError::Refused,
                    None => TokenError::NoCredentials,
                }));
            }
        }
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
            status => Err(AttemptError::Status {
                status,
                detail: detail(response).await,
            }),
        }
    }

    /// The answer to a challenge; kept for further requests. When `refused`
    /// is an older one, another request may have renewed it meanwhile.
    async fn grant(
        &self,
        client: &Client,
        response: &Response<Incoming>,
        refused: Option<HeaderValue>,
    ) -> Result<HeaderValue, AttemptError> {
        if let Some(header) = self
            .granted()
            .filter(|header| Some(header) != refused.as_ref())
        {
            return Ok(header);
        }
        let headers = response.headers().get_all(http::header::WWW_AUTHENTICATE);
        let headers = headers.iter().filter_map(|value| value.to_str().ok());
        let challenge = challenge::choose(headers).ok_or(AttemptError::Status {
            status: response.status(),
            detail: ", in a way that is not known here".to_owned(),
        })?;
        let Endpoint {
            base, repository, ..
        } = &self.endpoint;
        let header = authorize(client, &challenge, repository, base, self.auth.as_ref())
            .await
            .map_err(AttemptError::Token)?;
        *self.granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(header.clone());
        Ok(header)
    }

    fn granted(&self) -> Option<HeaderValue> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.clone()
    }

    fn attempt(&self, answer: AttemptError) -> Attempt {
        Attempt {
            endpoint: self.endpoint.base.clone(),
            answer,
        }
    }
}

/// The registry's own words, in one line.
async fn detail(response: Response<Incoming>) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(body) = read(response.into_body(), MAX_ERROR_BODY).await else {
        return String::new();
    };
    let Ok(errors) = serde_json::from_slice::<Errors>(&body) else {
        return String::new();
    };
    let one = |e: &One| {
        if e.message.is_empty() {
            &e.code
        } else {
            &e.message
        }
        .clone()
    };
    let text: Vec<String> = errors.errors.iter().map(one).collect();
    // Untrusted text stays on one line, and short.
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.join(", ").chars().map(clean).take(300).collect();
    if text.is_empty() {
        return text;
    }
    format!(" ({text})")
}

fn tls_text(error: &TlsError) -> String {
    match error {
        TlsError::Settings(source) => format!("{error}: {source}"),
        TlsError::File { .. } => error.to_string(),
    }
}
