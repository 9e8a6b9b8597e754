//! `/logs/?query=…`: what services of the node said, without a shell on it.
//!
//! Names, limits and answers are those of node log query (KEP-2258) in kubelet
//! 1.37 (`pkg/kubelet/kubelet_server_journal.go`): services are asked of
//! journalctl, and those that it does not know looked for under /var/log.

use super::Refusal;
use super::node_logs::{open_beneath, show};
use super::routes::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const MAX_SERVICES: usize = 4;
const MAX_SERVICE_LENGTH: usize = 256;
const MAX_TAIL_LINES: i64 = 100_000;
const LIMIT: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Query {
    /// A file below the log directory.
    File(String),
    Services(Vec<String>, Options),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tail_lines: Option<i64>,
    boot: Option<i64>,
    pattern: Option<String>,
}

/// The answer, if these parameters are a query; `None` when they say nothing.
pub(super) async fn answer(
    state: &State,
    path: &str,
    parameters: &[(String, String)],
) -> Option<Result<Response, Refusal>> {
    let query = match parse(parameters) {
        Ok(None) => return None,
        Ok(Some(query)) => query,
        Err(refusal) => return Some(Err(refusal)),
    };
    if !path.trim_matches(['.', '/']).is_empty() {
        let text = "path not allowed in query mode".to_owned();
        return Some(Err(Refusal(StatusCode::NOT_ACCEPTABLE, text)));
    }
    Some(match query {
        Query::File(path) => show(state, &path).map_err(|_| {
            let text = format!("query: Invalid value: {path:?}: no such file");
            Refusal(StatusCode::NOT_ACCEPTABLE, text)
        }),
        Query::Services(services, options) => Ok(said(state, &services, &options).await),
    })
}

/// 400 for what can't be read, 406 for what makes no sense.
fn parse(parameters: &[(String, String)]) -> Result<Option<Query>, Refusal> {
    let bad = |text: String| Refusal(StatusCode::BAD_REQUEST, text);
    let first = |name: &str| {
        let found = parameters.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    };
    let time = |name: &str| {
        let parsed = first(name).map(str::parse::<Timestamp>).transpose();
        parsed.map_err(|_| bad(format!("{name}: Invalid value: invalid time format")))
    };
    let number = |name: &str| {
        let parsed = first(name).map(str::parse::<i64>).transpose();
        parsed.map_err(|e| bad(format!("{name}: Invalid value: {e}")))
    };
    let asked = parameters.iter().filter(|(key, _)| key == "query");
    let asked: Vec<&String> = asked.map(|(_, value)| value).collect();
    let named = asked.iter().filter(|v| !v.trim().is_empty());
    let (files, services): (Vec<String>, Vec<String>) = named
        .map(|v| v.to_string())
        .partition(|v| v.contains(['/', '\\']));
    let nothing = files.is_empty() && services.is_empty();
    if !asked.is_empty() && nothing {
        return Err(bad("query: Invalid value: may not be empty".to_owned()));
    }
    let options = Options {
        since: time("sinceTime")?,
        until: time("untilTime")?,
        tail_lines: number("tailLines")?,
        boot: number("boot")?,
        pattern: first("pattern").map(str::to_owned),
    };
    if nothing && options == Options::default() {
        return Ok(None);
    }
    sensible(files, services, options)
        .map(Some)
        .map_err(|text| Refusal(StatusCode::NOT_ACCEPTABLE, text))
}

fn sensible(
    mut files: Vec<String>,
    services: Vec<String>,
    options: Options,
) -> Result<Query, String> {
    match (files.len(), services.len()) {
        (0, 0) => return Err("query: Required value: cannot be empty with options".to_owned()),
        (1.., 1..) => return Err("query: cannot specify a file and service".to_owned()),
        (2.., _) => return Err("query: cannot specify more than one file".to_owned()),
        (1, _) if options != Options::default() => {
            return Err("query: cannot specify file with options".to_owned());
        }
        (1, _) => return Ok(Query::File(files.remove(0))),
        (_, n) if n > MAX_SERVICES => {
            return Err(format!(
                "query: Too many: {n}: must have at most {MAX_SERVICES} items"
            ));
        }
        _ => {}
    }
    let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
    for service in &services {
        if service.len() > MAX_SERVICE_LENGTH || !service.chars().all(is_safe) {
            return Err(format!(
                "query: Invalid value: {service:?}: not the name of a service"
            ));
        }
    }
    if options
        .since
        .zip(options.until)
        .is_some_and(|(since, until)| since > until)
    {
        return Err("untilTime: must be after `sinceTime`".to_owned());
    }
    if options.boot.is_some_and(|boot| boot > 0) {
        return Err("boot: must be less than 1".to_owned());
    }
    if options
        .tail_lines
        .is_some_and(|n| !(0..=MAX_TAIL_LINES).contains(&n))
    {
        return Err(format!(
            "tailLines: must be between 0 and {MAX_TAIL_LINES}, inclusive"
        ));
    }
    Ok(Query::Services(services, options))
}

/// Also what went wrong is told in the text: the answer has begun by then.
async fn said(state: &State, services: &[String], options: &Options) -> Response {
    let units = journal_units().await;
    let known = |service: &&String| units.contains(&format!("{service}.service"));
    let (journal, files): (Vec<&String>, Vec<&String>) = services.iter().partition(known);
    let mut text = Vec::new();
    if !journal.is_empty() {
        text.extend(of_journal(&journal, options).await);
    }
    if !files.is_empty() && *options != Options::default() {
        let why = format!(
            "\noptions present and query resolved to log files for {files:?}\n\
             try without specifying options\n"
        );
        text.extend(why.into_bytes());
    } else {
        for service in files {
            text.extend(of_files(&state.system_logs, service));
        }
    }
    let plain = [(header::CONTENT_TYPE, "text/plain;charset=UTF-8")];
    (plain, text).into_response()
}

