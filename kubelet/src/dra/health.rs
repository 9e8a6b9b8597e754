//! How devices of drivers are, as the drivers say. Pure; and `dra_health_state`, the stock
//! kubelet's file of it.
//!
//! kubernetes v1.37 pkg/kubelet/cm/dra/{healthinfo.go,state/state.go}.

use super::prepared::Device;
use crate::checkpoint::{self, CheckpointError};
use crate::proto::podresources as api;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ResourceHealth;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// kubernetes v1.37 pkg/kubelet/cm/dra/manager.go `NewManager`.
pub const FILE: &str = "dra_health_state";

/// healthinfo.go `DefaultHealthTimeout`.
const TIMEOUT: SignedDuration = SignedDuration::from_secs(30);

/// healthinfo.go `maxDevicesPerDriver`: a driver may tell of devices that nobody has.
const DEVICES_MAX: usize = 16384;

/// k8s.io/api v0.37 core/v1/types.go `ResourceHealthMessageMaxLength`.
const MESSAGE_MAX: usize = 1024;

/// One device, when it was last heard of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Known {
    pool_name: String,
    device_name: String,
    health: String,
    #[serde(with = "moment")]
    last_updated: Timestamp,
    /// Nanoseconds; 0 means [`TIMEOUT`].
    #[serde(default)]
    health_check_timeout: i64,
    #[serde(default)]
    message: String,
}

/// As Go writes it.
mod moment {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        at.to_string().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Known {
    fn is_current(&self, now: Timestamp) -> bool {
        let timeout = match self.health_check_timeout {
            0 => TIMEOUT,
            nanoseconds => SignedDuration::from_nanos(nanoseconds),
        };
        now.duration_since(self.last_updated) <= timeout
    }

    fn name(&self) -> (String, String) {
        (self.pool_name.clone(), self.device_name.clone())
    }
}

/// By pool and name, with a slash between.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfDriver {
    devices: BTreeMap<String, Known>,
}

/// Of all drivers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Health(BTreeMap<String, OfDriver>);

const HEALTHY: &str = "Healthy";
const UNHEALTHY: &str = "Unhealthy";
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
    /// What an earlier kubelet knew.
    ///
    /// # Errors
    /// When the file can't be read, or is damaged.
    pub fn read(path: &Path) -> Result<Health, CheckpointError> {
        Ok(checkpoint::read(path)?.unwrap_or_default())
    }

    /// Keeps it for the next.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        checkpoint::write(path, self)
    }

    /// A driver's newest report; answers the devices, by pool and name, that changed. One that
    /// it no longer speaks of is forgotten when it has been silent of it for too long.
    pub fn take(
        &mut self,
        driver: &str,
        report: Vec<api::DeviceHealth>,
        now: Timestamp,
    ) -> BTreeSet<(String, String)> {
        let devices = &mut self.0.entry(driver.to_owned()).or_default().devices;
        let (mut changed, mut told) = (BTreeSet::new(), BTreeSet::new());
        for one in report {
            let known = known(one, now);
            let key = key(&known.pool_name, &known.device_name);
            let before = devices.get(&key);
            if before.is_none() && devices.len() >= DEVICES_MAX {
                tracing::warn!(
                    driver,
                    device = key,
                    "too many devices: its health is ignored"
                );
                continue;
            }
            let same = |b: &Known| {
                Known {
                    last_updated: now,
                    ..b.clone()
                } == known
            };
            if !before.is_some_and(|b| same(b) && b.is_current(now)) {
                changed.insert(known.name());
            }
            told.insert(key.clone());
            devices.insert(key, known);
        }
        let silent = |key: &String, k: &mut Known| !told.contains(key) && !k.is_current(now);
        let gone = devices.extract_if(.., silent).map(|(_, known)| known);
        changed.extend(gone.filter(|k| k.health != UNKNOWN).map(|k| k.name()));
        changed
    }

    /// Nothing is known of a driver's devices any more.
    pub fn forget(&mut self, driver: &str) -> BTreeSet<(String, String)> {
        let gone = self.0.remove(driver).unwrap_or_default();
        gone.devices.values().map(Known::name).collect()
    }

    /// As `allocatedResourcesStatus` tells it.
    pub fn of(&self, driver: &str, device: &Device, now: Timestamp) -> ResourceHealth {
        let (pool, name) = (&device.pool_name, &device.device_name);
        let known = self
            .0
            .get(driver)
            .and_then(|d| d.devices.get(&key(pool, name)));
        let known = known.filter(|k| k.is_current(now));
        let health = known.map_or(UNKNOWN, |k| match k.health.as_str() {
            HEALTHY => HEALTHY,
            UNHEALTHY => UNHEALTHY,
            _ => UNKNOWN,
        });
        let id = device.cdi_device_ids.first().cloned();
        ResourceHealth {
            resource_id: id.unwrap_or_else(|| format!("{driver}/{pool}/{name}")),
            health: Some(health.to_owned()),
            message: known.map(|k| k.message.clone()).filter(|m| !m.is_empty()),
        }
    }
}

