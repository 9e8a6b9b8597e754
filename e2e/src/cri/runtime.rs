//! Starting the runtime of a stand: ours, or containerd with runc.

use super::Stand;
use crate::cluster::{Bed, registry};
use crate::image::catalog;
use crate::node::{Maker, lighter, stock};
use crate::progress;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

/// Pods' addresses; nobody else is on the machine's network.
const POD_CIDR: &str = "10.88.0.0/16";

pub fn start(bed: &Bed, stand: &Stand, program: Option<&Path>) -> Result<()> {
    registry::configure_mirrors(&stand.machine, "/etc/containerd/certs.d")?;
    match stand.kind.runtime() {
        Maker::Lighter => ours(bed, stand, program),
        Maker::Stock => containerd(bed, stand),
    }
}

fn ours(bed: &Bed, stand: &Stand, program: Option<&Path>) -> Result<()> {
    let program = lighter::program_path(bed, program)?;
    stand.machine.install(&program, "lighter")?;
    serve(stand, "lighter", &flags(stand))
}

fn flags(stand: &Stand) -> [String; 3] {
    [
        "runtime".to_owned(),
        format!("--cgroup-root=/{}", stand.machine.cgroup),
        format!("--pod-cidr={POD_CIDR}"),
    ]
}

/// Ours again, which is installed.
pub fn spawn(stand: &Stand) -> Result<Child> {
    let mut command = stand.machine.command("lighter");
    stand.machine.spawn("lighter", command.args(flags(stand)))
}

fn containerd(bed: &Bed, stand: &Stand) -> Result<()> {
    stock::install_runtime(bed, &stand.machine)?;
    registry::push(bed, &stand.machine, &[catalog::PAUSE])?;
    let conflist = stock::conflist(POD_CIDR);
    stand
        .machine
        .write("/etc/cni/net.d/10-bridge.conflist", &conflist)?;
    serve(stand, "containerd", &[])
}

/// Returns when the runtime answers.
fn serve(stand: &Stand, program: &str, flags: &[String]) -> Result<()> {
    let process = stand.machine.start(program, flags)?;
    progress::wait_for(program, Duration::from_secs(20), || {
        if !process.is_alive() {
            bail!("{}", stand.machine.last_words(program));
        }
        if !stand.machine.path(stand.kind.socket()).exists() {
            return Ok(None);
        }
        let answer = stand.crictl().arg("version").output()?;
        Ok(answer.status.success().then_some(()))
    })
}
