//! Forwarding, resolv.conf, CNI configuration, ports.

use super::{Finding, Place, read};
use std::path::Path;

pub fn findings(place: &Place) -> Vec<Finding> {
    let config = place.config();
    let resolv = config.resolv_conf.clone().unwrap_or_default();
    vec![
        forwarding(&read("/proc/sys/net/ipv4/ip_forward")),
        bridged(&read("/proc/sys/net/bridge/bridge-nf-call-iptables")),
        resolv_conf(
            &resolv.display().to_string(),
            std::fs::read_to_string(&resolv).ok(),
        ),
        default_route(&read("/proc/net/route"), &read("/proc/net/ipv6_route")),
        cni(&place.runtime.cni_conf_dir, &place.runtime.cni_bin_dirs),
        hosts(&read("/etc/hosts")),
    ]
}

fn forwarding(value: &str) -> Finding {
    match value {
        "1" => Finding::ok("ip-forward", "on"),
        _ => Finding::warning(
            "ip-forward",
            [
                "off",
                "pods reach nothing beyond this node; the agent turns it on, a foreign network may not",
                "sysctl -w net.ipv4.ip_forward=1, and a line in /etc/sysctl.d",
            ],
        ),
    }
}

/// Empty without br_netfilter, which is a finding of its own.
fn bridged(value: &str) -> Finding {
    match value {
        "0" => Finding::warning(
            "bridge-netfilter",
            [
                "off",
                "a Service is not reached from a pod that has an endpoint of it beside itself",
                "sysctl -w net.bridge.bridge-nf-call-iptables=1, and a line in /etc/sysctl.d",
            ],
        ),
        "1" => Finding::ok("bridge-netfilter", "on"),
        _ => Finding::ok("bridge-netfilter", "not there"),
    }
}

fn resolv_conf(path: &str, text: Option<String>) -> Finding {
    const CHECK: &str = "resolv-conf";
    let Some(text) = text else {
        let seen = format!("{path} can't be read");
        let remedy = "resolvConf: in the kubelet's configuration, such as /etc/resolv.conf";
        return Finding::warning(
            CHECK,
            [&seen, "pods with dnsPolicy Default have no DNS", remedy],
        );
    };
    let of = |key: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|l| l.trim().strip_prefix(key));
        lines
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect()
    };
    let servers = of("nameserver ");
    let seen = format!("{path}: {}", servers.join(", "));
    let loopback = |s: &String| s.starts_with("127.") || s == "::1";
    if servers.is_empty() {
        let seen = format!("{path} names no server");
        return Finding::warning(
            CHECK,
            [
                &seen,
                "pods with dnsPolicy Default have no DNS",
                "add a nameserver line",
            ],
        );
    }
    if servers.iter().any(loopback) {
        return Finding::warning(
            CHECK,
            [
                &seen,
                "in a pod a loopback address is the pod's own; CoreDNS finds itself and ends with \"Loop detected\"",
                "resolvConf: /run/systemd/resolve/resolv.conf in the kubelet's configuration",
            ],
        );
    }
    if servers.len() > 3 {
        return Finding::warning(
            CHECK,
            [&seen, "libc looks at the first three only", "leave three"],
        );
    }
    Finding::ok(CHECK, seen)
}

fn default_route(v4: &str, v6: &str) -> Finding {
    let has_v4 = v4
        .lines()
        .skip(1)
        .any(|l| l.split_whitespace().nth(1) == Some("00000000"));
    let is_default = |l: &str| {
        let fields: Vec<_> = l.split_whitespace().collect();
        fields.get(1) == Some(&"00") && fields.last() != Some(&"lo")
    };
    match has_v4 || v6.lines().any(is_default) {
        true => Finding::ok("default-route", "there"),
        false => Finding::warning(
            "default-route",
            [
                "none",
                "the node's address is guessed from it",
                "a default route, or --node-ip",
            ],
        ),
    }
}

