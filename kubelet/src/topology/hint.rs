//! Where a container could have what it asks for.

use super::NodeMask;

/// One place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// NUMA nodes; `None`: it does not matter.
    pub nodes: Option<NodeMask>,
    /// As few nodes as the machine could do it with.
    pub preferred: bool,
}
