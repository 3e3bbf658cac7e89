//! The cutter: draws every segment and part boundary of a stream, once, for all renditions and all nodes.
//!
//! The *lead* track (the video, or the audio of a stream without) decides; audio beside video *follows*: its
//! part p ends at the first audio frame at or after the video's boundary. Units go in, log entries come out in
//! the order they are to be written. Pure: media time is the only clock.
//!
//! Invariants: MSNs and groups rise; parts of a segment count from 0; no entry of a track is older than the
//! one before it.

mod trail;

use std::time::Duration;

use media::{AccessUnit, CodecConfig, MediaTime, Timescale};
use relay::{Boundary, GROUP_BYTES_MAX};

use self::trail::Trail;
use crate::grid::{Grid, SEGMENT_TARGET};

/// Largest EXT-X-TARGETDURATION, in seconds: also where a segment without any keyframe ends.
const TARGET_DURATION_MAX_S: u32 = 12;

/// A segment of this size ends without a keyframe. It is 12 s at 60 Mbit/s, which no honest publisher fills; the
/// origin keeps the newest two segments whatever they weigh.
const SEGMENT_BYTES_MAX: usize = 96 * 1024 * 1024;

/// A group without a keyframe is closed after this span, so that the ring can let go of it.
const GROUP_SECONDS_MAX: i64 = 12;

/// Audio ahead of the video waits this long for the video's boundaries, in seconds; then the video's missing
/// parts are published as gaps. Equally, a part of audio that is missing for this long is a gap.
const PATIENCE_S: i64 = 1;

/// A silence of the lead beyond this many of its usual intervals is a hole in the timeline.
const HOLE_INTERVALS: f64 = 1.5;

/// Whole segments that are listed again after a restart: a player that reloads once in a target duration knows one.
const SEGMENTS_HEARD: u64 = 3;

/// Longest interval that is still taken for a slow frame rate, in seconds.
const INTERVAL_MAX_S: i64 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Lead,
    Follower,
}

/// One thing to write into the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    /// A new group begins with the next entry of this lane.
    Group {
        lane: Lane,
        id: u32,
        start: i64,
    },
    /// Segment 0 is complete; the boundary that ends it comes next.
    FirstSegment {
        target_duration_s: u32,
        keyframe_interval_s: f64,
    },
    Config {
        codec: CodecConfig,
        dts: i64,
    },
    Boundary {
        lane: Lane,
        boundary: Boundary,
    },
    Unit {
        lane: Lane,
        unit: AccessUnit,
    },
}

/// What went otherwise than a good publisher's media does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Parts longer than PART-TARGET: the source is slower, or less even, than at its start.
    pub(crate) parts_over_target: u64,
    /// Segments that had to end without a keyframe.
    pub(crate) segments_forced: u64,
    pub(crate) discontinuities: u64,
    /// Of them those that are the publisher's wish: another size, or another encoder.
    pub(crate) reconfigured: u64,
    /// Units that belong to no part: theirs was given up as a gap, or lies in a hole of the timeline.
    pub(crate) late_units: u64,
}

/// Where the numbers of a session stand: what its first boundary, or its next one after a restart, is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) msn: u64,
    pub(crate) group: u32,
    pub(crate) discontinuity_sequence: u64,
}

pub(crate) struct Cutter {
    grid: Grid,
    /// Wall-clock time of stream time zero, in milliseconds since the Unix epoch.
    anchor_ms: i64,
    target_duration_s: Option<u32>,
    first: Numbers,
    /// Came with a unit that was passed over.
    config_next: Option<CodecConfig>,
    /// `None` before the first unit.
    open: Option<Open>,
    group: u32,
    group_start: i64,
    group_bytes: usize,
    follower: Option<Trail>,
    /// All tracks are silent: what comes of the follower alone belongs to no part until the lead is back.
    silent: bool,
    counts: Counts,
}

