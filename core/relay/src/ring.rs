//! The ring of groups of one track, and the cursors of its readers.
//!
//! Pure. Invariants: group numbers rise; frame numbers rise within a group, from 0 and by one where the track is written, and
//! with holes in a copy of it on another node; frames are never changed or reordered, only the oldest whole groups are
//! dropped.

use std::collections::VecDeque;

use media::{AccessUnit, CodecConfig, Timescale, TrackId};

use crate::frame::{Boundary, Frame, Kind, Place};

/// Most bytes a track's ring holds. When it is full the oldest group goes, never the newest.
pub const RING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The writer closes a group of this size and goes on in a new one, which is not a keyframe's; so one
/// endless GOP cannot hold the whole ring.
pub const GROUP_BYTES_MAX: usize = RING_BYTES_MAX / 4;

/// Span of media the ring keeps behind the newest group: enough for a reader that resumes after a restart of
/// its node, and less than the origin's store keeps of the same bytes anyway.
const RING_SECONDS_MAX: i64 = 30;

/// A viewer this many groups behind jumps to the newest keyframe,
const LAG_GROUPS_MAX: u32 = 2;
/// or this many seconds, whichever is less.
const LAG_SECONDS_MAX: i64 = 4;

/// Of a group that another node wrote. Its writer counts media only, and of a rung the source's.
const COPIED_GROUP_BYTES_MAX: usize = GROUP_BYTES_MAX * 2;

/// What a frame takes beside its bytes: its entry here, and what the allocator and its reference count add. Counted with
/// them, or a log of empty frames would take ten times its bound.
const FRAME_OVERHEAD_BYTES: usize = size_of::<Frame>() + 48;

const _: () = assert!(GROUP_BYTES_MAX * 2 <= RING_BYTES_MAX, "the group before the newest must fit");
const _: () = assert!(LAG_SECONDS_MAX < RING_SECONDS_MAX, "a viewer jumps before its group is dropped");

struct Group {
    id: u32,
    start: i64,
    bytes: usize,
    frames: Vec<Frame>,
    /// Newest unit of the group at which decoding can start.
    key: Option<u32>,
}

impl Group {
    /// Where frame `number` is, or the next one that is here.
    fn place_of(&self, number: u32) -> usize {
        let place = number as usize;
        // Where nothing was left out, which is everywhere but in a copy, a frame's number is its place.
        match self.frames.get(place) {
            Some(frame) if frame.index() == number => place,
            _ => self.frames.partition_point(|frame| frame.index() < number),
        }
    }
}

/// The newest groups of one track.
pub struct Ring {
    track: TrackId,
    timescale: Timescale,
    groups: VecDeque<Group>,
    /// The newest group that is no longer here. Numbers may leave groups out, so a cursor before the oldest is not lost
    /// for that.
    dropped: Option<u32>,
    /// The newest configuration of the groups that are no longer here: it may be in force still.
    config_dropped: Option<Frame>,
    bytes: usize,
    newest_dts: i64,
}

/// Why a frame of another node is not taken. That node is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("frame {group}.{frame} comes after {newest_group}.{newest_frame}")]
    Order { group: u32, frame: u32, newest_group: u32, newest_frame: u32 },
    #[error("group {group} is longer than any that is written")]
    GroupTooLong { group: u32 },
}

/// Where a reader stands: the next frame it wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub epoch: u32,
    pub group: u32,
    pub frame: u32,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The reader has everything there is.
    Idle,
    /// Frames were handed out; there may be more.
    Frames,
    /// The reader was too far behind: the frames handed out begin at a newer keyframe.
    Jumped,
    /// A reader that never jumps lost its place: what it wanted is no longer here.
    Lost,
    /// The End frame was handed out, now or before.
    Ended,
}

impl Ring {
    pub fn new(track: TrackId, timescale: Timescale) -> Self {
        let groups = VecDeque::new();
        Self { track, timescale, groups, dropped: None, config_dropped: None, bytes: 0, newest_dts: 0 }
    }

    /// Starts group `id`. What is appended next opens it.
    pub fn open_group(&mut self, id: u32, start: i64) {
        debug_assert!(self.groups.back().is_none_or(|group| group.id < id), "group numbers rise");
        self.groups.push_back(Group { id, start, bytes: 0, frames: Vec::new(), key: None });
        self.drop_oldest();
    }

