//! A challenge and credentials to an Authorization header.
//!
//! Facts: distribution docs/spec/auth/token.md and oauth.md.

use super::challenge::Challenge;
use super::exchange::{Ask, ExchangeError, exchange, read};
use super::tls::Client;
use crate::image::Auth;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use std::fmt::Write;

/// Tokens are JWTs with a list of permissions.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;

/// Why a registry's challenge could not be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenError {
    #[error("it asks for credentials and there are none")]
    NoCredentials,
    #[error("it refuses the credentials")]
    Refused,
    #[error("its token service {realm} would get the credentials without encryption")]
    Plain { realm: String },
    #[error("its token service {realm}: {source}")]
    Exchange {
        realm: String,
        #[source]
        source: ExchangeError,
    },
    #[error("its token service {realm} answers {status}")]
    Status { realm: String, status: StatusCode },
    #[error("its token service {realm} gives no token")]
    NoToken { realm: String },
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The header that answers a challenge.
pub async fn authorize(
    client: &Client,
    challenge: &Challenge,
    repository: &str,
    registry_url: &str,
    auth: Option<&Auth>,
) -> Result<HeaderValue, TokenError> {
    if let Some(auth) = auth.filter(|auth| !auth.registry_token.is_empty()) {
        return secret(&format!("Bearer {}", auth.registry_token));
    }
    match challenge {
        Challenge::Basic => match auth.filter(|auth| !auth.username.is_empty()) {
            Some(auth) => basic(auth),
            None => Err(TokenError::NoCredentials),
        },
        Challenge::Bearer {
            realm,
            service,
            scope,
        } => {
            let secure = registry_url.starts_with("https:");
            if auth.is_some() && secure && !realm.starts_with("https:") {
                return Err(TokenError::Plain {
                    realm: realm.clone(),
                });
            }
            let scope = match scope.as_str() {
                "" => format!("repository:{repository}:pull"),
                scope => scope.to_owned(),
            };
            let ask = ask(realm, service, &scope, auth)?;
            fetch(client, realm, &ask).await
        }
    }
}

fn ask(realm: &str, service: &str, scope: &str, auth: Option<&Auth>) -> Result<Ask, TokenError> {
    let mut query = String::new();
    if !service.is_empty() {
        let _ = write!(query, "service={}&", encode(service));
    }
    let scopes: Vec<String> = scope
        .split(' ')
        .map(|scope| format!("scope={}", encode(scope)))
        .collect();
    if let Some(auth) = auth.filter(|auth| !auth.identity_token.is_empty()) {
        let _ = write!(
            query,
            "scope={}&grant_type=refresh_token&client_id=lighter&refresh_token={}",
            encode(scope),
            encode(&auth.identity_token)
        );
        let mut ask = Ask::get(realm.to_owned());
        ask.method = Method::POST;
        ask.body = Bytes::from(query);
        return Ok(ask.header(CONTENT_TYPE, "application/x-www-form-urlencoded"));
    }
    query.push_str(&scopes.join("&"));
    let mark = if realm.contains('?') { '&' } else { '?' };
    let mut ask = Ask::get(format!("{realm}{mark}{query}"));
    if let Some(auth) = auth.filter(|auth| !auth.username.is_empty()) {
        ask.private_headers.insert(AUTHORIZATION, basic(auth)?);
    }
    Ok(ask)
}

async fn fetch(client: &Client, realm: &str, ask: &Ask) -> Result<HeaderValue, TokenError> {
    let exchange_error = |source| TokenError::Exchange {
        realm: realm.to_owned(),
        source,
    };
    let response = exchange(client, ask).await.map_err(exchange_error)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(TokenError::Refused),
        status => {
            return Err(TokenError::Status {
                realm: realm.to_owned(),
                status,
            });
        }
    }
    let body = read(response.into_body(), MAX_TOKEN_ANSWER).await;
    let no_token = || TokenError::NoToken {
        realm: realm.to_owned(),
    };
    let answer: Answer =
        serde_json::from_slice(&body.map_err(exchange_error)?).map_err(|_| no_token())?;
    match (answer.token.as_str(), answer.access_token.as_str()) {
        ("", "") => Err(no_token()),
        ("", token) | (token, _) => secret(&format!("Bearer {token}")),
    }
}

fn basic(auth: &Auth) -> Result<HeaderValue, TokenError> {
    let pair = format!("{}:{}", auth.username, auth.password);
    secret(&format!("Basic {}", STANDARD.encode(pair)))
}

fn secret(text: &str) -> Result<HeaderValue, TokenError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| TokenError::Refused)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_asked_for_with_every_scope_and_the_password_in_a_header() {
        let auth = Auth {
            username: "me".to_owned(),
            password: "pa ss".to_owned(),
            ..Auth::default()
        };
        let ask = ask(
            "https://t/token?a=b",
            "reg io",
            "repository:a/b:pull x",
            Some(&auth),
        );
        let ask = ask.unwrap();
        assert_eq!(
            ask.url,
            "https://t/token?a=b&service=reg%20io&scope=repository%3Aa%2Fb%3Apull&scope=x"
        );
        assert_eq!(ask.private_headers[AUTHORIZATION], "Basic bWU6cGEgc3M=");
        assert!(ask.private_headers[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn identity_token_is_posted_and_never_part_of_a_url() {
        let auth = Auth {
            identity_token: "secret".to_owned(),
            ..Auth::default()
        };
        let ask = ask("https://t/token", "s", "x", Some(&auth)).unwrap();
        assert_eq!(ask.method, Method::POST);
        assert!(!ask.url.contains("secret"));
        assert!(String::from_utf8_lossy(&ask.body).contains("refresh_token=secret"));
    }
}
