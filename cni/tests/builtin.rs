//! The built-in network on the real kernel, in namespaces made for the test.

mod common;

use cni::network::{Builtin, Network, NetworkConfig};
use cni::{PodNetwork, PortMapping, Protocol};
use common::{Pod, TempDir, in_host, run, sh};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const WAIT: Duration = Duration::from_secs(2);

fn open(dir: &TempDir, cidrs: &[&str]) -> Arc<Network> {
    opened(config(dir), cidrs)
}

fn config(dir: &TempDir) -> NetworkConfig {
    NetworkConfig {
        conf_dir: dir.0.join("net.d"),
        bin_dirs: vec![],
        state_dir: dir.0.join("state"),
        run_dir: dir.0.join("run"),
        ipam_dir: dir.0.join("run/ipam"),
        executable: None,
        builtin: Builtin::default(),
    }
}

/// A second runtime's, on the bridge of the first.
fn open_second(dir: &TempDir, cidrs: &[&str]) -> Arc<Network> {
    let mut config = NetworkConfig {
        state_dir: dir.0.join("second/state"),
        run_dir: dir.0.join("second/run"),
        ..config(dir)
    };
    config.builtin.table = "lighter0.second".to_owned();
    opened(config, cidrs)
}

fn opened(config: NetworkConfig, cidrs: &[&str]) -> Arc<Network> {
    let network = Network::open(config);
    let network = network.unwrap();
    let cidrs: Vec<_> = cidrs.iter().map(|c| c.parse().unwrap()).collect();
    network.set_pod_cidrs(&cidrs).unwrap();
    network
}

fn pod(id: &str, ports: Vec<PortMapping>) -> PodNetwork {
    PodNetwork {
        sandbox_id: id.to_owned(),
        namespace: "default".to_owned(),
        name: id.to_owned(),
        uid: format!("uid-{id}"),
        ports,
        ..PodNetwork::default()
    }
}

fn port(host: u16, container: u16, protocol: Protocol) -> PortMapping {
    PortMapping {
        host_port: host,
        container_port: container,
        protocol,
        host_ip: None,
    }
}

