//! What an agent before this one granted, by what others remember: the API server of what runs, the
//! runtime of what was granted when the sandbox was made.

use super::{Granted, List, of};
use crate::pod::spec::qos::{self, Qos};
use crate::pod::spec::quantity::amount;
use crate::quantity::written;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ResourceRequirements};

/// Annotation of a sandbox: what its pod had been granted when it was made. No status says
/// that of a container that has not started.
pub const GRANTED: &str = "lighter.dev/granted";

/// The annotation's value. A pod that asks for nothing can't be resized: its class would be another.
#[must_use]
pub fn record(pod: &Pod) -> Option<String> {
    let some = qos::of(pod) != Qos::BestEffort;
    some.then(|| serde_json::to_string(&of(pod)).ok()).flatten()
}

/// What was granted before this agent's time. That of which nobody remembers anything has what
/// it asks for; `made` is what the sandbox tells.
#[must_use]
pub fn remembered(pod: &Pod, made: &str) -> Granted {
    let mut all = of(pod);
    if let Ok(made) = serde_json::from_str::<Granted>(made) {
        all.retain(|name, _| !name.is_empty() || made.contains_key(name));
        for (name, own) in &mut all {
            made.get(name)
                .into_iter()
                .for_each(|then| own.clone_from(then));
        }
    }
    let status = pod.status.as_ref();
    if let Some(own) = remembered_whole(pod) {
        all.insert(String::new(), own);
    }
    let lists = status.map(|s| [&s.container_statuses, &s.init_container_statuses]);
    for container in lists.into_iter().flatten().flatten().flatten() {
        if let (Some(_), Some(told)) = (&container.container_id, remembered_of(pod, container)) {
            all.insert(container.name.clone(), told);
        }
    }
    all
}

/// A status may name limits that the container has by its pod alone.
fn remembered_of(pod: &Pod, status: &ContainerStatus) -> Option<ResourceRequirements> {
    let mut told = status.resources.clone()?;
    let asked = of(pod).remove(&status.name)?;
    if let Some(limits) = &mut told.limits {
        let own = asked.limits.unwrap_or_default();
        limits.retain(|kind, _| own.contains_key(kind));
    }
    Some(told)
}

/// The pod's own: its status has overhead in it.
fn remembered_whole(pod: &Pod) -> Option<ResourceRequirements> {
    let spec = pod.spec.as_ref()?;
    let own = spec.resources.as_ref()?;
    let told = pod.status.as_ref()?.resources.as_ref()?;
    let without = |own: &mut Option<List>, told: &Option<List>| {
        for (kind, quantity) in own.iter_mut().flatten() {
            let overhead = amount(spec.overhead.as_ref(), kind).unwrap_or_default();
            if let Some(amount) = amount(told.as_ref(), kind) {
                *quantity = written(amount - overhead, kind, quantity);
            }
        }
    };
    let mut own = own.clone();
    without(&mut own.requests, &told.requests);
    without(&mut own.limits, &told.limits);
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::super::differs;
    use super::*;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    fn pod(cpu: &str) -> Pod {
        let resources = json!({ "requests": { "cpu": cpu, "x/y": "1" } });
        serde_json::from_value(json!({
            "metadata": { "generation": 3, "uid": "u" },
            "spec": { "containers": [{ "name": "a", "resources": resources }] }
        }))
        .unwrap()
    }

    #[test]
    fn refused_resize_of_the_pods_own_resources_is_no_more_granted_to_the_next_agent() {
        let mut asks = pod("1");
        let spec = asks.spec.as_mut().unwrap();
        spec.resources = serde_json::from_value(json!({ "requests": { "cpu": "7" } })).unwrap();
        spec.overhead = Some([("cpu".to_owned(), Quantity("100m".into()))].into());
        assert_eq!(
            remembered(&asks, "")[""],
            of(&asks)[""],
            "nothing is remembered"
        );
        let status = json!({ "resources": { "requests": { "cpu": "2100m" } } });
        asks.status = serde_json::from_value(status).unwrap();
        let granted = remembered(&asks, "");
        assert_eq!(
            amount(granted[""].requests.as_ref(), "cpu")
                .unwrap()
                .millis(),
            2000
        );
        assert!(differs(&asks, &granted));
    }

    #[test]
    fn sandbox_remembers_what_has_not_started() {
        let (old, asks) = (pod("1"), pod("2"));
        let made = record(&old).unwrap();
        assert!(differs(&asks, &remembered(&asks, &made)));
        assert!(!differs(&old, &remembered(&asks, &made)));
        assert!(!differs(&asks, &remembered(&asks, "")), "nobody knows");
        assert!(!differs(&asks, &remembered(&asks, "no JSON")));
        let mut own = asks.clone();
        let some = json!({ "requests": { "cpu": "2" } });
        own.spec.as_mut().unwrap().resources = serde_json::from_value(some).unwrap();
        let granted = remembered(&own, &record(&asks).unwrap());
        assert!(differs(&own, &granted), "its own were asked for since");
        assert_eq!(record(&Pod::default()), None);
    }

    #[test]
    fn limit_that_a_container_has_by_its_pod_was_not_granted_to_it() {
        let mut pod = pod("1");
        let told = json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "2", "memory": "1Gi" } });
        pod.status = serde_json::from_value(json!({ "containerStatuses": [{
            "name": "a", "containerID": "x://1", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "resources": told
        }] }))
        .unwrap();
        assert!(!differs(&pod, &remembered(&pod, "")));
    }

    #[test]
    fn what_the_api_remembers_was_granted() {
        let mut new = pod("2");
        new.status = serde_json::from_value(json!({ "containerStatuses": [{
            "name": "a", "containerID": "x://1", "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "resources": { "requests": { "cpu": "1" } }
        }] }))
        .unwrap();
        assert!(differs(&new, &remembered(&new, "")));
        new.status = None;
        assert!(!differs(&new, &remembered(&new, "")));
    }
}
