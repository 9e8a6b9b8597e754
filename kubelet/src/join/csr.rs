//! A certificate of the cluster for a key of ours (CertificateSigningRequest).
//!
//! Subject, usages and names follow what the controller manager's approver
//! accepts; anything else stays pending for ever without a word.

use super::report;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use std::net::IpAddr;
use std::time::Duration;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum CsrError {
    #[error("make a key and a certificate request")]
    Key(#[source] rcgen::Error),
    #[error("{what} the certificate request {name}: {reason}")]
    Api {
        what: &'static str,
        name: String,
        reason: String,
        /// The server answered, and will answer the same again.
        refused: bool,
    },
    #[error(
        "the certificate request {name} for {subject} was not signed within {}s; on the control \
         plane: kubectl certificate approve {name}", .waited.as_secs()
    )]
    NotSigned {
        name: String,
        subject: String,
        waited: Duration,
    },
    #[error("the certificate request {name} is {condition}: {message}")]
    Denied {
        name: String,
        condition: String,
        message: String,
    },
    #[error("the certificate issued for {name} is not PEM")]
    NotPem { name: String },
}

/// What the certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Talking to the API server.
    Client,
    /// Serving :10250; approved by a person or an approver of the cluster.
    Serving(Names),
}

/// What a serving certificate is good for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Names of the node.
    pub dns: Vec<String>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// A request not yet made.
pub struct Request {
    node_name: String,
    purpose: Purpose,
    key: KeyPair,
}

/// How long to wait, and whom to tell that somebody may have to approve.
pub struct Patience<'a> {
    /// Give up after this long.
    pub limit: Duration,
    /// Called once, with a sentence, after [`SPEAK_UP_AFTER`].
    pub speak: &'a (dyn Fn(&str) + Send + Sync),
}

/// After this long without an answer it is likely that nobody approves.
pub const SPEAK_UP_AFTER: Duration = Duration::from_secs(15);

/// A new P-256 key in PEM form.
///
/// # Errors
/// When the system has no randomness.
pub fn new_key() -> Result<String, CsrError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(CsrError::Key)?;
    Ok(key.serialize_pem())
}

impl Request {
    /// For a node, with a key from [`new_key`].
    ///
    /// # Errors
    /// When the key is not PEM.
    pub fn new(node_name: &str, purpose: Purpose, key_pem: &str) -> Result<Request, CsrError> {
        Ok(Request {
            node_name: node_name.to_owned(),
            purpose,
            key: KeyPair::from_pem(key_pem).map_err(CsrError::Key)?,
        })
    }

    /// The same key, for the same names, has the same name: a restart finds its request.
    pub fn name(&self) -> String {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(self.key.public_key_raw());
        let prefix = match &self.purpose {
            Purpose::Client => "node-csr-",
            Purpose::Serving(names) => {
                digest.update(format!("{names:?}").as_bytes());
                "node-serving-csr-"
            }
        };
        let digest = digest.finish();
        let hex = digest.as_ref().iter().map(|b| format!("{b:02x}"));
        prefix.to_owned() + &hex.collect::<String>()
    }

    /// `O=system:nodes, CN=system:node:<name>`.
    pub fn subject(&self) -> String {
        format!("O=system:nodes, CN=system:node:{}", self.node_name)
    }

    fn pem(&self) -> Result<String, CsrError> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "system:nodes");
        name.push(
            DnType::CommonName,
            format!("system:node:{}", self.node_name),
        );
        params.distinguished_name = name;
        if let Purpose::Serving(Names { dns, ips }) = &self.purpose {
            for name in dns {
                let name = name.as_str().try_into().map_err(CsrError::Key)?;
                params.subject_alt_names.push(SanType::DnsName(name));
            }
            let ips = ips.iter().copied().map(SanType::IpAddress);
            params.subject_alt_names.extend(ips);
        }
        let request = params.serialize_request(&self.key).map_err(CsrError::Key)?;
        request.pem().map_err(CsrError::Key)
    }

    fn object(&self) -> Result<CertificateSigningRequest, CsrError> {
        let (signer, usage) = match self.purpose {
            Purpose::Client => ("kubernetes.io/kube-apiserver-client-kubelet", "client auth"),
            Purpose::Serving(_) => ("kubernetes.io/kubelet-serving", "server auth"),
        };
        Ok(CertificateSigningRequest {
            metadata: ObjectMeta {
                name: Some(self.name()),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(self.pem()?.into_bytes()),
                signer_name: signer.to_owned(),
                usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        })
    }
}

/// Asks and waits; the chain in PEM form.
///
/// # Errors
/// When the request is refused, denied, or not signed in time.
pub async fn obtain(
    client: &kube::Client,
    request: &Request,
    patience: Patience<'_>,
) -> Result<String, CsrError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = request.name();
    match api.create(&PostParams::default(), &request.object()?).await {
        Ok(_) => {}
        // Ours from before a restart: the name is the key's digest.
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(e) => return Err(api_error("create", &name, &e)),
    }
    let limit = patience.limit;
    match tokio::time::timeout(limit, signed(&api, request, patience)).await {
        Ok(result) => result,
        Err(_) => Err(CsrError::NotSigned {
            name,
            subject: request.subject(),
            waited: limit,
        }),
    }
}

