//! Keys of pods' certificates, each with a certificate request of nothing but the key, signed by it.
//!
//! ring, which does all else here, makes no RSA keys and does not know P-521: these are made with
//! RustCrypto's crates. RSA keys are used by ring all the same.

use k8s_openapi::ByteString;
use p521::ecdsa::signature::Signer as _;
use p521::ecdsa::{DerSignature, SigningKey};
use p521::elliptic_curve::Generate as _;
use p521::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use ring::rand::{SecureRandom as _, SystemRandom};
use rsa::rand_core::{TryCryptoRng, TryRng, UnwrapErr};
use rustls_pki_types::PrivatePkcs8KeyDer;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, Tag};

/// A key and the proof that it is had.
pub struct PodKey {
    pub pem: String,
    pub proof: ByteString,
}

impl PodKey {
    /// Of a `keyType` of projected volumes. An RSA key takes seconds.
    pub fn make(kind: &str) -> Result<PodKey, String> {
        let pair = match kind {
            "ECDSAP256" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            "ECDSAP384" => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            "ED25519" => return ed25519().map_err(text),
            "RSA3072" => return rsa(3072),
            "RSA4096" => return rsa(4096),
            "ECDSAP521" => return p521(),
            other => return Err(format!("keys of type {other} can't be made by this node")),
        };
        signed(&pair.map_err(text)?).map_err(text)
    }
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

fn signed(key: &KeyPair) -> Result<PodKey, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key)?;
    Ok(PodKey {
        pem: key.serialize_pem(),
        proof: ByteString(request.der().to_vec()),
    })
}

/// RFC 8410, in the first version of its format, which has no public key: ring writes the second,
/// which OpenSSL 3.0 does not read.
fn ed25519() -> Result<PodKey, rcgen::Error> {
    const BEFORE: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let mut der = [0; 48];
    der[..16].copy_from_slice(&BEFORE);
    let filled = SystemRandom::new().fill(&mut der[16..]);
    filled.map_err(|_| rcgen::Error::RingUnspecified)?;
    let der = PrivatePkcs8KeyDer::from(&der[..]);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)?;
    signed(&pair)
}

fn rsa(bits: usize) -> Result<PodKey, String> {
    let key = rsa::PrivateKey::new(&mut UnwrapErr(Kernel::new()), bits);
    let der = key.map_err(text)?.to_pkcs8_der();
    let der = der.map_err(text)?;
    let der = PrivatePkcs8KeyDer::from(der.as_bytes());
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_RSA_SHA256);
    signed(&pair.map_err(text)?).map_err(text)
}

/// The request is written out: rcgen has no such algorithm with ring.
fn p521() -> Result<PodKey, String> {
    let key = SigningKey::try_generate_from_rng(&mut Kernel::new());
    let key = key.map_err(text)?;
    let public = key.verifying_key().to_public_key_der();
    let public = public.map_err(text)?;
    // RFC 2986: version, an empty subject, the key, no attributes.
    let info = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_u8(0);
            writer.next().write_sequence(|_| {});
            writer.next().write_der(public.as_bytes());
            let none = |writer: DERWriter<'_>| writer.write_set(|_| {});
            writer.next().write_tagged_implicit(Tag::context(0), none);
        });
    });
    let signature: DerSignature = key.sign(&info);
    let request = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&info);
            let algorithm = ObjectIdentifier::from_slice(ECDSA_WITH_SHA512);
            let algorithm = |writer: &mut yasna::DERWriterSeq<'_>| {
                writer.next().write_oid(&algorithm);
            };
            writer.next().write_sequence(algorithm);
            let bytes = signature.as_bytes();
            writer.next().write_bitvec_bytes(bytes, 8 * bytes.len());
        });
    });
    let pem = key.to_pkcs8_pem(LineEnding::LF);
    Ok(PodKey {
        pem: pem.map_err(text)?.to_string(),
        proof: ByteString(request),
    })
}

/// RFC 5758.
const ECDSA_WITH_SHA512: &[u64] = &[1, 2, 840, 10045, 4, 3, 4];

/// The kernel's randomness, by ring.
struct Kernel(SystemRandom);

impl Kernel {
    fn new() -> Kernel {
        Kernel(SystemRandom::new())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the kernel gives no random numbers")]
struct NoRandomness;

impl TryRng for Kernel {
    type Error = NoRandomness;

    fn try_next_u32(&mut self) -> Result<u32, NoRandomness> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, NoRandomness> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), NoRandomness> {
        self.0.fill(bytes).map_err(|_| NoRandomness)
    }
}

impl TryCryptoRng for Kernel {}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::FromDer as _;

    /// Another implementation's word on what was made, and its own key out of the PEM.
    fn openssl(args: &[&str], input: &[u8]) -> String {
        use std::io::Write as _;
        use std::process::{Command, Stdio};
        let mut child = Command::new("openssl")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said + &String::from_utf8_lossy(&output.stdout)
    }

    #[test]
    fn request_has_the_key_and_names_nobody() {
        for kind in [
            "ECDSAP256",
            "ECDSAP384",
            "ECDSAP521",
            "ED25519",
            "RSA3072",
            "RSA4096",
        ] {
            let key = PodKey::make(kind).unwrap();
            let (rest, request) = X509CertificationRequest::from_der(&key.proof.0).unwrap();
            assert!(rest.is_empty());
            let info = &request.certification_request_info;
            assert_eq!(info.subject.iter().count(), 0, "{kind}");
            assert_eq!(info.attributes().len(), 0, "{kind}");
            assert!(key.pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        }
        assert!(PodKey::make("RSA1024").is_err());
    }

    #[test]
    #[ignore = "needs openssl"]
    fn every_key_is_read_and_its_request_verified_by_openssl() {
        for (kind, described) in [
            ("ECDSAP256", "ASN1 OID: prime256v1"),
            ("ECDSAP384", "ASN1 OID: secp384r1"),
            ("ECDSAP521", "ASN1 OID: secp521r1"),
            ("ED25519", "ED25519 Private-Key"),
            ("RSA3072", "Private-Key: (3072 bit"),
            ("RSA4096", "Private-Key: (4096 bit"),
        ] {
            let key = PodKey::make(kind).unwrap();
            let text = openssl(&["pkey", "-noout", "-text"], key.pem.as_bytes());
            assert!(text.contains(described), "{kind}: {text}");
            let verify = ["req", "-inform", "DER", "-noout", "-verify", "-pubkey"];
            let verified = openssl(&verify, &key.proof.0);
            assert!(verified.contains("verify OK"), "{kind}: {verified}");
            let public = openssl(&["pkey", "-pubout"], key.pem.as_bytes());
            assert!(verified.contains(public.trim()), "{kind}: {verified}");
        }
    }
}
