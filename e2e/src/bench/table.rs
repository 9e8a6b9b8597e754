//! Figures of both sides beside each other, with their ratio.

use crate::node::Kind;
use serde_json::{Map, Value, json};

/// What, and its value on one side.
pub type Row<F> = (&'static str, fn(&F) -> f64);

/// A head line and a line a row; the ratio where both sides were measured.
pub fn draw<F>(title: &str, rows: &[Row<F>], sides: &[(Kind, &F)]) -> String {
    let of = |kind: Kind| sides.iter().find(|(k, _)| *k == kind).map(|(_, f)| *f);
    let both = of(Kind::Lighter).zip(of(Kind::Stock));
    let mut text = format!("\n{title:<32}");
    for (kind, _) in sides {
        text += &format!("{:>12}", kind.to_string());
    }
    text += if both.is_some() {
        "   lighter/stock\n"
    } else {
        "\n"
    };
    for (name, value) in rows {
        text += &format!("{name:<32}");
        for (_, figures) in sides {
            text += &format!("{:>12.2}", value(figures));
        }
        if let Some((lighter, stock)) = both {
            text += &format!("{:>16.3}", value(lighter) / value(stock));
        }
        text += "\n";
    }
    text
}

/// The rows of one side as JSON.
pub fn summary<F>(rows: &[Row<F>], figures: &F) -> Value {
    let pairs = rows
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json!(value(figures))));
    pairs.collect::<Map<_, _>>().into()
}

pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The value below which `percent` of the samples lie: nearest rank.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
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

    #[test]
    fn ratio_is_drawn_when_both_sides_were_measured() {
        let rows: [Row<f64>; 1] = [("start, ms", |f| *f)];
        let both = draw("", &rows, &[(Kind::Lighter, &2.0), (Kind::Stock, &8.0)]);
        assert!(both.contains("0.250"), "{both}");
        let one = draw("", &rows, &[(Kind::Lighter, &2.0)]);
        assert!(!one.contains("lighter/stock"), "{one}");
    }
}
