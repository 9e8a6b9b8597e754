//! What containers and pods have of claims that were made ready.

use super::claim;
use super::dra::Dra;
use super::drivers::Changed;
use super::prepared::Claim;
use crate::pod::spec;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceHealth, ResourceStatus};
use std::collections::BTreeSet;

impl Dra {
    /// CDI names of what a container claims.
    ///
    /// # Errors
    /// When that was never made ready.
    pub fn cdi(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, String> {
        let claims = self.claims();
        let namespace = spec::namespace(pod);
        let mut names = Vec::new();
        for (name, request) in claim::requests(pod, container) {
            let claim = claims.get(&(namespace.to_owned(), name.clone()));
            let claim = claim.ok_or_else(|| {
                format!(
                    "internal error: unable to get claim info for ResourceClaim {name} in \
                     namespace {namespace}"
                )
            })?;
            names.extend(claim.cdi(request.as_deref()).cloned());
        }
        Ok(names)
    }

    /// The claims of a container, as they were made ready.
    pub fn of(&self, pod: &Pod, container: &Container) -> Vec<Claim> {
        let names = claim::requests(pod, container)
            .into_iter()
            .map(|(name, _)| name);
        let names: BTreeSet<String> = names.collect();
        let namespace = spec::namespace(pod);
        let claims = self.claims();
        let of = |name: String| claims.get(&(namespace.to_owned(), name)).cloned();
        names.into_iter().filter_map(of).collect()
    }

    /// `allocatedResourcesStatus` of what a container claims.
    pub fn health(&self, pod: &Pod, container: &Container) -> Vec<ResourceStatus> {
        let (claims, now) = (self.claims(), jiff::Timestamp::now());
        let resources = container.resources.as_ref();
        let wanted = resources
            .into_iter()
            .flat_map(|r| r.claims.iter().flatten());
        let of = |wanted: &k8s_openapi::api::core::v1::ResourceClaim| {
            let mut listed = pod
                .spec
                .iter()
                .flat_map(|s| s.resource_claims.iter().flatten());
            let own = listed.find(|c| c.name == wanted.name)?;
            let name = claim::reference(pod, own).ok()??.name;
            let claim = claims.get(&(spec::namespace(pod).to_owned(), name))?;
            let request = wanted.request.as_deref().filter(|r| !r.is_empty());
            let mut all: Vec<ResourceHealth> = Vec::new();
            // Devices know requests alone, not what those chose from.
            let base = request.and_then(|r| r.split('/').next());
            for (driver, device) in claim.devices(base) {
                let told = self.drivers.look(|health| health.of(driver, device, now));
                if !all.iter().any(|a| a.resource_id == told.resource_id) {
                    all.push(told);
                }
            }
            let named = &wanted.name;
            let name = match request {
                Some(request) => format!("claim:{named}/{request}"),
                None => format!("claim:{named}"),
            };
            (!all.is_empty()).then_some(ResourceStatus {
                name,
                resources: Some(all),
            })
        };
        wanted.filter_map(of).collect()
    }

    /// Hears of devices that changed health.
    pub fn changes(&self) -> tokio::sync::broadcast::Receiver<Changed> {
        self.drivers.changes()
    }

    /// Pods that have any of these, by uid.
    pub fn pods_with(&self, (driver, devices): &Changed) -> BTreeSet<String> {
        let claims = self.claims();
        let has = |claim: &&Claim| {
            let own = claim
                .drivers
                .get(driver)
                .into_iter()
                .flat_map(|d| &d.devices);
            own.into_iter()
                .any(|d| devices.contains(&(d.pool_name.clone(), d.device_name.clone())))
        };
        let hit = claims.values().filter(has);
        hit.flat_map(|c| c.pods.keys().cloned()).collect()
    }
}