/// The part being filled, and the segment it is in.
struct Open {
    msn: u64,
    part: u32,
    discontinuity_sequence: u64,
    segment_start: i64,
    segment_bytes: usize,
    part_start: i64,
    /// The newest unit of the lead.
    last: i64,
    last_end: i64,
    key_last: i64,
    key_interval: i64,
    /// The longest interval of two units, now and in the window before it.
    interval: Longest,
    /// The segment began without a keyframe, so the next one begins another.
    cut_at_next_key: bool,
    /// The part has no units and takes none: the lead is silent while the follower goes on.
    gap: bool,
}

/// The largest value of the last 10 to 20 seconds.
struct Longest {
    current: i64,
    previous: i64,
    since: i64,
    window: i64,
}

impl Longest {
    fn note(&mut self, value: i64, now: i64) {
        if now - self.since >= self.window {
            (self.previous, self.current, self.since) = (self.current, 0, now);
        }
        self.current = self.current.max(value);
    }

    fn get(&self) -> i64 {
        self.current.max(self.previous)
    }
}

impl Open {
    /// How long after its newest unit the lead may be silent before its timeline has a hole.
    fn silence_max(&self, grid: &Grid) -> i64 {
        let usual = grid.part.max(self.interval.get());
        // Beyond half the largest TARGETDURATION even a lone unit breaks it.
        let most = i64::from(TARGET_DURATION_MAX_S * grid.scale.hertz()) / 2;
        ((HOLE_INTERVALS * usual as f64) as i64).min(most)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    No,
    Part,
    Segment { broken: bool },
}

impl Cutter {
    pub(crate) fn new(grid: Grid, anchor_ms: i64) -> Self {
        let follower = grid.follower.map(|config| Trail::new(config, anchor_ms));
        Self {
            grid,
            anchor_ms,
            target_duration_s: None,
            first: Numbers::default(),
            config_next: None,
            open: None,
            group: 0,
            group_start: 0,
            group_bytes: 0,
            follower,
            silent: false,
            counts: Counts::default(),
        }
    }

    /// Goes on with a session whose process has died within segment `last`, which began at `began`: until the publisher
    /// is back there are gaps. `began` and `now` are in the lead's ticks.
    ///
    /// What is lost is listed as gaps, too: the newest segments that a viewer can have heard of, and the time since. A
    /// player finds its place by numbers that it knows; hls.js 1.7.4 guesses, and stands still for many seconds, if there
    /// are none. Numbers of parts that were published or hinted are not used for others.
    pub(crate) fn resume(
        grid: Grid,
        anchor_ms: i64,
        target_duration_s: u32,
        last: Numbers,
        began: i64,
        now: i64,
        out: &mut Vec<Entry>,
    ) -> Self {
        let usual = began / i64::try_from(last.msn).unwrap_or(i64::MAX).max(1);
        let longest = i64::from(target_duration_s * grid.scale.hertz());
        let usual = usual.clamp(grid.frame, longest);
        let heard = last.msn.min(SEGMENTS_HEARD).min((began / usual).unsigned_abs());
        // A segment for the one that was open, and another for the one that was hinted.
        let lost = (now - began).max(2 * grid.frame);
        let segments = (lost / grid.segment()).max(1) + 1;
        let starts = (1..=heard as i64).rev().map(|ago| began - ago * usual);
        let starts = starts.chain((0..=segments).map(|number| began + lost * number / segments));

        let mut cutter = Self::new(grid, anchor_ms);
        cutter.target_duration_s = Some(target_duration_s);
        cutter.first = Numbers { msn: last.msn - heard, ..last };
        cutter.group = last.group;
        for start in starts {
            if cutter.open.is_none() {
                cutter.group_start = start;
                out.push(Entry::Group { lane: Lane::Lead, id: last.group, start });
            }
            while let Some(part) = cutter.open.as_ref().map(|open| open.part_start + cutter.grid.part)
                && part < start
            {
                cutter.cut(Cut::Part, part, false, true, out);
            }
            cutter.cut(Cut::Segment { broken: false }, start, false, true, out);
        }
        cutter.silence(MediaTime::new(began + lost, cutter.grid.scale), out);
        cutter
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Where the lead's newest unit ends, or its newest gap begins. `None` before the first unit.
    pub(crate) fn edge(&self) -> Option<MediaTime> {
        let open = self.open.as_ref()?;
        Some(MediaTime::new(open.last_end.max(open.part_start), self.grid.scale))
    }

    /// Whether the parts of the lead are gaps at the moment: what it lacks is a keyframe behind [`Cutter::edge`].
    pub(crate) fn is_in_gap(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.gap)
    }

