//! When one viewer is sent what waits for it: a keyframe, all since the newest one to who joins, and what is sent again. Pure.

use std::time::{Duration, Instant};

/// What may leave at once, in time at the pace: less than any queue holds.
const AT_ONCE: Duration = Duration::from_millis(50);
/// Fewer packets cost more than they are worth.
const PACKETS_MIN: usize = 4;
/// Of the size that all have but the last of a picture.
const PACKET_BITS: f64 = 1_200.0 * 8.0;

/// Of what was to leave meanwhile, after the thread had other things to do. Else a busy machine would slow its viewers down.
const MADE_UP_MAX: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Pace {
    bits_per_second: f64,
    /// When what was sent is on its way, at this pace.
    due: Instant,
    /// Something waits for that.
    is_awaited: bool,
}

impl Pace {
    pub(crate) fn new(bits_per_second: f64, now: Instant) -> Self {
        Self { bits_per_second, due: now, is_awaited: false }
    }

    /// From the next packet on.
    pub(crate) fn set(&mut self, bits_per_second: f64) {
        self.bits_per_second = bits_per_second;
    }

    /// When more may be sent, if not now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Instant> {
        if self.due <= now {
            return None;
        }
        self.is_awaited = true;
        Some(self.due)
    }

    /// Nothing waits; what could leave meanwhile is not made up for.
    pub(crate) fn rest(&mut self) {
        self.is_awaited = false;
    }

    /// How many packets may leave at once.
    pub(crate) fn packets(&self) -> usize {
        let packets = self.bits_per_second * AT_ONCE.as_secs_f64() / PACKET_BITS;
        (packets as usize).max(PACKETS_MIN)
    }

    /// So many bytes are sent, with all that is around them.
    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        let missed = if self.is_awaited { MADE_UP_MAX } else { Duration::ZERO };
        let began = now.checked_sub(missed).map_or(self.due, |earliest| self.due.max(earliest));
        // Never zero: no path is taken to carry nothing.
        self.due = began + Duration::from_secs_f64(bytes as f64 * 8.0 / self.bits_per_second.max(1.0));
        self.is_awaited &= self.due <= now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_leaves_at_its_pace_and_a_frame_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(6e6, start);
        assert_eq!(pace.packets(), 31);
        let (mut now, mut bytes) = (start, 0);
        while bytes < 1_000_000 {
            pace.sent(38_400, now);
            bytes += 38_400;
            now = pace.due(now).expect("a batch takes its time");
        }
        let took = (now - start).as_secs_f64();
        assert!((took - bytes as f64 * 8.0 / 6e6).abs() < 1e-3, "{took} s");
        assert_eq!(pace.due(now), None);

        // Frames of 4 Mbit/s, 30 a second.
        for _ in 0..30 {
            assert_eq!(pace.due(now), None);
            pace.sent(16_600, now);
            now += Duration::from_millis(33);
        }
    }

    #[test]
    fn a_narrow_path_gets_little_at_once() {
        let start = Instant::now();
        let mut pace = Pace::new(6e6, start);
        pace.set(800e3);
        assert_eq!(pace.packets(), PACKETS_MIN);
        pace.sent(10_000, start);
        assert_eq!(pace.due(start), Some(start + Duration::from_millis(100)));
    }
    #[test]
    fn who_comes_late_makes_up_for_it() {
        let start = Instant::now();
        let mut pace = Pace::new(800e3, start);
        let ms = |millis| start + Duration::from_millis(millis);
        pace.sent(5_000, start);
        assert_eq!(pace.due(start), Some(ms(50)));
        // Of 50, 100, 150 and 200 ms.
        let mut sent = 0;
        while pace.due(ms(210)).is_none() {
            pace.sent(5_000, ms(210));
            sent += 1;
        }
        assert_eq!((sent, pace.due(ms(210))), (4, Some(ms(250))));
        // Nothing was waiting.
        pace.sent(5_000, ms(250));
        pace.sent(5_000, ms(900));
        assert_eq!(pace.due(ms(900)), Some(ms(950)));
        // The last that waited left a little late, and then there was nothing for a while.
        pace.sent(100, ms(960));
        pace.rest();
        pace.sent(5_000, ms(1_800));
        assert_eq!(pace.due(ms(1_800)), Some(ms(1_850)));
    }
}
