use super::pod::{Made, Wiring};
use crate::defaults::POD_INTERFACE;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What was done, as a CNI plugin would tell it (CNI spec 1.1.0, section
/// "Success").
pub fn json(wiring: &Wiring<'_>, made: &Made, netns: Option<PathBuf>) -> Value {
    let ips = wiring.leases.iter().map(|(ip, range)| {
        json!({
            "address": format!("{ip}/{}", range.subnet().prefix()),
            "gateway": range.gateway(),
            "interface": 2,
        })
    });
    let routes = wiring.leases.iter().map(|(ip, range)| {
        let any = if ip.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
        json!({"dst": any, "gw": range.gateway()})
    });
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": wiring.host.bridge_name},
            {"name": wiring.name, "mac": mac(&made.host_mac)},
            {
                "name": POD_INTERFACE,
                "mac": mac(&made.mac),
                "mtu": wiring.host.mtu,
                "sandbox": netns.map(|p| p.display().to_string()).unwrap_or_default(),
            },
        ],
        "ips": ips.collect::<Value>(),
        "routes": routes.collect::<Value>(),
        "dns": {},
    })
}

fn mac(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    pairs.join(":")
}
