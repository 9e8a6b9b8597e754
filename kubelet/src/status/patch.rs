//! The smallest strategic-merge patch from what the API server has. Pure.

use super::conditions::PASSING;
use super::is_over;
use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Fields of `status` that are ours. All others are never sent.
const OWN: &[&str] = &[
    "observedGeneration",
    "phase",
    "conditions",
    "message",
    "reason",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "qosClass",
    "ephemeralContainerStatuses",
    "resources",
    "allocatedResources",
];

/// Those whose keys a patch merges, so that old ones must be sent away.
const MAPS: &[&str] = &["resources", "allocatedResources"];

/// Lists that a patch merges by key, so that old items must be sent away.
const MERGED: &[&str] = &["podIPs", "hostIPs"];

/// What turns `old` into `new`; `None` when nothing of ours differs.
#[must_use]
pub fn between(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (object(old), object(&settled(old, new)));
    let mut status = Map::new();
    for field in OWN {
        let (before, after) = (old.get(*field), new.get(*field));
        if before == after {
            continue;
        }
        let change = match (*field, after) {
            (_, None) => Value::Null,
            ("conditions", Some(after)) => match conditions(before, after) {
                Some(changed) => changed,
                None => continue,
            },
            (field, Some(after)) if MAPS.contains(&field) => merging(before, after),
            (field, Some(after)) if MERGED.contains(&field) => replaced(after),
            (_, Some(after)) => after.clone(),
        };
        status.insert((*field).to_owned(), change);
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        Ok(_) | Err(_) => Map::new(),
    }
}

/// A pod that is over stays so, and its start is not moved.
fn settled(old: &PodStatus, new: &PodStatus) -> PodStatus {
    let mut new = new.clone();
    if is_over(old) && !is_over(&new) {
        new.phase.clone_from(&old.phase);
        new.reason.clone_from(&old.reason);
        new.message.clone_from(&old.message);
    }
    if old.start_time.is_some() {
        new.start_time.clone_from(&old.start_time);
    }
    if new.qos_class.is_none() || old.qos_class.is_some() {
        new.qos_class.clone_from(&old.qos_class);
    }
    new
}

/// Only conditions that changed; the merge key `type` keeps the others. A
/// reason or message that is gone is sent as null.
fn conditions(before: Option<&Value>, after: &Value) -> Option<Value> {
    let empty = Vec::new();
    let before = before.and_then(Value::as_array).unwrap_or(&empty);
    let find = |kind: &Value| before.iter().find(|c| c.get("type") == Some(kind));
    let mut changed = Vec::new();
    for condition in after.as_array().unwrap_or(&empty) {
        let old = condition.get("type").and_then(find);
        if old.is_some_and(|old| same(old, condition)) {
            continue;
        }
        let mut condition = condition.clone();
        if let (Some(old), Some(new)) = (old, condition.as_object_mut()) {
            for field in ["reason", "message"] {
                if old.get(field).is_some() && !new.contains_key(field) {
                    new.insert(field.to_owned(), Value::Null);
                }
            }
        }
        changed.push(condition);
    }
    for kind in PASSING {
        let has = |list: &[Value]| list.iter().any(|c| c["type"] == kind);
        if has(before) && !has(after.as_array().unwrap_or(&empty)) {
            changed.push(json!({ "type": kind, "$patch": "delete" }));
        }
    }
    (!changed.is_empty()).then_some(Value::Array(changed))
}

/// The same but for times, which change only with the status.
fn same(old: &Value, new: &Value) -> bool {
    let part = |of: &Value, field: &str| of.get(field).filter(|v| !v.is_null()).cloned();
    ["status", "reason", "message", "observedGeneration"]
        .iter()
        .all(|field| part(old, field) == part(new, field))
}

/// What makes `after` of `before` when keys are merged: null for those that go.
fn merging(before: Option<&Value>, after: &Value) -> Value {
    let (Some(before), Some(after_map)) = (before.and_then(Value::as_object), after.as_object())
    else {
        return after.clone();
    };
    let mut change = Map::new();
    for (key, new) in after_map {
        if before.get(key) != Some(new) {
            change.insert(key.clone(), merging(before.get(key), new));
        }
    }
    for key in before.keys().filter(|key| !after_map.contains_key(*key)) {
        change.insert(key.clone(), Value::Null);
    }
    change.into()
}

fn replaced(list: &Value) -> Value {
    let mut items = list.as_array().cloned().unwrap_or_default();
    items.push(json!({"$patch": "replace"}));
    Value::Array(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: Value) -> PodStatus {
        serde_json::from_value(json).unwrap_or_default()
    }

    fn patch(old: Value, new: Value) -> Option<Value> {
        between("u", &status(old), &status(new)).map(|p| p["status"].clone())
    }

    #[test]
    fn nothing_is_sent_when_nothing_of_ours_changed() {
        let ours = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let mut theirs = ours.clone();
        theirs["nominatedNodeName"] = "n".into();
        theirs["conditions"] = json!([
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        ]);
        assert_eq!(patch(theirs, ours), None);
    }

    #[test]
    fn condition_of_a_resize_is_taken_away_and_others_are_left() {
        let old = json!({"conditions": [
            {"type": "PodResizeInProgress", "status": "True"}, {"type": "theirs", "status": "True"}
        ]});
        let sent = patch(old, json!({"conditions": []}));
        let gone = json!({"type": "PodResizeInProgress", "$patch": "delete"});
        assert_eq!(sent, Some(json!({"conditions": [gone]})));
    }

    #[test]
    fn resource_that_is_gone_is_sent_away() {
        let old =
            json!({"resources": {"requests": {"cpu": "1", "x/y": "1"}, "limits": {"cpu": "2"}}});
        let sent = patch(
            old,
            json!({"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "3"}}}),
        );
        let expected = json!({"requests": {"x/y": null}, "limits": {"cpu": "3"}});
        assert_eq!(sent, Some(json!({"resources": expected})));
    }

    #[test]
    fn only_the_condition_that_changed_is_sent() {
        let one = |ready: &str| {
            json!({"conditions": [
                {"type": "Initialized", "status": "True"},
                {"type": "Ready", "status": ready}
            ]})
        };
        let mut old = one("False");
        old["conditions"][1]["reason"] = "ContainersNotReady".into();
        let sent = patch(old, one("True"));
        let ready = json!({"type": "Ready", "status": "True", "reason": null});
        assert_eq!(sent, Some(json!({"conditions": [ready]})));
    }

    #[test]
    fn old_addresses_are_sent_away() {
        let sent = patch(
            json!({"podIPs": [{"ip": "a"}]}),
            json!({"podIPs": [{"ip": "b"}]}),
        );
        assert_eq!(
            sent,
            Some(json!({"podIPs": [{"ip": "b"}, {"$patch": "replace"}]}))
        );
    }

    #[test]
    fn phase_never_goes_back_from_its_end() {
        let old = json!({"phase": "Failed", "reason": "Evicted"});
        assert_eq!(patch(old, json!({"phase": "Running"})), None);
    }

    #[test]
    fn uid_is_always_there() {
        let sent = between(
            "u",
            &PodStatus::default(),
            &status(json!({"phase": "Pending"})),
        );
        assert_eq!(sent.map(|p| p["metadata"]["uid"].clone()), Some("u".into()));
    }
}
