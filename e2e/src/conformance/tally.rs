//! Counts of a record, for a terminal and for `docs/conformance/`.

use super::record::{Known, Record};
use super::report::State;
use crate::cluster::control_plane::VERSION;
use std::fmt::{self, Write as _};

#[derive(Debug, Default, PartialEq)]
pub struct Tally {
    passed: usize,
    skipped: Vec<String>,
    /// Names, with what they said.
    failed: Vec<(String, String)>,
    missing: usize,
}

impl Tally {
    pub fn of<'a>(specs: impl Iterator<Item = (String, Option<&'a Known>)>) -> Tally {
        let mut tally = Tally::default();
        for (name, known) in specs {
            match known.map(|k| k.state) {
                Some(State::Passed) => tally.passed += 1,
                Some(State::Skipped) => tally.skipped.push(name),
                Some(State::Failed) => {
                    let said = known.map(|k| k.message.clone()).unwrap_or_default();
                    tally.failed.push((name, said));
                }
                None => tally.missing += 1,
            }
        }
        tally
    }

    pub fn all_passed(&self) -> bool {
        self.failed.is_empty() && self.missing == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.skipped {
            writeln!(f, "  SKIPPED {name}")?;
        }
        for (name, said) in &self.failed {
            writeln!(f, "  FAILED {name}: {said}")?;
        }
        if self.missing > 0 {
            writeln!(f, "  {} did not run to their end: run again", self.missing)?;
        }
        let (passed, failed, skipped) = (self.passed, self.failed.len(), self.skipped.len());
        writeln!(
            f,
            "conformance: {passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}

/// The record as a document: every spec, Lighter beside the stock node.
pub fn markdown(focus: &str, skip: Option<&str>, ours: &Record, control: &Record) -> String {
    let mut text = format!("# `{focus}` of Kubernetes {VERSION}\n\n");
    let skip = skip.map_or(String::new(), |s| format!(", skip `{s}`"));
    let _ = writeln!(
        text,
        "Focus `{focus}`{skip}. Written by `make conformance`.\n"
    );
    let _ = writeln!(
        text,
        "| node | passed | failed | skipped | first to last run |"
    );
    let _ = writeln!(text, "|---|---|---|---|---|");
    let _ = writeln!(text, "{}", counts("Lighter", ours));
    if !control.specs.is_empty() {
        let _ = writeln!(text, "{}", counts("stock (control)", control));
    }
    if let Some((pairs, ratio)) = median_ratio(ours, control) {
        let _ = writeln!(
            text,
            "\nOver {pairs} specs that both passed, the median of Lighter's time over the \
             stock node's is {ratio:.2}."
        );
    }
    let _ = writeln!(text, "\n| Lighter | s | stock | s | build | spec |");
    let _ = writeln!(text, "|---|---|---|---|---|---|");
    let names: std::collections::BTreeSet<&String> =
        ours.specs.keys().chain(control.specs.keys()).collect();
    for name in names {
        let (a, b) = (ours.specs.get(name), control.specs.get(name));
        let build = a.map_or("", |k| k.build.as_str());
        let _ = writeln!(text, "| {} | {} | {build} | {name} |", cell(a), cell(b));
    }
    text
}

fn cell(known: Option<&Known>) -> String {
    match known {
        None => "- | -".into(),
        Some(k) => format!("{} | {:.1}", word(k.state), k.seconds),
    }
}

fn word(state: State) -> &'static str {
    match state {
        State::Passed => "passed",
        State::Failed => "FAILED",
        State::Skipped => "skipped",
    }
}

fn counts(who: &str, record: &Record) -> String {
    let of = |state| record.specs.values().filter(|k| k.state == state).count();
    let days = || record.specs.values().map(|k| k.at.get(..16).unwrap_or("?"));
    format!(
        "| {who} | {} | {} | {} | {} to {} |",
        of(State::Passed),
        of(State::Failed),
        of(State::Skipped),
        days().min().unwrap_or("-"),
        days().max().unwrap_or("-"),
    )
}

/// Of specs that both passed: how many, and the median of our time over theirs.
fn median_ratio(ours: &Record, control: &Record) -> Option<(usize, f64)> {
    let passed = |k: &&Known| k.state == State::Passed && k.seconds > 0.0;
    let pairs = ours.specs.iter().filter_map(|(name, a)| {
        let b = control.specs.get(name).filter(passed)?;
        passed(&a).then(|| a.seconds / b.seconds)
    });
    let mut ratios: Vec<f64> = pairs.collect();
    ratios.sort_by(f64::total_cmp);
    Some((ratios.len(), *ratios.get(ratios.len() / 2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(state: State, seconds: f64) -> Known {
        Known {
            state,
            seconds,
            message: "why".into(),
            at: "2026-11-25T03:00:00Z".into(),
            build: "b".into(),
        }
    }

    #[test]
    fn the_last_line_counts_and_failures_are_named_before_it() {
        let (passed, failed) = (known(State::Passed, 1.0), known(State::Failed, 1.0));
        let specs = [("a", Some(&passed)), ("b", Some(&failed)), ("c", None)];
        let tally = Tally::of(specs.into_iter().map(|(n, k)| (n.to_owned(), k)));
        assert!(!tally.all_passed());
        let text = tally.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "  FAILED b: why");
        assert_eq!(lines[2], "conformance: 1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn the_document_shows_both_nodes_and_compares_what_both_passed() {
        let record = |specs: &[(&str, Known)]| Record {
            specs: specs
                .iter()
                .map(|(n, k)| ((*n).to_owned(), k.clone()))
                .collect(),
        };
        let ours = record(&[
            ("a", known(State::Passed, 1.0)),
            ("b", known(State::Failed, 9.0)),
        ]);
        let control = record(&[
            ("a", known(State::Passed, 4.0)),
            ("b", known(State::Passed, 9.0)),
        ]);
        let text = markdown("F", None, &ours, &control);
        assert!(text.contains("| Lighter | 1 | 1 | 0 |"), "{text}");
        assert!(
            text.contains("Over 1 specs") && text.contains("is 0.25"),
            "{text}"
        );
        assert!(
            text.contains("| FAILED | 9.0 | passed | 9.0 | b | b |"),
            "{text}"
        );
    }
}
