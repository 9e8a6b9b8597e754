//! Mountpoints that images lack, in layers below theirs.
//!
//! What is mounted into every container needs something to be mounted on, and many images have
//! none of it. Made in the writable layer it would be a dozen inodes for each container, to be
//! deleted again with it; below the image it is there once for all, and whatever the image has
//! counts before it.

use oci_spec::runtime::Spec;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Mountpoints that come together.
struct Set {
    name: &'static str,
    directories: &'static [&'static str],
    files: &'static [&'static str],
}

const SETS: [Set; 2] = [
    // What every pod's containers have.
    Set {
        name: "pod",
        directories: &["/proc", "/dev", "/sys"],
        files: &["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"],
    },
    // kubernetes v1.37.2 plugin/pkg/admission/serviceaccount/admission.go `DefaultAPITokenMountPath`.
    Set {
        name: "token",
        directories: &["/var/run/secrets/kubernetes.io/serviceaccount"],
        files: &[],
    },
];

/// The layers, in a directory of their own.
#[derive(Debug)]
pub struct Mountpoints {
    dir: PathBuf,
}

impl Mountpoints {
    /// Makes what is not there yet.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        for set in &SETS {
            let layer = dir.join(set.name);
            for directory in set.directories {
                make_directory(&layer, relative(directory))?;
            }
            for file in set.files {
                make_file(&layer, relative(file))?;
            }
        }
        Ok(Self { dir })
    }

    /// Layers to go below those of the image, the lowest first: each has no mountpoint but such
    /// as this container mounts something on, so nothing of it is ever seen.
    pub fn below(&self, spec: &Spec) -> Vec<PathBuf> {
        let mounts = spec.mounts().iter().flatten();
        let mounted: BTreeSet<&Path> = mounts.map(|m| m.destination().as_path()).collect();
        let all = |set: &&Set| {
            let mut points = set.directories.iter().chain(set.files);
            points.all(|point| mounted.contains(Path::new(point)))
        };
        let sets = SETS.iter().filter(all);
        sets.map(|set| self.dir.join(set.name)).collect()
    }
}

fn relative(point: &str) -> &str {
    point.trim_start_matches('/')
}

/// Modes are those of mountpoints that are made in the writable layer, whatever our umask.
fn make_directory(layer: &Path, point: &str) -> io::Result<PathBuf> {
    let mut path = layer.to_owned();
    for name in point.split('/') {
        path.push(name);
        std::fs::create_dir_all(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755))?;
    }
    Ok(path)
}

fn make_file(layer: &Path, point: &str) -> io::Result<()> {
    let (parent, name) = point.rsplit_once('/').unwrap_or(("", point));
    let path = make_directory(layer, parent)?.join(name);
    std::fs::write(&path, "")?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{MountBuilder, SpecBuilder};

    fn spec(mounted: &[&str]) -> Spec {
        let mount = |path: &&str| {
            MountBuilder::default()
                .destination(path)
                .build()
                .expect("mount")
        };
        let mounts: Vec<_> = mounted.iter().map(mount).collect();
        SpecBuilder::default().mounts(mounts).build().expect("spec")
    }

    #[test]
    fn layer_is_below_only_when_all_of_it_is_mounted_on() {
        let points = Mountpoints { dir: "/m".into() };
        let pod = [
            "/proc",
            "/dev",
            "/sys",
            "/etc/hostname",
            "/etc/hosts",
            "/etc/resolv.conf",
        ];
        assert_eq!(points.below(&spec(&pod)), [Path::new("/m/pod")]);
        assert!(points.below(&spec(&pod[1..])).is_empty());
        let token = [&pod[..], &["/var/run/secrets/kubernetes.io/serviceaccount"]].concat();
        let both = [Path::new("/m/pod"), Path::new("/m/token")];
        assert_eq!(points.below(&spec(&token)), both);
    }

    #[test]
    fn layers_are_made_once_and_found_again() {
        let dir = std::env::temp_dir().join(format!("lighter-mountpoints-{}", std::process::id()));
        for _ in 0..2 {
            Mountpoints::open(dir.clone()).expect("open");
        }
        assert!(dir.join("pod/etc/resolv.conf").is_file());
        assert!(
            dir.join("token/var/run/secrets/kubernetes.io/serviceaccount")
                .is_dir()
        );
        std::fs::remove_dir_all(&dir).expect("remove");
    }
}
