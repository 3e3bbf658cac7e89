//! When what left that the viewer has not told of: a batch is one entry, as its packets leave together.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long feedback is waited for. A path that is overrun tells late, and just then it must be heard: what waits before a TCP
/// connection of a narrow line is seconds old.
const AGE_MAX: Duration = Duration::from_secs(10);
/// Most batches that are remembered: 10 s of 50 pictures and 50 pieces of sound a second.
const BATCHES_MAX: usize = 1024;

/// Packets that left at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Departure {
    /// Transport-wide number of the first packet.
    first: u64,
    packets: u16,
    segment_bytes: u16,
    last_bytes: u16,
    pub(super) at: Instant,
}

impl Departure {
    /// Number behind its last packet.
    fn end(&self) -> u64 {
        self.first + u64::from(self.packets)
    }

    /// Of packet `number`, which is one of these.
    pub(super) fn bytes(&self, number: u64) -> usize {
        usize::from(if number + 1 == self.end() { self.last_bytes } else { self.segment_bytes })
    }
}

#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Oldest first, numbers rising.
    batches: VecDeque<Departure>,
    /// Number of the next packet that is told of: of those before no more is heard.
    next: u64,
}

impl Departures {
    /// `packets` packets from number `first` on left now, `bytes` together, all of `segment` bytes but the last.
    pub(super) fn push(&mut self, first: u64, packets: usize, segment: usize, bytes: usize, now: Instant) {
        let Some(before_last) = packets.checked_sub(1) else { return };
        while let Some(oldest) = self.batches.front() {
            let old = now.saturating_duration_since(oldest.at) > AGE_MAX;
            if !old && self.batches.len() < BATCHES_MAX {
                break;
            }
            self.batches.pop_front();
        }
        let last = bytes.saturating_sub(before_last * segment);
        self.batches.push_back(Departure {
            first,
            packets: packets as u16,
            segment_bytes: segment as u16,
            last_bytes: last as u16,
            at: now,
        });
    }

    /// The batch of packet `number`, if that is remembered and was not told of. All before it is forgotten.
    pub(super) fn tell(&mut self, number: u64) -> Option<Departure> {
        if number < self.next {
            return None;
        }
        while self.batches.front().is_some_and(|batch| batch.end() <= number) {
            self.batches.pop_front();
        }
        let batch = self.batches.front().filter(|batch| batch.first <= number)?;
        self.next = number + 1;
        Some(*batch)
    }

    /// The newest number sent whose low 16 bits are `sequence`; `None` if there is none that was not told of.
    pub(super) fn number(&self, sequence: u16) -> Option<u64> {
        let newest = self.batches.back()?.end() - 1;
        newest.checked_sub(u64::from((newest as u16).wrapping_sub(sequence)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_told_of_once_with_its_size_across_the_wrap_of_its_number() {
        let now = Instant::now();
        let later = now + Duration::from_millis(33);
        let mut departures = Departures::default();
        departures.push(0x1_FFFE, 3, 1200, 2 * 1200 + 70, now);
        departures.push(0x2_0001, 1, 90, 90, later);
        let mut told = |sequence| {
            let number = departures.number(sequence)?;
            departures.tell(number).map(|batch| (batch.at, batch.bytes(number)))
        };
        assert_eq!(told(0xFFFD), None);
        assert_eq!(told(0xFFFE), Some((now, 1200)));
        assert_eq!(told(0), Some((now, 70)));
        assert_eq!(told(0xFFFF), None, "what came late has been counted as lost");
        assert_eq!(told(2), None, "not sent yet: its namesake of one turn before is long forgotten");
        assert_eq!(told(1), Some((later, 90)));
        assert_eq!(told(1), None);
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let start = Instant::now();
        let mut departures = Departures::default();
        departures.push(0, 1, 90, 90, start);
        departures.push(1, 1, 90, 90, start + AGE_MAX + Duration::from_millis(1));
        assert!(departures.tell(0).is_none());
        for number in 2..5_000 {
            departures.push(number, 1, 90, 90, start + AGE_MAX);
        }
        assert_eq!(departures.batches.len(), BATCHES_MAX);
        assert!(departures.tell(4_999).is_some());
        assert_eq!(departures.batches.len(), 1, "and nothing before it is heard of any more");
    }
}
