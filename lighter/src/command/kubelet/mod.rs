//! `lighter kubelet`, or the binary under the name `kubelet`: takes the kubelet's own flags
//! and files, and does what `lighter agent` does.

mod flags;
mod table;

use super::{agent, runtime};
use crate::cli::{AgentArgs, NodeOptions, RuntimeArgs, RuntimeOptions};
use crate::exit::{CONFIG, USAGE, coded};
use crate::logs::{self, Logs};
use flags::Given;
use kubelet::config::Loaded;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use table::{Kind, TABLE, Use};

/// The arguments behind the name, when the program is asked to be a kubelet.
#[must_use]
pub fn asked(args: &[String]) -> Option<Vec<String>> {
    let name = |arg: &String| arg.rsplit('/').next().unwrap_or_default().to_owned();
    let called = args.first().is_some_and(|a| name(a) == "kubelet");
    match args.get(1).map(String::as_str) {
        Some("kubelet") => Some(args[2..].to_vec()),
        // The kubelet has no commands: this is one of ours.
        Some(word) if !word.starts_with('-') => None,
        _ => called.then(|| args[1..].to_vec()),
    }
}

/// How much the log says: by the kubelet's `--v`.
#[must_use]
pub fn verbosity(args: &[String]) -> u8 {
    logs::of_klog(flags::parse(args).map_or(0, |g| g.verbosity.into()))
}

/// Runs until SIGTERM; containers stay.
///
/// # Errors
/// All mistakes of the flags at once, or all of a configuration file.
pub async fn run(args: Vec<String>, logs: Logs) -> anyhow::Result<u8> {
    let given = flags::parse(&args)
        .map_err(|mistakes| coded(USAGE, format!("kubelet flags: {}", mistakes.join("; "))))?;
    if given.help {
        print!("{}", help());
        return Ok(0);
    }
    if given.version {
        println!("Kubernetes {}", kubelet::defaults::KUBELET_VERSION);
        return Ok(0);
    }
    super::need_root("kubelet")?;
    for (name, why) in &given.without {
        tracing::warn!("--{name} has no effect: {why}");
    }
    if let Some(file) = text(&given, "config").filter(|file| !Path::new(file).exists()) {
        tracing::info!(file, "no configuration yet: serving only the CRI socket");
        return runtime::run(standby(&given), logs.starts).await;
    }
    let loaded = load(&given)?;
    agent::start(agent_args(&given)?, loaded, logs).await
}

/// kubeadm asks the runtime before it writes the configuration, then stops the service and starts
/// it again. The runtime is this program, so it is there without one.
fn standby(given: &Given) -> RuntimeArgs {
    RuntimeArgs {
        options: options(given),
        listen: None,
        pod_cidr: None,
    }
}

fn options(given: &Given) -> RuntimeOptions {
    RuntimeOptions {
        runtime_config: None,
        root: None,
        state: None,
        cgroup_root: text(given, "cgroup-root"),
    }
}

/// Flags win over files.
fn load(given: &Given) -> anyhow::Result<Loaded> {
    let path = |name: &str| text(given, name).map(PathBuf::from);
    let flags = Value::Object(given.fields.clone()).to_string();
    let mut loaded = kubelet::config::load_under(
        path("config").as_deref(),
        path("config-dir").as_deref(),
        Some(&flags),
    )
    .map_err(|e| coded(CONFIG, format!("{:#}", anyhow::Error::new(e))))?;
    if text(given, "cloud-provider").as_deref() == Some("external") {
        let taint = json!({
            "key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true",
            "effect": "NoSchedule",
        });
        let taints = &mut loaded.config.register_with_taints;
        taints.push(serde_json::from_value(taint)?);
    }
    Ok(loaded)
}

fn text(given: &Given, name: &str) -> Option<String> {
    let value = given.agent.get(name)?.last()?;
    (!value.is_empty()).then(|| value.clone())
}

fn agent_args(given: &Given) -> anyhow::Result<AgentArgs> {
    let path = |name: &str, default: &str| {
        PathBuf::from(text(given, name).unwrap_or_else(|| default.to_owned()))
    };
    let ips = given.agent.get("node-ip").into_iter().flatten();
    let ips: Result<Vec<std::net::IpAddr>, _> = ips
        .map(|ip| {
            let wrong = || coded(USAGE, format!("--node-ip: {ip:?} is no address"));
            ip.parse().map_err(|_| wrong())
        })
        .collect();
    Ok(AgentArgs {
        options: options(given),
        node: NodeOptions {
            config: path("config", ""),
            kubeconfig: path("kubeconfig", ""),
            bootstrap_kubeconfig: path("bootstrap-kubeconfig", ""),
            hostname_override: text(given, "hostname-override"),
            root_dir: path("root-dir", "/var/lib/kubelet"),
            cert_dir: text(given, "cert-dir").map(PathBuf::from),
        },
        node_ip: ips?,
        node_labels: given.agent.get("node-labels").cloned().unwrap_or_default(),
        provider_id: None,
        container_runtime_endpoint: text(given, "container-runtime-endpoint"),
        image_credential_provider_config: text(given, "image-credential-provider-config")
            .map(PathBuf::from),
        image_credential_provider_bin_dir: text(given, "image-credential-provider-bin-dir")
            .map(PathBuf::from),
        listen: None,
    })
}

fn help() -> String {
    let mut text = "Runs this machine's pods, with the kubelet's flags and files.\n\n".to_owned();
    for (name, used) in TABLE {
        let (kind, about) = match used {
            Use::Agent(kind) => (kind, String::new()),
            Use::Field(path, kind) => (kind, format!("{path} of KubeletConfiguration")),
            Use::Without(kind, why) => (kind, format!("no effect: {why}")),
        };
        let value = match kind {
            Kind::Text => " TEXT",
            Kind::Bool => "",
            Kind::Number => " NUMBER",
            Kind::List => " A,B",
            Kind::Map => " A=1,B=2",
            Kind::Thresholds => " SIGNAL<VALUE,..",
            Kind::Taints => " KEY=VALUE:EFFECT,..",
        };
        text += &format!("  {:<48} {about}\n", format!("--{name}{value}"));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_a_kubelet_by_name_or_word_and_not_with_another_word() {
        let asked = |line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            super::asked(&args).map(|flags| flags.join(" "))
        };
        assert_eq!(asked("/usr/bin/kubelet --v=2"), Some("--v=2".into()));
        assert_eq!(asked("kubelet"), Some(String::new()));
        assert_eq!(asked("lighter kubelet --v=2"), Some("--v=2".into()));
        assert_eq!(asked("kubelet agent --node-ip=::1"), None);
        assert_eq!(asked("lighter agent"), None);
    }
}
