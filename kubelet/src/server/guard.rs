//! Every request of the authenticated port passes here.

use super::authn::{AuthnError, Credentials, PeerChain};
use super::authz::AuthzError;
use super::routes::State;
use super::{Refusal, places};
use crate::panics;
use axum::extract::{MatchedPath, Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

pub(super) async fn guard(
    Extract(state): Extract<Arc<State>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    match places::of(request.uri().path(), state.config.enable_debugging_handlers) {
        places::Place::Served => {}
        // As Go's multiplexer, before anybody is asked who they are.
        places::Place::Folder => return Ok(places::to_folder(request.uri())),
        places::Place::Nothing => return Err(places::nothing()),
    }
    let credentials = Credentials {
        chain: request.extensions().get::<PeerChain>().cloned(),
        bearer: bearer(&request),
    };
    let user = state.authenticator.authenticate(&credentials).await;
    let user = user.map_err(|e| match e {
        AuthnError::Unauthorized => Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
        AuthnError::Unavailable(why) => {
            tracing::warn!(why, "a token could not be reviewed");
            Refusal(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned())
        }
    })?;
    let path = request.uri().path().to_owned();
    let allowed = state
        .authorizer
        .authorize(&user, request.method(), &path)
        .await;
    allowed.map_err(|e| match &e {
        AuthzError::Forbidden { .. } => Refusal(StatusCode::FORBIDDEN, e.to_string()),
        AuthzError::Unavailable { .. } => {
            tracing::warn!(%e, "a request could not be authorized");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
        }
    })?;
    // Not a word of it to a runtime that a stream is passed on to.
    request.headers_mut().remove(header::AUTHORIZATION);
    state.metrics.request(request.method(), &path);
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(String::new, |route| route.as_str().to_owned());
    let served = state.tracer.serves(&request, &route);
    let answer = panics::spare(served.by(next.run(request))).await;
    answer.map_err(|panic| {
        let why = format!("the answer to {path} panicked: {panic}");
        tracing::error!("{why}");
        Refusal(StatusCode::INTERNAL_SERVER_ERROR, why)
    })
}

fn bearer(request: &Request) -> Option<String> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}
