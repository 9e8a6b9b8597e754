//! Certificates of pods: a key made here, a chain from a signer of the cluster
//! (PodCertificateRequest).
//! Rules: kubernetes v1.37 pkg/kubelet/podcertificate/podcertificatemanager.go.

use super::pod_key::PodKey;
use super::watched::{Quick, authorized, one_line};
use super::{CertificateSpec, Credentials, ObjectError};
use crate::api::from_cache;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watcher;
use kube::{Api, ResourceExt as _};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long one call waits for the signer; the next call goes on waiting.
const PATIENCE: Duration = Duration::from_secs(15);
/// podcertificatemanager.go `assumeDeletedThreshold`: then another request is made.
const GIVEN_UP_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// podcertificatemanager.go `jitterDuration`, in seconds.
const SPREAD: i32 = 300;
/// After a failed renewal.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

pub struct Certificates {
    watches: kube::Client,
    writes: kube::Client,
    node_name: String,
    held: Mutex<HashMap<CertificateSpec, Arc<tokio::sync::Mutex<Held>>>>,
}

/// What is known for one projection. A key never leaves memory and the pod's volume.
#[derive(Default)]
struct Held {
    good: Option<Credentials>,
    asked: Option<Asked>,
    /// The signer's last word: a pod whose request was refused stays without.
    refused: Option<String>,
}

#[derive(Clone)]
struct Asked {
    name: String,
    key_pem: String,
    at: Timestamp,
}

/// What became of a request.
enum Verdict {
    Issued(Box<Credentials>),
    Refused(String),
}

impl Certificates {
    pub fn new(watches: kube::Client, writes: kube::Client, node_name: &str) -> Self {
        Self {
            watches,
            writes,
            node_name: node_name.to_owned(),
            held: Mutex::default(),
        }
    }

    /// Credentials that are good; older ones that are still valid if no new ones can be had.
    pub async fn get(&self, spec: &CertificateSpec) -> Result<Credentials, ObjectError> {
        let entry = self.held().entry(spec.clone()).or_default().clone();
        let mut held = entry.lock().await;
        let now = Timestamp::now();
        if let Some(good) = held.good.as_ref().filter(|c| now < c.renew_at) {
            return Ok(good.clone());
        }
        match self.issue(spec, &mut held).await {
            Ok(new) => {
                held.good = Some(new.clone());
                Ok(new)
            }
            Err(reason) => match held.good.clone() {
                Some(old) if now < old.not_after => {
                    tracing::warn!(
                        reason,
                        "the pod's certificate stays until it can be renewed"
                    );
                    Ok(Credentials {
                        renew_at: (now + RETRY).min(old.not_after),
                        ..old
                    })
                }
                _ => Err(unavailable(spec, reason)),
            },
        }
    }

    pub fn forget(&self, pod_uid: &str) {
        self.held().retain(|spec, _| spec.pod_uid != pod_uid);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<CertificateSpec, Arc<tokio::sync::Mutex<Held>>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn issue(&self, spec: &CertificateSpec, held: &mut Held) -> Result<Credentials, String> {
        if let Some(refused) = &held.refused {
            return Err(refused.clone());
        }
        let forgotten = |asked: &Asked| Timestamp::now() > asked.at + GIVEN_UP_AFTER;
        let asked = match held.asked.take().filter(|a| !forgotten(a)) {
            Some(asked) => asked,
            None => self.ask(spec).await?,
        };
        held.asked = Some(asked.clone());
        let verdict = tokio::time::timeout(PATIENCE, self.verdict(spec, &asked)).await;
        match verdict {
            Err(_) => Err(format!("request {} is not signed yet", asked.name)),
            Ok(None) => Err("the API server does not answer".to_owned()),
            Ok(Some(Verdict::Issued(credentials))) => {
                held.asked = None;
                Ok(*credentials)
            }
            Ok(Some(Verdict::Refused(why))) => {
                held.refused = Some(why.clone());
                Err(why)
            }
        }
    }

    async fn ask(&self, spec: &CertificateSpec) -> Result<Asked, String> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.writes.clone(), &spec.namespace);
        let nodes: Api<Node> = Api::all(self.writes.clone());
        let (account, node) = tokio::try_join!(
            authorized(|| accounts.get(&spec.service_account)),
            nodes.get(&self.node_name)
        )
        .map_err(|e| one_line(&e))?;
        let kind = spec.key_type.clone();
        let key = tokio::task::spawn_blocking(move || PodKey::make(&kind)).await;
        let key = key.map_err(|e| e.to_string())??;
        let uids = Uids {
            account: account.uid().unwrap_or_default(),
            node: node.uid().unwrap_or_default(),
        };
        let wish = wish(spec, &self.node_name, &uids, key.proof);
        let requests: Api<PodCertificateRequest> =
            Api::namespaced(self.writes.clone(), &spec.namespace);
        let made = requests.create(&PostParams::default(), &wish).await;
        Ok(Asked {
            name: made.map_err(|e| one_line(&e))?.name_any(),
            key_pem: key.pem,
            at: Timestamp::now(),
        })
    }

    async fn verdict(&self, spec: &CertificateSpec, asked: &Asked) -> Option<Verdict> {
        let api: Api<PodCertificateRequest> =
            Api::namespaced(self.watches.clone(), &spec.namespace);
        // The authorizer wants to see the node in the selector.
        let only = format!(
            "metadata.name={},spec.nodeName={}",
            asked.name, self.node_name
        );
        let config = from_cache().fields(&only);
        let objects = watcher(api, config)
            .backoff(Quick::default())
            .applied_objects();
        let verdicts = objects.filter_map(|object| async {
            let status = object.ok()?.status?;
            verdict(&status, &asked.key_pem)
        });
        std::pin::pin!(verdicts).next().await
    }
}

