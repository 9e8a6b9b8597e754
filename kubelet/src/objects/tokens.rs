//! Tokens that were asked for, until they are due for renewal.
//! Rules: kubernetes v1.36 pkg/kubelet/token/token_manager.go.

use super::watched::{authorized, one_line};
use super::{ObjectError, Token, TokenSpec};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// token_manager.go `maxTTL`.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// token_manager.go: at 80 % of its life.
const RENEW_AT_PERCENT: i32 = 80;

/// After a failed renewal.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

pub struct Tokens {
    client: kube::Client,
    cache: Mutex<HashMap<TokenSpec, Token>>,
}

impl Tokens {
    pub fn new(client: kube::Client) -> Self {
        Self {
            client,
            cache: Mutex::default(),
        }
    }

    /// A token that is good; an older one that is still valid if no new one can
    /// be had.
    pub async fn get(&self, spec: &TokenSpec) -> Result<Token, ObjectError> {
        let now = Timestamp::now();
        let cached = self.cache().get(spec).cloned();
        if let Some(token) = cached.as_ref().filter(|t| now < t.renew_at) {
            return Ok(token.clone());
        }
        match (self.request(spec, now).await, cached) {
            (Ok(token), _) => {
                self.cache().insert(spec.clone(), token.clone());
                Ok(token)
            }
            (Err(error), Some(old)) if now < old.expires => {
                tracing::warn!(%error, "the token stays until it can be renewed");
                Ok(Token {
                    renew_at: (now + RETRY).min(old.expires),
                    ..old
                })
            }
            (Err(error), _) => Err(error),
        }
    }

    pub fn forget(&self, pod_uid: &str) {
        self.cache().retain(|spec, _| spec.pod_uid != pod_uid);
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<TokenSpec, Token>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, spec: &TokenSpec, now: Timestamp) -> Result<Token, ObjectError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &spec.namespace);
        let unavailable = |reason| ObjectError::Unavailable {
            kind: "token of serviceaccount",
            namespace: spec.namespace.clone(),
            name: spec.service_account.clone(),
            reason,
        };
        let post = PostParams::default();
        let wish = wish(spec);
        let request = || accounts.create_token_request(&spec.service_account, &post, &wish);
        let answer = authorized(request).await;
        let answer = answer.map_err(|e| unavailable(one_line(&e)))?;
        let status = answer.status.unwrap_or_default();
        let (Some(token), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err(unavailable("an answer without a token".to_owned()));
        };
        let expires = expires.0;
        Ok(Token {
            token,
            expires,
            renew_at: renew_at(now, expires),
        })
    }
}

fn wish(spec: &TokenSpec) -> TokenRequest {
    TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: spec.audience.clone().map(|a| vec![a]),
            expiration_seconds: Some(spec.expiration_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(spec.pod_name.clone()),
                uid: Some(spec.pod_uid.clone()),
            }),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    }
}

fn renew_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(now);
    let young = (life / 100) * RENEW_AT_PERCENT;
    // Clocks differ: a token that seems old at birth must not be asked for in a loop.
    now + young.min(MAX_AGE).max(RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_four_fifths_of_its_life_or_after_a_day() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let due =
            |hours| renew_at(now, now + SignedDuration::from_hours(hours)).duration_since(now);
        assert_eq!(due(1), SignedDuration::from_mins(48));
        assert_eq!(due(1000), SignedDuration::from_hours(24));
        assert_eq!(due(-1), RETRY, "the server's clock is behind ours");
    }

    #[test]
    fn the_token_is_bound_to_the_pod() {
        let spec = TokenSpec {
            namespace: "ns".into(),
            service_account: "sa".into(),
            pod_name: "web".into(),
            pod_uid: "u".into(),
            audience: None,
            expiration_seconds: 3607,
        };
        let wish = serde_json::to_value(wish(&spec)).unwrap();
        let wanted = serde_json::json!({
            "expirationSeconds": 3607,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u"}
        });
        assert_eq!(wish["spec"], wanted);
    }
}
