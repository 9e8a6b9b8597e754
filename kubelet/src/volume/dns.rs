//! The pod's resolv.conf.
//! Rules: kubernetes v1.36 pkg/kubelet/network/dns/dns.go; limits:
//! pkg/apis/core/validation `MaxDNSNameservers`, `MaxDNSSearchPaths`,
//! `MaxDNSSearchListChars`.

use cri_proto::v1::DnsConfig;
use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodDNSConfigOption};
use std::path::PathBuf;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
/// dns.go `defaultDNSOptions`.
const CLUSTER_OPTION: &str = "ndots:5";

/// The node's settings (KubeletConfiguration clusterDNS, clusterDomain, resolvConf).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DnsSettings {
    /// Nameservers of the cluster.
    pub cluster_dns: Vec<String>,
    /// Domain of the cluster, without a dot at the end.
    pub cluster_domain: String,
    /// The node's resolv.conf; empty means that Default pods get 127.0.0.1.
    pub resolv_conf: PathBuf,
}

/// What a resolv.conf says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// Words of the last `search` line.
    pub searches: Vec<String>,
    /// Words of all `options` lines.
    pub options: Vec<String>,
}

/// A remark for the pod's events: reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// `MissingClusterDNS` or `DNSConfigForming`.
    pub reason: &'static str,
    /// Whole sentence.
    pub message: String,
}

/// Reads a resolv.conf; what it doesn't know it skips, as resolvers do.
#[must_use]
pub fn parse(text: &str) -> ResolvConf {
    let mut seen = ResolvConf::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => seen.nameservers.extend(words.next()),
            Some("search") => seen.searches = words.map(without_dot).collect(),
            Some("options") => {
                for option in words {
                    push_new(&mut seen.options, option);
                }
            }
            _ => {}
        }
    }
    seen
}

/// "." alone is a search path, "example.org." is not.
fn without_dot(word: String) -> String {
    match word.strip_suffix('.') {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => word,
    }
}

/// The pod's DNS configuration, cut to what resolvers accept.
#[must_use]
pub fn config(pod: &Pod, settings: &DnsSettings, host: &ResolvConf) -> (DnsConfig, Vec<Remark>) {
    let mut remarks = Vec::new();
    let mut config = match origin(pod) {
        Origin::Nothing => DnsConfig::default(),
        Origin::Cluster if !settings.cluster_dns.is_empty() => of_cluster(pod, settings, host),
        Origin::Cluster => {
            remarks.push(missing_cluster_dns(pod));
            of_host(host)
        }
        Origin::Host if settings.resolv_conf.as_os_str().is_empty() => of_nowhere(),
        Origin::Host => of_host(host),
    };
    if let Some(own) = pod.spec.as_ref().and_then(|s| s.dns_config.as_ref()) {
        append(&mut config, own);
    }
    fit(&mut config, &mut remarks);
    (config, remarks)
}

enum Origin {
    Cluster,
    Host,
    Nothing,
}

fn origin(pod: &Pod) -> Origin {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
    match spec.and_then(|s| s.dns_policy.as_deref()) {
        Some("None") => Origin::Nothing,
        Some("Default") => Origin::Host,
        Some("ClusterFirstWithHostNet") => Origin::Cluster,
        _ if host_network => Origin::Host,
        _ => Origin::Cluster,
    }
}

fn of_cluster(pod: &Pod, settings: &DnsSettings, host: &ResolvConf) -> DnsConfig {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let domain = settings.cluster_domain.as_str();
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches.push(format!("{namespace}.svc.{domain}"));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.to_owned());
    }
    for search in &host.searches {
        push_new(&mut searches, search.clone());
    }
    DnsConfig {
        servers: settings.cluster_dns.clone(),
        searches,
        options: vec![CLUSTER_OPTION.to_owned()],
    }
}

fn of_host(host: &ResolvConf) -> DnsConfig {
    DnsConfig {
        servers: host.nameservers.clone(),
        searches: host.searches.clone(),
        options: host.options.clone(),
    }
}

/// resolvConf set to "": names are not to be looked up anywhere.
fn of_nowhere() -> DnsConfig {
    DnsConfig {
        servers: vec!["127.0.0.1".to_owned()],
        searches: vec![".".to_owned()],
        options: Vec::new(),
    }
}

fn append(config: &mut DnsConfig, own: &PodDNSConfig) {
    for server in own.nameservers.iter().flatten() {
        push_new(&mut config.servers, server.clone());
    }
    for search in own.searches.iter().flatten() {
        push_new(&mut config.searches, search.clone());
    }
    for option in own.options.iter().flatten() {
        merge_option(&mut config.options, option);
    }
}

/// A pod's option replaces the one of the same name.
fn merge_option(options: &mut Vec<String>, own: &PodDNSConfigOption) {
    let Some(name) = own.name.as_deref() else {
        return;
    };
    options.retain(|o| o.split(':').next() != Some(name));
    options.push(match own.value.as_deref() {
        Some(value) if !value.is_empty() => format!("{name}:{value}"),
        _ => name.to_owned(),
    });
}

