//! `/debug/pprof/`: where this process spends its CPU time.
//!
//! Names, parameters and answers are those of Go's net/http/pprof as far as they make sense in
//! a program that is not of Go; of the others it is said that they don't.

use super::Refusal;
use super::query::Params;
use super::routes::State;
use crate::profile::{self, ProfileError, Program};
use axum::extract::{Path, RawQuery, State as Extract};
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Go net/http/pprof `Profile`: without `seconds`, or with nonsense.
const USUAL: Duration = Duration::from_secs(30);
/// kubernetes v1.37 pkg/kubelet/server/server.go: the longest that an answer may take.
const LONGEST: Duration = Duration::from_secs(4 * 60 * 60);

/// Profiles of Go's own runtime: of its heap, its goroutines and its locks.
const GO: [&str; 7] = [
    "allocs",
    "block",
    "goroutine",
    "heap",
    "mutex",
    "threadcreate",
    "trace",
];

const INDEX: &str = "<html>
<head><title>/debug/pprof/</title></head>
<body>
/debug/pprof/
<ul>
<li><a href='profile?seconds=30'>profile</a>: CPU time, sampled for so many seconds; for <code>go tool pprof</code></li>
<li><a href='cmdline'>cmdline</a>: the arguments of the process</li>
<li><a href='symbol'>symbol</a>: names of the addresses in the query, as in <code>symbol?0x1000+0x2000</code></li>
</ul>
<p>allocs, block, goroutine, heap, mutex, threadcreate and trace are of Go's runtime, which this process has not.</p>
</body>
</html>
";

/// What there is.
pub(super) async fn index() -> Html<&'static str> {
    Html(INDEX)
}

/// One of them.
pub(super) async fn of(
    Extract(state): Extract<Arc<State>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    uri: Uri,
) -> Result<Response, Refusal> {
    match name.as_str() {
        "profile" => profile(&state, seconds(&uri)).await,
        "cmdline" => Ok(cmdline().into_response()),
        "symbol" => symbol(&query.unwrap_or_default()).await,
        name if GO.contains(&name) => {
            let why = format!(
                "{name} is a profile of Go's runtime, and this is no program of Go; there are \
                 profile, cmdline and symbol"
            );
            Err(Refusal(StatusCode::NOT_IMPLEMENTED, why))
        }
        _ => Err(Refusal(StatusCode::NOT_FOUND, "Unknown profile".to_owned())),
    }
}

fn seconds(uri: &Uri) -> Duration {
    let params = Params::of(uri).unwrap_or_default();
    let given = params.get("seconds").and_then(|s| s.parse().ok());
    given.filter(|s| *s > 0).map_or(USUAL, Duration::from_secs)
}

/// Of the whole process, ended early when nobody waits for it any more.
async fn profile(state: &State, length: Duration) -> Result<Response, Refusal> {
    if length >= LONGEST {
        let why = "profile duration exceeds server's WriteTimeout".to_owned();
        return Err(Refusal(StatusCode::BAD_REQUEST, why));
    }
    let Ok(alone) = state.profiling.clone().try_lock_owned() else {
        let why = "Could not enable CPU profiling: cpu profiling already in use".to_owned();
        return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, why));
    };
    let stop = CancellationToken::new();
    let _stopped_with_this = stop.clone().drop_guard();
    let taken = tokio::task::spawn_blocking(move || {
        let taken = profile::cpu(length, &stop);
        drop(alone);
        taken
    });
    let taken = taken.await.map_err(|e| unavailable(&e))?;
    let taken = taken.map_err(|e| match &e {
        ProfileError::Program(_) => unavailable(&e),
        ProfileError::Sample(_) | ProfileError::Architecture => instead(&e),
    })?;
    let told = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"profile\"",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((told, taken).into_response())
}

fn unavailable(error: &dyn Error) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, chain(error))
}

/// The kernel may have no perf events, or somebody forbids them to this process.
fn instead(error: &dyn Error) -> Refusal {
    let why = format!(
        "{}; on the machine itself `perf record -g -p PID` may do",
        chain(error)
    );
    Refusal(StatusCode::NOT_IMPLEMENTED, why)
}

fn chain(error: &dyn Error) -> String {
    let mut text = format!("Could not enable CPU profiling: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

fn cmdline() -> String {
    let args: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    args.join("\0")
}

/// Addresses to names, one a line; what has none is left out. That there is one symbol at all
/// tells who asks that asking is worth while.
async fn symbol(query: &str) -> Result<Response, Refusal> {
    let addresses = addresses(query);
    let found = tokio::task::spawn_blocking(move || -> Result<String, ProfileError> {
        let program = Program::own()?;
        let mut text = format!("num_symbols: {}\n", u8::from(program.has_names()));
        for address in addresses {
            if let Some(name) = program.name(address) {
                text += &format!("{address:#x} {name}\n");
            }
        }
        Ok(text)
    });
    let found = found.await.map_err(|e| unavailable(&e))?;
    Ok(found.map_err(|e| unavailable(&e))?.into_response())
}

/// As in `0x1000+0x2000`; what is no address is left out.
fn addresses(query: &str) -> Vec<u64> {
    let words = query.split('+').map(str::trim);
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    };
    words.filter_map(number).filter(|a| *a != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_what_was_asked_for_or_the_usual() {
        for (query, seconds_) in [
            ("", 30),
            ("?seconds=5", 5),
            ("?seconds=0", 30),
            ("?seconds=-1", 30),
            ("?seconds=x", 30),
        ] {
            let uri: Uri = format!("/debug/pprof/profile{query}").parse().unwrap();
            assert_eq!(seconds(&uri), Duration::from_secs(seconds_), "{query}");
        }
    }

    #[test]
    fn addresses_are_read_as_pprof_writes_them() {
        assert_eq!(addresses("0x10+0xfF+7+x+0"), [16, 255, 7]);
        assert!(addresses("").is_empty());
    }

    #[tokio::test]
    async fn symbols_of_this_program_are_told() {
        let here = addresses as *const () as u64;
        let answer = symbol(&format!("{here:#x}+0x1")).await.unwrap();
        let body = axum::body::to_bytes(answer.into_body(), 4096)
            .await
            .unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines.len()), ("num_symbols: 1", 2), "{text}");
        assert!(lines[1].contains("addresses"), "{text}");
    }
}
