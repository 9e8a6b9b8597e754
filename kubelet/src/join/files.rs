//! The files of a joined node, and their end.
//!
//! Whatever a join makes is written into a journal first, so that
//! [`reset`] removes that and nothing else, after a join that died as well.

use super::JoinError;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

/// Where a joined node's files are.
#[derive(Debug, Clone)]
pub struct JoinRoots {
    /// Usually /etc/kubernetes.
    pub kubernetes: PathBuf,
    /// Usually /var/lib/kubelet.
    pub kubelet: PathBuf,
}

impl Default for JoinRoots {
    fn default() -> Self {
        JoinRoots {
            kubernetes: "/etc/kubernetes".into(),
            kubelet: "/var/lib/kubelet".into(),
        }
    }
}

#[allow(missing_docs)]
impl JoinRoots {
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubernetes.join("kubelet.conf")
    }
    pub fn bootstrap_kubeconfig(&self) -> PathBuf {
        self.kubernetes.join("bootstrap-kubelet.conf")
    }
    pub fn ca(&self) -> PathBuf {
        self.kubernetes.join("pki/ca.crt")
    }
    pub fn manifests(&self) -> PathBuf {
        self.kubernetes.join("manifests")
    }
    pub fn config(&self) -> PathBuf {
        self.kubelet.join("config.yaml")
    }
    pub fn pki(&self) -> PathBuf {
        self.kubelet.join("pki")
    }
    fn journal(&self) -> PathBuf {
        self.kubelet.join("lighter-join.json")
    }
}

/// What a join made.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Made {
    files: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
}

/// Makes files, remembering them.
pub struct Journal {
    path: PathBuf,
    made: Made,
}

impl Journal {
    /// Goes on with the journal of these roots, or begins it.
    pub fn open(roots: &JoinRoots) -> Result<Journal, JoinError> {
        let path = roots.journal();
        let made = std::fs::read(&path).ok();
        let made = made.and_then(|text| serde_json::from_slice(&text).ok());
        let mut journal = Journal {
            made: made.unwrap_or_default(),
            path,
        };
        journal.dir(&roots.kubelet)?;
        Ok(journal)
    }

    /// Makes a directory and those above it.
    pub fn dir(&mut self, path: &Path) -> Result<(), JoinError> {
        let missing: Vec<_> = path.ancestors().take_while(|p| !p.exists()).collect();
        std::fs::create_dir_all(path).map_err(|e| write_error(path, e))?;
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.into_iter().rev().map(Path::to_owned);
        self.made.dirs.extend(missing);
        self.save()
    }

    /// Writes a whole file, by way of a temporary one. A file that stood there
    /// before, with the same bytes, stays its owner's.
    pub fn file(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<(), JoinError> {
        if std::fs::read(path).is_ok_and(|old| old == content) {
            return Ok(());
        }
        if path.exists() && !self.made.files.iter().any(|p| p == path) {
            return Err(JoinError::Occupied {
                path: path.to_owned(),
            });
        }
        if let Some(dir) = path.parent() {
            self.dir(dir)?;
        }
        self.remember(path)?;
        write_atomically(path, content, mode).map_err(|e| write_error(path, e))
    }

    /// Removes a file that only the join itself needed.
    pub fn forget(&mut self, path: &Path) -> Result<(), JoinError> {
        remove(path).map_err(|e| write_error(path, e))?;
        self.made.files.retain(|p| p != path);
        self.save()
    }

    fn remember(&mut self, path: &Path) -> Result<(), JoinError> {
        if !self.made.files.iter().any(|p| p == path) {
            self.made.files.push(path.to_owned());
            self.save()?;
        }
        Ok(())
    }

    fn save(&self) -> Result<(), JoinError> {
        let text = serde_json::to_vec_pretty(&self.made).unwrap_or_default();
        write_atomically(&self.path, &text, 0o600).map_err(|e| write_error(&self.path, e))
    }
}

/// Stores a chain and its key as `<pki>/kubelet-client-<time>.pem`, and points
/// `kubelet-client-current.pem` at it in one step.
///
/// # Errors
/// When the directory can't be written.
pub fn store_identity(
    pki: &Path,
    kind: &str,
    chain: &str,
    key: &str,
) -> Result<PathBuf, std::io::Error> {
    std::fs::create_dir_all(pki)?;
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S%.3f");
    let dated = format!("kubelet-{kind}-{now}.pem");
    let text = format!("{}\n{}\n", chain.trim_end(), key.trim_end());
    write_atomically(&pki.join(&dated), text.as_bytes(), 0o600)?;
    let current = current_identity(pki, kind);
    let next = pki.join(format!(".kubelet-{kind}-next"));
    remove(&next)?;
    symlink(&dated, &next)?;
    std::fs::rename(&next, &current)?;
    Ok(current)
}

/// `<pki>/kubelet-<kind>-current.pem`; kind is `client` or `server`.
pub fn current_identity(pki: &Path, kind: &str) -> PathBuf {
    pki.join(format!("kubelet-{kind}-current.pem"))
}

/// A file in place, whole or not at all, on disk when this returns.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    remove(&temporary)?;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn write_error(path: &Path, source: std::io::Error) -> JoinError {
    JoinError::Write {
        path: path.to_owned(),
        source,
    }
}

