//! The programs of others, built from public Go modules and cached by content.

use crate::cache::{self, Cache};
use crate::{command, progress, requirement};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What one peer is built from. Versions stand in `e2e/peers/<module>/go.mod` alone.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub name: &'static str,
    /// Directory under `e2e/peers` that holds go.mod and go.sum.
    pub module: &'static str,
    /// Package to build; "." is the module's own program.
    pub package: &'static str,
    pub cgo: bool,
    /// A test binary (`go test -c`).
    pub test: bool,
    pub tags: &'static str,
    pub ldflags: &'static str,
}

const GO: Peer = Peer {
    name: "",
    module: "",
    package: ".",
    cgo: false,
    test: false,
    tags: "",
    ldflags: "-s -w",
};

/// Stamps the version that nodes and API servers report.
const K8S_LDFLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.37.2 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37 -X k8s.io/component-base/version.gitTreeState=clean -X k8s.io/client-go/pkg/version.gitVersion=v1.37.2 -X k8s.io/client-go/pkg/version.gitMajor=1 -X k8s.io/client-go/pkg/version.gitMinor=37 -X k8s.io/client-go/pkg/version.gitTreeState=clean";

const K8S: Peer = Peer {
    module: "k8s",
    ldflags: K8S_LDFLAGS,
    ..GO
};
const CONTAINERD: Peer = Peer {
    module: "containerd",
    ldflags: "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.4.2",
    ..GO
};
const CNI: Peer = Peer {
    module: "cni",
    ..GO
};
const CRI_TOOLS: Peer = Peer {
    module: "cri-tools",
    ldflags: "-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=v1.36.0",
    ..GO
};

/// kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kubeadm, kubectl, etcd.
pub const KUBE: Peer = Peer {
    name: "kube",
    ..K8S
};
pub const KUBE_PROXY: Peer = Peer {
    name: "kube-proxy",
    package: "k8s.io/kubernetes/cmd/kube-proxy",
    ..K8S
};
pub const AGNHOST: Peer = Peer {
    name: "agnhost",
    package: "k8s.io/kubernetes/test/images/agnhost",
    ..K8S
};
pub const E2E_TEST: Peer = Peer {
    name: "e2e.test",
    package: "k8s.io/kubernetes/test/e2e",
    test: true,
    ..K8S
};
/// A device plugin of ours.
pub const DEVICE_PLUGIN: Peer = Peer {
    name: "device-plugin",
    package: "./deviceplugin",
    ..K8S
};
/// A CSI driver of ours.
pub const CSI_DRIVER: Peer = Peer {
    name: "csi-driver",
    package: "./csidriver",
    ..K8S
};
/// A DRA driver of ours.
pub const DRA_DRIVER: Peer = Peer {
    name: "dra-driver",
    package: "./dradriver",
    ..K8S
};
/// What upstream's DRA specs run in their driver's pods.
pub const SOCKET_PROXY: Peer = Peer {
    name: "socket-proxy",
    package: "./socketproxy",
    ..K8S
};
/// Asks the pod resources API.
pub const POD_RESOURCES: Peer = Peer {
    name: "pod-resources",
    package: "./podresources",
    ..K8S
};
/// Takes traces, with OpenTelemetry's own code.
pub const COLLECTOR: Peer = Peer {
    name: "collector",
    package: "./collector",
    ..K8S
};
pub const GINKGO: Peer = Peer {
    name: "ginkgo",
    package: "github.com/onsi/ginkgo/v2/ginkgo",
    ..K8S
};
pub const ETCD: Peer = Peer {
    name: "etcd",
    package: "go.etcd.io/etcd/server/v3",
    ..K8S
};
/// What specs put behind the API server as an aggregated one.
pub const SAMPLE_API_SERVER: Peer = Peer {
    name: "sample-apiserver",
    module: "sample-apiserver",
    package: "k8s.io/sample-apiserver",
    ..GO
};
pub const COREDNS: Peer = Peer {
    name: "coredns",
    module: "coredns",
    package: "github.com/coredns/coredns",
    ..GO
};
pub const METRICS_SERVER: Peer = Peer {
    name: "metrics-server",
    module: "metrics-server",
    package: "sigs.k8s.io/metrics-server/cmd/metrics-server",
    ..GO
};
pub const CRICTL: Peer = Peer {
    name: "crictl",
    package: "sigs.k8s.io/cri-tools/cmd/crictl",
    ..CRI_TOOLS
};
pub const CRITEST: Peer = Peer {
    name: "critest",
    package: "sigs.k8s.io/cri-tools/cmd/critest",
    test: true,
    ..CRI_TOOLS
};
/// A later one: it has specs of image volumes too.
pub const CRITEST_NEWER: Peer = Peer {
    name: "critest-newer",
    module: "cri-tools-newer",
    ldflags: "-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version=v1.37.0",
    ..CRITEST
};
pub const RUNC: Peer = Peer {
    name: "runc",
    module: "runc",
    package: "github.com/opencontainers/runc",
    cgo: true,
    tags: "seccomp",
    ..GO
};
/// A C program of ours: the peer's own pause is one too, and a Go one would weigh 1 MB a pod.
pub const PAUSE: Peer = Peer {
    name: "pause",
    module: "pause",
    package: "pause.c",
    cgo: true,
    ..GO
};

