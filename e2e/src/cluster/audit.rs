//! What nodes ask of the API server, from its audit log.

use crate::machine::Machine;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::{fmt, fs};

const POLICY_FILE: &str = "/etc/kubernetes/audit.yaml";
const LOG: &str = "/var/log/audit.log";

/// Writes to pods and nodes are kept with their answers, so that one that changed nothing can be
/// told: the object's version is what it was. Of other requests by nodes it is kept that they
/// were made.
const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- level: RequestResponse
  verbs: [create, update, patch, delete]
  resources: [{group: '', resources: [pods, pods/status, nodes, nodes/status]}]
- level: Metadata
  userGroups: ['system:nodes', 'system:bootstrappers']
- level: None
";

/// One request, by whomever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub user: String,
    /// The program, as it names itself.
    pub agent: String,
    pub verb: String,
    /// `pods/status`, `leases.coordination.k8s.io`; a path for what is no resource.
    pub resource: String,
    /// `namespace/name`, either of which may be empty.
    pub object: String,
    pub code: u64,
    /// The object's resourceVersion afterwards, where answers are kept.
    pub version: Option<String>,
    /// Why it was denied, if it was; empty else.
    pub reason: String,
}

impl Request {
    /// What two requests have in common that differ in their objects alone.
    pub fn kind(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }

    /// kubeadm joins as the node as well, and asks for what no kubelet does.
    pub fn of_node(&self) -> bool {
        let node = ["system:node:", "system:bootstrap:"];
        node.iter().any(|name| self.user.starts_with(name)) && !self.agent.starts_with("kubeadm/")
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.object)?;
        match self.reason.as_str() {
            "" => Ok(()),
            reason => write!(f, ": {reason}"),
        }
    }
}

/// Has the API server keep the log: its flags.
pub fn keep(machine: &Machine) -> Result<Vec<String>> {
    machine.write(POLICY_FILE, POLICY)?;
    Ok(vec![
        format!("--audit-policy-file={POLICY_FILE}"),
        format!("--audit-log-path={LOG}"),
        // No request waits for the log.
        "--audit-log-mode=batch".into(),
    ])
}

/// All requests so far, in the order of their answers; a watch counts when it begins.
pub fn read(machine: &Machine) -> Result<Vec<Request>> {
    let file = machine.path(LOG);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Request>> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let event: Value = serde_json::from_str(line).context("audit log")?;
        let id = event["auditID"].as_str().unwrap_or_default().to_owned();
        if seen.insert(id) {
            found.push(request(&event));
        }
    }
    Ok(found)
}

fn request(event: &Value) -> Request {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let mut resource = text(&object["resource"]);
    if resource.is_empty() {
        let uri = text(&event["requestURI"]);
        resource = uri.split('?').next().unwrap_or_default().to_owned();
    }
    for (part, sign) in [("apiGroup", '.'), ("subresource", '/')] {
        let part = text(&object[part]);
        if !part.is_empty() {
            resource.push(sign);
            resource += &part;
        }
    }
    Request {
        user: text(&event["user"]["username"]),
        agent: text(&event["userAgent"]),
        verb: text(&event["verb"]),
        resource,
        object: format!("{}/{}", text(&object["namespace"]), text(&object["name"])),
        code: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
        version: event["responseObject"]["metadata"]["resourceVersion"]
            .as_str()
            .map(str::to_owned),
        reason: text(&event["responseStatus"]["message"]),
    }
}

/// How many of each kind nodes have made.
pub fn count(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for request in requests.iter().filter(|r| r.of_node()) {
        *kinds.entry(request.kind()).or_default() += 1;
    }
    kinds
}

/// Requests of nodes that they had no right to make: of those that the Node authorizer and
/// NodeRestriction refused, what was not granted a moment later either, since both learn of a
/// pod after its node may have done so. What is refused because its namespace goes is no matter
/// of rights.
pub fn denied(requests: &[Request]) -> Vec<&Request> {
    let refused = |r: &Request| r.code == 401 || r.code == 403;
    let granted = |to: &Request, later: &[Request]| {
        later
            .iter()
            .any(|r| !refused(r) && r.kind() == to.kind() && r.object == to.object)
    };
    let wrong = requests.iter().enumerate().filter(|(i, r)| {
        r.of_node()
            && refused(r)
            && !r.reason.contains("because it is being terminated")
            && !granted(r, &requests[i + 1..])
    });
    wrong.map(|(_, request)| request).collect()
}

/// Writes of nodes after which the object was the same as before.
pub fn idle(requests: &[Request]) -> Vec<&Request> {
    let mut versions = BTreeMap::new();
    let mut found = Vec::new();
    for request in requests {
        let Some(version) = &request.version else {
            continue;
        };
        let of = request.resource.split('/').next().unwrap_or_default();
        let before = versions.insert((of, request.object.as_str()), version);
        let writes = request.of_node() && matches!(request.verb.as_str(), "patch" | "update");
        if writes && before == Some(version) {
            found.push(request);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(id: &str, user: &str, verb: &str, resource: [&str; 3], version: &str) -> String {
        let [group, resource, subresource] = resource;
        let event = json!({
            "auditID": id, "verb": verb, "user": {"username": user},
            "objectRef": {"apiGroup": group, "resource": resource, "subresource": subresource,
                          "namespace": "default", "name": "web"},
            "responseStatus": {"code": 200},
            "responseObject": {"metadata": {"resourceVersion": version}},
        });
        format!("{event}\n")
    }

    #[test]
    fn requests_are_counted_by_kind_and_a_watch_once() -> Result<()> {
        let node = "system:node:node-1";
        let lease = ["coordination.k8s.io", "leases", ""];
        let text = [
            line("1", node, "watch", ["", "pods", ""], ""),
            line("1", node, "watch", ["", "pods", ""], ""),
            line("2", node, "update", lease, ""),
            line("3", node, "update", lease, ""),
            line("4", "kubectl", "create", ["", "pods", ""], "7"),
            line("5", node, "get", ["", "configmaps", ""], "").replacen(
                '{',
                "{\"userAgent\": \"kubeadm/v1.37.2\", ",
                1,
            ),
        ]
        .concat();
        let counted = count(&parse(&(text + "{\"half\": "))?);
        let expected = [("update leases.coordination.k8s.io", 2), ("watch pods", 1)];
        let expected = expected.map(|(kind, count)| (kind.to_owned(), count));
        assert_eq!(counted, BTreeMap::from(expected));
        Ok(())
    }

    #[test]
    fn write_that_leaves_the_version_changes_nothing() -> Result<()> {
        let node = "system:node:node-1";
        let status = ["", "pods", "status"];
        let text = [
            line("1", "kubectl", "create", ["", "pods", ""], "7"),
            line("2", node, "patch", status, "8"),
            line("3", node, "patch", status, "8"),
            line("4", "kubectl", "patch", ["", "pods", ""], "8"),
        ]
        .concat();
        let requests = parse(&text)?;
        assert_eq!(idle(&requests), [&requests[2]]);
        Ok(())
    }
}