    pub fn push_unit(&mut self, unit: &AccessUnit) {
        self.newest_dts = unit.dts;
        self.push(|place| Frame::unit(place, unit));
    }

    pub fn push_config(&mut self, dts: i64, codec: &CodecConfig) {
        self.push(|place| Frame::config(place, dts, codec));
    }

    pub fn push_boundary(&mut self, boundary: &Boundary) {
        self.push(|place| Frame::boundary(place, boundary));
    }

    /// The track is over at `end`. It may have had no group at all.
    pub fn push_end(&mut self, end: i64) {
        if self.groups.is_empty() {
            self.open_group(0, end);
        }
        self.push(|place| Frame::end(place, end));
    }

    /// A frame as another node wrote it, under its own numbers.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was changed then.
    pub fn push_copy(&mut self, frame: Frame) -> Result<(), AppendError> {
        let (id, index) = (frame.group(), frame.index());
        match self.groups.back() {
            Some(newest) if newest.id == id => {
                if newest.frames.last().is_some_and(|last| last.index() >= index) {
                    return Err(self.order(&frame));
                }
                if newest.bytes > COPIED_GROUP_BYTES_MAX {
                    return Err(AppendError::GroupTooLong { group: id });
                }
            }
            Some(newest) if newest.id > id => return Err(self.order(&frame)),
            _ => self.open_group(id, frame.dts()),
        }
        if frame.kind() == Kind::Unit {
            self.newest_dts = frame.dts();
        }
        self.append(frame);
        Ok(())
    }

    fn order(&self, frame: &Frame) -> AppendError {
        let newest = self.groups.back();
        AppendError::Order {
            group: frame.group(),
            frame: frame.index(),
            newest_group: newest.map_or(0, |group| group.id),
            newest_frame: newest.and_then(|group| group.frames.last()).map_or(0, Frame::index),
        }
    }

    fn push(&mut self, frame: impl FnOnce(Place) -> Frame) {
        let track = self.track;
        let group = self.groups.back().expect("the writer opens a group before its first frame");
        let index = group.frames.last().map_or(0, |last| last.index() + 1);
        self.append(frame(Place { track, group: group.id, frame: index }));
    }

    fn append(&mut self, frame: Frame) {
        let group = self.groups.back_mut().expect("a group was opened");
        if frame.is_key_unit() {
            group.key = Some(frame.index());
        }
        let bytes = frame.wire().len() + FRAME_OVERHEAD_BYTES;
        group.bytes += bytes;
        self.bytes += bytes;
        group.frames.push(frame);
        self.drop_oldest();
    }

    fn drop_oldest(&mut self) {
        let span_max = self.ticks(RING_SECONDS_MAX);
        while let Some(second) = self.groups.get(1) {
            let needed = self.newest_dts - second.start < span_max;
            if needed && self.bytes <= RING_BYTES_MAX {
                break;
            }
            if let Some(oldest) = self.groups.pop_front() {
                self.dropped = Some(oldest.id);
                self.bytes -= oldest.bytes;
                let config = oldest.frames.into_iter().rfind(|frame| frame.kind() == Kind::Config);
                self.config_dropped = config.or(self.config_dropped.take());
            }
        }
    }

    /// Where a late reader starts: the newest keyframe, or the oldest frame there is while no key is known.
    pub fn start(&self, epoch: u32) -> Cursor {
        self.newest_key(epoch).unwrap_or_else(|| self.oldest(epoch))
    }

    /// The oldest frame still here.
    pub fn oldest(&self, epoch: u32) -> Cursor {
        Cursor { epoch, group: self.groups.front().map_or(0, |group| group.id), frame: 0 }
    }

    /// What a reader who starts at `cursor` has to know of what lies before: the configuration and the part in force there,
    /// in the order they were written.
    pub fn preface(&self, cursor: Cursor) -> Vec<Frame> {
        let (mut config, mut boundary) = (self.config_dropped.as_ref(), None);
        let groups = self.groups.iter().take_while(|group| group.id <= cursor.group);
        for frame in groups.flat_map(|group| &group.frames) {
            match frame.kind() {
                _ if (frame.group(), frame.index()) >= (cursor.group, cursor.frame) => break,
                Kind::Config => config = Some(frame),
                Kind::Boundary => boundary = Some(frame),
                Kind::Unit | Kind::End => {}
            }
        }
        let mut preface: Vec<_> = config.into_iter().chain(boundary).cloned().collect();
        preface.sort_by_key(|frame| (frame.group(), frame.index()));
        preface
    }

