//! What CRI has no verb for, asked of a running agent or runtime over a socket of
//! its own: `control.sock` in the state directory, for root alone.
//!
//! A request is one line, after it perhaps bytes until the writing side is shut;
//! the answer is one JSON value, `{"done": …}` or `{"error": "…"}`.
//!
//! | line | bytes | done |
//! |---|---|---|
//! | `waterfall` | | the last [`Start`]s |
//! | `import` | an archive of images | names of what was imported |
//! | `import DIRECTORY` | | the same, of an OCI layout that is no single file |

use crate::waterfall::{Start, Starts};
use anyhow::{Context, anyhow, bail};
use runtime::image::{Image, Store};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// The socket in the state directory.
pub fn socket(config: &runtime::Config) -> PathBuf {
    config.state.join("control.sock")
}

/// What requests are answered from.
#[derive(Clone)]
pub struct Control {
    pub starts: Arc<Starts>,
    /// Absent when the runtime is not ours.
    pub images: Option<Arc<Store>>,
}

/// Serves until the task is aborted.
///
/// # Errors
/// When the socket can't be made.
pub fn serve(path: &Path, control: Control) -> anyhow::Result<JoinHandle<()>> {
    let _ = std::fs::remove_file(path);
    // With somebody else's runtime nobody has made the folder yet.
    let listener = path
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| UnixListener::bind(path))
        .and_then(|listener| {
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(path, mode).map(|()| listener)
        })
        .with_context(|| format!("listen on {}", path.display()))?;
    Ok(tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, control.clone()));
        }
    }))
}

async fn answer(stream: tokio::net::UnixStream, control: Control) {
    let answered = async {
        let mut stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let (stream, line) = blocking(move || {
            let line = first_line(&mut stream)?;
            Ok((stream, line))
        })
        .await?;
        let answer = match control.request(&line, stream.try_clone()?).await {
            Ok(done) => json!({ "done": done }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        blocking(move || conclude(&stream, &answer.to_string())).await
    };
    let answered: anyhow::Result<()> = answered.await;
    if let Err(error) = answered {
        tracing::debug!(error = format!("{error:#}"), "a control request broke off");
    }
}

/// Bytes that nobody reads would reset the connection under the answer.
fn conclude(mut stream: &UnixStream, answer: &str) -> anyhow::Result<()> {
    stream.shutdown(Shutdown::Read)?;
    io::copy(&mut stream, &mut io::sink())?;
    Ok(stream.write_all(answer.as_bytes())?)
}

impl Control {
    async fn request(&self, line: &str, bytes: UnixStream) -> anyhow::Result<Value> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("waterfall", "") => Ok(json!(self.starts.list())),
            ("import", directory) => {
                let images = self.images.as_ref();
                let images = images.context("the runtime is not Lighter's: import there")?;
                let imported = match directory {
                    "" => images.import_stream(bytes, None).await?,
                    directory => images.import(Path::new(directory), None).await?,
                };
                Ok(json!(names(&imported)))
            }
            _ => bail!("no such request: {line:?}"),
        }
    }
}

/// What a person calls them.
pub fn names(images: &[Arc<Image>]) -> Vec<String> {
    let name = |image: &Arc<Image>| image.repo_tags.first().unwrap_or(&image.id).clone();
    images.iter().map(name).collect()
}

fn first_line(stream: &mut UnixStream) -> anyhow::Result<String> {
    const LONGEST: usize = 4096;
    let mut line = Vec::new();
    let mut byte = [0];
    // Byte by byte: what follows the line is not ours to buffer.
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
        if line.len() > LONGEST {
            bail!("a request of more than {LONGEST} bytes");
        }
    }
    Ok(String::from_utf8(line)?)
}

/// The last starts of the process that serves there.
///
/// # Errors
/// When nobody serves.
pub async fn waterfall(path: &Path) -> anyhow::Result<Vec<Start>> {
    let connected = connect(path)?;
    let stream = connected.ok_or_else(|| {
        let path = path.display();
        anyhow!("nobody serves {path}: is `lighter agent` or `lighter runtime` running?")
    })?;
    blocking(move || ask(&stream, "waterfall", &mut io::empty())).await
}

/// Has an archive (`-`: standard input) imported by the process that serves
/// there; `None` when there is none.
///
/// # Errors
/// When the archive can't be read, or the import fails.
pub async fn import(path: &Path, archive: &Path) -> anyhow::Result<Option<Vec<String>>> {
    let Some(stream) = connect(path)? else {
        return Ok(None);
    };
    let archive = archive.to_owned();
    let asked = blocking(move || {
        if archive == Path::new("-") {
            return ask(&stream, "import", &mut io::stdin().lock());
        }
        let absolute = archive.canonicalize();
        let absolute = absolute.with_context(|| format!("open {}", archive.display()))?;
        if absolute.is_dir() {
            return ask(
                &stream,
                &format!("import {}", absolute.display()),
                &mut io::empty(),
            );
        }
        let mut file = std::fs::File::open(&absolute)
            .with_context(|| format!("open {}", archive.display()))?;
        ask(&stream, "import", &mut file)
    });
    asked.await.map(Some)
}

fn connect(path: &Path) -> anyhow::Result<Option<UnixStream>> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        // A socket that nobody listens on is left of one who was killed.
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("connect to {}", path.display())),
    }
}

fn ask<T: DeserializeOwned>(
    mut stream: &UnixStream,
    line: &str,
    bytes: &mut impl Read,
) -> anyhow::Result<T> {
    writeln!(stream, "{line}")?;
    match io::copy(bytes, &mut stream) {
        // It has heard enough, and its answer says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        copied => drop(copied.context("send the archive")?),
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut text = Vec::new();
    stream.read_to_end(&mut text).context("read the answer")?;
    let mut answer: Value = serde_json::from_slice(&text).context("read the answer")?;
    if let Some(error) = answer["error"].as_str() {
        bail!("{error}");
    }
    Ok(serde_json::from_value(answer["done"].take())?)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(name: &str) -> (PathBuf, JoinHandle<()>) {
        let path = std::env::temp_dir().join(format!("lighter-{name}-{}.sock", std::process::id()));
        let control = Control {
            starts: Arc::default(),
            images: None,
        };
        let task = serve(&path, control).expect("a socket");
        (path, task)
    }

    #[tokio::test]
    async fn waterfall_is_answered_to_root_alone() {
        let (path, task) = served("waterfall");
        let mode = std::fs::metadata(&path)
            .expect("socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(waterfall(&path).await.expect("an answer"), []);
        task.abort();
        let _ = std::fs::remove_file(path);
    }

    #[tokio::test]
    async fn import_says_why_it_is_refused_and_that_nobody_serves() {
        let (path, task) = served("import");
        let error = import(&path, Path::new("/proc/version"))
            .await
            .expect_err("refused");
        assert!(error.to_string().contains("not Lighter's"), "{error:#}");
        task.abort();
        let _ = std::fs::remove_file(&path);
        let nobody = import(&path, Path::new("/proc/version")).await;
        assert!(matches!(nobody, Ok(None)));
    }
}
