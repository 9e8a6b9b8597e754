//! Stands in for systemd, which is not pid 1 of the machine: starts and stops the units of
//! `deploy/manifests` that kubeadm's node has, and holds their socket. What the real one makes of
//! them is seen in the VM (`e2e/vm/systemd`).

use anyhow::{Context, Result, ensure};
use e2e::machine::Machine;
use e2e::node::lighter::SOCKET;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const KUBELET: &str = include_str!("../../../deploy/manifests/kubelet.service");
const RUNTIME: &str = include_str!("../../../deploy/manifests/lighter-runtime.service");
const HELD: &str = include_str!("../../../deploy/manifests/lighter-runtime.socket");

/// Keeps a list of what was asked for, asks, and waits until it is done.
const SYSTEMCTL: &str = "#!/bin/sh
echo \"$*\" >>/tmp/systemctl.log
case \"$1\" in
start | stop | restart) echo \"$1\" >/run/systemctl.ask && read done </run/systemctl.done ;;
esac
exit 0
";
const TURN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Runs `test` with `systemctl` in the machine; the agent must be down. Nothing of it stays.
pub fn with_systemd(node: &Machine, test: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut systemd = Systemd::set_up(node)?;
    let over = AtomicBool::new(false);
    let (result, served) = std::thread::scope(|scope| {
        let serve = scope.spawn(|| systemd.serve(&over));
        let result = test();
        over.store(true, Ordering::Relaxed);
        (result, serve.join())
    });
    let served = served.unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")));
    node.run(
        "sh",
        &[
            "-c",
            "rm -rf /usr/local/bin/systemctl /etc/systemd/system/kubelet.service /run/systemctl.*",
        ],
    )?;
    fs::remove_file(node.path(SOCKET))?;
    result.and(served.context("the stand-in for systemd"))
}

struct Systemd<'a> {
    node: &'a Machine,
    socket: UnixListener,
    ask: File,
    done: File,
    kubelet: Option<Child>,
    runtime: Option<Child>,
}

impl Systemd<'_> {
    fn set_up(node: &Machine) -> Result<Systemd<'_>> {
        node.install_bytes(SYSTEMCTL.as_bytes(), "systemctl")?;
        // kubeadm looks whether it is there.
        node.write("/etc/systemd/system/kubelet.service", KUBELET)?;
        node.run("sh", &["-c", "rm -f /tmp/systemctl.log /run/systemctl.*; mkfifo /run/systemctl.ask /run/systemctl.done"])?;
        ensure!(setting(HELD, "ListenStream")? == SOCKET);
        let path = node.path(SOCKET);
        let _ = fs::remove_file(&path);
        // Open for both, so that it never ends.
        let fifo = |name: &str| {
            let path = node.path(name);
            File::options().read(true).write(true).open(path)
        };
        Ok(Systemd {
            node,
            socket: UnixListener::bind(path)?,
            ask: fifo("/run/systemctl.ask")?,
            done: fifo("/run/systemctl.done")?,
            kubelet: None,
            runtime: None,
        })
    }

    fn serve(&mut self, over: &AtomicBool) -> Result<()> {
        while !over.load(Ordering::Relaxed) {
            self.turn()?;
        }
        end(&mut self.kubelet)?;
        end(&mut self.runtime)
    }

    /// A connection starts the runtime while neither unit is up; either unit ends the other.
    fn turn(&mut self) -> Result<()> {
        let mut ready = [
            PollFd::new(&self.ask, PollFlags::IN),
            PollFd::new(&self.socket, PollFlags::IN),
        ];
        poll(&mut ready, Some(&TURN))?;
        let [asked, called] = ready.map(|r| r.revents().contains(PollFlags::IN));
        if asked {
            let mut word = [0; 64];
            let length = self.ask.read(&mut word)?;
            let word = String::from_utf8_lossy(&word[..length]).trim().to_owned();
            if word != "start" {
                end(&mut self.kubelet)?;
            }
            if word != "stop" && self.kubelet.is_none() {
                end(&mut self.runtime)?;
                self.kubelet = Some(self.start("kubelet", KUBELET)?);
            }
            self.done.write_all(b"done\n")?;
        } else if called && self.kubelet.is_none() && self.runtime.is_none() {
            self.runtime = Some(self.start("runtime", RUNTIME)?);
        }
        Ok(())
    }

    /// The unit's program, with the socket as descriptor 3.
    fn start(&self, name: &str, unit: &str) -> Result<Child> {
        let files = unit
            .lines()
            .filter_map(|l| l.strip_prefix("EnvironmentFile=-"));
        let files: Vec<&str> = files.collect();
        let script = format!(
            "exec 3<&0 </dev/null; for file in {}; do ! [ -e $file ] || . $file; done
            export LISTEN_FDS=1 LISTEN_PID=$$; exec {}",
            files.join(" "),
            setting(unit, "ExecStart")?
        );
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.node.log(name))?;
        let mut command = self.node.command("sh");
        command.args(["-c", &script]);
        let socket = OwnedFd::from(self.socket.try_clone()?);
        let child = command
            .stdin(Stdio::from(socket))
            .stdout(log.try_clone()?)
            .stderr(log);
        child.spawn().with_context(|| name.to_owned())
    }
}

fn setting<'a>(unit: &'a str, name: &str) -> Result<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix('=');
    let found = unit.lines().find_map(value);
    found.with_context(|| format!("{name} in {unit}"))
}

/// SIGTERM, as the units' `KillMode=process` has it; no process but this one gets it.
fn end(unit: &mut Option<Child>) -> Result<()> {
    let Some(mut child) = unit.take() else {
        return Ok(());
    };
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
    let limit = Instant::now() + Duration::from_secs(90);
    while child.try_wait()?.is_none() {
        if Instant::now() > limit {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("a unit does not end on SIGTERM");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
