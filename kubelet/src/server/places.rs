//! Which paths there are at all: no others are asked who calls.
//!
//! kubernetes v1.37 pkg/kubelet/server/server.go.

use super::Refusal;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// There are handlers for it or for something below it.
    Served,
    /// The same with a slash at its end is.
    Folder,
    Nothing,
}

/// These alone.
const FILES: [&str; 12] = [
    "/configz",
    "/flagz",
    "/healthz",
    "/healthz/log",
    "/healthz/ping",
    "/healthz/syncloop",
    "/metrics",
    "/metrics/cadvisor",
    "/metrics/probes",
    "/metrics/resource",
    "/metrics/slis",
    "/statusz",
];

/// These and what is below them.
const TREES: [&str; 6] = [
    "/attach",
    "/containerLogs",
    "/exec",
    "/pods",
    "/portForward",
    "/run",
];

/// What is below these.
const FOLDERS: [&str; 4] = ["/checkpoint", "/logs", "/runningpods", "/stats"];

pub(super) fn of(path: &str) -> Place {
    let below = |root: &&str| path.strip_prefix(*root).is_some_and(|r| r.starts_with('/'));
    if FILES.contains(&path) || TREES.contains(&path) {
        return Place::Served;
    }
    if TREES.iter().chain(&FOLDERS).any(below) {
        return Place::Served;
    }
    match FOLDERS.contains(&path) {
        true => Place::Folder,
        false => Place::Nothing,
    }
}

pub(super) fn to_folder(uri: &Uri) -> Response {
    let query = uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    Redirect::temporary(&format!("{}/{query}", uri.path())).into_response()
}

pub(super) fn nothing() -> Refusal {
    Refusal(StatusCode::NOT_FOUND, "404 page not found".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_served_or_leads_to_its_folder_or_is_nothing() {
        for (path, place) in [
            ("/pods", Place::Served),
            ("/pods/x", Place::Served),
            ("/podsx", Place::Nothing),
            ("/stats", Place::Folder),
            ("/stats/summary", Place::Served),
            ("/metrics/x", Place::Nothing),
            ("/exec/ns/p/c", Place::Served),
            ("/", Place::Nothing),
            ("//pods", Place::Nothing),
        ] {
            assert_eq!(of(path), place, "{path}");
        }
    }
}
