//! `/logs/`: the files under /var/log, as a person browses them.

use super::routes::State;
use super::{Refusal, log_query};
use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::os::fd::OwnedFd;
use std::path::Path as FsPath;
use std::sync::Arc;
use tokio_util::io::ReaderStream;

/// What may be asked for beside a path.
type Parameters = Query<Vec<(String, String)>>;

pub(super) async fn root(
    state: Extract<Arc<State>>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    below(state, Path(".".to_owned()), parameters).await
}

pub(super) async fn below(
    Extract(state): Extract<Arc<State>>,
    Path(path): Path<String>,
    Query(parameters): Parameters,
) -> Result<Response, Refusal> {
    if state.config.enable_system_log_query
        && let Some(answer) = log_query::answer(&state, &path, &parameters).await
    {
        return answer;
    }
    show(&state, &path)
}

pub(super) fn show(state: &State, path: &str) -> Result<Response, Refusal> {
    let missing = |_| Refusal(StatusCode::NOT_FOUND, "404 page not found".to_owned());
    let fd = open_beneath(&state.system_logs, path).map_err(missing)?;
    let file = std::fs::File::from(fd);
    let kind = file.metadata().map_err(|e| missing(e.into_raw()))?;
    if kind.is_dir() && !path.is_empty() && path != "." && !path.ends_with('/') {
        // Else what the listing names would be looked for beside it.
        let name = path.rsplit('/').next().unwrap_or_default();
        let place = [(header::LOCATION, format!("{name}/"))];
        return Ok((StatusCode::MOVED_PERMANENTLY, place).into_response());
    }
    if kind.is_dir() {
        return listing(&file).map_err(|e| missing(e.into_raw()));
    }
    if !kind.is_file() {
        return Err(missing(0));
    }
    let stream = ReaderStream::new(tokio::fs::File::from_std(file));
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((plain, Body::from_stream(stream)).into_response())
}

trait IntoRaw {
    fn into_raw(self) -> i32;
}

impl IntoRaw for std::io::Error {
    fn into_raw(self) -> i32 {
        self.raw_os_error().unwrap_or_default()
    }
}

/// Neither `..` nor a symbolic link leads out of the directory.
pub(super) fn open_beneath(root: &FsPath, path: &str) -> Result<OwnedFd, i32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty());
    let dir = dir.map_err(|e| e.raw_os_error())?;
    let path = match path.trim_matches('/') {
        "" => ".",
        path => path,
    };
    // A FIFO must not hold the request up.
    let flags = flags | OFlags::NONBLOCK;
    rustix::fs::openat2(
        dir,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(|e| e.raw_os_error())
}

fn listing(dir: &std::fs::File) -> std::io::Result<Response> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type() == rustix::fs::FileType::Directory;
        if name != "." && name != ".." {
            names.push(if is_dir { name + "/" } else { name });
        }
    }
    names.sort();
    let line = |name: &String| {
        let safe = escape(name);
        format!("<a href=\"{safe}\">{safe}</a>\n")
    };
    let lines: String = names.iter().map(line).collect();
    Ok(Html(format!("<!doctype html>\n<pre>\n{lines}</pre>\n")).into_response())
}

fn escape(name: &str) -> String {
    name.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&#34;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_never_leads_out_of_the_directory() {
        let root = std::env::temp_dir().join(format!("lighter-logs-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::write(root.join("a/b"), "x").unwrap();
        let _ = std::os::unix::fs::symlink("/etc", root.join("out"));
        assert!(open_beneath(&root, "a/b").is_ok());
        assert!(open_beneath(&root, "../../../etc/passwd").is_err());
        assert!(open_beneath(&root, "out/passwd").is_err());
        std::fs::remove_dir_all(&root).unwrap();
    }
}
