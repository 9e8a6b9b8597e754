//! Pods over the API by way of `kubectl proxy`: create, delete, and a watch with a clock.

use crate::http::{self, Lines, Request};
use crate::machine::{Machine, network};
use crate::progress;
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const PORT: u16 = 8001;
const NAMESPACE: &str = "/api/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[derive(Debug)]
pub struct Api {
    address: String,
}

impl Api {
    /// Does something in the network of a machine, where `kubectl proxy` is started for it.
    pub fn proxied<T: Send>(
        machine: &Machine,
        work: impl FnOnce(&Api) -> Result<T> + Send,
    ) -> Result<T> {
        machine.start("kubectl", &["proxy".to_owned(), format!("--port={PORT}")])?;
        network::inside(machine, || {
            let limit = Duration::from_secs(10);
            let api = progress::wait_for("kubectl proxy", limit, || Ok(Api::connect().ok()))?;
            work(&api)
        })
    }

    fn connect() -> Result<Api> {
        let api = Api {
            address: format!("127.0.0.1:{PORT}"),
        };
        api.send("GET", "/version", &[])?;
        Ok(api)
    }

    pub fn create(&self, name: &str) -> Result<()> {
        self.post("pods", &pod(name))
    }

    pub fn delete(&self, name: &str) -> Result<()> {
        self.send("DELETE", &format!("{PODS}/{name}"), &[])
            .map(drop)
    }

    /// Makes an object of the default namespace; `kind` in the plural.
    pub fn post(&self, kind: &str, object: &Value) -> Result<()> {
        let path = format!("{NAMESPACE}/{kind}");
        self.send("POST", &path, object.to_string().as_bytes())
            .map(drop)
    }

    /// Replaces `kind/name`.
    pub fn put(&self, object: &str, content: &Value) -> Result<()> {
        let path = format!("{NAMESPACE}/{object}");
        self.send("PUT", &path, content.to_string().as_bytes())
            .map(drop)
    }

    pub fn get(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.send("GET", path, &[])?)?)
    }

    pub fn text(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8(self.send("GET", path, &[])?)?)
    }

    pub fn watch(&self) -> Result<Watch> {
        self.watch_path(&format!("{PODS}?watch=true"))
    }

    /// Of one pod.
    pub fn watch_of(&self, name: &str) -> Result<Watch> {
        self.watch_path(&format!(
            "{PODS}?watch=true&fieldSelector=metadata.name%3D{name}"
        ))
    }

    fn watch_path(&self, path: &str) -> Result<Watch> {
        Ok(Watch {
            lines: http::lines(&self.address, &Request::to("GET", path))?,
        })
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
        let answer = http::send(
            &self.address,
            &Request {
                body,
                ..Request::to(method, path)
            },
        )?;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(
            answer.status < 300,
            "{method} {path}: {}: {}",
            answer.status,
            text()
        );
        Ok(answer.body)
    }
}

/// Ends at once when asked to, and sleeps otherwise: what is measured is the node, not the pod.
pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 10,
            "containers": [{
                "name": "main",
                "image": "docker.io/library/busybox:1.37",
                "imagePullPolicy": "IfNotPresent",
                "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
            }],
        },
    })
}

#[derive(Debug)]
pub struct Watch {
    lines: Lines,
}

impl Watch {
    /// Milliseconds from `act` to the event that makes the last of `names` Ready.
    pub fn ready(
        &mut self,
        names: &[String],
        act: impl FnOnce() -> Result<()> + Send,
    ) -> Result<f64> {
        self.clock(names, act, is_ready)
    }

    /// Milliseconds from `act` to the event that says the last of `names` is no more.
    pub fn gone(
        &mut self,
        names: &[String],
        act: impl FnOnce() -> Result<()> + Send,
    ) -> Result<f64> {
        self.clock(names, act, |event| event["type"] == "DELETED")
    }

    /// Milliseconds from `act` to the first event of the last of `names` that `is` accepts.
    pub fn clock(
        &mut self,
        names: &[String],
        act: impl FnOnce() -> Result<()> + Send,
        mut is: impl FnMut(&Value) -> bool,
    ) -> Result<f64> {
        let mut waited: HashSet<&str> = names.iter().map(String::as_str).collect();
        let start = Instant::now();
        std::thread::scope(|scope| {
            let acting = scope.spawn(act);
            while !waited.is_empty() {
                let Some(line) = self.lines.next() else {
                    bail!("the watch ended")
                };
                let event: Value = serde_json::from_str(&line?).context("watch event")?;
                let name = event["object"]["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default();
                if is(&event) {
                    waited.remove(name);
                }
            }
            let time = start.elapsed().as_secs_f64() * 1000.0;
            acting
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of the bed panicked"))??;
            Ok(time)
        })
    }
}

/// Whether the pod of this event is.
pub fn is_ready(event: &Value) -> bool {
    let conditions = event["object"]["status"]["conditions"].as_array();
    conditions.is_some_and(|all| {
        all.iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
    })
}
