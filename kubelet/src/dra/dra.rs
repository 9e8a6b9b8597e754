//! Claims of pods made ready by drivers, and taken back.

use super::claim::{self, Reference};
use super::drivers::Drivers;
use super::prepared::{self, Claim, Claims, Device, Driver, Member};
use super::slices::Slices;
use crate::checkpoint::CheckpointError;
use crate::metrics::Metrics;
use crate::objects::{authorized, one_line};
use crate::pod::spec;
use crate::proto::dra as api;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// kubernetes v1.37 pkg/kubelet/cm/dra/manager.go `defaultReconcilePeriod`.
const RECONCILE_PERIOD: Duration = Duration::from_secs(60);

type Key = (String, String);

/// All claims on this node.
pub struct Dra {
    claims: Mutex<Claims>,
    pub(super) drivers: Arc<Drivers>,
    client: Option<kube::Client>,
    path: PathBuf,
    metrics: Metrics,
}

impl Dra {
    /// With what an earlier kubelet has had made ready, kept below `root`
    /// (`/var/lib/kubelet`).
    ///
    /// # Errors
    /// When what was written down is damaged: it says what drivers are to take back.
    pub fn new(
        root: &Path,
        client: kube::Client,
        drivers: Arc<Drivers>,
        metrics: Metrics,
    ) -> Result<Arc<Dra>, CheckpointError> {
        let path = root.join(prepared::FILE);
        let claims = prepared::read(&path)?;
        prepared::write(&path, &claims)?;
        count(&metrics, &claims);
        Ok(Arc::new(Dra {
            claims: Mutex::new(claims),
            drivers,
            client: Some(client),
            path,
            metrics,
        }))
    }

    /// Nobody claims anything.
    pub fn none() -> Arc<Dra> {
        let metrics = Metrics::default();
        let drivers = Drivers::new(Slices::none(), metrics.clone(), None);
        Arc::new(Dra {
            claims: Mutex::default(),
            drivers,
            client: None,
            path: PathBuf::new(),
            metrics,
        })
    }

