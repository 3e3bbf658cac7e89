//! Puts the packets of one track back into order, and gives up on those that do not come. Pure.
//!
//! A publisher that is asked (NACK) sends a lost packet again within a round trip. Whoever waits longer for it than
//! [`WAIT_MAX`] makes every viewer late, so then the track goes on without it, and says so.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// How long the first packet that is missing is waited for: three requests, 100 ms apart, over a line across an ocean.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(400);

/// Packets kept behind one that is missing. In [`WAIT_MAX`] 20 Mbit/s are 800 packets.
pub(super) const PACKETS_MAX: usize = 1_024;

/// A step of more than this, in either direction, is another sequence and not a gap: a source that was started anew.
const STEP_MAX: i64 = 3_000;

/// What a packet is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// One layer of the picture, by its place in the offer; where there are none, the first.
    Video(usize),
    Audio,
}

/// What of an RTP packet its track needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) payload: Bytes,
    pub(super) arrived: Instant,
}

/// A packet in its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ordered {
    pub(super) packet: Packet,
    /// How many before it are given up.
    pub(super) lost: u32,
}

/// What was seen of a track's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) lost: u64,
    /// Came behind one with a later number, and in time.
    pub(super) reordered: u64,
    /// Came twice, or after they were given up.
    pub(super) late: u64,
}

#[derive(Debug, Default)]
pub(super) struct Reorder {
    /// The number that comes next, unwrapped.
    next: Option<i64>,
    /// The highest number seen.
    newest: i64,
    waiting: BTreeMap<i64, Packet>,
    counts: Counts,
}

impl Reorder {
    pub(super) fn push(&mut self, packet: Packet) {
        self.counts.received += 1;
        let next = *self.next.get_or_insert_with(|| {
            self.newest = i64::from(packet.sequence) - 1;
            i64::from(packet.sequence)
        });
        let mut number = unwrap(packet.sequence, next);
        if (number - next).abs() > STEP_MAX {
            self.start_anew();
            number = unwrap(packet.sequence, self.newest + 1);
            self.next = Some(number);
            self.newest = number - 1;
        } else if number < next || self.waiting.contains_key(&number) {
            self.counts.late += 1;
            return;
        }
        self.counts.reordered += u64::from(number < self.newest);
        self.newest = self.newest.max(number);
        self.waiting.insert(number, packet);
    }

    /// The next packet, if it is there or what is before it is given up.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Ordered> {
        let next = self.next?;
        let (&number, first) = self.waiting.first_key_value()?;
        let given_up = now >= first.arrived + WAIT_MAX || self.waiting.len() >= PACKETS_MAX;
        if number != next && !given_up {
            return None;
        }
        let packet = self.waiting.remove(&number)?;
        self.next = Some(number + 1);
        let lost = u32::try_from(number - next).unwrap_or(u32::MAX);
        self.counts.lost += u64::from(lost);
        Some(Ordered { packet, lost })
    }

    /// When [`Reorder::poll`] gives up on what is missing.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, first)| first.arrived + WAIT_MAX)
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    fn start_anew(&mut self) {
        self.waiting.clear();
    }
}

/// The number nearest to `near` whose low 16 bits are `sequence`.
fn unwrap(sequence: u16, near: i64) -> i64 {
    near + i64::from(sequence.wrapping_sub(near as u16) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Line {
        reorder: Reorder,
        now: Instant,
    }

    impl Line {
        fn new() -> Self {
            Self { reorder: Reorder::default(), now: Instant::now() }
        }

        fn push(&mut self, sequence: u16) {
            let arrived = self.now;
            self.reorder.push(Packet {
                sequence,
                timestamp: 0,
                marker: false,
                payload: Bytes::new(),
                arrived,
            });
        }

        /// Numbers in their order, each with how many were lost before it.
        fn poll(&mut self) -> Vec<(u16, u32)> {
            let poll = || self.reorder.poll(self.now);
            std::iter::from_fn(poll).map(|ordered| (ordered.packet.sequence, ordered.lost)).collect()
        }
    }

    #[test]
    fn packets_come_out_in_order_over_the_wrap() {
        let mut line = Line::new();
        for sequence in [65_534, 0, 65_535, 2, 1] {
            line.push(sequence);
        }
        assert_eq!(line.poll(), [(65_534, 0), (65_535, 0), (0, 0), (1, 0), (2, 0)]);
        assert_eq!(line.reorder.counts(), Counts { received: 5, lost: 0, reordered: 2, late: 0 });
    }

    #[test]
    fn what_is_missing_is_waited_for_and_then_given_up() {
        let mut line = Line::new();
        [10, 12, 13].into_iter().for_each(|sequence| line.push(sequence));
        assert_eq!(line.poll(), [(10, 0)]);
        let deadline = line.reorder.deadline().unwrap();
        assert_eq!(deadline, line.now + WAIT_MAX);
        line.now = deadline - Duration::from_millis(1);
        line.push(14);
        assert_eq!(line.poll(), []);
        line.now = deadline;
        assert_eq!(line.poll(), [(12, 1), (13, 0), (14, 0)]);
        line.push(11);
        line.push(14);
        assert_eq!(line.poll(), [], "too late, and twice");
        assert_eq!(line.reorder.counts(), Counts { received: 6, lost: 1, reordered: 0, late: 2 });
        assert_eq!(line.reorder.deadline(), None);
    }

    #[test]
    fn what_is_sent_again_in_time_is_not_lost() {
        let mut line = Line::new();
        [1, 3, 2].into_iter().for_each(|sequence| line.push(sequence));
        assert_eq!(line.poll(), [(1, 0), (2, 0), (3, 0)]);
        assert_eq!(line.reorder.counts().lost, 0);
    }

    /// Threat: a publisher that leaves one packet out and sends a million after it.
    #[test]
    fn no_more_is_kept_than_the_bound() {
        let mut line = Line::new();
        line.push(0);
        assert_eq!(line.poll(), [(0, 0)]);
        let mut out = 0;
        for sequence in 2..40_000 {
            line.push(sequence);
            out += line.poll().len();
            assert!(line.reorder.waiting.len() < PACKETS_MAX);
        }
        assert_eq!(out, 39_998);
        assert_eq!(line.reorder.counts().lost, 1);
    }

    #[test]
    fn a_source_that_starts_anew_is_followed_at_once() {
        let mut line = Line::new();
        [5, 6, 8].into_iter().for_each(|sequence| line.push(sequence));
        assert_eq!(line.poll(), [(5, 0), (6, 0)]);
        [30_000, 30_001].into_iter().for_each(|sequence| line.push(sequence));
        assert_eq!(line.poll(), [(30_000, 0), (30_001, 0)]);
        assert_eq!(line.reorder.counts().lost, 0, "nobody knows how many there were");
    }
}
