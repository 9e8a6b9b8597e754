//! Projected and downward volumes.

use super::{File, Origin, Payload, keys, mode, trust};
use crate::objects::{CertificateSpec, ObjectRef, TokenSpec};
use crate::volume::downward;
use crate::volume::error::VolumeReason;
use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, Container, DownwardAPIVolumeFile, Pod, PodCertificateProjection,
    ProjectedVolumeSource, ResourceFieldSelector, ServiceAccountTokenProjection, VolumeProjection,
};

/// ServiceAccountTokenProjection.expirationSeconds of the API.
const DEFAULT_TOKEN_SECONDS: i64 = 3600;
/// kubernetes v1.36 pkg/volume/projected/projected.go `collectData`.
const OWNED_MODE: u32 = 0o600;

impl Origin<'_> {
    pub(super) async fn projected(
        &self,
        payload: &mut Payload,
        volume: &str,
        source: &ProjectedVolumeSource,
    ) -> Result<(), VolumeReason> {
        let mode = mode(source.default_mode, super::DEFAULT_MODE);
        for (index, part) in source.sources.iter().flatten().enumerate() {
            match &part.pod_certificate {
                Some(source) => {
                    let wanted = self.certificate_spec(volume, index, source);
                    self.certificate(payload, source, &wanted, mode).await?;
                }
                None => self.part(payload, part, mode).await?,
            }
        }
        Ok(())
    }

    async fn part(
        &self,
        payload: &mut Payload,
        part: &VolumeProjection,
        mode: u32,
    ) -> Result<(), VolumeReason> {
        if let Some(source) = &part.config_map {
            let wanted = keys::Wanted {
                name: &source.name,
                items: source.items.as_deref(),
                optional: source.optional.unwrap_or(false),
                mode,
            };
            self.config_map(payload, wanted).await
        } else if let Some(source) = &part.secret {
            let wanted = keys::Wanted {
                name: &source.name,
                items: source.items.as_deref(),
                optional: source.optional.unwrap_or(false),
                mode,
            };
            self.secret(payload, wanted).await
        } else if let Some(source) = &part.downward_api {
            self.downward(payload, source.items.as_deref(), mode)
        } else if let Some(source) = &part.service_account_token {
            self.token(payload, source, mode).await
        } else if let Some(source) = &part.cluster_trust_bundle {
            self.trust(payload, source, mode).await
        } else {
            Err(VolumeReason::Unsupported {
                kind: "projected of no known source",
            })
        }
    }

    pub(super) fn downward(
        &self,
        payload: &mut Payload,
        items: Option<&[DownwardAPIVolumeFile]>,
        default: u32,
    ) -> Result<(), VolumeReason> {
        for item in items.into_iter().flatten() {
            let text = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => downward::field(self.pod, &field.field_path)
                    .filter(|_| field.field_path.starts_with("metadata."))
                    .ok_or_else(|| VolumeReason::Field {
                        field: field.field_path.clone(),
                    })?,
                (None, Some(resource)) => self.resource(resource)?,
                (None, None) => String::new(),
            };
            let file = File {
                data: text.into_bytes(),
                mode: mode(item.mode, default.cast_signed()),
                owner: None,
            };
            payload.files.insert(item.path.clone(), file);
        }
        Ok(())
    }

    fn resource(&self, wanted: &ResourceFieldSelector) -> Result<String, VolumeReason> {
        let name = wanted.container_name.as_deref().unwrap_or_default();
        containers(self.pod)
            .find(|c| c.name == name)
            .and_then(|c| downward::resource(self.pod, c, wanted, self.allocatable))
            .ok_or_else(|| VolumeReason::Resource {
                resource: wanted.resource.clone(),
                container: name.to_owned(),
            })
    }

    async fn token(
        &self,
        payload: &mut Payload,
        source: &ServiceAccountTokenProjection,
        mode: u32,
    ) -> Result<(), VolumeReason> {
        let spec = self.pod.spec.as_ref();
        let account = spec.and_then(|s| s.service_account_name.clone());
        let answer = self
            .objects
            .token(&TokenSpec {
                namespace: self.namespace().to_owned(),
                service_account: account.unwrap_or_else(|| "default".to_owned()),
                pod_name: self.pod.metadata.name.clone().unwrap_or_default(),
                pod_uid: self.pod.metadata.uid.clone().unwrap_or_default(),
                audience: source.audience.clone().filter(|a| !a.is_empty()),
                expiration_seconds: source.expiration_seconds.unwrap_or(DEFAULT_TOKEN_SECONDS),
            })
            .await?;
        let file = self.owned(answer.token.into_bytes(), mode);
        payload.files.insert(source.path.clone(), file);
        payload.renew_by(answer.renew_at);
        Ok(())
    }

    async fn trust(
        &self,
        payload: &mut Payload,
        source: &ClusterTrustBundleProjection,
        mode: u32,
    ) -> Result<(), VolumeReason> {
        payload.refs.insert(ObjectRef::TrustBundles);
        let bundles = self.objects.trust_bundles().await?;
        let file = self.owned(trust::anchors(&bundles, source)?, mode);
        payload.files.insert(source.path.clone(), file);
        Ok(())
    }

    fn certificate_spec(
        &self,
        volume: &str,
        index: usize,
        source: &PodCertificateProjection,
    ) -> CertificateSpec {
        let (meta, spec) = (&self.pod.metadata, self.pod.spec.as_ref());
        let account = spec.and_then(|s| s.service_account_name.clone());
        CertificateSpec {
            namespace: self.namespace().to_owned(),
            service_account: account.unwrap_or_else(|| "default".to_owned()),
            pod_name: meta.name.clone().unwrap_or_default(),
            pod_uid: meta.uid.clone().unwrap_or_default(),
            volume: volume.to_owned(),
            index,
            signer_name: source.signer_name.clone(),
            key_type: source.key_type.clone(),
            max_expiration_seconds: source.max_expiration_seconds,
            annotations: source.user_annotations.clone().unwrap_or_default(),
        }
    }

    async fn certificate(
        &self,
        payload: &mut Payload,
        source: &PodCertificateProjection,
        wanted: &CertificateSpec,
        mode: u32,
    ) -> Result<(), VolumeReason> {
        let answer = self.objects.certificate(wanted).await?;
        let both = format!("{}{}", answer.key_pem, answer.chain_pem);
        let texts = [
            (&source.credential_bundle_path, both),
            (&source.key_path, answer.key_pem),
            (&source.certificate_chain_path, answer.chain_pem),
        ];
        for (path, text) in texts {
            if let Some(path) = path.as_ref().filter(|p| !p.is_empty()) {
                let file = self.owned(text.into_bytes(), mode);
                payload.files.insert(path.clone(), file);
            }
        }
        payload.renew_by(answer.renew_at);
        Ok(())
    }

    /// A file of the one user the containers run as, if there is one.
    fn owned(&self, data: Vec<u8>, mode: u32) -> File {
        let owner = common_user(self.pod);
        let context = self
            .pod
            .spec
            .as_ref()
            .and_then(|s| s.security_context.as_ref());
        // A group's rights are added when the files are given to it.
        let narrow = owner.is_some() || context.is_some_and(|c| c.fs_group.is_some());
        File {
            data,
            mode: if narrow { OWNED_MODE } else { mode },
            owner,
        }
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let init = spec
        .and_then(|s| s.init_containers.as_deref())
        .unwrap_or_default();
    let main = spec.map(|s| s.containers.as_slice()).unwrap_or_default();
    init.iter().chain(main)
}