/// Empty where there is no journal.
async fn journal_units() -> String {
    let mut ask = Command::new("journalctl");
    ask.args(["--field", "_SYSTEMD_UNIT"]).stdin(Stdio::null());
    let answer = tokio::time::timeout(LIMIT, ask.kill_on_drop(true).output()).await;
    match answer {
        Ok(Ok(output)) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => String::new(),
    }
}

async fn of_journal(services: &[&String], options: &Options) -> Vec<u8> {
    let mut ask = Command::new("journalctl");
    ask.args(arguments(services, options)).stdin(Stdio::null());
    match tokio::time::timeout(LIMIT, ask.kill_on_drop(true).output()).await {
        Ok(Ok(output)) => [output.stdout, output.stderr].concat(),
        _ => b"\nerror: journal output not available\n".to_vec(),
    }
}

fn arguments(services: &[&String], options: &Options) -> Vec<String> {
    let mut words: Vec<String> = ["--utc", "--no-pager", "--output=short-precise"]
        .map(str::to_owned)
        .into();
    let date = |time: &Timestamp| time.strftime("%Y-%m-%d %H:%M:%S").to_string();
    words.extend(options.since.iter().map(|t| format!("--since={}", date(t))));
    words.extend(options.until.iter().map(|t| format!("--until={}", date(t))));
    if let Some(lines) = options.tail_lines {
        words.extend(["--pager-end".to_owned(), format!("--lines={lines}")]);
    }
    words.extend(services.iter().map(|s| format!("--unit={s}")));
    words.extend(options.pattern.iter().map(|p| format!("--grep={p}")));
    words.extend(options.boot.iter().map(|b| format!("--boot={b}")));
    words
}

/// `NAME`, `NAME.log` or `NAME/NAME.log`, whichever is a file.
fn of_files(root: &Path, service: &str) -> Vec<u8> {
    let names = [
        service.to_owned(),
        format!("{service}.log"),
        format!("{service}/{service}.log"),
    ];
    let text = names.iter().find_map(|name| {
        let mut file = std::fs::File::from(open_beneath(root, name).ok()?);
        let mut text = Vec::new();
        let is_file = file.metadata().is_ok_and(|m| m.is_file());
        (is_file && file.read_to_end(&mut text).is_ok()).then_some(text)
    });
    text.unwrap_or_else(|| format!("\nlog not found for {service}\n").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(query: &[(&str, &str)]) -> Result<Option<Query>, StatusCode> {
        let pairs: Vec<_> = query
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        parse(&pairs).map_err(|refusal| refusal.0)
    }

    #[test]
    fn no_parameter_is_no_query_and_an_empty_one_a_mistake() {
        assert_eq!(parsed(&[]), Ok(None));
        assert_eq!(parsed(&[("query", "")]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(parsed(&[("boot", "x")]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(parsed(&[("boot", "0")]), Err(StatusCode::NOT_ACCEPTABLE));
    }

    #[test]
    fn file_is_asked_for_alone() {
        let file = Ok(Some(Query::File("/a.log".to_owned())));
        assert_eq!(parsed(&[("query", "/a.log")]), file);
        for other in [("query", "/b.log"), ("query", "kubelet"), ("boot", "0")] {
            let both = parsed(&[("query", "/a.log"), other]);
            assert_eq!(both, Err(StatusCode::NOT_ACCEPTABLE), "{other:?}");
        }
    }

    #[test]
    fn options_out_of_their_range_are_refused() {
        let wrong = [
            ("boot", "1"),
            ("tailLines", "-1"),
            ("tailLines", "100001"),
            ("query", "a;b"),
        ];
        for option in wrong {
            let got = parsed(&[("query", "kubelet"), option]);
            assert_eq!(got, Err(StatusCode::NOT_ACCEPTABLE), "{option:?}");
        }
        let (late, early) = ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z");
        let times = [("query", "k"), ("sinceTime", late), ("untilTime", early)];
        assert_eq!(parsed(&times), Err(StatusCode::NOT_ACCEPTABLE));
    }

    #[test]
    fn journalctl_is_asked_in_utc() {
        let options = Options {
            since: "2026-01-02T03:04:05+01:00".parse().ok(),
            tail_lines: Some(3),
            boot: Some(0),
            ..Options::default()
        };
        let words = arguments(&[&"kubelet".to_owned()], &options);
        let expected = [
            "--utc",
            "--no-pager",
            "--output=short-precise",
            "--since=2026-01-02 02:04:05",
            "--pager-end",
            "--lines=3",
            "--unit=kubelet",
            "--boot=0",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn log_is_found_under_the_names_that_services_use() {
        let root = std::env::temp_dir().join(format!("lighter-log-query-{}", std::process::id()));
        std::fs::create_dir_all(root.join("b")).unwrap();
        std::fs::write(root.join("a.log"), "of a").unwrap();
        std::fs::write(root.join("b/b.log"), "of b").unwrap();
        assert_eq!(of_files(&root, "a"), b"of a");
        assert_eq!(of_files(&root, "b"), b"of b");
        assert_eq!(of_files(&root, "c"), b"\nlog not found for c\n");
        std::fs::remove_dir_all(root).unwrap();
    }
}
