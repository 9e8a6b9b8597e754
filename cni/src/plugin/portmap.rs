//! `portmap`: the built-in network's host ports, in a table of their own.

use super::failure::Failure;
use super::request::{Command, Request};
use crate::PortMapping;
use crate::builtin::{apply_sysctls, host_ports};
use crate::foreign::addresses;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Our table.
const TABLE: &str = "lighter-portmap";
/// What DEL must know, kept for as long as the kernel keeps the table.
const STATE: &str = "/run/lighter/cni/portmap";

/// What one container's ports were mapped to.
#[derive(Debug, Serialize, Deserialize)]
struct Mapped {
    container: String,
    interface: String,
    ports: Vec<PortMapping>,
    ips: Vec<IpAddr>,
}

/// The plugin `portmap`; it comes after one that gives an address.
pub async fn run(request: &Request) -> Result<Value, Failure> {
    match request.command {
        Command::Add => {
            add(request).await?;
            Ok(request.config["prevResult"].clone())
        }
        Command::Del => del(&state_path(request)).await,
        Command::Gc => {
            for entry in fs::read_dir(STATE).into_iter().flatten().flatten() {
                let mapped = read(&entry.path());
                if mapped.is_some_and(|m| !request.keeps(&m.container, &m.interface)) {
                    del(&entry.path()).await?;
                }
            }
            Ok(Value::Null)
        }
        Command::Check => {
            let wanted = !ports(request)?.is_empty();
            match wanted && read(&state_path(request)).is_none() {
                true => Err(Failure::config("the host ports are not mapped")),
                false => Ok(Value::Null),
            }
        }
        Command::Status | Command::Version => Ok(Value::Null),
    }
}

async fn add(request: &Request) -> Result<(), Failure> {
    let ports = ports(request)?;
    if ports.is_empty() {
        return Ok(());
    }
    let previous = &request.config["prevResult"];
    if previous.is_null() {
        return Err(Failure::config("portmap must come after another plugin"));
    }
    let mapped = Mapped {
        container: request.container.clone(),
        interface: request.interface.clone(),
        ports,
        ips: addresses(previous, &request.interface),
    };
    keep(&state_path(request), &mapped)?;
    let done = async {
        // 127.0.0.1: the interfaces that the pod is reached by must take it.
        for name in host_interfaces(previous) {
            let setting = format!("ipv4/conf/{name}/route_localnet");
            apply_sysctls(&[(setting, "1")])?;
        }
        host_ports::lay(TABLE).await?;
        Ok(host_ports::map(TABLE, &mapped.ports, &mapped.ips).await?)
    };
    let done: Result<(), Failure> = done.await;
    if done.is_err() {
        // Another's port is still the other's.
        let _ = fs::remove_file(state_path(request));
    }
    done
}

async fn del(path: &Path) -> Result<Value, Failure> {
    if let Some(mapped) = read(path) {
        host_ports::unmap(TABLE, &mapped.ports, &mapped.ips).await?;
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::io("forget host ports", &e)),
        _ => Ok(Value::Null),
    }
}

/// The runtime's mappings; ports of 0 and empty addresses mean none.
fn ports(request: &Request) -> Result<Vec<PortMapping>, Failure> {
    let given = request.config["runtimeConfig"]["portMappings"].as_array();
    let given = given
        .into_iter()
        .flatten()
        .filter(|m| m["hostPort"].as_u64() != Some(0));
    let read = given.map(|mapping| {
        let mut mapping = mapping.clone();
        if let Some(protocol) = mapping["protocol"].as_str() {
            mapping["protocol"] = protocol.to_ascii_lowercase().into();
        }
        if mapping["hostIP"] == ""
            && let Some(fields) = mapping.as_object_mut()
        {
            fields.remove("hostIP");
        }
        serde_json::from_value(mapping).map_err(|e| Failure::config(format!("portMappings: {e}")))
    });
    read.collect()
}

fn host_interfaces(result: &Value) -> Vec<&str> {
    let all = result["interfaces"].as_array().into_iter().flatten();
    let host = all.filter(|i| i["sandbox"].as_str().is_none_or(str::is_empty));
    let names = host.filter_map(|i| i["name"].as_str());
    names.filter(|n| !n.contains('/') && is_here(n)).collect()
}

/// /proc/sys/net is of the namespace that looks, unlike /sys.
fn is_here(interface: &str) -> bool {
    Path::new("/proc/sys/net/ipv4/conf")
        .join(interface)
        .exists()
}

fn state_path(request: &Request) -> PathBuf {
    // Ids are of the runtime; slashes would lead elsewhere.
    let name = format!("{}-{}.json", request.container, request.interface);
    Path::new(STATE).join(name.replace('/', "_"))
}

fn keep(path: &Path, mapped: &Mapped) -> Result<(), Failure> {
    let text = serde_json::to_vec(mapped).map_err(|e| Failure::decode(&e))?;
    let written = fs::create_dir_all(STATE).and_then(|()| fs::write(path, text));
    written.map_err(|e| Failure::io("keep host ports", &e))
}

fn read(path: &Path) -> Option<Mapped> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
