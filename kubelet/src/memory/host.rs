//! The memory of NUMA nodes, as the kernel tells it below /sys/devices/system.

use super::table::Sizes;
use crate::node::machine::{hugepages, meminfo_bytes};
use std::collections::BTreeMap;
use std::path::Path;

/// By node and type, in bytes; one node where the kernel has none.
pub fn read(sys: &Path) -> BTreeMap<u32, Sizes> {
    let entries = std::fs::read_dir(sys.join("node"));
    let entries = entries.into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let id: u32 = name.strip_prefix("node")?.parse().ok()?;
        let text = std::fs::read_to_string(entry.path().join("meminfo")).ok()?;
        // Its lines begin with "Node 0 ".
        let own = text.replace(&format!("Node {id} "), "");
        let memory = meminfo_bytes(&own, "MemTotal")?;
        Some((
            id,
            sizes(memory, &hugepages(&entry.path().join("hugepages"))),
        ))
    };
    let nodes: BTreeMap<u32, Sizes> = entries.filter_map(one).collect();
    if !nodes.is_empty() {
        return nodes;
    }
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = meminfo_bytes(&text, "MemTotal").unwrap_or_default();
    let pages = hugepages(Path::new("/sys/kernel/mm/hugepages"));
    BTreeMap::from([(0, sizes(memory, &pages))])
}

fn sizes(memory: u64, pages: &BTreeMap<u64, u64>) -> Sizes {
    let pages = pages
        .iter()
        .map(|(size, count)| (crate::node::resources::hugepage_name(*size), size * count));
    let memory = ("memory".to_owned(), memory);
    pages.chain([memory]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_huge_pages_of_each_node_are_read() {
        let root = std::env::temp_dir().join(format!("numa-memory-{}", std::process::id()));
        for node in [0, 1] {
            let dir = root.join(format!("node/node{node}"));
            let pages = dir.join("hugepages/hugepages-2048kB");
            std::fs::create_dir_all(&pages).unwrap();
            std::fs::write(pages.join("nr_hugepages"), "3\n").unwrap();
            let text = format!("Node {node} MemTotal:       8 kB\nNode {node} MemFree: 1 kB\n");
            std::fs::write(dir.join("meminfo"), text).unwrap();
        }
        let read = read(&root);
        assert_eq!(read.len(), 2);
        assert_eq!(read[&1]["memory"], 8192);
        assert_eq!(read[&1]["hugepages-2Mi"], 3 * (2 << 20));
        std::fs::remove_dir_all(root).unwrap();
    }
}
