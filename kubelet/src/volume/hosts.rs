//! The pod's /etc/hosts.
//! Form: kubernetes v1.36 pkg/kubelet/kubelet_pods.go `managedHostsFileContent`.

use super::hostname::PodHostname;
use k8s_openapi::api::core::v1::HostAlias;
use std::fmt::Write as _;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const HEADER_ALIASES: &str = "\n# Entries added by HostAliases.\n";
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n\
     ::1\tlocalhost ip6-localhost ip6-loopback\n\
     fe00::0\tip6-localnet\n\
     fe00::0\tip6-mcastprefix\n\
     fe00::1\tip6-allnodes\n\
     fe00::2\tip6-allrouters\n";

/// The file of a pod with a network of its own.
#[must_use]
pub fn managed(pod_ips: &[String], name: &PodHostname, aliases: &[HostAlias]) -> String {
    let mut text = format!("{HEADER}{LOOPBACK}");
    for ip in pod_ips {
        let _ = match name.fqdn() {
            Some(fqdn) => writeln!(text, "{ip}\t{fqdn}\t{}", name.hostname),
            None => writeln!(text, "{ip}\t{}", name.hostname),
        };
    }
    append_aliases(&mut text, aliases);
    text
}

/// The file of a hostNetwork pod: the node's, and the aliases.
#[must_use]
pub fn of_host(node_file: &str, aliases: &[HostAlias]) -> String {
    let mut text = format!("{HEADER_HOST_NETWORK}{node_file}");
    append_aliases(&mut text, aliases);
    text
}

fn append_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str(HEADER_ALIASES);
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(domain: Option<&str>) -> PodHostname {
        PodHostname {
            hostname: "web-0".into(),
            domain: domain.map(Into::into),
        }
    }

    #[test]
    fn managed_file_names_the_pod_by_each_of_its_ips() {
        let ips = ["10.1.0.7".to_owned(), "fd00::7".to_owned()];
        let text = managed(&ips, &name(None), &[]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("fe00::2\tip6-allrouters\n10.1.0.7\tweb-0\nfd00::7\tweb-0\n"));
    }

    #[test]
    fn managed_file_puts_the_fqdn_first_when_the_pod_has_a_subdomain() {
        let ips = ["10.1.0.7".to_owned()];
        let text = managed(&ips, &name(Some("web.ns.svc.cluster.local")), &[]);
        assert!(text.ends_with("10.1.0.7\tweb-0.web.ns.svc.cluster.local\tweb-0\n"));
    }

    #[test]
    fn aliases_follow_their_header_in_both_files() {
        let aliases = [HostAlias {
            ip: "123.45.67.89".into(),
            hostnames: Some(vec!["foo".into(), "bar".into()]),
        }];
        let tail = "\n# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar\n";
        assert!(managed(&[], &name(None), &aliases).ends_with(tail));
        let of_host = of_host("127.0.0.1\tlocalhost\n", &aliases);
        assert_eq!(
            of_host,
            format!(
                "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n{tail}"
            )
        );
    }
}
