//! Credential providers: programs that are asked for a registry's credentials.
//! kubernetes v1.37 pkg/credentialprovider/plugin, staging/src/k8s.io/kubelet/pkg/apis/credentialprovider/v1.

use super::auth;
use super::reference::Reference;
use crate::config::duration;
use cri_proto::v1::AuthConfig;
use serde::Deserialize;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;

const CONFIG_KIND: &str = "CredentialProviderConfig";
const CONFIG_VERSION: &str = "kubelet.config.k8s.io/v1";
const PROTOCOL: &str = "credentialprovider.kubelet.k8s.io/v1";
/// plugin.go `ExecPlugin`.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// plugin.go `globalCacheKey`.
const GLOBAL: &str = "global";

/// Why providers can't be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProviderConfigError {
    #[error("read the credential providers' configuration {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the credential providers' configuration {path} has mistakes: {}", mistakes.join("; "))]
    Mistakes {
        path: PathBuf,
        mistakes: Vec<String>,
    },
}

/// Why a provider gave no credentials. Never with its output: that may hold some.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("run {program}")]
    Run {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("no answer within {} s", TIME_LIMIT.as_secs())]
    Slow,
    #[error("it ended with {status}: {said}")]
    Failed {
        status: std::process::ExitStatus,
        said: String,
    },
    #[error("its answer is not a CredentialProviderResponse of {PROTOCOL}")]
    Answer,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    providers: Vec<Provider>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    name: String,
    match_images: Vec<String>,
    #[serde(default)]
    default_cache_duration: Option<String>,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    #[serde(default)]
    token_attributes: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    api_version: String,
    kind: String,
    cache_key_type: String,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: BTreeMap<String, Login>,
}

#[derive(Debug, Clone, Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

type Logins = BTreeMap<String, Login>;

/// All of the node's providers, and what they have said.
#[derive(Debug, Default)]
pub struct Providers {
    programs: PathBuf,
    all: Vec<Provider>,
    /// By provider and by what its answer is good for.
    cache: Mutex<HashMap<(String, String), (Instant, Logins)>>,
}

impl Providers {
    /// Reads which there are; their programs are in `programs`.
    ///
    /// # Errors
    /// Every mistake of the file at once.
    pub fn load(path: &Path, programs: &Path) -> Result<Providers, ProviderConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ProviderConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, programs).map_err(|mistakes| ProviderConfigError::Mistakes {
            path: path.to_owned(),
            mistakes,
        })
    }

    fn parse(text: &str, programs: &Path) -> Result<Providers, Vec<String>> {
        let file: File = serde_saphyr::from_str(text).map_err(|e| vec![e.to_string()])?;
        let mut mistakes = Vec::new();
        if file.kind != CONFIG_KIND || file.api_version != CONFIG_VERSION {
            mistakes.push(format!("it is no {CONFIG_KIND} of {CONFIG_VERSION}"));
        }
        if file.providers.is_empty() {
            mistakes.push("providers: at least one is required".to_owned());
        }
        for provider in &file.providers {
            mistakes.extend(provider.mistakes(programs));
        }
        match mistakes.is_empty() {
            true => Ok(Providers {
                programs: programs.to_owned(),
                all: file.providers,
                cache: Mutex::default(),
            }),
            false => Err(mistakes),
        }
    }

    /// What the providers say of an image, the closest match first. One that fails is passed
    /// over with a warning.
    pub async fn credentials(&self, image: &Reference) -> Vec<AuthConfig> {
        let path = image.path();
        let mut found: Vec<(usize, AuthConfig)> = Vec::new();
        for provider in self.all.iter().filter(|p| p.means(&path)) {
            match self.logins(provider, &path).await {
                Ok(logins) => found.extend(logins.into_iter().filter_map(|(server, login)| {
                    let config = AuthConfig {
                        username: login.username,
                        password: login.password,
                        ..AuthConfig::default()
                    };
                    auth::matches(&server, &path).then(|| (auth::strip(&server).len(), config))
                })),
                Err(error) => tracing::warn!(
                    provider = provider.name,
                    image = path,
                    why = crate::join::report::chain(&error),
                    "credential provider gave nothing"
                ),
            }
        }
        found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        found.into_iter().map(|(_, config)| config).collect()
    }

    async fn logins(&self, provider: &Provider, image: &str) -> Result<Logins, AskError> {
        let registry = image.split('/').next().unwrap_or_default();
        for key in [image, registry, GLOBAL] {
            if let Some(known) = self.cached(&provider.name, key) {
                return Ok(known);
            }
        }
        let response = provider.ask(&self.programs, image).await?;
        let key = match response.cache_key_type.as_str() {
            "Image" => image,
            "Registry" => registry,
            "Global" => GLOBAL,
            _ => return Err(AskError::Answer),
        };
        let said = response.cache_duration.as_deref();
        let kept = said.or(provider.default_cache_duration.as_deref());
        let kept = kept.map(duration::parse).transpose();
        let kept = kept.map_err(|_| AskError::Answer)?.unwrap_or_default();
        if !kept.is_zero() {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            cache.retain(|_, (until, _)| *until > now);
            let entry = (now + kept, response.auth.clone());
            cache.insert((provider.name.clone(), key.to_owned()), entry);
        }
        Ok(response.auth)
    }

    fn cached(&self, provider: &str, key: &str) -> Option<Logins> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, logins) = cache.get(&(provider.to_owned(), key.to_owned()))?;
        (*until > Instant::now()).then(|| logins.clone())
    }
}

