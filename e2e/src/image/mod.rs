//! Images made of a few lines of data: Debian packages, peers, files, links.
//!
//! A layer is built once and kept by content; equal inputs give equal bytes, so digests are stable.

pub mod busybox;
pub mod catalog;
pub mod conformance;
pub mod critest;
pub mod layer;
pub mod oci;
pub mod registry;
pub mod stored;

use crate::peer::Peer;

/// One thing put into a layer.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    Dir {
        path: &'static str,
        mode: u32,
    },
    File {
        path: &'static str,
        mode: u32,
        content: &'static str,
    },
    Link {
        path: &'static str,
        to: &'static str,
    },
    /// A peer's program.
    Program {
        path: &'static str,
        peer: Peer,
    },
    /// A file of a Go module that a module of peers depends on.
    Module {
        path: &'static str,
        /// Directory under `e2e/peers` whose go.mod says which version.
        peers: &'static str,
        module: &'static str,
        file: &'static str,
    },
    /// A C program from `e2e/peers/images`, built static; mode may be setuid.
    CProgram {
        path: &'static str,
        mode: u32,
        source: &'static str,
    },
    /// busybox, with every applet as a hard link in `/bin`.
    Busybox,
}

#[derive(Debug, Clone, Copy)]
pub enum Layer {
    /// All files of one Debian package, as they are.
    Debian(&'static str),
    /// The same of several packages, as one layer.
    Packages(&'static [&'static str]),
    Entries(&'static [Entry]),
}

#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// Every name it is pushed under: `host/repository:tag`.
    pub names: &'static [&'static str],
    pub layers: &'static [Layer],
    pub user: &'static str,
    pub entrypoint: &'static [&'static str],
    pub cmd: &'static [&'static str],
    pub working_dir: &'static str,
    pub stop_signal: &'static str,
}

/// What most images share.
pub const IMAGE: Image = Image {
    names: &[],
    layers: &[],
    user: "",
    entrypoint: &[],
    cmd: &[],
    working_dir: "/",
    stop_signal: "",
};
