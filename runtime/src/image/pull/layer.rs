//! One streaming pass per layer: download, hash, decompress, hash, write.

use super::progress::Live;
use crate::image::digest::{Digest, Hasher, chain_id};
use crate::image::layer::{ExtractError, Extracted, extract};
use crate::image::record::LayerRecord;
use crate::image::registry::manifest::Descriptor;
use crate::image::registry::{Attempt, Blob, BlobError, FetchError, Session};
use crate::image::store::Hold;
use crate::image::{Store, disk};
use bytes::{Buf, Bytes};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Chunks between network and disk: with hyper's reads of at most 400 KiB a
/// few MiB for a layer in flight.
const PIPE: usize = 16;
/// Compressed bytes read at once.
const BUFFER: usize = 64 << 10;

/// Why a layer could not be brought in.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LayerError {
    #[error(transparent)]
    Fetch(FetchError),
    #[error("{endpoint}: {answer}", endpoint = .0.endpoint, answer = .0.answer)]
    Lie(Box<Attempt>),
    #[error("extract")]
    Extract(#[source] ExtractError),
    #[error("it unpacks to {got}, but the image's configuration says {want}")]
    DiffId { want: String, got: String },
    #[error("no space left for {path}; free some, or move the image store")]
    DiskFull { path: PathBuf },
    #[error("write to {path}")]
    Store { path: PathBuf, source: io::Error },
    #[error("given up")]
    Cancelled,
}

/// What the layers of one pull share.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    pub session: &'a Session,
    pub live: &'a Live,
    pub cancel: &'a CancellationToken,
}

/// One layer of an image being pulled or imported.
#[derive(Clone)]
pub struct Wanted {
    /// Its place, the lowest is 0.
    pub at: usize,
    /// Of all layers up to and with this one.
    pub diff_ids: Vec<String>,
}

impl Wanted {
    pub fn new(at: usize, diff_ids: &[String]) -> Self {
        Self {
            at,
            diff_ids: diff_ids[..=at].to_vec(),
        }
    }

    /// The diff id as the image's configuration says.
    pub fn diff_id(&self) -> &str {
        self.diff_ids.last().map_or("", String::as_str)
    }

    /// A layer stands for itself wherever it is used...
    pub fn key(&self) -> String {
        key_of(self.diff_id())
    }

    /// ...unless it leaves to the layers below what its directories are like.
    pub fn chain_key(&self) -> String {
        format!("chain-{}", key_of(&chain_id(&self.diff_ids)))
    }
}

fn key_of(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.to_owned()
}

/// What a layer became on disk.
pub struct Ready {
    pub key: String,
    /// Keeps it there until its image is recorded.
    pub _hold: Hold,
}

/// A layer extracted, and not yet in its place.
pub struct Unpacked {
    pub temp: Temp,
    pub record: LayerRecord,
}

/// A directory that is removed unless it has been moved away.
pub struct Temp(pub PathBuf);

impl Drop for Temp {
    fn drop(&mut self) {
        if let Err(error) = disk::remove(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "leftover of a layer stays until the next start");
        }
    }
}

impl Store {
    /// A layer that is on disk already.
    pub(in crate::image) fn ready_layer(&self, wanted: &Wanted) -> Option<Ready> {
        for key in [wanted.key(), wanted.chain_key()] {
            if let Some((hold, record)) = self.hold_layer(&key)
                && (wanted.at == 0 || record.implicit.is_empty() || key == wanted.chain_key())
            {
                return Some(Ready { key, _hold: hold });
            }
        }
        None
    }

    /// Downloads and extracts a layer.
    pub(super) async fn fetch_layer(
        self: &Arc<Self>,
        job: Job<'_>,
        descriptor: &Descriptor,
        wanted: &Wanted,
    ) -> Result<Unpacked, LayerError> {
        let mut from = 0;
        let mut lie = None;
        loop {
            let blob = Blob {
                session: job.session,
                descriptor,
                from,
            };
            if let Some(live) = job.live.layer(wanted.at) {
                live.done.store(0, Ordering::Relaxed);
            }
            match self.stream_layer(job, &blob, wanted).await {
                Err(Failure::Lie { at, attempt }) => {
                    from = at + 1;
                    lie = Some(attempt);
                }
                // What the honest endpoints said matters less than the lie.
                Err(Failure::Layer(LayerError::Fetch(error))) => {
                    return Err(match lie {
                        Some(attempt) => LayerError::Lie(Box::new(attempt)),
                        None => LayerError::Fetch(error),
                    });
                }
                Err(Failure::Layer(error)) => return Err(error),
                Ok(unpacked) => return Ok(unpacked),
            }
        }
    }

