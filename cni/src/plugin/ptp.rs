use super::bridge::{self, Leases, Wire, forward, mac, sandbox};
use super::failure::Failure;
use super::netns::OpenNetns;
use super::request::{Command, Request};
use super::{ipam, masquerade};
use crate::Cidr;
use crate::netlink::{Address, Route, Rtnl};
use serde_json::{Value, json};
use std::net::IpAddr;

/// The plugin `ptp`: a pair with no bridge, the host's end routed.
pub async fn run(request: &Request) -> Result<Value, Failure> {
    match request.command {
        Command::Add => {
            let added = add(request).await;
            if added.is_err() {
                // The first error is the one to tell.
                let _ = bridge::del(request).await;
            }
            added
        }
        Command::Del => bridge::del(request).await.map(|()| Value::Null),
        Command::Check => bridge::check(request).await,
        Command::Gc | Command::Status => ipam::delegate(request).await.map(|_| Value::Null),
        Command::Version => Ok(Value::Null),
    }
}

async fn add(request: &Request) -> Result<Value, Failure> {
    let netns = OpenNetns::needed(request)?;
    let rtnl = Rtnl::here()?;
    let leased = ipam::delegate(request).await?;
    let leases = Leases::of(&leased, false);
    if leases.ips.is_empty() {
        return Err(Failure::config("ptp: the IPAM plugin gave no address"));
    }
    let wire = Wire {
        request,
        rtnl: &rtnl,
        bridge: None,
        leases: &leases,
    };
    let (host, pod) = wire.pair(&netns).await?;
    rtnl.set_up(host.index)?;
    let inside = netns.rtnl().await?;
    inside.set_up(pod.index)?;
    for lease in &leases.ips {
        let gateway = lease.gateway;
        let gateway =
            gateway.ok_or_else(|| Failure::config("ptp: the IPAM plugin gave no gateway"))?;
        let (ip, prefix) = (lease.ip, lease.prefix);
        let host_only = Address {
            ip: gateway,
            prefix: whole(gateway),
            prefix_route: false,
        };
        rtnl.add_address(host.index, host_only)?;
        let to_pod = Cidr::new(ip, whole(ip)).map(|to| Route {
            to,
            via: None,
            index: host.index,
        });
        // All of the subnet by way of the host: nobody else is on this link.
        inside.add_address(
            pod.index,
            Address {
                ip,
                prefix,
                prefix_route: false,
            },
        )?;
        let subnet = Cidr::new(ip, prefix);
        let to_subnet = subnet.map(|to| Route {
            to,
            via: Some(gateway),
            index: pod.index,
        });
        let on_link = Route::on_link(gateway, pod.index);
        for route in [on_link, to_subnet].into_iter().flatten() {
            inside.add_route(route)?;
        }
        if let Some(route) = to_pod {
            rtnl.add_route(route)?;
        }
    }
    leases.add_routes(&inside, pod.index)?;
    forward(&leases)?;
    if request.flag("ipMasq") {
        masquerade::add(request, &leases.addresses())?;
    }
    let interfaces = json!([
        {"name": wire.host_name(), "mac": mac(&host.mac)},
        {"name": request.interface, "mac": mac(&pod.mac), "sandbox": sandbox(request)},
    ]);
    Ok(leases.result(interfaces, 1, &leased, &request.config["dns"]))
}

fn whole(ip: IpAddr) -> u8 {
    if ip.is_ipv6() { 128 } else { 32 }
}
