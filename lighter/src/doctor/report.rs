//! How findings are shown.

use serde::Serialize;
use std::fmt::Write;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Something will not work, or not well.
    Warning,
    /// No node can run like this.
    Error,
}

/// One look at the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: never given a second meaning, scripts may look for it.
    pub check: &'static str,
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// Why it matters; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// What to do; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, seen: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Ok,
            seen: seen.into(),
            cause: String::new(),
            remedy: String::new(),
        }
    }

    /// What was seen, why it matters, what to do.
    pub fn warning(check: &'static str, words: [&str; 3]) -> Finding {
        let [seen, cause, remedy] = words.map(str::to_owned);
        Finding {
            check,
            verdict: Verdict::Warning,
            seen,
            cause,
            remedy,
        }
    }

    /// As [`Finding::warning`].
    pub fn error(check: &'static str, words: [&str; 3]) -> Finding {
        Finding {
            verdict: Verdict::Error,
            ..Finding::warning(check, words)
        }
    }
}

/// Ok when there is nothing.
pub fn worst(findings: &[Finding]) -> Verdict {
    let verdicts = findings.iter().map(|f| f.verdict);
    verdicts.max().unwrap_or(Verdict::Ok)
}

/// A line each; under it, where something is not well, why and what to do.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for f in findings {
        let mark = match f.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Error => "ERROR",
        };
        let _ = write!(text, "{mark:<8} {:<18} {}", f.check, f.seen);
        if !f.cause.is_empty() {
            let _ = write!(text, ": {}", f.cause);
        }
        text.push('\n');
        if !f.remedy.is_empty() {
            let _ = writeln!(text, "{:<8} {:<18} -> {}", "", "", f.remedy);
        }
    }
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let (warnings, errors) = (count(Verdict::Warning), count(Verdict::Error));
    let ok = count(Verdict::Ok);
    let _ = writeln!(text, "{ok} ok, {warnings} warnings, {errors} errors");
    text
}

/// For scripts: `{"verdict": …, "findings": […]}`.
pub fn json(findings: &[Finding]) -> String {
    let all = serde_json::json!({ "verdict": worst(findings), "findings": findings });
    serde_json::to_string_pretty(&all).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Finding> {
        vec![
            Finding::ok("kernel", "6.18"),
            Finding::warning("swap", ["/dev/sda2", "pods may be slow", "swapoff -a"]),
        ]
    }

    #[test]
    fn text_says_what_why_and_what_to_do() {
        let expected = "\
ok       kernel             6.18
warning  swap               /dev/sda2: pods may be slow
                            -> swapoff -a
1 ok, 1 warnings, 0 errors
";
        assert_eq!(text(&some()), expected);
    }

    #[test]
    fn json_has_the_worst_verdict_and_every_finding() {
        let value: serde_json::Value = serde_json::from_str(&json(&some())).unwrap();
        assert_eq!(value["verdict"], "warning");
        assert_eq!(value["findings"][1]["remedy"], "swapoff -a");
        assert_eq!(value["findings"][0].get("cause"), None);
        assert_eq!(worst(&[]), Verdict::Ok);
    }
}
