//! The service that plugins announce themselves to.

use super::devices::Devices;
use crate::proto::deviceplugin as api;
use crate::proto::deviceplugin::registration_server::Registration;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The one version there is.
const VERSION: &str = "v1beta1";

pub(super) struct Registrar {
    pub devices: Arc<Devices>,
    pub dir: PathBuf,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn register(
        &self,
        request: Request<api::RegisterRequest>,
    ) -> Result<Response<api::Empty>, Status> {
        let request = request.into_inner();
        let socket = check(&request, &self.dir).map_err(|message| {
            tracing::warn!(resource = request.resource_name, "{message}");
            Status::unknown(message)
        })?;
        self.devices
            .connect(&request.resource_name, &socket)
            .await
            .map_err(|status| {
                let (resource, why) = (&request.resource_name, status.message());
                tracing::warn!(resource, why, "device plugin not registered");
                Status::unknown(format!("failed to connect to device plugin: {why}"))
            })?;
        Ok(Response::new(api::Empty {}))
    }
}

/// The plugin's socket, if its announcement is in order.
fn check(request: &api::RegisterRequest, dir: &Path) -> Result<PathBuf, String> {
    if request.version != VERSION {
        let version = &request.version;
        return Err(format!(
            "requested API version {version:?} is not supported by kubelet. Supported version is [{VERSION:?}]"
        ));
    }
    if !is_extended_resource(&request.resource_name) {
        let name = &request.resource_name;
        return Err(format!(
            "the ResourceName {name:?} is invalid: neither a domain nor a name of Kubernetes' own"
        ));
    }
    let endpoint = Path::new(&request.endpoint);
    let inside = endpoint
        .components()
        .all(|c| matches!(c, Component::Normal(_)));
    if !inside || request.endpoint.is_empty() {
        return Err(format!(
            "the endpoint {:?} is no file in {}",
            request.endpoint,
            dir.display()
        ));
    }
    Ok(dir.join(endpoint))
}

/// `domain/name`, where the domain is not Kubernetes' own.
/// kubernetes v1.37 pkg/apis/core/v1/helper/helpers.go `IsExtendedResourceName`.
fn is_extended_resource(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else {
        return false;
    };
    let word = |text: &str, also: &[char]| {
        let inner = |c: char| c.is_ascii_alphanumeric() || also.contains(&c);
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(text.chars().next()) && edge(text.chars().last()) && text.chars().all(inner)
    };
    let foreign = domain != "kubernetes.io"
        && !domain.ends_with(".kubernetes.io")
        && !name.starts_with("requests.");
    foreign
        && domain.len() <= 253
        && word(domain, &['-', '.'])
        && rest.len() <= 63
        && word(rest, &['-', '_', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: &str, endpoint: &str, name: &str) -> api::RegisterRequest {
        api::RegisterRequest {
            version: version.into(),
            endpoint: endpoint.into(),
            resource_name: name.into(),
            options: None,
        }
    }

    #[test]
    fn only_extended_resources_can_be_registered() {
        for good in ["example.com/gpu", "a.b/c_d.e-f"] {
            assert!(is_extended_resource(good), "{good}");
        }
        let bad = [
            "cpu",
            "kubernetes.io/x",
            "a.kubernetes.io/x",
            "requests.a/x",
            "a/",
            "a/b/c",
            "/x",
        ];
        for bad in bad {
            assert!(!is_extended_resource(bad), "{bad}");
        }
    }

    #[test]
    fn announcement_with_a_foreign_version_or_path_is_refused() {
        let dir = Path::new("/d");
        let of = |version, endpoint| check(&request(version, endpoint, "a.b/c"), dir);
        assert_eq!(of("v1beta1", "p.sock"), Ok(PathBuf::from("/d/p.sock")));
        assert!(of("v1", "p.sock").is_err());
        assert!(of("v1beta1", "../p.sock").is_err());
        assert!(of("v1beta1", "").is_err());
    }
}
