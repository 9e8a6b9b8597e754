//! The figures as a table for a person and as JSON for a machine.

use super::Figures;
use crate::node::Kind;
use serde_json::{Value, json};

/// A row: what, and its value on one node.
type Row = (&'static str, fn(&Figures) -> f64);

const ROWS: [Row; 12] = [
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
    let mut text = format!("\n{:<32}", format!("(full: {crowd} pods)"));
    all.iter()
        .for_each(|f| text += &format!("{:>12}", f.kind.to_string()));
    text += if ratio(all, ROWS[0].1).is_some() {
        "   lighter/stock\n"
    } else {
        "\n"
    };
    for (name, value) in ROWS {
        text += &format!("{name:<32}");
        all.iter()
            .for_each(|f| text += &format!("{:>12.2}", value(f)));
        if let Some(ratio) = ratio(all, value) {
            text += &format!("{ratio:>16.3}");
        }
        text += "\n";
    }
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
    let rows = |f: &Figures| -> Value {
        ROWS.iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value(f))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let nodes: Vec<Value> = all
        .iter()
        .map(|f| json!({ "kind": f.kind, "summary": rows(f), "raw": f }))
        .collect();
    json!({ "nodes": nodes })
}

fn ratio(all: &[Figures], value: fn(&Figures) -> f64) -> Option<f64> {
    let of = |kind: Kind| all.iter().find(|f| f.kind == kind).map(value);
    Some(of(Kind::Lighter)? / of(Kind::Stock)?)
}

fn per_pod(figures: &Figures, total: f64) -> f64 {
    total / figures.crowd.max(1) as f64
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The value below which `percent` of the samples lie: nearest rank.
fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_the_nearest_rank() {
        let samples: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(percentile(&samples, 50), 10.0);
        assert_eq!(percentile(&samples, 99), 20.0);
        assert!(percentile(&[], 50).is_nan());
    }
}
