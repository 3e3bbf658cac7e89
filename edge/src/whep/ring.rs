//! The newest frames of one rendition, for the viewers of one shard. A viewer is a cursor into it. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is kept: what a viewer who joins may be sent at once, and some for one who is sent it slowly.
const KEPT: Duration = Duration::from_secs(4);

/// The same in bytes: four seconds of 24 Mbit/s.
const BYTES_MAX: usize = 12 * 1024 * 1024;

/// One frame, in packets.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    /// In ticks of the stream clock, by the same clock for all renditions.
    pub(crate) pts: i64,
    /// Decoding can start here.
    pub(crate) key: bool,
    pub(crate) arrived: Instant,
    pub(crate) bytes: usize,
    pub(crate) packets: T,
}

#[derive(Debug)]
pub(crate) struct Ring<T> {
    entries: VecDeque<Entry<T>>,
    /// Number of the oldest. Numbers rise by one with each frame, and begin at zero.
    first: u64,
    bytes: usize,
}

/// What there is under a number.
#[derive(Debug)]
pub(crate) enum Found<'a, T> {
    Entry(&'a Entry<T>),
    /// It has not come yet.
    NotYet,
    /// It was here, and is no more.
    Gone,
}

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), first: 0, bytes: 0 }
    }
}

impl<T> Ring<T> {
    pub(crate) fn push(&mut self, entry: Entry<T>) {
        let now = entry.arrived;
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
        let is_old = |entry: &Entry<T>| now.saturating_duration_since(entry.arrived) > KEPT;
        while self.entries.len() > 1 && (self.bytes > BYTES_MAX || self.entries.front().is_some_and(is_old)) {
            if let Some(oldest) = self.entries.pop_front() {
                self.first += 1;
                self.bytes -= oldest.bytes;
            }
        }
    }

    pub(crate) fn get(&self, number: u64) -> Found<'_, T> {
        let Some(place) = number.checked_sub(self.first) else { return Found::Gone };
        usize::try_from(place)
            .ok()
            .and_then(|place| self.entries.get(place))
            .map_or(Found::NotYet, Found::Entry)
    }

    /// Number of the frame that comes next.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(crate) fn newest(&self) -> Option<&Entry<T>> {
        self.entries.back()
    }

    /// The newest frame at which decoding can start, and its number.
    pub(crate) fn newest_key(&self) -> Option<(u64, &Entry<T>)> {
        let place = self.entries.iter().rposition(|entry| entry.key)?;
        Some((self.first + place as u64, self.entries.get(place)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_in_time_and_in_bytes_and_knows_what_is_gone() {
        let start = Instant::now();
        let entry = |number: u32, bytes| Entry {
            pts: i64::from(number) * 3_000,
            key: number.is_multiple_of(60),
            arrived: start + number * Duration::from_millis(33),
            bytes,
            packets: number,
        };
        let mut ring = Ring::default();
        (0..300).for_each(|number| ring.push(entry(number, 1_000)));
        assert!((120..=123).contains(&ring.entries.len()), "{}", ring.entries.len());
        assert_eq!((ring.end(), ring.newest().map(|entry| entry.packets)), (300, Some(299)));
        assert_eq!(ring.newest_key().map(|(number, entry)| (number, entry.packets)), Some((240, 240)));
        assert!(matches!(ring.get(0), Found::Gone) && matches!(ring.get(300), Found::NotYet));
        assert!(matches!(ring.get(299), Found::Entry(Entry { packets: 299, .. })));

        (300..320).for_each(|number| ring.push(entry(number, 4 * 1024 * 1024)));
        assert!(ring.bytes <= BYTES_MAX, "{}", ring.bytes);
        assert_eq!(ring.newest_key().map(|(number, _)| number), None);
    }
}