/// Answers each connection with the client's address.
fn serve(pod: &Pod, address: &str) {
    let listener = pod.inside(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

fn ask(address: impl Into<SocketAddr>) -> Option<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&address.into(), WAIT).ok()?;
    stream.set_read_timeout(Some(WAIT)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let ip: IpAddr = text.parse().ok()?;
    Some(ip.to_canonical())
}

#[test]
#[ignore = "needs root: network namespaces"]
fn pods_reach_each_other_and_the_host_and_leave_nothing() {
    in_host(|| async {
        let dir = TempDir::new("pods");
        let network = open(&dir, &["10.88.0.0/24", "fd88::/64"]);
        let (a, b) = (Pod::new(), Pod::new());
        let (pa, pb) = (pod("a", vec![]), pod("b", vec![]));
        let wa = network.add(&pa, &a).await.unwrap();
        let wb = network.add(&pb, &b).await.unwrap();
        assert_eq!(wa.ips.len(), 2);
        assert_ne!(wa.ips, wb.ips);
        serve(&b, "[::]:80");
        for (ip, own) in wb.ips.iter().zip(&wa.ips) {
            let seen = a.inside(|| ask((*ip, 80)));
            assert_eq!(seen, Some(*own), "pods see each other's own address");
            assert!(ask((*ip, 80)).is_some(), "from the host");
        }
        serve(&a, "127.0.0.1:81");
        assert!(a.inside(|| ask(([127, 0, 0, 1], 81))).is_some());
        let on_host = TcpListener::bind("10.88.0.1:82").unwrap();
        let host = a.inside(|| TcpStream::connect_timeout(&on_host.local_addr().unwrap(), WAIT));
        host.unwrap();
        network.check(&pa, &a).await.unwrap();
        // Asked again: the same answer, nothing made twice.
        assert_eq!(network.add(&pa, &a).await.unwrap(), wa);

        network.del(&pa, Some(&a), Some(&wa)).await.unwrap();
        network.del(&pa, None, None).await.unwrap();
        network.del(&pb, None, None).await.unwrap();
        let links = sh("ip -o link");
        assert!(!links.contains(": lt"), "{links}");
        let left = std::fs::read_dir(dir.0.join("run/results"))
            .unwrap()
            .count();
        assert_eq!(left, 0);
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn host_port_answers_on_every_way_and_goes_with_its_pod() {
    in_host(|| async {
        let dir = TempDir::new("hostport");
        let network = open(&dir, &["10.88.0.0/24"]);
        let outside = outside();
        let a = Pod::new();
        let pa = pod("a", vec![port(8080, 80, Protocol::Tcp)]);
        let wa = network.add(&pa, &a).await.unwrap();
        serve(&a, "0.0.0.0:80");
        let host: IpAddr = [192, 0, 2, 1].into();
        let gateway: IpAddr = [10, 88, 0, 1].into();
        assert_eq!(
            outside.inside(|| ask((host, 8080))),
            Some([192, 0, 2, 2].into())
        );
        assert_eq!(ask(([127, 0, 0, 1], 8080)), Some(gateway), "masqueraded");
        assert!(
            ask((host, 8080)).is_some(),
            "from the host to its own address"
        );
        assert_eq!(a.inside(|| ask((host, 8080))), Some(gateway), "to itself");
        assert_eq!(ask(([127, 0, 0, 1], 8081)), None, "no other port");

        let (pb, b) = (pod("b", pa.ports.clone()), Pod::new());
        let error = network.add(&pb, &b).await.unwrap_err().to_string();
        assert!(error.contains("8080"), "{error}");

        let listing = sh("nft list ruleset");
        assert!(listing.contains("8080 : 10.88.0.2 . 80"), "{listing}");
        network.del(&pa, Some(&a), Some(&wa)).await.unwrap();
        assert_eq!(outside.inside(|| ask((host, 8080))), None);
        let listing = sh("nft list ruleset");
        assert!(!listing.contains("8080"), "{listing}");
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn udp_flow_follows_the_host_port_to_the_next_pod() {
    in_host(|| async {
        let dir = TempDir::new("udp");
        let network = open(&dir, &["10.88.0.0/24"]);
        let outside = outside();
        let client = outside.inside(|| UdpSocket::bind("192.0.2.2:5000").unwrap());
        client
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        for id in ["first", "second"] {
            let netns = Pod::new();
            let p = pod(id, vec![port(5353, 53, Protocol::Udp)]);
            let wired = network.add(&p, &netns).await.unwrap();
            let server = netns.inside(|| UdpSocket::bind("0.0.0.0:53").unwrap());
            let answer = std::thread::spawn(move || {
                let mut buffer = [0; 16];
                let (n, from) = server.recv_from(&mut buffer).unwrap();
                server.send_to(id.as_bytes(), from).unwrap();
                n
            });
            client.send_to(b"x", "192.0.2.1:5353").unwrap();
            let mut buffer = [0; 16];
            let n = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], id.as_bytes());
            answer.join().unwrap();
            network.del(&p, Some(&netns), Some(&wired)).await.unwrap();
        }
    });
}

/// How long a megabyte takes from one end of a connection to the other.
fn transfer(mut from: TcpStream, mut to: TcpStream) -> Duration {
    let start = Instant::now();
    let send = std::thread::spawn(move || from.write_all(&vec![7; 1 << 20]));
    let mut received = vec![0; 1 << 20];
    to.read_exact(&mut received).unwrap();
    send.join().unwrap().unwrap();
    start.elapsed()
}

#[test]
#[ignore = "needs root: network namespaces"]
fn bandwidth_is_limited_each_way_on_its_own() {
    in_host(|| async {
        let dir = TempDir::new("bandwidth");
        let network = open(&dir, &["10.88.0.0/24"]);
        // 4 Mbit/s: a megabyte takes two seconds, of which the burst saves an eighth at most.
        let slow = Some(4_000_000);
        for (id, ingress, egress) in [("in", slow, None), ("out", None, slow)] {
            let limited = PodNetwork {
                ingress_rate: ingress,
                egress_rate: egress,
                ..pod(id, vec![])
            };
            let a = Pod::new();
            let wired = network.add(&limited, &a).await.unwrap();
            let listener = a.inside(|| TcpListener::bind("0.0.0.0:80").unwrap());
            let connect = || {
                let host = TcpStream::connect((wired.ips[0], 80)).unwrap();
                (host, listener.accept().unwrap().0)
            };
            let (host, inside) = connect();
            let to_pod = transfer(host, inside);
            let (host, inside) = connect();
            let from_pod = transfer(inside, host);
            let least = Duration::from_millis(1500);
            assert_eq!(to_pod > least, ingress.is_some(), "{id}: in {to_pod:?}");
            assert_eq!(from_pod > least, egress.is_some(), "{id}: out {from_pod:?}");
            network.del(&limited, Some(&a), Some(&wired)).await.unwrap();
        }
    });
}

/// CVE-2020-8558.
#[test]
#[ignore = "needs root: network namespaces"]
fn pod_never_reaches_what_listens_on_the_hosts_loopback() {
    in_host(|| async {
        let dir = TempDir::new("martian");
        let network = open(&dir, &["10.88.0.0/24"]);
        let secret = TcpListener::bind("127.0.0.1:7777").unwrap();
        secret.set_nonblocking(true).unwrap();
        let a = Pod::new();
        network.add(&pod("a", vec![]), &a).await.unwrap();
        // The pod's own loopback must not swallow the packet.
        a.sh("sysctl -qw net.ipv4.conf.eth0.route_localnet=1 || echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet");
        a.sh("ip addr del 127.0.0.1/8 dev lo; ip route flush table local dev lo || true; ip route add 127.0.0.1/32 via 10.88.0.1 dev eth0");
        assert_eq!(a.inside(|| ask(([127, 0, 0, 1], 7777))), None);
        assert!(secret.accept().is_err(), "no connection arrived");
        let dropped = run("nft list chain inet lighter0 martians");
        let text = String::from_utf8_lossy(&dropped.stdout).into_owned();
        assert!(text.contains("127.0.0.0/8 drop"), "{text}");
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn outside_sees_the_host_but_the_cluster_sees_the_pod() {
    in_host(|| async {
        let dir = TempDir::new("masq");
        let outside = outside();
        outside.sh("ip addr add 10.89.0.7/32 dev lo; ip link set lo up; ip route add 10.88.0.0/24 via 192.0.2.1");
        sh("ip route add 10.89.0.0/24 via 192.0.2.2");
        let network = Network::open(NetworkConfig {
            conf_dir: dir.0.join("net.d"),
            bin_dirs: vec![],
            state_dir: dir.0.join("state"),
            run_dir: dir.0.join("run"),
            ipam_dir: dir.0.join("run/ipam"),
            executable: None,
            builtin: Builtin {
                no_masquerade: vec!["10.88.0.0/15".parse().unwrap()],
                ..Builtin::default()
            },
        })
        .unwrap();
        network
            .set_pod_cidrs(&["10.88.0.0/24".parse().unwrap()])
            .unwrap();
        let a = Pod::new();
        let wired = network.add(&pod("a", vec![]), &a).await.unwrap();
        serve(&outside, "0.0.0.0:80");
        let seen = a.inside(|| ask(([192, 0, 2, 2], 80)));
        assert_eq!(seen, Some([192, 0, 2, 1].into()), "masqueraded");
        let seen = a.inside(|| ask(([10, 89, 0, 7], 80)));
        assert_eq!(seen, Some(wired.ips[0]));
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn gc_keeps_the_living_and_gives_the_rest_back() {
    in_host(|| async {
        let dir = TempDir::new("gc");
        let network = open(&dir, &["10.88.0.0/24"]);
        let (a, b) = (Pod::new(), Pod::new());
        let live = pod("live", vec![port(8080, 80, Protocol::Tcp)]);
        let dead = pod("dead", vec![port(8081, 80, Protocol::Tcp)]);
        network.add(&live, &a).await.unwrap();
        network.add(&dead, &b).await.unwrap();
        // A new agent finds the state of the old one.
        let network = open(&dir, &["10.88.0.0/24"]);
        network.gc(&["live".to_owned()]).await.unwrap();
        let listing = sh("nft list ruleset");
        assert!(
            listing.contains("8080") && !listing.contains("8081"),
            "{listing}"
        );
        assert_eq!(sh("ip -o link show master lighter0").lines().count(), 1);
        network.check(&live, &a).await.unwrap();
        assert!(network.check(&dead, &b).await.is_err());
        let reserved = std::fs::read_dir(dir.0.join("run/ipam")).unwrap();
        let ips = reserved.filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with("10.88")
        });
        assert_eq!(ips.count(), 1);
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn two_runtimes_on_a_bridge_share_its_addresses_and_keep_their_host_ports() {
    in_host(|| async {
        let dir = TempDir::new("two");
        let ranges = ["10.88.0.0/24"];
        let (first, second) = (open(&dir, &ranges), open_second(&dir, &ranges));
        let (a, b, c) = (Pod::new(), Pod::new(), Pod::new());
        let of_first = pod("one", vec![port(8080, 80, Protocol::Tcp)]);
        let of_second = pod("two", vec![port(8081, 80, Protocol::Tcp)]);
        let ip = |attached: cni::Attachment| attached.ips[0];
        let one = ip(first.add(&of_first, &a).await.unwrap());
        let two = ip(second.add(&of_second, &b).await.unwrap());
        assert_ne!(one, two);
        for pod in [&a, &b] {
            serve(pod, "0.0.0.0:80");
        }
        let both = || {
            for host_port in [8080, 8081] {
                let answer = ask(([10, 88, 0, 1], host_port));
                assert!(answer.is_some(), "{host_port}: {}", sh("nft list ruleset"));
            }
        };
        both();
        // Each starts again, and puts back what is its own.
        let first = open(&dir, &ranges);
        first.gc(&["one".to_owned()]).await.unwrap();
        both();
        let second = open_second(&dir, &ranges);
        second.gc(&["two".to_owned()]).await.unwrap();
        both();
        first.check(&of_first, &a).await.unwrap();
        second.check(&of_second, &b).await.unwrap();
        let third = ip(first.add(&pod("three", vec![]), &c).await.unwrap());
        assert!(third != one && third != two);
        first.del(&of_first, Some(&a), None).await.unwrap();
        assert!(ask(([10, 88, 0, 1], 8080)).is_none());
        assert!(ask(([10, 88, 0, 1], 8081)).is_some());
        // Its pods and addresses are nobody's when the runtime is no more.
        std::fs::remove_dir_all(dir.0.join("second")).unwrap();
        first.gc(&["three".to_owned()]).await.unwrap();
        assert_eq!(sh("ip -o link show master lighter0").lines().count(), 1);
        assert!(!dir.0.join(format!("run/ipam/{two}")).exists());
    });
}

/// Prints what a pod's wiring takes; asserts nothing about time.
#[test]
#[ignore = "needs root: network namespaces"]
fn fifty_pods_come_and_go() {
    in_host(|| async {
        let dir = TempDir::new("fifty");
        let network = open(&dir, &["10.88.0.0/24"]);
        let pods: Vec<Pod> = (0..50).map(|_| Pod::new()).collect();
        let (mut adds, mut dels) = (vec![], vec![]);
        for (n, netns) in pods.iter().enumerate() {
            let p = pod(
                &format!("pod-{n}"),
                vec![port(9000 + n as u16, 80, Protocol::Tcp)],
            );
            let start = Instant::now();
            network.add(&p, netns).await.unwrap();
            adds.push(start.elapsed());
        }
        for (n, netns) in pods.iter().enumerate() {
            let start = Instant::now();
            network
                .del(&pod(&format!("pod-{n}"), vec![]), Some(netns), None)
                .await
                .unwrap();
            dels.push(start.elapsed());
        }
        adds.sort();
        dels.sort();
        println!(
            "add p50 {:?} p98 {:?}; del p50 {:?} p98 {:?}",
            adds[25], adds[48], dels[25], dels[48]
        );
        assert!(
            !sh("nft list ruleset").contains(" . 80"),
            "host ports are gone"
        );
    });
}

/// A neighbour of the host, 192.0.2.2, on a link of its own; the host is 192.0.2.1.
fn outside() -> Pod {
    let outside = Pod::new();
    // A process that sits in the namespace, for `ip` to name it by.
    let mut holder = outside.inside(|| Command::new("sleep").arg("60").spawn().unwrap());
    sh(&format!(
        "ip link add up0 type veth peer name eth0 netns {}",
        holder.id()
    ));
    sh("ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up");
    outside.sh("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up");
    holder.kill().unwrap();
    holder.wait().unwrap();
    outside
}