    /// The longest distance of two units of the lead lately.
    pub(crate) fn interval(&self) -> Duration {
        let ticks = self.open.as_ref().map_or(self.grid.frame, |open| open.interval.get());
        self.grid.scale.duration(ticks)
    }

    /// A unit of the lead. `broken`: the timeline breaks before it. `config`: its decoder configuration, if it
    /// is another one than the unit's before; both start a segment.
    pub(crate) fn push_lead(
        &mut self,
        unit: AccessUnit,
        broken: bool,
        config: Option<CodecConfig>,
        out: &mut Vec<Entry>,
    ) {
        if !broken {
            self.gap_if_follower_went_on(unit.dts, out);
        }
        if let Some(open) = self.open.as_ref().filter(|open| open.gap) {
            if unit.dts <= open.part_start || !unit.key {
                self.counts.late_units += 1;
                self.config_next = config.or(self.config_next.take());
                return;
            }
            self.fill(unit.dts - 1, out);
        }
        let config = config.or(self.config_next.take());
        let cut = self.decide(&unit, broken || config.is_some());
        self.open_group(&unit, cut, out);
        if let Some(codec) = config {
            self.counts.reconfigured += u64::from(!broken && cut == Cut::Segment { broken: true });
            out.push(Entry::Config { codec, dts: unit.dts });
        }
        self.cut(cut, unit.dts, unit.key, false, out);
        self.silent = false;
        if let Some(open) = &mut self.open {
            open.last = unit.dts;
            open.last_end = unit.dts + i64::from(unit.duration);
            open.segment_bytes += unit.data.len();
            if unit.key {
                open.key_interval = open.key_interval.max(unit.dts - open.key_last);
                open.key_last = unit.dts;
            }
        }
        self.group_bytes += unit.data.len();
        out.push(Entry::Unit { lane: Lane::Lead, unit });
        self.release(out);
    }

    /// A unit of the follower.
    pub(crate) fn push_follower(&mut self, unit: AccessUnit, out: &mut Vec<Entry>) {
        let Some(trail) = &mut self.follower else { return };
        let newest = trail.hold(unit).ticks_in(self.grid.scale);
        let patience = PATIENCE_S * i64::from(self.grid.scale.hertz());
        if let Some(open) = self.open.as_ref().filter(|_| self.silent) {
            self.counts.late_units += trail.forget(MediaTime::new(open.part_start, self.grid.scale));
            // The sound alone is back: from here on the boundaries follow its clock.
            self.silent = newest - open.part_start <= patience;
            if self.silent {
                return;
            }
        }
        self.fill(newest - patience, out);
        self.release(out);
    }

    /// Nothing has come of any track for too long: the parts of all of them up to `now` are gaps.
    pub(crate) fn silence(&mut self, now: MediaTime, out: &mut Vec<Entry>) {
        let Some(edge) = self.edge() else { return };
        if let Some(trail) = &mut self.follower {
            self.counts.late_units += trail.release(edge, PATIENCE_S, out);
        }
        self.fill(now.ticks_in(self.grid.scale), out);
        let part = MediaTime::new(self.grid.part, self.grid.scale);
        self.silent = self.is_in_gap();
        if let Some(trail) = self.follower.as_mut().filter(|_| self.silent) {
            self.counts.late_units += trail.fall_silent(part, out);
        }
    }

    /// The publisher has left: what was held goes out.
    pub(crate) fn finish(&mut self, out: &mut Vec<Entry>) {
        if let Some(trail) = &mut self.follower {
            self.counts.late_units += trail.finish(out);
        }
    }

