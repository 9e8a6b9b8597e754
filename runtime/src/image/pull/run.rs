//! Manifest, configuration, layers, record: in this order, so that an image is
//! known only when it is whole.

use super::layer::{Job, LayerError, Ready, Wanted};
use super::progress::Live;
use super::settle::Layer;
use super::{Auth, PullError};
use crate::image::defaults::{MAX_IMAGE_CONFIG, MAX_INDEX_DEPTH};
use crate::image::digest::Digest;
use crate::image::record::ImageRecord;
use crate::image::reference::Version;
use crate::image::registry::manifest::{self, Descriptor, Document, Manifest, Platform};
use crate::image::registry::{Blob, BlobError, FetchError, Session, endpoints};
use crate::image::{Image, Reference, Store};
use futures::stream::{FuturesUnordered, StreamExt};
use oci_spec::image::ImageConfiguration;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// What is known of an image before its layers.
struct Plan {
    /// Of the manifest or index that the name means.
    top: Digest,
    manifest: Manifest,
    raw_manifest: String,
    config: String,
    diff_ids: Vec<String>,
}

impl Store {
    pub(super) async fn pull_now(
        self: &Arc<Self>,
        reference: &Reference,
        auth: Option<&Auth>,
        live: &Live,
        cancel: &CancellationToken,
    ) -> Result<Arc<Image>, PullError> {
        let (hosts, registries) = (
            &self.config.registry_config_dir,
            &self.config.registries_file,
        );
        let endpoints = endpoints(hosts, registries, reference);
        let endpoints = endpoints.map_err(|source| PullError::Config {
            reference: reference.to_string(),
            source,
        })?;
        let session = Session::new(&self.clients, reference, endpoints, auth);
        let plan = tokio::select! {
            plan = self.plan(&session, reference) => plan?,
            () = cancel.cancelled() => return Err(cancelled(reference)),
        };
        live.set_layers(&plan.manifest.layers);
        let job = Job {
            session: &session,
            live,
            cancel,
        };
        let layers = self.pull_layers(job, reference, &plan).await;
        let layers = match layers {
            Ok(layers) => layers,
            Err(error) => {
                self.clean_up_after(&error).await;
                return Err(error);
            }
        };
        let image = self.record_image(reference, plan, layers)?;
        self.sync_layers();
        Ok(image)
    }

    /// All layers, the lowest first; the first failure ends the others.
    async fn pull_layers(
        self: &Arc<Self>,
        job: Job<'_>,
        reference: &Reference,
        plan: &Plan,
    ) -> Result<Vec<Ready>, PullError> {
        let cancel = job.cancel.child_token();
        let job = Job {
            cancel: &cancel,
            ..job
        };
        let turns = Semaphore::new(self.config.parallel_layers.max(1));
        let mut running = FuturesUnordered::new();
        for (at, descriptor) in plan.manifest.layers.iter().enumerate() {
            let wanted = Wanted::new(at, &plan.diff_ids);
            let turns = &turns;
            running.push(async move {
                let _turn = turns.acquire().await;
                let layer = self.pull_layer(job, descriptor, wanted);
                (at, descriptor, layer.await)
            });
        }
        let mut layers: Vec<Option<Layer>> = plan.diff_ids.iter().map(|_| None).collect();
        let mut failed = None;
        while let Some((at, descriptor, layer)) = running.next().await {
            match layer {
                Ok(layer) => layers[at] = Some(layer),
                Err(source) => {
                    // Whatever else fails, fails for this.
                    cancel.cancel();
                    failed.get_or_insert((descriptor, source));
                }
            }
        }
        let digest = |at: usize| plan.manifest.layers[at].digest.to_string();
        if let Some((descriptor, source)) = failed {
            return Err(layer_error(
                reference,
                descriptor.digest.to_string(),
                source,
            ));
        }
        let layers = layers.into_iter().flatten().collect();
        let settled = self.settle_layers(layers).await;
        settled.map_err(|(at, source)| layer_error(reference, digest(at), source))
    }

    async fn pull_layer(
        self: &Arc<Self>,
        job: Job<'_>,
        descriptor: &Descriptor,
        wanted: Wanted,
    ) -> Result<Layer, LayerError> {
        let turn = self.pulls.layer_turn(wanted.diff_id());
        let _turn = turn.lock().await;
        if job.cancel.is_cancelled() {
            return Err(LayerError::Cancelled);
        }
        let layer = match self.ready_layer(&wanted) {
            Some(ready) => {
                if let Some(live) = job.live.layer(wanted.at) {
                    live.cached.store(true, Ordering::Relaxed);
                }
                Layer::Ready(ready)
            }
            None => {
                let unpacked = self.fetch_layer(job, descriptor, &wanted).await?;
                self.place_layer(unpacked, wanted.clone())?
            }
        };
        if let Some(live) = job.live.layer(wanted.at) {
            live.finished.store(true, Ordering::Relaxed);
        }
        Ok(layer)
    }

    /// The plan for an image, from the registry.
    async fn plan(&self, session: &Session, reference: &Reference) -> Result<Plan, PullError> {
        let (top, raw, manifest) = find_manifest(session, reference).await?;
        let id = manifest.config.digest.to_string();
        let config = match self.entry(&id) {
            // Verified when it came.
            Some(known) if known.record.id == id => known.record.config,
            _ => fetch_config(session, reference, &manifest.config).await?,
        };
        let wrong = |reason: String| PullError::ImageConfig {
            reference: reference.to_string(),
            digest: id.clone(),
            reason,
        };
        let diff_ids = check_config(&config, manifest.layers.len()).map_err(wrong)?;
        Ok(Plan {
            top,
            manifest,
            raw_manifest: raw,
            config,
            diff_ids,
        })
    }

