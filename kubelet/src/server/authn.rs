//! Who is asking: a client certificate of our CA, a bearer token that the API
//! server vouches for, or nobody.

use crate::join::report::reason;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::{Api, ObjectMeta, PostParams};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Somebody known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The chain that a connection presented.
pub type PeerChain = Arc<Vec<CertificateDer<'static>>>;

/// What a request brought along.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// From TLS.
    pub chain: Option<PeerChain>,
    /// From the Authorization header.
    pub bearer: Option<String>,
}

/// Why nobody is known.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AuthnError {
    #[error("no credentials that count")]
    Unauthorized,
    #[error("TokenReview: {0}")]
    Unavailable(String),
}

/// Settings of authentication.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct AuthnOptions {
    pub client_ca_file: Option<PathBuf>,
    pub anonymous: bool,
    pub webhook: bool,
    pub cache_ttl: Duration,
}

/// SHA-256 of a token: the token itself is not kept.
type Digest = [u8; 32];
/// When, and who it was.
type Review = (Instant, Option<User>);

/// Tells who is asking.
pub struct Authenticator {
    options: AuthnOptions,
    client: Option<kube::Client>,
    reviewed: Mutex<HashMap<Digest, Review>>,
}

impl Authenticator {
    /// Without a client tokens count for nothing.
    pub fn new(options: AuthnOptions, client: Option<kube::Client>) -> Authenticator {
        Authenticator {
            options,
            client,
            reviewed: Mutex::default(),
        }
    }

    /// Certificate first, then token, then anonymous if allowed; credentials
    /// that are wrong are never taken for none.
    ///
    /// # Errors
    /// [`AuthnError::Unauthorized`], or when the API server can't be asked.
    pub async fn authenticate(&self, credentials: &Credentials) -> Result<User, AuthnError> {
        let chain = credentials.chain.as_deref().filter(|c| !c.is_empty());
        if let Some(user) = chain.and_then(|c| self.by_certificate(c)) {
            return Ok(user);
        }
        if let Some(token) = &credentials.bearer {
            return self.by_token(token).await?.ok_or(AuthnError::Unauthorized);
        }
        match self.options.anonymous && chain.is_none() {
            true => Ok(User {
                name: "system:anonymous".to_owned(),
                groups: vec!["system:unauthenticated".to_owned()],
                ..User::default()
            }),
            false => Err(AuthnError::Unauthorized),
        }
    }

    /// The CA file is read each time: it is small, and may be replaced.
    fn by_certificate(&self, chain: &[CertificateDer<'static>]) -> Option<User> {
        let pem = std::fs::read(self.options.client_ca_file.as_ref()?).ok()?;
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let (leaf, rest) = chain.split_first()?;
        let verified = verifier
            .build()
            .ok()?
            .verify_client_cert(leaf, rest, UnixTime::now());
        match verified {
            Ok(_) => user_of(leaf),
            Err(error) => {
                tracing::debug!(%error, "client certificate not accepted");
                None
            }
        }
    }

    async fn by_token(&self, token: &str) -> Result<Option<User>, AuthnError> {
        let Some(client) = self.client.as_ref().filter(|_| self.options.webhook) else {
            return Ok(None);
        };
        let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
        let key: Digest = digest.as_ref().try_into().unwrap_or_default();
        if let Some(user) = self.cached(&key) {
            return Ok(user);
        }
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            status: None,
        };
        let api: Api<TokenReview> = Api::all(client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let status = answer
            .map_err(|e| AuthnError::Unavailable(reason(&e)))?
            .status
            .unwrap_or_default();
        let user = (status.authenticated == Some(true))
            .then(|| from_info(status.user.unwrap_or_default()));
        self.remember(key, user.clone());
        Ok(user)
    }

    fn cached(&self, key: &Digest) -> Option<Option<User>> {
        let mut reviewed = self.reviewed.lock().unwrap_or_else(PoisonError::into_inner);
        let ttl = self.options.cache_ttl;
        reviewed.retain(|_, (at, user)| {
            // A refusal is remembered for a moment only: tokens become valid.
            let ttl = if user.is_some() {
                ttl
            } else {
                ttl.min(REFUSAL_TTL)
            };
            at.elapsed() < ttl
        });
        reviewed.get(key).map(|(_, user)| user.clone())
    }

    fn remember(&self, key: Digest, user: Option<User>) {
        let mut reviewed = self.reviewed.lock().unwrap_or_else(PoisonError::into_inner);
        reviewed.insert(key, (Instant::now(), user));
    }
}

/// kubernetes v1.37 staging/src/k8s.io/apiserver/pkg/authentication/token/cache
/// `failureTTL` as delegating authentication sets it.
const REFUSAL_TTL: Duration = Duration::from_secs(10);

fn from_info(info: UserInfo) -> User {
    User {
        name: info.username.unwrap_or_default(),
        uid: info.uid.unwrap_or_default(),
        groups: info.groups.unwrap_or_default(),
        extra: info.extra.unwrap_or_default(),
    }
}

/// CN is the name, each O a group.
fn user_of(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok());
    let mut groups: Vec<_> = groups.map(str::to_owned).collect();
    groups.push("system:authenticated".to_owned());
    Some(User {
        name,
        groups,
        ..User::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    struct Ca(Issuer<'static, KeyPair>, String);

    fn ca() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "ca");
        let pem = params.self_signed(&key).unwrap().pem();
        Ca(Issuer::new(params, key), pem)
    }

    fn leaf(ca: &Ca, name: &str, group: &str) -> PeerChain {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &ca.0).unwrap();
        Arc::new(vec![certificate.der().clone()])
    }

    fn authenticator(file: &str, ca: &Ca, anonymous: bool) -> Authenticator {
        let path = std::env::temp_dir().join(format!("lighter-{file}-{}.crt", std::process::id()));
        std::fs::write(&path, &ca.1).unwrap();
        let options = AuthnOptions {
            client_ca_file: Some(path),
            anonymous,
            webhook: true,
            cache_ttl: Duration::from_secs(60),
        };
        Authenticator::new(options, None)
    }

    fn with_chain(chain: PeerChain) -> Credentials {
        Credentials {
            chain: Some(chain),
            bearer: None,
        }
    }

    #[tokio::test]
    async fn certificate_of_our_ca_names_its_user() {
        let ca = ca();
        let authenticator = authenticator("authn-ours", &ca, false);
        let chain = leaf(&ca, "kube-apiserver", "admins");
        let user = authenticator
            .authenticate(&with_chain(chain))
            .await
            .unwrap();
        assert_eq!(user.name, "kube-apiserver");
        assert_eq!(user.groups, ["admins", "system:authenticated"]);
    }

    #[tokio::test]
    async fn strangers_certificate_is_nobody_even_when_anonymous_is_allowed() {
        let (ours, theirs) = (ca(), ca());
        let authenticator = authenticator("authn-strange", &ours, true);
        let stranger = with_chain(leaf(&theirs, "root", "system:masters"));
        assert!(authenticator.authenticate(&stranger).await.is_err());
        let nobody = authenticator
            .authenticate(&Credentials::default())
            .await
            .unwrap();
        assert_eq!(nobody.name, "system:anonymous");
    }

    #[tokio::test]
    async fn nobody_is_let_in_when_anonymous_is_off() {
        let authenticator = authenticator("authn-off", &ca(), false);
        assert!(
            authenticator
                .authenticate(&Credentials::default())
                .await
                .is_err()
        );
    }
}
