//! How fast what is in arrears may leave: a keyframe, or all since the newest one to who joins. Pure.
//!
//! Sent at once it overruns the queue of a home router or a phone network, and is lost at its end; held back on a path that has
//! room it is late for nothing. The estimate does not tell which, as it is of what goes on for seconds. So it is tried with what
//! there is to send: faster while all arrives in time, and at the first burst that does not, slowly.

use std::time::{Duration, Instant};

/// Of what the path carries, where nothing more is known or a burst was late. A keyframe of 140 KB does not fit the queue of
/// 300 ms that a path of 4 Mbit/s may have at the 2.5 of libwebrtc, whose keyframes are smaller.
const FACTOR_MIN: f64 = 1.5;
/// As good as at once.
const FACTOR_MAX: f64 = 24.0;
/// A packet that is later than at best by more has waited behind others.
const LATE: Duration = Duration::from_millis(60);
/// Without a late packet for so long the path is tried with twice as much. There was a keyframe in it.
const CALM: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub(super) struct Bursts {
    factor: f64,
    calm_since: Instant,
}

impl Bursts {
    pub(super) fn new(now: Instant) -> Self {
        Self { factor: FACTOR_MIN, calm_since: now }
    }

    /// Feedback came: the latest packet that it tells of was so much later than at best.
    pub(super) fn arrived(&mut self, late: Duration, now: Instant) {
        if late > LATE {
            *self = Self::new(now);
        } else if now.saturating_duration_since(self.calm_since) >= CALM {
            self.factor = (self.factor * 2.0).min(FACTOR_MAX);
            self.calm_since = now;
        }
    }

    /// By how much more than it carries for long a path may be sent for a moment.
    pub(super) fn factor(&self) -> f64 {
        self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_room_is_soon_sent_a_keyframe_at_once_and_one_without_is_not() {
        let start = Instant::now();
        let mut bursts = Bursts::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        (0..21_000).step_by(100).for_each(|millis| bursts.arrived(Duration::from_millis(30), at(millis)));
        assert_eq!(bursts.factor(), FACTOR_MAX);
        bursts.arrived(Duration::from_millis(90), at(21_000));
        assert_eq!(bursts.factor(), FACTOR_MIN);
        bursts.arrived(Duration::ZERO, at(24_900));
        assert_eq!(bursts.factor(), FACTOR_MIN);
        bursts.arrived(Duration::ZERO, at(25_000));
        assert_eq!(bursts.factor(), 2.0 * FACTOR_MIN);
    }
}
