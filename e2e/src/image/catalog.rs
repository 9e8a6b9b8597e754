//! The images of the bed.

use super::conformance::AGNHOST;
use super::{Entry, IMAGE, Image, Layer};
use crate::peer;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    daemon:x:1:1:daemon:/usr/sbin:/sbin/nologin\n\
    www-data:x:33:33:www-data:/var/www:/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// Accounts, directories, and the links of a merged /usr, which Debian's packages expect.
pub const BASE: Layer = Layer::Entries(&[
    Entry::Link {
        path: "bin",
        to: "usr/bin",
    },
    Entry::Link {
        path: "sbin",
        to: "usr/sbin",
    },
    Entry::Link {
        path: "lib",
        to: "usr/lib",
    },
    Entry::Link {
        path: "lib64",
        to: "usr/lib64",
    },
    Entry::Dir {
        path: "usr/bin",
        mode: 0o755,
    },
    Entry::Dir {
        path: "usr/sbin",
        mode: 0o755,
    },
    Entry::Dir {
        path: "usr/lib",
        mode: 0o755,
    },
    Entry::Dir {
        path: "usr/lib64",
        mode: 0o755,
    },
    Entry::Dir {
        path: "etc",
        mode: 0o755,
    },
    Entry::Dir {
        path: "root",
        mode: 0o700,
    },
    Entry::Dir {
        path: "run",
        mode: 0o755,
    },
    Entry::Dir {
        path: "tmp",
        mode: 0o1777,
    },
    Entry::Dir {
        path: "var/log",
        mode: 0o755,
    },
    Entry::Dir {
        path: "var/tmp",
        mode: 0o1777,
    },
    Entry::Link {
        path: "var/run",
        to: "../run",
    },
    Entry::File {
        path: "etc/passwd",
        mode: 0o644,
        content: PASSWD,
    },
    Entry::File {
        path: "etc/group",
        mode: 0o644,
        content: GROUP,
    },
]);
pub const BUSYBOX: Layer = Layer::Entries(&[Entry::Busybox]);

/// The libraries nginx, iptables and curl-like programs are linked with, per Debian 13.
const LIBC: Layer = Layer::Debian("libc6");

pub const PAUSE: Image = Image {
    names: &["registry.k8s.io/pause:3.10.2"],
    layers: &[Layer::Entries(&[Entry::Program {
        path: "pause",
        peer: peer::PAUSE,
    }])],
    user: "65535:65535",
    entrypoint: &["/pause"],
    ..IMAGE
};

pub const BUSYBOX_IMAGE: Image = Image {
    names: &[
        "docker.io/library/busybox:latest",
        "docker.io/library/busybox:1.37",
        "registry.k8s.io/e2e-test-images/busybox:1.37.0-2",
    ],
    layers: &[BASE, BUSYBOX],
    cmd: &["sh"],
    ..IMAGE
};

pub const NGINX: Image = Image {
    names: &[
        "docker.io/library/nginx:latest",
        "docker.io/library/nginx:1.26",
    ],
    layers: &[
        BASE,
        BUSYBOX,
        LIBC,
        Layer::Debian("libcrypt1"),
        Layer::Debian("libpcre2-8-0"),
        Layer::Debian("libssl3t64"),
        Layer::Debian("libzstd1"),
        Layer::Debian("zlib1g"),
        Layer::Debian("nginx"),
        Layer::Debian("nginx-common"),
        Layer::Entries(&[
            Entry::Dir {
                path: "var/lib/nginx",
                mode: 0o755,
            },
            Entry::Dir {
                path: "var/log/nginx",
                mode: 0o755,
            },
            Entry::Dir {
                path: "etc/nginx/conf.d",
                mode: 0o755,
            },
            Entry::Dir {
                path: "usr/share/nginx/html",
                mode: 0o755,
            },
            Entry::File {
                path: "etc/nginx/nginx.conf",
                mode: 0o644,
                content: NGINX_CONF,
            },
            Entry::File {
                path: "etc/nginx/conf.d/default.conf",
                mode: 0o644,
                content: "server { listen 80; root /usr/share/nginx/html; }\n",
            },
            Entry::File {
                path: "usr/share/nginx/html/index.html",
                mode: 0o644,
                content: "Welcome to nginx!\n",
            },
            Entry::Link {
                path: "var/log/nginx/access.log",
                to: "/dev/stdout",
            },
            Entry::Link {
                path: "var/log/nginx/error.log",
                to: "/dev/stderr",
            },
        ]),
    ],
    cmd: &["nginx", "-g", "daemon off;"],
    ..IMAGE
};

const NGINX_CONF: &str = "user www-data;\nworker_processes 1;\npid /var/run/nginx.pid;\n\
    error_log /dev/stderr notice;\nevents { worker_connections 256; }\n\
    http {\n  include /etc/nginx/mime.types;\n  access_log /dev/stdout;\n  sendfile on;\n  \
    include /etc/nginx/conf.d/*.conf;\n}\n";

