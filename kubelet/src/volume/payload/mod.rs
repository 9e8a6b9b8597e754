//! Which files a volume holds, before any of them is written.

mod keys;
mod projected;
mod trust;

use super::error::VolumeReason;
use super::kind::Kind;
use crate::objects::{ObjectError, ObjectRef, Objects};
use k8s_openapi::api::core::v1::{Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// kubernetes v1.36 pkg/volume/util/atomic_writer.go `maxPathLength`, `maxFileNameLength`.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;
const CONFIG_MAP_LACKS: &str = "configmap references non-existent config";
const SECRET_LACKS: &str = "references non-existent secret";
/// Every `defaultMode` of the API.
const DEFAULT_MODE: i32 = 0o644;

/// One file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    /// Uid if not root.
    pub owner: Option<u32>,
}

/// Relative path to file.
pub type Files = BTreeMap<String, File>;

/// The files, and what they depend on.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    pub files: Files,
    pub refs: BTreeSet<ObjectRef>,
    /// When a token in it is due for renewal.
    pub renew_at: Option<jiff::Timestamp>,
}

impl Payload {
    fn renew_by(&mut self, when: jiff::Timestamp) {
        self.renew_at = Some(self.renew_at.map_or(when, |t| t.min(when)));
    }
}

/// Where the content comes from.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    pub pod: &'a Pod,
    pub objects: &'a Arc<dyn Objects>,
    pub allocatable: &'a BTreeMap<String, Quantity>,
}

/// The files of a ConfigMap, Secret, downward or projected volume; none of
/// these: `None`.
pub async fn build(volume: &Volume, origin: Origin<'_>) -> Result<Option<Payload>, VolumeReason> {
    let mut payload = Payload::default();
    let name = &volume.name;
    match Kind::of(volume) {
        Kind::ConfigMap(source) => {
            let wanted = keys::Wanted {
                name: &source.name,
                items: source.items.as_deref(),
                optional: source.optional.unwrap_or(false),
                mode: mode(source.default_mode, DEFAULT_MODE),
            };
            origin.config_map(&mut payload, wanted).await?;
        }
        Kind::Secret(source) => {
            let wanted = keys::Wanted {
                name: source.secret_name.as_deref().unwrap_or_default(),
                items: source.items.as_deref(),
                optional: source.optional.unwrap_or(false),
                mode: mode(source.default_mode, DEFAULT_MODE),
            };
            origin.secret(&mut payload, wanted).await?;
        }
        Kind::Downward(source) => {
            let mode = mode(source.default_mode, DEFAULT_MODE);
            origin.downward(&mut payload, source.items.as_deref(), mode)?;
        }
        Kind::Projected(source) => origin.projected(&mut payload, name, source).await?,
        _ => return Ok(None),
    }
    for path in payload.files.keys() {
        check_path(path)?;
    }
    Ok(Some(payload))
}

impl Origin<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or("default")
    }

    async fn config_map(
        &self,
        payload: &mut Payload,
        wanted: keys::Wanted<'_>,
    ) -> Result<(), VolumeReason> {
        let namespace = self.namespace();
        payload
            .refs
            .insert(ObjectRef::config_map(namespace, wanted.name));
        let found = self.objects.config_map(namespace, wanted.name).await;
        if let Some(object) = or_none(found, wanted.optional)? {
            let data = keys::of_config_map(&object);
            payload
                .files
                .extend(keys::select(CONFIG_MAP_LACKS, &data, &wanted)?);
        }
        Ok(())
    }

    async fn secret(
        &self,
        payload: &mut Payload,
        wanted: keys::Wanted<'_>,
    ) -> Result<(), VolumeReason> {
        let namespace = self.namespace();
        payload
            .refs
            .insert(ObjectRef::secret(namespace, wanted.name));
        let found = self.objects.secret(namespace, wanted.name).await;
        if let Some(object) = or_none(found, wanted.optional)? {
            let data = keys::of_secret(&object);
            payload
                .files
                .extend(keys::select(SECRET_LACKS, &data, &wanted)?);
        }
        Ok(())
    }
}

/// What is optional may be missing; anything else that went wrong stays wrong.
fn or_none<T>(found: Result<T, ObjectError>, optional: bool) -> Result<Option<T>, ObjectError> {
    match found {
        Err(ObjectError::NotFound { .. }) if optional => Ok(None),
        other => other.map(Some),
    }
}

fn mode(set: Option<i32>, default: i32) -> u32 {
    // The API server lets only 0..=0777 through.
    u32::try_from(set.unwrap_or(default)).unwrap_or(0) & 0o7777
}

/// A path must stay in the volume and must not look like the writer's own
/// `..data`.
fn check_path(path: &str) -> Result<(), VolumeReason> {
    let bad = |why| VolumeReason::BadPath {
        path: path.to_owned(),
        why,
    };
    if path.is_empty() {
        return Err(bad("must not be empty"));
    }
    if path.starts_with('/') {
        return Err(bad("must be relative"));
    }
    if path.len() > MAX_PATH {
        return Err(bad("must be at most 4096 bytes"));
    }
    if path.starts_with("..") {
        return Err(bad("must not start with '..'"));
    }
    for part in path.split('/') {
        if part == ".." {
            return Err(bad("must not contain '..'"));
        }
        if part.is_empty() || part == "." {
            return Err(bad("must be in its shortest form"));
        }
        if part.len() > MAX_NAME {
            return Err(bad("a name must be at most 255 bytes"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_volume_or_look_like_the_writers_are_refused() {
        for path in [
            "", "/etc", "../x", "..x", "..", "a/../b", "a//b", "a/.", "a/",
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        for path in ["a", ".hidden", "a/b..c", "a.b/c"] {
            assert!(check_path(path).is_ok(), "{path:?}");
        }
    }
}
