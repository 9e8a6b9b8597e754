//! The difference between what the API server has and what should be there.

use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A strategic merge patch of `status`; `None` when nothing differs but, at
/// most, heartbeat times; with `heartbeat` those count as well.
///
/// Resources and conditions that others added are not mentioned, and so stay.
pub fn status(known: &NodeStatus, wanted: &NodeStatus, heartbeat: bool) -> Option<Value> {
    let mut patch = Map::new();
    whole(&mut patch, "nodeInfo", &known.node_info, &wanted.node_info);
    whole(
        &mut patch,
        "daemonEndpoints",
        &known.daemon_endpoints,
        &wanted.daemon_endpoints,
    );
    whole(
        &mut patch,
        "declaredFeatures",
        &known.declared_features,
        &wanted.declared_features,
    );
    whole(&mut patch, "features", &known.features, &wanted.features);
    whole(&mut patch, "images", &known.images, &wanted.images);
    whole(
        &mut patch,
        "runtimeHandlers",
        &known.runtime_handlers,
        &wanted.runtime_handlers,
    );
    whole(
        &mut patch,
        "volumesInUse",
        &known.volumes_in_use,
        &wanted.volumes_in_use,
    );
    if known.addresses != wanted.addresses {
        // Merged by type otherwise, which loses one of two InternalIPs.
        let mut list = json!(wanted.addresses);
        if let Value::Array(list) = &mut list {
            list.push(json!({"$patch": "replace"}));
        }
        patch.insert("addresses".to_owned(), list);
    }
    resources(&mut patch, "capacity", &known.capacity, &wanted.capacity);
    resources(
        &mut patch,
        "allocatable",
        &known.allocatable,
        &wanted.allocatable,
    );
    conditions(&mut patch, known, wanted, heartbeat);
    (!patch.is_empty()).then(|| json!({ "status": patch }))
}

fn whole<T: PartialEq + serde::Serialize>(
    patch: &mut Map<String, Value>,
    field: &str,
    known: &Option<T>,
    wanted: &Option<T>,
) {
    let (known, wanted) = (normal(json!(known)), normal(json!(wanted)));
    if known != wanted {
        patch.insert(field.to_owned(), wanted);
    }
}

/// The server leaves out what is false, zero or empty.
fn normal(mut value: Value) -> Value {
    let is_zero = |v: &Value| match v {
        Value::Null | Value::Bool(false) => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    };
    match &mut value {
        Value::Object(map) => {
            for entry in map.values_mut() {
                *entry = normal(entry.take());
            }
            map.retain(|key, v| key == "kubeProxyVersion" || !is_zero(v));
        }
        Value::Array(list) if list.is_empty() => return Value::Null,
        Value::Array(list) => list.iter_mut().for_each(|v| *v = normal(v.take())),
        _ => {}
    }
    value
}

type Resources = Option<BTreeMap<String, Quantity>>;

fn resources(patch: &mut Map<String, Value>, field: &str, known: &Resources, wanted: &Resources) {
    let (empty, amount) = (BTreeMap::new(), |q: &Quantity| Amount::from(q));
    let (known, wanted) = (
        known.as_ref().unwrap_or(&empty),
        wanted.as_ref().unwrap_or(&empty),
    );
    let changed = wanted
        .iter()
        .filter(|(name, quantity)| known.get(*name).map(amount) != Some(amount(quantity)));
    let mut fields: Map<String, Value> = changed.map(|(n, q)| (n.clone(), json!(q))).collect();
    // Page sizes that a reboot has taken away; other names belong to others.
    for stale in known
        .keys()
        .filter(|n| n.starts_with("hugepages-") && !wanted.contains_key(*n))
    {
        fields.insert(stale.clone(), Value::Null);
    }
    if !fields.is_empty() {
        patch.insert(field.to_owned(), Value::Object(fields));
    }
}

fn conditions(
    patch: &mut Map<String, Value>,
    known: &NodeStatus,
    wanted: &NodeStatus,
    heartbeat: bool,
) {
    let same = |a: &NodeCondition, b: &NodeCondition| {
        a.type_ == b.type_ && a.status == b.status && a.reason == b.reason && a.message == b.message
    };
    let known: Vec<_> = known.conditions.iter().flatten().collect();
    let wanted: Vec<_> = wanted.conditions.iter().flatten().collect();
    // Times are whole seconds: a heartbeat within the last one's second would change nothing.
    let time = |c: &NodeCondition| c.last_heartbeat_time.as_ref().map(|t| t.0.as_second());
    let said = |w: &&NodeCondition| {
        let mut like = known.iter().filter(|k| same(k, w));
        like.any(|k| !heartbeat || time(k) == time(w))
    };
    if !wanted.iter().all(said) {
        patch.insert("conditions".to_owned(), json!(wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NodeAddress;

    fn ready(status: &str, heartbeat: i64) -> NodeStatus {
        let time = jiff::Timestamp::from_second(heartbeat).unwrap();
        NodeStatus {
            conditions: Some(vec![NodeCondition {
                type_: "Ready".into(),
                status: status.into(),
                last_heartbeat_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                    time,
                )),
                ..Default::default()
            }]),
            ..Default::default()
        }
    }

    fn with_resource(name: &str, quantity: &str) -> NodeStatus {
        NodeStatus {
            capacity: Some(BTreeMap::from([(name.into(), Quantity(quantity.into()))])),
            ..Default::default()
        }
    }

    #[test]
    fn heartbeat_alone_is_no_difference() {
        assert_eq!(status(&ready("True", 1), &ready("True", 2), false), None);
        assert!(status(&ready("True", 1), &ready("True", 2), true).is_some());
        assert!(status(&ready("True", 1), &ready("False", 2), false).is_some());
    }

    #[test]
    fn resources_are_compared_by_value_and_others_are_left_alone() {
        let wanted = with_resource("memory", "1024Ki");
        assert_eq!(
            status(&with_resource("memory", "1Mi"), &wanted, false),
            None
        );
        let foreign = with_resource("example.com/gpu", "1");
        let patch = status(&foreign, &wanted, false).unwrap();
        assert_eq!(patch, json!({"status": {"capacity": {"memory": "1024Ki"}}}));
        let stale = status(&with_resource("hugepages-1Gi", "1Gi"), &wanted, false).unwrap();
        assert_eq!(stale["status"]["capacity"]["hugepages-1Gi"], Value::Null);
    }

    #[test]
    fn addresses_are_replaced_as_a_whole() {
        let wanted = NodeStatus {
            addresses: Some(vec![NodeAddress {
                type_: "InternalIP".into(),
                address: "10.0.0.1".into(),
            }]),
            ..Default::default()
        };
        let patch = status(&NodeStatus::default(), &wanted, false).unwrap();
        assert_eq!(
            patch["status"]["addresses"][1],
            json!({"$patch": "replace"})
        );
    }
}
