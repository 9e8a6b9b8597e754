//! Somebody's plugins: the reference ones (github.com/containernetworking/plugins
//! v1.9.1), built into the folder that `LIGHTER_CNI_PLUGINS` names.

mod common;

use cni::network::{Builtin, Network, NetworkConfig};
use cni::{PodNetwork, PortMapping, Protocol};
use common::{Pod, TempDir, in_host, sh};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

fn plugins() -> PathBuf {
    std::env::var_os("LIGHTER_CNI_PLUGINS")
        .expect("LIGHTER_CNI_PLUGINS names a folder of reference plugins")
        .into()
}

fn open(dir: &TempDir, bin: Vec<PathBuf>) -> Arc<Network> {
    Network::open(NetworkConfig {
        conf_dir: dir.0.join("net.d"),
        bin_dirs: bin,
        state_dir: dir.0.join("state"),
        run_dir: dir.0.join("run"),
        ipam_dir: dir.0.join("run/ipam"),
        executable: None,
        builtin: Builtin::default(),
    })
    .unwrap()
}

fn configure(dir: &TempDir, version: &str) {
    let data = dir.0.join("ipam");
    let list = format!(
        r#"{{"cniVersion": "{version}", "name": "testnet", "plugins": [
            {{"type": "bridge", "bridge": "cnitest0", "isDefaultGateway": true, "ipMasq": false,
              "ipam": {{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "10.77.0.0/24"}}]]}}}},
            {{"type": "portmap", "backend": "nftables", "capabilities": {{"portMappings": true}}}}
        ]}}"#,
        data.display()
    );
    fs::create_dir_all(dir.0.join("net.d")).unwrap();
    fs::write(dir.0.join("net.d/10-test.conflist"), list).unwrap();
}

fn pod(id: &str) -> PodNetwork {
    PodNetwork {
        sandbox_id: id.to_owned(),
        namespace: "default".to_owned(),
        name: id.to_owned(),
        uid: format!("uid-{id}"),
        ports: vec![PortMapping {
            host_port: 8090,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: None,
        }],
        ..PodNetwork::default()
    }
}

fn serve(pod: &Pod) {
    let listener = pod.inside(|| TcpListener::bind("0.0.0.0:80").unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"here");
        }
    });
}

fn ask(address: SocketAddr) -> Option<String> {
    let wait = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, wait).ok()?;
    stream.set_read_timeout(Some(wait)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

async fn life(version: &str, bin: Vec<PathBuf>) {
    let dir = TempDir::new(&format!("foreign-{version}"));
    configure(&dir, version);
    let network = open(&dir, bin);
    network.status().await.unwrap();
    let (netns, p) = (Pod::new(), pod("a"));
    let wired = network.add(&p, &netns).await.unwrap();
    assert_eq!(wired.ips.len(), 1, "{wired:?}");
    serve(&netns);
    assert_eq!(ask((wired.ips[0], 80).into()).as_deref(), Some("here"));
    assert_eq!(ask(([10, 77, 0, 1], 8090).into()).as_deref(), Some("here"));
    network.check(&p, &netns).await.unwrap();

    // What is needed for DEL was kept; the configuration may have gone.
    fs::remove_file(dir.0.join("net.d/10-test.conflist")).unwrap();
    network.del(&p, None, None).await.unwrap();
    network.del(&p, None, None).await.unwrap();
    let reserved = fs::read_dir(dir.0.join("ipam/testnet")).unwrap();
    let names = reserved.map(|e| e.unwrap().file_name().into_string().unwrap());
    assert!(names.filter(|n| n.starts_with("10.77")).count() == 0);
    assert_eq!(ask(([10, 77, 0, 1], 8090).into()), None);
    assert_eq!(sh("ip -o link show master cnitest0"), "");
}

#[test]
#[ignore = "needs root and the reference plugins: LIGHTER_CNI_PLUGINS"]
fn reference_plugins_wire_a_pod_in_every_version() {
    let bin = plugins();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let bin = bin.clone();
        in_host(move || async move { life(version, vec![bin]).await });
    }
}

#[test]
#[ignore = "needs root: network namespaces"]
fn plugin_that_fails_is_undone_and_says_why() {
    in_host(|| async {
        let dir = TempDir::new("failing");
        let bin = dir.0.join("bin");
        let log = dir.0.join("log");
        fs::create_dir_all(&bin).unwrap();
        plugin(
            &bin,
            "good",
            &format!(
                "echo \"good $CNI_COMMAND $CNI_ARGS\" >> {}; cat > /dev/null\n[ $CNI_COMMAND = ADD ] && echo '{{\"cniVersion\":\"1.0.0\",\"ips\":[{{\"address\":\"10.0.0.9/24\"}}]}}'; exit 0",
                log.display()
            ),
        );
        plugin(
            &bin,
            "bad",
            &format!(
                "echo \"bad $CNI_COMMAND\" >> {}; cat > /dev/null\n[ $CNI_COMMAND = ADD ] && {{ echo '{{\"code\":7,\"msg\":\"no luck\"}}'; exit 1; }}; exit 0",
                log.display()
            ),
        );
        let list =
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"good"},{"type":"bad"}]}"#;
        fs::create_dir_all(dir.0.join("net.d")).unwrap();
        fs::write(dir.0.join("net.d/1.conflist"), list).unwrap();
        let network = open(&dir, vec![bin.clone()]);
        let netns = Pod::new();
        let error = network.add(&pod("a"), &netns).await.unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(
            text.contains("ADD by plugin bad") && text.contains("no luck"),
            "{text}"
        );
        let said = fs::read_to_string(&log).unwrap();
        assert!(said.contains("K8S_POD_NAME=a;"), "{said}");
        let order: Vec<_> = said
            .lines()
            .map(|l| l.split(' ').take(2).collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(order[..4], ["good ADD", "bad ADD", "bad DEL", "good DEL"]);
        assert_eq!(
            fs::read_dir(dir.0.join("state/results")).unwrap().count(),
            0
        );

        fs::remove_file(bin.join("bad")).unwrap();
        let error = network.add(&pod("a"), &netns).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("no such plugin"), "{cause}");
    });
}

fn plugin(dir: &std::path::Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}
