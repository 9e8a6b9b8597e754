//! The images that Kubernetes' own end-to-end tests name (`test/utils/image/manifest.go` of
//! v1.37.2), as far as specs without a cloud need them.
//!
//! What each must hold is in `test/images/` there.

use super::catalog::{BASE, BUSYBOX, BUSYBOX_IMAGE, NGINX};
use super::{Entry, IMAGE, Image, Layer};
use crate::peer;

/// What specs call inside agnhost and the DNS image, with all that it is linked with.
const TOOLS: Layer = Layer::Packages(&[
    "bash",
    "bind9-dnsutils",
    "bind9-host",
    "bind9-libs",
    "curl",
    "iproute2",
    "iptables",
    "libbpf1",
    "libbrotli1",
    "libbsd0",
    "libc-bin",
    "libc6",
    "libcap2",
    "libcap2-bin",
    "libcom-err2",
    "libcurl4t64",
    "libdb5.3t64",
    "libedit2",
    "libelf1t64",
    "libffi8",
    "libfstrm0",
    "libgcc-s1",
    "libgmp10",
    "libgnutls30t64",
    "libgssapi-krb5-2",
    "libhogweed6t64",
    "libidn2-0",
    "libip4tc2",
    "libip6tc2",
    "libjemalloc2",
    "libjson-c5",
    "libk5crypto3",
    "libkeyutils1",
    "libkrb5-3",
    "libkrb5support0",
    "libldap2",
    "liblmdb0",
    "liblzma5",
    "libmaxminddb0",
    "libmd0",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnettle8t64",
    "libnfnetlink0",
    "libnftnl11",
    "libnghttp2-14",
    "libnghttp3-9",
    "libp11-kit0",
    "libpcre2-8-0",
    "libprotobuf-c1",
    "libpsl5t64",
    "libreadline8t64",
    "librtmp1",
    "libsasl2-2",
    "libselinux1",
    "libssh2-1t64",
    "libssl3t64",
    "libstdc++6",
    "libtasn1-6",
    "libtinfo6",
    "libtirpc3t64",
    "libunistring5",
    "liburcu8t64",
    "libuv1t64",
    "libxml2",
    "libxtables12",
    "libzstd1",
    "netbase",
    "netcat-openbsd",
    "zlib1g",
]);

/// The alternatives that the packages' installation would choose.
const ALTERNATIVES: Layer = Layer::Entries(&[
    Entry::Link {
        path: "usr/bin/nc",
        to: "nc.openbsd",
    },
    // A shell that has no `nc` of its own.
    Entry::Link {
        path: "usr/bin/sh",
        to: "bash",
    },
    Entry::Link {
        path: "usr/sbin/iptables",
        to: "xtables-nft-multi",
    },
    Entry::Link {
        path: "usr/sbin/ip6tables",
        to: "xtables-nft-multi",
    },
]);

/// A user with a group that only the image knows: specs about supplemental groups ask for it.
const ACCOUNTS: Layer = Layer::Entries(&[
    Entry::File {
        path: "etc/passwd",
        mode: 0o644,
        content: "root:x:0:0:root:/root:/bin/sh\n\
                  nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
                  user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n",
    },
    Entry::File {
        path: "etc/group",
        mode: 0o644,
        content: "root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\n\
                  group-defined-in-image:x:50000:user-defined-in-image\n",
    },
]);

const AGNHOST_PROGRAM: Layer = Layer::Entries(&[
    Entry::Program {
        path: "agnhost",
        peer: peer::AGNHOST,
    },
    Entry::Link {
        path: "agnhost-2",
        to: "agnhost",
    },
    Entry::Dir {
        path: "uploads",
        mode: 0o755,
    },
    // What it serves HTTPS with.
    Entry::Module {
        path: "localhost.crt",
        peers: "k8s",
        module: "k8s.io/kubernetes",
        file: "test/images/agnhost/porter/localhost.crt",
    },
    Entry::Module {
        path: "localhost.key",
        peers: "k8s",
        module: "k8s.io/kubernetes",
        file: "test/images/agnhost/porter/localhost.key",
    },
]);

pub const AGNHOST: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/agnhost:2.66.1"],
    layers: &[
        BASE,
        BUSYBOX,
        TOOLS,
        ALTERNATIVES,
        ACCOUNTS,
        AGNHOST_PROGRAM,
    ],
    entrypoint: &["/agnhost"],
    cmd: &["pause"],
    ..IMAGE
};