    /// Where the lead has a hole before `dts` and the follower has not, the hole is a gap of the lead: the sound that
    /// was there is kept.
    fn gap_if_follower_went_on(&mut self, dts: i64, out: &mut Vec<Entry>) {
        let (Some(open), Some(trail)) = (&self.open, &self.follower) else { return };
        let (end, limit) = (open.last_end, open.silence_max(&self.grid));
        let within = MediaTime::new(end + self.grid.part, self.grid.scale);
        if !open.gap && dts - open.last > limit && trail.came_to(within) {
            self.cut(Cut::Segment { broken: false }, end, false, true, out);
        }
    }

    /// Draws the lead's parts up to `until`, in its ticks, as gaps, where it has been silent for too long.
    fn fill(&mut self, until: i64, out: &mut Vec<Entry>) {
        while let Some(open) = &self.open {
            let silent = open.last_end.max(open.last + open.interval.get()) + self.grid.part;
            let (cut, start) = if !open.gap && silent < until {
                (Cut::Segment { broken: false }, open.last_end)
            } else if open.gap && open.part_start + self.grid.part <= until {
                let start = open.part_start + self.grid.part;
                let whole = start - open.segment_start >= self.grid.segment() - self.grid.frame / 2;
                (if whole { Cut::Segment { broken: false } } else { Cut::Part }, start)
            } else {
                return;
            };
            self.cut(cut, start, false, true, out);
        }
    }

    fn decide(&mut self, unit: &AccessUnit, broken: bool) -> Cut {
        let scale = self.grid.scale;
        let second = i64::from(scale.hertz());
        let Some(open) = &mut self.open else { return Cut::Segment { broken: false } };
        let interval = unit.dts - open.last;
        let hole = interval > open.silence_max(&self.grid);
        // How long a gap lasted says nothing of the frame rate.
        if !open.gap {
            open.interval.note(interval.min(INTERVAL_MAX_S * second), unit.dts);
        }
        let ends_after = |end: i64| {
            let target_duration_s = self.target_duration_s.unwrap_or(TARGET_DURATION_MAX_S);
            // The follower's segment may begin on the boundary and end two of its frames behind.
            let follower_s = self.follower.as_ref().map_or(0.0, |trail| 2.0 * trail.frame_s());
            scale.seconds(end - open.segment_start) + follower_s >= f64::from(target_duration_s) + 0.5
        };
        if broken || hole || ends_after(unit.dts) {
            return Cut::Segment { broken: true };
        }
        let age = unit.dts - open.segment_start;
        if unit.key && (open.cut_at_next_key || age >= self.grid.segment() - self.grid.frame / 2) {
            return Cut::Segment { broken: false };
        }
        let heavy = open.segment_bytes + unit.data.len() > SEGMENT_BYTES_MAX;
        if heavy || ends_after(unit.dts + open.interval.get().max(self.grid.frame)) {
            return Cut::Segment { broken: false };
        }
        let age = unit.dts - open.part_start;
        // A frame may last as long as the longest lately; but parts are not made shorter for it than they may be.
        let target = i64::from(self.grid.part_target_ms) * second / 1000;
        let lasts = open.interval.get().min(target - self.grid.part_min()).max(self.grid.frame);
        let full = age > self.grid.part - self.grid.frame / 2 || age + lasts > target;
        if full { Cut::Part } else { Cut::No }
    }

    fn open_group(&mut self, unit: &AccessUnit, cut: Cut, out: &mut Vec<Entry>) {
        let first = self.open.is_none();
        let video = self.grid.scale == Timescale::VIDEO;
        // Every audio frame is a key; a group of a stream without video is a segment.
        let keyed = if video { unit.key } else { matches!(cut, Cut::Segment { .. }) };
        let full = self.group_bytes >= GROUP_BYTES_MAX
            || unit.dts - self.group_start >= GROUP_SECONDS_MAX * i64::from(self.grid.scale.hertz());
        if first || keyed || full {
            self.group += u32::from(!first);
            (self.group_start, self.group_bytes) = (unit.dts, 0);
            out.push(Entry::Group { lane: Lane::Lead, id: self.group, start: unit.dts });
        }
    }

