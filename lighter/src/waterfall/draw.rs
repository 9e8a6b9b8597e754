//! A start as text.

use super::starts::{Row, Start};

/// Cells of the bars.
const WIDTH: u64 = 40;
/// Room for names.
const NAMES: usize = 34;

/// A head line, then one line a row: when it began, how long it took, what it
/// was, and a bar where its time was. Milliseconds.
pub fn draw(start: &Start) -> String {
    let end = start.took().max(1);
    let pod = match start.namespace.as_str() {
        "" => start.name.clone(),
        namespace => format!("{namespace}/{}", start.name),
    };
    let mut text = format!("{pod}: {} ms from when the node heard of it\n", millis(end));
    text.push_str("       at      took\n");
    let outermost = start.rows.iter().map(|r| r.depth).min().unwrap_or(0);
    for row in &start.rows {
        text.push_str(&line(row, outermost, end));
    }
    text
}

fn line(row: &Row, outermost: usize, end: u64) -> String {
    let column = |at: u64| usize::try_from(at.saturating_mul(WIDTH) / end).unwrap_or(0);
    let from = column(row.from).min(WIDTH as usize - 1);
    let length = column(row.from + row.took).saturating_sub(from).max(1);
    let name = format!("{}{}", "  ".repeat(row.depth - outermost), row.name);
    format!(
        "{:>9} {:>9}  {name:<NAMES$} {}{}\n",
        millis(row.from),
        millis(row.took),
        " ".repeat(from),
        "#".repeat(length)
    )
}

fn millis(nanoseconds: u64) -> String {
    format!("{:.2}", nanoseconds as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_bar_where_its_time_was() {
        let row = |name: &str, depth, from, took| Row {
            name: name.into(),
            depth,
            from,
            took,
        };
        let start = Start {
            namespace: "default".into(),
            name: "web".into(),
            settled: true,
            rows: vec![
                row("RunSandbox", 1, 0, 10_000_000),
                row("network", 2, 5_000_000, 5_000_000),
                row("StartContainer web", 1, 10_000_000, 10_000_000),
            ],
            ..Start::default()
        };
        let text = draw(&start);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "default/web: 20.00 ms from when the node heard of it"
        );
        let bar = |line: &str, from: usize, length: usize| {
            line.ends_with(&format!(" {}{}", " ".repeat(from), "#".repeat(length)))
        };
        assert!(bar(lines[2], 0, 20), "{text}");
        assert!(
            lines[3].contains("  network") && bar(lines[3], 10, 10),
            "{text}"
        );
        assert!(bar(lines[4], 20, 20), "{text}");
    }
}
