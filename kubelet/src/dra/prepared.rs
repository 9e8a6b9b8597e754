//! Claims that drivers were asked to make ready. Pure; and `dra_manager_state`, the stock
//! kubelet's file of them.
//!
//! kubernetes v1.37 pkg/kubelet/cm/dra/state/checkpoint.go.

use crate::checkpoint::{self, CheckpointError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// kubernetes v1.37 pkg/kubelet/cm/dra/manager.go `draManagerStateFileName`.
pub const FILE: &str = "dra_manager_state";
const KIND: &str = "DRACheckpoint";
const VERSION: &str = "checkpoint.dra.kubelet.k8s.io/v1";

/// A device of a claim, as its driver tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Device {
    pub pool_name: String,
    pub device_name: String,
    #[serde(rename = "ShareID")]
    pub share_id: Option<String>,
    /// Requests of the claim that it is for; empty: all.
    #[serde(deserialize_with = "or_null")]
    pub request_names: Vec<String>,
    #[serde(rename = "CDIDeviceIDs", deserialize_with = "or_null")]
    pub cdi_device_ids: Vec<String>,
}

/// Go writes null for a list that was never made.
fn or_null<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What a driver gives for a claim.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Driver {
    #[serde(deserialize_with = "or_null")]
    pub devices: Vec<Device>,
}

/// Go's set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Member {}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct Claim {
    #[serde(rename = "ClaimUID")]
    pub uid: String,
    #[serde(rename = "ClaimName")]
    pub name: String,
    pub namespace: String,
    /// Pods that have it.
    #[serde(rename = "PodUIDs")]
    pub pods: BTreeMap<String, Member>,
    /// By name.
    #[serde(rename = "DriverState")]
    pub drivers: BTreeMap<String, Driver>,
    /// All drivers made it ready since this agent began.
    #[serde(skip)]
    pub ready: bool,
    /// Drivers are taking it back.
    #[serde(skip)]
    pub ending: bool,
}

impl Claim {
    /// Devices, with their drivers, of one of its requests, or of all.
    pub fn devices<'a>(
        &'a self,
        request: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, &'a Device)> {
        let all = self
            .drivers
            .iter()
            .flat_map(|(driver, state)| state.devices.iter().map(move |d| (driver.as_str(), d)));
        all.filter(move |(_, device)| {
            let names = &device.request_names;
            request.is_none_or(|wanted| names.is_empty() || names.iter().any(|n| n == wanted))
        })
    }

    /// CDI names of these.
    pub fn cdi<'a>(&'a self, request: Option<&'a str>) -> impl Iterator<Item = &'a String> {
        self.devices(request).flat_map(|(_, d)| &d.cdi_device_ids)
    }
}

/// By namespace and name.
pub type Claims = BTreeMap<(String, String), Claim>;

#[derive(Serialize, Deserialize)]
struct Data {
    kind: String,
    #[serde(rename = "apiVersion")]
    api_version: String,
    #[serde(rename = "ClaimInfoStateList", deserialize_with = "or_null")]
    claims: Vec<Claim>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: String,
    checksum: u32,
}

fn crc32(text: &str) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(text.as_bytes());
    crc.sum()
}

/// Writes it.
///
/// # Errors
/// When it can't be written.
pub fn write(path: &Path, claims: &Claims) -> Result<(), CheckpointError> {
    let data = Data {
        kind: KIND.to_owned(),
        api_version: VERSION.to_owned(),
        claims: claims.values().cloned().collect(),
    };
    let data = serde_json::to_string(&data).unwrap_or_default();
    let checksum = crc32(&data);
    checkpoint::write(path, &File { data, checksum })
}

/// What was written last; nothing if nobody ever did.
///
/// # Errors
/// When it is damaged.
pub fn read(path: &Path) -> Result<Claims, CheckpointError> {
    let Some(file) = checkpoint::read::<File>(path)? else {
        return Ok(Claims::new());
    };
    if crc32(&file.data) != file.checksum {
        return Err(checkpoint::damaged(path, "its checksum is wrong"));
    }
    let data: Data =
        serde_json::from_str(&file.data).map_err(|e| checkpoint::damaged(path, e.to_string()))?;
    let claims = data.claims.into_iter();
    Ok(claims
        .map(|c| ((c.namespace.clone(), c.name.clone()), c))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        let device = |name: &str, requests: &[&str]| Device {
            pool_name: "n".into(),
            device_name: name.into(),
            request_names: requests.iter().map(|r| (*r).to_owned()).collect(),
            cdi_device_ids: vec![format!("v/c={name}")],
            ..Device::default()
        };
        let devices = vec![
            device("a", &["gpu"]),
            device("b", &["nic"]),
            device("c", &[]),
        ];
        Claim {
            uid: "cu".into(),
            name: "c".into(),
            namespace: "ns".into(),
            pods: [("u".to_owned(), Member {})].into(),
            drivers: [("d".to_owned(), Driver { devices })].into(),
            ..Claim::default()
        }
    }

    #[test]
    fn container_gets_the_devices_of_its_request() {
        let claim = claim();
        let cdi = |request| {
            claim
                .cdi(request)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(cdi(None), "v/c=a v/c=b v/c=c");
        assert_eq!(cdi(Some("gpu")), "v/c=a v/c=c");
        assert_eq!(cdi(Some("nic")), "v/c=b v/c=c");
    }

    #[test]
    fn claims_are_kept_as_kubernetes_keeps_them() {
        let path = std::env::temp_dir().join(format!("dra-state-{}", std::process::id()));
        assert!(read(&path).unwrap().is_empty());
        let claims = Claims::from([(("ns".to_owned(), "c".to_owned()), claim())]);
        write(&path, &claims).unwrap();
        assert_eq!(read(&path).unwrap(), claims);
        // Written by kubernetes v1.37.2's own code.
        std::fs::write(&path, UPSTREAM).unwrap();
        let found = read(&path).unwrap();
        let found = &found[&("ns".to_owned(), "c".to_owned())];
        assert_eq!(found.drivers["d"].devices[0].cdi_device_ids, ["v/c=a"]);
        write(&path, &read(&path).unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), UPSTREAM);
        std::fs::write(&path, UPSTREAM.replace("v/c=a", "v/c=b")).unwrap();
        assert!(matches!(read(&path), Err(CheckpointError::Damaged { .. })));
        std::fs::remove_file(path).unwrap();
    }

    const UPSTREAM: &str = r#"{"Data":"{\"kind\":\"DRACheckpoint\",\"apiVersion\":\"checkpoint.dra.kubelet.k8s.io/v1\",\"ClaimInfoStateList\":[{\"ClaimUID\":\"cu\",\"ClaimName\":\"c\",\"Namespace\":\"ns\",\"PodUIDs\":{\"u\":{}},\"DriverState\":{\"d\":{\"Devices\":[{\"PoolName\":\"n\",\"DeviceName\":\"a\",\"ShareID\":null,\"RequestNames\":[\"gpu\"],\"CDIDeviceIDs\":[\"v/c=a\"]}]}}}]}","Checksum":2773769149}"#;
}
