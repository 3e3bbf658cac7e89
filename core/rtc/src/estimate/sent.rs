//! Bits per second that leave. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// In which bytes are counted: of the pictures that are sent the large ones may be two seconds apart.
const WINDOW: Duration = Duration::from_secs(2);
/// By so much the window moves on.
const STEP: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Sent {
    /// When each step began, and the bytes in it: those that reach into the window, the newest last.
    steps: VecDeque<(Instant, usize)>,
}

impl Sent {
    pub(super) fn new(now: Instant) -> Self {
        Self { steps: VecDeque::from([(now, 0)]) }
    }

    pub(super) fn add(&mut self, bytes: usize, now: Instant) {
        let is_over = |since: Instant, time| now.saturating_duration_since(since) >= time;
        match self.steps.back_mut() {
            Some((since, sum)) if !is_over(*since, STEP) => *sum += bytes,
            _ => self.steps.push_back((now, bytes)),
        }
        // The first may begin before the window, as long as the second does not.
        while self.steps.get(1).is_some_and(|(since, _)| is_over(*since, WINDOW)) {
            self.steps.pop_front();
        }
    }

    /// Of the last two seconds; `None` in the first two.
    pub(super) fn bits_per_second(&self, now: Instant) -> Option<f64> {
        let elapsed = now.saturating_duration_since(self.steps.front()?.0);
        let bytes: usize = self.steps.iter().map(|(_, bytes)| bytes).sum();
        (elapsed >= WINDOW).then(|| bytes as f64 * 8.0 / elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_is_known_after_two_seconds_and_followed_from_then_on() {
        let start = Instant::now();
        let mut sent = Sent::new(start);
        let mut run = |from: u32, until: u32, bytes| {
            for step in from..until {
                sent.add(bytes, start + Duration::from_millis(50) * step);
            }
            sent.bits_per_second(start + Duration::from_millis(50) * until)
        };
        assert_eq!(run(0, 39, 6_250), None);
        assert_eq!(run(39, 80, 6_250).map(|bits| (bits / 1e5).round()), Some(10.0));
        // A second later half of it is the new.
        let half = run(80, 100, 62_500).unwrap();
        assert!((5e6..7e6).contains(&half), "{half}");
    }
}
