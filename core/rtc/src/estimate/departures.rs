//! When what left: a batch is one entry, as its packets leave together.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long feedback is waited for; later it tells nothing about the path of now.
const AGE_MAX: Duration = Duration::from_secs(2);
/// Most batches that are remembered: 2 s at 120 frames a second with sound and keyframes in pieces.
const BATCHES_MAX: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Departure {
    /// Transport-wide number of the first packet.
    first: u64,
    packets: u16,
    segment_bytes: u16,
    last_bytes: u16,
    at: Instant,
}

/// One packet, as it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Departed {
    pub(super) at: Instant,
    pub(super) bytes: usize,
}

#[derive(Debug, Default)]
pub(super) struct Departures {
    /// Oldest first, numbers rising.
    batches: VecDeque<Departure>,
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

    /// The packet that was sent as `number`, if that is remembered.
    pub(super) fn find(&self, number: u64) -> Option<Departed> {
        let behind = self.batches.partition_point(|batch| batch.first <= number);
        let batch = self.batches.get(behind.checked_sub(1)?)?;
        let at = number - batch.first;
        let last = u64::from(batch.packets) - 1;
        let bytes = if at == last { batch.last_bytes } else { batch.segment_bytes };
        (at <= last).then_some(Departed { at: batch.at, bytes: usize::from(bytes) })
    }

    /// The newest number sent whose low 16 bits are `sequence`.
    pub(super) fn number(&self, sequence: u16) -> Option<u64> {
        let batch = self.batches.back()?;
        let newest = batch.first + u64::from(batch.packets) - 1;
        newest.checked_sub(u64::from((newest as u16).wrapping_sub(sequence)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_found_with_its_size_across_the_wrap_of_its_number() {
        let now = Instant::now();
        let later = now + Duration::from_millis(33);
        let mut departures = Departures::default();
        departures.push(0x1_FFFE, 3, 1200, 2 * 1200 + 70, now);
        departures.push(0x2_0001, 1, 90, 90, later);
        let found = |sequence| departures.find(departures.number(sequence).unwrap());
        assert_eq!(found(0xFFFE), Some(Departed { at: now, bytes: 1200 }));
        assert_eq!(found(0), Some(Departed { at: now, bytes: 70 }));
        assert_eq!(found(1), Some(Departed { at: later, bytes: 90 }));
        assert_eq!(found(2), None, "not sent yet: its namesake of one turn before is long forgotten");
        assert_eq!(found(0xFFFD), None);
    }

    #[test]
    fn what_is_old_or_too_much_is_forgotten() {
        let start = Instant::now();
        let mut departures = Departures::default();
        departures.push(0, 1, 90, 90, start);
        departures.push(1, 1, 90, 90, start + AGE_MAX + Duration::from_millis(1));
        assert!(departures.find(0).is_none());
        for number in 2..5_000 {
            departures.push(number, 1, 90, 90, start + AGE_MAX);
        }
        assert_eq!(departures.batches.len(), BATCHES_MAX);
        assert!(departures.find(4_999).is_some());
    }
}
