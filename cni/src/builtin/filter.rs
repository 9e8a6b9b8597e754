//! Applies [`ruleset`] to the kernel.

use super::{BuiltinError, blocking, ruleset};
use crate::network::Builtin;
use crate::nft::{Batch, Element, conntrack};
use crate::{Cidr, PortMapping, Protocol};
use std::io;
use std::net::IpAddr;

/// Lays the table down; elements stay.
pub async fn lay(config: &Builtin, pods: &[Cidr]) -> Result<(), BuiltinError> {
    let batch = table(config, pods);
    commit("lay down the rules", &config.table, batch).await
}

/// Lays the table down with exactly these elements.
pub async fn restore(
    config: &Builtin,
    pods: &[Cidr],
    elements: Vec<Element>,
) -> Result<(), BuiltinError> {
    let mut batch = table(config, pods);
    for set in &ruleset::SETS {
        batch.flush_set(set.name);
    }
    for element in &elements {
        batch.add_element(element);
    }
    commit("restore the host ports", &config.table, batch).await
}

/// Adds the elements of a pod's host ports.
pub async fn map_ports(
    table: &str,
    ports: &[PortMapping],
    ips: &[IpAddr],
) -> Result<(), BuiltinError> {
    let elements = ruleset::elements(ports, ips);
    if elements.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new(table);
    for element in &elements {
        batch.add_element(element);
    }
    match commit("map host ports", table, batch).await {
        Err(BuiltinError::Filter { source, .. }) if taken(&source) => {
            let ports: Vec<_> = ports.iter().map(|p| p.host_port.to_string()).collect();
            let ports = ports.join(", ");
            Err(BuiltinError::PortTaken { ports })
        }
        Err(e) => Err(e),
        Ok(()) => forget(ports, ips, true).await,
    }
}

/// Takes the elements of a pod's host ports out; those that have gone are fine.
pub async fn unmap_ports(
    table: &str,
    ports: &[PortMapping],
    ips: &[IpAddr],
) -> Result<(), BuiltinError> {
    let elements = ruleset::elements(ports, ips);
    if elements.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new(table);
    for element in &elements {
        batch.delete_element(element);
    }
    if commit("unmap host ports", table, batch).await.is_err() {
        // One is missing: take the others out one by one.
        for element in &elements {
            let mut batch = Batch::new(table);
            batch.delete_element(element);
            match commit("unmap a host port", table, batch).await {
                Err(BuiltinError::Filter { source, .. }) if missing(&source) => {}
                other => other?,
            }
        }
    }
    forget(ports, ips, false).await
}

/// Host ports alone, in a table of their own: for pods that another network
/// wired.
pub(crate) mod host_ports {
    use super::{Batch, BuiltinError, commit, ruleset};
    pub use super::{map_ports as map, unmap_ports as unmap};

    /// Lays the table down; elements stay.
    pub async fn lay(table: &str) -> Result<(), BuiltinError> {
        let policy = ruleset::Policy {
            way: ruleset::Way::AnyButLoopback,
            pods: &[],
            no_masquerade: &[],
        };
        let mut batch = Batch::new(table);
        ruleset::lay(&mut batch, &policy);
        commit("lay down the rules", table, batch).await
    }
}

fn table(config: &Builtin, pods: &[Cidr]) -> Batch {
    let policy = ruleset::Policy {
        way: ruleset::Way::Bridge(&config.bridge),
        pods,
        no_masquerade: &config.unmasqueraded(pods),
    };
    let mut batch = Batch::new(&config.table);
    ruleset::lay(&mut batch, &policy);
    batch
}

/// UDP flows outlive a mapping's coming and going for as long as packets come.
async fn forget(ports: &[PortMapping], ips: &[IpAddr], mapped: bool) -> Result<(), BuiltinError> {
    let udp = ports.iter().filter(|p| p.protocol == Protocol::Udp);
    let udp: Vec<u16> = udp.map(|p| p.host_port).collect();
    if udp.is_empty() {
        return Ok(());
    }
    let ips = ips.to_vec();
    blocking(move || {
        for ip in ips {
            let owner = mapped.then_some(ip);
            conntrack::forget_udp(ip.is_ipv6(), &udp, owner).map_err(BuiltinError::Conntrack)?;
        }
        Ok(())
    })
    .await
}

async fn commit(what: &'static str, table: &str, batch: Batch) -> Result<(), BuiltinError> {
    let table = table.to_owned();
    blocking(move || {
        let done = batch.commit();
        done.map_err(|source| BuiltinError::Filter {
            what,
            table,
            source,
        })
    })
    .await
}

/// A map has the key with another value.
fn taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EEXIST | libc::EBUSY))
}

fn missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT)
}
