//! Which pages an emptyDir of medium `HugePages` or `HugePages-<size>` is made of. Pure.
//!
//! Rules: kubernetes v1.37 pkg/volume/emptydir/empty_dir.go `getPageSizeMountOption`.

use super::error::VolumeReason;
use crate::huge_pages::{size, size_of};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use std::collections::BTreeSet;

const ANY: &str = "HugePages";

/// Bytes of a page; `None` if the medium is none of huge pages.
pub fn page_size(medium: &str, pod: &Pod) -> Option<Result<u64, VolumeReason>> {
    let named = medium.strip_prefix(ANY)?;
    let asked = asked(pod);
    let refused = |why| {
        let medium = medium.to_owned();
        Err(VolumeReason::HugePages { medium, why })
    };
    let none = "no container of the pod asks for such pages";
    let found = if named.is_empty() {
        match (asked.first(), asked.len()) {
            (Some(size), 1) => Ok(*size),
            (None, _) => refused(none),
            _ => refused("the pod asks for pages of several sizes, so the medium must name one"),
        }
    } else {
        match named.strip_prefix('-').map(size)? {
            None => refused("it names no size"),
            Some(size) if asked.contains(&size) => Ok(size),
            Some(_) => refused(none),
        }
    };
    Some(found)
}

/// Sizes of the pages that the pod or one of its containers asks for.
fn asked(pod: &Pod) -> BTreeSet<u64> {
    let Some(spec) = &pod.spec else {
        return BTreeSet::new();
    };
    let init = spec.init_containers.iter().flatten();
    let containers = spec.containers.iter().chain(init);
    let own = containers.filter_map(|c| c.resources.as_ref());
    own.chain(&spec.resources).flat_map(sizes).collect()
}

fn sizes(resources: &ResourceRequirements) -> impl Iterator<Item = u64> {
    let names = resources.requests.iter().flat_map(|list| list.keys());
    names.filter_map(|name| size_of(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(medium: &str, asks: &[&str]) -> Option<Result<u64, String>> {
        let container = |name: &&str| {
            let list = json!({ *name: "1Gi", "memory": "1Gi" });
            json!({"name": "c", "resources": {"requests": list}})
        };
        let mut containers: Vec<_> = asks.iter().map(container).collect();
        // An initial container counts as well.
        let init: Vec<_> = containers.pop().into_iter().collect();
        let pod = json!({"spec": {"containers": containers, "initContainers": init}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        page_size(medium, &pod).map(|found| found.map_err(|e| e.to_string()))
    }

    #[test]
    fn medium_without_a_size_is_of_the_only_one_that_is_asked_for() {
        let (two, one) = ("hugepages-2Mi", "hugepages-1Gi");
        assert_eq!(found("HugePages", &[two]), Some(Ok(2 << 20)));
        assert_eq!(found("HugePages", &[two, two]), Some(Ok(2 << 20)));
        let said = |asks: &[&str]| found("HugePages", asks).unwrap().unwrap_err();
        assert!(said(&[two, one]).contains("several sizes"));
        assert!(said(&["memory"]).contains("no container"));
    }

    #[test]
    fn medium_with_a_size_must_be_of_one_that_is_asked_for() {
        let (two, one) = ("hugepages-2Mi", "hugepages-1Gi");
        assert_eq!(found("HugePages-1Gi", &[two, one]), Some(Ok(1 << 30)));
        assert_eq!(found("HugePages-2048Ki", &[two]), Some(Ok(2 << 20)));
        let said = |medium| found(medium, &[two]).unwrap().unwrap_err();
        assert!(said("HugePages-1Gi").contains("no container"));
        assert!(said("HugePages-much").contains("no size"));
    }

    #[test]
    fn other_media_are_not_of_huge_pages() {
        assert_eq!(found("Memory", &[]), None);
        assert_eq!(found("HugePagesTwo", &["hugepages-2Mi"]), None);
    }

    #[test]
    fn pages_of_the_pod_as_a_whole_count() {
        let list = json!({"requests": {"hugepages-2Mi": "4Mi"}});
        let pod = json!({"spec": {"containers": [{"name": "c"}], "resources": list}});
        let pod = serde_json::from_value(pod).unwrap();
        assert!(matches!(page_size("HugePages", &pod), Some(Ok(size)) if size == 2 << 20));
    }
}
