//! Log files beside the containers': links for collectors, removal.

use crate::pod::NodeFacts;
use crate::pod::observed::ContainerSeen;
use crate::pod::spec::{name, namespace, sandbox};
use k8s_openapi::api::core::v1::Pod;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// kubernetes v1.36 pkg/kubelet/kuberuntime/legacy.go: file names are cut to this.
const MAX_LINK_NAME: usize = 251;

/// `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`.
pub(super) fn link(pod: &Pod, seen: &ContainerSeen, node: &NodeFacts) {
    let Some(path) = link_path(pod, seen, node).filter(|_| !seen.log_path.is_empty()) else {
        return;
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let made = std::fs::create_dir_all(folder)
        .and_then(|()| std::os::unix::fs::symlink(&seen.log_path, &path));
    match made {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            tracing::warn!(link = %path.display(), %error, "link container log");
        }
        Ok(()) | Err(_) => {}
    }
}

fn link_path(pod: &Pod, seen: &ContainerSeen, node: &NodeFacts) -> Option<PathBuf> {
    if node.container_links.as_os_str().is_empty() {
        return None;
    }
    let mut file = format!("{}_{}_{}-{}", name(pod), namespace(pod), seen.name, seen.id);
    file.truncate(MAX_LINK_NAME);
    Some(node.container_links.join(format!("{file}.log")))
}

/// Link, log and rotated logs of a removed container.
pub(super) fn remove(pod: &Pod, seen: &ContainerSeen, node: &NodeFacts) {
    if let Some(path) = link_path(pod, seen, node) {
        remove_file(&path);
    }
    let log = Path::new(&seen.log_path);
    let (Some(folder), Some(file)) = (log.parent(), log.file_name()) else {
        return;
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let own = entry.file_name();
        let rotated = format!("{}.", file.to_string_lossy());
        if own == file || own.to_string_lossy().starts_with(&rotated) {
            remove_file(&entry.path());
        }
    }
}

/// All logs of a pod that is gone, and their links.
pub(super) fn remove_pod(pod: &Pod, node: &NodeFacts) {
    let folder = PathBuf::from(sandbox::log_directory(pod, node));
    if !node.container_links.as_os_str().is_empty() {
        let prefix = format!("{}_{}_", name(pod), namespace(pod));
        for entry in std::fs::read_dir(&node.container_links)
            .into_iter()
            .flatten()
            .flatten()
        {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            let named = entry.file_name().to_string_lossy().starts_with(&prefix);
            if named && target.starts_with(&folder) {
                remove_file(&entry.path());
            }
        }
    }
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "remove pod logs");
        }
        Ok(()) | Err(_) => {}
    }
}

fn remove_file(path: &Path) {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "remove log");
        }
        Ok(()) | Err(_) => {}
    }
}
