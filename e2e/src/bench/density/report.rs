//! The figures as a table for a person and as JSON for a machine.

use super::Figures;
use crate::bench::table::{self, Row, mib, percentile};
use serde_json::{Value, json};

const ROWS: [Row<Figures>; 12] = [
    ("all at once -> all Ready, ms", |f| f.all_ready),
    ("Secret seen, p50, ms", |f| percentile(&f.secret, 50)),
    ("Secret seen, longest, ms", |f| percentile(&f.secret, 100)),
    ("exit seen, p50, ms", |f| percentile(&f.exit, 50)),
    ("exit seen, longest, ms", |f| percentile(&f.exit, 100)),
    ("kill -9 -> adopted, ms", |f| f.adopted),
    ("pods that lost Ready by it", |f| f.lost_ready as f64),
    ("machine's CPU, empty, cores", |f| f.cpu_empty),
    ("CPU of the pods, cores", |f| f.cpu_full - f.cpu_empty),
    ("node's PSS, full, MiB", |f| mib(f.full.node_pss())),
    ("node's PSS a pod, MiB", |f| {
        (mib(f.full.node_pss()) - mib(f.empty.node_pss())) / f.pods as f64
    }),
    ("machine's memory a pod, MiB", |f| {
        let (before, after) = (f.empty.machine.available, f.full.machine.available);
        (mib(before) - mib(after)) / f.pods as f64
    }),
];

pub fn table(all: &[Figures]) -> String {
    let pods = all.first().map_or(0, |f| f.pods);
    let sides: Vec<_> = all.iter().map(|f| (f.kind, f)).collect();
    table::draw(&format!("a full node ({pods} pods)"), &ROWS, &sides)
}

pub fn json(all: &[Figures]) -> Value {
    let one =
        |f: &Figures| json!({ "kind": f.kind, "summary": table::summary(&ROWS, f), "raw": f });
    all.iter().map(one).collect()
}
