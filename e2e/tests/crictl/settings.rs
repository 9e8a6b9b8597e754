//! version, info, runtime-config, update-runtime-config, config, completion.

use crate::cases;
use crate::kit::Kit;
use anyhow::{Context, Result, ensure};

cases![
    version_names_the_runtime,
    info_shows_conditions_and_handlers,
    runtime_config_says_who_makes_cgroups,
    update_runtime_config_takes_a_pod_cidr,
    config_is_read_and_written,
    completion_is_written_for_each_shell,
];

fn version_names_the_runtime(kit: &Kit) -> Result<()> {
    let text = kit.ok(&["version"])?;
    let name = if kit.is_lighter() {
        "lighter"
    } else {
        "containerd"
    };
    let field = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key));
        line.map(str::trim)
            .with_context(|| format!("no {key}: {text}"))
    };
    ensure!(field("RuntimeName:")? == name, "{text}");
    ensure!(field("RuntimeApiVersion:")? == "v1", "{text}");
    ensure!(!field("RuntimeVersion:")?.is_empty(), "{text}");
    Ok(())
}

fn info_shows_conditions_and_handlers(kit: &Kit) -> Result<()> {
    let info = kit.json(&["info"])?;
    let conditions = info["status"]["conditions"]
        .as_array()
        .context("no conditions")?;
    for kind in ["RuntimeReady", "NetworkReady"] {
        let found = conditions.iter().find(|c| c["type"] == kind);
        ensure!(found.is_some_and(|c| c["status"] == true), "{kind}: {info}");
    }
    let handlers = info["runtimeHandlers"].as_array().context("no handlers")?;
    let default = handlers
        .iter()
        .find(|h| h["name"].as_str().unwrap_or_default().is_empty());
    let features = &default.context("no default handler")?["features"];
    ensure!(features["user_namespaces"] == true, "{info}");
    ensure!(features["recursive_read_only_mounts"] == true, "{info}");
    Ok(())
}

fn runtime_config_says_who_makes_cgroups(kit: &Kit) -> Result<()> {
    let config = kit.ok(&["runtime-config"])?;
    ensure!(config.to_lowercase().contains("cgroupfs"), "{config}");
    Ok(())
}

fn update_runtime_config_takes_a_pod_cidr(kit: &Kit) -> Result<()> {
    kit.ok(&["update-runtime-config", "--pod-cidr=10.88.0.0/16"])?;
    let pod = kit.pod()?;
    let all = kit.json(&["inspectp", &pod.id])?;
    let ip = all["status"]["network"]["ip"].as_str().unwrap_or_default();
    ensure!(ip.starts_with("10.88."), "{ip}");
    Ok(())
}

fn config_is_read_and_written(kit: &Kit) -> Result<()> {
    let before = kit.ok(&["config", "--list"])?;
    ensure!(before.contains("runtime-endpoint"), "{before}");
    let endpoint = kit.word(&["config", "--get", "runtime-endpoint"])?;
    ensure!(endpoint == kit.stand.endpoint(), "{endpoint}");
    kit.ok(&["config", "--set", "timeout=7"])?;
    let timeout = kit.word(&["config", "--get", "timeout"])?;
    ensure!(timeout.starts_with('7'), "{timeout}");
    kit.ok(&["config", "--set", "timeout=2"])?;
    Ok(())
}

fn completion_is_written_for_each_shell(kit: &Kit) -> Result<()> {
    for shell in ["bash", "zsh", "fish"] {
        let text = kit.ok(&["completion", shell])?;
        ensure!(text.contains("crictl"), "{shell}: {text}");
    }
    Ok(())
}
