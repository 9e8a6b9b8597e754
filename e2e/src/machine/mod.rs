//! A machine of the bed: network, mount and UTS namespaces with a root of its own, and a cgroup.
//!
//! The root is an overlay on the host's: the machine sees the host's programs, and whatever it
//! writes stays in its directory. `/var` is its own plain directory (image stores need a real
//! file system below them), `/run` and `/tmp` are its own too. Everything lives as long as the
//! machine's processes, so ending those removes it all.

pub mod enter;
pub mod hold;
pub mod network;

use crate::{cgroup, command, progress};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A process the bed started: its id is trusted only together with its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub start: u64,
}

impl Process {
    pub fn of(pid: i32) -> Option<Process> {
        start_time(pid).map(|start| Process { pid, start })
    }

    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    // A zombie has ended: nobody can talk to it any more, once its threads have ended too.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    (fields.next()? != "Z" || threads > 1).then_some(())?;
    fields.nth(18)?.parse().ok()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    pub name: String,
    /// Holds `upper`, `work`, `var`, `logs`.
    pub dir: PathBuf,
    pub ip: String,
    pub holder: Process,
    /// Below the root of every hierarchy; no leading slash.
    pub cgroup: String,
    /// The copy of `bed` that enters the machine.
    pub bed: PathBuf,
}

impl Machine {
    /// Makes the namespaces. `rooted` false gives a bare network namespace (the switch).
    pub fn create(
        bed: &Path,
        dir: &Path,
        name: &str,
        cgroup: &str,
        rooted: bool,
    ) -> Result<Machine> {
        let services = format!("{cgroup}/services");
        cgroup::create(&services)?;
        fs::create_dir_all(dir.join("logs"))?;
        let ready = dir.join("ready");
        let log = File::create(dir.join("logs/hold.log"))?;
        let mut hold = Command::new(bed);
        hold.args(["hold", "--name", name, "--cgroup", &services]);
        if rooted {
            prepare_root(dir, name)?;
            hold.arg("--root").arg(dir);
        }
        hold.arg("--ready").arg(&ready);
        let mut child = hold
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| bed.display().to_string())?;
        progress::wait_for(&format!("machine {name}"), Duration::from_secs(10), || {
            if child.try_wait()?.is_some() {
                let log = fs::read_to_string(dir.join("logs/hold.log")).unwrap_or_default();
                anyhow::bail!("{}", log.lines().last().unwrap_or("ended at once"));
            }
            Ok(ready.exists().then_some(()))
        })?;
        let holder = Process::of(child.id() as i32).context("holder ended")?;
        Ok(Machine {
            name: name.into(),
            dir: dir.into(),
            ip: String::new(),
            holder,
            cgroup: cgroup.into(),
            bed: bed.into(),
        })
    }

    /// A command that runs `program` inside the machine.
    pub fn command(&self, program: &str) -> Command {
        self.enter(program, &[])
    }

    /// As [`Machine::command`], with the host's files: for a service whose data clusters share.
    pub fn command_on_host_files(&self, program: &str) -> Command {
        self.enter(program, &["--host-files"])
    }

    /// As [`Machine::command`], under another name.
    pub fn command_called(&self, arg0: &str, program: &str) -> Command {
        self.enter(program, &["--arg0", arg0])
    }

    fn enter(&self, program: &str, flags: &[&str]) -> Command {
        let mut command = Command::new(&self.bed);
        command
            .arg("enter")
            .args(["--holder", &self.holder.pid.to_string()])
            .args(["--cgroup", &format!("{}/services", self.cgroup)])
            .args(flags)
            .args(["--", program]);
        command
    }

    /// Runs to the end inside the machine and returns stdout.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        command::run(self.command(program).args(args))
    }

    /// Starts a service in the background; its output goes to `logs/<program>.log`.
    pub fn start(&self, program: &str, args: &[String]) -> Result<Process> {
        let name = program.rsplit('/').next().unwrap_or(program);
        self.start_command(name, self.command(program).args(args))
    }

    /// Starts a prepared command in the background as the service `name`.
    pub fn start_command(&self, name: &str, command: &mut Command) -> Result<Process> {
        let child = self.spawn(name, command)?;
        Process::of(child.id() as i32).with_context(|| format!("{name} ended at once"))
    }

    /// As [`Machine::start_command`], for a program whose end is waited for.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Child> {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.log(name))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))
    }

    pub fn log(&self, service: &str) -> PathBuf {
        self.dir.join(format!("logs/{service}.log"))
    }

    /// The last line a service said that looks like an error, for a one-line failure.
    pub fn last_words(&self, service: &str) -> String {
        let text = fs::read_to_string(self.log(service)).unwrap_or_default();
        let line = text
            .lines()
            .rev()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("(no output)");
        format!("{service} last said: {}", line.trim())
    }

    /// A file of the machine as the host sees it, to be read or written through the namespaces.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.holder.pid))
    }

    pub fn write(&self, inside: &str, content: &str) -> Result<()> {
        let path = self.path(inside);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, content).with_context(|| format!("{}: write {inside}", self.name))
    }

    /// Puts a program of the cache into the machine's `/usr/local/bin` under `name`.
    pub fn install(&self, program: &Path, name: &str) -> Result<()> {
        self.install_at(program, &format!("/usr/local/bin/{name}"))
    }

    /// As [`Machine::install`], for a program that is no file of the cache.
    pub fn install_bytes(&self, program: &[u8], name: &str) -> Result<()> {
        let to = self.path(&format!("/usr/local/bin/{name}"));
        fs::write(&to, program).with_context(|| format!("{}: write {name}", self.name))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// Another name for a program in `/usr/local/bin` (multi-call programs go by their name).
    pub fn link(&self, program: &str, name: &str) -> Result<()> {
        let to = self.path(&format!("/usr/local/bin/{name}"));
        let _ = fs::remove_file(&to);
        std::os::unix::fs::symlink(program, &to)
            .with_context(|| format!("{}: link {name} to {program}", self.name))
    }

    pub fn install_at(&self, program: &Path, inside: &str) -> Result<()> {
        // Straight into the upper layer would be seen only by chance: go through the mount.
        let to = self.path(inside);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let _ = fs::remove_file(&to);
        fs::copy(program, &to)
            .with_context(|| format!("{}: copy {} to {inside}", self.name, program.display()))?;
        Ok(())
    }
}

/// What the machine's root needs before it is mounted.
fn prepare_root(dir: &Path, name: &str) -> Result<()> {
    for sub in [
        "root",
        "work",
        "var/lib",
        "var/log",
        "var/tmp",
        "var/cache",
        "upper/etc",
    ] {
        fs::create_dir_all(dir.join(sub))?;
    }
    for sub in ["upper/run", "upper/tmp", "upper/usr/local/bin", "bin"] {
        fs::create_dir_all(dir.join(sub))?;
    }
    let _ = std::os::unix::fs::symlink("/run", dir.join("var/run"));
    fs::write(dir.join("upper/etc/hostname"), format!("{name}\n"))?;
    fs::write(
        dir.join("upper/etc/hosts"),
        "127.0.0.1 localhost\n::1 localhost\n",
    )?;
    // No server answers there: names outside the cluster fail at once, they don't hang.
    fs::write(
        dir.join("upper/etc/resolv.conf"),
        format!("nameserver {}\n", network::SWITCH_IP),
    )?;
    Ok(())
}
