//! `host-local`, as a program and within the plugins that use it.

use super::failure::Failure;
use super::request::{Command, Request};
use crate::Cidr;
use crate::foreign::execute;
use crate::ipam::{Range, Store};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::PathBuf;

/// Of the reference plugin.
const DATA_DIR: &str = "/var/lib/cni/networks";

/// `ipam` of a network's configuration.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ipam {
    #[serde(default)]
    ranges: Vec<Vec<RangeConf>>,
    #[serde(flatten)]
    single: Option<RangeConf>,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    routes: Vec<Value>,
    resolv_conf: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeConf {
    subnet: String,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
    gateway: Option<IpAddr>,
}

/// The plugin `host-local`.
pub fn run(request: &Request) -> Result<Value, Failure> {
    let (ipam, store) = open(request)?;
    let (container, interface) = (request.container.as_str(), request.interface.as_str());
    match request.command {
        Command::Add => add(&ipam, &store, request),
        Command::Del => {
            store.release_where(|id, name| {
                id == container && (name == interface || name.is_empty())
            })?;
            Ok(Value::Null)
        }
        Command::Check => {
            let mine = |(_, id, _): &(IpAddr, String, String)| id == container;
            match store.reservations()?.iter().any(mine) {
                true => Ok(Value::Null),
                false => Err(Failure::config("the container has no address")),
            }
        }
        Command::Gc => {
            store.release_where(|id, name| !request.keeps(id, name))?;
            Ok(Value::Null)
        }
        Command::Status | Command::Version => Ok(Value::Null),
    }
}

/// Asks whichever plugin the network's `ipam` names; ours with no process.
pub async fn delegate(request: &Request) -> Result<Value, Failure> {
    match request.config["ipam"]["type"].as_str() {
        None | Some("") => Ok(Value::Null),
        Some("host-local") => run(request),
        Some(plugin) => Ok(execute(plugin, &request.path, request.config.clone()).await?),
    }
}

fn open(request: &Request) -> Result<(Ipam, Store), Failure> {
    let ipam = Ipam::deserialize(&request.config["ipam"]);
    let mut ipam = ipam.map_err(|e| Failure::config(format!("ipam: {e}")))?;
    let wanted = request.config["runtimeConfig"]["ips"].as_array();
    if wanted.is_some_and(|ips| !ips.is_empty()) {
        return Err(Failure::config(
            "host-local: chosen addresses are not supported",
        ));
    }
    let given = &request.config["runtimeConfig"]["ipRanges"];
    let given: Vec<Vec<RangeConf>> = Vec::deserialize(given).unwrap_or_default();
    // The runtime's come before those of the file; a lone range before all.
    let single = ipam.single.take().map(|range| vec![range]);
    let ranges = single.into_iter().chain(given).chain(ipam.ranges);
    ipam.ranges = ranges.collect();
    let name = request.network();
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(Failure::config("\"name\" is missing or malformed"));
    }
    let dir = ipam.data_dir.clone().unwrap_or_else(|| DATA_DIR.into());
    Ok((ipam, Store::open(dir.join(name))?))
}

fn add(ipam: &Ipam, store: &Store, request: &Request) -> Result<Value, Failure> {
    if ipam.ranges.is_empty() {
        return Err(Failure::config("host-local: no \"ranges\""));
    }
    let mut ips = Vec::new();
    for (slot, set) in ipam.ranges.iter().enumerate() {
        match reserve(set, slot, store, request) {
            Ok(ip) => ips.push(ip),
            Err(failure) => {
                let (id, name) = (&request.container, &request.interface);
                store.release_where(|i, n| i == id && n == name)?;
                return Err(failure);
            }
        }
    }
    let dns = ipam.resolv_conf.as_ref().map_or_else(
        || json!({}),
        |path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let servers = text.lines().filter_map(|l| l.strip_prefix("nameserver "));
            json!({"nameservers": servers.map(str::trim).collect::<Vec<_>>()})
        },
    );
    Ok(json!({"ips": ips, "routes": ipam.routes, "dns": dns}))
}

/// One address of a set: of its first range that has one.
fn reserve(
    set: &[RangeConf],
    slot: usize,
    store: &Store,
    request: &Request,
) -> Result<Value, Failure> {
    let mut failure = Failure::config("host-local: an empty set in \"ranges\"");
    for conf in set {
        let range = conf.range()?;
        match store.reserve(&range, slot, &request.container, &request.interface) {
            Ok(ip) => {
                let prefix = range.subnet().prefix();
                let address = format!("{ip}/{prefix}");
                return Ok(json!({"address": address, "gateway": range.gateway()}));
            }
            Err(error) => failure = error.into(),
        }
    }
    Err(failure)
}

impl RangeConf {
    fn range(&self) -> Result<Range, Failure> {
        let subnet: Cidr = self
            .subnet
            .parse()
            .map_err(|e| Failure::config(format!("{e}")))?;
        let range = Range::new(subnet, self.range_start, self.range_end, self.gateway);
        range.ok_or_else(|| {
            Failure::config(format!("no address in {} between its bounds", self.subnet))
        })
    }
}