pub const COREDNS: Image = Image {
    names: &["registry.k8s.io/coredns/coredns:v1.15.0"],
    layers: &[
        BASE,
        Layer::Entries(&[Entry::Program {
            path: "coredns",
            peer: peer::COREDNS,
        }]),
    ],
    user: "65534:65534",
    entrypoint: &["/coredns"],
    ..IMAGE
};

pub const KUBE_PROXY: Image = Image {
    names: &["registry.k8s.io/kube-proxy:v1.37.2"],
    layers: &[
        BASE,
        BUSYBOX,
        LIBC,
        Layer::Debian("libmnl0"),
        Layer::Debian("libnftnl11"),
        Layer::Debian("libnftables1"),
        Layer::Debian("libnetfilter-conntrack3"),
        Layer::Debian("libnfnetlink0"),
        Layer::Debian("libxtables12"),
        Layer::Debian("libip4tc2"),
        Layer::Debian("libip6tc2"),
        Layer::Debian("libjansson4"),
        Layer::Debian("libgmp10"),
        Layer::Debian("libedit2"),
        Layer::Debian("libtinfo6"),
        Layer::Debian("libbsd0"),
        Layer::Debian("libmd0"),
        Layer::Debian("iptables"),
        Layer::Debian("nftables"),
        Layer::Debian("conntrack"),
        // The alternatives that iptables' installation would choose.
        Layer::Entries(&[
            Entry::Link {
                path: "usr/sbin/iptables",
                to: "xtables-nft-multi",
            },
            Entry::Link {
                path: "usr/sbin/ip6tables",
                to: "xtables-nft-multi",
            },
            Entry::Link {
                path: "usr/sbin/iptables-save",
                to: "xtables-nft-multi",
            },
            Entry::Link {
                path: "usr/sbin/ip6tables-save",
                to: "xtables-nft-multi",
            },
            Entry::Link {
                path: "usr/sbin/iptables-restore",
                to: "xtables-nft-multi",
            },
            Entry::Link {
                path: "usr/sbin/ip6tables-restore",
                to: "xtables-nft-multi",
            },
            Entry::Program {
                path: "usr/local/bin/kube-proxy",
                peer: peer::KUBE_PROXY,
            },
        ]),
    ],
    cmd: &["kube-proxy"],
    ..IMAGE
};

/// What a large application looks like to a runtime that pulls it: 390 MB in 13 layers,
/// programs and many small files.
pub const LARGE: Image = Image {
    names: &["docker.io/library/large:1"],
    layers: &[
        BASE,
        BUSYBOX,
        Layer::Entries(&[Entry::Program {
            path: "opt/kube-proxy",
            peer: peer::KUBE_PROXY,
        }]),
        Layer::Entries(&[Entry::Program {
            path: "opt/coredns",
            peer: peer::COREDNS,
        }]),
        Layer::Entries(&[Entry::Program {
            path: "opt/metrics-server",
            peer: peer::METRICS_SERVER,
        }]),
        Layer::Entries(&[Entry::Program {
            path: "opt/agnhost",
            peer: peer::AGNHOST,
        }]),
        Layer::Entries(&[Entry::Program {
            path: "opt/crictl",
            peer: peer::CRICTL,
        }]),
        Layer::Entries(&[Entry::Program {
            path: "opt/etcd",
            peer: peer::ETCD,
        }]),
        Layer::Debian("perl-modules-5.40"),
        Layer::Debian("libpython3.13-stdlib"),
        Layer::Debian("vim-runtime"),
        Layer::Debian("git"),
        Layer::Debian("binutils-common"),
    ],
    ..IMAGE
};

pub const METRICS_SERVER: Image = Image {
    names: &["registry.k8s.io/metrics-server/metrics-server:v0.9.0"],
    layers: &[
        BASE,
        Layer::Entries(&[Entry::Program {
            path: "metrics-server",
            peer: peer::METRICS_SERVER,
        }]),
    ],
    user: "65534:65534",
    entrypoint: &["/metrics-server"],
    ..IMAGE
};

/// Wants another signal than SIGTERM, as web servers and systemd do.
pub const STOP_SIGNAL: Image = Image {
    names: &["docker.io/library/stop-signal:1"],
    stop_signal: "SIGUSR1",
    ..BUSYBOX_IMAGE
};

/// One that no pod but those of its test has: it is pulled and removed under their feet.
pub const PULLED: Image = Image {
    names: &["docker.io/library/pulled:1"],
    layers: &[
        BASE,
        BUSYBOX,
        Layer::Entries(&[Entry::File {
            path: "etc/pulled",
            mode: 0o644,
            content: "pulled by hand\n",
        }]),
    ],
    ..BUSYBOX_IMAGE
};

/// What `up` puts into the registry.
pub const CLUSTER: [Image; 5] = [PAUSE, BUSYBOX_IMAGE, NGINX, COREDNS, KUBE_PROXY];
/// What the tests want besides.
pub const TESTS: [Image; 4] = [AGNHOST, METRICS_SERVER, STOP_SIGNAL, PULLED];
