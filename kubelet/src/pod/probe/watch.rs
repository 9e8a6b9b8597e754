//! One probe of one container for as long as it runs.

use super::{Kind, Outcome, Target, Thresholds, check};
use crate::event::EventType;
use crate::metrics::{self, Metrics, Probed};
use crate::pod::spec::{name, namespace, uid};
use crate::pod::subject::Subject;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, sleep_until};

/// What is watched, and who is told.
pub struct Watch {
    /// The container.
    pub target: Target,
    /// The probe.
    pub probe: Probe,
    /// Which one it is.
    pub kind: Kind,
    /// When the container started: initialDelaySeconds count from here.
    pub started: Timestamp,
    /// The verdict of an adopted container.
    pub known: Option<bool>,
    /// For events.
    pub subject: Subject,
    /// Answers are counted here.
    pub metrics: Metrics,
}

/// The series of one probe, for as long as it is watched.
struct Series(Metrics, Probed);

impl Series {
    fn of(watch: &Watch) -> Series {
        let pod = watch.subject.pod();
        let probed = Probed {
            probe_type: watch.kind.name(),
            container: watch.target.container.name.clone(),
            pod: name(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            pod_uid: uid(pod).to_owned(),
        };
        Series(watch.metrics.clone(), probed)
    }

    fn count(&self, outcome: &Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Success | Outcome::Warning { .. } => metrics::SUCCESSFUL,
            Outcome::Failure { .. } => metrics::FAILED,
            Outcome::Unknown { .. } => metrics::UNKNOWN,
        };
        self.0.probe(&self.1, result, took);
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.0.probe_ended(&self.1);
    }
}

/// The first wait after a refused connection.
const FIRST_RETRY: Duration = Duration::from_millis(25);

/// Probes until dropped; sends every new verdict.
///
/// While nothing has ever answered, a refused connection only means that the
/// server does not listen yet: within the first period it is tried again soon,
/// and not counted. So a pod is ready when its server is, not a period later.
pub async fn watch(watch: Watch, verdicts: UnboundedSender<bool>) {
    let probe = &watch.probe;
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
    };
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let delay = seconds(probe.initial_delay_seconds, 0);
    let running = Timestamp::now().duration_since(watch.started);
    sleep(delay.saturating_sub(Duration::try_from(running).unwrap_or_default())).await;
    let mut thresholds = Thresholds::new(probe, watch.known);
    let mut next = Instant::now();
    let patience = next + period;
    let mut retry = FIRST_RETRY;
    let series = Series::of(&watch);
    loop {
        let asked = Instant::now();
        let outcome = check(&watch.target, probe).await;
        series.count(&outcome, asked.elapsed());
        let refused = matches!(outcome, Outcome::Failure { refused: true, .. });
        if refused && !thresholds.decided() && Instant::now() + retry < patience {
            sleep(retry).await;
            retry = retry.saturating_mul(2).min(Duration::from_millis(400));
            continue;
        }
        if let Some(verdict) = judge(&watch, &mut thresholds, outcome)
            && verdicts.send(verdict).is_err()
        {
            return;
        }
        next = (next + period).max(Instant::now());
        sleep_until(next).await;
    }
}

fn judge(watch: &Watch, thresholds: &mut Thresholds, outcome: Outcome) -> Option<bool> {
    let name = watch.kind.name();
    let warn = |reason: &str, message: &str| {
        let container = &watch.target.container.name;
        watch
            .subject
            .of_container(container, EventType::Warning, reason, message);
    };
    match outcome {
        Outcome::Success => thresholds.record(true),
        Outcome::Warning { message } => {
            warn("ProbeWarning", &format!("{name} probe warning: {message}"));
            thresholds.record(true)
        }
        Outcome::Failure { message, .. } => {
            warn("Unhealthy", &format!("{name} probe failed: {message}"));
            thresholds.record(false)
        }
        Outcome::Unknown { message } => {
            warn(
                "Unhealthy",
                &format!("{name} probe errored and resulted in unknown state: {message}"),
            );
            None
        }
    }
}
