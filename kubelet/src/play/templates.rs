//! Pods as the controllers would make them from their templates.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, Pod, PodTemplateSpec};
use kube::core::ObjectMeta;

/// kubernetes v1.36 pkg/controller/job `JobCompletionIndexAnnotation`.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What pods are made from.
pub trait Template {
    /// The pods, named `<name>-<number>`.
    fn pods(&self) -> Vec<Pod>;
}

impl Template for Deployment {
    fn pods(&self) -> Vec<Pod> {
        let count = self.spec.replicas.unwrap_or(1);
        numbered(&self.metadata, Some(&self.spec.template), count)
    }
}

impl Template for ReplicaSet {
    fn pods(&self) -> Vec<Pod> {
        let count = self.spec.replicas.unwrap_or(1);
        numbered(&self.metadata, self.spec.template.as_ref(), count)
    }
}

impl Template for StatefulSet {
    fn pods(&self) -> Vec<Pod> {
        let count = self.spec.replicas.unwrap_or(1);
        let mut pods = numbered(&self.metadata, Some(&self.spec.template), count);
        for pod in &mut pods {
            if let Some(of_pod) = &mut pod.spec {
                of_pod.hostname.clone_from(&pod.metadata.name);
                of_pod.subdomain.clone_from(&self.spec.service_name);
            }
        }
        pods
    }
}

impl Template for DaemonSet {
    fn pods(&self) -> Vec<Pod> {
        numbered(&self.metadata, Some(&self.spec.template), 1)
    }
}

impl Template for Job {
    /// All completions at once: there is nobody to start the next one.
    fn pods(&self) -> Vec<Pod> {
        let spec = self.spec.as_ref();
        let count = spec
            .and_then(|s| s.completions.or(s.parallelism))
            .unwrap_or(1);
        let template = spec.map(|s| &s.template);
        let mut pods = numbered(&self.metadata, template, count);
        if spec.and_then(|s| s.completion_mode.as_deref()) == Some("Indexed") {
            (0..)
                .zip(&mut pods)
                .for_each(|(index, pod)| number_completion(pod, index));
        }
        pods
    }
}

fn numbered(owner: &ObjectMeta, template: Option<&PodTemplateSpec>, count: i32) -> Vec<Pod> {
    let Some(template) = template else {
        return Vec::new();
    };
    let name = owner.name.as_deref().unwrap_or_default();
    let one = |number| {
        let mut metadata = template.metadata.clone().unwrap_or_default();
        metadata.name = Some(format!("{name}-{number}"));
        metadata.namespace.clone_from(&owner.namespace);
        Pod {
            metadata,
            spec: template.spec.clone(),
            status: None,
        }
    };
    (0..count).map(one).collect()
}

fn number_completion(pod: &mut Pod, index: i32) {
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(COMPLETION_INDEX.to_owned(), index.to_string());
    for container in pod.spec.iter_mut().flat_map(|s| &mut s.containers) {
        container.env.get_or_insert_default().push(EnvVar {
            name: "JOB_COMPLETION_INDEX".to_owned(),
            value: Some(index.to_string()),
            value_from: None,
        });
    }
}

/// The same for the same pod of the same file, in the form of a UUID.
pub fn uid(pod: &Pod) -> String {
    // What was read from text can be written.
    let text = serde_json::to_string(&(&pod.metadata, &pod.spec)).unwrap_or_default();
    let hex = digest(&[&text]);
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    // Version 8 (a hash of the maker's own), variant 1: RFC 9562 section 5.8.
    format!(
        "{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(13, 16),
        part(17, 20),
        part(20, 32)
    )
}

/// SHA-256 in hex.
pub fn digest(parts: &[&str]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_have_the_form_of_a_uuid() {
        let uid = uid(&Pod::default());
        let lengths: Vec<usize> = uid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
    }

    #[test]
    fn an_indexed_job_tells_each_pod_its_number() {
        let job: Job = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "j"},
            "spec": {"completions": 2, "completionMode": "Indexed",
                     "template": {"spec": {"containers": [{"name": "a"}]}}}
        }))
        .unwrap();
        let pods = job.pods();
        let env = pods[1].spec.as_ref().unwrap().containers[0]
            .env
            .as_ref()
            .unwrap();
        assert_eq!(env[0].value.as_deref(), Some("1"));
        assert_eq!(
            pods[1].metadata.annotations.as_ref().unwrap()[COMPLETION_INDEX],
            "1"
        );
    }

    #[test]
    fn a_stateful_set_names_its_pods_for_dns() {
        let set: StatefulSet = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "db"},
            "spec": {"serviceName": "db", "selector": {}, "template": {"spec": {"containers": []}}}
        }))
        .unwrap();
        let spec = set.pods()[0].spec.clone().unwrap();
        assert_eq!(
            (spec.hostname.as_deref(), spec.subdomain.as_deref()),
            (Some("db-0"), Some("db"))
        );
    }
}
