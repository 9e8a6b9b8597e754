//! What `kubectl logs` asks for, and what of it a line must pass.

use super::line::Line;
use crate::server::Refusal;
use crate::server::query::Params;
use axum::http::StatusCode;
use jiff::Timestamp;

/// v1.PodLogOptions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogOptions {
    pub follow: bool,
    pub previous: bool,
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    pub tail: Option<u64>,
    pub limit_bytes: Option<u64>,
    pub stream: Option<&'static str>,
}

impl LogOptions {
    pub(in crate::server) fn parse(params: &Params, now: Timestamp) -> Result<LogOptions, Refusal> {
        Ok(LogOptions {
            follow: params.is_true("follow"),
            previous: params.is_true("previous"),
            timestamps: params.is_true("timestamps"),
            since: since(params, now)?,
            tail: tail(params)?,
            limit_bytes: number(params, "limitBytes", 1)?,
            stream: stream(params)?,
        })
    }

    /// Whether a line is asked for.
    pub fn wants(&self, line: &Line<'_>) -> bool {
        let stream = self.stream.is_none_or(|s| s == line.stream);
        stream
            && self
                .since
                .is_none_or(|since| !is_before(line.timestamp, since))
    }
}

/// A line whose time can't be read is shown rather than lost.
fn is_before(timestamp: &str, since: Timestamp) -> bool {
    timestamp.parse::<Timestamp>().is_ok_and(|t| t < since)
}

fn invalid(text: String) -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, text)
}

fn number(params: &Params, name: &str, least: u64) -> Result<Option<u64>, Refusal> {
    let Some(text) = params.get(name).filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    match text.parse::<i64>() {
        Err(_) => Err(Refusal(
            StatusCode::BAD_REQUEST,
            format!("{name}: {text:?} is no number"),
        )),
        Ok(n) => match u64::try_from(n) {
            Ok(n) if n >= least => Ok(Some(n)),
            _ => Err(invalid(format!(
                "{name}: Invalid value: {n}: must be greater than or equal to {least}"
            ))),
        },
    }
}

fn since(params: &Params, now: Timestamp) -> Result<Option<Timestamp>, Refusal> {
    let seconds = number(params, "sinceSeconds", 1)?;
    let time = params.get("sinceTime").filter(|t| !t.is_empty());
    match (seconds, time) {
        (Some(_), Some(_)) => Err(invalid(
            "at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned(),
        )),
        (Some(seconds), None) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            let past = now.as_second().saturating_sub(seconds);
            // Further back than time is counted means all of it.
            Ok(Timestamp::new(past, now.subsec_nanosecond()).ok())
        }
        (None, Some(text)) => match text.parse() {
            Ok(time) => Ok(Some(time)),
            Err(e) => Err(Refusal(StatusCode::BAD_REQUEST, format!("sinceTime: {e}"))),
        },
        (None, None) => Ok(None),
    }
}

fn tail(params: &Params) -> Result<Option<u64>, Refusal> {
    match params.get("tail") {
        Some("all") => Ok(None),
        Some(_) => number(params, "tail", 0),
        None => number(params, "tailLines", 0),
    }
}

fn stream(params: &Params) -> Result<Option<&'static str>, Refusal> {
    match params.get("stream") {
        None | Some("" | "All") => Ok(None),
        Some("Stdout") => Ok(Some("stdout")),
        Some("Stderr") => Ok(Some("stderr")),
        Some(other) => Err(invalid(format!(
            "stream: Unsupported value: {other:?}: supported values: \"All\", \"Stderr\", \"Stdout\""
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<LogOptions, u16> {
        let uri = format!("/containerLogs/a/b/c?{query}").parse().unwrap();
        let now = Timestamp::from_second(1000).unwrap();
        let params = Params::of(&uri).map_err(|r| r.0.as_u16())?;
        LogOptions::parse(&params, now).map_err(|r| r.0.as_u16())
    }

    #[test]
    fn options_are_read_as_the_api_names_them() {
        let got = parse(
            "follow=true&timestamps=true&tailLines=5&limitBytes=10&sinceSeconds=100&stream=Stderr",
        );
        let want = LogOptions {
            follow: true,
            previous: false,
            timestamps: true,
            since: Some(Timestamp::from_second(900).unwrap()),
            tail: Some(5),
            limit_bytes: Some(10),
            stream: Some("stderr"),
        };
        assert_eq!(got, Ok(want));
        assert_eq!(parse("tail=all").unwrap().tail, None);
        assert_eq!(parse("tailLines=0").unwrap().tail, Some(0));
    }

    #[test]
    fn nonsense_is_refused_with_the_right_code() {
        assert_eq!(parse("tailLines=x"), Err(400));
        assert_eq!(parse("tailLines=-1"), Err(422));
        assert_eq!(parse("limitBytes=0"), Err(422));
        assert_eq!(
            parse("sinceSeconds=1&sinceTime=2020-01-01T00:00:00Z"),
            Err(422)
        );
        assert_eq!(parse("sinceTime=yesterday"), Err(400));
        assert_eq!(parse("stream=Both"), Err(422));
    }

    #[test]
    fn line_passes_by_stream_and_time() {
        let options = LogOptions {
            since: Some("2020-01-01T00:00:01Z".parse().unwrap()),
            stream: Some("stdout"),
            ..LogOptions::default()
        };
        let line = |timestamp, stream| Line {
            timestamp,
            stream,
            partial: false,
            text: b"",
        };
        assert!(options.wants(&line("2020-01-01T00:00:01Z", "stdout")));
        assert!(options.wants(&line("2020-01-01T01:00:01.5+01:00", "stdout")));
        assert!(!options.wants(&line("2020-01-01T00:00:00.999Z", "stdout")));
        assert!(!options.wants(&line("2020-01-01T00:00:01Z", "stderr")));
    }
}
