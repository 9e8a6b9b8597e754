//! WWW-Authenticate.
//!
//! Facts: RFC 9110 section 11; distribution docs/spec/auth/token.md.

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: String,
        /// As the registry wrote it; empty when it did not.
        scope: String,
    },
}

/// The challenge to answer among all headers: Bearer before Basic.
pub fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<Challenge> = headers.flat_map(parse).collect();
    let bearer = all.iter().find(|c| matches!(c, Challenge::Bearer { .. }));
    bearer.or(all.first()).cloned()
}

/// Challenges of one header that a client can answer.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', ',']).unwrap_or(rest.len());
        let scheme = rest[..end].to_ascii_lowercase();
        let (parameters, after) = parameters(&rest[end..]);
        rest = after.trim_start_matches([' ', ',']);
        let get = |key: &str| {
            let found = parameters.iter().find(|(k, _)| k == key);
            found.map(|(_, v)| v.clone()).unwrap_or_default()
        };
        match scheme.as_str() {
            "basic" => found.push(Challenge::Basic),
            "bearer" if !get("realm").is_empty() => found.push(Challenge::Bearer {
                realm: get("realm"),
                service: get("service"),
                scope: get("scope"),
            }),
            _ => {}
        }
    }
    found
}

/// `key=value` pairs, up to the next word without a `=`: the next scheme.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut pairs = Vec::new();
    let mut rest = text;
    loop {
        let here = rest.trim_start_matches([' ', ',']);
        let Some(equals) = here.find('=') else {
            return (pairs, if here.contains(' ') { here } else { "" });
        };
        let key = here[..equals].trim_end();
        if key.contains([' ', ',']) {
            return (pairs, here);
        }
        let (value, after) = value(&here[equals + 1..]);
        pairs.push((key.to_ascii_lowercase(), value));
        rest = after;
    }
}

fn value(text: &str) -> (String, &str) {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.to_owned(),
            scope: scope.to_owned(),
        }
    }

    fn one(header: &str) -> Option<Challenge> {
        choose(std::iter::once(header))
    }

    #[test]
    fn challenge_is_read_with_quotes_commas_and_escapes() {
        assert_eq!(
            one(r#"Bearer realm="https://a/t",service="reg",scope="repository:a/b:pull,push""#),
            Some(bearer("https://a/t", "reg", "repository:a/b:pull,push"))
        );
        assert_eq!(
            one(r#"bearer  Realm = "https://a/\"t" , service=reg"#),
            Some(bearer("https://a/\"t", "reg", ""))
        );
        assert_eq!(one(r#"Basic realm="x y, z=1""#), Some(Challenge::Basic));
        assert_eq!(one("Basic"), Some(Challenge::Basic));
    }

    #[test]
    fn bearer_is_chosen_when_basic_is_offered_too() {
        let header = r#"Basic realm="x", Bearer realm="https://t",service="s""#;
        assert_eq!(one(header), Some(bearer("https://t", "s", "")));
        let headers = ["Basic realm=x", r#"Bearer realm="https://t""#];
        assert_eq!(
            choose(headers.into_iter()),
            Some(bearer("https://t", "", ""))
        );
    }

    #[test]
    fn nothing_is_chosen_when_no_scheme_is_known() {
        for header in [
            "",
            "Negotiate",
            "Digest realm=\"x\"",
            "Bearer",
            "=,=",
            "Bearer realm=\"",
        ] {
            assert_eq!(one(header), None, "{header:?}");
        }
    }
}
