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
/// A packet that arrives later than at best by more is one of a keyframe that takes its time, or of a path that is not steady.
const UNSTEADY: Duration = Duration::from_millis(60);
/// What a browser may keep pictures for by its own measure, where they do not arrive steadily. Where they do, it would show them
/// some 30 ms later than at once, for nothing.
const OWN_MEASURE_MAX: Duration = Duration::from_secs(1);
/// Of so many occasions one may be later than what is kept.
const EXCEPTIONS: usize = 32;
/// From arriving to being decoded, and what the arrival of others varies by.
const MARGIN: Duration = Duration::from_millis(20);
/// What is told changes by a tenth of the time: browsers take it over at once, and stand still for the difference (libwebrtc,
/// `VCMTiming::RenderTime`).
const RAMP: u32 = 10;
/// Most batches whose time is remembered: two seconds of 60 frames a second, or less where keyframes leave in pieces.
const BATCHES_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Cushion {
    /// Index of the first packet of each batch, and when it was sent. Oldest first.
    sent: VecDeque<(u64, Instant)>,
    /// When one began, and how late the latest packet of it was. Oldest first.
    occasions: VecDeque<(Instant, Duration)>,
    /// What is needed.
    delay: Duration,
    /// What was told last, and when.
    told: Duration,
    told_at: Option<Instant>,
    /// The last two occasions when pictures arrived unsteadily, the newest last.
    unsteady: [Option<Instant>; 2],
}

impl Cushion {
    pub(super) fn new() -> Self {
        Self {
            sent: VecDeque::with_capacity(BATCHES_MAX),
            occasions: VecDeque::new(),
            delay: Duration::ZERO,
            told: Duration::ZERO,
            told_at: None,
            unsteady: [None; 2],
        }
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
                if late <= *latest {
                    return;
                }
                *latest = late;
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

    /// The viewer tells that a packet arrived so much later than at best.
    pub(super) fn arrived(&mut self, late: Duration, now: Instant) {
        let is_another = self.unsteady[1].is_none_or(|last| now.saturating_duration_since(last) >= OCCASION);
        if late > UNSTEADY && is_another {
            self.unsteady = [self.unsteady[1], Some(now)];
        }
    }

    /// What to tell with the next picture, of a line that tells `least` when nothing is lost.
    pub(super) fn playout_delay(&mut self, least: PlayoutDelay, now: Instant) -> PlayoutDelay {
        let is_old = |began: Instant| now.saturating_duration_since(began) > WINDOW;
        while self.occasions.front().is_some_and(|(began, _)| is_old(*began)) {
            self.occasions.pop_front();
            self.delay = self.needed();
        }
        let step = self.told_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)) / RAMP;
        self.told_at = Some(now);
        self.told = if self.told < self.delay {
            self.delay.min(self.told + step)
        } else {
            self.delay.max(self.told.saturating_sub(step))
        };
        let is_unsteady = self.told > Duration::ZERO || self.unsteady[0].is_some_and(|first| !is_old(first));
        let max = if is_unsteady { OWN_MEASURE_MAX } else { Duration::ZERO };
        PlayoutDelay { min: least.min.max(self.told), max: least.max.max(max) }
    }

    /// One occasion is enough: what is lost now may be lost again when it is sent again.
    fn needed(&self) -> Duration {
        let mut late: Vec<_> = self.occasions.iter().map(|(_, latest)| *latest).collect();
        late.sort_unstable_by(|one, other| other.cmp(one));
        late.get(late.len() / EXCEPTIONS).map_or(Duration::ZERO, |late| *late + MARGIN)
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
        let kept = |min| PlayoutDelay { min: ms(min), max: OWN_MEASURE_MAX };
        assert_eq!(cushion.playout_delay(AT_ONCE, start + ms(500)), kept(50), "not at once");
        assert_eq!(cushion.playout_delay(AT_ONCE, start + ms(2_000)), kept(133));
        let least = PlayoutDelay { min: ms(150), max: ms(3_000) };
        assert_eq!(cushion.playout_delay(least, start + ms(2_000)), least);
        // Asked for twice.
        cushion.asked_for(60, start + FRAME * 30 + ms(80));
        cushion.asked_for(60, start + FRAME * 30 + ms(180));
        assert_eq!(cushion.playout_delay(AT_ONCE, start + ms(4_000)), kept(200));

        let later = start + WINDOW + ms(1_100);
        assert_eq!(cushion.playout_delay(AT_ONCE, later), AT_ONCE);
    }

    #[test]
    fn who_is_not_reached_steadily_keeps_pictures_by_its_own_measure() {
        let start = Instant::now();
        let mut cushion = Cushion::new();
        cushion.arrived(ms(200), start);
        cushion.arrived(ms(210), start + ms(100));
        cushion.arrived(ms(40), start + ms(1_000));
        assert_eq!(cushion.playout_delay(AT_ONCE, start + ms(1_100)), AT_ONCE, "one occasion");
        cushion.arrived(ms(200), start + ms(2_000));
        let own = PlayoutDelay { min: Duration::ZERO, max: OWN_MEASURE_MAX };
        assert_eq!(cushion.playout_delay(AT_ONCE, start + ms(2_100)), own);
        assert_eq!(cushion.playout_delay(AT_ONCE, start + WINDOW + ms(1)), AT_ONCE);
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
