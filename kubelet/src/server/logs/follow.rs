//! Sends a log to a client and, if asked to, waits for more until the
//! container is done.

use super::options::LogOptions;
use super::reader::{Reader, Step};
use axum::body::Bytes;
use cri_proto::{Code, Cri, v1};
use futures::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Without an event for so long the container is asked for: it may have ended
/// without a word.
const QUIET: Duration = Duration::from_secs(1);
/// A log that is written without pause is sent in pieces of about this size.
const PIECE: usize = 256 * 1024;

type Sink = mpsc::Sender<io::Result<Bytes>>;

/// Runs until everything is sent, or the client is gone.
pub async fn send(log: PathBuf, options: LogOptions, cri: Arc<dyn Cri>, id: String, sink: Sink) {
    let follow = options.follow;
    let mut watch = if follow { watch(&log).ok() } else { None };
    let opened = tokio::task::spawn_blocking(move || Reader::open(log, options)).await;
    let mut reader = match opened {
        Ok(Ok(reader)) => reader,
        Ok(Err(e)) => return drop(sink.send(Err(e)).await),
        Err(_) => return,
    };
    let mut done = !follow;
    loop {
        let step;
        (reader, step) = match drain(reader, &sink).await {
            Some(next) => next,
            None => return,
        };
        if step == Step::LimitReached || done {
            return;
        }
        // Asked before the wait: what was written before it ended is read by
        // one more turn.
        done = has_ended(&cri, &id).await;
        if !done {
            tokio::select! {
                () = sink.closed() => return,
                () = something_new(&mut watch) => {}
            }
        }
    }
}

fn watch(log: &Path) -> io::Result<EventStream<[u8; 1024]>> {
    let inotify = Inotify::init()?;
    let dir = log.parent().unwrap_or(Path::new("/"));
    let mask = WatchMask::MODIFY | WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::MOVED_TO;
    inotify.watches().add(dir, mask)?;
    inotify.into_event_stream([0; 1024])
}

async fn something_new(watch: &mut Option<EventStream<[u8; 1024]>>) {
    let quiet = tokio::time::sleep(QUIET);
    match watch {
        Some(events) => tokio::select! {
            _ = events.next() => {}
            () = quiet => {}
        },
        None => quiet.await,
    }
}

/// Everything that is there now; `None` when the client is gone.
async fn drain(mut reader: Reader, sink: &Sink) -> Option<(Reader, Step)> {
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let mut out = Vec::new();
            loop {
                match reader.step(&mut out) {
                    Ok(Step::More) if out.len() < PIECE => {}
                    step => return (reader, out, step),
                }
            }
        });
        let (back, out, step) = read.await.ok()?;
        reader = back;
        if !out.is_empty() {
            sink.send(Ok(out.into())).await.ok()?;
        }
        match step {
            Ok(Step::More) => {}
            Ok(step) => return Some((reader, step)),
            Err(e) => {
                let _ = sink.send(Err(e)).await;
                return None;
            }
        }
    }
}

/// A container that can't be asked for is not called ended, unless it is gone.
async fn has_ended(cri: &Arc<dyn Cri>, id: &str) -> bool {
    let request = v1::ContainerStatusRequest {
        container_id: id.to_owned(),
        verbose: false,
    };
    match cri.container_status(request).await {
        Ok(answer) => answer
            .status
            .is_none_or(|s| s.state() == v1::ContainerState::ContainerExited),
        Err(status) => status.code() == Code::NotFound,
    }
}
