//! busybox 1.37, static, as upstream released it: Debian has the source.
//!
//! Debian's own build won't do. Its static shell runs applets from inside, so that a masked
//! `/bin/ls` still runs; it has neither `pgrep` nor `ipcs`; and a patch of Debian's makes the
//! shell drop variables with names like `data-1`, which ConfigMaps have.

use crate::cache::{self, Cache};
use crate::progress::step;
use crate::{command, debian, requirement};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What differs from `make defconfig`. `tc` wants kernel headers that Linux no longer has.
const CONFIG: [(&str, &str); 2] = [
    ("# CONFIG_STATIC is not set", "CONFIG_STATIC=y"),
    ("CONFIG_TC=y", "# CONFIG_TC is not set"),
];

/// The program, built once.
pub fn program(cache: &Cache) -> Result<PathBuf> {
    let source = debian::source(cache, "busybox")?;
    let entry = cache.entry("peers", "busybox", &key(&source)?, |dir| {
        requirement::c_tools(cache)?;
        println!("  building busybox (once; a minute or two)");
        step("built busybox", || build(&source, dir))
    })?;
    Ok(entry.join("busybox"))
}

/// Names a build: the source's version and our configuration.
pub fn key(source: &Path) -> Result<String> {
    let archive = archive(source, ".dsc")?;
    let version = archive.file_name().unwrap_or_default().to_string_lossy();
    let config = format!("{CONFIG:?}");
    Ok(cache::key(&[version.as_bytes(), config.as_bytes()]))
}

fn build(source: &Path, dir: &Path) -> Result<()> {
    let tree = dir.join("tree");
    fs::create_dir(&tree)?;
    unpack(&archive(source, ".orig.tar.bz2")?, &tree)?;
    make(&tree, &["defconfig"])?;
    configure(&tree.join(".config"))?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    make(&tree, &[&format!("-j{jobs}"), "busybox"])?;
    fs::rename(tree.join("busybox"), dir.join("busybox"))?;
    fs::remove_dir_all(&tree).context("remove busybox's source")
}

fn archive(source: &Path, ending: &str) -> Result<PathBuf> {
    let mut entries = fs::read_dir(source)?.flatten().map(|e| e.path());
    entries
        .find(|p| p.to_string_lossy().ends_with(ending))
        .with_context(|| format!("no *{ending} in {}", source.display()))
}

fn unpack(archive: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(archive).arg("-C").arg(to);
    command::run(tar.arg("--strip-components=1"))?;
    Ok(())
}

fn configure(file: &Path) -> Result<()> {
    let mut text = fs::read_to_string(file)?;
    for (from, to) in CONFIG {
        anyhow::ensure!(text.contains(from), "busybox's configuration has no {from}");
        text = text.replace(from, to);
    }
    Ok(fs::write(file, text)?)
}

fn make(tree: &Path, targets: &[&str]) -> Result<()> {
    let mut make = Command::new("nice");
    command::run(make.arg("make").args(targets).current_dir(tree))?;
    Ok(())
}
