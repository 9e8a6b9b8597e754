//! Our plugins, executed as a runtime does: by name, environment and stdin.
//! This test's own program is the plugin's when it is called by such a name.

mod common;

use common::{Pod, TempDir, in_host, sh};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// `cargo test`'s harness would read our arguments, so the plugin is a small
/// program that only dispatches.
fn plugin(dir: &Path, name: &str) -> PathBuf {
    let link = dir.join(name);
    let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_lighter-cni"), &link);
    link
}

struct Caller<'a> {
    dir: &'a Path,
    netns: String,
    container: &'a str,
}

impl Caller<'_> {
    fn call(&self, name: &str, command: &str, config: &Value) -> Result<Value, Value> {
        let mut child = Command::new(plugin(self.dir, name))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", self.container)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A plugin that refuses the call need not read its configuration.
        let _ = stdin.write_all(config.to_string().as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() {
            Ok(value)
        } else {
            Err(value)
        }
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

fn life(kind: &str, extra: Value) {
    let dir = TempDir::new(&format!("plugin-{kind}"));
    let netns = Pod::new();
    let container = format!("{kind}-{}", std::process::id());
    let path = cni::Netns::path(&netns).unwrap().display().to_string();
    let caller = Caller {
        dir: &dir.0,
        netns: path,
        container: &container,
    };
    let mut config = json!({
        "cniVersion": "1.0.0", "name": "testnet", "type": kind, "ipMasq": true,
        "ipam": {
            "type": "host-local", "dataDir": dir.0.join("ipam"),
            "ranges": [[{"subnet": "10.66.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
        },
    });
    config
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let added = caller.call(kind, "ADD", &config).unwrap();
    assert_eq!(added["ips"][0]["address"], "10.66.0.2/24", "{added}");
    let mapped = json!({
        "cniVersion": "1.0.0", "name": "testnet", "type": "portmap", "prevResult": added,
        "runtimeConfig": {"portMappings": [{"hostPort": 8070, "containerPort": 80, "protocol": "TCP", "hostIP": ""}]},
    });
    assert_eq!(
        caller.call("portmap", "ADD", &mapped).unwrap()["ips"],
        added["ips"]
    );
    caller.call("loopback", "ADD", &config).unwrap();

    serve(&netns);
    assert_eq!(ask(([10, 66, 0, 2], 80).into()).as_deref(), Some("here"));
    assert_eq!(ask(([127, 0, 0, 1], 8070).into()).as_deref(), Some("here"));
    assert!(netns.inside(|| ask(([127, 0, 0, 1], 80).into())).is_some());
    config["prevResult"] = added;
    caller.call(kind, "CHECK", &config).unwrap();
    caller.call("portmap", "CHECK", &mapped).unwrap();

    let gone = Caller {
        netns: String::new(),
        ..caller
    };
    gone.call("portmap", "DEL", &mapped).unwrap();
    gone.call(kind, "DEL", &config).unwrap();
    gone.call(kind, "DEL", &config).unwrap();
    assert_eq!(ask(([127, 0, 0, 1], 8070).into()), None);
    let left = sh("nft list ruleset");
    assert!(!left.contains("10.66.0.2"), "{left}");
    assert!(!dir.0.join("ipam/testnet/10.66.0.2").exists());
    assert!(!sh("ip -o link").contains(": ve"));
}

#[test]
#[ignore = "needs root: network namespaces"]
fn bridge_and_portmap_wire_a_pod_and_leave_nothing() {
    in_host(|| async {
        life(
            "bridge",
            json!({"bridge": "ourbr0", "isGateway": true, "hairpinMode": true}),
        )
    });
}

#[test]
#[ignore = "needs root: network namespaces"]
fn ptp_and_portmap_wire_a_pod_and_leave_nothing() {
    in_host(|| async { life("ptp", json!({})) });
}

#[test]
fn version_is_answered_and_nonsense_refused() {
    let dir = TempDir::new("plugin-version");
    let caller = Caller {
        dir: &dir.0,
        netns: String::new(),
        container: "c",
    };
    let version = caller.call("bridge", "VERSION", &json!({})).unwrap();
    assert!(
        version["supportedVersions"]
            .as_array()
            .unwrap()
            .contains(&json!("1.1.0"))
    );
    let refused = caller.call("bridge", "DANCE", &json!({})).unwrap_err();
    assert_eq!(refused["code"], 4);
    let refused = caller
        .call("bridge", "DEL", &json!({"cniVersion": "9.9.9"}))
        .unwrap_err();
    assert_eq!(refused["code"], 1);
}
