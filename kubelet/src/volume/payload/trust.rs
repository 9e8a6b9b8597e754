//! The trust anchors that a ClusterTrustBundle projection selects.
//! Rules: kubernetes v1.37 pkg/kubelet/clustertrustbundle/clustertrustbundle_manager.go.

use super::VolumeReason;
use crate::objects::{ObjectError, TrustBundles};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use kube::core::{Selector, SelectorExt as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::collections::BTreeSet;

/// In the API server's messages.
const KIND: &str = "clustertrustbundle.certificates.k8s.io";
/// RFC 7468.
const LINE: usize = 64;

/// The certificates as one PEM text, each once.
pub(super) fn anchors(
    bundles: &TrustBundles,
    wanted: &ClusterTrustBundleProjection,
) -> Result<Vec<u8>, VolumeReason> {
    let optional = wanted.optional.unwrap_or(false);
    match (&wanted.name, &wanted.signer_name) {
        (Some(name), _) => match bundles.get(name) {
            Some(bundle) => Ok(pem(&[bundle])),
            None if optional => Ok(Vec::new()),
            None => Err(VolumeReason::Object(ObjectError::NotFound {
                kind: KIND,
                namespace: String::new(),
                name: name.clone(),
            })),
        },
        (None, Some(signer)) => {
            let selected = of_signer(bundles, signer, wanted)?;
            if selected.is_empty() && !optional {
                return Err(VolumeReason::Trust {
                    why: "combination of signerName and labelSelector matched zero ClusterTrustBundles",
                });
            }
            Ok(pem(&selected))
        }
        (None, None) => Err(VolumeReason::Trust {
            why: "ClusterTrustBundle projection requires either name or signerName to be set",
        }),
    }
}

/// No selector selects nothing, an empty one everything.
fn of_signer<'a>(
    bundles: &'a TrustBundles,
    signer: &str,
    wanted: &ClusterTrustBundleProjection,
) -> Result<Vec<&'a ClusterTrustBundle>, VolumeReason> {
    let Some(selector) = wanted.label_selector.clone() else {
        return Ok(Vec::new());
    };
    let selector = Selector::try_from(selector).map_err(|_| VolumeReason::Trust {
        why: "the labelSelector of a ClusterTrustBundle projection can't be understood",
    })?;
    let none = Default::default();
    let selects = |bundle: &&ClusterTrustBundle| {
        let labels = bundle.metadata.labels.as_ref().unwrap_or(&none);
        bundle.spec.signer_name.as_deref() == Some(signer) && selector.matches(labels)
    };
    Ok(bundles
        .values()
        .map(AsRef::as_ref)
        .filter(selects)
        .collect())
}

/// In an order that says nothing of the bundles, so that nobody relies on one.
fn pem(bundles: &[&ClusterTrustBundle]) -> Vec<u8> {
    let texts = bundles.iter().map(|b| b.spec.trust_bundle.as_bytes());
    let certificates = texts.flat_map(|text| CertificateDer::pem_slice_iter(text).flatten());
    let once: BTreeSet<Vec<u8>> = certificates.map(|c| c.as_ref().to_vec()).collect();
    once.iter().flat_map(|der| block(der)).collect()
}

fn block(der: &[u8]) -> Vec<u8> {
    let body = BASE64_STANDARD.encode(der);
    let mut text = b"-----BEGIN CERTIFICATE-----\n".to_vec();
    for line in body.as_bytes().chunks(LINE) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(b"-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn bundles() -> TrustBundles {
        let bundle = |name: &str, signer: Option<&str>, label: &str, ders: &[&[u8]]| {
            let text: Vec<u8> = ders.iter().flat_map(|der| block(der)).collect();
            let object = json!({
                "metadata": {"name": name, "labels": {"live": label}},
                "spec": {"signerName": signer, "trustBundle": String::from_utf8(text).unwrap()},
            });
            (
                name.to_owned(),
                Arc::new(serde_json::from_value(object).unwrap()),
            )
        };
        Arc::new(
            [
                bundle("plain", None, "no", &[b"one"]),
                bundle("s:a", Some("s/s"), "yes", &[b"two", b"one"]),
                bundle("s:b", Some("s/s"), "yes", &[b"two"]),
                bundle("s:c", Some("s/s"), "no", &[b"three"]),
            ]
            .into(),
        )
    }

    fn selected(wanted: Value) -> Result<Vec<String>, String> {
        let wanted = serde_json::from_value(wanted).unwrap();
        let text = anchors(&bundles(), &wanted).map_err(|e| e.to_string())?;
        let ders = CertificateDer::pem_slice_iter(&text).flatten();
        Ok(ders
            .map(|d| String::from_utf8(d.to_vec()).unwrap())
            .collect())
    }

    #[test]
    fn a_name_selects_one_bundle_and_a_signer_those_whose_labels_match() {
        assert_eq!(
            selected(json!({"name": "plain", "path": "p"})),
            Ok(vec!["one".into()])
        );
        let signer =
            |selector: Value| json!({"signerName": "s/s", "path": "p", "labelSelector": selector});
        let both = Ok(vec!["one".to_owned(), "two".to_owned()]);
        assert_eq!(
            selected(signer(json!({"matchLabels": {"live": "yes"}}))),
            both,
            "each once"
        );
        assert_eq!(selected(signer(json!({}))).map(|all| all.len()), Ok(3));
        assert!(
            selected(signer(Value::Null)).is_err(),
            "no selector selects nothing"
        );
    }

    #[test]
    fn what_is_missing_is_an_error_unless_it_is_optional() {
        let missing = selected(json!({"name": "x", "path": "p"})).unwrap_err();
        assert!(missing.contains("\"x\" not found"), "{missing}");
        assert_eq!(
            selected(json!({"name": "x", "path": "p", "optional": true})),
            Ok(vec![])
        );
        let none = json!({"signerName": "t/t", "path": "p", "optional": true, "labelSelector": {}});
        assert_eq!(selected(none), Ok(vec![]));
    }
}
