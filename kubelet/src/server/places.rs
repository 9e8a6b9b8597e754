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
const FILES: [&str; 10] = [
    "/healthz",
    "/healthz/log",
    "/healthz/ping",
    "/healthz/syncloop",
    "/metrics",
    "/metrics/cadvisor",
    "/metrics/probes",
    "/metrics/resource",
    "/metrics/slis",
    "/pods",
];

/// What is below these, and they themselves lead there.
const FOLDERS: [&str; 4] = ["/debug/pprof", "/logs", "/runningpods", "/stats"];

/// These, too, with `enableDebuggingHandlers`.
const DEBUGGING_FILES: [&str; 4] = ["/configz", "/debug/flags/v", "/flagz", "/statusz"];
const DEBUGGING_FOLDERS: [&str; 1] = ["/checkpoint"];

/// These and what is below them. Without `enableDebuggingHandlers` they are folders, in which a
/// sentence says that they are switched off.
const STREAMS: [&str; 5] = ["/attach", "/containerLogs", "/exec", "/portForward", "/run"];

/// What there is at a path.
pub(super) fn of(path: &str, debugging: bool) -> Place {
    let below = |root: &&str| path.strip_prefix(*root).is_some_and(|r| r.starts_with('/'));
    let also = match debugging {
        true => (&DEBUGGING_FILES[..], &DEBUGGING_FOLDERS[..]),
        false => (&[][..], &[][..]),
    };
    let folders = || FOLDERS.iter().chain(&STREAMS).chain(also.1);
    let whole = debugging && STREAMS.contains(&path);
    if whole || FILES.contains(&path) || also.0.contains(&path) {
        return Place::Served;
    }
    if path.starts_with("/pods/") || folders().any(below) {
        return Place::Served;
    }
    match folders().any(|f| *f == path) {
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
            ("/debug", Place::Nothing),
            ("/debug/flags/v", Place::Served),
            ("/debug/flags/x", Place::Nothing),
            ("/debug/pprof", Place::Folder),
            ("/debug/pprof/profile", Place::Served),
        ] {
            assert_eq!(of(path, true), place, "{path}");
        }
    }

    #[test]
    fn without_debugging_handlers_some_paths_are_nothing_and_others_say_so() {
        for (path, place) in [
            ("/pods", Place::Served),
            ("/pods/x", Place::Served),
            ("/metrics", Place::Served),
            ("/stats/summary", Place::Served),
            ("/exec", Place::Folder),
            ("/exec/ns/p/c", Place::Served),
            ("/debug/pprof/", Place::Served),
            ("/debug/flags/v", Place::Nothing),
            ("/configz", Place::Nothing),
            ("/statusz", Place::Nothing),
            ("/checkpoint/ns/p/c", Place::Nothing),
        ] {
            assert_eq!(of(path, false), place, "{path}");
        }
    }
}
