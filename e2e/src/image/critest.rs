//! The images critest v1.36.0 names, under the names it gives them.
//!
//! What each must hold is in cri-tools' `images/` and `pkg/validate/consts.go`. Specs compare
//! image ids, so images that stand apart there differ by an empty file here.

use super::catalog::{self, BASE, BUSYBOX, BUSYBOX_IMAGE};
use super::{Entry, IMAGE, Image, Layer};
use crate::peer;

/// busybox with an empty file at its root.
macro_rules! marked {
    ($file:literal, $($name:literal),+) => {
        Image {
            names: &[$($name),+],
            layers: &[BASE, BUSYBOX, Layer::Entries(&[Entry::File { path: $file, mode: 0o644, content: "" }])],
            ..BUSYBOX_IMAGE
        }
    };
}

/// The one whose digest stands in the test binary.
pub const DIGEST: Image = marked!(
    "test-image-digest",
    "gcr.io/k8s-staging-cri-tools/test-image-digest:latest"
);

/// `sh -c ls` must find the file `/bin/ls`, and `pgrep`, `ipcs` and `brctl` must be there.
const DEFAULT: Image = marked!(
    "busybox-1.29-2",
    "registry.k8s.io/e2e-test-images/busybox:1.29-2"
);

const NGINX: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/nginx:1.14-2"],
    ..catalog::NGINX
};

/// Runs in the host's network, on the port that the spec asks for.
const HOST_NETWORK_NGINX: Image = Image {
    names: &["gcr.io/k8s-staging-cri-tools/hostnet-nginx-amd64:latest"],
    cmd: &[
        "sh",
        "-c",
        "sed -i 's/listen 80/listen 12003/' /etc/nginx/conf.d/default.conf \
         && exec nginx -g 'daemon off;'",
    ],
    ..catalog::NGINX
};

/// A web server whose log says "httpd".
const HTTPD: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/httpd:2.4.39-4"],
    layers: &[
        BASE,
        BUSYBOX,
        Layer::Entries(&[
            Entry::Dir {
                path: "www",
                mode: 0o755,
            },
            Entry::File {
                path: "www/index.html",
                mode: 0o644,
                content: "It works!\n",
            },
        ]),
    ],
    cmd: &[
        "sh",
        "-c",
        "echo 'httpd: serving /www on port 80'; exec httpd -f -p 80 -h /www",
    ],
    ..IMAGE
};

const NO_NEW_PRIVILEGES: Image = Image {
    names: &["registry.k8s.io/e2e-test-images/nonewprivs:1.3"],
    layers: &[
        BASE,
        BUSYBOX,
        Layer::Entries(&[Entry::CProgram {
            path: "usr/local/bin/nnp",
            mode: 0o6755,
            source: "nnp.c",
        }]),
    ],
    cmd: &["nnp"],
    ..IMAGE
};

/// Specs remove it: a runtime's own pause image must not have the same id.
const PAUSE: Image = Image {
    names: &["registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"],
    layers: &[Layer::Entries(&[
        Entry::Program {
            path: "pause",
            peer: peer::PAUSE,
        },
        Entry::File {
            path: "3.9",
            mode: 0o644,
            content: "",
        },
    ])],
    ..catalog::PAUSE
};

const PREDEFINED_GROUP: Image = Image {
    names: &["gcr.io/k8s-staging-cri-tools/test-image-predefined-group:latest"],
    layers: &[
        BASE,
        BUSYBOX,
        Layer::Entries(&[
            Entry::File {
                path: "etc/passwd",
                mode: 0o644,
                content: "root:x:0:0:root:/root:/bin/sh\n\
                          default-user:x:1000:1000::/home/default-user:/bin/sh\n",
            },
            Entry::File {
                path: "etc/group",
                mode: 0o644,
                content: "root:x:0:\ndefault-user:x:1000:\n\
                          group-defined-in-image:x:50000:default-user\n",
            },
        ]),
    ],
    user: "1000",
    ..BUSYBOX_IMAGE
};

/// Everything that critest pulls, its benchmarks included.
pub const ALL: [Image; 20] = [
    DIGEST,
    DEFAULT,
    NGINX,
    HOST_NETWORK_NGINX,
    HTTPD,
    NO_NEW_PRIVILEGES,
    PAUSE,
    PREDEFINED_GROUP,
    marked!("test", "gcr.io/k8s-staging-cri-tools/test-image-tag:test"),
    marked!("all", "gcr.io/k8s-staging-cri-tools/test-image-tag:all"),
    marked!(
        "test-image-latest",
        "gcr.io/k8s-staging-cri-tools/test-image-latest:latest"
    ),
    marked!(
        "test-image-1",
        "gcr.io/k8s-staging-cri-tools/test-image-1:latest"
    ),
    marked!(
        "test-image-2",
        "gcr.io/k8s-staging-cri-tools/test-image-2:latest"
    ),
    marked!(
        "test-image-3",
        "gcr.io/k8s-staging-cri-tools/test-image-3:latest"
    ),
    marked!(
        "same-image",
        "gcr.io/k8s-staging-cri-tools/test-image-tags:1",
        "gcr.io/k8s-staging-cri-tools/test-image-tags:2",
        "gcr.io/k8s-staging-cri-tools/test-image-tags:3"
    ),
    Image {
        names: &["gcr.io/k8s-staging-cri-tools/test-image-user-uid:latest"],
        user: "1002",
        ..BUSYBOX_IMAGE
    },
    Image {
        names: &["gcr.io/k8s-staging-cri-tools/test-image-user-username:latest"],
        user: "www-data",
        ..BUSYBOX_IMAGE
    },
    Image {
        names: &["gcr.io/k8s-staging-cri-tools/test-image-user-uid-group:latest"],
        user: "1003:1004",
        ..BUSYBOX_IMAGE
    },
    Image {
        names: &["gcr.io/k8s-staging-cri-tools/test-image-user-username-group:latest"],
        user: "www-data:1004",
        ..BUSYBOX_IMAGE
    },
    marked!(
        "busybox-1.35.0-glibc",
        "public.ecr.aws/docker/library/busybox:1.35.0-glibc"
    ),
];
