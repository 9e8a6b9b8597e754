//! A runtime whose calls somebody hears of.

use crate::v1::*;
use crate::verbs::verbs;
use crate::{Cri, EventStream};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Status;

/// Hears of every call that has ended.
pub trait CallObserver: Send + Sync + 'static {
    /// `verb` is the method's name in [`Cri`]; `request` its message. A call
    /// that was dropped before its end is not told of.
    fn called(&self, verb: &'static str, request: &dyn Any, took: Duration, failed: bool);
}

/// The same runtime; `observer` is told of each call through what is returned.
pub fn observed(inner: Arc<dyn Cri>, observer: Arc<dyn CallObserver>) -> Arc<dyn Cri> {
    Arc::new(Observed { inner, observer })
}

struct Observed {
    inner: Arc<dyn Cri>,
    observer: Arc<dyn CallObserver>,
}

macro_rules! pass_on {
    ($($service:ident { $($verb:ident $request:ident $response:ident,)* })*) => {
        #[async_trait::async_trait]
        impl Cri for Observed {
            $($(
                async fn $verb(&self, request: $request) -> Result<$response, Status> {
                    let (start, asked) = (Instant::now(), request.clone());
                    let answer = self.inner.$verb(request).await;
                    let failed = answer.is_err();
                    self.observer.called(stringify!($verb), &asked, start.elapsed(), failed);
                    answer
                }
            )*)*

            async fn get_container_events(&self) -> Result<EventStream, Status> {
                self.inner.get_container_events().await
            }
        }
    };
}
verbs!(pass_on);
