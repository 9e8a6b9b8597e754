//! The Lease: "this node is alive", every ten seconds.

use crate::join::report::reason;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::api::{Api, ObjectMeta, PostParams};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// kubernetes v1.37 pkg/kubelet/kubelet.go: `NamespaceNodeLease`.
const NAMESPACE: &str = "kube-node-lease";
/// kubernetes v1.37 pkg/kubelet `nodeLeaseRenewIntervalFraction`.
const RENEW_FRACTION: u32 = 4;
/// kubernetes v1.37 staging/src/k8s.io/component-helpers/apimachinery/lease
/// `maxBackoff`.
const MAX_BACKOFF: Duration = Duration::from_secs(7);

/// Renews until `shutdown`. The Node's UID, once known, becomes the owner.
pub async fn keep(
    client: kube::Client,
    name: String,
    duration: Duration,
    node_uid: watch::Receiver<Option<String>>,
    shutdown: CancellationToken,
) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let every = duration / RENEW_FRACTION;
    let mut held: Option<Lease> = None;
    let mut failures = 0_u32;
    loop {
        let uid = node_uid.borrow().clone();
        // A server that hangs must not cost more than one renewal.
        let renewed =
            tokio::time::timeout(every, renew(&api, &name, duration, held.take(), uid)).await;
        let wait = match renewed {
            Ok(Ok(lease)) => {
                if failures > 0 {
                    tracing::info!(failures, "lease renewed again");
                }
                held = Some(lease);
                failures = 0;
                every
            }
            other => {
                let why = match other {
                    Ok(Err(e)) => reason(&e),
                    _ => format!("no answer within {}s", every.as_secs()),
                };
                failures += 1;
                if failures == 1 || failures.is_multiple_of(10) {
                    tracing::warn!(failures, why, "lease not renewed; trying on");
                }
                (Duration::from_millis(200) * failures.min(64)).min(MAX_BACKOFF)
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn renew(
    api: &Api<Lease>,
    name: &str,
    duration: Duration,
    held: Option<Lease>,
    node_uid: Option<String>,
) -> Result<Lease, kube::Error> {
    let current = match held {
        Some(lease) => Some(lease),
        None => api.get_opt(name).await?,
    };
    let exists = current.is_some();
    let lease = renewed(current.unwrap_or_default(), name, duration, node_uid);
    match exists {
        true => api.replace(name, &PostParams::default(), &lease).await,
        false => api.create(&PostParams::default(), &lease).await,
    }
}

fn renewed(mut lease: Lease, name: &str, duration: Duration, node_uid: Option<String>) -> Lease {
    let metadata: &mut ObjectMeta = &mut lease.metadata;
    metadata.name = Some(name.to_owned());
    metadata.namespace = Some(NAMESPACE.to_owned());
    if let Some(uid) = node_uid {
        metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.to_owned(),
            uid,
            ..OwnerReference::default()
        }]);
    }
    let spec: &mut LeaseSpec = lease.spec.get_or_insert_default();
    spec.holder_identity = Some(name.to_owned());
    spec.lease_duration_seconds = i32::try_from(duration.as_secs()).ok();
    spec.renew_time = Some(MicroTime(jiff::Timestamp::now()));
    lease
}
