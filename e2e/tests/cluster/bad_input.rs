//! Bad input: a clear Event, and nothing else breaks.

use crate::kit::{FOREVER, Space, pod, same, waiting, with, with_main};
use anyhow::{Result, ensure};
use e2e::cluster::registry;
use serde_json::json;

crate::tests!(
    an_image_that_does_not_exist_is_named,
    an_unreachable_registry_is_named,
    a_private_image_needs_its_pull_secret,
    a_wrong_image_name_is_refused,
    a_wrong_command_is_named,
    a_missing_secret_holds_a_pod_until_it_is_created,
    a_missing_config_map_volume_holds_a_pod_until_it_is_created,
    a_host_port_that_is_taken_is_refused,
    a_pull_policy_of_never_needs_the_image,
    a_user_that_must_not_be_root_is_checked,
);

fn an_image_that_does_not_exist_is_named(t: &Space) -> Result<()> {
    let image = "docker.io/library/no-such-image:1";
    t.apply(&with_main(pod("b", FOREVER), json!({ "image": image })))?;
    t.wait("b", "ErrImagePull", |p| {
        matches!(waiting(p), "ErrImagePull" | "ImagePullBackOff")
    })?;
    t.wait_event("b", &["Failed", image])?;
    t.wait_event("b", &["BackOff", "Back-off pulling image"])?;
    // A neighbour doesn't notice.
    t.run(&pod("good", FOREVER))
}

fn an_unreachable_registry_is_named(t: &Space) -> Result<()> {
    let image = "127.0.0.1:9/some/image:1";
    t.apply(&with_main(pod("b", FOREVER), json!({ "image": image })))?;
    t.wait_event("b", &["Failed", "127.0.0.1:9", "refused"])
}

fn a_private_image_needs_its_pull_secret(t: &Space) -> Result<()> {
    let image = format!("{}/library/busybox:latest", registry::PRIVATE);
    let wanting = |name: &str, secret: &str| {
        let main = json!({ "image": image, "imagePullPolicy": "Always" });
        let secrets = json!([{ "name": secret }]);
        with(
            with_main(pod(name, FOREVER), main),
            json!({ "imagePullSecrets": secrets }),
        )
    };
    for (name, password) in [("wrong", "nonsense"), ("right", registry::PASSWORD)] {
        t.kubectl(&[
            "create",
            "secret",
            "docker-registry",
            name,
            &format!("--docker-server={}", registry::PRIVATE),
            &format!("--docker-username={}", registry::USER),
            &format!("--docker-password={password}"),
        ])?;
    }
    t.apply(&wanting("absent", "none"))?;
    t.apply(&wanting("refused", "wrong"))?;
    for name in ["absent", "refused"] {
        t.wait_event(name, &["Failed", &image])?;
        t.wait(name, "a pull that fails", |p| {
            matches!(waiting(p), "ErrImagePull" | "ImagePullBackOff")
        })?;
    }
    t.run(&wanting("allowed", "right"))
}

fn a_wrong_image_name_is_refused(t: &Space) -> Result<()> {
    t.apply(&with_main(
        pod("b", FOREVER),
        json!({ "image": "UPPER CASE" }),
    ))?;
    t.wait("b", "InvalidImageName", |p| {
        waiting(p) == "InvalidImageName"
    })
}

fn a_wrong_command_is_named(t: &Space) -> Result<()> {
    t.apply(&with_main(
        pod("b", ""),
        json!({ "command": ["/no/such/command"] }),
    ))?;
    t.wait_event("b", &["/no/such/command"])?;
    t.wait("b", "never running", |p| {
        matches!(
            waiting(p),
            "RunContainerError" | "CrashLoopBackOff" | "CreateContainerError"
        )
    })?;
    t.run(&pod("good", FOREVER))
}

fn a_missing_secret_holds_a_pod_until_it_is_created(t: &Space) -> Result<()> {
    let env = json!({ "env": [{ "name": "S", "valueFrom": { "secretKeyRef": { "name": "late", "key": "k" } } }] });
    t.apply(&with_main(pod("b", FOREVER), env))?;
    t.wait("b", "CreateContainerConfigError", |p| {
        waiting(p) == "CreateContainerConfigError"
    })?;
    t.wait_event("b", &["late", "not found"])?;
    t.kubectl(&["create", "secret", "generic", "late", "--from-literal=k=v"])?;
    t.wait_ready("b")?;
    same(t.sh("b", "echo $S")?.trim(), "v")
}

fn a_missing_config_map_volume_holds_a_pod_until_it_is_created(t: &Space) -> Result<()> {
    let spec = json!({ "volumes": [{ "name": "v", "configMap": { "name": "late" } }] });
    let mount = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    t.apply(&with_main(with(pod("b", FOREVER), spec), mount))?;
    t.wait_event("b", &["FailedMount", "late", "not found"])?;
    t.kubectl(&["create", "configmap", "late", "--from-literal=k=v"])?;
    t.wait_for("b", "Ready", 130, |p| {
        crate::kit::condition(p, "Ready") == Some("True")
    })?;
    same(t.sh("b", "cat /v/k")?.as_str(), "v")
}

fn a_host_port_that_is_taken_is_refused(t: &Space) -> Result<()> {
    let port = json!({ "ports": [{ "containerPort": 8080, "hostPort": 18097 }] });
    t.run(&with_main(pod("one", FOREVER), port.clone()))?;
    // Past the scheduler, which would wait: the node itself has to say no.
    let two = with(pod("two", FOREVER), json!({ "nodeName": t.node().name }));
    t.apply(&with_main(two, port))?;
    t.wait("two", "refused", |p| crate::kit::phase(p) == "Failed")?;
    let seen = t.pod("two")?;
    let reason = seen["status"]["reason"].as_str().unwrap_or_default();
    ensure!(
        reason == "NodePorts",
        "reason {reason:?}: {}",
        seen["status"]["message"]
    );
    Ok(())
}

fn a_pull_policy_of_never_needs_the_image(t: &Space) -> Result<()> {
    let image = json!({ "image": "docker.io/library/not-here:1", "imagePullPolicy": "Never" });
    t.apply(&with_main(pod("b", FOREVER), image))?;
    t.wait("b", "ErrImageNeverPull", |p| {
        waiting(p) == "ErrImageNeverPull"
    })
}

fn a_user_that_must_not_be_root_is_checked(t: &Space) -> Result<()> {
    t.apply(&with_main(
        pod("b", FOREVER),
        json!({ "securityContext": { "runAsNonRoot": true } }),
    ))?;
    t.wait("b", "CreateContainerConfigError", |p| {
        waiting(p) == "CreateContainerConfigError"
    })?;
    t.wait_event("b", &["runAsNonRoot"])
}
