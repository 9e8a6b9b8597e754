//! What the process says of itself, on stderr.

use crate::cli::{Cli, Command, LogFormat};
use crate::waterfall::{Recorder, Starts};
use kubelet::server::Verbosity;
use std::fmt;
use std::sync::Arc;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, reload};

/// What else becomes of it.
#[derive(Clone)]
pub struct Logs {
    /// Spans of pods' starts.
    pub starts: Arc<Starts>,
    /// How much is said.
    pub level: Arc<Level>,
}

/// Of the log of a daemon, at run time.
pub struct Level(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Level")
    }
}

impl Level {
    /// A filter that can be changed, and what changes it.
    fn of<S: 'static>(filter: EnvFilter) -> (reload::Layer<EnvFilter, S>, Arc<Level>) {
        let (layer, handle) = reload::Layer::new(filter);
        let set = move |filter| handle.reload(filter);
        (layer, Arc::new(Level(Box::new(set))))
    }
}

impl Verbosity for Level {
    fn set(&self, level: i32) -> Result<(), String> {
        let set = (self.0)(filter(directives(true, of_klog(level))));
        set.map_err(|e| e.to_string())
    }
}

/// How often `-v` would have to be said, for klog's level; of the kubelet's `--v` 2 is usual in
/// production.
#[must_use]
pub fn of_klog(level: i32) -> u8 {
    match level {
        ..=3 => 0,
        4..=7 => 1,
        8.. => 3,
    }
}

fn directives(daemon: bool, verbose: u8) -> &'static str {
    match (daemon, verbose) {
        (false, 0) => "warn",
        (true, 0) | (false, 1) => "info",
        (_, 1 | 2) => "debug,hyper=info,h2=info,rustls=info,tower=info,kube=info",
        _ => "trace,hyper=info,h2=info,rustls=info",
    }
}

/// The netlink connections report their own end at shutdown as an error.
fn quiet() -> tracing_subscriber::filter::Directive {
    "netlink_proto=off"
        .parse()
        .unwrap_or_else(|_| tracing::Level::ERROR.into())
}

fn filter(directives: &str) -> EnvFilter {
    EnvFilter::new(directives).add_directive(quiet())
}

/// Log of a daemon at `info`, of a command for people at `warn`; `-v` and
/// `LIGHTER_LOG` (as tracing's EnvFilter) raise it. What starts pods is recorded
/// beside, in the answer.
pub fn init(cli: &Cli) -> Logs {
    let daemon = matches!(
        cli.command,
        Command::Agent(_) | Command::Kubelet(_) | Command::Runtime(_)
    );
    let filter = EnvFilter::try_from_env("LIGHTER_LOG")
        .unwrap_or_else(|_| filter(directives(daemon, cli.verbose)));
    let (filter, level) = Level::of(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let starts = Arc::new(Starts::default());
    let recorder = runs_pods(&cli.command)
        .then(|| Recorder::new(starts.clone()).with_filter(filter_fn(Recorder::wants)));
    let registry = tracing_subscriber::registry().with(recorder);
    match cli.log_format {
        LogFormat::Text => registry
            .with(layer.with_ansi(false).with_filter(filter))
            .init(),
        LogFormat::Json => registry.with(layer.json().with_filter(filter)).init(),
    }
    Logs { starts, level }
}

fn runs_pods(command: &Command) -> bool {
    matches!(
        command,
        Command::Agent(_) | Command::Kubelet(_) | Command::Runtime(_) | Command::Play(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl Write for Said {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            said.write(data)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn log_says_more_and_less_when_its_level_is_set() {
        let said = Said::default();
        let (filter, level) = Level::of(filter("info"));
        let writer = said.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            for (n, klog) in [2, 4, 8, 0].into_iter().enumerate() {
                level.set(klog).unwrap();
                tracing::debug!("debug{n}");
                tracing::trace!("trace{n}");
            }
        });
        let said = said.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&said);
        let found = ["debug0", "debug1", "trace1", "debug2", "trace2", "debug3"]
            .map(|word| said.contains(word));
        assert_eq!(found, [false, true, false, true, true, false], "{said}");
    }
}
