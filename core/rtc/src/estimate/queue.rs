//! The queue that stands at the bottleneck, seen from how much later than at best packets arrive.
//!
//! Congestion control by delay compares how much the queue grows from one burst to the next, not how much it has grown: a path that is a
//! tenth too small fills a deep buffer, a second and more on phone networks, below its threshold, and is noticed only
//! when the buffer overflows. Viewers would see no loss but a stream that is seconds late.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More than this, in seconds, in *every* feedback of [`WINDOW`] is a queue that stands: a keyframe makes a longer one
/// that is gone before the next pictures.
const STANDING_MAX: f64 = 0.1;
const WINDOW: Duration = Duration::from_millis(500);
/// The same of a path that carries so little of what leaves, [`OVERRUN`], that it is no keyframe: that leaves its queue as fast as the
/// path carries the rest.
pub(super) const OVERRUN_WINDOW: Duration = Duration::from_millis(200);
const OVERRUN: f64 = 2.0 / 3.0;
/// In [`OVERRUN_WINDOW`] browsers tell four times, and not at all while they do not run themselves.
const OVERRUN_FEEDBACKS_MIN: usize = 3;
/// How long the best delay is remembered, once or twice over: routes change, clocks drift.
const BASE_AGE: Duration = Duration::from_secs(15);
/// Share of what arrives that lets the queue drain (draft-ietf-rmcat-gcc, §5.5, as for its own decrease).
const DRAIN: f64 = 0.85;
/// How long it is remembered what was carried, once or twice over.
const CARRIED_AGE: Duration = Duration::from_secs(10);
/// Growth of the limit in a second without a queue (ibid.).
const GROWTH: f64 = 1.08;

/// In bits per second, where they are known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) received: Option<f64>,
    /// In the last [`OVERRUN_WINDOW`].
    pub(super) received_last: Option<f64>,
    /// For longer than keyframes are apart.
    pub(super) sent: Option<f64>,
}

pub(super) struct StandingQueue {
    epoch: Instant,
    /// Least delay of this and of the last [`BASE_AGE`], in seconds between two clocks that have nothing in common.
    base: [f64; 2],
    base_since: Instant,
    /// Least delay of each feedback in the last [`WINDOW`].
    recent: VecDeque<(Instant, f64)>,
    /// In bits per second; infinite until a queue stood.
    limit: f64,
    changed: Instant,
    /// When it was lowered last; what was sent before is what a queue is of.
    lowered: Option<Instant>,
    /// Most bits per second that were received without a queue in this and the last [`CARRIED_AGE`].
    carried: [f64; 2],
    carried_since: Instant,
}