    fn record_image(
        self: &Arc<Self>,
        reference: &Reference,
        plan: Plan,
        layers: Vec<Ready>,
    ) -> Result<Arc<Image>, PullError> {
        let mut record = ImageRecord {
            id: plan.manifest.config.digest.to_string(),
            repo_tags: Vec::new(),
            repo_digests: vec![reference.at(&plan.top)],
            layers: layers.iter().map(|layer| layer.key.clone()).collect(),
            config: plan.config,
            manifest: Some(plan.raw_manifest),
            pinned: false,
            pulled_at: crate::image::now(),
        };
        if let Version::Tag(_) = reference.version() {
            record.repo_tags.push(reference.to_string());
        }
        self.commit(record).map_err(|source| PullError::Store {
            reference: reference.to_string(),
            path: self.layout().images.clone(),
            source,
        })
    }

    /// After a failure that trying again would not mend, what had been
    /// extracted goes; after one of the network it stays for the next try.
    async fn clean_up_after(&self, error: &PullError) {
        if error.code() == tonic::Code::Unavailable {
            return;
        }
        if let Err(error) = self.collect_garbage().await {
            tracing::warn!(%error, "layers of a failed pull stay until the next removal");
        }
    }
}

/// Follows indexes down to the image for this host.
async fn find_manifest(
    session: &Session,
    reference: &Reference,
) -> Result<(Digest, String, Manifest), PullError> {
    let mut fetched = match reference.version() {
        Version::Tag(tag) => session.manifest_by_tag(tag).await,
        Version::Digest(digest) => session.manifest_by_digest(digest).await,
    }
    .map_err(|source| no_manifest(reference, source))?;
    let top = fetched.digest.clone();
    for _ in 0..MAX_INDEX_DEPTH {
        let unusable = |source| PullError::Unusable {
            reference: reference.to_string(),
            digest: fetched.digest.to_string(),
            source,
        };
        match manifest::parse(&fetched.bytes, &fetched.media_type).map_err(unusable)? {
            Document::Image(manifest) => {
                let raw = String::from_utf8_lossy(&fetched.bytes).into_owned();
                return Ok((top, raw, manifest));
            }
            Document::Index(entries) => {
                let chosen = manifest::choose(&entries, &Platform::host()).map_err(unusable)?;
                let next = session.manifest_by_digest(&chosen.digest).await;
                let next = next.map_err(|source| no_manifest(reference, source))?;
                // What the index says it is must be what it is.
                manifest::parse(&next.bytes, &chosen.media_type).map_err(unusable)?;
                fetched = next;
            }
        }
    }
    Err(PullError::Unusable {
        reference: reference.to_string(),
        digest: top.to_string(),
        source: manifest::ManifestError::TooDeep,
    })
}

async fn fetch_config(
    session: &Session,
    reference: &Reference,
    descriptor: &Descriptor,
) -> Result<String, PullError> {
    let wrong = |reason: String| PullError::ImageConfig {
        reference: reference.to_string(),
        digest: descriptor.digest.to_string(),
        reason,
    };
    if descriptor.size > MAX_IMAGE_CONFIG {
        return Err(wrong(format!("is longer than {MAX_IMAGE_CONFIG} bytes")));
    }
    let mut from = 0;
    loop {
        let bytes = Mutex::new(Vec::new());
        let blob = Blob {
            session,
            descriptor,
            from,
        };
        let downloaded = blob.download(|chunk| {
            let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.extend_from_slice(&chunk);
            std::future::ready(true)
        });
        match downloaded.await {
            Ok(()) => {
                let bytes = bytes.into_inner().unwrap_or_else(PoisonError::into_inner);
                return String::from_utf8(bytes).map_err(|_| wrong("is not text".to_owned()));
            }
            Err(BlobError::Lie { at, attempt }) if session.has_more(at) => {
                tracing::warn!(endpoint = attempt.endpoint, answer = %attempt.answer, "registry lies");
                from = at + 1;
            }
            Err(BlobError::Lie { attempt, .. }) => {
                return Err(wrong(format!(
                    "from {}: {}",
                    attempt.endpoint, attempt.answer
                )));
            }
            Err(BlobError::Fetch(source)) => return Err(no_manifest(reference, source)),
            Err(BlobError::Unwanted) => return Err(cancelled(reference)),
        }
    }
}

/// The diff ids of a configuration that fits its manifest and this host.
pub fn check_config(text: &str, layers: usize) -> Result<Vec<String>, String> {
    let config: ImageConfiguration =
        serde_json::from_str(text).map_err(|e| format!("can't be read: {e}"))?;
    let architecture = config.architecture().to_string();
    let host = Platform::host();
    if !architecture.is_empty() && architecture != host.architecture {
        return Err(format!(
            "is for {}/{architecture}, and this host is {host}",
            config.os()
        ));
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers {
        return Err(format!(
            "has {} layers, and the manifest {layers}",
            diff_ids.len()
        ));
    }
    for diff_id in diff_ids {
        Digest::parse(diff_id).map_err(|e| e.to_string())?;
    }
    Ok(diff_ids.clone())
}

fn no_manifest(reference: &Reference, source: FetchError) -> PullError {
    PullError::Fetch {
        reference: reference.to_string(),
        source,
    }
}

fn layer_error(reference: &Reference, digest: String, source: LayerError) -> PullError {
    if let LayerError::Cancelled = source {
        return cancelled(reference);
    }
    PullError::Layer {
        reference: reference.to_string(),
        digest,
        source,
    }
}

fn cancelled(reference: &Reference) -> PullError {
    PullError::Cancelled {
        reference: reference.to_string(),
    }
}
