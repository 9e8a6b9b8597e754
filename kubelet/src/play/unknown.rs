//! Fields that were written and not understood.

use serde_json::Value;

/// Paths of fields in `written` that `understood`, the same thing after it was
/// read, no longer has. What is null says nothing and counts as understood.
pub fn fields(written: &Value, understood: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(written, understood, &mut String::new(), &mut found);
    found
}

fn compare(written: &Value, understood: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            for (key, value) in written.iter().filter(|(_, v)| !v.is_null()) {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                match understood.get(key) {
                    Some(other) => compare(value, other, path, found),
                    None => found.push(path.clone()),
                }
                path.truncate(length);
            }
        }
        (Value::Array(written), Value::Array(understood)) => {
            for (index, (value, other)) in written.iter().zip(understood).enumerate() {
                path.push_str(&format!("[{index}]"));
                compare(value, other, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_dropped_is_named_by_its_path() {
        let written = json!({"spec": {"a": 1, "b": [{"x": 1}, {"y": 2}], "n": null, "t": "8"}});
        let understood = json!({"spec": {"a": "1", "b": [{"x": 1}, {}], "t": 8, "more": 1}});
        assert_eq!(fields(&written, &understood), ["spec.b[1].y"]);
    }
}
