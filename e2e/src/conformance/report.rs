//! Ginkgo's JSON report: what became of each spec.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Passed,
    Failed,
    /// The spec looked around and found that it does not apply.
    Skipped,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub spec: String,
    pub state: State,
    pub seconds: f64,
    /// The first line of a failure or a skip.
    pub message: String,
    /// RFC 3339.
    pub at: String,
}

/// ginkgo v2 types.Report; what is not named here is not read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    #[serde(default)]
    spec_reports: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    start_time: String,
    /// Nanoseconds.
    run_time: f64,
    #[serde(default)]
    num_attempts: u32,
    failure: Option<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

/// Outcomes of the specs that ran.
pub fn read(file: &Path) -> Result<Vec<Outcome>> {
    Ok(specs(file)?.into_iter().filter_map(outcome).collect())
}

/// Names of the specs that a dry run would have run.
pub fn selected(file: &Path) -> Result<Vec<String>> {
    let specs = specs(file)?.into_iter();
    let would_run = specs.filter(|s| s.state == "passed").map(|s| s.name());
    let mut names: Vec<String> = would_run.collect();
    names.sort();
    Ok(names)
}

fn specs(file: &Path) -> Result<Vec<Spec>> {
    let open = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let reports: Vec<Report> = serde_json::from_reader(BufReader::new(open))
        .with_context(|| format!("read {}", file.display()))?;
    let all = reports.into_iter().filter_map(|r| r.spec_reports).flatten();
    // Set-up and clean-up of the suite are reported among the specs.
    Ok(all.filter(|s| s.leaf_node_type == "It").collect())
}

/// None for what did not run, or not to its end.
fn outcome(spec: Spec) -> Option<Outcome> {
    // What the focus leaves out is "skipped" as well, but was never tried.
    let tried = spec.num_attempts > 0;
    let state = match spec.state.as_str() {
        "passed" => State::Passed,
        "failed" | "panicked" | "timedout" => State::Failed,
        "skipped" if tried => State::Skipped,
        _ => return None,
    };
    let message = spec.failure.as_ref().map_or("", |f| f.message.as_str());
    Some(Outcome {
        state,
        seconds: spec.run_time / 1e9,
        message: message.lines().next().unwrap_or_default().to_owned(),
        at: spec.start_time.clone(),
        spec: spec.name(),
    })
}

impl Spec {
    fn name(&self) -> String {
        let mut texts = self.container_hierarchy_texts.clone().unwrap_or_default();
        texts.push(self.leaf_node_text.clone());
        texts.retain(|t| !t.is_empty());
        texts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn outcomes_are_those_of_specs_that_ran_to_their_end() {
        let spec = |text: &str, kind: &str, state: &str, attempts: u32| {
            json!({
                "ContainerHierarchyTexts": ["[sig-node] Pods", ""], "LeafNodeType": kind,
                "LeafNodeText": text, "State": state, "StartTime": "2026-11-25T03:00:00Z", "RunTime": 1.5e9,
                "NumAttempts": attempts,
                "Failure": {"Message": "first\nsecond"}, "Unknown": {},
            })
        };
        let report = json!([{"SuitePath": "x", "SpecReports": [
            spec("a", "It", "passed", 1),
            spec("b", "It", "failed", 1),
            spec("c", "It", "skipped", 1),
            spec("left out", "It", "skipped", 0),
            spec("cut short", "It", "interrupted", 1),
            spec("", "SynchronizedBeforeSuite", "passed", 1),
        ]}, {"SuitePath": "y", "SpecReports": null}]);
        let specs: Vec<Report> = serde_json::from_value(report).unwrap();
        let specs = specs.into_iter().filter_map(|r| r.spec_reports).flatten();
        let it = specs.filter(|s| s.leaf_node_type == "It");
        let outcomes: Vec<Outcome> = it.filter_map(outcome).collect();
        let seen: Vec<(&str, State)> = outcomes
            .iter()
            .map(|o| (o.spec.as_str(), o.state))
            .collect();
        assert_eq!(
            seen,
            [
                ("[sig-node] Pods a", State::Passed),
                ("[sig-node] Pods b", State::Failed),
                ("[sig-node] Pods c", State::Skipped),
            ]
        );
        assert_eq!(
            (outcomes[1].message.as_str(), outcomes[1].seconds),
            ("first", 1.5)
        );
    }
}