    /// Hands the frames from `cursor` on, to the end of its group at most, to `out`, and moves the cursor
    /// past them. A viewer (`may_jump`) that lags jumps ahead first.
    pub fn read(&self, cursor: &mut Cursor, may_jump: bool, out: &mut Vec<Frame>) -> Read {
        let jumped = may_jump && self.jump(cursor);
        if self.dropped.is_some_and(|dropped| dropped >= cursor.group) {
            return Read::Lost;
        }
        let mut at = self.groups.partition_point(|group| group.id < cursor.group);
        while let Some(group) = self.groups.get(at) {
            let from = if group.id == cursor.group { group.place_of(cursor.frame) } else { 0 };
            let Some(frames) = group.frames.get(from..).filter(|frames| !frames.is_empty()) else {
                at += 1;
                continue;
            };
            out.extend_from_slice(frames);
            let next = frames.last().map_or(0, |last| last.index().saturating_add(1));
            (cursor.group, cursor.frame) = (group.id, next);
            let ended = frames.last().is_some_and(|frame| frame.kind() == Kind::End);
            return match (ended, jumped) {
                (true, _) => Read::Ended,
                (false, true) => Read::Jumped,
                (false, false) => Read::Frames,
            };
        }
        let ended = self.groups.back().and_then(|group| group.frames.last());
        if ended.is_some_and(|frame| frame.kind() == Kind::End) { Read::Ended } else { Read::Idle }
    }

    /// Moves a lagging cursor to the newest keyframe, if that lies ahead of it.
    fn jump(&self, cursor: &mut Cursor) -> bool {
        let Some(newest) = self.groups.back() else { return false };
        let lags = newest.id.saturating_sub(cursor.group) > LAG_GROUPS_MAX
            || self.dts_at(*cursor).is_some_and(|dts| self.newest_dts - dts > self.ticks(LAG_SECONDS_MAX));
        match self.newest_key(cursor.epoch) {
            Some(key) if lags && key > *cursor => {
                *cursor = key;
                true
            }
            _ => false,
        }
    }

    fn newest_key(&self, epoch: u32) -> Option<Cursor> {
        self.groups.iter().rev().find_map(|group| Some(Cursor { epoch, group: group.id, frame: group.key? }))
    }

    fn dts_at(&self, cursor: Cursor) -> Option<i64> {
        let at = self.groups.partition_point(|group| group.id < cursor.group);
        let group = self.groups.get(at)?;
        let place = if group.id == cursor.group { group.place_of(cursor.frame) } else { 0 };
        group.frames.get(place).map(Frame::dts)
    }

