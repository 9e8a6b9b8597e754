//! Who else runs here, and who has the node's ports.

use super::{Finding, Place, read};
use std::collections::BTreeMap;
use std::path::Path;

/// Other nodes' names, as /proc shows them (15 bytes at most).
const KUBELETS: [&str; 7] = [
    "kubelet",
    "k3s",
    "k3s-agent",
    "k3s-server",
    "rke2",
    "k0s",
    "hyperkube",
];
const RUNTIMES: [&str; 4] = ["containerd", "crio", "dockerd", "cri-dockerd"];
/// State of a listening socket in /proc/net/tcp: include/net/tcp_states.h `TCP_LISTEN`.
const LISTENS: &str = "0A";

/// The process that serves the CRI socket.
pub async fn agent(socket: &Path) -> Option<i32> {
    let stream = tokio::net::UnixStream::connect(socket).await.ok()?;
    stream.peer_cred().ok()?.pid()
}

pub fn findings(place: &Place, agent: Option<i32>) -> Vec<Finding> {
    let others: Vec<(i32, String)> = processes()
        .into_iter()
        .filter(|p| Some(p.0) != agent)
        .collect();
    let named = |names: &[&str]| -> Vec<String> {
        let of_names = others
            .iter()
            .filter(|(_, name)| names.contains(&name.as_str()));
        of_names
            .map(|(pid, name)| format!("{name} (pid {pid})"))
            .collect()
    };
    let config = place.config();
    let listeners = listeners();
    let mut all = vec![kubelets(&named(&KUBELETS)), runtimes(&named(&RUNTIMES))];
    let healthz = config.healthz.map(|a| a.port());
    let ports = [config.enable_server.then_some(config.port), healthz];
    for (check, port) in ["port-kubelet", "port-healthz"].into_iter().zip(ports) {
        let Some(port) = port.filter(|p| *p != 0) else {
            continue;
        };
        let owner = listeners
            .get(&port)
            .map(|inode| owner(*inode, &others, agent));
        all.push(port_finding(check, port, owner, agent.is_some()));
    }
    all
}

/// Who listens on a port.
#[derive(Debug, PartialEq)]
enum Owner {
    Agent,
    Other(String),
}

/// Processes that share our network: those of containers and of other machines' roots don't.
fn processes() -> Vec<(i32, String)> {
    let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = network("self");
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()) && network(pid) == own)
        .filter_map(|pid| Some((pid.parse().ok()?, read(format!("/proc/{pid}/comm")))))
        .collect()
}

fn kubelets(found: &[String]) -> Finding {
    match found {
        [] => Finding::ok("other-kubelets", "none"),
        found => Finding::error(
            "other-kubelets",
            [
                &found.join(", "),
                "two kubelets fight over one machine's pods and ports",
                "stop and disable it, for example: systemctl disable --now kubelet",
            ],
        ),
    }
}

fn runtimes(found: &[String]) -> Finding {
    match found {
        [] => Finding::ok("other-runtimes", "none"),
        found => Finding::warning(
            "other-runtimes",
            [
                &found.join(", "),
                "harmless as long as nothing else starts pods, but it takes memory, and may own files in /etc/cni/net.d",
                "stop it; or use it: --container-runtime-endpoint",
            ],
        ),
    }
}

/// Ports with the inode of the socket that listens on them.
fn listeners() -> BTreeMap<u16, u64> {
    let text = format!("{}\n{}", read("/proc/net/tcp"), read("/proc/net/tcp6"));
    text.lines().filter_map(listener).collect()
}

fn listener(line: &str) -> Option<(u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let inode = fields.get(9)?.parse().ok()?;
    (fields.get(3) == Some(&LISTENS)).then_some((port, inode))
}

fn owner(inode: u64, others: &[(i32, String)], agent: Option<i32>) -> Owner {
    let socket = format!("socket:[{inode}]");
    let has = |pid: i32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        fds.filter_map(|fd| std::fs::read_link(fd.path()).ok())
            .any(|link| link.to_string_lossy() == socket)
    };
    if agent.is_some_and(has) {
        return Owner::Agent;
    }
    let found = others.iter().find(|(pid, _)| has(*pid));
    let name = found.map(|(pid, name)| format!("{name} (pid {pid})"));
    Owner::Other(name.unwrap_or_else(|| "a process of another namespace".to_owned()))
}

fn port_finding(check: &'static str, port: u16, owner: Option<Owner>, running: bool) -> Finding {
    match owner {
        Some(Owner::Agent) => Finding::ok(check, format!("{port}: the agent's")),
        Some(Owner::Other(who)) => Finding::error(
            check,
            [
                &format!("{port} is taken by {who}"),
                "the agent can't listen on it",
                &format!(
                    "stop it, or another port in the kubelet's configuration; look: ss -ltnp 'sport = :{port}'"
                ),
            ],
        ),
        None if running => Finding::warning(
            check,
            [
                &format!("{port}: nobody listens"),
                "an agent runs and does not serve it: kubectl logs and exec, or health checks, fail",
                "its log says why: journalctl -u lighter",
            ],
        ),
        None => Finding::ok(check, format!("{port} is free")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn listeners_are_read_from_the_kernels_table() {
        let line = "   0: 0100007F:2808 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        assert_eq!(listener(line), Some((10248, 4711)));
        assert_eq!(listener(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listener("  sl  local_address rem_address"), None);
    }

    #[test]
    fn port_of_somebody_else_is_an_error() {
        let other = Some(Owner::Other("kubelet (pid 7)".to_owned()));
        let taken = port_finding("p", 10250, other, false);
        assert_eq!(taken.verdict, Verdict::Error);
        assert!(taken.seen.contains("kubelet (pid 7)"));
        assert_eq!(port_finding("p", 1, None, false).verdict, Verdict::Ok);
        assert_eq!(port_finding("p", 1, None, true).verdict, Verdict::Warning);
        assert_eq!(
            port_finding("p", 1, Some(Owner::Agent), true).verdict,
            Verdict::Ok
        );
    }

    #[test]
    fn socket_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inode = listeners()[&port];
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(owner(inode, &[], Some(own)), Owner::Agent);
        let others = [(own, "me".to_owned())];
        assert_eq!(
            owner(inode, &others, None),
            Owner::Other(format!("me (pid {own})"))
        );
    }
}