struct Uids {
    account: String,
    node: String,
}

fn wish(
    spec: &CertificateSpec,
    node_name: &str,
    uids: &Uids,
    stub_pkc_s10_request: ByteString,
) -> PodCertificateRequest {
    PodCertificateRequest {
        metadata: ObjectMeta {
            namespace: Some(spec.namespace.clone()),
            generate_name: Some("req-".to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: spec.pod_name.clone(),
                uid: spec.pod_uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: PodCertificateRequestSpec {
            max_expiration_seconds: spec.max_expiration_seconds,
            node_name: node_name.to_owned(),
            node_uid: uids.node.clone(),
            pod_name: spec.pod_name.clone(),
            pod_uid: spec.pod_uid.clone(),
            service_account_name: spec.service_account.clone(),
            service_account_uid: uids.account.clone(),
            signer_name: spec.signer_name.clone(),
            stub_pkc_s10_request,
            unverified_user_annotations: Some(spec.annotations.clone()).filter(|a| !a.is_empty()),
        },
        status: None,
    }
}

/// None while the signer has said nothing.
fn verdict(status: &PodCertificateRequestStatus, key_pem: &str) -> Option<Verdict> {
    let said = status.conditions.iter().flatten();
    let mut words = said.filter(|c| matches!(c.type_.as_str(), "Issued" | "Denied" | "Failed"));
    let word = words.next()?;
    if word.type_ != "Issued" {
        let (reason, message) = (&word.reason, &word.message);
        let what = word.type_.to_lowercase();
        return Some(Verdict::Refused(format!("{what}: {reason}: {message}")));
    }
    let time = |t: &Option<_>| {
        t.as_ref()
            .map(|t: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Time| t.0)
    };
    let not_after = time(&status.not_after)?;
    let begin = time(&status.begin_refresh_at).unwrap_or(not_after);
    let spread = Timestamp::now().subsec_nanosecond().rem_euclid(SPREAD);
    Some(Verdict::Issued(Box::new(Credentials {
        key_pem: key_pem.to_owned(),
        chain_pem: status.certificate_chain.clone().unwrap_or_default(),
        renew_at: begin + SignedDuration::from_secs(spread.into()),
        not_after,
    })))
}

fn unavailable(spec: &CertificateSpec, reason: String) -> ObjectError {
    ObjectError::Unavailable {
        kind: "certificate of pod",
        namespace: spec.namespace.clone(),
        name: spec.pod_name.clone(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(conditions: serde_json::Value) -> Option<Verdict> {
        let status = json!({
            "conditions": conditions, "certificateChain": "chain",
            "notBefore": "2030-01-01T00:00:00Z", "notAfter": "2030-01-02T00:00:00Z",
            "beginRefreshAt": "2030-01-01T12:00:00Z",
        });
        verdict(&serde_json::from_value(status).unwrap(), "key")
    }

    fn condition(kind: &str) -> serde_json::Value {
        json!([{"type": kind, "status": "True", "reason": "r", "message": "m",
                "lastTransitionTime": "2030-01-01T00:00:00Z"}])
    }

    #[test]
    fn a_request_is_pending_until_its_signer_says_a_last_word() {
        assert!(of(json!([])).is_none());
        let Some(Verdict::Issued(issued)) = of(condition("Issued")) else {
            panic!("not issued");
        };
        assert_eq!(
            (issued.key_pem.as_str(), issued.chain_pem.as_str()),
            ("key", "chain")
        );
        let begin: Timestamp = "2030-01-01T12:00:00Z".parse().unwrap();
        let late = issued.renew_at.duration_since(begin).as_secs();
        assert!((0..i64::from(SPREAD)).contains(&late), "{late}");
        let Some(Verdict::Refused(why)) = of(condition("Denied")) else {
            panic!("not refused");
        };
        assert_eq!(why, "denied: r: m");
    }
}