/// Agnhost with one more layer: another image than the one it is updated from or to.
macro_rules! other_agnhost {
    ($name:literal, $($entry:expr),+) => {
        Image {
            names: &[$name],
            layers: &[
                BASE,
                BUSYBOX,
                TOOLS,
                ALTERNATIVES,
                ACCOUNTS,
                AGNHOST_PROGRAM,
                Layer::Entries(&[$($entry),+]),
            ],
            ..AGNHOST
        }
    };
}

const PREVIOUS_AGNHOST: Image = other_agnhost!(
    "registry.k8s.io/e2e-test-images/agnhost:2.55",
    Entry::File {
        path: "2.55",
        mode: 0o644,
        content: "",
    }
);

/// A web server of its own picture; as a volume it must look like an Alpine system.
const KITTEN: Image = Image {
    cmd: &["test-webserver"],
    ..other_agnhost!(
        "registry.k8s.io/e2e-test-images/kitten:1.8",
        Entry::File {
            path: "data.json",
            mode: 0o644,
            content: "{\n  \"image\": \"kitten.jpg\"\n}\n",
        },
        Entry::File {
            path: "etc/os-release",
            mode: 0o644,
            content: "NAME=\"Alpine Linux\"\nID=alpine\n",
        }
    )
};

const NAUTILUS: Image = Image {
    cmd: &["test-webserver"],
    ..other_agnhost!(
        "registry.k8s.io/e2e-test-images/nautilus:1.8",
        Entry::File {
            path: "data.json",
            mode: 0o644,
            content: "{\n  \"image\": \"nautilus.jpg\"\n}\n",
        }
    )
};

const GLIBC_DNS: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/glibc-dns-testing:2.1.1"],
    layers: &[BASE, BUSYBOX, TOOLS, ALTERNATIVES],
    cmd: &["sh"],
    ..IMAGE
};

const NON_ROOT: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/nonroot:1.5"],
    user: "1234",
    ..BUSYBOX_IMAGE
};

const NO_NEW_PRIVILEGES: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/nonewprivs:1.4"],
    layers: &[
        BASE,
        BUSYBOX,
        Layer::Entries(&[Entry::CProgram {
            path: "usr/local/bin/nnp",
            mode: 0o6755,
            source: "nnp.c",
        }]),
    ],
    entrypoint: &["/usr/local/bin/nnp"],
    ..IMAGE
};

const IPC_UTILS: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/ipc-utils:1.4"],
    ..BUSYBOX_IMAGE
};

/// Two that differ, as rolling updates want them.
const OLD_NGINX: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/nginx:1.27.0-2"],
    ..NGINX
};

const NEW_NGINX: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/nginx:1.28.0-2"],
    working_dir: "/usr/share/nginx",
    ..NGINX
};

const ETCD: Image = Image {
    names: &["registry.k8s.io/etcd:3.7.0-0"],
    layers: &[
        BASE,
        Layer::Entries(&[Entry::Program {
            path: "usr/local/bin/etcd",
            peer: peer::ETCD,
        }]),
    ],
    cmd: &["/usr/local/bin/etcd"],
    ..IMAGE
};

const SAMPLE_API_SERVER: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/sample-apiserver:1.29.2"],
    layers: &[
        BASE,
        Layer::Entries(&[Entry::Program {
            path: "sample-apiserver",
            peer: peer::SAMPLE_API_SERVER,
        }]),
    ],
    entrypoint: &["/sample-apiserver"],
    ..IMAGE
};

/// What NodeConformance asks for.
pub const NODE: [Image; 8] = [
    AGNHOST,
    PREVIOUS_AGNHOST,
    GLIBC_DNS,
    NON_ROOT,
    NO_NEW_PRIVILEGES,
    IPC_UTILS,
    KITTEN,
    OLD_NGINX,
];

/// What the rest of Conformance asks for besides.
pub const CLUSTER: [Image; 4] = [NAUTILUS, NEW_NGINX, ETCD, SAMPLE_API_SERVER];

/// What a DRA driver's specs ask for besides: the driver is in e2e.test itself, reached through
/// its pods.
pub const DRA: [Image; 1] = [Image {
    names: &["registry.k8s.io/sig-storage/hostpathplugin:v1.17.1"],
    layers: &[
        BASE,
        BUSYBOX,
        Layer::Entries(&[Entry::Program {
            path: "hostpathplugin",
            peer: peer::SOCKET_PROXY,
        }]),
    ],
    cmd: &["sh"],
    ..IMAGE
}];
