//! YAML (or JSON, which is YAML too) as kubectl reads it.

use serde::de::DeserializeOwned;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct YamlError {
    /// From 1, in the file.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// In the parser's words.
    pub what: String,
}

/// A document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its text, without the `---`.
    pub text: &'a str,
    /// Lines of the file before it.
    pub lines_before: u64,
}

/// The documents of a file that hold more than comments.
#[must_use]
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let (mut start, mut at, mut first_line) = (0, 0, 0);
    for (number, line) in (0_u64..).zip(text.split_inclusive('\n')) {
        if line.starts_with("---")
            && line[3..].trim_start_matches([' ', '\t']).len() != line[3..].len()
            || line.trim_end() == "---"
        {
            found.push((&text[start..at], first_line));
            // "--- # comment" may stay: it is no content.
            (start, first_line) = (at + 3, number);
        }
        at += line.len();
    }
    found.push((&text[start..], first_line));
    let says_something = |text: &str| {
        text.lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#') && line != "..."
        })
    };
    found
        .into_iter()
        .filter(|(text, _)| says_something(text))
        .map(|(text, lines_before)| Document { text, lines_before })
        .collect()
}

impl Document<'_> {
    /// Reads the document as one thing. `0644` is octal, as kubectl reads it.
    ///
    /// # Errors
    /// What does not fit, with the line in the file.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, YamlError> {
        let options = serde_saphyr::options! {
            legacy_octal_numbers: true,
            with_snippet: false,
        };
        serde_saphyr::from_str_with_options(self.text, options).map_err(|error| {
            let at = error.location();
            YamlError {
                line: self.lines_before + at.map_or(1, |l| l.line().max(1)),
                column: at.map_or(1, |l| l.column()),
                what: first_line(&error.to_string()),
            }
        })
    }
}

/// The parser repeats the place; here it is said once.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let plain = line.split(" at line ").next().unwrap_or(line);
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn documents_are_split_at_their_markers_and_empty_ones_left_out() {
        let text = "# head\n---\na: 1\n--- # second\nb: |\n  x ---y\n---\n\n---\nc: 3\n";
        let found: Vec<_> = documents(text)
            .into_iter()
            .map(|d| (d.text.trim(), d.lines_before))
            .collect();
        assert_eq!(
            found,
            [("a: 1", 1), ("# second\nb: |\n  x ---y", 3), ("c: 3", 8)]
        );
    }

    #[test]
    fn numbers_are_read_as_kubectl_reads_them() {
        let text = "spec:\n  containers:\n  - name: a\n    resources: {limits: {cpu: 1, memory: 64Mi}}\n  volumes:\n  - name: v\n    secret: {secretName: s, defaultMode: 0400}\n";
        let pod: Pod = documents(text)[0].read().unwrap();
        let spec = pod.spec.unwrap();
        let limits = spec.containers[0]
            .resources
            .as_ref()
            .unwrap()
            .limits
            .as_ref()
            .unwrap();
        assert_eq!(
            (limits["cpu"].0.as_str(), limits["memory"].0.as_str()),
            ("1", "64Mi")
        );
        let secret = spec.volumes.as_ref().unwrap()[0].secret.as_ref().unwrap();
        assert_eq!(secret.default_mode, Some(0o400));
    }

    #[test]
    fn json_is_read_too() {
        let pod: Pod = documents(r#"{"metadata": {"name": "x"}}"#)[0]
            .read()
            .unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some("x"));
    }

    #[test]
    fn mistakes_are_placed_in_the_file() {
        let text = "a: 1\n---\nspec:\n  containers:\n  - name: a\n    ports: 3\n";
        let wrong = documents(text)[1].read::<Pod>().unwrap_err();
        assert_eq!(wrong.line, 6, "{wrong}");
        assert!(!wrong.what.contains("line"), "{wrong}");
    }
}
