//! One log line for what may happen a thousand times a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one event in ten seconds through.
#[derive(Debug, Default)]
pub struct Throttle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    suppressed: u64,
}

impl Throttle {
    /// `Some` if the event may be told now, with the number of those since the last that were not.
    pub fn permit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.told.is_some_and(|told| now.saturating_duration_since(told) < INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_with_its_count() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.permit(start), Some(0));
        for _ in 0..1000 {
            assert_eq!(throttle.permit(start + INTERVAL / 2), None);
        }
        assert_eq!(throttle.permit(start + INTERVAL), Some(1000));
        assert_eq!(throttle.permit(start + 2 * INTERVAL), Some(0));
    }
}
