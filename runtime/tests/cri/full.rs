//! Full disks: what can't be done is said in one sentence that names the place,
//! nothing half-made stays, what there is can be taken down, and with space again
//! everything goes on.

use super::bed::{Bed, Place, Pod};
use super::disk::Disk;
use cri_proto::Status;
use cri_proto::v1::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Large enough for the image and some pods.
const SIZE: u64 = 64 << 20;

#[derive(Debug, Clone, Copy)]
enum Lack {
    Space,
    Inodes,
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods and mounts"]
async fn full_state_folder_is_told_and_survived() {
    full("full-state", Place::State, Lack::Space).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods and mounts"]
async fn full_image_store_and_writable_layers_are_told_and_survived() {
    full("full-root", Place::Root, Lack::Space).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods and mounts"]
async fn full_log_folder_is_told_and_survived() {
    full("full-logs", Place::Logs, Lack::Space).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods and mounts"]
async fn full_inode_table_of_the_state_folder_is_told_and_survived() {
    full("inodes-state", Place::State, Lack::Inodes).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods and mounts"]
async fn full_inode_table_of_the_image_store_is_told_and_survived() {
    full("inodes-root", Place::Root, Lack::Inodes).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: pods and mounts"]
async fn full_inode_table_of_the_log_folder_is_told_and_survived() {
    full("inodes-logs", Place::Logs, Lack::Inodes).await;
}

async fn full(name: &str, place: Place, lack: Lack) {
    let dir = PathBuf::from(format!("/run/lighter-{name}-{}", std::process::id()));
    let disk = match place {
        // As it is on a node: /run is a tmpfs, the others are on a disk.
        Place::State => Disk::tmpfs(&dir, &format!("size={SIZE},nr_inodes=2000")),
        Place::Root | Place::Logs => Disk::ext4(&dir, SIZE),
    };
    let bed = Bed::on(name, Some((place, &dir))).await;
    life(&bed, "warm").await;
    let kept = bed.run_pod(Pod::named("kept")).await;
    let running = bed
        .start(
            &kept,
            "running",
            &["sh", "-c", "while :; do echo x; sleep 0.01; done"],
        )
        .await;
    let config = bed.container("created", &["sleep", "1000"]);
    let created = bed.create(&kept, config).await.expect("created");
    let before = Files::of(place, &dir);
    match lack {
        Lack::Space => disk.fill(),
        Lack::Inodes => disk.fill_inodes(),
    }
    // What makes something fails in words, or does it.
    let mut refused = Vec::new();
    match bed.try_run_pod(Pod::named("new")).await {
        Ok(pod) => bed.remove_pod(&pod).await,
        Err(status) => refused.push(("RunPodSandbox", status)),
    }
    before.wait((place, &dir), "RunPodSandbox").await;
    let config = bed.container("late", &["sleep", "1000"]);
    match bed.create(&kept, config).await {
        Ok(container) => bed.remove(&container).await,
        Err(status) => refused.push(("CreateContainer", status)),
    }
    before.wait((place, &dir), "CreateContainer").await;
    // What was made before goes on, and can be taken down.
    bed.start_created(&created).await.expect("started");
    assert_eq!(bed.exec(&running, &["true"]).await.exit_code, 0);
    let status = bed.status(&running).await;
    assert_eq!(status.state(), ContainerState::ContainerRunning);
    bed.stop(&running, 0).await;
    let status = bed.status(&running).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"));
    bed.remove(&running).await;
    bed.remove_pod(&kept).await;
    bed.remove_image().await.expect("the image goes");
    let before = Files::of(place, &dir);
    // What was removed has left room: taken as well.
    disk.free();
    match lack {
        Lack::Space => disk.fill(),
        Lack::Inodes => disk.fill_inodes(),
    }
    match bed.pull().await {
        Ok(()) => bed.remove_image().await.expect("the image goes"),
        Err(status) => refused.push(("PullImage", status)),
    }
    before.wait((place, &dir), "PullImage").await;
    check(place, &refused, &dir);
    disk.free();
    bed.pull().await.expect("pulled with space again");
    life(&bed, "again").await;
    bed.close().await;
    drop(disk);
    let _ = std::fs::remove_dir(&dir);
    let _ = std::fs::remove_file(dir.with_extension("img"));
}

/// A pod from its beginning to its end.
async fn life(bed: &Bed, name: &str) {
    let pod = bed.run_pod(Pod::named(name)).await;
    let id = bed
        .start(&pod, "c", &["sh", "-c", "echo hello; sleep 1000"])
        .await;
    assert_eq!(bed.exec(&id, &["true"]).await.exit_code, 0);
    bed.eventually("the log has its line", || {
        bed.log(&pod, "c").contains("hello")
    })
    .await;
    bed.remove_pod(&pod).await;
}

/// The verbs that must have failed did, with the disk's name and the kernel's word.
fn check(place: Place, refused: &[(&str, Status)], dir: &Path) {
    let must: &[&str] = match place {
        Place::State => &["RunPodSandbox", "CreateContainer"],
        Place::Root => &["CreateContainer", "PullImage"],
        Place::Logs => &[],
    };
    for verb in must {
        let told = refused.iter().any(|(name, _)| name == verb);
        assert!(told, "{verb} worked on a full disk: {refused:?}");
    }
    for (verb, status) in refused {
        let text = status.message();
        let named =
            text.to_lowercase().contains("no space left") && text.contains(&*dir.to_string_lossy());
        assert!(named, "{verb}: {text}");
    }
}

/// Everything on the disk but the filler; logs are the kubelet's to remove.
struct Files(BTreeSet<PathBuf>);

impl Files {
    fn of(place: Place, dir: &Path) -> Self {
        let mut all = BTreeSet::new();
        if place != Place::Logs {
            visit(dir, &mut all);
        }
        Self(all)
    }

    /// Until nothing new is there: some is deleted in the background.
    async fn wait(&self, (place, dir): (Place, &Path), after: &str) {
        let mut left = BTreeSet::new();
        for _ in 0..200 {
            let Self(now) = Self::of(place, dir);
            left = now.difference(&self.0).cloned().collect();
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("left by {after}: {left:?}");
    }
}

fn visit(dir: &Path, all: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("filler") {
            continue;
        }
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&path, all);
        }
        all.insert(path);
    }
}
