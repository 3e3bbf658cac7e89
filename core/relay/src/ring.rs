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
mod tests;
