//! Files of a pod's volumes, read by the node.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Ours: a container wrote it, and the node holds it in memory.
const LARGEST: u64 = 1 << 20;

/// The text of `path` below `root`. The pod may have put anything there: no link leads out of
/// `root`, and what is no regular file is not waited for.
///
/// # Errors
/// What can't be opened, is no file, is too large or is no text.
pub(super) fn read(root: &Path, path: &str) -> io::Result<String> {
    let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, root, dir, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(root, path, flags, Mode::empty(), resolve)?);
    let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let seen = file.metadata()?;
    if !seen.is_file() {
        return Err(refused("it is no regular file"));
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LARGEST {
        true => Err(refused("it is larger than 1 MiB")),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_leads_out_of_the_volume_and_nothing_but_a_file_is_read() {
        let base = std::env::temp_dir().join(format!("lighter-envfile-{}", std::process::id()));
        let root = base.join("volume");
        std::fs::create_dir_all(root.join("dir")).unwrap();
        std::fs::write(base.join("secret"), "outside").unwrap();
        std::fs::write(root.join("dir/env"), "A='1'").unwrap();
        symlink("../secret", root.join("up")).unwrap();
        symlink("/dir/env", root.join("inside")).unwrap();
        rustix::fs::mkfifoat(CWD, root.join("fifo"), Mode::RUSR).unwrap();
        let text = |path: &str| read(&root, path).ok();
        assert_eq!(text("dir/env").as_deref(), Some("A='1'"));
        assert_eq!(text("inside").as_deref(), Some("A='1'"));
        for path in ["up", "../secret", "fifo", "dir", "none"] {
            assert_eq!(text(path), None, "{path}");
        }
        std::fs::remove_dir_all(&base).unwrap();
    }
}
