//! Rotates the logs of a runtime that leaves it to the kubelet.
//!
//! CRI has the kubelet do it: the file is renamed and the runtime told to open
//! it anew (ReopenContainerLog). Our own runtime rotates at the very line, so
//! this runs beside foreign ones only.
//!
//! Names, order and what is kept are those of kubelet 1.37
//! (`pkg/kubelet/logs/container_log_manager.go`): `0.log.20060102-150405`, all
//! but the newest of them compressed, `containerLogMaxFiles` files in all.

use crate::defaults;
use cri_proto::{Cri, v1};
use flate2::{Compression, write::GzEncoder};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// When a log is rotated, and into how many files.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes at which a log is rotated.
    pub max_size: u64,
    /// Files of one log, the one being written included; at least 2.
    pub max_files: u32,
}

/// The logs of all running containers of a foreign runtime.
pub struct LogRotation {
    cri: Arc<dyn Cri>,
    limits: Limits,
    /// Where each container logs: asked once.
    paths: HashMap<String, PathBuf>,
}

impl LogRotation {
    /// Does nothing before [`LogRotation::run`].
    pub fn new(cri: Arc<dyn Cri>, limits: Limits) -> LogRotation {
        LogRotation {
            cri,
            limits,
            paths: HashMap::new(),
        }
    }

    /// Looks every [`defaults::LOG_MONITOR_INTERVAL`]. What fails is logged and
    /// tried again at the next look.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut look = tokio::time::interval(defaults::LOG_MONITOR_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = look.tick() => self.look().await,
            }
        }
    }

    async fn look(&mut self) {
        let running = v1::ContainerFilter {
            state: Some(v1::ContainerStateValue {
                state: v1::ContainerState::ContainerRunning.into(),
            }),
            ..Default::default()
        };
        let request = v1::ListContainersRequest {
            filter: Some(running),
        };
        let listed = match self.cri.list_containers(request).await {
            Ok(answer) => answer.containers,
            Err(e) => return tracing::warn!(why = e.message(), "logs not looked at"),
        };
        self.paths
            .retain(|id, _| listed.iter().any(|c| &c.id == id));
        for container in listed {
            if let Some(path) = self.path(&container.id).await {
                self.keep_small(&container.id, &path).await;
            }
        }
    }

    /// `None` of a container without a log.
    async fn path(&mut self, id: &str) -> Option<PathBuf> {
        let path = match self.paths.get(id) {
            Some(known) => known.clone(),
            None => self.ask(id).await?,
        };
        Some(path).filter(|p| !p.as_os_str().is_empty())
    }

    async fn ask(&mut self, id: &str) -> Option<PathBuf> {
        let request = v1::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        // A container that ended meanwhile is none of ours any more.
        let answer = self.cri.container_status(request).await.ok()?;
        let path = PathBuf::from(answer.status?.log_path);
        self.paths.insert(id.to_owned(), path.clone());
        Some(path)
    }

    async fn keep_small(&self, id: &str, path: &Path) {
        let failed = match fs::metadata(path) {
            Ok(metadata) if metadata.len() < self.limits.max_size => return,
            Ok(_) => self.rotate(id, path).await,
            // A rotation that was cut short between rename and reopening.
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.reopen(id).await,
            Err(e) => Err(e.to_string()),
        };
        if let Err(why) = failed {
            tracing::warn!(why, log = %path.display(), "log not rotated");
        }
    }

    async fn rotate(&self, id: &str, path: &Path) -> Result<(), String> {
        let (log, max_files) = (path.to_owned(), self.limits.max_files);
        // Compressing takes long enough to be in the way of others.
        tokio::task::spawn_blocking(move || tidy(&log, max_files))
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        let rotated = rotated_name(path, jiff::Zoned::now());
        fs::rename(path, &rotated).map_err(|e| e.to_string())?;
        if let Err(why) = self.reopen(id).await {
            // Better one large log than lines under a name that nobody reads.
            fs::rename(&rotated, path).map_err(|e| format!("{why}; not undone: {e}"))?;
            return Err(why);
        }
        Ok(())
    }

    async fn reopen(&self, id: &str) -> Result<(), String> {
        let request = v1::ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        let answer = self.cri.reopen_container_log(request).await;
        answer
            .map(drop)
            .map_err(|e| format!("ReopenContainerLog: {}", e.message()))
    }
}

fn rotated_name(log: &Path, now: jiff::Zoned) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(now.strftime(".%Y%m%d-%H%M%S").to_string());
    name.into()
}

/// Makes room for one more rotated file: the oldest go, the others are compressed.
fn tidy(log: &Path, max_files: u32) -> io::Result<()> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else {
        return Ok(());
    };
    let entries = fs::read_dir(dir)?.flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    let plan = plan(names.collect(), name, max_files);
    for name in plan.remove {
        fs::remove_file(dir.join(name))?;
    }
    for name in plan.compress {
        compress(&dir.join(name))?;
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    remove: Vec<String>,
    compress: Vec<String>,
}

