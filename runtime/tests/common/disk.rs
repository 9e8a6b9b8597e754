//! A small file system of a test's own.

#![allow(dead_code)]

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Thawed and unmounted whatever happens.
pub struct Disk {
    pub dir: PathBuf,
}

fn run(program: &str, args: &[&OsStr]) {
    let status = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .status();
    assert!(status.is_ok_and(|s| s.success()), "{program} {args:?}");
}

impl Disk {
    /// ext4 on a loop device, mounted on `dir`, which is made.
    pub fn ext4(dir: &Path, bytes: u64) -> Self {
        let image = dir.with_extension("img");
        let file = std::fs::File::create(&image).expect("image");
        file.set_len(bytes).expect("image");
        std::fs::create_dir_all(dir).expect("dir");
        run("mkfs.ext4", &["-q".as_ref(), image.as_ref()]);
        let options = ["-o".as_ref(), "loop".as_ref()];
        run(
            "mount",
            &[&options[..], &[image.as_ref(), dir.as_ref()]].concat(),
        );
        Self {
            dir: dir.to_owned(),
        }
    }

    /// A tmpfs with these options, mounted on `dir`, which is made.
    pub fn tmpfs(dir: &Path, options: &str) -> Self {
        std::fs::create_dir_all(dir).expect("dir");
        let args = ["-t", "tmpfs", "-o", options, "tmpfs"].map(OsStr::new);
        run("mount", &[&args[..], &[dir.as_ref()]].concat());
        Self {
            dir: dir.to_owned(),
        }
    }

    pub fn freeze(&self) {
        run("fsfreeze", &["-f".as_ref(), self.dir.as_ref()]);
    }

    pub fn thaw(&self) {
        let mut command = Command::new("fsfreeze");
        let _ = command
            .arg("-u")
            .arg(&self.dir)
            .stderr(Stdio::null())
            .status();
    }

    /// Takes all the space that is left, to the last byte.
    pub fn fill(&self) {
        let path = self.filler();
        let mut file = std::fs::File::create(path).expect("the filler");
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![1; size]).is_err() {
                size /= 2;
            }
        }
    }

    /// Takes all the inodes that are left.
    pub fn fill_inodes(&self) {
        let dir = self.dir.join("filler-inodes");
        let made = std::fs::create_dir(&dir).is_ok();
        for number in 0.. {
            if std::fs::File::create(dir.join(number.to_string())).is_err() {
                break;
            }
        }
        assert!(made, "no inode was left");
    }

    /// Gives back what was taken.
    pub fn free(&self) {
        let _ = std::fs::remove_file(self.filler());
        let _ = std::fs::remove_dir_all(self.dir.join("filler-inodes"));
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}
