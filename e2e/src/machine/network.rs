//! One Ethernet segment per cluster: a bridge in a network namespace of its own.
//!
//! Clusters never meet, so all of them use the same addresses.

use super::Machine;
use crate::command;
use anyhow::{Context, Result};
use std::fs;

pub const SWITCH_IP: &str = "172.30.0.1";
pub const CONTROL_PLANE_IP: &str = "172.30.0.2";
const BRIDGE: &str = "bed0";

/// The address of the n-th node, from 0.
pub fn node_ip(index: usize) -> String {
    format!("172.30.0.{}", 10 + index)
}

pub fn make_switch(switch: &Machine) -> Result<()> {
    let script = format!(
        "link set lo up\nlink add {BRIDGE} type bridge\nlink set {BRIDGE} up\n\
         addr add {SWITCH_IP}/24 dev {BRIDGE}\n"
    );
    batch(switch, &script)
}

/// Gives `machine` an `eth0` on the segment.
pub fn plug(switch: &Machine, machine: &Machine) -> Result<()> {
    let (port, pid) = (port(&machine.name), machine.holder.pid);
    let wire = format!(
        "link add {port} type veth peer name eth0 netns {pid}\n\
         link set {port} master {BRIDGE}\nlink set {port} up\n"
    );
    batch(switch, &wire)?;
    let ip = &machine.ip;
    let own = format!(
        "link set lo up\naddr add {ip}/24 dev eth0\nlink set eth0 up\n\
         route add default via {SWITCH_IP}\n"
    );
    batch(machine, &own)?;
    let_route(machine)
}

/// The network of a machine with no neighbours: its address is on the loopback.
pub fn alone(machine: &Machine) -> Result<()> {
    let script = format!("link set lo up\naddr add {}/32 dev lo\n", machine.ip);
    batch(machine, &script)?;
    let_route(machine)
}

fn let_route(machine: &Machine) -> Result<()> {
    let settings = "for s in all default; do echo 0 > /proc/sys/net/ipv4/conf/$s/rp_filter; done; \
                    echo 1 > /proc/sys/net/ipv4/ip_forward; \
                    f=/proc/sys/net/bridge/bridge-nf-call-iptables; ! [ -e $f ] || echo 1 > $f";
    machine.run("sh", &["-c", settings])?;
    Ok(())
}

/// Lets every machine reach the pods of a node, as a cloud's route table does.
pub fn route(machine: &Machine, pod_cidr: &str, via: &str) -> Result<()> {
    machine.run("ip", &["route", "replace", pod_cidr, "via", via])?;
    Ok(())
}

/// Interface names are limited to 15 bytes; machines of one cluster differ in their last ones.
fn port(name: &str) -> String {
    let tail: String = name
        .chars()
        .rev()
        .take(13)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect();
    format!("p-{tail}")
}

fn batch(machine: &Machine, script: &str) -> Result<()> {
    let mut ip = machine.command("ip");
    command::run_with_input(ip.args(["-batch", "-"]), script.as_bytes())
        .with_context(|| format!("network of {}", machine.name))?;
    Ok(())
}

/// Runs `work` with the machine's network, in a thread of its own.
pub fn inside<T: Send>(machine: &Machine, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let namespace = fs::File::open(format!("/proc/{}/ns/net", machine.holder.pid))
        .with_context(|| format!("network of {}: the machine is gone", machine.name))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a thread of the bed panicked"))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_fits_an_interface_name_and_keeps_the_end() {
        assert_eq!(port("a-very-long-cluster-node-1"), "p-luster-node-1");
        assert!(port("a-very-long-cluster-node-12").len() <= 15);
    }
}
