//! Who uses more of the node's disk than it may: `ephemeral-storage` limits of containers and
//! pods, `sizeLimit` of emptyDirs. Pure.
//! kubernetes v1.37 pkg/kubelet/eviction/eviction_manager.go `localStorageEviction`.

use super::rank::EVICTED;
use super::usage::PodUsed;
use crate::pod::lifecycle::{Verdict, restartable_init};
use crate::pod::spec::quantity::amount;
use crate::pod::spec::resources::local_storage_limit;
use crate::quantity::Amount;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const STORAGE: &str = "ephemeral-storage";
/// As for hard thresholds.
const GRACE: i64 = 1;

/// What was exceeded, as the metric names it, and what becomes of the pod.
pub(super) type Exceeded = (&'static str, Verdict);

/// Whether anything of the pod has a limit: the others need not be looked at.
pub(super) fn limited(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|v| v.empty_dir.as_ref())
        .any(|e| e.size_limit.is_some())
        || all(spec).any(|c| limit(c).is_some())
}

/// The first limit that the pod exceeds: of a volume, of the pod, of a container.
pub(super) fn exceeded(pod: &Pod, used: &PodUsed) -> Option<Exceeded> {
    let spec = pod.spec.as_ref()?;
    let found = empty_dir(spec, used)
        .map(|message| ("emptydirfs.limit", message))
        .or_else(|| whole(spec, used).map(|message| ("ephemeralpodfs.limit", message)))
        .or_else(|| container(spec, used).map(|m| ("ephemeralcontainerfs.limit", m)));
    found.map(|(signal, message)| {
        let verdict = Verdict {
            reason: EVICTED.to_owned(),
            message,
            grace: Some(GRACE),
            disrupts: false,
        };
        (signal, verdict)
    })
}

fn empty_dir(spec: &PodSpec, used: &PodUsed) -> Option<String> {
    spec.volumes.iter().flatten().find_map(|volume| {
        let source = volume.empty_dir.as_ref()?;
        let limit = source.size_limit.as_ref()?;
        // Not there: a tmpfs, which the kernel holds to its size.
        let bytes = used.volumes.get(&volume.name)?.storage;
        (units(limit) > 0 && bytes > units(limit)).then(|| {
            format!(
                "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                volume.name, limit.0
            )
        })
    })
}

fn whole(spec: &PodSpec, used: &PodUsed) -> Option<String> {
    let limit = local_storage_limit(spec)?;
    (used.pod.storage > units(&limit)).then(|| {
        format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            limit.0
        )
    })
}

fn container(spec: &PodSpec, used: &PodUsed) -> Option<String> {
    let lasting = |c: &&Container| {
        let init = spec.init_containers.iter().flatten();
        !init
            .filter(|i| !restartable_init(i))
            .any(|i| i.name == c.name)
    };
    all(spec).filter(lasting).find_map(|c| {
        let limit = limit(c)?;
        let bytes = used.containers.get(&c.name)?.storage;
        (bytes > units(limit)).then(|| {
            format!(
                "Container {} exceeded its local ephemeral storage limit {:?}. ",
                c.name, limit.0
            )
        })
    })
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
}

fn limit(container: &Container) -> Option<&Quantity> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    amount(Some(limits), STORAGE).filter(|a| *a > Amount::default())?;
    limits.get(STORAGE)
}

fn units(quantity: &Quantity) -> u64 {
    u64::try_from(Amount::from(quantity).units()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::usage::Used;
    use super::*;
    use serde_json::json;

    const MIB: u64 = 1 << 20;

    fn pod() -> Pod {
        let container = |name: &str, limit: &str| json!({"name": name, "resources": {"limits": {STORAGE: limit}}});
        serde_json::from_value(json!({"spec": {
            "volumes": [{"name": "cache", "emptyDir": {"sizeLimit": "4Mi"}}],
            "initContainers": [container("init", "1Mi")],
            "containers": [container("a", "2Mi"), container("b", "8Mi")],
        }}))
        .unwrap()
    }

    /// Usage of container `init`, container `a` and the volume in MiB.
    fn said(init: u64, a: u64, cache: u64) -> Option<String> {
        let of = |mebibytes: u64| Used {
            storage: mebibytes * MIB,
            ..Used::default()
        };
        let used = PodUsed {
            pod: of(init + a + cache),
            containers: [("init".to_owned(), of(init)), ("a".to_owned(), of(a))].into(),
            volumes: [("cache".to_owned(), of(cache))].into(),
        };
        exceeded(&pod(), &used).map(|(_, verdict)| verdict.message)
    }

    #[test]
    fn pod_within_its_limits_stays_and_an_init_container_has_none_of_its_own() {
        assert!(limited(&pod()));
        assert!(!limited(&Pod::default()));
        assert_eq!(said(3, 2, 4), None);
    }

    #[test]
    fn volume_comes_before_pod_and_pod_before_container() {
        let volume = "Usage of EmptyDir volume \"cache\" exceeds the limit \"4Mi\". ";
        let whole =
            "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi. ";
        let own = "Container a exceeded its local ephemeral storage limit \"2Mi\". ";
        assert_eq!(said(0, 9, 5).as_deref(), Some(volume));
        assert_eq!(said(0, 9, 2).as_deref(), Some(whole));
        assert_eq!(said(0, 3, 2).as_deref(), Some(own));
    }
}
