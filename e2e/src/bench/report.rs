//! The figures as a table for a person and as JSON for a machine.

use super::table::{self, Row, percentile};
use super::{Figures, table::mib};
use serde_json::{Value, json};

const ROWS: [Row<Figures>; 12] = [
    ("create -> Ready, p50, ms", |f| percentile(&f.ready, 50)),
    ("create -> Ready, p99, ms", |f| percentile(&f.ready, 99)),
    ("all at once -> all Ready, ms", |f| f.crowd_ready),
    ("delete -> gone, p50, ms", |f| percentile(&f.gone, 50)),
    ("delete -> gone, p99, ms", |f| percentile(&f.gone, 99)),
    ("all deleted -> all gone, ms", |f| f.crowd_gone),
    ("node's PSS, empty, MiB", |f| mib(f.empty.node_pss())),
    ("node's PSS, full, MiB", |f| mib(f.full.node_pss())),
    ("node's PSS a pod, MiB", |f| {
        per_pod(f, mib(f.full.node_pss()) - mib(f.empty.node_pss()))
    }),
    ("machine's memory a pod, MiB", |f| {
        per_pod(
            f,
            mib(f.empty.machine.available) - mib(f.full.machine.available),
        )
    }),
    ("slab a pod, MiB", |f| {
        per_pod(f, mib(f.full.machine.slab) - mib(f.empty.machine.slab))
    }),
    ("page tables a pod, MiB", |f| {
        per_pod(
            f,
            mib(f.full.machine.page_tables) - mib(f.empty.machine.page_tables),
        )
    }),
];

pub fn table(all: &[Figures]) -> String {
    let crowd = all.first().map_or(0, |f| f.crowd);
    let kinds: Vec<_> = all.iter().map(|f| (f.kind, f)).collect();
    let mut text = table::draw(&format!("(full: {crowd} pods)"), &ROWS, &kinds);
    for waterfall in all.iter().filter_map(|f| f.waterfall.as_ref()) {
        text += &format!("\nthe start of one pod, milliseconds: {waterfall}");
    }
    for figures in all {
        text += &format!(
            "\nprocesses of the {} node, empty and full (how many, PSS MiB):\n",
            figures.kind
        );
        for (name, (count, pss)) in &figures.full.node {
            let (before, pss_before) = figures.empty.node.get(name).copied().unwrap_or_default();
            text += &format!(
                "  {name:<24}{before:>4} {:>9.2}{count:>6} {:>9.2}\n",
                mib(pss_before),
                mib(*pss)
            );
        }
    }
    text
}

pub fn json(all: &[Figures]) -> Value {
    let one =
        |f: &Figures| json!({ "kind": f.kind, "summary": table::summary(&ROWS, f), "raw": f });
    all.iter().map(one).collect()
}

fn per_pod(figures: &Figures, total: f64) -> f64 {
    total / figures.crowd.max(1) as f64
}