    pub(super) fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, claims: &Claims) -> Result<(), String> {
        count(&self.metrics, claims);
        let written = prepared::write(&self.path, claims);
        written.map_err(|e| crate::join::report::chain(&e))
    }

    /// Has all that a pod claims made ready. What is ready is not asked for again.
    ///
    /// # Errors
    /// Why it is not, for people; to be tried again.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        let began = Instant::now();
        let done = self.prepare_all(pod).await;
        self.metrics
            .dra_worked("PrepareResources", done.is_err(), began.elapsed());
        done.map_err(|why| format!("prepare dynamic resources: {why}"))
    }

    async fn prepare_all(&self, pod: &Pod) -> Result<(), String> {
        let references = claim::references(pod).map_err(|e| e.to_string())?;
        let mut wanted = Vec::new();
        for reference in &references {
            wanted.push(self.check(pod, reference).await?);
        }
        let batches = self.begin(spec::uid(pod), wanted)?;
        for (driver, batch) in &batches {
            let asked = batch.iter().map(|(_, claim)| claim.clone()).collect();
            let mut answers = self.drivers.prepare(driver, asked).await?;
            let mut skipped = 0;
            for (key, asked) in batch {
                match answers.remove(&asked.uid) {
                    None => skipped += 1,
                    Some(answer) if answer.error.is_empty() => {
                        self.note(key, driver, answer.devices);
                    }
                    Some(answer) => {
                        return Err(failed("NodePrepareResources", asked, &answer.error));
                    }
                }
            }
            none_of("NodePrepareResources", skipped)?;
        }
        let keys: BTreeSet<&Key> = batches.values().flatten().map(|(key, _)| key).collect();
        let mut claims = self.claims();
        for key in keys {
            if let Some(claim) = claims.get_mut(key) {
                claim.ready = true;
            }
        }
        self.save(&claims)
    }

    /// The claim, if the pod may use it and its drivers are there.
    async fn check(&self, pod: &Pod, reference: &Reference) -> Result<Claim, String> {
        let name = &reference.name;
        let client = self.client.clone();
        let client = client.ok_or_else(|| format!("no API server knows ResourceClaim {name}"))?;
        let namespace = spec::namespace(pod);
        let api: kube::Api<ResourceClaim> = kube::Api::namespaced(client, namespace);
        let found = authorized(|| api.get(name)).await;
        let found = found.map_err(|e| format!("fetch ResourceClaim {name}: {}", one_line(&e)))?;
        let drivers = claim::check(pod, reference, &found).map_err(|e| e.to_string())?;
        for driver in &drivers {
            self.drivers.check(driver)?;
        }
        Ok(Claim {
            uid: found.metadata.uid.unwrap_or_default(),
            name: name.clone(),
            namespace: namespace.to_owned(),
            drivers: drivers
                .into_iter()
                .map(|d| (d, Driver::default()))
                .collect(),
            ..Claim::default()
        })
    }

    /// Writes down that a pod has claims before drivers hear of them, and says what each
    /// driver is to be asked.
    fn begin(
        &self,
        uid: &str,
        wanted: Vec<Claim>,
    ) -> Result<BTreeMap<String, Vec<(Key, api::Claim)>>, String> {
        let mut batches: BTreeMap<String, Vec<(Key, api::Claim)>> = BTreeMap::new();
        let mut claims = self.claims();
        for new in wanted {
            let key = (new.namespace.clone(), new.name.clone());
            let new_uid = new.uid.clone();
            let claim = claims.entry(key.clone()).or_insert(new);
            if claim.uid != new_uid {
                return Err(format!(
                    "old ResourceClaim with same name {} and different UID {} still exists \
                     (previous pod force-deleted?!)",
                    claim.name, claim.uid
                ));
            }
            if claim.ending {
                return Err(format!("ResourceClaim {} is being unprepared", claim.name));
            }
            claim.pods.insert(uid.to_owned(), Member {});
            if !claim.ready {
                for driver in claim.drivers.keys() {
                    let batch = batches.entry(driver.clone()).or_default();
                    batch.push((key.clone(), asked(claim)));
                }
            }
        }
        self.save(&claims)?;
        Ok(batches)
    }

    /// What a driver says of a claim is all there is of it.
    fn note(&self, key: &Key, driver: &str, devices: Vec<api::Device>) {
        let of = |d: api::Device| Device {
            pool_name: d.pool_name,
            device_name: d.device_name,
            share_id: d.share_id,
            request_names: d.request_names,
            cdi_device_ids: d.cdi_device_ids,
        };
        let mut claims = self.claims();
        if let Some(claim) = claims.get_mut(key) {
            let devices = devices.into_iter().map(of).collect();
            claim.drivers.insert(driver.to_owned(), Driver { devices });
        }
    }

    /// Has what only this pod had taken back.
    ///
    /// # Errors
    /// Why it is not, for people; to be tried again.
    pub async fn unprepare(&self, uid: &str) -> Result<(), String> {
        let began = Instant::now();
        let any = self.claims().values().any(|c| c.pods.contains_key(uid));
        let done = if any {
            self.unprepare_all(uid).await
        } else {
            Ok(())
        };
        self.metrics
            .dra_worked("UnprepareResources", done.is_err(), began.elapsed());
        done.map_err(|why| format!("unprepare dynamic resources: {why}"))
    }

    async fn unprepare_all(&self, uid: &str) -> Result<(), String> {
        let mut batches: BTreeMap<String, Vec<api::Claim>> = BTreeMap::new();
        let mut ending = Vec::new();
        for (key, claim) in self.claims().iter_mut() {
            if !claim.pods.contains_key(uid) {
                continue;
            }
            if claim.pods.len() > 1 {
                claim.pods.remove(uid);
                continue;
            }
            claim.ending = true;
            ending.push(key.clone());
            for driver in claim.drivers.keys() {
                batches
                    .entry(driver.clone())
                    .or_default()
                    .push(asked(claim));
            }
        }
        for (driver, batch) in batches {
            let mut answers = self.drivers.unprepare(&driver, batch.clone()).await?;
            let mut skipped = 0;
            for asked in &batch {
                match answers.remove(&asked.uid) {
                    None => skipped += 1,
                    Some(answer) if answer.error.is_empty() => {}
                    Some(answer) => {
                        return Err(failed("NodeUnprepareResources", asked, &answer.error));
                    }
                }
            }
            none_of("NodeUnprepareResources", skipped)?;
        }
        let mut claims = self.claims();
        claims.retain(|key, _| !ending.contains(key));
        self.save(&claims)
    }

    /// Takes back what pods had that are on the node no more; drivers that are away are
    /// asked again and again.
    pub async fn keep_only(self: Arc<Self>, uids: BTreeSet<String>) {
        let mut gone: BTreeSet<String> = {
            let claims = self.claims();
            let pods = claims.values().flat_map(|c| c.pods.keys());
            pods.filter(|uid| !uids.contains(*uid)).cloned().collect()
        };
        let mut arrivals = self.drivers.arrivals();
        while !gone.is_empty() {
            arrivals.mark_unchanged();
            for uid in std::mem::take(&mut gone) {
                if let Err(why) = self.unprepare_all(&uid).await {
                    tracing::info!(pod = uid, why, "claims of a pod that is no more");
                    gone.insert(uid);
                }
            }
            tokio::select! {
                _ = arrivals.changed(), if !gone.is_empty() => {}
                () = tokio::time::sleep(RECONCILE_PERIOD), if !gone.is_empty() => {}
                else => {}
            }
        }
    }
}

/// Of claims that drivers have made ready.
fn count(metrics: &Metrics, claims: &Claims) {
    let ready = || claims.values().filter(|c| c.ready);
    let mut in_use: BTreeMap<&str, i64> = BTreeMap::new();
    for driver in ready().flat_map(|c| c.drivers.keys()) {
        *in_use.entry(driver).or_default() += 1;
    }
    let total = i64::try_from(ready().count()).unwrap_or(i64::MAX);
    metrics.dra_in_use(total, in_use.into_iter());
}

fn failed(verb: &str, claim: &api::Claim, why: &str) -> String {
    format!("{verb} failed for ResourceClaim {}: {why}", claim.name)
}

fn none_of(verb: &str, skipped: usize) -> Result<(), String> {
    match skipped {
        0 => Ok(()),
        _ => Err(format!("{verb} skipped {skipped} ResourceClaims")),
    }
}

fn asked(claim: &Claim) -> api::Claim {
    api::Claim {
        namespace: claim.namespace.clone(),
        uid: claim.uid.clone(),
        name: claim.name.clone(),
    }
}
