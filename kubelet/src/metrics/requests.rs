//! What is counted of requests to the API server, as client-go does
//! (staging/src/k8s.io/component-base/metrics/prometheus/restclient).

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

const BUCKETS: [f64; 12] = [
    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    /// A status, or `<error>` when there was no answer (client-go's word for it).
    code: String,
    host: String,
    method: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    host: String,
    verb: String,
}

fn duration() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Of all clients of one process. Clones count together.
#[derive(Clone)]
pub struct Requests {
    answered: Family<Answered, Counter>,
    took: Family<Asked, Histogram, fn() -> Histogram>,
}

impl Default for Requests {
    fn default() -> Self {
        Requests {
            answered: Family::default(),
            took: Family::new_with_constructor(duration),
        }
    }
}

impl Requests {
    /// One more, and how long it took until an answer began; without `status` there was none.
    pub fn ended(&self, method: &str, host: &str, status: Option<&str>, took: Duration) {
        let answered = Answered {
            code: status.unwrap_or("<error>").to_owned(),
            host: host.to_owned(),
            method: method.to_owned(),
        };
        self.answered.get_or_create(&answered).inc();
        let asked = Asked {
            host: host.to_owned(),
            verb: method.to_owned(),
        };
        let histogram = self.took.get_or_create(&asked);
        histogram.observe(took.as_secs_f64());
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "rest_client_requests",
            "Number of HTTP requests, by status code, method, and host",
            self.answered.clone(),
        );
        registry.register(
            "rest_client_request_duration_seconds",
            "Time until an answer of the API server began, by verb and host",
            self.took.clone(),
        );
    }
}
