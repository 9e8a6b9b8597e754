//! Certificates of pods, from a signer that the test is.

use crate::kit::{FOREVER, Space, condition, pod, same, with, with_main};
use anyhow::{Context as _, Result, ensure};
use e2e::{command, progress};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

crate::tests!(pod_gets_a_certificate_of_each_type_of_key);

const SIGNER: &str = "bed.example/pods";

/// Types of keys, and what openssl says of one.
const TYPES: [(&str, &str); 6] = [
    ("RSA3072", "Private-Key: (3072 bit"),
    ("RSA4096", "Private-Key: (4096 bit"),
    ("ECDSAP256", "ASN1 OID: prime256v1"),
    ("ECDSAP384", "ASN1 OID: secp384r1"),
    ("ECDSAP521", "ASN1 OID: secp521r1"),
    ("ED25519", "ED25519 Private-Key"),
];

fn pod_gets_a_certificate_of_each_type_of_key(t: &Space) -> Result<()> {
    let source = |(kind, _): &(&str, &str)| {
        let path = format!("{kind}.pem");
        json!({ "podCertificate": { "signerName": SIGNER, "keyType": kind, "credentialBundlePath": path } })
    };
    let sources: Vec<Value> = TYPES.iter().map(source).collect();
    let volume = json!({ "volumes": [{ "name": "c", "projected": { "sources": sources } }] });
    let mount = json!({ "volumeMounts": [{ "name": "c", "mountPath": "/c" }] });
    t.apply(&with_main(with(pod("certified", FOREVER), volume), mount))?;
    let signer = Signer::new(t)?;
    // A node may ask for one after the other, and a key takes seconds.
    progress::wait_for(
        "pod with its certificates",
        Duration::from_secs(120),
        || {
            signer.sign_all()?;
            std::thread::sleep(Duration::from_millis(300));
            let ready = condition(&t.pod("certified")?, "Ready") == Some("True");
            Ok(ready.then_some(()))
        },
    )?;
    for (kind, described) in TYPES {
        let bundle = t.sh("certified", &format!("cat /c/{kind}.pem"))?;
        let text = openssl(&["pkey", "-noout", "-text"], bundle.as_bytes())?;
        ensure!(text.contains(described), "{kind}: {text}");
        let of_key = openssl(&["pkey", "-pubout"], bundle.as_bytes())?;
        let of_certificate = openssl(&["x509", "-noout", "-pubkey"], bundle.as_bytes())?;
        same(of_certificate, of_key)?;
    }
    Ok(())
}

fn openssl(args: &[&str], input: &[u8]) -> Result<String> {
    command::run_with_input(Command::new("openssl").args(args), input)
}

/// With a key of its own; its files end with the node's.
struct Signer<'a> {
    t: &'a Space<'a>,
    dir: PathBuf,
}

impl<'a> Signer<'a> {
    fn new(t: &'a Space<'a>) -> Result<Signer<'a>> {
        let dir = t.node().path(&format!("/tmp/{}-signer", t.name));
        std::fs::create_dir_all(&dir)?;
        let signer = Signer { t, dir };
        let make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bed";
        let mut words: Vec<&str> = make.split(' ').collect();
        let (key, own) = (signer.file("key"), signer.file("pem"));
        words.extend(["-keyout", &key, "-out", &own]);
        openssl(&words, b"")?;
        Ok(signer)
    }

    fn file(&self, kind: &str) -> String {
        self.dir.join(format!("ca.{kind}")).display().to_string()
    }

    fn sign_all(&self) -> Result<()> {
        let all = self
            .t
            .kubectl(&["get", "podcertificaterequests", "-o", "json"])?;
        let all: Value = serde_json::from_str(&all)?;
        let waits = |r: &&Value| r["status"]["conditions"].is_null();
        let requests = all["items"].as_array().into_iter().flatten();
        requests.filter(waits).try_for_each(|r| self.sign(r))
    }

    fn sign(&self, request: &Value) -> Result<()> {
        same(request["spec"]["signerName"].as_str(), Some(SIGNER))?;
        let stub = request["spec"]["stubPKCS10Request"].as_str();
        let name = request["metadata"]["name"].as_str().context("no name")?;
        let pem = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            folded(stub.context("no request")?)
        );
        let (key, own) = (self.file("key"), self.file("pem"));
        let words = [
            "x509",
            "-req",
            "-days",
            "1",
            "-CAcreateserial",
            "-subj",
            "/CN=pod",
        ];
        let leaf = openssl(
            &[&words[..], &["-CA", &own, "-CAkey", &key]].concat(),
            pem.as_bytes(),
        )?;
        let date = |which: &str| -> Result<String> {
            let words = ["x509", "-noout", which, "-dateopt", "iso_8601"];
            let said = openssl(&words, leaf.as_bytes())?;
            let at = said
                .trim()
                .split_once('=')
                .map(|(_, at)| at.replace(' ', "T"));
            at.context("no date")
        };
        let (begin, end) = (date("-startdate")?, date("-enddate")?);
        let later = format!("{begin} + 12 hours");
        let refresh = command::run(Command::new("date").args(["-u", "-d", &later, "+%FT%TZ"]))?;
        let mut signed = request.clone();
        signed["status"] = json!({
            "conditions": [{
                "type": "Issued", "status": "True", "reason": "Signed", "message": "",
                "lastTransitionTime": begin,
            }],
            "certificateChain": leaf, "notBefore": begin, "notAfter": end,
            "beginRefreshAt": refresh.trim(),
        });
        let path = format!(
            "/apis/certificates.k8s.io/v1/namespaces/{}/podcertificaterequests/{name}/status",
            self.t.name
        );
        let replace = ["replace", "--raw", &path, "-f", "-"];
        self.t.kubectl_with_input(&replace, &signed.to_string())?;
        Ok(())
    }
}

/// As PEM has it.
fn folded(base64: &str) -> String {
    let lines = base64.as_bytes().chunks(64).map(String::from_utf8_lossy);
    lines.collect::<Vec<_>>().join("\n")
}