/// What a stock node runs beside the kubelet.
pub const STOCK_NODE: [Peer; 8] = [
    Peer {
        name: "containerd",
        package: "github.com/containerd/containerd/v2/cmd/containerd",
        ..CONTAINERD
    },
    Peer {
        name: "containerd-shim-runc-v2",
        package: "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        ..CONTAINERD
    },
    Peer {
        name: "ctr",
        package: "github.com/containerd/containerd/v2/cmd/ctr",
        ..CONTAINERD
    },
    RUNC,
    Peer {
        name: "bridge",
        package: "github.com/containernetworking/plugins/plugins/main/bridge",
        ..CNI
    },
    Peer {
        name: "loopback",
        package: "github.com/containernetworking/plugins/plugins/main/loopback",
        ..CNI
    },
    Peer {
        name: "host-local",
        package: "github.com/containernetworking/plugins/plugins/ipam/host-local",
        ..CNI
    },
    Peer {
        name: "portmap",
        package: "github.com/containernetworking/plugins/plugins/meta/portmap",
        ..CNI
    },
];

/// Everything `bed build --all` makes.
pub const OTHERS: [Peer; 18] = [
    KUBE,
    KUBE_PROXY,
    COREDNS,
    AGNHOST,
    PAUSE,
    METRICS_SERVER,
    CRICTL,
    CRITEST,
    GINKGO,
    E2E_TEST,
    ETCD,
    SAMPLE_API_SERVER,
    DEVICE_PLUGIN,
    CSI_DRIVER,
    POD_RESOURCES,
    COLLECTOR,
    DRA_DRIVER,
    SOCKET_PROXY,
];

/// The path of the peer's program, built if this content was never built before.
pub fn path(cache: &Cache, sources: &Path, peer: &Peer) -> Result<PathBuf> {
    let key = key(sources, peer)?;
    let entry = cache.entry("peers", peer.name, &key, |dir| {
        if peer.package.ends_with(".c") {
            return build_c(sources, peer, dir);
        }
        requirement::go()?;
        if peer.cgo {
            requirement::seccomp_headers(cache)?;
        }
        println!(
            "  building {} (once; minutes when Go's own cache is cold)",
            peer.name
        );
        progress::step(&format!("built {}", peer.name), || {
            build(sources, peer, dir)
        })
    })?;
    Ok(entry.join(peer.name))
}

fn build(sources: &Path, peer: &Peer, dir: &Path) -> Result<()> {
    let mut go = Command::new("nice");
    go.arg("go").args(if peer.test {
        &["test", "-c"][..]
    } else {
        &["build"][..]
    });
    go.args(["-trimpath", "-buildvcs=false", "-ldflags", peer.ldflags]);
    if !peer.tags.is_empty() {
        go.args(["-tags", peer.tags]);
    }
    go.arg("-o").arg(dir.join(peer.name)).arg(peer.package);
    go.current_dir(sources.join(peer.module))
        .env("CGO_ENABLED", if peer.cgo { "1" } else { "0" })
        .env("GOTOOLCHAIN", "local");
    command::run(&mut go).context("the Go module proxy must be reachable, or GOPROXY set")?;
    Ok(())
}

/// Where Go keeps the source of a module, at the version that go.mod in `dir` asks for.
pub fn module_dir(dir: &Path, module: &str) -> Result<PathBuf> {
    requirement::go()?;
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", module]);
    let said = command::run(go.current_dir(dir).env("GOTOOLCHAIN", "local"))?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    let path = said["Dir"].as_str();
    Ok(path
        .with_context(|| format!("no source of {module}"))?
        .into())
}

fn build_c(sources: &Path, peer: &Peer, dir: &Path) -> Result<()> {
    let mut gcc = Command::new("gcc");
    gcc.args(["-Os", "-s", "-static", "-o"])
        .arg(dir.join(peer.name))
        .arg(peer.package);
    command::run(gcc.current_dir(sources.join(peer.module)))?;
    Ok(())
}

/// Same inputs, same key: sources and flags. Other machines and clones then share the entry.
fn key(sources: &Path, peer: &Peer) -> Result<String> {
    let dir = sources.join(peer.module);
    let read = |name: &str| fs::read(dir.join(name)).unwrap_or_default();
    let first = if peer.package.ends_with(".c") {
        peer.package
    } else {
        "go.mod"
    };
    let source =
        fs::read(dir.join(first)).with_context(|| format!("read {}", dir.join(first).display()))?;
    let flags = format!("{peer:?}");
    // A package of ours, beside the module's own program.
    let package = peer
        .package
        .strip_prefix("./")
        .map(|p| read(&format!("{p}/main.go")));
    let mut inputs = vec![source, read("go.sum"), read("main.go"), flags.into_bytes()];
    inputs.extend(package);
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    Ok(cache::key(&inputs))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
    }

    #[test]
    fn every_peer_has_a_module_beside_the_bed() {
        for peer in STOCK_NODE.iter().chain(&OTHERS) {
            key(&sources(), peer).unwrap_or_else(|e| panic!("{}: {e:#}", peer.name));
        }
    }

    #[test]
    fn key_differs_when_the_flags_do() {
        let debug = Peer {
            ldflags: "",
            ..KUBE
        };
        assert_ne!(
            key(&sources(), &KUBE).unwrap(),
            key(&sources(), &debug).unwrap()
        );
    }
}
