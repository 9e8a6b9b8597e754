//! Work that a repeated request joins instead of doing it twice, and that
//! goes on when the one who asked has gone.

use cri_proto::Status;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

type Flight = Shared<BoxFuture<'static, Result<String, Status>>>;

/// Requests under way, by what makes them the same.
#[derive(Debug)]
pub(crate) struct Flights<K> {
    flights: Arc<Mutex<HashMap<K, Flight>>>,
}

impl<K> Default for Flights<K> {
    fn default() -> Self {
        Self {
            flights: Arc::default(),
        }
    }
}

impl<K: Hash + Eq + Clone + Send + 'static> Flights<K> {
    /// Joins the work under this key, or starts it. Answers an id.
    pub(crate) async fn join<F>(&self, key: K, work: impl FnOnce() -> F) -> Result<String, Status>
    where
        F: Future<Output = Result<String, Status>> + Send + 'static,
    {
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.start(key.clone(), work());
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn start<F>(&self, key: K, work: F) -> Flight
    where
        F: Future<Output = Result<String, Status>> + Send + 'static,
    {
        let flights = Arc::downgrade(&self.flights);
        let task = detached(async move {
            let result = work.await;
            if let Some(flights) = flights.upgrade() {
                let mut flights = flights.lock().unwrap_or_else(PoisonError::into_inner);
                flights.remove(&key);
            }
            result
        });
        task.boxed().shared()
    }
}

/// Runs to its end even when nobody waits for it any more.
pub(crate) fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> impl Future<Output = Result<T, Status>> + Send + 'static {
    use tracing::Instrument;
    let task = tokio::spawn(work.in_current_span());
    async move {
        task.await
            .unwrap_or_else(|e| Err(Status::internal(format!("the verb broke off: {e}"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn same_request_joins_the_first_and_a_later_one_works_anew() {
        let flights = Flights::<&str>::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let work = || {
            let runs = runs.clone();
            async move {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok(format!("run {run}"))
            }
        };
        let (a, b) = tokio::join!(flights.join("x", work), flights.join("x", work));
        assert_eq!(a.expect("first"), "run 0");
        assert_eq!(b.expect("joined"), "run 0");
        assert_eq!(flights.join("x", work).await.expect("again"), "run 1");
    }
}