    fn ticks(&self, seconds: i64) -> i64 {
        seconds * i64::from(self.timescale.hertz())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const SECOND: i64 = 90_000;

    /// A video track at 10 fps: GOP k starts at k · `gop_s` seconds.
    struct Source {
        ring: Ring,
        gop_s: i64,
        bytes: usize,
    }

    impl Source {
        fn new(gop_s: i64, bytes: usize) -> Self {
            Self { ring: Ring::new(TrackId(0), Timescale::VIDEO), gop_s, bytes }
        }

        /// Appends GOPs `from..to`, whole.
        fn gops(&mut self, from: u32, to: u32) {
            for group in from..to {
                let start = i64::from(group) * self.gop_s * SECOND;
                self.ring.open_group(group, start);
                for n in 0..self.gop_s * 10 {
                    let dts = start + n * SECOND / 10;
                    let data = Bytes::from(vec![0; self.bytes]);
                    let unit = AccessUnit { dts, pts: dts, duration: 9_000, key: n == 0, data };
                    self.ring.push_unit(&unit);
                }
            }
        }
    }

    fn read_all(ring: &Ring, cursor: &mut Cursor, may_jump: bool) -> (Vec<Frame>, bool) {
        let (mut frames, mut jumped) = (Vec::new(), false);
        loop {
            match ring.read(cursor, may_jump, &mut frames) {
                Read::Idle | Read::Ended => return (frames, jumped),
                Read::Jumped => jumped = true,
                Read::Frames => {}
                Read::Lost => panic!("lost at {cursor:?}"),
            }
        }
    }

    /// A worker that came late begins with a group that is not the first.
    #[test]
    fn a_reader_that_was_there_before_anything_else_misses_nothing() {
        let mut source = Source::new(2, 1_000);
        let mut cursor = source.ring.oldest(1);
        source.gops(5, 6);
        source.gops(9, 10);
        assert_eq!(read_all(&source.ring, &mut cursor, false).0.len(), 40);
    }

    #[test]
    fn late_reader_starts_on_the_newest_keyframe() {
        let mut source = Source::new(2, 1_000);
        source.gops(0, 3);
        let mut cursor = source.ring.start(1);
        let (frames, jumped) = read_all(&source.ring, &mut cursor, true);
        assert!(frames[0].is_key_unit() && !jumped);
        assert_eq!(frames[0].dts(), 4 * SECOND);
        assert_eq!(frames.len(), 20);
    }

    #[test]
    fn viewer_that_falls_behind_jumps_to_the_newest_keyframe_and_loses_nothing_after_it() {
        let mut source = Source::new(2, 1_000);
        source.gops(0, 1);
        let mut cursor = source.ring.start(1);
        read_all(&source.ring, &mut cursor, true);
        source.gops(1, 3);
        let (frames, jumped) = read_all(&source.ring, &mut cursor, true);
        assert!(!jumped, "two groups behind is still in time");
        assert_eq!(frames.len(), 40);
        source.gops(3, 7);
        let (frames, jumped) = read_all(&source.ring, &mut cursor, true);
        assert!(jumped);
        assert_eq!(frames[0].dts(), 12 * SECOND);
        assert_eq!(frames.len(), 20);
    }

    /// With long GOPs the newest keyframe may lie behind the viewer: jumping there would show it old pictures again.
    #[test]
    fn viewer_never_jumps_backwards() {
        let mut source = Source::new(10, 1_000);
        source.gops(0, 1);
        let mut cursor = Cursor { epoch: 1, group: 0, frame: 30 };
        let (frames, jumped) = read_all(&source.ring, &mut cursor, true);
        assert!(!jumped);
        assert_eq!(frames.len(), 70);
    }

    #[test]
    fn reader_that_never_jumps_gets_every_frame_or_is_told() {
        let mut source = Source::new(2, 1_000);
        source.gops(0, 10);
        let mut origin = Cursor { epoch: 1, group: 0, frame: 0 };
        assert_eq!(read_all(&source.ring, &mut origin, false).0.len(), 200);
        let mut stalled = Cursor { epoch: 1, group: 2, frame: 5 };
        source.gops(10, 40);
        assert_eq!(source.ring.read(&mut stalled, false, &mut Vec::new()), Read::Lost);
    }

    #[test]
    fn ring_is_bounded_by_bytes_and_by_time_and_keeps_the_newest_group() {
        let mut short = Source::new(1, 100);
        short.gops(0, 100);
        assert!(short.ring.groups.len() as i64 <= RING_SECONDS_MAX + 1, "{} groups", short.ring.groups.len());
        let mut heavy = Source::new(1, 2 * 1024 * 1024);
        heavy.gops(0, 6);
        assert!(heavy.ring.bytes <= RING_BYTES_MAX + 20 * 1024 * 1024, "{} bytes", heavy.ring.bytes);
        assert_eq!(heavy.ring.groups.back().map(|group| group.frames.len()), Some(10));
    }

    /// What another node wrote is read as if it had been written here, though it came in with holes.
    #[test]
    fn a_copy_has_the_numbers_of_the_original_and_the_same_cursors() {
        let mut source = Source::new(2, 1_000);
        source.gops(0, 6);
        let mut frames = Vec::new();
        let mut cursor = source.ring.oldest(1);
        while source.ring.read(&mut cursor, false, &mut frames) == Read::Frames {}
        let mut copy = Ring::new(TrackId(0), Timescale::VIDEO);
        // A part of a group, and one of the next, as it is for a child that was slow.
        let came = |frame: &&Frame| (5..10).contains(&frame.index()) || (13..).contains(&frame.index());
        for frame in frames.iter().filter(came) {
            copy.push_copy(frame.clone()).unwrap();
        }
        let mut cursor = Cursor { epoch: 1, group: 2, frame: 7 };
        let mut read = Vec::new();
        assert_eq!(copy.read(&mut cursor, false, &mut read), Read::Frames);
        let numbers: Vec<_> = read.iter().map(Frame::index).collect();
        assert_eq!(numbers, [7, 8, 9, 13, 14, 15, 16, 17, 18, 19]);
        assert_eq!(cursor, Cursor { epoch: 1, group: 2, frame: 20 });
        // One that is not here is the next that is.
        let mut cursor = Cursor { epoch: 1, group: 2, frame: 11 };
        read.clear();
        copy.read(&mut cursor, false, &mut read);
        assert_eq!(read.first().map(Frame::index), Some(13));
        assert_eq!(read[0].wire(), frames[2 * 20 + 13].wire());
    }

    #[test]
    fn a_copy_refuses_what_no_honest_node_sends() {
        let mut source = Source::new(2, 1_000);
        source.gops(3, 5);
        let mut frames = Vec::new();
        let mut cursor = source.ring.oldest(1);
        while source.ring.read(&mut cursor, false, &mut frames) == Read::Frames {}
        let mut copy = Ring::new(TrackId(0), Timescale::VIDEO);
        for frame in &frames {
            copy.push_copy(frame.clone()).unwrap();
        }
        for again in [&frames[0], &frames[39]] {
            assert!(matches!(copy.push_copy(again.clone()), Err(AppendError::Order { .. })));
        }
        // Empty units for ever, in one group: they count for what they take.
        let unit = AccessUnit { dts: 0, pts: 0, duration: 0, key: false, data: Bytes::new() };
        let mut ends = (0_u32..).map(|frame| {
            let place = Place { track: TrackId(0), group: 9, frame };
            copy.push_copy(Frame::unit(place, &unit))
        });
        let refused = ends.by_ref().take(1 << 20).find_map(Result::err);
        assert_eq!(refused, Some(AppendError::GroupTooLong { group: 9 }));
    }

    /// Its encoder is configured once, and its viewers come when they like.
    #[test]
    fn a_late_reader_is_told_the_configuration_though_it_left_the_ring() {
        let codec = |config: &'static [u8]| {
            CodecConfig::Aac(media::codec::aac::Config::parse(Bytes::from_static(config)).unwrap())
        };
        let boundary = |msn, start| Boundary {
            msn,
            part: 0,
            start,
            program_date_time_ms: 0,
            discontinuity_sequence: 0,
            independent: true,
            gap: None,
        };
        let mut source = Source::new(2, 1_000);
        source.ring.open_group(0, 0);
        source.ring.push_config(0, &codec(&[0x11, 0x90]));
        source.gops(1, 3);
        source.ring.push_config(4 * SECOND, &codec(&[0x12, 0x10]));
        source.gops(3, 40);
        source.ring.open_group(40, 80 * SECOND);
        source.ring.push_boundary(&boundary(40, 80 * SECOND));
        let unit = AccessUnit { dts: 80 * SECOND, pts: 0, duration: 1, key: true, data: Bytes::new() };
        source.ring.push_unit(&unit);
        source.ring.push_boundary(&boundary(41, 81 * SECOND));
        assert!(source.ring.dropped.is_some_and(|dropped| dropped > 3));

        let start = source.ring.start(1);
        assert_eq!(start, Cursor { epoch: 1, group: 40, frame: 1 });
        let preface = source.ring.preface(start);
        assert_eq!(preface.iter().map(Frame::kind).collect::<Vec<_>>(), [Kind::Config, Kind::Boundary]);
        assert_eq!(preface[0].to_config().unwrap(), codec(&[0x12, 0x10]));
        assert_eq!(preface[1].to_boundary().unwrap().msn, 40, "the one in force there, and not the newest");
    }

    #[test]
    fn every_reader_sees_the_end() {
        let mut source = Source::new(2, 10);
        source.gops(0, 2);
        let mut cursor = source.ring.start(1);
        source.ring.push_end(4 * SECOND);
        let mut frames = Vec::new();
        assert_eq!(source.ring.read(&mut cursor, true, &mut frames), Read::Ended);
        assert_eq!(frames.last().map(Frame::kind), Some(Kind::End));
        assert_eq!(source.ring.read(&mut cursor, true, &mut frames), Read::Ended);
    }
}
