//! The plugins of a list, one after another.

use super::conf::{ConfList, Plugin};
use super::error::ForeignError;
use super::exec::{Execution, PluginError, search_path};
use super::reply::addresses;
use crate::defaults::POD_INTERFACE;
use crate::{Attachment, Cidr, PodNetwork};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A burst that never limits (kubernetes v1.10 kubenet had the same).
const NO_BURST_LIMIT: i32 = i32::MAX;

/// What is asked of the plugins, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The pod.
    pub pod: &'a PodNetwork,
    /// Path of its network namespace; none = it has gone.
    pub netns: Option<&'a Path>,
    /// Ranges for plugins that take them from the runtime.
    pub ranges: &'a [Cidr],
}

/// A list of plugins and where they are.
#[derive(Debug)]
pub struct Chain<'a> {
    /// The configuration.
    pub list: &'a ConfList,
    /// Folders of plugins, in order.
    pub path: &'a [PathBuf],
}

impl Chain<'_> {
    /// ADD of every plugin in order, each given the last one's result. After a
    /// failure every plugin is asked to undo.
    pub async fn add(&self, call: Call<'_>) -> Result<Attachment, ForeignError> {
        let added = self.add_all(call).await;
        if added.is_err() {
            // `gc` finds what this leaves; the first error is the one to tell.
            let _ = self.del(call, &Value::Null).await;
        }
        added
    }

    async fn add_all(&self, call: Call<'_>) -> Result<Attachment, ForeignError> {
        let mut result = Value::Null;
        for plugin in &self.list.plugins {
            result = self.execute("ADD", plugin, call, &result).await?;
        }
        let ips = addresses(&result, POD_INTERFACE);
        if ips.is_empty() {
            let network = self.list.name.clone();
            return Err(ForeignError::NoAddress { network });
        }
        Ok(Attachment { ips, result })
    }

    /// DEL in reverse. All plugins are asked, then the first error is told.
    pub async fn del(&self, call: Call<'_>, result: &Value) -> Result<(), ForeignError> {
        let mut first = Ok(());
        for plugin in self.list.plugins.iter().rev() {
            let done = self.execute("DEL", plugin, call, result).await;
            first = first.and(done.map(drop));
        }
        first
    }

    /// CHECK in order, where the version has it.
    pub async fn check(&self, call: Call<'_>, result: &Value) -> Result<(), ForeignError> {
        if self.list.disable_check || !self.list.at_least("0.4.0") {
            return Ok(());
        }
        for plugin in &self.list.plugins {
            self.execute("CHECK", plugin, call, result).await?;
        }
        Ok(())
    }

    /// STATUS in order, where the version has it.
    pub async fn status(&self) -> Result<(), ForeignError> {
        if !self.list.at_least("1.1.0") {
            return Ok(());
        }
        for plugin in &self.list.plugins {
            self.run("STATUS", plugin, vec![], self.base(plugin))
                .await?;
        }
        Ok(())
    }

    /// GC, where the version has it: plugins drop what belongs to none of
    /// these sandboxes.
    pub async fn gc(&self, valid: &[String]) -> Result<(), ForeignError> {
        if self.list.disable_gc || !self.list.at_least("1.1.0") {
            return Ok(());
        }
        let attachments = valid
            .iter()
            .map(|id| json!({"containerID": id, "ifname": POD_INTERFACE}));
        let attachments: Value = attachments.collect();
        let mut first = Ok(());
        for plugin in &self.list.plugins {
            let mut config = self.base(plugin);
            config.insert("cni.dev/valid-attachments".into(), attachments.clone());
            let done = self.run("GC", plugin, vec![], config).await;
            first = first.and(done.map(drop));
        }
        first
    }

    async fn execute(
        &self,
        command: &'static str,
        plugin: &Plugin,
        call: Call<'_>,
        previous: &Value,
    ) -> Result<Value, ForeignError> {
        let mut config = self.base(plugin);
        let wanted = plugin.get("capabilities");
        let runtime = runtime_config(wanted.unwrap_or(&Value::Null), call);
        if !runtime.is_empty() {
            config.insert("runtimeConfig".into(), Value::Object(runtime));
        }
        // DEL learnt of the result only in 0.4.0.
        if !previous.is_null() && (command == "ADD" || self.list.at_least("0.4.0")) {
            config.insert("prevResult".into(), previous.clone());
        }
        let env = vec![
            ("CNI_CONTAINERID", call.pod.sandbox_id.clone()),
            ("CNI_IFNAME", POD_INTERFACE.to_owned()),
            (
                "CNI_NETNS",
                call.netns
                    .map(|p| p.display().to_string())
                    .unwrap_or_default(),
            ),
            ("CNI_ARGS", arguments(call.pod)),
        ];
        self.run(command, plugin, env, config).await
    }

    /// The plugin's part with what every execution has.
    fn base(&self, plugin: &Plugin) -> Plugin {
        let mut config = plugin.clone();
        // Of the runtime alone; `runtimeConfig` takes its place.
        config.remove("capabilities");
        config.insert("name".into(), self.list.name.clone().into());
        config.insert("cniVersion".into(), self.list.cni_version.clone().into());
        config
    }

    async fn run(
        &self,
        command: &'static str,
        plugin: &Plugin,
        mut env: Vec<(&'static str, String)>,
        config: Plugin,
    ) -> Result<Value, ForeignError> {
        let kind = plugin
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        env.push(("CNI_COMMAND", command.to_owned()));
        env.push(("CNI_PATH", search_path(self.path)));
        let execution = Execution {
            plugin: kind,
            path: self.path,
            env,
            config: Value::Object(config),
        };
        let done = execution.run().await;
        done.map_err(|source: PluginError| ForeignError::Plugin {
            network: self.list.name.clone(),
            command,
            plugin: kind.to_owned(),
            source,
        })
    }
}