async fn signed(
    api: &Api<CertificateSigningRequest>,
    request: &Request,
    patience: Patience<'_>,
) -> Result<String, CsrError> {
    let name = request.name();
    let seen = watcher::watch_object(api.clone(), &name).default_backoff();
    futures::pin_mut!(seen);
    let silence = tokio::time::sleep(SPEAK_UP_AFTER);
    futures::pin_mut!(silence);
    let mut spoken = false;
    loop {
        tokio::select! {
            next = seen.next() => match next {
                Some(Ok(Some(csr))) => if let Some(result) = verdict(&name, csr.status) {
                    return result;
                },
                Some(Err(watcher::Error::InitialListFailed(e) | watcher::Error::WatchStartFailed(e))) => {
                    if let kube::Error::Api(status) = &e && (status.code == 401 || status.code == 403) {
                        return Err(api_error("watch", &name, &e));
                    }
                }
                _ => {}
            },
            () = &mut silence, if !spoken => {
                spoken = true;
                (patience.speak)(&format!(
                    "still waiting for {name} ({}, usages: digital signature and {}); \
                     if nobody approves it: kubectl certificate approve {name}",
                    request.subject(),
                    match request.purpose { Purpose::Client => "client auth", Purpose::Serving(_) => "server auth" },
                ));
            }
        }
    }
}

/// `None` while it is pending.
fn verdict(
    name: &str,
    status: Option<CertificateSigningRequestStatus>,
) -> Option<Result<String, CsrError>> {
    let status = status?;
    let bad = |c: &&_| {
        let c: &k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition = c;
        c.type_ == "Denied" || c.type_ == "Failed"
    };
    if let Some(condition) = status.conditions.iter().flatten().find(bad) {
        return Some(Err(CsrError::Denied {
            name: name.to_owned(),
            condition: condition.type_.to_lowercase(),
            message: condition.message.clone().unwrap_or_default(),
        }));
    }
    let certificate = status.certificate?.0;
    if certificate.is_empty() {
        return None;
    }
    Some(
        String::from_utf8(certificate).map_err(|_| CsrError::NotPem {
            name: name.to_owned(),
        }),
    )
}

fn api_error(what: &'static str, name: &str, e: &kube::Error) -> CsrError {
    CsrError::Api {
        what,
        name: name.to_owned(),
        reason: report::reason(e),
        refused: matches!(e, kube::Error::Api(s) if s.code < 500 && s.code != 429),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition;
    use x509_parser::prelude::*;

    fn parsed(purpose: Purpose) -> (Vec<u8>, String) {
        let request = Request::new("n1", purpose, &new_key().unwrap()).unwrap();
        let pem = request.pem().unwrap();
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        (pem.contents, request.name())
    }

    #[test]
    fn client_request_has_the_exact_subject_and_no_names() {
        let (der, _) = parsed(Purpose::Client);
        let (_, csr) = X509CertificationRequest::from_der(&der).unwrap();
        let info = &csr.certification_request_info;
        assert_eq!(
            info.subject.to_string(),
            "O=system:nodes, CN=system:node:n1"
        );
        assert!(
            csr.requested_extensions()
                .is_none_or(|mut e| e.next().is_none())
        );
        assert_eq!(
            info.subject_pki.algorithm.algorithm.to_id_string(),
            "1.2.840.10045.2.1"
        );
    }

    #[test]
    fn serving_request_names_the_node_and_its_addresses() {
        let (der, _) = parsed(Purpose::Serving(Names {
            dns: vec!["n1".into()],
            ips: vec!["10.0.0.1".parse().unwrap()],
        }));
        let (_, csr) = X509CertificationRequest::from_der(&der).unwrap();
        let names = csr.requested_extensions().unwrap().find_map(|e| match e {
            ParsedExtension::SubjectAlternativeName(names) => Some(names.general_names.len()),
            _ => None,
        });
        assert_eq!(names, Some(2));
    }

    #[test]
    fn name_follows_the_key_and_what_it_is_for() {
        let key = new_key().unwrap();
        let name = |key: &str| Request::new("n1", Purpose::Client, key).unwrap().name();
        assert_eq!(name(&key), name(&key));
        assert_ne!(name(&key), name(&new_key().unwrap()));
        let serving = |ip: &str| {
            let ips = vec![ip.parse().unwrap()];
            let names = Names {
                dns: Vec::new(),
                ips,
            };
            let request = Request::new("n1", Purpose::Serving(names), &key);
            request.unwrap().name()
        };
        assert_ne!(serving("10.0.0.1"), serving("10.0.0.2"));
    }

    #[test]
    fn verdict_waits_while_pending_and_reports_denial() {
        assert!(verdict("x", None).is_none());
        assert!(verdict("x", Some(CertificateSigningRequestStatus::default())).is_none());
        let denied = CertificateSigningRequestStatus {
            conditions: Some(vec![CertificateSigningRequestCondition {
                type_: "Denied".into(),
                message: Some("no".into()),
                ..Default::default()
            }]),
            certificate: None,
        };
        let e = verdict("x", Some(denied)).unwrap().unwrap_err();
        assert_eq!(e.to_string(), "the certificate request x is denied: no");
    }
}
