//! How long a viewer should keep pictures before it shows them, for what is lost to be there in time when sent again.
//!
//! A request for a packet tells how late it will be, whatever the round trip, and however often it was lost: it comes as much
//! after the packet was sent as the packet sent again arrives after the first would have. Browsers that are told to show
//! pictures at once do, and stand still for each that is not whole; most of these times they call a freeze.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::header::PlayoutDelay;

/// What is later than this is shown late: it is no longer live for whom it is kept so long.
const LATE_MAX: Duration = Duration::from_millis(400);
/// Requests within this time are of one occasion.
const OCCASION: Duration = Duration::from_millis(300);
/// How long an occasion is remembered.
const WINDOW: Duration = Duration::from_secs(20);
const OCCASIONS_MAX: usize = 64;
const _: () = assert!(OCCASIONS_MAX as u128 * OCCASION.as_millis() >= WINDOW.as_millis() * 9 / 10);
/// Of so many occasions one may be later than what is kept, beside the first.
const EXCEPTIONS: usize = 32;
/// From arriving to being decoded, and what the arrival of others varies by.
const MARGIN: Duration = Duration::from_millis(20);
/// Most batches whose time is remembered: two seconds of 60 frames a second.
const BATCHES_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Cushion {
    /// Index of the first packet of each batch, and when it was sent. Oldest first.
    sent: VecDeque<(u64, Instant)>,
    /// When one began, and how late the latest packet of it was. Oldest first.
    occasions: VecDeque<(Instant, Duration)>,
    delay: Duration,
}

impl Cushion {
    pub(super) fn new() -> Self {
        Self { sent: VecDeque::with_capacity(BATCHES_MAX), occasions: VecDeque::new(), delay: Duration::ZERO }
    }

    /// The batch that begins with packet `index` leaves now.
    pub(super) fn sent(&mut self, index: u64, now: Instant) {
        if self.sent.len() == BATCHES_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((index, now));
    }

    /// The viewer asks for packet `index`, maybe again.
    pub(super) fn asked_for(&mut self, index: u64, now: Instant) {
        let behind = self.sent.partition_point(|(first, _)| *first <= index);
        let batch = behind.checked_sub(1).and_then(|at| self.sent.get(at));
        let Some(late) = batch.map(|(_, sent)| now.saturating_duration_since(*sent)) else { return };
        if late > LATE_MAX {
            return;
        }
        match self.occasions.back_mut() {
            Some((began, latest)) if now.saturating_duration_since(*began) < OCCASION => {
                *latest = late.max(*latest);
            }
            _ => {
                if self.occasions.len() == OCCASIONS_MAX {
                    self.occasions.pop_front();
                }
                self.occasions.push_back((now, late));
            }
        }
        self.delay = self.needed();
    }

    /// What to tell with the next picture, of a line that tells `least` when nothing is lost.
    pub(super) fn playout_delay(&mut self, least: PlayoutDelay, now: Instant) -> PlayoutDelay {
        let is_old = |began: Instant| now.saturating_duration_since(began) > WINDOW;
        if self.occasions.front().is_some_and(|(began, _)| is_old(*began)) {
            self.occasions.pop_front();
            self.delay = self.needed();
        }
        PlayoutDelay { min: least.min.max(self.delay), max: least.max.max(self.delay) }
    }

    /// One occasion is no habit: it is over when the browser would have made up for it.
    fn needed(&self) -> Duration {
        let mut late: Vec<_> = self.occasions.iter().map(|(_, latest)| *latest).collect();
        late.sort_unstable_by(|one, other| other.cmp(one));
        late.get(1 + late.len() / EXCEPTIONS).map_or(Duration::ZERO, |late| *late + MARGIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(33);
    const AT_ONCE: PlayoutDelay = PlayoutDelay { min: Duration::ZERO, max: Duration::ZERO };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Frames of two packets each, from `start` on.
    fn sent(frames: u32, start: Instant) -> Cushion {
        let mut cushion = Cushion::new();
        (0..frames).for_each(|frame| cushion.sent(u64::from(frame) * 2, start + FRAME * frame));
        cushion
    }

    #[test]
    fn what_is_lost_now_and_then_is_waited_for_and_no_longer_than_it_is() {
        let start = Instant::now();
        let mut cushion = sent(60, start);
        assert_eq!(cushion.playout_delay(AT_ONCE, start), AT_ONCE);
        // The second packet of its frame.
        cushion.asked_for(21, start + FRAME * 10 + ms(113));
        assert_eq!(cushion.playout_delay(AT_ONCE, start), AT_ONCE, "once is not often");
        cushion.asked_for(60, start + FRAME * 30 + ms(80));
        let both = PlayoutDelay { min: ms(100), max: ms(100) };
        assert_eq!(cushion.playout_delay(AT_ONCE, start + ms(1_100)), both);
        let least = PlayoutDelay { min: ms(50), max: ms(300) };
        assert_eq!(cushion.playout_delay(least, start).max, ms(300));
        // Asked for again, 100 ms later.
        cushion.asked_for(60, start + FRAME * 30 + ms(180));
        assert_eq!(cushion.playout_delay(AT_ONCE, start + ms(1_200)).min, ms(133));

        let later = start + WINDOW + ms(500);
        assert_eq!(cushion.playout_delay(AT_ONCE, later), AT_ONCE);
    }

    #[test]
    fn a_cut_and_packets_of_long_ago_make_nobody_late() {
        let start = Instant::now();
        let mut cushion = sent(300, start);
        let now = start + FRAME * 300;
        // Forgotten, far too late, and not yet sent.
        for packet in [0, 450, 450, 451] {
            cushion.asked_for(packet, now);
        }
        assert_eq!(cushion.playout_delay(AT_ONCE, now), AT_ONCE);
        assert_eq!(cushion.sent.len(), BATCHES_MAX);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_rare_exceptions_do_not_count() {
        let start = Instant::now();
        let mut cushion = Cushion::new();
        for occasion in 0..500_u32 {
            let at = start + OCCASION * occasion;
            cushion.sent(u64::from(occasion), at);
            cushion.asked_for(u64::from(occasion), at + if occasion % 32 == 5 { ms(250) } else { ms(90) });
        }
        assert_eq!(cushion.occasions.len(), OCCASIONS_MAX);
        assert_eq!(cushion.delay, ms(110));
    }
}