    /// Writes the boundary `cut` at `start`, where a unit begins, a keyframe or not, or else a gap.
    fn cut(&mut self, cut: Cut, start: i64, key: bool, gap: bool, out: &mut Vec<Entry>) {
        let scale = self.grid.scale;
        let mut hole = start;
        match (&mut self.open, cut) {
            (_, Cut::No) => return,
            (open @ None, _) => {
                *open = Some(Open {
                    msn: self.first.msn,
                    part: 0,
                    discontinuity_sequence: self.first.discontinuity_sequence,
                    segment_start: start,
                    segment_bytes: 0,
                    part_start: start,
                    last: start,
                    last_end: start,
                    key_last: start,
                    key_interval: 0,
                    interval: Longest {
                        current: self.grid.frame,
                        previous: 0,
                        since: start,
                        window: 10 * i64::from(scale.hertz()),
                    },
                    cut_at_next_key: !key,
                    gap,
                });
            }
            (Some(open), cut) => {
                let broken = cut == Cut::Segment { broken: true };
                let end = if broken && !open.gap { open.last_end } else { start };
                hole = if self.silent && !gap { open.part_start } else { end };
                let part_ms = MediaTime::new(end - open.part_start, scale).millis();
                self.counts.parts_over_target += u64::from(part_ms > i64::from(self.grid.part_target_ms));
                open.part_start = start;
                open.gap = gap;
                if cut == Cut::Part {
                    open.part += 1;
                } else {
                    if key {
                        open.key_interval = open.key_interval.max(start - open.key_last);
                    }
                    if self.target_duration_s.is_none() {
                        let interval_s = scale.seconds(open.key_interval.max(self.grid.frame));
                        let wanted_s = (SEGMENT_TARGET.as_secs_f64() + interval_s - 0.01).ceil() as u32;
                        // Nothing is known of the keyframes of a segment that had to end without one.
                        let forced = !key && (!broken && !gap || open.key_interval == 0);
                        let wanted_s = if forced { TARGET_DURATION_MAX_S } else { wanted_s };
                        let target_duration_s = wanted_s.min(TARGET_DURATION_MAX_S);
                        self.target_duration_s = Some(target_duration_s);
                        out.push(Entry::FirstSegment { target_duration_s, keyframe_interval_s: interval_s });
                    }
                    self.counts.segments_forced += u64::from(!key && !broken && !gap);
                    self.counts.discontinuities += u64::from(broken);
                    open.msn += 1;
                    open.part = 0;
                    open.discontinuity_sequence += u64::from(broken);
                    open.segment_start = start;
                    open.segment_bytes = 0;
                    open.cut_at_next_key = !key;
                }
            }
        }
        let Some(open) = &self.open else { return };
        let boundary = Boundary {
            msn: open.msn,
            part: open.part,
            start,
            program_date_time_ms: self.anchor_ms + MediaTime::new(start, scale).millis(),
            discontinuity_sequence: open.discontinuity_sequence,
            independent: key,
            gap: gap.then_some(self.grid.part as u32),
        };
        out.push(Entry::Boundary { lane: Lane::Lead, boundary });
        if let Some(trail) = &mut self.follower {
            let (start, hole) = (MediaTime::new(start, scale), MediaTime::new(hole, scale));
            trail.follow(&boundary, start, hole, self.group);
        }
    }

    /// Lets go of the follower's units that no later boundary of the lead can precede, and of its parts that got
    /// none for too long.
    fn release(&mut self, out: &mut Vec<Entry>) {
        let (Some(open), Some(trail)) = (&self.open, &mut self.follower) else { return };
        let progress = if open.gap { open.part_start } else { open.last };
        let progress = MediaTime::new(progress, self.grid.scale);
        self.counts.late_units += trail.release(progress, PATIENCE_S, out);
    }
}

#[cfg(test)]
mod tests;
