//! A pod's hostname and domain.
//! Rules: kubernetes v1.36 pkg/kubelet/kubelet_pods.go `GeneratePodHostNameAndDomain`
//! and pkg/kubelet/util/util.go `GetNodenameForKernel`; hostnameOverride: KEP-4762.

use k8s_openapi::api::core::v1::Pod;

/// DNS-1123 label.
const LABEL_MAX: usize = 63;
/// `__NEW_UTS_LEN` of linux/utsname.h.
const KERNEL_HOSTNAME_MAX: usize = 64;

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodHostname {
    /// `hostname`, or the pod's name cut to 63 bytes.
    pub hostname: String,
    /// `<subdomain>.<namespace>.svc.<cluster domain>`, if it has a subdomain.
    pub domain: Option<String>,
}

impl PodHostname {
    /// `hostname.domain`, if there is a domain.
    #[must_use]
    pub fn fqdn(&self) -> Option<String> {
        let domain = self.domain.as_ref()?;
        Some(format!("{}.{domain}", self.hostname))
    }
}

/// Why a pod can't be named as it wants.
#[derive(Debug, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long (64 characters is the max, {} characters requested)",
    fqdn.len()
)]
pub struct FqdnTooLong {
    /// The name that doesn't fit.
    pub fqdn: String,
}

/// The pod's hostname and domain as DNS and /etc/hosts know them.
#[must_use]
pub fn of(pod: &Pod, cluster_domain: &str) -> PodHostname {
    let spec = pod.spec.as_ref();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some(fixed) = spec.and_then(|s| s.hostname_override.clone()) {
        return PodHostname {
            hostname: fixed,
            domain: None,
        };
    }
    let hostname = match spec.and_then(|s| s.hostname.as_deref()) {
        Some(set) if !set.is_empty() => set.to_owned(),
        _ => cut(name),
    };
    let domain = spec
        .and_then(|s| s.subdomain.as_deref())
        .filter(|s| !s.is_empty())
        .map(|sub| format!("{sub}.{namespace}.svc.{cluster_domain}"));
    PodHostname { hostname, domain }
}

/// What the kernel's hostname of the pod is to be; `None` with hostNetwork
/// (then it is the host's).
///
/// # Errors
/// `setHostnameAsFQDN` and a name of more than 64 bytes.
pub fn for_kernel(pod: &Pod, cluster_domain: &str) -> Result<Option<String>, FqdnTooLong> {
    let spec = pod.spec.as_ref();
    if spec.and_then(|s| s.host_network).unwrap_or(false) {
        return Ok(None);
    }
    let name = of(pod, cluster_domain);
    let as_fqdn = spec.and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    match name.fqdn() {
        Some(fqdn) if as_fqdn && fqdn.len() > KERNEL_HOSTNAME_MAX => Err(FqdnTooLong { fqdn }),
        Some(fqdn) if as_fqdn => Ok(Some(fqdn)),
        _ => Ok(Some(name.hostname)),
    }
}

/// Cut to a label; what the cut leaves at the end must still be a label.
fn cut(name: &str) -> String {
    let end = name.len().min(LABEL_MAX);
    name[..end].trim_end_matches(['-', '.']).to_owned()
}
