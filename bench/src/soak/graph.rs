//! A series as text: one bar for each stretch of time, from zero.

use std::fmt::Write;

const COLUMNS: usize = 60;
const ROWS: usize = 8;
/// Eighths of a row.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `values` at equal distances in time; each bar is the mean of those that share it.
pub(crate) fn graph(values: &[f64], unit: &str, minutes: f64) -> String {
    let bars = bars(values);
    let top = bars.iter().copied().fold(0.0, f64::max);
    let mut text = String::new();
    for row in (0..ROWS).rev() {
        let label = if row == ROWS - 1 { format!("{top:.1} {unit}") } else { String::new() };
        let _ = write!(text, "   {label:>10} |");
        text.extend(bars.iter().map(|bar| {
            let eighths = (bar / top * (ROWS * 8) as f64).round() as usize;
            BLOCKS[eighths.saturating_sub(row * 8).min(8)]
        }));
        text.push('\n');
    }
    let _ = writeln!(text, "   {:>10} +{}", "0", "-".repeat(bars.len()));
    let _ = writeln!(text, "   {:>10}  0{:>width$}", "", format!("{minutes:.0} min"), width = bars.len() - 1);
    text
}

fn bars(values: &[f64]) -> Vec<f64> {
    let columns = COLUMNS.min(values.len()).max(8);
    let bounds = |column: usize| column * values.len() / columns;
    (0..columns)
        .map(|column| &values[bounds(column)..bounds(column + 1)])
        .map(|values| if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_seen_where_it_is() {
        let values: Vec<_> = (0..120).map(|at| if at < 60 { 25.0 } else { 50.0 }).collect();
        let text = graph(&values, "MB", 10.0);
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(rows[0], format!("      50.0 MB |{}{}", " ".repeat(30), "█".repeat(30)));
        assert_eq!(rows[ROWS - 1], format!("   {:>10} |{}", "", "█".repeat(60)));
        assert!(rows[ROWS + 1].ends_with("10 min"));
    }

    #[test]
    fn few_values_and_none_are_drawn_too() {
        assert_eq!(graph(&[1.0, 1.0], "MB", 1.0).lines().count(), ROWS + 2);
        assert_eq!(graph(&[], "MB", 1.0).lines().count(), ROWS + 2);
    }
}
