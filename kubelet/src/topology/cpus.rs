//! Where every CPU is, as the kernel tells it below /sys/devices/system.

use super::{CpuSet, NodeMask};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One CPU: a hardware thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// The lowest CPU of the same core.
    pub core: u32,
    /// `physical_package_id`.
    pub socket: u32,
    /// The NUMA node.
    pub node: u32,
    /// The last-level cache that is smaller than a NUMA node; the socket where there is none.
    pub uncore: u32,
}

/// What CPUs are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Node,
    Socket,
    Uncore,
    Core,
}

impl Cpu {
    /// Its group at a level.
    pub fn at(&self, level: Level) -> u32 {
        match level {
            Level::Node => self.node,
            Level::Socket => self.socket,
            Level::Uncore => self.uncore,
            Level::Core => self.core,
        }
    }
}

/// The CPUs that are online.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CpuTopology {
    cpus: BTreeMap<u32, Cpu>,
}

/// A machine that does not say what it is made of.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TopologyError {
    #[error("read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} says {text:?}, which is no CPU list or number")]
    Parse { path: PathBuf, text: String },
}

impl CpuTopology {
    /// Of these CPUs.
    pub fn of(cpus: impl IntoIterator<Item = (u32, Cpu)>) -> CpuTopology {
        CpuTopology {
            cpus: cpus.into_iter().collect(),
        }
    }

    /// Reads it; `root` is usually /sys/devices/system.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn read(root: &Path) -> Result<CpuTopology, TopologyError> {
        let online: CpuSet = read(&root.join("cpu/online"))?;
        let nodes = nodes(root)?;
        let mut cpus = BTreeMap::new();
        for cpu in online.iter() {
            let dir = root.join(format!("cpu/cpu{cpu}"));
            let threads: CpuSet = read(&dir.join("topology/thread_siblings_list"))?;
            let threads = threads.and(&online);
            let mut own = nodes.iter().filter(|(_, set)| set.has(cpu));
            let (node, beside) = match own.next() {
                Some((node, set)) => (*node, set.and(&online)),
                None => (0, online.clone()),
            };
            let socket = read(&dir.join("topology/physical_package_id")).unwrap_or(0);
            let place = Cpu {
                core: threads.iter().next().unwrap_or(cpu),
                socket,
                node,
                uncore: uncore(&dir, threads.len(), beside.len()).unwrap_or(socket),
            };
            cpus.insert(cpu, place);
        }
        Ok(CpuTopology { cpus })
    }

    /// All CPUs.
    pub fn all(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// One of them.
    pub fn get(&self, cpu: u32) -> Option<&Cpu> {
        self.cpus.get(&cpu)
    }

    /// Groups of a level, by number.
    pub fn ids(&self, level: Level) -> BTreeSet<u32> {
        self.cpus.values().map(|c| c.at(level)).collect()
    }

    /// Groups of a level that some CPUs are in, by number.
    pub fn ids_of(&self, level: Level, cpus: &CpuSet) -> BTreeSet<u32> {
        let places = cpus.iter().filter_map(|c| self.get(c));
        places.map(|c| c.at(level)).collect()
    }

    /// Those of some CPUs that are in a group.
    pub fn within(&self, level: Level, id: u32, cpus: &CpuSet) -> CpuSet {
        let inside = |cpu: &u32| self.get(*cpu).is_some_and(|c| c.at(level) == id);
        cpus.iter().filter(inside).collect()
    }

    /// CPUs that are in groups of a level on average.
    pub fn per(&self, level: Level) -> usize {
        self.cpus.len() / self.ids(level).len().max(1)
    }

    /// Every NUMA node that has a CPU.
    pub fn nodes(&self) -> NodeMask {
        NodeMask::of(self.ids(Level::Node))
    }

    /// Those of some CPUs that are on some NUMA nodes.
    pub fn on_nodes(&self, nodes: NodeMask, cpus: &CpuSet) -> CpuSet {
        let inside = |cpu: &u32| self.get(*cpu).is_some_and(|c| nodes.has(c.node));
        cpus.iter().filter(inside).collect()
    }
}

fn read<T: std::str::FromStr>(path: &Path) -> Result<T, TopologyError> {
    let text = std::fs::read_to_string(path).map_err(|source| TopologyError::Read {
        path: path.to_owned(),
        source,
    })?;
    text.trim().parse().map_err(|_| TopologyError::Parse {
        path: path.to_owned(),
        text: text.trim().to_owned(),
    })
}

