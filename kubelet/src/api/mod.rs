//! Clients of the API server: one for writes, another for watches.
//!
//! Both are plain [`kube::Client`]s that stay valid for the life of the
//! process: when the client certificate is rotated, or a connection has as many
//! streams as the server allows, the connections underneath are replaced, not
//! the clients.

mod connections;
mod endpoint;
mod follow;
mod identity;
mod probe;
pub(crate) mod recorder;

pub use connections::Connections;
pub use endpoint::{Endpoint, EndpointError, TokenSource, Trust};
pub use follow::from_etcd;
pub use identity::{Identity, IdentityError, certified_key};
pub use probe::{Probe, Standing, now, probe, validity_of_file};
pub use recorder::EventRecorder;

use crate::metrics;
use crate::trace::Tracer;
use kube::runtime::watcher::{self, Event};
use std::path::Path;
use std::sync::Arc;

/// A watch that begins with what the API server's cache holds, in one request.
///
/// Asked for the latest, the server waits until its cache has caught up with
/// etcd: up to 100 ms while others write.
#[must_use]
pub fn from_cache() -> watcher::Config {
    watcher::Config::default().streaming_lists()
}

/// What an event says of the only object of a watch: how it is now, if that is known.
/// `listed` is what the watch began with so far.
pub fn of_one<K>(event: Event<K>, listed: &mut Option<K>) -> Option<Option<K>> {
    match event {
        Event::Init => *listed = None,
        Event::InitApply(object) => *listed = Some(object),
        Event::InitDone => return Some(listed.take()),
        Event::Apply(object) => return Some(Some(object)),
        Event::Delete(_) => return Some(None),
    }
    None
}

/// The clients of one API server.
///
/// Leases and statuses never share a connection with watches, so that a
/// hundred open watches can't hold up a heartbeat.
#[derive(Clone)]
pub struct Clients {
    endpoint: Arc<Endpoint>,
    writes: kube::Client,
    watches: kube::Client,
    connections: [Arc<Connections>; 2],
    requests: metrics::Requests,
}

impl Clients {
    /// From a kubeconfig's current context.
    ///
    /// # Errors
    /// When the file can't be read or names no usable server or credentials.
    pub fn from_kubeconfig(path: &Path) -> Result<Clients, EndpointError> {
        Clients::new(Endpoint::from_kubeconfig(path)?)
    }

    /// For an endpoint. Connects lazily: nothing is sent yet.
    ///
    /// # Errors
    /// When its CA bundle can't be used.
    pub fn new(endpoint: Endpoint) -> Result<Clients, EndpointError> {
        Clients::traced(endpoint, &Tracer::default())
    }

    /// The same, with requests told of.
    ///
    /// # Errors
    /// As [`Clients::new`].
    pub fn traced(endpoint: Endpoint, tracer: &Tracer) -> Result<Clients, EndpointError> {
        let endpoint = Arc::new(endpoint);
        let requests = metrics::Requests::default();
        let one = Connections::new(endpoint.clone(), requests.clone(), tracer.clone())?;
        let two = Connections::new(endpoint.clone(), requests.clone(), tracer.clone())?;
        Ok(Clients {
            writes: one.client(),
            watches: two.client(),
            connections: [one, two],
            requests,
            endpoint,
        })
    }

    /// For leases, statuses, events, reviews: short calls.
    pub fn writes(&self) -> kube::Client {
        self.writes.clone()
    }

    /// For watches: long calls, spread over as many connections as they need.
    pub fn watches(&self) -> kube::Client {
        self.watches.clone()
    }

    /// What was asked so far, by answer.
    pub fn requests(&self) -> metrics::Requests {
        self.requests.clone()
    }

    /// Where it is and who we are there.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Closes idle connections; new requests present the newest certificate.
    /// Streams that are open stay open until they end by themselves.
    pub fn renew_connections(&self) {
        self.connections.iter().for_each(|c| c.renew());
    }
}