/// What becomes of the files beside a log that is about to be rotated.
fn plan(names: Vec<String>, log: &str, max_files: u32) -> Plan {
    let of_log = |n: &String| {
        n.strip_prefix(log)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    let (unfinished, mut rotated): (Vec<String>, Vec<String>) = names
        .into_iter()
        .filter(of_log)
        .partition(|n| n.ends_with(".tmp"));
    rotated.sort();
    // Beside these there will be the one being written and the one about to be rotated.
    let kept = usize::try_from(max_files.saturating_sub(2)).unwrap_or_default();
    let too_many = rotated.len().saturating_sub(kept);
    let left = rotated.split_off(too_many);
    Plan {
        remove: unfinished.into_iter().chain(rotated).collect(),
        compress: left.into_iter().filter(|n| !n.ends_with(".gz")).collect(),
    }
}

/// `X` becomes `X.gz` at once or not at all.
fn compress(path: &Path) -> io::Result<()> {
    let with = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let unfinished = with(".tmp");
    let mut to = GzEncoder::new(File::create(&unfinished)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut to)?;
    to.finish()?.sync_all()?;
    fs::rename(&unfinished, with(".gz"))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(names: &[&str], max_files: u32) -> Plan {
        plan(
            names.iter().map(ToString::to_string).collect(),
            "0.log",
            max_files,
        )
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rotated_files_are_compressed_and_the_oldest_go() {
        let files = [
            "0.log",
            "0.log.20260101-000000.gz",
            "0.log.20260102-000000.gz",
            "0.log.20260103-000000",
            "10.log",
            "10.log.20260101-000000",
        ];
        let expected = Plan {
            remove: list(&["0.log.20260101-000000.gz"]),
            compress: list(&["0.log.20260103-000000"]),
        };
        assert_eq!(planned(&files, 4), expected);
        assert_eq!(planned(&files, 5).remove, list(&[]));
    }

    #[test]
    fn two_files_are_the_log_and_the_last_rotated_one() {
        let plan = planned(&["0.log", "0.log.20260103-000000"], 2);
        assert_eq!(plan.remove, list(&["0.log.20260103-000000"]));
        assert_eq!(plan.compress, list(&[]));
    }

    #[test]
    fn half_compressed_file_goes_and_its_source_is_compressed_again() {
        let plan = planned(&["0.log.20260103-000000", "0.log.20260103-000000.tmp"], 5);
        assert_eq!(plan.remove, list(&["0.log.20260103-000000.tmp"]));
        assert_eq!(plan.compress, list(&["0.log.20260103-000000"]));
    }

    #[test]
    fn compressed_log_reads_back() {
        let dir = std::env::temp_dir().join(format!("log-rotation-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("0.log.20260103-000000");
        fs::write(&path, "a line\n".repeat(1000)).unwrap();
        compress(&path).unwrap();
        assert!(!path.exists());
        let file = File::open(dir.join("0.log.20260103-000000.gz")).unwrap();
        let text = io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
        assert_eq!(text, "a line\n".repeat(1000));
        fs::remove_dir_all(dir).unwrap();
    }

    /// One running container that logs nowhere.
    #[derive(Default)]
    struct Silent {
        reopened: std::sync::atomic::AtomicBool,
    }

    #[async_trait::async_trait]
    impl Cri for Silent {
        async fn list_containers(
            &self,
            _: v1::ListContainersRequest,
        ) -> Result<v1::ListContainersResponse, cri_proto::Status> {
            let container = v1::Container {
                id: "a".to_owned(),
                ..Default::default()
            };
            Ok(v1::ListContainersResponse {
                containers: vec![container],
            })
        }

        async fn container_status(
            &self,
            _: v1::ContainerStatusRequest,
        ) -> Result<v1::ContainerStatusResponse, cri_proto::Status> {
            Ok(v1::ContainerStatusResponse {
                status: Some(v1::ContainerStatus::default()),
                ..Default::default()
            })
        }

        async fn reopen_container_log(
            &self,
            _: v1::ReopenContainerLogRequest,
        ) -> Result<v1::ReopenContainerLogResponse, cri_proto::Status> {
            let relaxed = std::sync::atomic::Ordering::Relaxed;
            self.reopened.store(true, relaxed);
            Ok(v1::ReopenContainerLogResponse {})
        }
    }

    #[tokio::test]
    async fn container_without_a_log_is_left_alone_at_every_look() {
        let cri = Arc::<Silent>::default();
        let limits = Limits {
            max_size: 1,
            max_files: 2,
        };
        let mut rotation = LogRotation::new(cri.clone(), limits);
        rotation.look().await;
        rotation.look().await;
        assert!(!cri.reopened.load(std::sync::atomic::Ordering::Relaxed));
    }

    #[test]
    fn rotated_name_sorts_by_time() {
        let at = "2026-11-26T09:08:07[UTC]".parse().unwrap();
        let name = rotated_name(Path::new("/logs/0.log"), at);
        assert_eq!(name, Path::new("/logs/0.log.20261126-090807"));
    }
}
