//! A path for a namespace that has none: plugins open it by name, and DEL may
//! come when no process is in it any more.

use super::error::ForeignError;
use crate::defaults::NETNS_DIR;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Binds the namespace at a path that follows from the sandbox.
pub fn pin(netns: BorrowedFd<'_>, sandbox_id: &str) -> Result<PathBuf, ForeignError> {
    let path = pin_path(sandbox_id);
    match bind(netns, &path) {
        Ok(()) => Ok(path),
        Err(source) => Err(ForeignError::Pin { path, source }),
    }
}

fn bind(netns: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    share_folder()?;
    // Left by an attempt that was cut short.
    remove(path)?;
    File::create_new(path)?;
    Ok(mount_bind(
        format!("/proc/self/fd/{}", netns.as_raw_fd()),
        path,
    )?)
}

/// A mount there must reach those that have the folder mounted
/// (HostToContainer), as `ip netns` makes it.
fn share_folder() -> io::Result<()> {
    // Two pods at once would bind it twice.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if mount_change(NETNS_DIR, flags).is_ok() {
        return Ok(());
    }
    // It is no mount point yet.
    rustix::mount::mount_bind_recursive(NETNS_DIR, NETNS_DIR)?;
    Ok(mount_change(NETNS_DIR, flags)?)
}

/// Takes away a path that `pin` made; none is fine.
pub fn unpin(path: &Path) -> Result<(), ForeignError> {
    if !path.starts_with(NETNS_DIR) {
        return Ok(());
    }
    remove(path).map_err(|source| ForeignError::Pin {
        path: path.to_owned(),
        source,
    })
}

fn remove(path: &Path) -> io::Result<()> {
    // EINVAL: it is no mount (any more).
    let _ = unmount(path, UnmountFlags::DETACH);
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// `cni-<uuid>`, as CNI runtimes name them and cilium looks for them.
fn pin_path(sandbox_id: &str) -> PathBuf {
    let half = |seed: u64| {
        sandbox_id.bytes().fold(seed, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let (a, b) = (half(0xcbf2_9ce4_8422_2325), half(0x9ae1_6a3b_2f90_404f));
    let uuid = format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    );
    Path::new(NETNS_DIR).join(format!("cni-{uuid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_path_is_a_uuid_that_follows_from_the_sandbox() {
        let path = pin_path("abc");
        assert_eq!(path, pin_path("abc"));
        assert_ne!(path, pin_path("abd"));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(name.len(), "cni-".len() + 36);
    }
}
