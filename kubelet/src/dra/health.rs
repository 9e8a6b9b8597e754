//! How devices of drivers are, as the drivers say. Pure.

use super::prepared::Device;
use crate::proto::podresources as api;
use k8s_openapi::api::core::v1::ResourceHealth;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// kubernetes v1.37 pkg/kubelet/cm/dra/healthinfo.go `DefaultHealthTimeout`.
const TIMEOUT: Duration = Duration::from_secs(30);

/// k8s.io/api v0.37 core/v1/types.go `ResourceHealthMessageMaxLength`.
const MESSAGE_MAX: usize = 1024;

/// Driver, pool and device.
type Key = (String, String, String);

#[derive(Debug, Clone, PartialEq)]
struct Known {
    health: &'static str,
    message: String,
    until: Instant,
}

/// Of all drivers.
#[derive(Debug, Clone, Default)]
pub struct Health(BTreeMap<Key, Known>);

const UNKNOWN: &str = "Unknown";

/// As much of a message as the API server takes.
fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_MAX - 3));
        message.push_str("...");
    }
    message
}

impl Health {
    /// A driver's newest report; answers the devices, by pool and name, that changed.
    pub fn take(
        &mut self,
        driver: &str,
        report: Vec<api::DeviceHealth>,
        now: Instant,
    ) -> BTreeSet<(String, String)> {
        let mut changed = BTreeSet::new();
        for one in report {
            let health = match one.health() {
                api::HealthStatus::Healthy => "Healthy",
                api::HealthStatus::Unhealthy => "Unhealthy",
                api::HealthStatus::Unknown => UNKNOWN,
            };
            let device = one.device.unwrap_or_default();
            let timeout = u64::try_from(one.health_check_timeout_seconds).unwrap_or(0);
            let timeout = match timeout {
                0 => TIMEOUT,
                seconds => Duration::from_secs(seconds),
            };
            let known = Known {
                health,
                message: cut(one.message),
                until: now + timeout,
            };
            let key = (
                driver.to_owned(),
                device.pool_name.clone(),
                device.device_name.clone(),
            );
            let before = self.0.insert(key, known.clone());
            let same =
                |b: &Known| b.health == health && b.message == known.message && b.until >= now;
            if !before.as_ref().is_some_and(same) {
                changed.insert((device.pool_name, device.device_name));
            }
        }
        changed
    }

    /// Nothing is known of a driver's devices any more.
    pub fn forget(&mut self, driver: &str) -> BTreeSet<(String, String)> {
        let gone = self.0.extract_if(.., |(d, ..), _| d == driver);
        gone.map(|((_, pool, device), _)| (pool, device)).collect()
    }

    /// As `allocatedResourcesStatus` tells it.
    pub fn of(&self, driver: &str, device: &Device, now: Instant) -> ResourceHealth {
        let (pool, name) = (&device.pool_name, &device.device_name);
        let known = self.0.get(&(driver.to_owned(), pool.clone(), name.clone()));
        let known = known.filter(|k| k.until >= now);
        let id = device.cdi_device_ids.first().cloned();
        ResourceHealth {
            resource_id: id.unwrap_or_else(|| format!("{driver}/{pool}/{name}")),
            health: Some(known.map_or(UNKNOWN, |k| k.health).to_owned()),
            message: known.map(|k| k.message.clone()).filter(|m| !m.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(health: api::HealthStatus) -> Vec<api::DeviceHealth> {
        vec![api::DeviceHealth {
            device: Some(api::DeviceIdentifier {
                pool_name: "n".into(),
                device_name: "a".into(),
            }),
            health: health.into(),
            health_check_timeout_seconds: 5,
            message: "hot".into(),
            ..api::DeviceHealth::default()
        }]
    }

    #[test]
    fn health_is_what_the_driver_said_until_it_is_silent() {
        let now = Instant::now();
        let mut health = Health::default();
        let device = Device {
            pool_name: "n".into(),
            device_name: "a".into(),
            ..Device::default()
        };
        let told = |health: &Health, at| health.of("d", &device, at).health.unwrap();
        assert_eq!(told(&health, now), "Unknown");
        let changed = health.take("d", report(api::HealthStatus::Unhealthy), now);
        assert_eq!(changed.len(), 1);
        assert_eq!(told(&health, now), "Unhealthy");
        assert_eq!(health.of("d", &device, now).resource_id, "d/n/a");
        let again = health.take("d", report(api::HealthStatus::Unhealthy), now);
        assert!(again.is_empty());
        assert_eq!(told(&health, now + Duration::from_secs(6)), "Unknown");
        assert_eq!(health.forget("d").len(), 1);
        assert_eq!(told(&health, now), "Unknown");
    }
}
