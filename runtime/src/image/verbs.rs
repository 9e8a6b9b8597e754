//! The CRI ImageService.

use super::{Auth, Image, PullError, RemoveError, Store};
use cri_proto::v1;
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Status;

/// All images, or the one that the filter names.
///
/// # Errors
/// None.
pub async fn list_images(
    store: &Arc<Store>,
    request: v1::ListImagesRequest,
) -> Result<v1::ListImagesResponse, Status> {
    let name = request.filter.and_then(|f| f.image).map(|spec| spec.image);
    let images = match name.filter(|name| !name.is_empty()) {
        Some(name) => store.resolve(&name).into_iter().collect(),
        None => store.list(),
    };
    Ok(v1::ListImagesResponse {
        images: images.iter().map(|image| to_cri(image)).collect(),
    })
}

/// One image; an absent one is no error. Verbose: `info` holds JSON with the
/// image's configuration and where its layers are.
///
/// # Errors
/// `InvalidArgument` without an image name.
pub async fn image_status(
    store: &Arc<Store>,
    request: v1::ImageStatusRequest,
) -> Result<v1::ImageStatusResponse, Status> {
    let name = image_name(request.image)?;
    let Some(image) = store.resolve(&name) else {
        return Ok(v1::ImageStatusResponse::default());
    };
    let mut info = HashMap::new();
    if request.verbose {
        info.insert("info".to_owned(), verbose(&image));
    }
    Ok(v1::ImageStatusResponse {
        image: Some(to_cri(&image)),
        info,
    })
}

/// Pulls; `image_ref` is the image's id.
///
/// # Errors
/// See [`PullError`] and `status_of`.
pub async fn pull_image(
    store: &Arc<Store>,
    request: v1::PullImageRequest,
) -> Result<v1::PullImageResponse, Status> {
    let name = image_name(request.image)?;
    let auth = request.auth.map(to_auth).transpose()?;
    let image = store
        .pull(&name, auth.flatten())
        .await
        .map_err(|error| status_of(&error))?;
    Ok(v1::PullImageResponse {
        image_ref: image.id.clone(),
    })
}

/// Removes an image with all of its names; an absent one is no error.
///
/// # Errors
/// `InvalidArgument` without an image name; `Internal` when the disk refuses.
pub async fn remove_image(
    store: &Arc<Store>,
    request: v1::RemoveImageRequest,
) -> Result<v1::RemoveImageResponse, Status> {
    let name = image_name(request.image)?;
    store
        .remove(&name)
        .await
        .map_err(|error: RemoveError| Status::internal(chain(&error)))?;
    Ok(v1::RemoveImageResponse {})
}

/// What images take on disk. Containers' writable layers are on the same file
/// system: the kubelet counts them from the containers' own statistics.
///
/// # Errors
/// None.
pub async fn image_fs_info(
    store: &Arc<Store>,
    _request: v1::ImageFsInfoRequest,
) -> Result<v1::ImageFsInfoResponse, Status> {
    let usage = store.usage();
    let usage = v1::FilesystemUsage {
        timestamp: super::now(),
        fs_id: Some(v1::FilesystemIdentifier {
            mountpoint: usage.mountpoint.display().to_string(),
        }),
        used_bytes: Some(v1::UInt64Value { value: usage.bytes }),
        inodes_used: Some(v1::UInt64Value {
            value: usage.inodes,
        }),
    };
    Ok(v1::ImageFsInfoResponse {
        image_filesystems: vec![usage.clone()],
        container_filesystems: vec![usage],
    })
}

fn image_name(spec: Option<v1::ImageSpec>) -> Result<String, Status> {
    match spec.map(|spec| spec.image) {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Status::invalid_argument("the request names no image")),
    }
}

/// An image as CRI describes it.
#[must_use]
pub fn to_cri(image: &Image) -> v1::Image {
    let user = image
        .config
        .config()
        .as_ref()
        .and_then(|c| c.user().as_deref());
    // "1000:50" or "www-data:adm": only the user counts here.
    let user = user.unwrap_or("").split(':').next().unwrap_or("");
    let uid = user.parse::<i64>().ok();
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        username: if uid.is_some() { "" } else { user }.to_owned(),
        uid: uid.map(|value| v1::Int64Value { value }),
        spec: None,
        pinned: image.pinned,
    }
}

fn verbose(image: &Image) -> String {
    let spec: serde_json::Value =
        serde_json::from_str(&image.raw_config).unwrap_or(serde_json::Value::Null);
    json!({
        "chainID": super::digest::chain_id(image.config.rootfs().diff_ids()),
        "imageSpec": spec,
        "layers": image.layers,
        "pulledAt": image.pulled_at,
    })
    .to_string()
}

/// As containerd 2.4 internal/cri/server/images/image_pull.go `ParseAuth`:
/// identity token, then user and password, then `auth`, then registry token.
fn to_auth(config: v1::AuthConfig) -> Result<Option<Auth>, Status> {
    let mut auth = Auth {
        username: config.username,
        password: config.password,
        identity_token: config.identity_token,
        registry_token: config.registry_token,
    };
    if auth.username.is_empty() && !config.auth.is_empty() {
        let invalid = || Status::invalid_argument("auth is not base64 of user:password");
        let (username, password) = Auth::decode(&config.auth).ok_or_else(invalid)?;
        auth.username = username;
        auth.password = password;
    }
    Ok((auth != Auth::default()).then_some(auth))
}

fn status_of(error: &PullError) -> Status {
    Status::new(error.code(), chain(error))
}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_is_absent_when_all_fields_are_empty() {
        assert!(to_auth(v1::AuthConfig::default()).unwrap().is_none());
    }
}
