//! How often something may be told, so that whoever causes it cannot fill a disk with our words.

use std::time::{Duration, Instant};

/// The span that the lines are counted in.
const WINDOW: Duration = Duration::from_secs(1);

/// Lets a number of lines a second through and counts the others.
#[derive(Debug)]
pub struct Throttle {
    lines_max: u32,
    window_start: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Throttle {
    #[must_use]
    pub fn per_second(lines_max: u32) -> Self {
        Self { lines_max, window_start: None, lines: 0, left_out: 0 }
    }

    /// Whether to write a line now; if so, how many were left out since the last one.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.window_start.is_none_or(|start| now.saturating_duration_since(start) >= WINDOW) {
            self.window_start = Some(now);
            self.lines = 0;
        }
        if self.lines >= self.lines_max {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_ten_lines_a_second_and_a_number() {
        let start = Instant::now();
        let mut throttle = Throttle::per_second(10);
        let mut told = Vec::new();
        for millisecond in 0..3_000 {
            told.extend(throttle.pass(start + Duration::from_millis(millisecond)));
        }
        assert_eq!(told.len(), 30);
        assert_eq!(told.iter().sum::<u64>(), 2 * 990, "the last second's are told with the next line");
        assert_eq!((told[0], told[10], told[11]), (0, 990, 0));
    }
}
