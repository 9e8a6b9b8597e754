//! A runtime whose calls somebody hears of.

use crate::v1::*;
use crate::verbs::verbs;
use crate::{Cri, EventStream};
use std::any::Any;
use std::sync::Arc;
use tonic::Status;

/// Told whether the call failed. Dropped untold with a call that was dropped.
pub type Ended = Box<dyn FnOnce(bool) + Send>;

/// Hears of every call.
pub trait CallObserver: Send + Sync + 'static {
    /// A call begins: `verb` is the method's name in [`Cri`], `request` its message.
    fn calls(self: Arc<Self>, verb: &'static str, request: &dyn Any) -> Ended;
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
                    let ended = self.observer.clone().calls(stringify!($verb), &request);
                    let answer = self.inner.$verb(request).await;
                    ended(answer.is_err());
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
