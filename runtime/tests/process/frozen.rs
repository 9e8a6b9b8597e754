//! A log file system that stands still.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::bed::{Bed, Container};

/// A small file system of its own, thawed and unmounted whatever happens.
struct Disk {
    dir: PathBuf,
}

fn run(program: &str, args: &[&Path]) {
    let status = Command::new(program)
        .args(args)
        .stdout(std::process::Stdio::null())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{program} {args:?}"
    );
}

impl Disk {
    fn new(bed: &Bed) -> Self {
        let (image, dir) = (bed.dir.join("disk.img"), bed.dir.join("disk"));
        let file = std::fs::File::create(&image).expect("image");
        file.set_len(16 << 20).expect("image");
        std::fs::create_dir(&dir).expect("dir");
        run("mkfs.ext4", &["-q".as_ref(), &image]);
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &dir]);
        Self { dir }
    }

    fn freeze(&self) {
        run("fsfreeze", &["-f".as_ref(), &self.dir]);
    }

    fn thaw(&self) {
        let _ = Command::new("fsfreeze")
            .arg("-u")
            .arg(&self.dir)
            .stderr(std::process::Stdio::null())
            .status();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

#[tokio::test]
#[ignore = "needs root: namespaces, mounts and a loop device"]
async fn exit_and_exec_are_not_held_up_when_the_logs_file_system_is_frozen() {
    let mut bed = Bed::new("frozen").await;
    let disk = Disk::new(&bed);
    let sandbox = bed.sandbox("s1").await;
    let mut path = Vec::new();
    for (id, script) in [
        ("short", "echo late; exit 3"),
        ("long", "while :; do echo x; sleep 0.01; done"),
    ] {
        let mut spec = bed.container(id, Container::sh(script));
        path.push(disk.dir.join(id));
        spec.io.log = path.last().cloned();
        sandbox.create_container(spec).await.expect("create");
    }
    disk.freeze();
    sandbox.start_container("long").await.expect("start");
    sandbox.start_container("short").await.expect("start");
    assert_eq!(bed.exit("short").await.code, 3);
    let (exit, ..) = bed.exec(&sandbox, "long", "exit 4", None).await;
    assert_eq!(exit.code, 4);
    sandbox.signal("long", 9).await.expect("kill");
    assert_eq!(bed.exit("long").await.code, 137);
    disk.thaw();
    // What was held back is written, though its container has ended.
    let written = async {
        while !std::fs::read_to_string(&path[0]).is_ok_and(|log| log.ends_with("F late\n")) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), written)
        .await
        .expect("written");
    sandbox.shutdown().await.expect("shutdown");
}
