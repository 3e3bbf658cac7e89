//! How many watch a stream, estimated from its playlist requests.
//!
//! A low-latency viewer reloads once per part target, any other about once per target duration. So a request
//! stands for that span of one viewer's time, and the spans of ten seconds divided by ten seconds are the
//! audience. No viewer is remembered, and none has to be told apart.

use std::sync::atomic::{AtomicU64, Ordering};

/// Long against a part, short against patience.
const WINDOW_S: usize = 10;

/// Spans of viewing time summed per second of arrival, in a ring: the window and the second being filled.
#[derive(Debug, Default)]
pub(crate) struct ViewerMeter {
    /// Upper half: the second it belongs to, plus one so that zero is "never". Lower half: milliseconds viewed.
    seconds: [AtomicU64; WINDOW_S + 1],
}

impl ViewerMeter {
    /// Counts a request that arrived in second `now_s` of the stream and covers `span_ms` of one viewer's time.
    pub(crate) fn record(&self, now_s: u32, span_ms: u32) {
        let slot = &self.seconds[now_s as usize % self.seconds.len()];
        let add = |packed: u64| {
            let (stamp, viewed_ms) = unpack(packed);
            let viewed_ms = if stamp == u64::from(now_s) + 1 { viewed_ms } else { 0 };
            let viewed_ms = viewed_ms.saturating_add(u64::from(span_ms)).min(u64::from(u32::MAX));
            Some((u64::from(now_s) + 1) << 32 | viewed_ms)
        };
        // The closure never declines.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Whether a request came in the last ten seconds before `now_s`.
    pub(crate) fn is_any(&self, now_s: u32) -> bool {
        let oldest = u64::from(now_s).saturating_sub(WINDOW_S as u64);
        self.seconds.iter().map(|slot| unpack(slot.load(Ordering::Relaxed))).any(|(stamp, _)| stamp > oldest)
    }

    /// Over the last ten whole seconds before `now_s`. A younger stream is divided by ten, too: a viewer who joins loads
    /// several playlists within a moment, and must not be taken for a crowd.
    pub(crate) fn estimate(&self, now_s: u32) -> u32 {
        let oldest = u64::from(now_s).saturating_sub(WINDOW_S as u64);
        let viewed_ms: u64 = self
            .seconds
            .iter()
            .map(|slot| unpack(slot.load(Ordering::Relaxed)))
            .filter(|(stamp, _)| (oldest + 1..=u64::from(now_s)).contains(stamp))
            .map(|(_, viewed_ms)| viewed_ms)
            .sum();
        let window_ms = WINDOW_S as u64 * 1000;
        u32::try_from((viewed_ms + window_ms / 2) / window_ms).unwrap_or(u32::MAX)
    }
}

fn unpack(packed: u64) -> (u64, u64) {
    (packed >> 32, packed & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_and_plain_viewers_count_the_same() {
        let meter = ViewerMeter::default();
        for second in 0..60 {
            for _low_latency_viewer in 0..30 {
                meter.record(second, 500);
                meter.record(second, 500);
            }
            if second % 4 == 0 {
                (0..12).for_each(|_plain_viewer| meter.record(second, 4000));
            }
        }
        // Ten seconds hold two or three of the plain viewers' four-second reloads.
        assert!((39..=45).contains(&meter.estimate(60)), "{}", meter.estimate(60));
    }

    #[test]
    fn an_audience_that_left_is_forgotten_after_the_window() {
        let meter = ViewerMeter::default();
        assert!(!meter.is_any(0));
        (0..20).for_each(|second| meter.record(second, 1000));
        assert_eq!(meter.estimate(20), 1);
        assert_eq!(meter.estimate(40), 0);
        assert!(meter.is_any(29) && !meter.is_any(40));
    }

    /// A page that waited for the stream loads both playlists plain, then reloads: one viewer, not five.
    #[test]
    fn the_first_viewer_of_a_young_stream_is_one() {
        let meter = ViewerMeter::default();
        (0..2).for_each(|_plain| meter.record(2, 4000));
        (2..12).for_each(|second| (0..2).for_each(|_reload| meter.record(second, 500)));
        assert_eq!((2..=12).map(|now_s| meter.estimate(now_s)).max(), Some(2));
        assert_eq!([3, 5, 8].map(|now_s| meter.estimate(now_s)), [1, 1, 1]);
    }
}
