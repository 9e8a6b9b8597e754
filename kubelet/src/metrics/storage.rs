//! What is counted of volumes: kubernetes v1.37 pkg/volume/util/metrics.go and
//! pkg/kubelet/volumemanager/metrics/metrics.go.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::fmt;
use std::time::{Duration, Instant};

const BUCKETS: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0,
];

/// A volume was made, or written anew, for a pod.
pub const VOLUME_MOUNT: &str = "volume_mount";
/// It was given back.
pub const VOLUME_UNMOUNT: &str = "volume_unmount";
/// The same of a volume that is a block device.
pub const MAP_VOLUME: &str = "map_volume";
#[allow(missing_docs)]
pub const UNMAP_VOLUME: &str = "unmap_volume";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    migrated: &'static str,
    operation_name: &'static str,
    status: &'static str,
    volume_plugin: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    operation_name: &'static str,
    volume_plugin: String,
}

fn duration() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Of volumes, by plugin. Clones count together.
#[derive(Clone)]
pub struct StorageOperations {
    took: Family<Operation, Histogram, fn() -> Histogram>,
    failed: Family<Failed, Counter>,
}

impl Default for StorageOperations {
    fn default() -> Self {
        StorageOperations {
            took: Family::new_with_constructor(duration),
            failed: Family::default(),
        }
    }
}

impl fmt::Debug for StorageOperations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageOperations")
    }
}

impl StorageOperations {
    /// Counts what was begun at `start` and ended so now; hands the result on.
    pub fn ended<T, E>(
        &self,
        volume_plugin: &str,
        operation_name: &'static str,
        start: Instant,
        result: Result<T, E>,
    ) -> Result<T, E> {
        self.count(
            volume_plugin,
            operation_name,
            start.elapsed(),
            result.is_err(),
        );
        result
    }

    fn count(&self, plugin: &str, operation_name: &'static str, took: Duration, failed: bool) {
        let labels = Operation {
            // Drivers that were once part of Kubernetes are not here.
            migrated: "false",
            operation_name,
            status: if failed { "fail-unknown" } else { "success" },
            volume_plugin: plugin.to_owned(),
        };
        let histogram = self.took.get_or_create(&labels);
        histogram.observe(took.as_secs_f64());
        if failed {
            let labels = Failed {
                operation_name,
                volume_plugin: plugin.to_owned(),
            };
            self.failed.get_or_create(&labels).inc();
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "storage_operation_duration_seconds",
            "Duration of what was done for volumes, by plugin, operation and outcome",
            self.took.clone(),
        );
        registry.register(
            "storage_operation_errors",
            "Operations for volumes that failed, by plugin and operation",
            self.failed.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn operation_that_failed_is_counted_as_such_and_handed_on() {
        let operations = StorageOperations::default();
        let (plugin, start) = ("kubernetes.io/secret", Instant::now());
        let failed: Result<(), &str> = operations.ended(plugin, VOLUME_MOUNT, start, Err("no"));
        assert_eq!(failed, Err("no"));
        let done: Result<u8, &str> = operations.ended(plugin, VOLUME_MOUNT, start, Ok(1));
        assert_eq!(done, Ok(1));
        let mut registry = Registry::default();
        operations.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "storage_operation_duration_seconds_count{migrated=\"false\",operation_name=\"volume_mount\",status=\"success\",volume_plugin=\"kubernetes.io/secret\"} 1",
            "storage_operation_duration_seconds_count{migrated=\"false\",operation_name=\"volume_mount\",status=\"fail-unknown\",volume_plugin=\"kubernetes.io/secret\"} 1",
            "storage_operation_errors_total{operation_name=\"volume_mount\",volume_plugin=\"kubernetes.io/secret\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
