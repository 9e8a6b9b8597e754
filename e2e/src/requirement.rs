//! What the machine must have, said in one line each when it lacks it.

use crate::cache::Cache;
use crate::command;
use anyhow::{Context, Result, bail};
use std::process::Command;

pub fn root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the bed makes namespaces and cgroups: run it as root");
    }
    Ok(())
}

/// Go builds the control plane and the peers.
pub fn go() -> Result<()> {
    let version = command::run(Command::new("go").arg("version"))
        .context("Go 1.26.8 or newer must be on PATH (https://go.dev/dl) to build the peers")?;
    let Some(minor) = go_minor(&version) else {
        bail!("go version: not understood: {version}")
    };
    if minor < 26 {
        bail!(
            "{}: too old for Kubernetes 1.37; install Go 1.26.8 or newer",
            version.trim()
        );
    }
    Ok(())
}

fn go_minor(version: &str) -> Option<u32> {
    let (_, rest) = version.split_once("go1.")?;
    rest.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Programs of the host the bed calls, and the Debian package of each.
const PROGRAMS: [(&str, &str); 7] = [
    ("docker-registry", "docker-registry"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("ipset", "ipset"),
    ("curl", "curl"),
];

/// Installs what `up` calls on the host and isn't there.
pub fn host_programs(cache: &Cache) -> Result<()> {
    install(cache, &missing(&PROGRAMS))
}

fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let absent = programs.iter().filter(|(program, _)| !on_path(program));
    absent.map(|(_, package)| *package).collect()
}

/// Installs libseccomp's headers for runc.
pub fn seccomp_headers(cache: &Cache) -> Result<()> {
    if std::path::Path::new("/usr/include/seccomp.h").exists() {
        return Ok(());
    }
    install(cache, &["libseccomp-dev", "gcc", "libc6-dev", "pkg-config"])
}

/// Installs what busybox is built with.
pub fn c_tools(cache: &Cache) -> Result<()> {
    let mut missing = missing(&[("gcc", "gcc"), ("make", "make"), ("bzip2", "bzip2")]);
    if !std::path::Path::new("/usr/include/stdio.h").exists() {
        missing.push("libc6-dev");
    }
    install(cache, &missing)
}

fn install(cache: &Cache, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    root()?;
    let _lock = crate::cache::lock(&cache.dir("debian")?.join(".apt.lock"))?;
    let hint = || format!("install by hand: apt-get install {}", packages.join(" "));
    // A third-party list that can't be reached must not stop Debian's own packages.
    let _ = command::output(Command::new("apt-get").args(["-q", "update"]))?;
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-q", "-y", "install", "--no-install-recommends"])
        .args(packages);
    command::run(&mut apt).with_context(hint)?;
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|dir| !dir.is_empty() && std::path::Path::new(dir).join(program).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_minor_is_read_from_the_version_line() {
        assert_eq!(go_minor("go version go1.26.8 linux/amd64"), Some(26));
        assert_eq!(go_minor("nonsense"), None);
    }
}
