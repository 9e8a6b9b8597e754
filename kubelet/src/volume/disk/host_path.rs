//! hostPath: what its type promises.
//! Rules and texts: kubernetes v1.36 pkg/volume/hostpath/host_path.go.

use super::failed;
use crate::volume::error::VolumeReason;
use std::fs::{self, FileType, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Checks that the path is of its type, and makes what the type lets be made.
/// The empty type promises nothing, and a missing folder is made for it, as
/// container runtimes do.
pub fn prepare(path: &Path, kind: &str) -> Result<(), VolumeReason> {
    match kind {
        "" | "DirectoryOrCreate" if seen(path)?.is_none() => make_dir(path)?,
        "FileOrCreate" if seen(path)?.is_none() => make_file(path)?,
        _ => {}
    }
    let (expected, holds): (_, fn(&FileType) -> bool) = match kind {
        "Directory" | "DirectoryOrCreate" => ("a directory", FileType::is_dir),
        "File" | "FileOrCreate" => ("a file", FileType::is_file),
        "Socket" => ("a socket file", FileType::is_socket),
        "CharDevice" => ("a character device", FileType::is_char_device),
        "BlockDevice" => ("a block device", FileType::is_block_device),
        _ => return Ok(()),
    };
    match seen(path)? {
        Some(found) if holds(&found) => Ok(()),
        _ => Err(VolumeReason::HostPathType {
            path: path.to_owned(),
            expected,
        }),
    }
}

fn seen(path: &Path) -> Result<Option<FileType>, VolumeReason> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.file_type())),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(failed("stat", path)(e)),
    }
}

fn make_dir(path: &Path) -> Result<(), VolumeReason> {
    let mut dirs = fs::DirBuilder::new();
    dirs.recursive(true).mode(0o755);
    dirs.create(path).map_err(failed("mkdir", path))
}

fn make_file(path: &Path) -> Result<(), VolumeReason> {
    let mut how = OpenOptions::new();
    how.write(true).create_new(true).mode(0o644);
    match how.open(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(failed("create", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn missing_paths_are_made_only_by_the_types_that_say_so() {
        let dir = Scratch::new();
        for kind in ["", "DirectoryOrCreate"] {
            let path = dir.0.join(format!("dir{kind}/deep"));
            prepare(&path, kind).unwrap();
            assert!(path.is_dir());
        }
        let file = dir.0.join("file");
        prepare(&file, "FileOrCreate").unwrap();
        prepare(&file, "FileOrCreate").unwrap();
        assert!(file.is_file());
        for kind in ["Directory", "File", "Socket", "CharDevice", "BlockDevice"] {
            assert!(prepare(&dir.0.join("none"), kind).is_err(), "{kind}");
        }
        assert!(!dir.0.join("none").exists());
    }

    #[test]
    fn each_type_accepts_its_own_and_says_what_it_wanted() {
        let dir = Scratch::new();
        let socket = dir.0.join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        prepare(&socket, "Socket").unwrap();
        prepare(Path::new("/dev/null"), "CharDevice").unwrap();
        prepare(&dir.0, "Directory").unwrap();
        let refused = prepare(&dir.0, "Socket").unwrap_err().to_string();
        let wanted = format!(
            "hostPath type check failed: {} is not a socket file",
            dir.0.display()
        );
        assert_eq!(refused, wanted);
    }
}
