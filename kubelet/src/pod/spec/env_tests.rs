use super::*;
use crate::pod::spec::testing::node;
use serde_json::json;

fn pod(container: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "web"}},
        "spec": {"containers": [container], "serviceAccountName": "sa"}
    }))
    .unwrap_or_default()
}

fn sources() -> Sources {
    let map = json!({"data": {"A": "1", "B": "2", "bad=key": "x"}});
    let secret = json!({"data": {"token": "czNjcmV0"}});
    Sources {
        config_maps: [(
            "cm".to_owned(),
            serde_json::from_value(map).unwrap_or_default(),
        )]
        .into(),
        secrets: [(
            "s".to_owned(),
            serde_json::from_value(secret).unwrap_or_default(),
        )]
        .into(),
        files: [(
            ("shared".to_owned(), "env".to_owned()),
            Ok("KEY='from file'\n".to_owned()),
        )]
        .into(),
    }
}

fn run(container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
    let pod = pod(container);
    let spec = pod.spec.clone().unwrap_or_default();
    let context = EnvContext {
        pod: &pod,
        container: &spec.containers[0],
        node: &node(),
        pod_ips: &["10.1.0.2".to_owned(), "fd00::2".to_owned()],
        services: [("DB_SERVICE_HOST".to_owned(), "10.9.0.1".to_owned())].into(),
    };
    build(&context, &sources())
}

fn value(env: &[(String, String)], key: &str) -> Option<String> {
    env.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone())
}

#[test]
fn env_overrides_env_from_and_refers_to_what_stands_before() {
    let env = run(json!({"name": "c",
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"configMapRef": {"name": "cm"}}],
        "env": [{"name": "A", "value": "x$(B)$(LATER)$(DB_SERVICE_HOST)"}, {"name": "LATER", "value": "z"}]
    }))
    .unwrap_or_default();
    assert_eq!(value(&env, "A").as_deref(), Some("x2$(LATER)10.9.0.1"));
    assert_eq!(value(&env, "P_A").as_deref(), Some("1"));
    assert_eq!(value(&env, "bad=key"), None);
    assert_eq!(value(&env, "DB_SERVICE_HOST").as_deref(), Some("10.9.0.1"));
}

#[test]
fn env_takes_fields_resources_and_keys() {
    let from = |name: &str, source: serde_json::Value| json!({"name": name, "valueFrom": source});
    let env = run(json!({"name": "c", "resources": {"limits": {"cpu": "250m"}}, "env": [
        from("LABEL", json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})),
        from("IPS", json!({"fieldRef": {"fieldPath": "status.podIPs"}})),
        from("CPU", json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}})),
        from("MEMORY", json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Gi"}})),
        from("TOKEN", json!({"secretKeyRef": {"name": "s", "key": "token"}})),
        from("NONE", json!({"secretKeyRef": {"name": "s", "key": "no", "optional": true}})),
    ]}))
    .unwrap_or_default();
    let of = |key| value(&env, key).unwrap_or_else(|| "missing".into());
    assert_eq!(of("LABEL"), "web");
    assert_eq!(of("IPS"), "10.1.0.2,fd00::2");
    assert_eq!(of("CPU"), "250");
    assert_eq!(of("MEMORY"), "4");
    assert_eq!(of("TOKEN"), "s3cret");
    assert_eq!(of("NONE"), "missing");
}

#[test]
fn env_fails_with_upstreams_words_when_a_reference_leads_nowhere() {
    let from = |source: serde_json::Value| {
        let env = json!([{"name": "X", "valueFrom": source}]);
        run(json!({"name": "c", "env": env}))
            .err()
            .map(|e| e.to_string())
    };
    assert_eq!(
        from(json!({"configMapKeyRef": {"name": "no", "key": "k"}})).as_deref(),
        Some("configmap \"no\" not found")
    );
    assert_eq!(
        from(json!({"secretKeyRef": {"name": "s", "key": "k"}})).as_deref(),
        Some("couldn't find key k in Secret ns/s")
    );
}

#[test]
fn variable_comes_from_a_file_of_a_volume_and_only_its_key_is_optional() {
    let of = |key: &str, path: &str, optional: bool| {
        let from = json!({"volumeName": "shared", "path": path, "key": key, "optional": optional});
        run(json!({"name": "c", "env": [{"name": "V", "valueFrom": {"fileKeyRef": from}}]}))
            .map(|env| env.into_iter().find(|(k, _)| k == "V").map(|(_, v)| v))
    };
    assert_eq!(of("KEY", "env", false), Ok(Some("from file".to_owned())));
    assert_eq!(of("OTHER", "env", true), Ok(None));
    assert!(matches!(
        of("OTHER", "env", false),
        Err(EnvError::NoKeyInFile { .. })
    ));
    assert!(matches!(
        of("KEY", "none", true),
        Err(EnvError::File { .. })
    ));
}