/// Why a reset stopped.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ResetError {
    #[error("read the journal {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the journal {path} can't be read; remove what it names by hand")]
    Journal {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("remove {path}")]
    Remove {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Removes exactly what a join made, and the certificates that were rotated in
/// since; answers with the paths, none on a host that was not joined. The Node stays
/// in the cluster: only an administrator may delete it.
///
/// # Errors
/// When something can't be removed: then the rest stays in the journal for another try.
pub fn reset(roots: &JoinRoots) -> Result<Vec<PathBuf>, ResetError> {
    let Some(made) = journal(roots)? else {
        return Ok(Vec::new());
    };
    let mut gone = Vec::new();
    for path in &files(roots, &made) {
        let existed = path.symlink_metadata().is_ok();
        remove(path).map_err(|source| ResetError::Remove {
            path: path.clone(),
            source,
        })?;
        gone.extend(existed.then(|| path.clone()));
    }
    for dir in made.dirs.iter().rev() {
        // What others put there keeps the directory.
        if std::fs::remove_dir(dir).is_ok() {
            gone.push(dir.clone());
        }
    }
    Ok(gone)
}

/// What [`reset`] would remove; a folder stays if others put something there.
///
/// # Errors
/// When the journal can't be read.
pub fn made(roots: &JoinRoots) -> Result<Vec<PathBuf>, ResetError> {
    let Some(made) = journal(roots)? else {
        return Ok(Vec::new());
    };
    let dirs = made.dirs.iter().rev().cloned();
    let all = files(roots, &made).into_iter().chain(dirs);
    Ok(all.filter(|p| p.symlink_metadata().is_ok()).collect())
}

fn journal(roots: &JoinRoots) -> Result<Option<Made>, ResetError> {
    let path = roots.journal();
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ResetError::Read { path, source }),
    };
    let made = serde_json::from_slice(&text);
    made.map(Some)
        .map_err(|source| ResetError::Journal { path, source })
}

/// The newest first, the journal last.
fn files(roots: &JoinRoots, made: &Made) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = made.files.iter().rev().cloned().collect();
    all.extend(identities(&roots.pki()));
    all.push(roots.journal());
    all
}

fn identities(pki: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(pki).into_iter().flatten().flatten();
    let ours = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        name.starts_with("kubelet-client-") || name.starts_with("kubelet-server-")
    };
    entries.map(|e| e.path()).filter(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(JoinRoots);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let base = std::env::temp_dir().join(format!("lighter-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&base);
            std::fs::create_dir_all(&base).unwrap();
            Scratch(JoinRoots {
                kubernetes: base.join("etc"),
                kubelet: base.join("var"),
            })
        }
        fn base(&self) -> &Path {
            self.0.kubelet.parent().unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.base());
        }
    }

    #[test]
    fn reset_removes_what_was_made_and_nothing_else() {
        let scratch = Scratch::new("reset");
        let roots = &scratch.0;
        std::fs::create_dir_all(&roots.kubelet).unwrap();
        std::fs::write(roots.kubelet.join("pods"), "somebody's").unwrap();
        let mut journal = Journal::open(roots).unwrap();
        journal.file(&roots.ca(), b"ca", 0o644).unwrap();
        journal.dir(&roots.manifests()).unwrap();
        std::fs::write(roots.manifests().join("mine.yaml"), "").unwrap();
        journal.dir(&roots.pki()).unwrap();
        store_identity(&roots.pki(), "client", "chain", "key").unwrap();

        let would = made(roots).unwrap();
        assert!(roots.ca().exists(), "only told");
        let gone = reset(roots).unwrap();

        assert!(
            gone.iter().all(|path| would.contains(path)),
            "{gone:?} {would:?}"
        );
        assert!(!roots.ca().exists() && !roots.pki().exists());
        assert!(roots.manifests().join("mine.yaml").exists());
        assert_eq!(
            std::fs::read(roots.kubelet.join("pods")).unwrap(),
            b"somebody's"
        );
        assert_eq!(reset(roots).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(made(roots).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn journal_leaves_a_strangers_file_alone() {
        let scratch = Scratch::new("stranger");
        let roots = &scratch.0;
        std::fs::create_dir_all(roots.ca().parent().unwrap()).unwrap();
        std::fs::write(roots.ca(), "other").unwrap();
        let mut journal = Journal::open(roots).unwrap();
        assert!(matches!(
            journal.file(&roots.ca(), b"ca", 0o644),
            Err(JoinError::Occupied { .. })
        ));
        journal.file(&roots.ca(), b"other", 0o644).unwrap();
        reset(roots).unwrap();
        assert!(roots.ca().exists());
    }

    #[test]
    fn current_identity_follows_the_newest() {
        let scratch = Scratch::new("identity");
        let pki = scratch.0.pki();
        store_identity(&pki, "client", "one", "key").unwrap();
        let current = store_identity(&pki, "client", "two", "key").unwrap();
        assert_eq!(std::fs::read_to_string(current).unwrap(), "two\nkey\n");
    }
}
