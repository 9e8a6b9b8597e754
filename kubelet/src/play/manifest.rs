//! A file of Kubernetes documents, read into what can run without an API server.

use super::PLAY_LABEL;
use super::templates::{self, Template};
use super::unknown;
use crate::source::default_pod;
use crate::source::yaml::{self, Document, YamlError};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What a file holds.
#[derive(Debug, Default)]
pub struct Manifest {
    /// Names the file: pods of one play are known by it.
    pub id: String,
    /// Pods, and those of Deployments, ReplicaSets, StatefulSets, DaemonSets
    /// and Jobs; defaulted as the API server would, with UIDs.
    pub pods: Vec<Pod>,
    /// For volumes and env.
    pub config_maps: Vec<ConfigMap>,
    /// For volumes, env and imagePullSecrets.
    pub secrets: Vec<Secret>,
    /// What was left out, and misspelt fields: one sentence each.
    pub warnings: Vec<String>,
}

/// Why a file can't be played.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ManifestError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: document {document}, {source}", path.display())]
    Yaml {
        path: PathBuf,
        /// From 1.
        document: usize,
        source: YamlError,
    },
    #[error("{}: document {document}, line {line}: {what}", path.display())]
    Invalid {
        path: PathBuf,
        document: usize,
        line: u64,
        what: String,
    },
    #[error("{}: no Pod, Deployment, StatefulSet, DaemonSet or Job in it", path.display())]
    NothingToRun { path: PathBuf },
}

/// Reads a file; `-` is standard input.
///
/// # Errors
/// The first document that can't be understood: which, on which line, why.
pub fn load(path: &Path) -> Result<Manifest, ManifestError> {
    let failed = |source| ManifestError::Read {
        path: path.to_owned(),
        source,
    };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return parse(&text, path, path);
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let place = path.canonicalize().map_err(failed)?;
    parse(&text, path, &place)
}

/// `shown` is the path for messages, `place` the one that names the play.
fn parse(text: &str, shown: &Path, place: &Path) -> Result<Manifest, ManifestError> {
    let mut manifest = Manifest {
        id: templates::digest(&[&place.to_string_lossy()])[..32].to_owned(),
        ..Manifest::default()
    };
    for (number, document) in (1..).zip(yaml::documents(text)) {
        let mut one = One {
            path: shown,
            number,
            document,
            manifest: &mut manifest,
        };
        one.take()?;
    }
    if manifest.pods.is_empty() {
        let path = shown.to_owned();
        return Err(ManifestError::NothingToRun { path });
    }
    Ok(manifest)
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: HeadMeta,
}

#[derive(serde::Deserialize, Default)]
struct HeadMeta {
    #[serde(default)]
    name: Option<String>,
}

/// One document on its way into the manifest.
struct One<'a> {
    path: &'a Path,
    number: usize,
    document: Document<'a>,
    manifest: &'a mut Manifest,
}

