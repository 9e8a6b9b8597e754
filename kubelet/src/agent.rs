//! Wires the node: sources, pods, status, node, server.
