//! What the node has asked of the API server during all tests before: no request of a kind that
//! a stock kubelet does not make, none denied, no write that changes nothing.

use crate::kit::Space;
use anyhow::{Result, ensure};
use e2e::cluster::audit;
use e2e::node::Maker;
use std::collections::BTreeSet;

crate::tests!(requests_are_of_a_stock_kubelets_kinds_and_none_is_for_nothing: alone);

/// What kubelet 1.37.2 asked for during the same tests, and kubeadm's join before them.
const KINDS: &str = include_str!("manners.txt");

fn requests_are_of_a_stock_kubelets_kinds_and_none_is_for_nothing(space: &Space) -> Result<()> {
    let requests = audit::read(&space.cluster().control_plane)?;
    let known: BTreeSet<&str> = KINDS.lines().collect();
    let counted = audit::count(&requests);
    ensure!(
        counted.len() > 10,
        "the log is of {} kinds alone",
        counted.len()
    );
    let new: Vec<_> = counted
        .iter()
        .filter(|(kind, _)| !known.contains(kind.as_str()))
        .collect();
    ensure!(new.is_empty(), "not asked by a stock kubelet: {new:?}");
    // A stock node has some of both.
    if space.suite.kind().kubelet() != Maker::Lighter {
        return Ok(());
    }
    let denied: Vec<String> = audit::denied(&requests)
        .iter()
        .map(ToString::to_string)
        .collect();
    ensure!(denied.is_empty(), "denied: {denied:#?}");
    let idle: Vec<String> = audit::idle(&requests)
        .iter()
        .map(ToString::to_string)
        .collect();
    ensure!(idle.is_empty(), "changed nothing: {idle:#?}");
    Ok(())
}
