use super::*;
use crate::pod::spec::testing::node;
use serde_json::json;

type Context = Result<v1::LinuxContainerSecurityContext, NonRootError>;

fn run(pod: serde_json::Value, container: serde_json::Value, user: &ImageUser) -> Context {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"containers": [{"name": "c", "securityContext": container}], "securityContext": pod}
    }))
    .unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let subject = Subject {
        pod: &pod,
        container: &spec.containers[0],
        user,
        node: &node(),
        options: &Options::default(),
    };
    of_container(subject, namespaces(&pod, None))
}

fn image(uid: Option<i64>, name: &str) -> ImageUser {
    ImageUser {
        uid,
        name: name.into(),
    }
}

#[test]
fn container_overrides_the_pod_field_by_field() {
    let pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 5, "supplementalGroups": [4]});
    let context = run(pod, json!({"runAsUser": 7}), &image(Some(0), "")).unwrap_or_default();
    assert_eq!(context.run_as_user.map(|v| v.value), Some(7));
    assert_eq!(context.run_as_group.map(|v| v.value), Some(2));
    assert_eq!(context.supplemental_groups, vec![4, 5]);
}

#[test]
fn image_user_is_taken_when_nobody_says_otherwise() {
    let context = run(json!({}), json!({}), &image(None, "www")).unwrap_or_default();
    assert_eq!(
        (context.run_as_user, context.run_as_username.as_str()),
        (None, "www")
    );
    let context = run(json!({}), json!({}), &image(Some(33), "")).unwrap_or_default();
    assert_eq!(context.run_as_user.map(|v| v.value), Some(33));
}

#[test]
fn non_root_is_refused_with_upstreams_words() {
    let error = |container, user| {
        run(json!({"runAsNonRoot": true}), container, &user)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    let id = "(pod: \"p_ns(u)\", container: c)";
    assert_eq!(
        error(json!({}), image(None, "www")),
        format!(
            "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root {id}"
        )
    );
    assert_eq!(
        error(json!({}), image(Some(0), "")),
        format!("container has runAsNonRoot and image will run as root {id}")
    );
    assert_eq!(
        error(json!({"runAsUser": 0}), image(Some(5), "")),
        format!("container's runAsUser breaks non-root policy {id}")
    );
    assert_eq!(error(json!({"runAsUser": 5}), image(None, "www")), "");
}

#[test]
fn masked_paths_are_empty_when_proc_is_unmasked() {
    let masked = |mount: &str| {
        run(json!({}), json!({"procMount": mount}), &image(None, ""))
            .map(|c| (c.masked_paths.len(), c.readonly_paths.len()))
            .ok()
    };
    assert_eq!(masked("Unmasked"), Some((0, 0)));
    assert_eq!(
        masked("Default"),
        Some((MASKED_PATHS.len(), READONLY_PATHS.len()))
    );
}

#[test]
fn seccomp_of_the_container_wins_and_localhost_is_below_the_kubelets_folder() {
    let own = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}});
    let pod = json!({"seccompProfile": {"type": "RuntimeDefault"}});
    let of = |context: Context| context.ok().and_then(|c| c.seccomp).unwrap_or_default();
    let found = of(run(pod.clone(), own, &image(None, "")));
    assert_eq!(found.localhost_ref, "/var/lib/kubelet/seccomp/a/b.json");
    let found = of(run(pod, json!({}), &image(None, "")));
    assert_eq!(
        found.profile_type(),
        v1::security_profile::ProfileType::RuntimeDefault
    );
    let found = of(run(json!({}), json!({}), &image(None, "")));
    assert_eq!(
        found.profile_type(),
        v1::security_profile::ProfileType::Unconfined
    );
}
