//! Which of the shared packets a viewer's packet was: its own numbers run on without a gap, the shared ones jump
//! when it is switched to another rendition or left out frames.

use std::collections::VecDeque;

use crate::packetize::{Frame, Source};

/// Most jumps that are remembered. A viewer that is switched and skips often asks in vain for the oldest packets.
const SPLICES_MAX: usize = 32;

/// From `first_index` on, the viewer's packets are those of `source` from `first_packet` on, one by one.
#[derive(Debug, Clone, Copy)]
struct Splice {
    first_index: u64,
    source: Source,
    first_packet: u64,
}

#[derive(Debug, Default)]
pub(super) struct Splices {
    /// Oldest first.
    splices: VecDeque<Splice>,
}

impl Splices {
    /// `frame` is sent from `index` on.
    pub(super) fn record(&mut self, index: u64, frame: &Frame) {
        let (source, first_packet) = (frame.source(), frame.first_packet());
        let goes_on = self.splices.back().is_some_and(|splice| {
            splice.source == source && splice.first_packet + (index - splice.first_index) == first_packet
        });
        if !goes_on {
            if self.splices.len() == SPLICES_MAX {
                self.splices.pop_front();
            }
            self.splices.push_back(Splice { first_index: index, source, first_packet });
        }
    }

    /// The shared packet that was sent as `index`.
    pub(super) fn find(&self, index: u64) -> Option<(Source, u64)> {
        let splice = self.splices.iter().rev().find(|splice| splice.first_index <= index)?;
        Some((splice.source, splice.first_packet + (index - splice.first_index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::line::testing::Video;

    #[test]
    fn numbers_are_found_across_a_switch_and_a_skip() {
        let (mut low, mut high) = (Video::new(Source(1)), Video::new(Source(2)));
        let mut splices = Splices::default();
        splices.record(100, &low.frame(3));
        splices.record(103, &low.frame(2));
        low.frame(7); // left out
        splices.record(105, &low.frame(1));
        high.frame(4);
        splices.record(106, &high.frame(2));
        let found: Vec<_> = (99..108).map(|index| splices.find(index)).collect();
        let low = |packet| Some((Source(1), packet));
        let high = |packet| Some((Source(2), packet));
        assert_eq!(found, [None, low(0), low(1), low(2), low(3), low(4), low(12), high(4), high(5)]);
        assert_eq!(splices.splices.len(), 3);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut video = Video::new(Source(1));
        let mut splices = Splices::default();
        for index in 0..100 {
            video.frame(1); // left out
            splices.record(index, &video.frame(1));
        }
        assert_eq!(splices.splices.len(), SPLICES_MAX);
        assert_eq!(splices.find(67), None);
        assert_eq!(splices.find(68), Some((Source(1), 137)));
    }
}
