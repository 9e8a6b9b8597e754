//! What a node costs: PSS of each of its processes, and what the whole machine says.

use crate::cgroup;
use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;

/// KiB throughout.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    /// Program name -> how many, and their PSS together; the pods' own processes apart.
    pub node: BTreeMap<String, (usize, u64)>,
    pub pods: u64,
    pub machine: Machine,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Machine {
    pub available: u64,
    pub slab: u64,
    pub page_tables: u64,
}

impl Sample {
    pub fn node_pss(&self) -> u64 {
        self.node.values().map(|(_, pss)| pss).sum()
    }
}

/// The processes of the measured pods; everything else in the node's cgroup is the node's cost,
/// a pause container too.
const OWN: [&str; 2] = ["sh", "sleep"];

pub fn sample(group: &str) -> Result<Sample> {
    let mut sample = Sample {
        machine: machine()?,
        ..Sample::default()
    };
    for pid in cgroup::members(group) {
        // A process that ended meanwhile costs nothing.
        let Some((name, pss)) = process(pid) else {
            continue;
        };
        if name == "bed" {
            continue;
        }
        if OWN.contains(&name.as_str()) {
            sample.pods += pss;
        } else {
            let entry = sample.node.entry(name).or_default();
            *entry = (entry.0 + 1, entry.1 + pss);
        }
    }
    Ok(sample)
}

fn process(pid: i32) -> Option<(String, u64)> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm"))
        .ok()?
        .trim()
        .to_owned();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some((family(name), field(&rollup, "Pss:")?))
}

/// A monitor is named after its sandbox; together they are one row.
fn family(name: String) -> String {
    let id = name.strip_prefix("lighter-").unwrap_or_default();
    let is_id = !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id {
        "lighter-<sandbox>".to_owned()
    } else {
        name
    }
}

fn machine() -> Result<Machine> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let get = |name: &str| field(&text, name).with_context(|| format!("/proc/meminfo: no {name}"));
    Ok(Machine {
        available: get("MemAvailable:")?,
        slab: get("Slab:")?,
        page_tables: get("PageTables:")?,
    })
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|l| l.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_are_one_family_and_the_agent_is_not_of_it() {
        assert_eq!(family("lighter-4f10515".into()), "lighter-<sandbox>");
        assert_eq!(family("lighter-spawner".into()), "lighter-spawner");
        assert_eq!(family("lighter".into()), "lighter");
    }

    #[test]
    fn field_is_the_number_of_the_line_that_begins_so() {
        let text = "Pss_Dirty:  7 kB\nPss:   1234 kB\n";
        assert_eq!(field(text, "Pss:"), Some(1234));
        assert_eq!(field(text, "Rss:"), None);
    }
}
