//! What is known of each spec, from run to run.

use super::report::{Outcome, State};
use super::tally::Tally;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const FILE: &str = "results.json";

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub specs: BTreeMap<String, Known>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    pub state: State,
    pub seconds: f64,
    pub message: String,
    pub at: String,
    /// Of what it is a result.
    pub build: String,
}

impl Record {
    pub fn load(dir: &Path) -> Result<Record> {
        let file = dir.join(FILE);
        match fs::read(&file) {
            Ok(text) => {
                serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))
            }
            Err(_) => Ok(Record::default()),
        }
    }

    /// Written whole and renamed.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let partial = dir.join(format!(".{FILE}"));
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, dir.join(FILE)).with_context(|| format!("write {FILE}"))
    }

    /// Those that failed or never ran to their end.
    pub fn left(&self, wanted: &[String]) -> Vec<String> {
        let done = |spec: &String| {
            let known = self.specs.get(spec);
            known.is_some_and(|k| k.state != State::Failed)
        };
        wanted.iter().filter(|s| !done(s)).cloned().collect()
    }

    pub fn take(&mut self, outcomes: Vec<Outcome>, build: &str) {
        for outcome in outcomes {
            let known = Known {
                state: outcome.state,
                seconds: outcome.seconds,
                message: outcome.message,
                at: outcome.at,
                build: build.to_owned(),
            };
            self.specs.insert(outcome.spec, known);
        }
    }

    pub fn tally(&self, wanted: &[String]) -> Tally {
        let named = wanted.iter().map(|s| (s.clone(), self.specs.get(s)));
        Tally::of(named)
    }
}

/// A directory for the files of one more run.
pub fn new_run(dir: &Path) -> Result<PathBuf> {
    let taken = |n: &u32| dir.join(format!("run-{n}")).exists();
    let number = (1..).find(|n| !taken(n)).unwrap_or(1);
    let run = dir.join(format!("run-{number}"));
    fs::create_dir_all(&run).with_context(|| format!("create {}", run.display()))?;
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_takes_up_what_failed_and_what_is_missing() {
        let outcome = |spec: &str, state| Outcome {
            spec: spec.into(),
            state,
            seconds: 1.0,
            message: String::new(),
            at: String::new(),
        };
        let mut record = Record::default();
        let wanted: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        assert_eq!(record.left(&wanted), wanted);
        let ran = vec![
            outcome("a", State::Passed),
            outcome("b", State::Failed),
            outcome("c", State::Skipped),
        ];
        record.take(ran, "x");
        assert_eq!(record.left(&wanted), ["b", "d"]);
        record.take(vec![outcome("b", State::Passed)], "y");
        assert_eq!(record.left(&wanted), ["d"]);
        assert_eq!(record.specs["b"].build, "y");
    }
}
