//! May they: SubjectAccessReview, with answers kept for a while.

use super::authn::User;
use crate::config::AuthorizationMode;
use crate::join::report::reason;
use axum::http::Method;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, ObjectMeta, PostParams};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why not.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AuthzError {
    #[error("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{}])", subresources.join(","))]
    Forbidden {
        user: String,
        verb: &'static str,
        subresources: Vec<&'static str>,
    },
    #[error("Authorization error (user={user}): SubjectAccessReview: {why}")]
    Unavailable { user: String, why: String },
}

/// Settings of authorization.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct AuthzOptions {
    pub node_name: String,
    pub mode: AuthorizationMode,
    pub allowed_ttl: Duration,
    pub denied_ttl: Duration,
}

/// Tells who may what.
pub struct Authorizer {
    options: AuthzOptions,
    client: Option<kube::Client>,
    reviewed: Mutex<HashMap<Question, (Instant, bool)>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    user: User,
    verb: &'static str,
    subresource: &'static str,
}

impl Authorizer {
    /// Without a client everything that has to be asked is refused.
    pub fn new(options: AuthzOptions, client: Option<kube::Client>) -> Authorizer {
        Authorizer {
            options,
            client,
            reviewed: Mutex::default(),
        }
    }

    /// Allowed if any of the path's subresources is.
    ///
    /// # Errors
    /// [`AuthzError::Forbidden`], or when the API server can't be asked.
    pub async fn authorize(
        &self,
        user: &User,
        method: &Method,
        path: &str,
    ) -> Result<(), AuthzError> {
        if self.options.mode == AuthorizationMode::AlwaysAllow {
            return Ok(());
        }
        let (verb, subresources) = (verb(method), subresources(path));
        for subresource in subresources {
            let question = Question {
                user: user.clone(),
                verb,
                subresource,
            };
            if self.ask(question).await? {
                return Ok(());
            }
        }
        Err(AuthzError::Forbidden {
            user: user.name.clone(),
            verb,
            subresources: subresources.to_vec(),
        })
    }

    async fn ask(&self, question: Question) -> Result<bool, AuthzError> {
        if let Some(allowed) = self.cached(&question) {
            return Ok(allowed);
        }
        let unavailable = |why| AuthzError::Unavailable {
            user: question.user.name.clone(),
            why,
        };
        let client = self.client.clone();
        let client = client.ok_or_else(|| unavailable("no API server is configured".to_owned()))?;
        let api: Api<SubjectAccessReview> = Api::all(client);
        let answer = api
            .create(&PostParams::default(), &self.review(&question))
            .await;
        let status = answer.map_err(|e| unavailable(reason(&e)))?.status;
        let allowed = status.is_some_and(|s| s.allowed);
        let mut reviewed = self.reviewed.lock().unwrap_or_else(PoisonError::into_inner);
        reviewed.insert(question, (Instant::now(), allowed));
        Ok(allowed)
    }

    fn review(&self, question: &Question) -> SubjectAccessReview {
        let user = question.user.clone();
        SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: Some(user.name),
                uid: Some(user.uid).filter(|u| !u.is_empty()),
                groups: Some(user.groups),
                extra: Some(user.extra).filter(|e| !e.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(question.verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(question.subresource.to_owned()),
                    name: Some(self.options.node_name.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            status: None,
        }
    }

    fn cached(&self, question: &Question) -> Option<bool> {
        let mut reviewed = self.reviewed.lock().unwrap_or_else(PoisonError::into_inner);
        reviewed.retain(|_, (at, allowed)| {
            let ttl = match allowed {
                true => self.options.allowed_ttl,
                false => self.options.denied_ttl,
            };
            at.elapsed() < ttl
        });
        reviewed.get(question).map(|(_, allowed)| *allowed)
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// kubernetes v1.37 pkg/kubelet/server/auth.go `GetRequestAttributes`.
fn subresources(path: &str) -> &'static [&'static str] {
    let is = |root: &str| {
        path.strip_prefix(root)
            .is_some_and(|r| r.is_empty() || r.starts_with('/'))
    };
    match () {
        () if is("/stats") => &["stats"],
        () if is("/metrics") => &["metrics"],
        () if is("/logs") => &["log"],
        () if is("/checkpoint") => &["checkpoint"],
        () if is("/statusz") => &["statusz"],
        () if is("/flagz") => &["configz"],
        () if is("/pods") || is("/runningpods") => &["pods", "proxy"],
        () if is("/healthz") => &["healthz", "proxy"],
        () if is("/configz") => &["configz", "proxy"],
        () => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_leads_to_its_subresources() {
        for (path, want) in [
            ("/stats/summary", &["stats"][..]),
            ("/metrics", &["metrics"]),
            ("/metrics/resource", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/logs/", &["log"]),
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/syncloop", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/exec/ns/pod/c", &["proxy"]),
            ("/containerLogs/ns/pod/c", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources(path), want, "{path}");
        }
    }

    #[test]
    fn method_leads_to_its_verb() {
        assert_eq!(verb(&Method::POST), "create");
        assert_eq!(verb(&Method::GET), "get");
        assert_eq!(verb(&Method::HEAD), "get");
        assert_eq!(verb(&Method::DELETE), "delete");
    }

    #[test]
    fn refusal_says_who_and_what() {
        let e = AuthzError::Forbidden {
            user: "u".into(),
            verb: "get",
            subresources: vec!["pods", "proxy"],
        };
        assert_eq!(
            e.to_string(),
            "Forbidden (user=u, verb=get, resource=nodes, subresource(s)=[pods,proxy])"
        );
    }

    #[tokio::test]
    async fn webhook_mode_without_an_api_server_refuses() {
        let options = AuthzOptions {
            node_name: "n1".into(),
            mode: AuthorizationMode::Webhook,
            allowed_ttl: Duration::ZERO,
            denied_ttl: Duration::ZERO,
        };
        let authorizer = Authorizer::new(options, None);
        let answer = authorizer
            .authorize(&User::default(), &Method::GET, "/pods")
            .await;
        assert!(matches!(answer, Err(AuthzError::Unavailable { .. })));
    }
}