fn arguments(pod: &PodNetwork) -> String {
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
        pod.namespace, pod.name, pod.sandbox_id, pod.uid
    )
}

/// What the plugin asked for by its capabilities
/// (containernetworking/cni CONVENTIONS.md).
fn runtime_config(capabilities: &Value, call: Call<'_>) -> serde_json::Map<String, Value> {
    let has = |name: &str| capabilities[name] == Value::Bool(true);
    let mut config = serde_json::Map::new();
    if has("portMappings") && !call.pod.ports.is_empty() {
        config.insert("portMappings".into(), json!(call.pod.ports));
    }
    let (ingress, egress) = (call.pod.ingress_rate, call.pod.egress_rate);
    if has("bandwidth") && (ingress.is_some() || egress.is_some()) {
        let mut limits = serde_json::Map::new();
        for (name, rate) in [("ingress", ingress), ("egress", egress)] {
            if let Some(rate) = rate {
                limits.insert(format!("{name}Rate"), rate.into());
                limits.insert(format!("{name}Burst"), NO_BURST_LIMIT.into());
            }
        }
        config.insert("bandwidth".into(), Value::Object(limits));
    }
    if has("ipRanges") && !call.ranges.is_empty() {
        let ranges = call
            .ranges
            .iter()
            .map(|r| json!([{"subnet": r.to_string()}]));
        config.insert("ipRanges".into(), ranges.collect());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PortMapping, Protocol};

    #[test]
    fn runtime_config_is_only_what_was_asked_for() {
        let pod = PodNetwork {
            ports: vec![PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: Protocol::Udp,
                host_ip: None,
            }],
            egress_rate: Some(1000),
            ..PodNetwork::default()
        };
        let ranges = ["10.0.0.0/24".parse().unwrap()];
        let call = Call {
            pod: &pod,
            netns: None,
            ranges: &ranges,
        };
        assert!(runtime_config(&Value::Null, call).is_empty());
        let all = json!({"portMappings": true, "bandwidth": true, "ipRanges": true, "dns": true});
        let config = Value::Object(runtime_config(&all, call));
        let want = json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}],
            "bandwidth": {"egressRate": 1000, "egressBurst": i32::MAX},
            "ipRanges": [[{"subnet": "10.0.0.0/24"}]],
        });
        assert_eq!(config, want);
    }
}