impl One<'_> {
    fn take(&mut self) -> Result<(), ManifestError> {
        let head: Head = self.document.read().map_err(|e| self.yaml(e))?;
        if head.kind.is_empty() || head.api_version.is_empty() {
            return Err(self.invalid("apiVersion and kind are not both set"));
        }
        if head.metadata.name.as_deref().unwrap_or_default().is_empty() {
            return Err(self.invalid("metadata.name is not set"));
        }
        match (head.api_version.as_str(), head.kind.as_str()) {
            ("v1", "Pod") => {
                let pod = self.read::<Pod>()?;
                self.add(vec![pod])
            }
            ("v1", "ConfigMap") => {
                let object = self.read()?;
                self.manifest.config_maps.push(object);
                Ok(())
            }
            ("v1", "Secret") => {
                let object = self.read()?;
                self.manifest.secrets.push(merged(object));
                Ok(())
            }
            ("apps/v1", "Deployment") => self.template::<Deployment>(),
            ("apps/v1", "ReplicaSet") => self.template::<ReplicaSet>(),
            ("apps/v1", "StatefulSet") => self.template::<StatefulSet>(),
            ("apps/v1", "DaemonSet") => self.template::<DaemonSet>(),
            ("batch/v1", "Job") => self.template::<Job>(),
            _ => {
                self.warn_unused(&head);
                Ok(())
            }
        }
    }

    fn read<T: DeserializeOwned + Serialize>(&mut self) -> Result<T, ManifestError> {
        let object: T = self.document.read().map_err(|e| self.yaml(e))?;
        let written: serde_json::Value = self.document.read().map_err(|e| self.yaml(e))?;
        let understood = serde_json::to_value(&object).unwrap_or_default();
        for field in unknown::fields(&written, &understood) {
            let (path, number) = (self.path.display(), self.number);
            let text = format!("{path}: document {number}: unknown field {field} is ignored");
            self.manifest.warnings.push(text);
        }
        Ok(object)
    }

    fn template<T: DeserializeOwned + Serialize + Template>(
        &mut self,
    ) -> Result<(), ManifestError> {
        let owner = self.read::<T>()?;
        self.add(owner.pods())
    }

    fn add(&mut self, pods: Vec<Pod>) -> Result<(), ManifestError> {
        for mut pod in pods {
            if let Some(what) = mistake(&pod) {
                return Err(self.invalid(what));
            }
            default_pod(&mut pod);
            self.adapt(&mut pod);
            let place = |p: &Pod| (p.metadata.namespace.clone(), p.metadata.name.clone());
            if self
                .manifest
                .pods
                .iter()
                .any(|other| place(other) == place(&pod))
            {
                let name = pod.metadata.name.unwrap_or_default();
                return Err(self.invalid(format!("a second pod named {name:?}")));
            }
            self.manifest.pods.push(pod);
        }
        Ok(())
    }

    /// There is no cluster DNS here, and nobody issues tokens.
    fn adapt(&self, pod: &mut Pod) {
        if let Some(spec) = &mut pod.spec
            && spec.dns_policy.as_deref() != Some("None")
        {
            spec.dns_policy = Some("Default".to_owned());
        }
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(PLAY_LABEL.to_owned(), self.manifest.id.clone());
        pod.metadata.uid = Some(templates::uid(pod));
    }

    fn warn_unused(&mut self, head: &Head) {
        let (path, number) = (self.path.display(), self.number);
        let name = head.metadata.name.as_deref().unwrap_or_default();
        let text = format!(
            "{path}: document {number}: {} {name:?} is left out: it needs an API server",
            head.kind
        );
        self.manifest.warnings.push(text);
    }

    fn yaml(&self, source: YamlError) -> ManifestError {
        ManifestError::Yaml {
            path: self.path.to_owned(),
            document: self.number,
            source,
        }
    }

    fn invalid(&self, what: impl Into<String>) -> ManifestError {
        ManifestError::Invalid {
            path: self.path.to_owned(),
            document: self.number,
            line: self.first_line(),
            what: what.into(),
        }
    }

    /// Where the document's content begins.
    fn first_line(&self) -> u64 {
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        let skipped = self.document.text.lines().take_while(blank).count();
        self.document.lines_before + u64::try_from(skipped).unwrap_or(0) + 1
    }
}

/// stringData wins over data, as in the API server.
fn merged(mut secret: Secret) -> Secret {
    let data = secret.data.get_or_insert_default();
    for (key, text) in secret.string_data.take().into_iter().flatten() {
        data.insert(key, k8s_openapi::ByteString(text.into_bytes()));
    }
    secret
}

