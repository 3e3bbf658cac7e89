//! Points and spans on a media clock.

use std::cmp::Ordering;
use std::num::NonZeroU32;
use std::time::Duration;

/// Ticks per second of a media clock; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timescale(NonZeroU32);

impl Timescale {
    /// Video, everywhere in this server: the RTP clock of RFC 3551, exact for 24, 25, 30, 50 and 60 fps.
    pub const VIDEO: Self = Self::literal(90_000);
    /// Opus, and its RTP clock (RFC 7587, §4.1).
    pub const OPUS: Self = Self::literal(48_000);
    /// FLV and RTMP stamps.
    pub const MILLIS: Self = Self::literal(1_000);

    pub(crate) const fn literal(hertz: u32) -> Self {
        match NonZeroU32::new(hertz) {
            Some(hertz) => Self(hertz),
            None => panic!("a timescale is never zero"),
        }
    }

    pub const fn new(hertz: NonZeroU32) -> Self {
        Self(hertz)
    }

    /// `None` for zero.
    pub fn from_hertz(hertz: u32) -> Option<Self> {
        NonZeroU32::new(hertz).map(Self)
    }

    pub const fn hertz(self) -> u32 {
        self.0.get()
    }

    /// The span of `ticks` on this clock; `ticks` below zero is zero.
    pub fn duration(self, ticks: i64) -> Duration {
        let ticks = u64::try_from(ticks).unwrap_or(0);
        let hertz = u64::from(self.hertz());
        Duration::new(ticks / hertz, (ticks % hertz * 1_000_000_000 / hertz) as u32)
    }

    /// The whole ticks of `span` on this clock; what 64 bits cannot hold, 3,000 years at 90 kHz and more, is the most
    /// they can.
    pub fn ticks(self, span: Duration) -> i64 {
        let ticks = span.as_nanos() * u128::from(self.hertz()) / 1_000_000_000;
        i64::try_from(ticks).unwrap_or(i64::MAX)
    }

    /// `ticks` in seconds, for text and ratios; never for arithmetic that must stay exact.
    pub fn seconds(self, ticks: i64) -> f64 {
        ticks as f64 / f64::from(self.hertz())
    }
}

/// A point on a stream's clock, in ticks of a stated timescale. Ordering compares the points, whatever
/// their scales.
#[derive(Debug, Clone, Copy)]
pub struct MediaTime {
    pub ticks: i64,
    pub scale: Timescale,
}

impl MediaTime {
    pub const fn new(ticks: i64, scale: Timescale) -> Self {
        Self { ticks, scale }
    }

    /// The same point in ticks of `scale`, rounded towards minus infinity.
    pub fn ticks_in(self, scale: Timescale) -> i64 {
        if self.scale == scale {
            return self.ticks;
        }
        let scaled = i128::from(self.ticks) * i128::from(scale.hertz());
        scaled.div_euclid(i128::from(self.scale.hertz())) as i64
    }

    /// Whole milliseconds, rounded towards minus infinity.
    pub fn millis(self) -> i64 {
        self.ticks_in(Timescale::MILLIS)
    }
}

impl PartialEq for MediaTime {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for MediaTime {}

impl PartialOrd for MediaTime {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for MediaTime {
    fn cmp(&self, other: &Self) -> Ordering {
        let left = i128::from(self.ticks) * i128::from(other.scale.hertz());
        let right = i128::from(other.ticks) * i128::from(self.scale.hertz());
        left.cmp(&right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_compare_across_scales() {
        let audio = Timescale::from_hertz(48_000).unwrap();
        assert_eq!(MediaTime::new(90_000, Timescale::VIDEO), MediaTime::new(48_000, audio));
        assert!(MediaTime::new(90_001, Timescale::VIDEO) > MediaTime::new(48_000, audio));
        assert_eq!(MediaTime::new(-1, Timescale::VIDEO).ticks_in(Timescale::MILLIS), -1);
    }

    #[test]
    fn a_span_is_its_whole_ticks() {
        assert_eq!(Timescale::VIDEO.ticks(Duration::from_micros(33_333)), 2_999);
        assert_eq!(Timescale::VIDEO.ticks(Timescale::VIDEO.duration(180_000)), 180_000);
        assert_eq!(Timescale::VIDEO.ticks(Duration::MAX), i64::MAX);
    }

    /// 26.5 hours is where a 33-bit 90 kHz clock wraps; ours must not notice, nor at a thousand years.
    #[test]
    fn long_streams_do_not_overflow() {
        let thousand_years = 1_000 * 366 * 86_400 * 90_000;
        let point = MediaTime::new(thousand_years, Timescale::VIDEO);
        assert_eq!(point.millis(), thousand_years / 90);
    }
}
