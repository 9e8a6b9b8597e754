//! Which nodes a NodeSelector means. Pure.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use std::collections::BTreeMap;

/// Whether one of its terms holds.
pub fn matches(selector: &NodeSelector, labels: &BTreeMap<String, String>) -> bool {
    selector
        .node_selector_terms
        .iter()
        .any(|term| term_matches(term, labels))
}

/// Terms by field (metadata.name) were the scheduler's to judge.
fn term_matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>) -> bool {
    let mut expressions = term.match_expressions.iter().flatten();
    expressions.all(|e| expression(e, labels.get(&e.key)))
}

fn expression(wish: &NodeSelectorRequirement, value: Option<&String>) -> bool {
    let listed = |v: &String| wish.values.as_ref().is_some_and(|all| all.contains(v));
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = wish
        .values
        .as_ref()
        .and_then(|v| v.first())
        .and_then(|v| number(v));
    let own = value.and_then(|v| number(v));
    match wish.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => own.zip(bound).is_some_and(|(own, bound)| own > bound),
        "Lt" => own.zip(bound).is_some_and(|(own, bound)| own < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_term_must_hold_as_a_whole() {
        let labels = BTreeMap::from([("a".to_owned(), "5".to_owned())]);
        let holds = |terms: serde_json::Value| {
            let selector = serde_json::from_value(json!({ "nodeSelectorTerms": terms })).unwrap();
            matches(&selector, &labels)
        };
        let a = json!({"key": "a", "operator": "Gt", "values": ["4"]});
        let b = json!({"key": "b", "operator": "Exists"});
        assert!(holds(json!([{"matchExpressions": [a]}])));
        assert!(!holds(json!([{"matchExpressions": [a, b]}])));
        assert!(holds(
            json!([{"matchExpressions": [b]}, {"matchExpressions": [a]}])
        ));
        assert!(!holds(json!([])));
    }
}
