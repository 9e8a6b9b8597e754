//! The figures as a table for a person and as JSON for a machine.

use super::{Figures, floor};
use crate::bench::table::{self, Row, mib, percentile};
use serde_json::{Value, json};

const ROWS: [Row<Figures>; 15] = [
    ("pod start, p50, ms", |f| percentile(&f.start, 50)),
    ("pod start, p99, ms", |f| percentile(&f.start, 99)),
    ("ExecSync, p50, ms", |f| percentile(&f.exec_sync, 50)),
    ("ExecSync, p99, ms", |f| percentile(&f.exec_sync, 99)),
    ("teardown, p50, ms", |f| percentile(&f.teardown, 50)),
    ("teardown, p99, ms", |f| percentile(&f.teardown, 99)),
    ("all at once, start, ms", |f| f.crowd_start),
    ("all at once, teardown, ms", |f| f.crowd_teardown),
    ("pull of the large image, ms", |f| percentile(&f.pull, 50)),
    ("CPU for 1 GB of logs, s", |f| f.log_cpu),
    ("runtime's PSS, empty, MiB", |f| mib(f.empty.node_pss())),
    ("runtime's PSS a pod, MiB", |f| {
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
    let sides: Vec<_> = all.iter().map(|f| (f.kind, f)).collect();
    let mut text = table::draw(&format!("over CRI ({crowd} at once)"), &ROWS, &sides);
    for figures in all {
        if let Some(waterfall) = &figures.waterfall {
            text += &format!("\nthe start of the median pod, milliseconds: {waterfall}");
        }
        if let Some(floor) = &figures.floor {
            let ours = [
                ("start", figures.start.as_slice()),
                ("exec", &figures.exec_sync),
                ("teardown", &figures.teardown),
            ];
            text += &floor::draw(floor, &ours);
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
