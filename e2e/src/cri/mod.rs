//! A CRI runtime alone on a machine, with a registry beside it: what critest and crictl drive.
//!
//! Runtime, registry and tests share the machine's network, as they would on one host; the
//! host itself is not touched.

pub mod gone;
pub mod pods;
mod runtime;

use crate::cluster::{Bed, down, registry};
use crate::image::Image;
use crate::machine::{Machine, network};
use crate::node::{Kind, Maker};
use crate::{cache, cluster, command, peer, requirement};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Two stands of one name can't be up at once.
    pub name: &'a str,
    pub kind: Kind,
    /// The `lighter` program; `None` takes the one beside `bed`.
    pub lighter: Option<&'a Path>,
    /// `/` is a private mount, as on hosts without systemd, instead of a shared one.
    pub private: bool,
    pub images: &'a [Image],
}

#[derive(Debug)]
pub struct Stand {
    pub machine: Machine,
    pub kind: Kind,
    group: String,
    dir: PathBuf,
    _lock: fs::File,
}

impl Stand {
    pub fn up(bed: &Bed, options: &Options) -> Result<Stand> {
        requirement::root()?;
        requirement::host_programs(&bed.cache)?;
        let program = peer::path(&bed.cache, &bed.peers(), &peer::CRICTL)?;
        let lock = cache::lock(&bed.cache.dir("locks")?.join(options.name))?;
        let mut stand = Stand {
            machine: machine(bed, options)?,
            kind: options.kind,
            group: group(options.name),
            dir: dir(bed, options.name),
            _lock: lock,
        };
        stand.machine.ip = registry::HOST.into();
        if options.private {
            stand.machine.run("mount", &["--make-rprivate", "/"])?;
        }
        network::alone(&stand.machine)?;
        registry::start(bed, &stand.machine)?;
        registry::push(bed, &stand.machine, options.images)?;
        stand.machine.install(&program, "crictl")?;
        let endpoint = format!("runtime-endpoint: {}\n", stand.endpoint());
        stand.machine.write("/etc/crictl.yaml", &endpoint)?;
        runtime::start(bed, &stand, options.lighter)?;
        Ok(stand)
    }

    /// What `--runtime-endpoint` is given.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.kind.socket())
    }

    /// Starts our runtime again, whose predecessor has ended; returns at once.
    pub fn start_again(&self) -> Result<Child> {
        runtime::spawn(self)
    }

    /// The runtime's socket as the host sees it.
    pub fn socket(&self) -> PathBuf {
        self.machine.path(self.kind.socket())
    }

    /// crictl on the stand's machine.
    pub fn crictl(&self) -> Command {
        self.machine.command("crictl")
    }

    /// Ends everything on the machine; nothing of it stays.
    pub fn down(self) -> Result<()> {
        if self.kind.runtime() == Maker::Stock {
            // containerd puts containers outside the machine's cgroup, where nobody else finds them.
            command::run(
                self.crictl()
                    .args(["--timeout=30s", "rmp", "--all", "--force"]),
            )?;
        }
        down::remove(&self.group, &self.dir)
    }
}

fn machine(bed: &Bed, options: &Options) -> Result<Machine> {
    let (dir, group) = (dir(bed, options.name), group(options.name));
    // What a run that was killed has left.
    down::remove(&group, &dir)?;
    fs::create_dir_all(&dir)?;
    let program = dir.join("bed");
    fs::copy(&bed.program, &program).context("copy the bed")?;
    Machine::create(
        &program,
        &dir.join("machine"),
        options.name,
        &format!("{group}/machine"),
        true,
    )
}

fn group(name: &str) -> String {
    cluster::cgroup(&format!("cri-{name}"))
}

fn dir(bed: &Bed, name: &str) -> PathBuf {
    bed.cache.root.join("stands").join(name)
}
