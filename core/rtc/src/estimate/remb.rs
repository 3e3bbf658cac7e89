//! What a viewer's own estimate (draft-alvestrand-rmcat-remb) says of its path.
//!
//! A receiver lowers it when its path is full, and then lets it rise by some per cent a second, but not above one and a half times
//! what arrives (draft-ietf-rmcat-gcc-02, §5.5). So one that is far above what is sent says how much that was, and one that is
//! below it and rises says that more is sent than before. Taken at its word, a viewer who was once turned to a small rendition
//! would stay there for ever, with a path that is empty.

use std::time::{Duration, Instant};

/// REMB is repeated at least this often while it holds.
const AGE_MAX: Duration = Duration::from_secs(5);
/// Of what is sent. From there on it is what was sent that is told; keyframes make the one and a half uneven.
const ABOVE_SENT: f64 = 1.35;

#[derive(Debug, Default)]
pub(super) struct Remb {
    told: Option<Told>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    bits_per_second: f64,
    /// It was lowered, and has not risen far above what is sent since.
    is_limit: bool,
}

impl Remb {
    /// While `sent` bits per second leave, if that is known.
    pub(super) fn told(&mut self, bits_per_second: f64, sent: Option<f64>, now: Instant) {
        let is_far_above = sent.is_some_and(|sent| bits_per_second >= sent * ABOVE_SENT);
        let is_limit = !is_far_above
            && self.told.is_none_or(|before| bits_per_second < before.bits_per_second || before.is_limit);
        self.told = Some(Told { at: now, bits_per_second, is_limit });
    }

    /// Bits per second that the path does not carry more than.
    pub(super) fn limit(&self, now: Instant) -> Option<f64> {
        let told = self.told.filter(|told| now.saturating_duration_since(told.at) <= AGE_MAX)?;
        told.is_limit.then_some(told.bits_per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sent::Sent;
    use super::*;

    /// Sends `bits_per_second` for so many seconds, in which the viewer tells `remb` of each.
    fn pass(
        remb: &mut Remb,
        sent: &mut Sent,
        now: &mut Instant,
        seconds: u32,
        bits_per_second: f64,
        tell: impl Fn(u32) -> f64,
    ) {
        for second in 0..seconds {
            for _ in 0..10 {
                *now += Duration::from_millis(100);
                sent.add((bits_per_second / 80.0) as usize, *now);
            }
            remb.told(tell(second), sent.bits_per_second(*now), *now);
        }
    }

    #[test]
    fn a_path_that_is_full_limits_and_one_that_is_not_filled_does_not() {
        let mut now = Instant::now();
        let (mut remb, mut sent) = (Remb::default(), Sent::new(now));
        remb.told(700e3, None, now);
        assert_eq!(remb.limit(now), Some(700e3), "nothing is known of what is sent");
        pass(&mut remb, &mut sent, &mut now, 4, 1_000e3, |_| 1_500e3);
        assert_eq!(remb.limit(now), None, "it is what is sent that is told");
        pass(&mut remb, &mut sent, &mut now, 1, 1_000e3, |_| 850e3);
        assert_eq!(remb.limit(now), Some(850e3), "the path was overrun");
        assert_eq!(remb.limit(now + Duration::from_secs(6)), None, "that was long ago");
        pass(&mut remb, &mut sent, &mut now, 6, 260e3, |second| 850e3 + f64::from(second) * 50e3);
        assert_eq!(remb.limit(now), None, "of the smaller rendition nothing can be told but that it fits");
    }

    /// Who is turned to a larger rendition tells for some seconds what would have been enough for the smaller one.
    #[test]
    fn an_estimate_that_rises_behind_what_is_sent_limits_nothing_until_it_falls() {
        let mut now = Instant::now();
        let (mut remb, mut sent) = (Remb::default(), Sent::new(now));
        pass(&mut remb, &mut sent, &mut now, 4, 260e3, |_| 390e3);
        for second in 0..10 {
            pass(&mut remb, &mut sent, &mut now, 1, 1_000e3, |_| 390e3 * 1.08_f64.powi(second));
            assert_eq!(remb.limit(now), None, "after {second} s");
        }
        pass(&mut remb, &mut sent, &mut now, 1, 1_000e3, |_| 600e3);
        assert_eq!(remb.limit(now), Some(600e3));
        pass(&mut remb, &mut sent, &mut now, 1, 1_000e3, |_| 648e3);
        assert_eq!(remb.limit(now), Some(648e3), "it has not come far");
    }
}
