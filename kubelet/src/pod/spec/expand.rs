//! `$(VAR)` in commands, arguments and values; `$$` is a dollar.
//! Grammar: kubernetes v1.36 third_party/forked/golang/expansion.

/// Replaces what `lookup` knows and leaves the rest as it stands.
#[must_use]
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Option<String> {
        (name == "A").then(|| "x".to_owned())
    }

    #[test]
    fn expansion_replaces_only_what_is_known() {
        assert_eq!(expand("-$(A)-$(B)-", known), "-x-$(B)-");
    }

    #[test]
    fn expansion_takes_two_dollars_for_one() {
        assert_eq!(expand("$$(A) $$$(A) $", known), "$(A) $x $");
    }

    #[test]
    fn expansion_leaves_what_is_not_closed() {
        assert_eq!(expand("$(A", known), "$(A");
        assert_eq!(expand("$A", known), "$A");
    }
}
