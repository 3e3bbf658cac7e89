//! How often something may be told, so that whoever causes it cannot fill a disk with our words.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets so many lines through in each window of time, and counts the others.
#[derive(Debug)]
pub struct Throttle {
    lines_max: u32,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    window_start: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Throttle {
    #[must_use]
    pub fn per_second(lines_max: u32) -> Self {
        Self { lines_max, window: Duration::from_secs(1), state: Mutex::default() }
    }

    /// For what goes on for hours: a line every ten seconds.
    #[must_use]
    pub fn sparse() -> Self {
        Self { lines_max: 1, window: Duration::from_secs(10), state: Mutex::default() }
    }

    /// Whether to write a line now; if so, how many were left out since the last one.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        // Counting cannot panic, so a poisoned lock would still guard a true count.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window_start.is_none_or(|start| now.saturating_duration_since(start) >= self.window) {
            state.window_start = Some(now);
            state.lines = 0;
        }
        if state.lines >= self.lines_max {
            state.left_out += 1;
            return None;
        }
        state.lines += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of an event a millisecond.
    fn told(throttle: &Throttle, milliseconds: u64) -> Vec<u64> {
        let start = Instant::now();
        (0..milliseconds).filter_map(|at| throttle.pass(start + Duration::from_millis(at))).collect()
    }

    #[test]
    fn a_flood_is_ten_lines_a_second_and_a_number() {
        let told = told(&Throttle::per_second(10), 3_000);
        assert_eq!(told.len(), 30);
        assert_eq!(told.iter().sum::<u64>(), 2 * 990, "the last second's are told with the next line");
        assert_eq!((told[0], told[10], told[11]), (0, 990, 0));
    }

    #[test]
    fn what_goes_on_for_hours_is_a_line_every_ten_seconds() {
        assert_eq!(told(&Throttle::sparse(), 30_000), [0, 9_999, 9_999]);
    }
}