    async fn stream_layer(
        self: &Arc<Self>,
        job: Job<'_>,
        blob: &Blob<'_>,
        wanted: &Wanted,
    ) -> Result<Unpacked, Failure> {
        let (sender, receiver) = mpsc::channel::<Option<Bytes>>(PIPE);
        let temp = Temp(self.temp_path());
        let diff_id = wanted.diff_id().to_owned();
        let unpack =
            tokio::task::spawn_blocking(move || unpack(Pipe::new(receiver), temp, &diff_id));
        let live = job.live.layer(wanted.at);
        let download = blob.download(|chunk| {
            let sender = &sender;
            if let Some(live) = live {
                live.done.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
            async move { sender.send(Some(chunk)).await.is_ok() }
        });
        let downloaded = tokio::select! {
            downloaded = download => downloaded,
            () = job.cancel.cancelled() => Err(BlobError::Unwanted),
        };
        if downloaded.is_ok() {
            // Only now may the end of the stream be taken for the layer's end.
            let _ = sender.send(None).await;
        }
        drop(sender);
        let unpacked = match unpack.await {
            Ok(unpacked) => unpacked,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match downloaded {
            Ok(()) => unpacked.map_err(Failure::Layer),
            Err(BlobError::Lie { at, attempt }) => Err(Failure::Lie { at, attempt }),
            Err(BlobError::Fetch(error)) => Err(Failure::Layer(LayerError::Fetch(error))),
            Err(BlobError::Unwanted) if job.cancel.is_cancelled() => {
                Err(Failure::Layer(LayerError::Cancelled))
            }
            Err(BlobError::Unwanted) => Err(Failure::Layer(
                unpacked.err().unwrap_or(LayerError::Cancelled),
            )),
        }
    }
}

enum Failure {
    Lie { at: usize, attempt: Attempt },
    Layer(LayerError),
}

/// Decompresses, extracts and verifies a layer. Blocking.
pub fn unpack(stream: impl Read, temp: Temp, diff_id: &str) -> Result<Unpacked, LayerError> {
    let dir = temp.0.join("diff");
    let store = |source: io::Error| match super::error::is_full(&source) {
        true => LayerError::DiskFull { path: dir.clone() },
        false => LayerError::Store {
            path: dir.clone(),
            source,
        },
    };
    disk::private_dir(&temp.0).map_err(store)?;
    std::fs::create_dir(&dir).map_err(store)?;
    let want = Digest::parse(diff_id);
    let mut hashed = Hashed {
        inner: decompress(stream).map_err(store)?,
        hasher: want
            .as_ref()
            .map_or_else(|_| Hasher::sha256(), Digest::hasher),
    };
    let extracted = extract(&mut hashed, &dir).map_err(|error| told(error, &dir))?;
    // The compressed stream may go on behind the last block.
    io::copy(&mut hashed.inner, &mut io::sink()).map_err(store)?;
    let got = hashed.hasher.finish();
    if want.as_ref() != Ok(&got) {
        return Err(LayerError::DiffId {
            want: diff_id.to_owned(),
            got: got.to_string(),
        });
    }
    Ok(Unpacked {
        record: record(got, extracted),
        temp,
    })
}

fn record(diff_id: Digest, extracted: Extracted) -> LayerRecord {
    let text = |path: Vec<u8>| String::from_utf8_lossy(&path).into_owned();
    LayerRecord {
        diff_id: diff_id.to_string(),
        bytes: extracted.bytes,
        inodes: extracted.inodes,
        root_dir: extracted.root_dir,
        implicit: extracted.implicit.into_iter().map(text).collect(),
        unsynced_boot: None,
    }
}

fn told(error: ExtractError, dir: &Path) -> LayerError {
    use rustix::io::Errno;
    match error {
        ExtractError::File {
            source: Errno::NOSPC | Errno::DQUOT,
            ..
        } => LayerError::DiskFull {
            path: dir.to_owned(),
        },
        other => LayerError::Extract(other),
    }
}

/// Whether a stream that begins so is compressed.
pub fn is_compressed(head: &[u8]) -> bool {
    Compression::of(head) != Compression::None
}

/// Told by the first bytes: media types are often wrong, these never.
pub fn decompress<'a>(mut stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    (&mut stream).take(4).read_to_end(&mut head)?;
    let kind = Compression::of(&head);
    let stream = BufReader::with_capacity(BUFFER, Read::chain(io::Cursor::new(head), stream));
    Ok(match kind {
        Compression::None => Box::new(stream),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(stream)?),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// RFC 1952 section 2.3.1; RFC 8878 sections 3.1.1 and 3.1.2 (a skippable
    /// frame may come first).
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Hashes what passes.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// The blocking end of a channel of chunks; `None` marks a good end, and a
/// channel that closes without it is an error.
struct Pipe {
    receiver: mpsc::Receiver<Option<Bytes>>,
    chunk: Bytes,
    ended: bool,
}

impl Pipe {
    fn new(receiver: mpsc::Receiver<Option<Bytes>>) -> Self {
        Self {
            receiver,
            chunk: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Some(chunk)) => self.chunk = chunk,
                Some(None) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the download failed",
                    ));
                }
            }
        }
        let n = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}
