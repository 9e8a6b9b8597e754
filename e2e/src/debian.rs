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

/// Debian 13, whatever the host runs.
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
    refresh(&state).with_context(|| hint(name))?;
    let partial = pool.join(".partial");
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial)?;
    command::run(
        apt(&state)
            .args(["-q", "download", name])
            .current_dir(&partial),
    )
    .with_context(|| hint(name))?;
    let Some(deb) = find(&partial, name) else {
        bail!("apt-get download {name}: left no file")
    };
    let to = pool.join(deb.file_name().context("no file name")?);
    fs::rename(&deb, &to)?;
    Ok(to)
}

/// A directory with the package's source as Debian keeps it: what upstream released, and
/// Debian's changes; downloaded once.
pub fn source(cache: &Cache, name: &str) -> Result<PathBuf> {
    cache.entry("debian/source", name, SUITE, |dir| {
        let state = cache.dir("debian")?;
        let _lock = cache::lock(&state.join(".pool.lock"))?;
        refresh(&state).with_context(|| hint(name))?;
        let mut source = apt(&state);
        source.args(["-q", "source", "--download-only", name]);
        command::run(source.current_dir(dir)).with_context(|| hint(name))?;
        Ok(())
    })
}

fn hint(name: &str) -> String {
    format!("download Debian package {name} ({SUITE}); is deb.debian.org reachable?")
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

/// Fetches the suite's lists, unless those of the same sources are there.
fn refresh(state: &Path) -> Result<()> {
    let (wanted, done) = (sources(), state.join("lists.of"));
    if fs::read_to_string(&done).is_ok_and(|d| d == wanted) {
        return Ok(());
    }
    for dir in ["lists/partial", "archives/partial", "etc"] {
        fs::create_dir_all(state.join(dir))?;
    }
    fs::write(state.join("etc/sources.list"), &wanted)?;
    fs::write(state.join("status"), "")?;
    command::run(apt(state).args(["-q", "update"]))?;
    // Last: a download that was cut off is made again.
    Ok(fs::write(done, wanted)?)
}

fn sources() -> String {
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let debian = "http://deb.debian.org/debian";
    format!(
        "deb [signed-by={keyring}] {debian} {SUITE} main\n\
         deb-src [signed-by={keyring}] {debian} {SUITE} main\n\
         deb [signed-by={keyring}] {debian}-security {SUITE}-security main\n"
    )
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
