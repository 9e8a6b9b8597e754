//! `cpu_manager_state`, as the stock kubelet writes and reads it.
//!
//! kubernetes v1.37 pkg/kubelet/cm/cpumanager/state/checkpoint.go: version 4 has the
//! truth in `data`; the fields beside it are what older kubelets read.

use super::policy::State;
use crate::checkpoint::{self, CheckpointError, checksum, checksum_of_data};
use crate::topology::CpuSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// kubernetes v1.37 pkg/kubelet/cm/cpumanager/cpu_manager.go `cpuManagerStateFileName`.
pub const FILE: &str = "cpu_manager_state";

type Entries = BTreeMap<String, BTreeMap<String, String>>;

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    policy_name: String,
    default_cpu_set: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: Entries,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    #[serde(flatten)]
    old: Data,
    #[serde(default)]
    checksum: u32,
    #[serde(default)]
    data: String,
    #[serde(default, rename = "dataChecksum")]
    data_checksum: u32,
}

/// Writes it.
///
/// # Errors
/// When the file can't be written.
pub fn write(path: &Path, policy: &str, state: &State) -> Result<(), CheckpointError> {
    checkpoint::write(path, &file(policy, state))
}

fn file(policy: &str, state: &State) -> File {
    let own = |(container, cpus): (&String, &CpuSet)| (container.clone(), cpus.to_string());
    let entries = state.exclusive.iter();
    let old = Data {
        policy_name: policy.to_owned(),
        default_cpu_set: state.shared.to_string(),
        entries: entries
            .map(|(pod, all)| (pod.clone(), all.iter().map(own).collect()))
            .collect(),
    };
    let data = serde_json::to_string(&old).unwrap_or_default();
    File {
        checksum: checksum(&described(&old, "")),
        data_checksum: checksum_of_data(&data),
        data,
        old,
    }
}

/// What is written, in the words that its checksum is taken of; `pods` is a field that
/// only version 3 has.
fn described(data: &Data, pods: &str) -> String {
    let entries: Vec<String> = data
        .entries
        .iter()
        .map(|(pod, containers)| {
            let own = containers
                .iter()
                .map(|(name, cpus)| format!("{name}:{cpus}"));
            format!("{pod}:map[{}]", own.collect::<Vec<_>>().join(" "))
        })
        .collect();
    format!(
        "(*state.CPUManagerCheckpoint){{PolicyName:(string){} DefaultCPUSet:(string){} \
         Entries:(map[string]map[string]string)map[{}] {pods}Checksum:(checksum.Checksum)0}}",
        data.policy_name,
        data.default_cpu_set,
        entries.join(" ")
    )
}

/// What was written last, by us or a stock kubelet of 1.18 or later; `None` if nobody did.
///
/// # Errors
/// When it is damaged, or another policy's.
pub fn read(path: &Path, policy: &str) -> Result<Option<State>, CheckpointError> {
    let Some(file) = checkpoint::read::<File>(path)? else {
        return Ok(None);
    };
    let data = truth(&file).map_err(|why| checkpoint::damaged(path, why))?;
    if data.policy_name != policy {
        return Err(CheckpointError::OtherPolicy {
            path: path.to_owned(),
            written: data.policy_name,
            configured: policy.to_owned(),
        });
    }
    let state = parsed(&data).map_err(|e| checkpoint::damaged(path, e.to_string()))?;
    Ok(Some(state))
}

fn truth(file: &File) -> Result<Data, String> {
    if !file.data.is_empty() || file.data_checksum != 0 {
        if checksum_of_data(&file.data) != file.data_checksum {
            return Err("its checksum is wrong".to_owned());
        }
        return serde_json::from_str(&file.data).map_err(|e| e.to_string());
    }
    // Versions 2 and 3; the oldest files have none.
    let versions = [
        "",
        "PodEntries:(state.PodCPUAssignments)map[] ",
        "PodEntries:(state.PodCPUAssignments)<nil> ",
    ];
    let right = |pods: &&str| checksum(&described(&file.old, pods)) == file.checksum;
    match file.checksum == 0 || versions.iter().any(right) {
        true => Ok(file.old.clone()),
        false => Err("its checksum is wrong".to_owned()),
    }
}

fn parsed(data: &Data) -> Result<State, crate::topology::ParseError> {
    let mut state = State {
        shared: data.default_cpu_set.parse()?,
        exclusive: BTreeMap::new(),
    };
    for (pod, containers) in &data.entries {
        for (container, cpus) in containers {
            let own = state.exclusive.entry(pod.clone()).or_default();
            own.insert(container.clone(), cpus.parse()?);
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by kubernetes v1.37.2's own code.
    const UPSTREAM: &str = r#"{"policyName":"static","defaultCpuSet":"0-1","entries":{"u1":{"a":"2,4","b":"1"},"u2":{"c":"3"}},"checksum":2579590863,"data":"{\"policyName\":\"static\",\"defaultCpuSet\":\"0-1\",\"entries\":{\"u1\":{\"a\":\"2,4\",\"b\":\"1\"},\"u2\":{\"c\":\"3\"}}}","dataChecksum":727525388}"#;
    const EMPTY: &str = r#"{"policyName":"static","defaultCpuSet":"0-1","checksum":1636926438,"data":"{\"policyName\":\"static\",\"defaultCpuSet\":\"0-1\"}","dataChecksum":989860433}"#;
    /// Version 2, as kubelets before 1.36 wrote it.
    const OLD: &str = r#"{"policyName":"static","defaultCpuSet":"0-1","entries":{"u1":{"a":"2,4","b":"1"},"u2":{"c":"3"}},"checksum":2579590863}"#;
    /// Version 3, of kubelets with PodLevelResourceManagers.
    const WITH_PODS: &str = r#"{"policyName":"static","defaultCpuSet":"0-1","entries":{"u1":{"a":"2,4","b":"1"},"u2":{"c":"3"}},"checksum":320969614}"#;

    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("cpu-state-{name}-{}", std::process::id()))
    }

    fn sample() -> State {
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        let pods = [
            ("u1", vec![("a", "2,4"), ("b", "1")]),
            ("u2", vec![("c", "3")]),
        ];
        let own = |all: Vec<(&str, &str)>| {
            let all = all.into_iter();
            all.map(|(c, cpus)| (c.to_owned(), set(cpus))).collect()
        };
        State {
            shared: set("0-1"),
            exclusive: pods.map(|(pod, all)| (pod.to_owned(), own(all))).into(),
        }
    }

    #[test]
    fn what_is_written_is_what_kubernetes_writes() {
        let path = path("same");
        for (state, expected) in [
            (sample(), UPSTREAM),
            (
                State {
                    exclusive: BTreeMap::new(),
                    ..sample()
                },
                EMPTY,
            ),
        ] {
            write(&path, "static", &state).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn files_of_every_version_are_read() {
        let path = path("read");
        assert!(read(&path, "static").unwrap().is_none());
        for text in [UPSTREAM, OLD, WITH_PODS] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path, "static").unwrap(), Some(sample()));
        }
        let other = read(&path, "none");
        assert!(matches!(other, Err(CheckpointError::OtherPolicy { .. })));
        for damaged in [
            UPSTREAM.replace("\\\"1\\\"", "\\\"0\\\""),
            OLD.replace("\"1\"", "\"0\""),
            "{".to_owned(),
        ] {
            std::fs::write(&path, &damaged).unwrap();
            let read = read(&path, "static");
            assert!(
                matches!(read, Err(CheckpointError::Damaged { .. })),
                "{damaged}"
            );
        }
        std::fs::remove_file(path).unwrap();
    }
}
