//! `lighter waterfall`: where the time of a pod's start went.

use super::look::table;
use super::runtime::settings;
use crate::cli::WaterfallArgs;
use crate::control;
use crate::waterfall::{Start, draw};
use anyhow::bail;

/// Draws one start, or lists the last ones.
pub async fn run(args: &WaterfallArgs) -> anyhow::Result<u8> {
    super::need_root("waterfall")?;
    let socket = control::socket(&settings(&args.options)?);
    let starts = control::waterfall(&socket).await?;
    let Some(pod) = &args.pod else {
        print!("{}", table(&list(&starts)));
        return Ok(0);
    };
    match starts.iter().rev().find(|s| is(s, pod)) {
        Some(start) => print!("{}", draw(start)),
        None => bail!(
            "pod {pod} is not among the last {} that were started",
            starts.len()
        ),
    }
    Ok(0)
}

fn list(starts: &[Start]) -> Vec<Vec<String>> {
    let header = ["NAMESPACE", "POD", "TOOK", "STATE"]
        .map(str::to_owned)
        .to_vec();
    let row = |start: &Start| {
        vec![
            start.namespace.clone(),
            start.name.clone(),
            format!("{:.1} ms", start.took() as f64 / 1e6),
            if start.settled { "ready" } else { "" }.to_owned(),
        ]
    };
    std::iter::once(header)
        .chain(starts.iter().map(row))
        .collect()
}

/// NAME, NAMESPACE/NAME, or the uid.
fn is(start: &Start, pod: &str) -> bool {
    match pod.split_once('/') {
        Some((namespace, name)) => start.namespace == namespace && start.name == name,
        None => start.name == pod || start.key == pod,
    }
}
