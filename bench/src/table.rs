//! What a benchmark found, beside what was promised.

use std::fmt;

#[derive(Clone)]
pub(crate) struct Table {
    title: String,
    columns: &'static [&'static str],
    rows: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Clone)]
struct Row {
    what: String,
    figures: Vec<f64>,
    target: Option<Target>,
}

/// The figure in `column` must be at most `limit`.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) column: usize,
    pub(crate) limit: f64,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &'static [&'static str]) -> Self {
        Self { title: title.into(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    /// A figure that was promised.
    pub(crate) fn judge(&mut self, what: impl Into<String>, figures: &[f64], target: Target) {
        self.rows.push(Row { what: what.into(), figures: figures.to_vec(), target: Some(target) });
    }

    /// A figure that tells something about the others.
    pub(crate) fn tell(&mut self, what: impl Into<String>, figures: &[f64]) {
        self.rows.push(Row { what: what.into(), figures: figures.to_vec(), target: None });
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(crate) fn misses(&self) -> usize {
        self.rows.iter().filter(|row| row.is_met() == Some(false)).count()
    }
}

impl Row {
    fn is_met(&self) -> Option<bool> {
        let target = self.target?;
        Some(self.figures.get(target.column).is_some_and(|figure| *figure <= target.limit))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.what.chars().count()).chain([self.title.chars().count()]);
        let width = width.max().unwrap_or(0) + 2;
        write!(f, "   {:width$}", self.title)?;
        self.columns.iter().try_for_each(|column| write!(f, "{column:>10}"))?;
        writeln!(f, "{:>10}", "target")?;
        for row in &self.rows {
            write!(f, "   {:width$}", row.what)?;
            row.figures.iter().try_for_each(|figure| write!(f, "{:>10}", Figure(*figure)))?;
            if let (Some(target), Some(met)) = (row.target, row.is_met()) {
                let limit = format!("<= {}", Limit(target.limit));
                write!(
                    f,
                    "{limit:>10}  {} ({})",
                    if met { "PASS" } else { "MISS" },
                    self.columns[target.column]
                )?;
            }
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "   {note}"))
    }
}

/// Three digits that mean something, or all before the point.
struct Figure(f64);

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0.abs() {
            100.0.. => 0,
            10.0.. => 1,
            1.0.. => 2,
            _ => 3,
        };
        f.pad(&format!("{:.decimals$}", self.0))
    }
}

/// As it was promised: 0.5, not 0.500.
struct Limit(f64);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0 * 1000.0).round() / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_missed_by_a_larger_figure_and_by_none() {
        let mut table = Table::new("", &["min", "median"]);
        let target = Target { column: 1, limit: 0.5 };
        table.judge("met", &[0.1, 0.5], target);
        table.judge("missed", &[0.1, 0.51], target);
        table.judge("not measured", &[f64::NAN, f64::NAN], target);
        table.tell("for information", &[9.0, 9.0]);
        assert_eq!(table.misses(), 2);
    }
}