fn fit(config: &mut DnsConfig, remarks: &mut Vec<Remark>) {
    if config.servers.len() > MAX_NAMESERVERS {
        config.servers.truncate(MAX_NAMESERVERS);
        remarks.push(forming("Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is", &config.servers));
    }
    let asked = config.searches.len();
    config.searches.truncate(MAX_SEARCH_PATHS);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    if config.searches.len() < asked {
        remarks.push(forming("Search Line limits were exceeded, some search paths have been omitted, the applied search line is", &config.searches));
    }
}

fn forming(what: &str, applied: &[String]) -> Remark {
    Remark {
        reason: "DNSConfigForming",
        message: format!("{what}: {}", applied.join(" ")),
    }
}

fn missing_cluster_dns(pod: &Pod) -> Remark {
    let policy = pod.spec.as_ref().and_then(|s| s.dns_policy.as_deref());
    Remark {
        reason: "MissingClusterDNS",
        message: format!(
            "kubelet does not have ClusterDNS IP configured and cannot create Pod using {:?} policy. Falling back to \"Default\" policy.",
            policy.unwrap_or("ClusterFirst")
        ),
    }
}

fn push_new(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn settings() -> DnsSettings {
        DnsSettings {
            cluster_dns: vec!["10.96.0.10".into()],
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }

    fn pod(policy: &str, host_network: bool, own: Option<PodDNSConfig>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("ns".into());
        pod.spec = Some(PodSpec {
            dns_policy: Some(policy.into()),
            host_network: Some(host_network),
            dns_config: own,
            ..PodSpec::default()
        });
        pod
    }

    fn host() -> ResolvConf {
        parse("# of the node\nnameserver 192.0.2.1\nsearch example.org. .\noptions edns0 ndots:2\n")
    }

    #[test]
    fn parse_reads_the_three_keywords_and_drops_the_final_dot() {
        let seen = host();
        assert_eq!(seen.nameservers, ["192.0.2.1"]);
        assert_eq!(seen.searches, ["example.org", "."]);
        assert_eq!(seen.options, ["edns0", "ndots:2"]);
    }

    #[test]
    fn cluster_first_searches_namespace_then_services_then_domain_then_the_hosts() {
        let (config, remarks) = config(&pod("ClusterFirst", false, None), &settings(), &host());
        assert_eq!(config.servers, ["10.96.0.10"]);
        assert_eq!(
            config.searches,
            [
                "ns.svc.cluster.local",
                "svc.cluster.local",
                "cluster.local",
                "example.org",
                "."
            ]
        );
        assert_eq!(config.options, ["ndots:5"]);
        assert!(remarks.is_empty());
    }

    #[test]
    fn cluster_first_means_the_host_when_the_pod_has_its_network() {
        let (seen, _) = config(&pod("ClusterFirst", true, None), &settings(), &host());
        assert_eq!(seen.servers, ["192.0.2.1"]);
        let (seen, _) = config(
            &pod("ClusterFirstWithHostNet", true, None),
            &settings(),
            &host(),
        );
        assert_eq!(seen.servers, ["10.96.0.10"]);
    }

    #[test]
    fn cluster_first_falls_back_with_a_remark_when_there_is_no_cluster_dns() {
        let none = DnsSettings {
            cluster_dns: vec![],
            ..settings()
        };
        let (seen, remarks) = config(&pod("ClusterFirst", false, None), &none, &host());
        assert_eq!(seen.servers, ["192.0.2.1"]);
        assert_eq!(remarks[0].reason, "MissingClusterDNS");
    }

    #[test]
    fn none_holds_only_what_the_pod_says() {
        let own = PodDNSConfig {
            nameservers: Some(vec!["1.1.1.1".into()]),
            searches: Some(vec!["a.b".into()]),
            options: Some(vec![PodDNSConfigOption {
                name: Some("ndots".into()),
                value: Some("1".into()),
            }]),
        };
        let (seen, _) = config(&pod("None", false, Some(own.clone())), &settings(), &host());
        assert_eq!(
            (seen.servers, seen.options),
            (vec!["1.1.1.1".to_owned()], vec!["ndots:1".to_owned()])
        );
        let (seen, _) = config(&pod("ClusterFirst", false, Some(own)), &settings(), &host());
        assert_eq!(
            seen.options,
            ["ndots:1"],
            "the pod's ndots replaces the cluster's"
        );
        assert_eq!(seen.servers, ["10.96.0.10", "1.1.1.1"]);
    }

    #[test]
    fn limits_cut_and_say_what_is_left() {
        let own = PodDNSConfig {
            nameservers: Some((1..=4).map(|i| format!("1.1.1.{i}")).collect()),
            searches: Some((0..40).map(|i| format!("s{i}")).collect()),
            options: None,
        };
        let (seen, remarks) = config(&pod("None", false, Some(own)), &settings(), &host());
        assert_eq!((seen.servers.len(), seen.searches.len()), (3, 32));
        assert_eq!(remarks.len(), 2);
        assert!(remarks[0].message.ends_with("is: 1.1.1.1 1.1.1.2 1.1.1.3"));
    }

    #[test]
    fn search_line_is_cut_at_2048_characters() {
        let own = PodDNSConfig {
            searches: Some((0..20).map(|i| format!("{i:0>200}")).collect()),
            ..PodDNSConfig::default()
        };
        let (seen, _) = config(&pod("None", false, Some(own)), &settings(), &host());
        assert_eq!(seen.searches.len(), 10);
    }
}
