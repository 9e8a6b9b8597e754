//! `memory_manager_state`, as the stock kubelet writes and reads it.
//!
//! kubernetes v1.37 pkg/kubelet/cm/memorymanager/state/checkpoint.go: version 3 has the
//! truth in `data`; the fields beside it are what older kubelets read.

use super::table::{Block, Blocks, Node, State, Table};
use crate::checkpoint::{self, CheckpointError, checksum, checksum_of_data};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// kubernetes v1.37 pkg/kubelet/cm/memorymanager/memory_manager.go.
pub const FILE: &str = "memory_manager_state";

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    policy_name: String,
    #[serde(default)]
    machine_state: BTreeMap<u32, Node>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, BTreeMap<String, Blocks>>,
}

/// The fields of [`Data`] again: numbers as keys can't be read through serde's flatten.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    policy_name: String,
    #[serde(default)]
    machine_state: BTreeMap<u32, Node>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, BTreeMap<String, Blocks>>,
    #[serde(default)]
    checksum: u32,
    #[serde(default)]
    data: String,
    #[serde(default)]
    data_checksum: u32,
}

/// Writes it.
///
/// # Errors
/// When the file can't be written.
pub fn write(path: &Path, policy: &str, state: &State) -> Result<(), CheckpointError> {
    let data = Data {
        policy_name: policy.to_owned(),
        machine_state: state.machine.clone(),
        entries: state.entries.clone(),
    };
    let text = serde_json::to_string(&data).unwrap_or_default();
    let file = File {
        checksum: checksum(&described(&data, "")),
        data_checksum: checksum_of_data(&text),
        data: text,
        policy_name: data.policy_name,
        machine_state: data.machine_state,
        entries: data.entries,
    };
    checkpoint::write(path, &file)
}

/// What was written last; `None` if nobody did.
///
/// # Errors
/// When it is damaged, or another policy's.
pub fn read(path: &Path, policy: &str) -> Result<Option<State>, CheckpointError> {
    let Some(file) = checkpoint::read::<File>(path)? else {
        return Ok(None);
    };
    let data = truth(file).map_err(|why| checkpoint::damaged(path, why))?;
    if data.policy_name != policy {
        return Err(CheckpointError::OtherPolicy {
            path: path.to_owned(),
            written: data.policy_name,
            configured: policy.to_owned(),
        });
    }
    Ok(Some(State {
        machine: data.machine_state,
        entries: data.entries,
    }))
}

fn truth(file: File) -> Result<Data, String> {
    if !file.data.is_empty() || file.data_checksum != 0 {
        if checksum_of_data(&file.data) != file.data_checksum {
            return Err("its checksum is wrong".to_owned());
        }
        return serde_json::from_str(&file.data).map_err(|e| e.to_string());
    }
    let old = Data {
        policy_name: file.policy_name,
        machine_state: file.machine_state,
        entries: file.entries,
    };
    let versions = [
        "",
        "PodEntries:(state.PodMemoryAssignments)map[] ",
        "PodEntries:(state.PodMemoryAssignments)<nil> ",
    ];
    let right = versions
        .iter()
        .any(|pods| checksum(&described(&old, pods)) == file.checksum);
    match right {
        true => Ok(old),
        false => Err("its checksum is wrong".to_owned()),
    }
}

/// What is written, in the words that its checksum is taken of; `pods` is a field that
/// only version 2 has.
fn described(data: &Data, pods: &str) -> String {
    let nodes = data.machine_state.iter().map(|(id, node)| {
        let tables = node.memory_map.iter().map(|(kind, t)| table(kind, t));
        format!(
            "{id}:<*>{{NumberOfAssignments:(int){} \
             MemoryMap:(map[v1.ResourceName]*state.MemoryTable)map[{}] Cells:([]int)[{}]}}",
            node.blocks,
            join(tables),
            join(node.cells.iter().map(u32::to_string))
        )
    });
    let pod = |(uid, all): (&String, &BTreeMap<String, Blocks>)| {
        let containers = all
            .iter()
            .map(|(name, blocks)| format!("{name}:[{}]", join(blocks.iter().map(block))));
        format!("{uid}:map[{}]", join(containers))
    };
    format!(
        "(*state.MemoryManagerCheckpoint){{PolicyName:(string){} \
         MachineState:(state.NUMANodeMap)map[{}] \
         Entries:(state.ContainerMemoryAssignments)map[{}] {pods}Checksum:(checksum.Checksum)0}}",
        data.policy_name,
        join(nodes),
        join(data.entries.iter().map(pod))
    )
}

fn table(kind: &str, t: &Table) -> String {
    format!(
        "{kind}:<*>{{TotalMemSize:(uint64){} SystemReserved:(uint64){} Allocatable:(uint64){} \
         Reserved:(uint64){} Free:(uint64){}}}",
        t.total, t.system_reserved, t.allocatable, t.reserved, t.free
    )
}

fn block(b: &Block) -> String {
    let nodes = join(b.nodes.iter().map(u32::to_string));
    let (kind, size) = (&b.kind, b.size);
    format!("{{NUMAAffinity:([]int)[{nodes}] Type:(v1.ResourceName){kind} Size:(uint64){size}}}")
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by kubernetes v1.37.2's own code.
    const UPSTREAM: &str = r#"{"policyName":"Static","machineState":{"0":{"numberOfAssignments":1,"memoryMap":{"hugepages-2Mi":{"total":0,"systemReserved":0,"allocatable":0,"reserved":0,"free":0},"memory":{"total":10,"systemReserved":1,"allocatable":9,"reserved":2,"free":7}},"cells":[0]}},"entries":{"u":{"c":[{"numaAffinity":[0,1],"type":"memory","size":2}]}},"checksum":2576538810,"data":"{\"policyName\":\"Static\",\"machineState\":{\"0\":{\"numberOfAssignments\":1,\"memoryMap\":{\"hugepages-2Mi\":{\"total\":0,\"systemReserved\":0,\"allocatable\":0,\"reserved\":0,\"free\":0},\"memory\":{\"total\":10,\"systemReserved\":1,\"allocatable\":9,\"reserved\":2,\"free\":7}},\"cells\":[0]}},\"entries\":{\"u\":{\"c\":[{\"numaAffinity\":[0,1],\"type\":\"memory\",\"size\":2}]}}}","dataChecksum":2331641284}"#;
    const NONE: &str = r#"{"policyName":"None","machineState":{},"checksum":4236770233,"data":"{\"policyName\":\"None\",\"machineState\":{}}","dataChecksum":3093843326}"#;

    #[test]
    fn what_kubernetes_wrote_is_read_and_written_again_as_it_was() {
        let path = std::env::temp_dir().join(format!("memory-state-{}", std::process::id()));
        for (text, policy) in [(UPSTREAM, "Static"), (NONE, "None")] {
            std::fs::write(&path, text).unwrap();
            let state = read(&path, policy).unwrap().unwrap();
            write(&path, policy, &state).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        // Version 1, as kubelets before 1.36 wrote it.
        let old = format!("{}}}", UPSTREAM.split(r#","data":"#).next().unwrap());
        std::fs::write(&path, &old).unwrap();
        let state = read(&path, "Static").unwrap().unwrap();
        assert_eq!(state.entries["u"]["c"][0].size, 2);
        std::fs::write(&path, old.replace("\"free\":7", "\"free\":8")).unwrap();
        assert!(matches!(
            read(&path, "Static"),
            Err(CheckpointError::Damaged { .. })
        ));
        std::fs::remove_file(path).unwrap();
    }
}
