//! Bits per second that arrive, by the receiver's clock. Pure.
//!
//! By ours it would be how fast feedback comes: after a moment in which a busy machine had other things to do all of it is there at
//! once, and a narrow path would seem to carry a hundred times as much.

use std::collections::VecDeque;
use std::time::Duration;

/// In which bytes are counted (draft-ietf-rmcat-gcc-02, §5.5).
const WINDOW: Duration = Duration::from_millis(500);
/// Feedbacks of [`WINDOW`] from a receiver that tells of nearly every packet.
const FEEDBACKS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Received {
    /// When the latest packet of a feedback arrived, and the bytes since the one before. Oldest first.
    feedbacks: VecDeque<(Duration, usize)>,
}

impl Received {
    /// A feedback tells of `bytes`, the latest of which arrived at `latest`.
    pub(super) fn add(&mut self, latest: Duration, bytes: usize) {
        match self.feedbacks.back_mut() {
            // The receiver's clock wraps every twelve days.
            Some((before, _)) if *before > latest + WINDOW => self.feedbacks.clear(),
            Some((before, all)) if *before >= latest => {
                *all += bytes;
                return;
            }
            _ => {}
        }
        self.feedbacks.push_back((latest, bytes));
        // The one before the window is where it begins.
        while self.feedbacks.len() > FEEDBACKS_MAX
            || self.feedbacks.get(1).is_some_and(|(second, _)| *second + WINDOW <= latest)
        {
            self.feedbacks.pop_front();
        }
    }

    /// In the last half a second. `None` before there are two feedbacks to measure between.
    pub(super) fn bits_per_second(&self) -> Option<f64> {
        self.bits_per_second_in(WINDOW)
    }

    /// In the last `window`, which is no longer than that.
    pub(super) fn bits_per_second_in(&self, window: Duration) -> Option<f64> {
        let (last, _) = *self.feedbacks.back()?;
        let mut bytes = 0;
        let mut newest_first = self.feedbacks.iter().rev().peekable();
        while let Some((_, arrived)) = newest_first.next() {
            bytes += arrived;
            let (begin, _) = *newest_first.peek()?;
            let span = last.saturating_sub(*begin);
            // The last there is, where there is less than the window.
            if span >= window || newest_first.len() == 1 {
                return (!span.is_zero()).then(|| bytes as f64 * 8.0 / span.as_secs_f64());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_arrives_is_measured_between_arrivals() {
        let mut received = Received::default();
        assert_eq!(received.bits_per_second(), None);
        received.add(ms(1_000), 50_000);
        assert_eq!(received.bits_per_second(), None, "since when?");
        (1..=40).for_each(|number| received.add(ms(1_000 + number * 50), 6_250));
        assert_eq!(received.bits_per_second(), Some(1e6));
        (41..=44).for_each(|number| received.add(ms(1_000 + number * 50), 3_125));
        assert_eq!(received.bits_per_second_in(ms(200)), Some(500e3));
        assert_eq!(received.bits_per_second(), Some(800e3));
        // A feedback later nothing is left of what was before a gap but where it began.
        received.add(ms(4_200), 6_250);
        assert_eq!(received.bits_per_second(), Some(50e3));
    }

    #[test]
    fn a_clock_that_begins_anew_is_followed_and_what_is_kept_is_bounded() {
        let mut received = Received::default();
        received.add(ms(1 << 30), 1_000);
        (0..1_000).for_each(|number| received.add(ms(number), 125));
        assert_eq!(received.feedbacks.len(), FEEDBACKS_MAX);
        assert_eq!(received.bits_per_second(), Some(1e6));
        received.add(ms(990), 125);
        assert_eq!(received.feedbacks.len(), FEEDBACKS_MAX, "of a packet that was overtaken");
    }
}
