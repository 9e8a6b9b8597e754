//! What critest needs on a machine that the bed does not make: one in QEMU.

use super::{binary, images};
use crate::cluster::{Bed, registry as served};
use crate::image::{registry, stored};
use crate::peer;
use anyhow::{Context, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes `critest`, the `registry`'s storage and `certs.d` into `dir`.
pub fn export(bed: &Bed, dir: &Path) -> Result<()> {
    let inputs = bed.image_inputs();
    for image in &images::ALL {
        stored::write(&inputs, &dir.join("registry"), image)?;
    }
    let program = peer::path(&bed.cache, &bed.peers(), &peer::CRITEST)?;
    let digest = registry::digest(&inputs, &images::DIGEST)?;
    let changed = binary::with_digest(fs::read(program)?, &digest)?;
    let critest = dir.join("critest");
    fs::write(&critest, changed).with_context(|| format!("write {}", critest.display()))?;
    fs::set_permissions(&critest, fs::Permissions::from_mode(0o755))?;
    for host in served::MIRRORED {
        let of_host = dir.join("certs.d").join(host);
        fs::create_dir_all(&of_host)?;
        fs::write(
            of_host.join("hosts.toml"),
            served::hosts_toml(served::ADDRESS),
        )?;
    }
    Ok(())
}
