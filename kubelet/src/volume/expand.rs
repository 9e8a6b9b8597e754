//! `$(NAME)` in subPathExpr.
//! Grammar: kubernetes v1.36 third_party/forked/golang/expansion/expand.go.

use std::collections::BTreeMap;

/// Replaces `$(NAME)`; `$$` is a literal `$`; an unclosed `$(` stays.
///
/// # Errors
/// The first name that the environment lacks.
pub fn strict(text: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        rest = match after.bytes().next() {
            Some(b'$') => {
                out.push('$');
                &after[1..]
            }
            Some(b'(') => match after.find(')') {
                Some(end) => {
                    let name = &after[1..end];
                    out.push_str(env.get(name).ok_or_else(|| name.to_owned())?);
                    &after[end + 1..]
                }
                None => {
                    out.push_str("$(");
                    &after[1..]
                }
            },
            _ => {
                out.push('$');
                after
            }
        };
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_and_dollars_escaped() {
        let env = BTreeMap::from([("POD".to_owned(), "web-0".to_owned())]);
        let cases = [
            ("$(POD)/log", "web-0/log"),
            ("a$$(POD)", "a$(POD)"),
            ("$POD", "$POD"),
            ("$(POD", "$(POD"),
            ("x$", "x$"),
        ];
        for (text, wanted) in cases {
            assert_eq!(strict(text, &env).as_deref(), Ok(wanted), "{text}");
        }
        assert_eq!(strict("$(NONE)", &env), Err("NONE".to_owned()));
    }
}
