//! The stream's clock and GStreamer's.
//!
//! The stream counts ticks from an origin years away, or below zero; a pipeline counts nanoseconds from zero, and some
//! of its elements shift theirs. So a child's pipeline begins a few seconds before its first unit.

use gstreamer::ClockTime;

/// Room before the first unit, for pictures that are shown before it: an open GOP's.
const MARGIN_SECONDS: i64 = 10;

const NANOS: i128 = 1_000_000_000;

/// Where a pipeline's zero lies on the stream clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamClock {
    /// Whole, so that it is exact in every timescale.
    origin_seconds: i64,
}

impl StreamClock {
    /// For a source whose first unit has this `dts`, in ticks of `timescale`.
    pub(crate) fn starting_at(dts: i64, timescale: u32) -> Self {
        Self { origin_seconds: dts.div_euclid(i64::from(timescale)).saturating_sub(MARGIN_SECONDS) }
    }

    /// `None` if `ticks` lie before the origin, or further from it than GStreamer can count.
    pub(crate) fn nanos(self, ticks: i64, timescale: u32) -> Option<ClockTime> {
        let timescale = i128::from(timescale);
        let since = i128::from(ticks) - i128::from(self.origin_seconds) * timescale;
        let nanos = (since * NANOS + timescale / 2).div_euclid(timescale);
        // Not all of u64: elements add to it.
        i64::try_from(nanos).ok().and_then(|nanos| u64::try_from(nanos).ok()).map(ClockTime::from_nseconds)
    }

    /// The nearest tick. Gives back what went through [`StreamClock::nanos`], if a tick has more than two nanoseconds.
    pub(crate) fn ticks(self, time: ClockTime, timescale: u32) -> i64 {
        let timescale = i128::from(timescale);
        let since = (i128::from(time.nseconds()) * timescale + NANOS / 2).div_euclid(NANOS);
        let ticks = since + i128::from(self.origin_seconds) * timescale;
        i64::try_from(ticks).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tick_comes_back() {
        for timescale in [90_000, 48_000, 44_100, 1_000, 24_000, 10_000_000] {
            for first in [0, -7, 1_234_567_890_123, i64::from(timescale) * 3_600 * 1_000] {
                let clock = StreamClock::starting_at(first, timescale);
                for ticks in (-200..3_000).map(|tick| first + tick * 37) {
                    let nanos = clock.nanos(ticks, timescale).expect("within the margin and the hour");
                    assert_eq!(clock.ticks(nanos, timescale), ticks, "{timescale}");
                }
            }
        }
    }

    #[test]
    fn the_origin_is_the_same_moment_in_every_timescale() {
        let clock = StreamClock::starting_at(44_100 * 100 + 17, 44_100);
        let nanos = clock.nanos(44_100 * 101, 44_100).expect("after the origin");
        assert_eq!(clock.ticks(nanos, 48_000), 48_000 * 101);
    }

    #[test]
    fn what_cannot_be_counted_is_none() {
        let clock = StreamClock::starting_at(90_000, 90_000);
        assert_eq!(clock.nanos(-10 * 90_000, 90_000), None);
        assert_eq!(clock.nanos(i64::MAX, 90_000), None);
        assert_eq!(StreamClock::starting_at(i64::MIN, 1).nanos(i64::MAX, 1), None);
    }
}
