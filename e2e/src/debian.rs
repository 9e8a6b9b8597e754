//! Debian packages as files, from a suite of our choice whatever the host runs.
//!
//! Images are made of them. apt works here on state of its own under the cache; nothing is
//! installed and the host's apt is left alone.

use crate::cache::{self, Cache};
use crate::command;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian 13: its busybox is 1.37, whose `sh` keeps variables with names like `data-1`.
pub const SUITE: &str = "trixie";

/// The package's `.deb`, downloaded once.
pub fn package(cache: &Cache, name: &str) -> Result<PathBuf> {
    let pool = cache.dir("debian/pool")?;
    if let Some(deb) = find(&pool, name) {
        return Ok(deb);
    }
    let state = cache.dir("debian")?;
    let _lock = cache::lock(&state.join(".pool.lock"))?;
    if let Some(deb) = find(&pool, name) {
        return Ok(deb);
    }
    let hint = || format!("download Debian package {name} ({SUITE}); is deb.debian.org reachable?");
    if !state.join("lists/partial").exists() {
        prepare(&state)?;
        let update = command::run(apt(&state).args(["-q", "update"])).with_context(hint);
        if update.is_err() {
            let _ = fs::remove_dir_all(state.join("lists"));
        }
        update?;
    }
    let partial = pool.join(".partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    command::run(
        apt(&state)
            .args(["-q", "download", name])
            .current_dir(&partial),
    )
    .with_context(hint)?;
    let Some(deb) = find(&partial, name) else {
        bail!("apt-get download {name}: left no file")
    };
    let to = pool.join(deb.file_name().context("no file name")?);
    fs::rename(&deb, &to)?;
    Ok(to)
}

/// The package's files as an uncompressed tar, paths starting with "./".
pub fn files(deb: &Path) -> Result<Vec<u8>> {
    let output = command::output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb))?;
    if !output.status.success() {
        bail!(
            "dpkg-deb --fsys-tarfile {}: {}",
            deb.display(),
            output.status
        );
    }
    Ok(output.stdout)
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let prefix = format!("{name}_");
    let entries = fs::read_dir(dir).ok()?.flatten();
    entries.map(|e| e.path()).find(|p| {
        let file = p.file_name().unwrap_or_default().to_string_lossy();
        file.starts_with(&prefix) && file.ends_with(".deb")
    })
}

fn prepare(state: &Path) -> Result<()> {
    for dir in ["lists/partial", "archives/partial", "etc"] {
        fs::create_dir_all(state.join(dir))?;
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let source = format!(
        "deb [signed-by={keyring}] http://deb.debian.org/debian {SUITE} main\n\
         deb [signed-by={keyring}] http://deb.debian.org/debian-security {SUITE}-security main\n"
    );
    fs::write(state.join("etc/sources.list"), source)?;
    fs::write(state.join("status"), "")?;
    Ok(())
}

fn apt(state: &Path) -> Command {
    let mut apt = Command::new("apt-get");
    let mut set = |key: &str, value: String| {
        apt.arg("-o").arg(format!("{key}={value}"));
    };
    set(
        "Dir::State::lists",
        state.join("lists").display().to_string(),
    );
    set(
        "Dir::State::status",
        state.join("status").display().to_string(),
    );
    set("Dir::Cache", state.display().to_string());
    set(
        "Dir::Cache::archives",
        state.join("archives").display().to_string(),
    );
    set(
        "Dir::Etc::sourcelist",
        state.join("etc/sources.list").display().to_string(),
    );
    set("Dir::Etc::sourceparts", "-".into());
    // The sandbox user _apt can't write below root's home.
    set("APT::Sandbox::User", "root".into());
    apt
}