/// As the runtime does: of the files in the order of their names the first that can be used.
fn cni(dir: &Path, bins: &[std::path::PathBuf]) -> Finding {
    const CHECK: &str = "cni";
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let is_config = |path: &std::path::PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str());
        matches!(extension, Some("conflist" | "conf" | "json"))
    };
    let mut files: Vec<_> = entries.map(|e| e.path()).filter(is_config).collect();
    files.sort();
    let Some(first) = files.first() else {
        return Finding::ok(
            CHECK,
            format!("{} is empty: the built-in network", dir.display()),
        );
    };
    let name = first.display().to_string();
    let plugins = match std::fs::read_to_string(first).map(|text| plugins(&text)) {
        Ok(Ok(plugins)) => plugins,
        Ok(Err(why)) => {
            return Finding::error(
                CHECK,
                [
                    &format!("{name}: {why}"),
                    "the node stays NotReady, or uses the next file",
                    "mend or remove it",
                ],
            );
        }
        Err(e) => {
            return Finding::error(
                CHECK,
                [
                    &format!("{name}: {e}"),
                    "the node stays NotReady",
                    "make it readable",
                ],
            );
        }
    };
    let there = |plugin: &&String| {
        BUILT_IN.contains(&plugin.as_str()) || bins.iter().any(|b| b.join(plugin.as_str()).exists())
    };
    let missing: Vec<&str> = plugins
        .iter()
        .filter(|p| !there(p))
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return Finding::ok(CHECK, format!("{name}: {}", plugins.join(", ")));
    }
    let bins: Vec<_> = bins.iter().map(|b| b.display().to_string()).collect();
    Finding::error(
        CHECK,
        [
            &format!("{name} wants {}", missing.join(", ")),
            &format!("not in {}: no pod gets a network", bins.join(", ")),
            "install the plugins, or wait for the network's DaemonSet; remove the file for the built-in network",
        ],
    )
}

/// Those that this binary is itself.
const BUILT_IN: [&str; 5] = ["bridge", "ptp", "host-local", "portmap", "loopback"];

/// Types of plugins in a configuration.
fn plugins(text: &str) -> Result<Vec<String>, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let list = value["plugins"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![value.clone()]);
    let kind = |v: &serde_json::Value| v["type"].as_str().map(str::to_owned);
    let kinds: Option<Vec<String>> = list.iter().map(kind).collect();
    kinds
        .filter(|k| !k.is_empty())
        .ok_or_else(|| "a plugin has no type".to_owned())
}

fn hosts(hosts: &str) -> Finding {
    let lines = hosts
        .lines()
        .map(|l| l.split('#').next().unwrap_or_default());
    match lines
        .flat_map(str::split_whitespace)
        .any(|w| w == "localhost")
    {
        true => Finding::ok("hosts", "/etc/hosts names localhost"),
        false => Finding::warning(
            "hosts",
            [
                "/etc/hosts does not name localhost",
                "health checks by that name fail",
                "a line: 127.0.0.1 localhost",
            ],
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn resolv_conf_with_a_loopback_server_is_told_with_the_way_out() {
        let judge = |text: &str| resolv_conf("/x", Some(text.to_owned()));
        let stub = judge("nameserver 127.0.0.53\noptions edns0");
        assert_eq!(stub.verdict, Verdict::Warning);
        assert!(stub.remedy.contains("/run/systemd/resolve/resolv.conf"));
        assert_eq!(judge("nameserver 10.0.0.1\n").verdict, Verdict::Ok);
        assert_eq!(judge("search a\n").verdict, Verdict::Warning);
        assert_eq!(resolv_conf("/x", None).verdict, Verdict::Warning);
    }

    #[test]
    fn default_route_may_be_of_either_family() {
        let v4 = "Iface Destination\neth0 00000000 0100000A 0003";
        assert_eq!(default_route(v4, "").verdict, Verdict::Ok);
        assert_eq!(
            default_route("Iface\neth0 0000000A", "").verdict,
            Verdict::Warning
        );
        let lo = "00 00 00 00 00 ffffffff 00000001 00000000 00200200 lo";
        assert_eq!(default_route("", lo).verdict, Verdict::Warning);
    }

    #[test]
    fn plugins_of_lists_and_single_configurations_are_found() {
        let list = r#"{"plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#;
        assert_eq!(plugins(list).unwrap(), ["flannel", "portmap"]);
        assert_eq!(plugins(r#"{"type": "ptp"}"#).unwrap(), ["ptp"]);
        assert!(plugins("{").is_err());
        assert!(plugins(r#"{"plugins": [{}]}"#).is_err());
    }

    #[test]
    fn cni_plugin_that_is_not_there_is_named() {
        let dir = std::env::temp_dir().join(format!("lighter-doctor-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(cni(&dir, &[]).verdict, Verdict::Ok);
        std::fs::write(
            dir.join("10-a.conflist"),
            r#"{"plugins":[{"type":"flannel"},{"type":"portmap"}]}"#,
        )
        .unwrap();
        let missing = cni(&dir, std::slice::from_ref(&dir));
        assert!(
            missing.verdict == Verdict::Error && missing.seen.ends_with("wants flannel"),
            "{missing:?}"
        );
        std::fs::write(dir.join("flannel"), "").unwrap();
        assert_eq!(cni(&dir, std::slice::from_ref(&dir)).verdict, Verdict::Ok);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