/// What the API server would have refused and the engine can't do without.
fn mistake(pod: &Pod) -> Option<String> {
    let Some(spec) = &pod.spec else {
        return Some("spec is not set".to_owned());
    };
    if spec.containers.is_empty() {
        return Some("spec.containers is empty".to_owned());
    }
    let volumes: BTreeSet<&str> = spec
        .volumes
        .iter()
        .flatten()
        .map(|v| v.name.as_str())
        .collect();
    let mut names = BTreeSet::new();
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        let name = container.name.as_str();
        if name.is_empty() {
            return Some("a container has no name".to_owned());
        }
        if !names.insert(name) {
            return Some(format!("a second container named {name:?}"));
        }
        if container.image.as_deref().unwrap_or_default().is_empty() {
            return Some(format!("container {name:?} has no image"));
        }
        let mounts = container.volume_mounts.iter().flatten();
        if let Some(mount) = mounts
            .into_iter()
            .find(|m| !volumes.contains(m.name.as_str()))
        {
            return Some(format!(
                "container {name:?} mounts {:?}, which is no volume of the pod",
                mount.name
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: a\n    image: b\n";

    fn read(text: &str) -> Result<Manifest, ManifestError> {
        parse(text, Path::new("f.yaml"), Path::new("/f.yaml"))
    }

    fn refusal(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn pods_are_defaulted_labelled_and_given_a_uid() {
        let manifest = read(POD).unwrap();
        let pod = &manifest.pods[0];
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.termination_grace_period_seconds, Some(30));
        assert_eq!(spec.dns_policy.as_deref(), Some("Default"));
        assert_eq!(
            pod.metadata.labels.as_ref().unwrap()[PLAY_LABEL],
            manifest.id
        );
        assert_eq!(pod.metadata.uid, read(POD).unwrap().pods[0].metadata.uid);
        let changed = read(&POD.replace("image: b", "image: c")).unwrap();
        assert_ne!(pod.metadata.uid, changed.pods[0].metadata.uid);
    }

    #[test]
    fn replicas_and_completions_become_pods_with_names_that_stay() {
        let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {}\n  template: {metadata: {labels: {app: x}}, spec: {containers: [{name: a, image: b}]}}\n---\napiVersion: batch/v1\nkind: Job\nmetadata: {name: once}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}\n";
        let manifest = read(text).unwrap();
        let names: Vec<_> = manifest
            .pods
            .iter()
            .filter_map(|p| p.metadata.name.clone())
            .collect();
        assert_eq!(names, ["web-0", "web-1", "once-0"]);
        assert_eq!(
            manifest.pods[0].metadata.labels.as_ref().unwrap()["app"],
            "x"
        );
    }

    #[test]
    fn secrets_hold_their_string_data() {
        let text = format!(
            "{POD}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\ndata: {{a: eA==, b: eA==}}\nstringData: {{b: plain}}\n"
        );
        let data = read(&text).unwrap().secrets[0].data.clone().unwrap();
        assert_eq!(
            (data["a"].0.as_slice(), data["b"].0.as_slice()),
            (b"x".as_slice(), b"plain".as_slice())
        );
    }

    #[test]
    fn other_kinds_and_misspelt_fields_are_warned_of() {
        let text = format!(
            "{}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n",
            POD.replace("image: b", "image: b\n    imagePulPolicy: Never")
        );
        let warnings = read(&text).unwrap().warnings;
        assert_eq!(
            warnings,
            [
                "f.yaml: document 1: unknown field spec.containers[0].imagePulPolicy is ignored",
                "f.yaml: document 2: Service \"web\" is left out: it needs an API server",
            ]
        );
    }

    #[test]
    fn errors_name_file_document_and_line() {
        assert_eq!(
            refusal(&format!("{POD}---\n\nkind: Pod\n")),
            "f.yaml: document 2, line 10: apiVersion and kind are not both set"
        );
        assert_eq!(
            refusal(&POD.replace("    image: b\n", "")),
            "f.yaml: document 1, line 1: container \"a\" has no image"
        );
        let wrong = refusal(&POD.replace("  - name: a\n    image: b", "    a: b"));
        assert!(wrong.starts_with("f.yaml: document 1, line "), "{wrong}");
        assert_eq!(
            refusal("# nothing\n"),
            "f.yaml: no Pod, Deployment, StatefulSet, DaemonSet or Job in it"
        );
        assert!(refusal(&format!("{POD}---\n{POD}")).ends_with("a second pod named \"web\""));
        let mount = POD.replace(
            "image: b",
            "image: b\n    volumeMounts: [{name: v, mountPath: /v}]",
        );
        assert!(
            refusal(&mount)
                .ends_with("container \"a\" mounts \"v\", which is no volume of the pod")
        );
    }
}
