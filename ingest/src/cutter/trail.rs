//! The follower's half of the cutter: audio, cut where the video is.
//!
//! A unit is written once the lead has passed it, because only then no boundary can precede it any more. Times are
//! in the follower's ticks.

use std::collections::VecDeque;

use media::{AccessUnit, MediaTime};
use relay::Boundary;

use super::{Entry, Lane};
use crate::grid::Follower;

/// Boundaries of the lead that the follower has not reached, and units that wait to know theirs.
pub(super) struct Trail {
    config: Follower,
    /// Wall-clock time of stream time zero, in milliseconds since the Unix epoch.
    anchor_ms: i64,
    marks: VecDeque<Mark>,
    held: VecDeque<AccessUnit>,
    /// Start of the newest boundary written.
    written: i64,
    group: Option<u32>,
    last_end: i64,
    /// Start of the newest unit that came, written or not.
    newest: i64,
}

/// A boundary of the lead, on the follower's clock.
#[derive(Clone, Copy)]
struct Mark {
    msn: u64,
    part: u32,
    start: i64,
    /// Where the lead's media before it ends; earlier than `start` where the timeline breaks. What the follower has
    /// in between belongs to no part.
    hole: i64,
    discontinuity_sequence: u64,
    group: u32,
}

impl Trail {
    pub(super) fn new(config: Follower, anchor_ms: i64) -> Self {
        Self {
            config,
            anchor_ms,
            marks: VecDeque::new(),
            held: VecDeque::new(),
            written: i64::MIN,
            group: None,
            last_end: i64::MIN,
            newest: i64::MIN,
        }
    }

    /// Length of a unit, in seconds.
    pub(super) fn frame_s(&self) -> f64 {
        self.config.scale.seconds(self.config.frame)
    }

    /// Takes a unit, which waits for the lead; returns when it begins.
    pub(super) fn hold(&mut self, unit: AccessUnit) -> MediaTime {
        let start = MediaTime::new(unit.dts, self.config.scale);
        self.newest = unit.dts;
        self.held.push_back(unit);
        start
    }

    /// Whether a unit at or after `time` has come.
    pub(super) fn came_to(&self, time: MediaTime) -> bool {
        self.newest >= time.ticks_in(self.config.scale)
    }

    /// The lead drew a boundary at `start`, in group `group`; what it had before ends at `hole`, which is earlier
    /// where its timeline breaks.
    pub(super) fn follow(&mut self, boundary: &Boundary, start: MediaTime, hole: MediaTime, group: u32) {
        self.marks.push_back(Mark {
            msn: boundary.msn,
            part: boundary.part,
            start: start.ticks_in(self.config.scale),
            hole: hole.ticks_in(self.config.scale),
            discontinuity_sequence: boundary.discontinuity_sequence,
            group,
        });
    }

    /// Writes what no later boundary of the lead can precede, now that it has come to `progress`: units, and parts
    /// that got none for `patience_s`. Returns how many units belong to no part.
    pub(super) fn release(&mut self, progress: MediaTime, patience_s: i64, out: &mut Vec<Entry>) -> u64 {
        let progress = progress.ticks_in(self.config.scale);
        let late = self.write_until(progress, out);
        self.give_up(progress - patience_s * i64::from(self.config.scale.hertz()), out);
        late
    }

    /// Lets go of what begins before `time`; returns how many units that were.
    pub(super) fn forget(&mut self, time: MediaTime) -> u64 {
        let start = time.ticks_in(self.config.scale);
        let before = self.held.len();
        self.held.retain(|unit| unit.dts >= start);
        (before - self.held.len()) as u64
    }

    /// Nothing will come of any track for a while: the boundaries not reached yet begin gaps, each of a nominal `part`,
    /// so that both renditions go on at the same moment. Returns how many units had come too early for that.
    pub(super) fn fall_silent(&mut self, part: MediaTime, out: &mut Vec<Entry>) -> u64 {
        let early = self.held.len() as u64;
        self.held.clear();
        let part = part.ticks_in(self.config.scale);
        while let Some(mark) = self.marks.pop_front() {
            let end = self.marks.front().map_or(mark.start + part, |next| next.hole);
            self.write_gap(mark, end, out);
        }
        early
    }

    /// Writes what is held; there will be no more of the lead.
    pub(super) fn finish(&mut self, out: &mut Vec<Entry>) -> u64 {
        self.write_until(i64::MAX, out)
    }

    fn write_until(&mut self, until: i64, out: &mut Vec<Entry>) -> u64 {
        let mut late = 0;
        // The unit right after a boundary opens its part whatever comes later, so it need not wait for that.
        while let Some(unit) = self.held.pop_front_if(|unit| {
            let opens = |mark: &Mark| (mark.start..mark.start + self.config.frame).contains(&unit.dts);
            unit.dts <= until || self.marks.front().is_some_and(opens)
        }) {
            let in_hole = self.marks.iter().any(|mark| (mark.hole..mark.start).contains(&unit.dts));
            if !in_hole {
                self.reach(unit.dts, out);
            }
            if in_hole || unit.dts < self.written || self.group.is_none() {
                late += 1;
                continue;
            }
            self.last_end = unit.dts + i64::from(unit.duration);
            out.push(Entry::Unit { lane: Lane::Follower, unit });
        }
        late
    }

    /// Writes the boundaries at or before `dts`, where a unit begins. All but the last of them found no unit and
    /// are gaps; but where the lead's part was shorter than a unit of ours, it gets this one and the next
    /// boundary waits for the unit after.
    fn reach(&mut self, dts: i64, out: &mut Vec<Entry>) {
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.start <= dts) {
            match self.marks.front() {
                Some(next)
                    if next.start <= dts - self.config.frame
                        || (next.hole < next.start && next.start <= dts) =>
                {
                    let end = next.hole;
                    self.write_gap(mark, end, out);
                }
                _ => {
                    // Where units are missing the part begins on the boundary and its first unit comes later.
                    let late = dts - mark.start > 2 * self.config.frame;
                    let start = if late { mark.start.max(self.last_end) } else { dts };
                    return self.write(mark, start, None, out);
                }
            }
        }
    }

    /// Writes the parts that ended before `until` and got no unit, as gaps.
    fn give_up(&mut self, until: i64, out: &mut Vec<Entry>) {
        while let Some(end) = self.marks.get(1).filter(|next| next.start <= until).map(|next| next.hole) {
            let Some(mark) = self.marks.pop_front() else { return };
            self.write_gap(mark, end, out);
        }
    }

    fn write_gap(&mut self, mark: Mark, end: i64, out: &mut Vec<Entry>) {
        let start = mark.start.max(self.last_end);
        let duration = u32::try_from(end - start).unwrap_or(0).max(1);
        self.write(mark, start, Some(duration), out);
    }

    fn write(&mut self, mark: Mark, start: i64, gap: Option<u32>, out: &mut Vec<Entry>) {
        if self.group != Some(mark.group) && (mark.part == 0 || self.group.is_none()) {
            self.group = Some(mark.group);
            out.push(Entry::Group { lane: Lane::Follower, id: mark.group, start });
        }
        // Beside a part of one picture even a gap may find no room; it still has a length.
        let start = start.max(self.written.saturating_add(1));
        self.written = start;
        let boundary = Boundary {
            msn: mark.msn,
            part: mark.part,
            start,
            program_date_time_ms: self.anchor_ms + MediaTime::new(start, self.config.scale).millis(),
            discontinuity_sequence: mark.discontinuity_sequence,
            independent: gap.is_none(),
            gap,
        };
        out.push(Entry::Boundary { lane: Lane::Follower, boundary });
    }
}
