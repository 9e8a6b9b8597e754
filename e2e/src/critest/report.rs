//! What ginkgo reports of a run, and what it comes to.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// Why, in ginkgo's words.
    Failed(String),
    Skipped(String),
}

/// What became of every spec that was chosen, by its full name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcomes(BTreeMap<String, Outcome>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (passed, failed, skipped) = (self.passed, self.failed, self.skipped);
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl Outcomes {
    /// From a file of `--ginkgo.json-report`.
    pub fn read(json: &[u8]) -> Result<Outcomes> {
        let suites: Vec<Suite> = serde_json::from_slice(json).context("ginkgo's report")?;
        let specs = suites.into_iter().flat_map(|s| s.specs.unwrap_or_default());
        let chosen = specs.filter_map(|s| Some((s.name(), s.outcome()?)));
        Ok(Outcomes(chosen.collect()))
    }

    pub fn counts(&self) -> Counts {
        let count = |wanted: fn(&Outcome) -> bool| self.0.values().filter(|o| wanted(o)).count();
        Counts {
            passed: count(|o| matches!(o, Outcome::Passed)),
            failed: count(|o| matches!(o, Outcome::Failed(_))),
            skipped: count(|o| matches!(o, Outcome::Skipped(_))),
        }
    }

    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, outcome)| match outcome {
            Outcome::Failed(why) => Some((name.as_str(), why.as_str())),
            _ => None,
        })
    }

    /// Why specs were skipped, and how many for each reason.
    pub fn skips(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for outcome in self.0.values() {
            if let Outcome::Skipped(why) = outcome {
                *reasons.entry(why.as_str()).or_default() += 1;
            }
        }
        reasons
    }

    /// Takes another run in: a spec is as bad as in its worst run, and one that ran is not skipped.
    pub fn merge(&mut self, other: Outcomes) {
        for (name, outcome) in other.0 {
            let before = self.0.remove(&name);
            let worse = match (before, outcome) {
                (Some(failed @ Outcome::Failed(_)), _) | (_, failed @ Outcome::Failed(_)) => failed,
                (Some(Outcome::Skipped(_)) | None, now) => now,
                (Some(Outcome::Passed), _) => Outcome::Passed,
            };
            self.0.insert(name, worse);
        }
    }
}

/// ginkgo v2 `types.Report`, as far as it is read here.
#[derive(Deserialize)]
struct Suite {
    #[serde(rename = "SpecReports")]
    specs: Option<Vec<Spec>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Spec {
    container_hierarchy_texts: Option<Vec<String>>,
    leaf_node_type: String,
    leaf_node_text: String,
    state: String,
    #[serde(default)]
    failure: Failure,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    #[serde(default)]
    message: String,
}

impl Spec {
    fn name(&self) -> String {
        let mut words = self.container_hierarchy_texts.clone().unwrap_or_default();
        words.push(if self.leaf_node_text.is_empty() {
            self.leaf_node_type.clone()
        } else {
            self.leaf_node_text.clone()
        });
        words.join(" ")
    }

    /// `None` for a spec that was not chosen, and for set-up that went well.
    fn outcome(&self) -> Option<Outcome> {
        let why = self.failure.message.clone();
        let is_spec = self.leaf_node_type == "It";
        match self.state.as_str() {
            "passed" => is_spec.then_some(Outcome::Passed),
            // A filter skips without a word.
            "skipped" | "pending" => (is_spec && !why.is_empty()).then_some(Outcome::Skipped(why)),
            _ => Some(Outcome::Failed(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, state: &str, message: &str) -> String {
        format!(
            r#"{{"ContainerHierarchyTexts":["[k8s.io] Pod"],"LeafNodeType":"It",
                "LeafNodeText":"{name}","State":"{state}","Failure":{{"Message":"{message}"}}}}"#
        )
    }

    fn outcomes(specs: &[String]) -> Outcomes {
        let json = format!(r#"[{{"SpecReports":[{}]}}]"#, specs.join(","));
        Outcomes::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn read_leaves_out_what_a_filter_did_not_choose() {
        let all = outcomes(&[
            spec("runs", "passed", ""),
            spec("breaks", "panicked", "nil"),
            spec("AppArmor", "skipped", "no AppArmor"),
            spec("benchmark", "skipped", ""),
        ]);
        assert_eq!(all.counts().to_string(), "1 passed, 1 failed, 1 skipped");
        let failed: Vec<_> = all.failed().collect();
        assert_eq!(failed, [("[k8s.io] Pod breaks", "nil")]);
        assert_eq!(all.skips()["no AppArmor"], 1);
    }

    #[test]
    fn read_counts_a_failed_set_up() {
        let json = br#"[{"SpecReports":[{"ContainerHierarchyTexts":null,"LeafNodeText":"",
            "LeafNodeType":"SynchronizedBeforeSuite","State":"failed",
            "Failure":{"Message":"no runtime"}}]}]"#;
        let all = Outcomes::read(json).unwrap();
        let failed: Vec<_> = all.failed().collect();
        assert_eq!(failed, [("SynchronizedBeforeSuite", "no runtime")]);
    }

    #[test]
    fn merge_keeps_the_worst_of_two_runs() {
        let mut all = outcomes(&[
            spec("a", "passed", ""),
            spec("b", "skipped", "why"),
            spec("c", "failed", "why"),
        ]);
        all.merge(outcomes(&[
            spec("a", "failed", "later"),
            spec("b", "passed", ""),
            spec("c", "passed", ""),
        ]));
        assert_eq!(all.counts().to_string(), "1 passed, 2 failed, 0 skipped");
    }
}