impl StandingQueue {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            base: [f64::INFINITY; 2],
            base_since: now,
            recent: VecDeque::new(),
            limit: f64::INFINITY,
            changed: now,
            lowered: None,
            carried: [0.0; 2],
            carried_since: now,
        }
    }

    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    /// Whether packets waited behind others as the last two feedbacks tell: what arrives is all that the path carries, and what is sent
    /// beyond it waits as well, or is lost.
    pub(super) fn is_full(&self) -> bool {
        let mut last = self.recent.iter().rev().map(|(_, delay)| delay - self.base() > STANDING_MAX);
        last.next().unwrap_or_default() && last.next().unwrap_or_default()
    }

    /// What the path has just carried, so that no queue stood; nothing while one does.
    pub(super) fn carried(&self) -> f64 {
        self.carried[0].max(self.carried[1])
    }

    /// How long a packet was on its way, in seconds between two clocks that have nothing in common.
    pub(super) fn delay(&self, departure: Instant, arrival: Duration) -> f64 {
        arrival.as_secs_f64() - departure.saturating_duration_since(self.epoch).as_secs_f64()
    }

    /// The least and the most [delay](Self::delay) of what one feedback told of. Returns how much later than at best its latest packet
    /// arrived.
    pub(super) fn on_feedback(&mut self, now: Instant, [least, most]: [f64; 2], rates: Rates) -> Duration {
        if now.saturating_duration_since(self.base_since) > BASE_AGE {
            self.base = [f64::INFINITY, self.base[0]];
            self.base_since = now;
        }
        self.base[0] = self.base[0].min(least);
        self.recent.push_back((now, least));
        let is_old = |at: Instant| now.saturating_duration_since(at) > WINDOW;
        let covers_window = self.recent.front().is_some_and(|(at, _)| is_old(*at));
        while self.recent.front().is_some_and(|(at, _)| is_old(*at)) {
            self.recent.pop_front();
        }
        let capacity = rates.received_last.filter(|_| self.is_overrun(rates, now));
        if let Some(capacity) = capacity {
            self.lower_to(capacity, now);
        } else if covers_window {
            self.adjust(rates.received.unwrap_or_default(), now);
        }
        Duration::try_from_secs_f64(most - self.base()).unwrap_or_default()
    }

    /// So much was received while more was lost than chance loses.
    pub(super) fn on_losses(&mut self, received: f64, now: Instant) {
        self.lower_to(received, now);
    }

    /// The best delay.
    fn base(&self) -> f64 {
        self.base[0].min(self.base[1])
    }

    /// How long the queue is that stood all the time since, and how many feedbacks told of it.
    fn standing(&self, since: Option<Instant>) -> (f64, usize) {
        let recent = self.recent.iter().filter(|(at, _)| since.is_none_or(|since| since <= *at));
        let delays = recent.map(|(_, delay)| *delay);
        let (least, count) =
            delays.fold((f64::INFINITY, 0), |(least, count), delay| (least.min(delay), count + 1));
        (least - self.base(), count)
    }

    fn is_overrun(&self, rates: Rates, now: Instant) -> bool {
        let carries_little =
            rates.received_last.zip(rates.sent).is_some_and(|(received, sent)| received < sent * OVERRUN);
        let (standing, feedbacks) = self.standing(now.checked_sub(OVERRUN_WINDOW));
        carries_little && standing > STANDING_MAX && feedbacks >= OVERRUN_FEEDBACKS_MIN
    }

    fn adjust(&mut self, received: f64, now: Instant) {
        let (standing, _) = self.standing(None);
        if standing <= STANDING_MAX {
            let since_change = now.saturating_duration_since(self.changed);
            self.limit *= GROWTH.powf(since_change.as_secs_f64().min(1.0));
            self.changed = now;
            self.carries(received, now);
        } else {
            self.carried = [0.0; 2];
            let had_time = self.lowered.is_none_or(|at| now.saturating_duration_since(at) >= WINDOW);
            if had_time && received > 0.0 {
                self.lower_to(received, now);
            }
        }
    }

    fn lower_to(&mut self, received: f64, now: Instant) {
        self.carried = [0.0; 2];
        self.limit = self.limit.min(received * DRAIN);
        (self.changed, self.lowered) = (now, Some(now));
    }

    fn carries(&mut self, received: f64, now: Instant) {
        if now.saturating_duration_since(self.carried_since) > CARRIED_AGE {
            self.carried = [0.0, self.carried[0]];
            self.carried_since = now;
        }
        self.carried[0] = self.carried[0].max(received);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feedback every 50 ms of packets that were `late_ms` longer on their way than at best, at 1 Mbit/s of `sent`.
    fn feedbacks(queue: &mut StandingQueue, from: u32, count: u32, late_ms: u64, sent: f64) -> Duration {
        let mut most = Duration::ZERO;
        let rates = Rates { received: Some(1e6), received_last: Some(1e6), sent: Some(sent) };
        for number in from..from + count {
            let sent = Duration::from_millis(50) * number;
            let departure = queue.epoch + sent;
            let late = Duration::from_millis(if number == 0 { 0 } else { late_ms });
            let delay = queue.delay(departure, sent + late);
            most = queue.on_feedback(departure + Duration::from_millis(20), [delay; 2], rates);
        }
        most
    }

    #[test]
    fn what_was_carried_counts_until_a_queue_stands() {
        let mut queue = StandingQueue::new(Instant::now());
        assert_eq!(feedbacks(&mut queue, 0, 40, 60, 1e6).as_millis(), 60);
        assert_eq!(queue.carried(), 1e6);
        assert!(queue.limit().is_infinite());
        feedbacks(&mut queue, 40, 40, 250, 1e6);
        assert_eq!(queue.carried(), 0.0);
        assert!(queue.limit() < 1e6);
    }

    #[test]
    fn two_feedbacks_tell_that_what_is_sent_waits_and_one_that_it_does_not_any_more() {
        let mut queue = StandingQueue::new(Instant::now());
        let is_full = [(0, 9, 60), (9, 1, 150), (10, 1, 150), (11, 1, 90)].map(|(from, count, late_ms)| {
            feedbacks(&mut queue, from, count, late_ms, 1e6);
            queue.is_full()
        });
        assert_eq!(is_full, [false, false, true, false]);
    }

    #[test]
    fn a_path_that_is_overrun_by_far_is_not_watched_for_long() {
        let mut queue = StandingQueue::new(Instant::now());
        feedbacks(&mut queue, 0, 40, 0, 1e6);
        feedbacks(&mut queue, 40, 5, 250, 1.2e6);
        assert!(queue.limit().is_infinite(), "so would a keyframe");
        feedbacks(&mut queue, 45, 1, 250, 3e6);
        assert_eq!(queue.limit(), 1e6 * DRAIN);
    }
}