impl Provider {
    fn mistakes(&self, programs: &Path) -> Vec<String> {
        let name = &self.name;
        let mut found = Vec::new();
        let mut wrong = |what: String| found.push(format!("provider {name:?}: {what}"));
        if name.is_empty() || name.contains('/') || matches!(name.as_str(), "." | "..") {
            wrong("the name must be that of a program".to_owned());
        } else if !programs.join(name).is_file() {
            wrong(format!(
                "there is no program {}",
                programs.join(name).display()
            ));
        }
        if self.match_images.is_empty() {
            wrong("matchImages: at least one is required".to_owned());
        }
        if self.api_version != PROTOCOL {
            wrong(format!(
                "apiVersion {:?} is not {PROTOCOL}",
                self.api_version
            ));
        }
        match self.default_cache_duration.as_deref().map(duration::parse) {
            Some(Ok(_)) => {}
            Some(Err(e)) => wrong(format!("defaultCacheDuration: {e}")),
            None => wrong("defaultCacheDuration is required".to_owned()),
        }
        if self.token_attributes.is_some() {
            wrong(
                "tokenAttributes: this node gives providers no service account tokens".to_owned(),
            );
        }
        found
    }

    fn means(&self, image: &str) -> bool {
        self.match_images.iter().any(|m| auth::matches(m, image))
    }

    async fn ask(&self, programs: &Path, image: &str) -> Result<Response, AskError> {
        let program = programs.join(&self.name);
        let run = |source| AskError::Run {
            program: program.clone(),
            source,
        };
        let request = json!({
            "apiVersion": PROTOCOL, "kind": "CredentialProviderRequest", "image": image,
        });
        let env = self.env.iter().map(|v| (&v.name, &v.value));
        let mut child = tokio::process::Command::new(&program)
            .args(&self.args)
            .envs(env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that answers without reading is fine.
            let _ = stdin.write_all(request.to_string().as_bytes()).await;
        }
        let output = tokio::time::timeout(TIME_LIMIT, child.wait_with_output()).await;
        let output = output.map_err(|_| AskError::Slow)?.map_err(run)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(AskError::Failed {
                status: output.status,
                said: said.trim().chars().take(500).collect(),
            });
        }
        let response: Response =
            serde_json::from_slice(&output.stdout).map_err(|_| AskError::Answer)?;
        let kind = response.kind == "CredentialProviderResponse";
        match kind && response.api_version == PROTOCOL {
            true => Ok(response),
            false => Err(AskError::Answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::parse;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Bin(PathBuf);

    impl Bin {
        /// A provider that counts how often it was asked, and answers with `cache`.
        fn new(name: &str, cache: &str) -> Bin {
            let dir = std::env::temp_dir().join(format!("lighter-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let answer = json!({
                "apiVersion": PROTOCOL, "kind": "CredentialProviderResponse",
                "cacheKeyType": cache, "auth": {"r.io": {"username": "u", "password": "p"}},
            });
            let script = format!(
                "#!/bin/sh\ncat >>{0}/asked; echo >>{0}/asked\necho '{answer}'\n",
                dir.display()
            );
            let path = dir.join("p");
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            Bin(dir)
        }

        fn providers(&self) -> Providers {
            let config = json!({
                "apiVersion": CONFIG_VERSION, "kind": CONFIG_KIND,
                "providers": [{
                    "name": "p", "matchImages": ["r.io", "*.r.io"], "apiVersion": PROTOCOL,
                    "defaultCacheDuration": "1h",
                }],
            });
            Providers::parse(&config.to_string(), &self.0).unwrap()
        }

        fn asked(&self) -> usize {
            let text = std::fs::read_to_string(self.0.join("asked"));
            text.unwrap_or_default().lines().count()
        }
    }

    impl Drop for Bin {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    async fn pulls(providers: &Providers, images: &[&str]) -> Vec<usize> {
        let mut found = Vec::new();
        for image in images {
            let image = parse(image).unwrap();
            found.push(providers.credentials(&image).await.len());
        }
        found
    }

    #[tokio::test]
    async fn answer_is_kept_for_an_image_a_registry_or_everything() {
        for (cache, asked) in [("Image", 3), ("Registry", 2), ("Global", 1)] {
            let bin = Bin::new(cache, cache);
            let providers = bin.providers();
            let images = ["r.io/a", "r.io/a:2", "r.io/b", "eu.r.io/a", "other.io/a"];
            assert_eq!(pulls(&providers, &images).await, [1, 1, 1, 0, 0], "{cache}");
            assert_eq!(bin.asked(), asked, "{cache}");
        }
    }

    #[tokio::test]
    async fn provider_that_answers_nonsense_gives_nothing() {
        let bin = Bin::new("nonsense", "Sometimes");
        assert_eq!(pulls(&bin.providers(), &["r.io/a"]).await, [0]);
    }

    #[test]
    fn every_mistake_of_the_configuration_is_told_at_once() {
        let config = json!({
            "apiVersion": "v0", "kind": CONFIG_KIND,
            "providers": [{"name": "none", "matchImages": [], "apiVersion": "v0", "tokenAttributes": {}}],
        });
        let mistakes = Providers::parse(&config.to_string(), Path::new("/nonexistent"));
        let mistakes = mistakes.err().unwrap_or_default();
        assert_eq!(mistakes.len(), 6, "{mistakes:#?}");
    }
}
