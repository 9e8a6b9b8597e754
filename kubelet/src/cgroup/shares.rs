//! CPU shares of a class of pods. Pure.

use crate::pod::Known;
use crate::pod::spec::qos::{self, Qos};
use crate::pod::spec::resources::{asked, shares};
use crate::status::is_over;

/// kubernetes v1.37 pkg/kubelet/cm/helpers_linux.go `MinShares`.
pub const OF_BEST_EFFORT: u64 = 2;

/// What Burstable pods have together: what they ask for. Who has ended asks for nothing.
pub fn of_burstable(pods: &[Known]) -> u64 {
    let lives = |known: &&Known| !is_over(&known.status);
    let burstable = |known: &&Known| qos::of(&known.pod) == Qos::Burstable;
    let specs = pods.iter().filter(lives).filter(burstable);
    let millis = specs.filter_map(|known| Some(asked(known.pod.spec.as_ref()?, "cpu").millis()));
    u64::try_from(shares(millis.sum())).unwrap_or(OF_BEST_EFFORT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn known(cpu: &str, class: &str, phase: &str) -> Known {
        let pod = serde_json::json!({
            "metadata": {"name": "a"}, "status": {"qosClass": class, "phase": phase},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}
        });
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(pod).unwrap();
        Known {
            status: pod.status.clone().unwrap_or_default(),
            pod: Arc::new(pod),
            removed: false,
        }
    }

    #[test]
    fn burstable_pods_share_what_they_ask_for() {
        let all = [
            known("500m", "Burstable", "Running"),
            known("250m", "Burstable", "Pending"),
            known("4", "Burstable", "Succeeded"),
            known("2", "Guaranteed", "Running"),
        ];
        assert_eq!(of_burstable(&all), 768);
        assert_eq!(of_burstable(&[]), OF_BEST_EFFORT);
    }
}