/// The one user that every container says it runs as: who may own a token.
/// Rule: kubernetes v1.36 pkg/volume/util/util.go `FsUserFrom`.
fn common_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|s| s.security_context.as_ref()?.run_as_user);
    let mut common = None;
    for container in containers(pod) {
        let own = container
            .security_context
            .as_ref()
            .and_then(|c| c.run_as_user);
        let user = own.or(of_pod)?;
        if common.is_some_and(|c| c != user) {
            return None;
        }
        common = Some(user);
    }
    u32::try_from(common?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(of_pod: Option<i64>, users: &[Option<i64>]) -> Pod {
        let containers: Vec<_> = users
            .iter()
            .map(|user| serde_json::json!({"name": "c", "securityContext": {"runAsUser": user}}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "spec": {"containers": containers, "securityContext": {"runAsUser": of_pod}}
        }))
        .unwrap()
    }

    #[test]
    fn a_token_has_an_owner_only_when_all_containers_run_as_one_user() {
        assert_eq!(common_user(&pod(None, &[Some(7), Some(7)])), Some(7));
        assert_eq!(common_user(&pod(Some(7), &[None, Some(7)])), Some(7));
        assert_eq!(common_user(&pod(Some(7), &[Some(8), None])), None);
        assert_eq!(common_user(&pod(None, &[Some(7), None])), None);
    }
}