/// NUMA nodes and their CPUs; none where the kernel was built without them.
fn nodes(root: &Path) -> Result<BTreeMap<u32, CpuSet>, TopologyError> {
    let entries = std::fs::read_dir(root.join("node"));
    let names = entries.into_iter().flatten().flatten();
    let numbers = names.filter_map(|e| {
        let name = e.file_name().into_string().ok()?;
        name.strip_prefix("node")?.parse::<u32>().ok()
    });
    let one = |n: u32| Ok((n, read(&root.join(format!("node/node{n}/cpulist")))?));
    numbers.map(one).collect()
}

/// The cache of level 3 or higher that more than one core and less than the whole
/// node share, as cAdvisor has it.
fn uncore(cpu: &Path, threads: usize, beside: usize) -> Option<u32> {
    let mut found = None;
    for index in std::fs::read_dir(cpu.join("cache")).ok()?.flatten() {
        let dir = index.path();
        let level: Result<u32, _> = read(&dir.join("level"));
        let shared: Result<CpuSet, _> = read(&dir.join("shared_cpu_list"));
        let (Ok(level), Ok(shared)) = (level, shared) else {
            continue;
        };
        if level > 2 && shared.len() > threads && shared.len() != beside {
            found = read(&dir.join("id")).ok();
        }
    }
    found
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// Sockets of one NUMA node each; CPUs numbered as Linux does, first threads of
    /// all cores, then second ones, cores in turn to each socket when `interleaved`.
    pub fn machine(sockets: u32, cores: u32, threads: u32, interleaved: bool) -> CpuTopology {
        let total = sockets * cores;
        let place = |cpu: u32| {
            let core = cpu % total;
            let socket = match interleaved {
                true => core % sockets,
                false => core / cores,
            };
            Cpu {
                core,
                socket,
                node: socket,
                uncore: socket,
            }
        };
        CpuTopology::of((0..total * threads).map(|cpu| (cpu, place(cpu))))
    }

    /// One with more NUMA nodes and caches in each socket.
    pub fn divided(base: &CpuTopology, nodes: u32, caches: u32) -> CpuTopology {
        let cores: Vec<u32> = base.ids(Level::Core).into_iter().collect();
        let sockets = base.ids(Level::Socket).len() as u32;
        let each = cores.len() as u32 / sockets;
        let place = |cpu: u32| {
            let mut one = *base.get(cpu)?;
            let inside = cores.iter().filter(|c| {
                **c < one.core && base.get(**c).is_some_and(|p| p.socket == one.socket)
            });
            let rank = inside.count() as u32;
            one.node = one.socket * nodes + rank * nodes / each;
            one.uncore = one.socket * caches + rank * caches / each;
            Some((cpu, one))
        };
        CpuTopology::of(base.all().iter().filter_map(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `lscpu -e` and /sys of a machine with two sockets of two cores, two threads
    /// each, say.
    fn recorded(root: &Path) {
        let write = |path: String, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        };
        write("cpu/online".into(), "0-7");
        write("node/node0/cpulist".into(), "0-1,4-5");
        write("node/node1/cpulist".into(), "2-3,6-7");
        for cpu in 0..8_u32 {
            let core = cpu % 4;
            let dir = format!("cpu/cpu{cpu}");
            write(
                format!("{dir}/topology/thread_siblings_list"),
                &format!("{core},{}", core + 4),
            );
            write(
                format!("{dir}/topology/physical_package_id"),
                &(core / 2).to_string(),
            );
            write(format!("{dir}/cache/index3/level"), "3");
            write(format!("{dir}/cache/index3/id"), &(core / 2).to_string());
            let all = ["0-1,4-5", "2-3,6-7"][core as usize / 2];
            write(format!("{dir}/cache/index3/shared_cpu_list"), all);
        }
    }

    #[test]
    fn two_sockets_with_smt_are_read_from_sys() {
        let root = std::env::temp_dir().join(format!("cpu-topology-{}", std::process::id()));
        recorded(&root);
        let read = CpuTopology::read(&root).unwrap();
        assert_eq!(read, testing::machine(2, 2, 2, false));
        assert_eq!(read.per(Level::Core), 2);
        assert_eq!(read.per(Level::Socket), 4);
        // One that is offline counts for nothing.
        std::fs::write(root.join("cpu/online"), "0-3\n").unwrap();
        let read = CpuTopology::read(&root).unwrap();
        assert_eq!((read.all().len(), read.per(Level::Core)), (4, 1));
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_machine_that_this_runs_on_is_understood() {
        let read = CpuTopology::read(Path::new("/sys/devices/system")).unwrap();
        assert!(!read.all().is_empty());
        assert!(!read.nodes().is_empty());
    }
}
