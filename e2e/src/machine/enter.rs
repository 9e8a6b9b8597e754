//! `bed enter`: becomes a program inside a machine.

use crate::cgroup;
use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[derive(Debug, clap::Args)]
pub struct Enter {
    #[arg(long)]
    holder: i32,
    #[arg(long)]
    cgroup: String,
    /// Keep the host's files: only the machine's network and name are entered.
    #[arg(long)]
    host_files: bool,
    /// What the program is called, if not by its own name
    #[arg(long)]
    arg0: Option<String>,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Enter {
    /// Returns only on failure.
    pub fn run(&self) -> Result<()> {
        cgroup::enter(&self.cgroup)?;
        let open = |name: &str| {
            let path = format!("/proc/{}/ns/{name}", self.holder);
            File::open(&path).with_context(|| format!("open {path}: the machine is gone"))
        };
        let (net, uts, mnt) = (open("net")?, open("uts")?, open("mnt")?);
        setns(net, CloneFlags::CLONE_NEWNET)?;
        setns(uts, CloneFlags::CLONE_NEWUTS)?;
        if !self.host_files {
            setns(mnt, CloneFlags::CLONE_NEWNS)?;
            nix::unistd::chdir("/")?;
        }
        let _ = nix::unistd::setsid();
        let program = &self.command[0];
        let error = Command::new(program)
            .arg0(self.arg0.as_ref().unwrap_or(program))
            .args(&self.command[1..])
            .env("PATH", PATH)
            .env("HOME", "/root")
            .exec();
        Err(error).with_context(|| program.clone())
    }
}
