//! The last seconds of one rendition, shared by all its viewers: what is sent again, and where newcomers start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::packetize::{Frame, Source};

/// How long a frame is kept. A packet is asked for again within two round trips; a newcomer starts with a group that
/// is at most 2.5 s old.
pub const HISTORY_AGE: Duration = Duration::from_secs(3);
/// Most payload bytes kept, whatever their age: three seconds at 21 Mbit/s. The oldest frames go first.
pub const HISTORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Frames of one packetizer, in the order it made them.
pub struct History {
    source: Source,
    frames: VecDeque<(Instant, Arc<Frame>)>,
    bytes: usize,
}

impl History {
    pub fn new(source: Source) -> Self {
        Self { source, frames: VecDeque::new(), bytes: 0 }
    }

    pub fn source(&self) -> Source {
        self.source
    }

    /// Payload bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps the next frame, made `now`, and drops what is too old for it. A frame of another source is not kept.
    pub fn push(&mut self, frame: Arc<Frame>, now: Instant) {
        if frame.source() != self.source {
            return;
        }
        self.bytes += frame.bytes();
        self.frames.push_back((now, frame));
        while let Some((made, oldest)) = self.frames.front() {
            let old = now.saturating_duration_since(*made) > HISTORY_AGE;
            if !old && self.bytes <= HISTORY_BYTES_MAX {
                break;
            }
            self.bytes -= oldest.bytes();
            self.frames.pop_front();
        }
    }

    /// The frame with packet number `packet`, and which of its payloads that is.
    pub fn find(&self, packet: u64) -> Option<(&Arc<Frame>, usize)> {
        let behind = self.frames.partition_point(|(_, frame)| frame.first_packet() <= packet);
        let (_, frame) = self.frames.get(behind.checked_sub(1)?)?;
        let at = usize::try_from(packet - frame.first_packet()).ok()?;
        (at < frame.packets()).then_some((frame, at))
    }

    /// The newest keyframe and all frames behind it, if it was made after `oldest`.
    pub fn newest_group(&self, oldest: Instant) -> Option<impl Iterator<Item = &Arc<Frame>>> {
        let at = self.frames.iter().rposition(|(_, frame)| frame.is_key())?;
        let made = self.frames.get(at)?.0;
        (made >= oldest).then(|| self.frames.range(at..).map(|(_, frame)| frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::line::testing::{Video, frame_of};

    #[test]
    fn a_packet_is_found_in_its_frame() {
        let mut video = Video::new(Source(1));
        let now = Instant::now();
        let mut history = History::new(Source(1));
        for packets in [3, 1, 2] {
            history.push(video.frame(packets), now);
        }
        let place = |packet| history.find(packet).map(|(frame, at)| (frame.first_packet(), at));
        let places: Vec<_> = (0..7).map(place).collect();
        let expected =
            [Some((0, 0)), Some((0, 1)), Some((0, 2)), Some((3, 0)), Some((4, 0)), Some((4, 1)), None];
        assert_eq!(places, expected);
    }

    #[test]
    fn what_is_too_old_or_too_much_is_dropped() {
        let mut video = Video::new(Source(1));
        let start = Instant::now();
        let mut history = History::new(Source(1));
        history.push(video.frame(1), start);
        history.push(video.frame(1), start + Duration::from_secs(2));
        assert!(history.find(0).is_some());
        history.push(video.frame(1), start + HISTORY_AGE + Duration::from_millis(1));
        assert!(history.find(0).is_none());
        assert!(history.find(1).is_some());

        let now = start + HISTORY_AGE;
        for _ in 0..20 {
            history.push(video.frame(1000), now);
            assert!(history.bytes() <= HISTORY_BYTES_MAX);
        }
        assert!(history.bytes() > HISTORY_BYTES_MAX / 2);
        assert_eq!(history.bytes(), history.frames.iter().map(|(_, frame)| frame.bytes()).sum::<usize>());
    }

    #[test]
    fn another_packetizers_frames_are_not_kept() {
        let mut history = History::new(Source(1));
        history.push(frame_of(Source(2), 1), Instant::now());
        assert!(history.find(0).is_none());
    }

    #[test]
    fn a_newcomer_gets_the_newest_group_unless_it_is_old() {
        let mut video = Video::new(Source(1));
        let start = Instant::now();
        let mut history = History::new(Source(1));
        assert!(history.newest_group(start).is_none());
        for key in [true, false, true, false, false] {
            history.push(video.frame_with(1, key), start);
        }
        let group: Vec<u64> =
            history.newest_group(start).unwrap().map(|frame| frame.first_packet()).collect();
        assert_eq!(group, [2, 3, 4]);
        assert!(history.newest_group(start + Duration::from_millis(1)).is_none());
    }
}
