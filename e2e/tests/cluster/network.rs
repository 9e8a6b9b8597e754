//! Pods' network: names, services, host ports.

use crate::kit::{FOREVER, Space, has, pod, same, with, with_main};
use anyhow::{Result, ensure};
use e2e::http::{self, Request};
use e2e::machine::network as machines;
use e2e::progress;
use serde_json::json;
use std::time::Duration;

crate::tests!(
    names_of_the_cluster_resolve,
    hosts_file_and_hostname_are_the_pods,
    pods_reach_each_other_and_themselves_through_a_service,
    a_host_port_is_reached_at_the_nodes_address,
    the_api_server_reaches_pods_and_pods_reach_it,
    dns_policies_are_written_as_asked,
);

const WEB: &str = "mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www";

fn names_of_the_cluster_resolve(t: &Space) -> Result<()> {
    t.run(&pod("b", FOREVER))?;
    let full = "nslookup kubernetes.default.svc.cluster.local";
    has(&t.sh("b", full)?, "Address: 10.96.0.1")?;
    // A short name goes through the search list; the answer is the API server's, over plain HTTP.
    let short = "wget -T 5 -O- http://kubernetes.default:443/ 2>&1 || true";
    has(&t.sh("b", short)?, "400 Bad Request")?;
    Ok(())
}

fn hosts_file_and_hostname_are_the_pods(t: &Space) -> Result<()> {
    let spec = json!({
        "hostname": "first", "subdomain": "sub",
        "hostAliases": [{ "ip": "10.1.2.3", "hostnames": ["alias.example"] }],
    });
    t.run(&with(pod("b", FOREVER), spec))?;
    let hosts = t.sh("b", "cat /etc/hosts; hostname")?;
    has(&hosts, "10.1.2.3\talias.example")?;
    has(
        &hosts,
        &format!("first.sub.{}.svc.cluster.local\tfirst", t.name),
    )?;
    ensure!(hosts.trim().ends_with("first"), "{hosts}");
    Ok(())
}

fn pods_reach_each_other_and_themselves_through_a_service(t: &Space) -> Result<()> {
    t.apply(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "site" },
        "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))?;
    t.run(&pod("web", WEB))?;
    t.run(&pod("client", FOREVER))?;
    for from in ["client", "web"] {
        progress::wait_for(
            &format!("{from} reaches the service"),
            Duration::from_secs(20),
            || {
                Ok(t.sh(from, "wget -q -T 2 -O- http://site/")
                    .is_ok_and(|p| p.trim() == "web")
                    .then_some(()))
            },
        )?;
    }
    Ok(())
}

fn a_host_port_is_reached_at_the_nodes_address(t: &Space) -> Result<()> {
    let port = json!({ "ports": [{ "containerPort": 8080, "hostPort": 18099 }] });
    t.run(&with_main(pod("web", WEB), port))?;
    let address = format!("{}:18099", t.node().ip);
    let get = || {
        machines::inside(&t.cluster().control_plane, || {
            http::send(&address, &Request::to("GET", "/index.html"))
        })
    };
    same(get()?.body.as_slice(), b"web\n")?;
    // Also on the node itself.
    let own = format!(
        "wget -q -T 3 -O- http://{address}/index.html || busybox wget -q -O- http://{address}/index.html"
    );
    same(t.node().run("sh", &["-c", &own])?.trim(), "web")?;
    t.kubectl(&["delete", "pod", "web"])?;
    progress::wait_for("the port closed again", Duration::from_secs(20), || {
        let open = machines::inside(&t.cluster().control_plane, || {
            let target: std::net::SocketAddr = address.parse()?;
            Ok(std::net::TcpStream::connect_timeout(&target, Duration::from_secs(1)).is_ok())
        })?;
        Ok((!open).then_some(()))
    })
}

fn the_api_server_reaches_pods_and_pods_reach_it(t: &Space) -> Result<()> {
    t.run(&pod("web", WEB))?;
    let path = format!(
        "/api/v1/namespaces/{}/pods/web:8080/proxy/index.html",
        t.name
    );
    same(t.kubectl(&["get", "--raw", &path])?.trim(), "web")?;
    let script =
        "nc -w 2 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null && echo reached";
    has(&t.sh("web", script)?, "reached")
}

fn dns_policies_are_written_as_asked(t: &Space) -> Result<()> {
    let none = json!({ "dnsPolicy": "None", "dnsConfig": {
        "nameservers": ["10.9.8.7"], "searches": ["a.example"], "options": [{ "name": "ndots", "value": "2" }],
    }});
    t.run(&with(pod("none", FOREVER), none))?;
    let text = t.sh("none", "cat /etc/resolv.conf")?;
    for part in ["nameserver 10.9.8.7", "search a.example", "options ndots:2"] {
        has(&text, part)?;
    }
    t.run(&pod("first", FOREVER))?;
    let text = t.sh("first", "cat /etc/resolv.conf")?;
    has(&text, "nameserver 10.96.0.10")?;
    has(
        &text,
        &format!(
            "search {}.svc.cluster.local svc.cluster.local cluster.local",
            t.name
        ),
    )?;
    has(&text, "ndots:5")?;
    t.run(&with(
        pod("node", FOREVER),
        json!({ "dnsPolicy": "Default" }),
    ))?;
    has(&t.sh("node", "cat /etc/resolv.conf")?, machines::SWITCH_IP)?;
    Ok(())
}