fn key(pool: &str, name: &str) -> String {
    format!("{pool}/{name}")
}

fn known(one: api::DeviceHealth, now: Timestamp) -> Known {
    let health = match one.health() {
        api::HealthStatus::Healthy => HEALTHY,
        api::HealthStatus::Unhealthy => UNHEALTHY,
        api::HealthStatus::Unknown => UNKNOWN,
    };
    let device = one.device.unwrap_or_default();
    let seconds = one.health_check_timeout_seconds.max(0);
    Known {
        pool_name: device.pool_name,
        device_name: device.device_name,
        health: health.to_owned(),
        last_updated: now,
        health_check_timeout: seconds.saturating_mul(1_000_000_000),
        message: cut(one.message),
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
        let now = Timestamp::now();
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
        assert_eq!(told(&health, now + SignedDuration::from_secs(6)), "Unknown");
        assert_eq!(health.forget("d").len(), 1);
        assert_eq!(told(&health, now), "Unknown");
    }

    #[test]
    fn health_outlives_the_kubelet_until_it_is_too_old() {
        let dir = crate::volume::scratch::Scratch::new();
        let path = dir.0.join(FILE);
        assert_eq!(Health::read(&path).unwrap(), Health::default());
        let now = Timestamp::now();
        let mut health = Health::default();
        health.take("d", report(api::HealthStatus::Healthy), now);
        health.write(&path).unwrap();
        let next = Health::read(&path).unwrap();
        assert_eq!(next, health);
        std::fs::write(&path, "{").unwrap();
        assert!(Health::read(&path).is_err());
    }

    #[test]
    fn what_the_stock_kubelet_wrote_is_understood() {
        // As its healthInfoCache writes it.
        let text = r#"{"d":{"Devices":{"n/a":{"PoolName":"n","DeviceName":"a","Health":"Unhealthy",
            "LastUpdated":"2026-11-27T01:00:00.123456789+01:00","HealthCheckTimeout":5000000000,
            "Message":"hot"}}}}"#;
        let health: Health = serde_json::from_str(text).unwrap();
        let device = Device {
            pool_name: "n".into(),
            device_name: "a".into(),
            ..Device::default()
        };
        let at = |text: &str| health.of("d", &device, text.parse().unwrap());
        let told = at("2026-11-27T00:00:05Z");
        assert_eq!(told.health.unwrap(), "Unhealthy");
        assert_eq!(told.message.unwrap(), "hot");
        assert_eq!(at("2026-11-27T00:00:06Z").health.unwrap(), "Unknown");
        let written = serde_json::to_string(&health).unwrap();
        assert!(
            written.contains(r#""LastUpdated":"2026-11-27T00:00:00.123456789Z""#),
            "{written}"
        );
    }

    #[test]
    fn a_device_that_is_no_longer_told_of_is_forgotten_in_time() {
        let now = Timestamp::now();
        let mut health = Health::default();
        health.take("d", report(api::HealthStatus::Healthy), now);
        let later = |seconds| now + SignedDuration::from_secs(seconds);
        assert!(health.take("d", Vec::new(), later(4)).is_empty());
        assert_eq!(health.take("d", Vec::new(), later(6)).len(), 1);
        assert!(health.forget("d").is_empty());
    }
}
