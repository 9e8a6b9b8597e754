//! A variable from a file that another container of the pod has written.
//!
//! A small part of a shell's syntax: `NAME='value'`, where all between the quotes is taken as
//! it is, lines included; blank lines; comments on lines of their own or behind a value.
//! kubernetes v1.37 pkg/kubelet/util/env/env_util.go.

/// Why a file is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct SyntaxError {
    line: usize,
    what: &'static str,
}

/// The value of `key`; empty when it is not there, or nothing is assigned. What stands behind
/// the first assignment of `key` is not looked at.
///
/// # Errors
/// The first line before that which is no assignment.
pub fn value(text: &str, key: &str) -> Result<String, SyntaxError> {
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let wrong = |what| SyntaxError {
            line: index + 1,
            what,
        };
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, assigned) = line.split_once('=').ok_or_else(|| wrong("missing '='"))?;
        if name.trim_end_matches([' ', '\t']).is_empty() {
            return Err(wrong("empty variable name"));
        }
        if name.ends_with([' ', '\t']) {
            return Err(wrong("whitespace before '=' is not allowed"));
        }
        // As a shell has it: nothing is assigned.
        if assigned.starts_with([' ', '\t']) {
            match name == key {
                true => return Ok(String::new()),
                false => continue,
            }
        }
        let unquoted = || wrong("value must be enclosed in single quotes");
        let mut rest = assigned.strip_prefix('\'').ok_or_else(unquoted)?;
        let mut value = String::new();
        let behind = loop {
            if let Some((end, behind)) = rest.split_once('\'') {
                value.push_str(end);
                break behind.trim_start_matches([' ', '\t']);
            }
            value.push_str(rest);
            value.push('\n');
            rest = lines
                .next()
                .ok_or_else(|| wrong("unclosed single quote"))?
                .1;
        };
        if !behind.is_empty() && !behind.starts_with('#') {
            return Err(wrong("unexpected content after closing quote"));
        }
        if name == key {
            return Ok(value);
        }
    }
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_what_stands_between_the_quotes() {
        let text = "# a comment\n\n  A='1' # one\nB='two\n  lines $A \\n'\nC= 'no'\nD=''\n";
        let of = |key| value(text, key);
        assert_eq!(of("A").as_deref(), Ok("1"));
        assert_eq!(of("B").as_deref(), Ok("two\n  lines $A \\n"));
        for empty in ["C", "D", "E"] {
            assert_eq!(of(empty).as_deref(), Ok(""), "{empty}");
        }
    }

    #[test]
    fn what_is_no_assignment_is_refused_with_its_line() {
        for (text, line) in [
            ("A='1'\nB\n", 2),
            ("A ='1'\n", 1),
            ("='1'\n", 1),
            ("A=1\n", 1),
            ("A=\"1\"\n", 1),
            ("\nA='1\n2\n", 2),
            ("A='1'x\n", 1),
        ] {
            assert_eq!(value(text, "Z").map_err(|e| e.line), Err(line), "{text:?}");
        }
        assert_eq!(value("A='1'\nbroken", "A").as_deref(), Ok("1"));
    }
}
