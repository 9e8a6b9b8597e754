//! Where traces go, and how many are kept.

use super::raw::KubeletConfiguration;
use super::used::Mistakes;
use http::uri::Authority;
use std::fmt;
use std::path::PathBuf;

/// kubernetes v1.37 staging/src/k8s.io/component-base/tracing/api/v1: the default endpoint.
const ENDPOINT: &str = "localhost:4317";
/// gRPC's name resolution (grpc/doc/naming.md): the port of a name that has none.
const PORT: u16 = 443;
const MILLION: i32 = 1_000_000;

/// A collector that takes OTLP over gRPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    pub collector: Collector,
    /// Traces that are kept, of a million; 0: none.
    pub per_million: u32,
}

/// Where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collector {
    /// `HOST:PORT`.
    Tcp(String),
    Unix(PathBuf),
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Collector::Tcp(address) => f.write_str(address),
            Collector::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `None` where nobody asks for traces.
pub(super) fn of(m: &mut Mistakes, raw: &KubeletConfiguration) -> Option<Tracing> {
    let wanted = raw.tracing.as_ref()?;
    let rate = wanted.sampling_rate_per_million.unwrap_or(0);
    if !(0..=MILLION).contains(&rate) {
        let text = format!("tracing.samplingRatePerMillion: {rate} is not within 0 and 1000000");
        m.0.push(text);
    }
    let endpoint = wanted.endpoint.as_deref().unwrap_or(ENDPOINT);
    let Some(collector) = collector(endpoint) else {
        let text = format!("tracing.endpoint: {endpoint:?} is neither HOST:PORT nor unix:PATH");
        m.0.push(text);
        return None;
    };
    Some(Tracing {
        collector,
        per_million: u32::try_from(rate).unwrap_or(0),
    })
}

/// As gRPC reads targets: `HOST[:PORT]`, also after `dns:` or `dns:///`; `unix:PATH`, `unix:///PATH`.
fn collector(endpoint: &str) -> Option<Collector> {
    if let Some(path) = endpoint.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return (!path.is_empty()).then(|| Collector::Unix(path.into()));
    }
    let name = endpoint.strip_prefix("dns:").unwrap_or(endpoint);
    let name = name.strip_prefix("///").unwrap_or(name);
    let authority: Authority = name.parse().ok()?;
    let port = authority.port_u16();
    // "h:" and "h:x" have no port and no right to be one.
    let written = name.rsplit_once(']').map_or(name, |(_, rest)| rest);
    let is_whole = port.is_some() == written.contains(':') && !authority.host().is_empty();
    is_whole.then(|| Collector::Tcp(format!("{}:{}", authority.host(), port.unwrap_or(PORT))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn tracing_has_defaults_and_its_mistakes_are_told() {
        let tracing = |text: &str| parse(&[("test", text)]).map(|l| l.config.tracing);
        assert_eq!(tracing("").unwrap(), None);
        let some = tracing("tracing: {samplingRatePerMillion: 7}")
            .unwrap()
            .unwrap();
        assert_eq!(
            (some.collector.to_string().as_str(), some.per_million),
            ("localhost:4317", 7)
        );
        let wrong = "tracing: {endpoint: 'http://x/y', samplingRatePerMillion: 1000001}";
        let told = tracing(wrong).unwrap_err().to_string();
        assert!(
            told.contains("neither HOST:PORT nor") && told.contains("1000001"),
            "{told}"
        );
    }

    #[test]
    fn collector_is_named_as_grpc_names_targets() {
        let said = |endpoint: &str| collector(endpoint).map(|c| c.to_string());
        for (endpoint, expected) in [
            ("10.0.0.1:4317", "10.0.0.1:4317"),
            ("dns:///otel.example", "otel.example:443"),
            ("dns:[fd00::1]:4317", "[fd00::1]:4317"),
            ("[fd00::1]", "[fd00::1]:443"),
            ("unix:///run/otel.sock", "unix:/run/otel.sock"),
            ("unix:otel.sock", "unix:otel.sock"),
        ] {
            assert_eq!(said(endpoint).as_deref(), Some(expected), "{endpoint}");
        }
        for wrong in [
            "",
            "h:",
            "h:x",
            "h:70000",
            "http://h:1",
            "dns://ns/h",
            "unix:",
        ] {
            assert_eq!(said(wrong), None, "{wrong}");
        }
    }
}
