//! Keeps mounted volumes up to date: on every change of an object, when a token
//! is due, and slowly over all as a safety net.

use super::volumes::{Mounted, Volumes};
use crate::objects::ObjectRef;
use futures::StreamExt as _;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// kubernetes v1.36 KubeletConfiguration `syncFrequency`.
const RESYNC: Duration = Duration::from_secs(60);
/// A token that could not be renewed is asked for again.
const TOKEN_RETRY: Duration = Duration::from_secs(10);
/// Pods refreshed at the same time.
const PARALLEL: usize = 8;

/// Why pods are looked at.
enum Cause {
    Changed(ObjectRef),
    TokenDue,
    Everything,
}

/// Runs until the volumes are dropped.
pub(super) async fn run(
    volumes: Weak<Volumes>,
    mut changes: Receiver<ObjectRef>,
    sooner: Arc<Notify>,
) {
    let mut resync = tokio::time::interval(RESYNC);
    resync.tick().await;
    loop {
        let Some(next_token) = volumes.upgrade().map(|v| v.next_renewal()) else {
            return;
        };
        let cause = tokio::select! {
            change = changes.recv() => match change {
                Ok(object) => Cause::Changed(object),
                Err(RecvError::Lagged(_)) => Cause::Everything,
                Err(RecvError::Closed) => return,
            },
            () = sooner.notified() => continue,
            () = until(next_token) => Cause::TokenDue,
            _ = resync.tick() => Cause::Everything,
        };
        let Some(volumes) = volumes.upgrade() else {
            return;
        };
        refresh(&volumes, &cause).await;
    }
}

/// Has drivers see to their volumes, until the volumes are dropped. Apart from the rest: a driver
/// that hangs holds up nobody's ConfigMaps.
pub(super) async fn keep(volumes: Weak<Volumes>) {
    loop {
        tokio::time::sleep(RESYNC).await;
        let Some(volumes) = volumes.upgrade() else {
            return;
        };
        for mounted in volumes.mounted_where(|pod| pod.complete && !pod.found.is_empty()) {
            volumes.keep(&mounted).await;
        }
    }
}

async fn until(due: Option<jiff::Timestamp>) {
    let Some(due) = due else {
        return std::future::pending().await;
    };
    let left = due.duration_since(jiff::Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
}

async fn refresh(volumes: &Arc<Volumes>, cause: &Cause) {
    let now = jiff::Timestamp::now();
    let wanted = volumes.mounted_where(|pod| match cause {
        Cause::Changed(object) => pod.refs.contains(object),
        Cause::TokenDue => pod.renew_at.is_some_and(|due| due <= now),
        // Not one that leaves: it may take long.
        Cause::Everything => pod.pod.metadata.uid.is_some(),
    });
    futures::stream::iter(wanted)
        .for_each_concurrent(PARALLEL, |mounted| one(volumes, mounted, cause))
        .await;
}

async fn one(volumes: &Volumes, mounted: Arc<Mounted>, cause: &Cause) {
    if let Err(error) = volumes.refresh(&mounted).await {
        volumes.complain(&mounted, &error);
        if matches!(cause, Cause::TokenDue) {
            mounted.retry_at(jiff::Timestamp::now() + TOKEN_RETRY);
        }
    }
}
