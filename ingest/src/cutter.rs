//! The cutter: draws every segment and part boundary of a stream, once, for all renditions and all nodes.
//!
//! The *lead* track (the video, or the audio of a stream without) decides; audio beside video *follows*: its
//! part p ends at the first audio frame at or after the video's boundary. Units go in, log entries come out in
//! the order they are to be written. Pure: media time is the only clock.
//!
//! Invariants: MSNs and groups rise; parts of a segment count from 0; no entry of a track is older than the
//! one before it.

use std::collections::VecDeque;

use media::{AccessUnit, CodecConfig, MediaTime, Timescale};
use relay::{Boundary, GROUP_BYTES_MAX};

use crate::grid::{Follower, Grid, SEGMENT_TARGET};

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

/// A part may end this share of PART-TARGET early, for fear of a long frame: a part within a segment must not be
/// shorter than 85 % of it.
const STRETCH_PERCENT: i64 = 15;

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
    /// Units that belong to no part: theirs was given up as a gap, or lies in a hole of the timeline.
    pub(crate) late_units: u64,
}

pub(crate) struct Cutter {
    grid: Grid,
    /// Wall-clock time of stream time zero, in milliseconds since the Unix epoch.
    anchor_ms: i64,
    target_duration_s: Option<u32>,
    /// `None` before the first unit.
    open: Option<Open>,
    group: u32,
    group_start: i64,
    group_bytes: usize,
    follower: Option<Trail>,
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

/// The follower's half: boundaries it has not reached, and units that no boundary can precede any more.
struct Trail {
    config: Follower,
    marks: VecDeque<Mark>,
    held: VecDeque<AccessUnit>,
    /// Start of the newest boundary written.
    written: i64,
    group: Option<u32>,
    last_end: i64,
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    No,
    Part,
    Segment { broken: bool },
}

impl Cutter {
    pub(crate) fn new(grid: Grid, anchor_ms: i64) -> Self {
        let follower = grid.follower.map(|config| Trail {
            config,
            marks: VecDeque::new(),
            held: VecDeque::new(),
            written: i64::MIN,
            group: None,
            last_end: i64::MIN,
        });
        Self {
            grid,
            anchor_ms,
            target_duration_s: None,
            open: None,
            group: 0,
            group_start: 0,
            group_bytes: 0,
            follower,
            counts: Counts::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
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
        if let Some(open) = self.open.as_ref().filter(|open| open.gap) {
            if unit.dts <= open.part_start || !unit.key {
                self.counts.late_units += 1;
                return;
            }
            self.fill(unit.dts - 1, out);
        }
        let cut = self.decide(&unit, broken || config.is_some());
        self.open_group(&unit, cut, out);
        if let Some(codec) = config {
            out.push(Entry::Config { codec, dts: unit.dts });
        }
        self.cut(cut, unit.dts, unit.key, false, out);
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
        let newest = MediaTime::new(unit.dts, trail.config.scale).ticks_in(self.grid.scale);
        trail.held.push_back(unit);
        self.fill(newest - PATIENCE_S * i64::from(self.grid.scale.hertz()), out);
        self.release(out);
    }

    /// The publisher has left: what was held goes out.
    pub(crate) fn finish(&mut self, out: &mut Vec<Entry>) {
        if let Some(trail) = &mut self.follower {
            self.counts.late_units += trail.write_until(i64::MAX, self.anchor_ms, out);
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
        let limit = ((HOLE_INTERVALS * self.grid.part.max(open.interval.get()) as f64) as i64).min(
            // Beyond it even a lone unit breaks TARGETDURATION.
            TARGET_DURATION_MAX_S as i64 * second / 2,
        );
        let hole = interval > limit;
        open.interval.note(interval.min(INTERVAL_MAX_S * second), unit.dts);
        let ends_after = |end: i64| {
            let target_duration_s = self.target_duration_s.unwrap_or(TARGET_DURATION_MAX_S);
            // The follower's segment may begin on the boundary and end two of its frames behind.
            let follower_s = self
                .follower
                .as_ref()
                .map_or(0.0, |trail| 2.0 * trail.config.scale.seconds(trail.config.frame));
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
        let lasts = open.interval.get().min(target * STRETCH_PERCENT / 100).max(self.grid.frame);
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
                    msn: 0,
                    part: 0,
                    discontinuity_sequence: 0,
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
                hole = end;
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
            trail.marks.push_back(Mark {
                msn: open.msn,
                part: open.part,
                start: MediaTime::new(start, scale).ticks_in(trail.config.scale),
                hole: MediaTime::new(hole, scale).ticks_in(trail.config.scale),
                discontinuity_sequence: open.discontinuity_sequence,
                group: self.group,
            });
        }
    }

    /// Lets go of the follower's units that no later boundary of the lead can precede, and of its parts that got
    /// none for too long.
    fn release(&mut self, out: &mut Vec<Entry>) {
        let (Some(open), Some(trail)) = (&self.open, &mut self.follower) else { return };
        let progress = if open.gap { open.part_start } else { open.last };
        let progress = MediaTime::new(progress, self.grid.scale).ticks_in(trail.config.scale);
        self.counts.late_units += trail.write_until(progress, self.anchor_ms, out);
        let patience = PATIENCE_S * i64::from(trail.config.scale.hertz());
        trail.give_up(progress - patience, self.anchor_ms, out);
    }
}

impl Trail {
    /// Writes the units up to `until` and the boundaries they reach. Returns how many came too late.
    fn write_until(&mut self, until: i64, anchor_ms: i64, out: &mut Vec<Entry>) -> u64 {
        let mut late = 0;
        while let Some(unit) = self.held.pop_front_if(|unit| unit.dts <= until) {
            let in_hole = self.marks.iter().any(|mark| (mark.hole..mark.start).contains(&unit.dts));
            if !in_hole {
                self.reach(unit.dts, anchor_ms, out);
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
    fn reach(&mut self, dts: i64, anchor_ms: i64, out: &mut Vec<Entry>) {
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.start <= dts) {
            match self.marks.front() {
                Some(next)
                    if next.start <= dts - self.config.frame
                        || (next.hole < next.start && next.start <= dts) =>
                {
                    let end = next.hole;
                    self.write_gap(mark, end, anchor_ms, out);
                }
                _ => {
                    // Where units are missing the part begins on the boundary and its first unit comes later.
                    let late = dts - mark.start > 2 * self.config.frame;
                    let start = if late { mark.start.max(self.last_end) } else { dts };
                    return self.write(mark, start, None, anchor_ms, out);
                }
            }
        }
    }

    /// Writes the parts that ended before `until` and got no unit, as gaps.
    fn give_up(&mut self, until: i64, anchor_ms: i64, out: &mut Vec<Entry>) {
        while let Some(end) = self.marks.get(1).filter(|next| next.start <= until).map(|next| next.hole) {
            let Some(mark) = self.marks.pop_front() else { return };
            self.write_gap(mark, end, anchor_ms, out);
        }
    }

    fn write_gap(&mut self, mark: Mark, end: i64, anchor_ms: i64, out: &mut Vec<Entry>) {
        let start = mark.start.max(self.last_end);
        let duration = u32::try_from(end - start).unwrap_or(0).max(1);
        self.write(mark, start, Some(duration), anchor_ms, out);
    }

    fn write(&mut self, mark: Mark, start: i64, gap: Option<u32>, anchor_ms: i64, out: &mut Vec<Entry>) {
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
            program_date_time_ms: anchor_ms + MediaTime::new(start, self.config.scale).millis(),
            discontinuity_sequence: mark.discontinuity_sequence,
            independent: gap.is_none(),
            gap,
        };
        out.push(Entry::Boundary { lane: Lane::Follower, boundary });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::grid::Cadence;

    const ANCHOR_MS: i64 = 1_800_000_000_000;
    const AUDIO_HERTZ: u32 = 48_000;

    /// A publisher: pictures stamped in whole milliseconds as FLV does, AAC counted in samples.
    struct Source {
        fps: f64,
        /// A keyframe every so many frames; 0: only the first.
        gop: usize,
        seconds: f64,
        audio: bool,
        part_target: Duration,
        /// Pictures and sound in these spans of seconds never arrive.
        video_lost: std::ops::Range<f64>,
        audio_lost: std::ops::Range<f64>,
    }

    fn source(fps: f64, gop: usize, seconds: f64) -> Source {
        Source {
            fps,
            gop,
            seconds,
            audio: true,
            part_target: Duration::from_millis(500),
            video_lost: 0.0..0.0,
            audio_lost: 0.0..0.0,
        }
    }

    /// A part as a packager sees it, in seconds.
    #[derive(Debug, Clone, Copy)]
    struct Part {
        boundary: Boundary,
        start: f64,
        end: f64,
        units: usize,
    }

    struct Cuts {
        grid: Grid,
        counts: Counts,
        target_duration_s: Option<u32>,
        lead: Vec<Part>,
        follower: Vec<Part>,
    }

    impl Source {
        fn cut(&self) -> Cuts {
            let scale = Timescale::from_hertz(AUDIO_HERTZ).unwrap();
            let cadence = Cadence { frames_per_second: self.fps, longest_s: 1.0 / self.fps };
            let audio = self.audio.then_some((scale, 1024));
            let grid = Grid::video(cadence, audio, self.part_target);
            let mut cutter = Cutter::new(grid.clone(), ANCHOR_MS);
            let mut out = Vec::new();
            let (mut n, mut samples) = (0, 0);
            loop {
                let video_s = n as f64 / self.fps;
                let audio_s = if self.audio { samples as f64 / f64::from(AUDIO_HERTZ) } else { f64::MAX };
                if video_s.min(audio_s) >= self.seconds {
                    break;
                }
                if video_s <= audio_s {
                    let key = n == 0 || (self.gop > 0 && n % self.gop == 0);
                    let dts = (video_s * 1000.0).round() as i64 * 90;
                    let unit =
                        AccessUnit { dts, pts: dts, duration: grid.frame as u32, key, data: Bytes::new() };
                    if !self.video_lost.contains(&video_s) {
                        cutter.push_lead(unit, false, None, &mut out);
                    }
                    n += 1;
                } else {
                    let unit = AccessUnit {
                        dts: samples,
                        pts: samples,
                        duration: 1024,
                        key: true,
                        data: Bytes::new(),
                    };
                    if !self.audio_lost.contains(&audio_s) {
                        cutter.push_follower(unit, &mut out);
                    }
                    samples += 1024;
                }
            }
            cutter.finish(&mut out);
            let target_duration_s = out.iter().find_map(|entry| match entry {
                Entry::FirstSegment { target_duration_s, .. } => Some(*target_duration_s),
                _ => None,
            });
            let lead = parts(&out, Lane::Lead, Timescale::VIDEO);
            let follower = parts(&out, Lane::Follower, scale);
            Cuts { grid, counts: cutter.counts(), target_duration_s, lead, follower }
        }
    }

    /// The complete parts of one lane; the last one, still open, is left out.
    fn parts(entries: &[Entry], of: Lane, scale: Timescale) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut newest_end = 0;
        for entry in entries {
            match entry {
                Entry::Boundary { lane, boundary } if *lane == of => {
                    if let Some(open) = parts.last_mut() {
                        let broken = open.boundary.discontinuity_sequence != boundary.discontinuity_sequence;
                        open.end = scale.seconds(match open.boundary.gap {
                            Some(ticks) if broken => {
                                boundary.start.min(open.boundary.start + i64::from(ticks))
                            }
                            None if broken => newest_end,
                            _ => boundary.start,
                        });
                    }
                    let start = scale.seconds(boundary.start);
                    parts.push(Part { boundary: *boundary, start, end: start, units: 0 });
                }
                Entry::Unit { lane, unit } if *lane == of => {
                    newest_end = unit.dts + i64::from(unit.duration);
                    parts.last_mut().expect("a boundary precedes every unit").units += 1;
                }
                _ => {}
            }
        }
        parts.pop();
        parts
    }

    impl Cuts {
        /// (start, end, parts) of the complete segments of a lane.
        fn segments(parts: &[Part]) -> Vec<(f64, f64, usize)> {
            let chunks = parts.chunk_by(|a, b| a.boundary.msn == b.boundary.msn);
            let mut all: Vec<_> = chunks.map(|s| (s[0].start, s[s.len() - 1].end, s.len())).collect();
            all.pop();
            all
        }

        /// Rules that hold for any source whatever.
        fn check_rules(&self) {
            for parts in [&self.lead, &self.follower] {
                for pair in parts.windows(2) {
                    let (a, b) = (pair[0].boundary, pair[1].boundary);
                    let follows =
                        (a.msn == b.msn && a.part + 1 == b.part) || (a.msn + 1 == b.msn && b.part == 0);
                    assert!(follows, "{a:?} then {b:?}");
                    assert!(pair[0].start < pair[0].end && pair[0].end <= pair[1].start + 1e-6, "{pair:?}");
                    assert!(a.discontinuity_sequence <= b.discontinuity_sequence);
                    assert!(a.discontinuity_sequence == b.discontinuity_sequence || b.part == 0);
                }
                let Some(target_duration_s) = self.target_duration_s else { continue };
                for (start, end, _) in Self::segments(parts) {
                    assert!((end - start).round() <= f64::from(target_duration_s), "{start}..{end}");
                }
            }
            for (lead, follower) in self.lead.iter().zip(&self.follower) {
                let (a, b) = (lead.boundary, follower.boundary);
                assert_eq!(
                    (a.msn, a.part, a.discontinuity_sequence),
                    (b.msn, b.part, b.discontinuity_sequence)
                );
            }
        }

        /// P4: no part over the target, none under 85 % of it but the last of a segment.
        fn check_part_lengths(&self) {
            let lanes = [(&self.lead, self.grid.part_target_ms)];
            let follower = self.grid.follower.map(|follower| (&self.follower, follower.part_target_ms));
            for (parts, target_ms) in lanes.into_iter().chain(follower) {
                let target_s = f64::from(target_ms) / 1000.0;
                for pair in parts.windows(2) {
                    let length_s = pair[0].end - pair[0].start;
                    assert!(length_s <= target_s + 1e-9, "{:?}: {length_s} of {target_s}", pair[0].boundary);
                    if pair[0].boundary.msn == pair[1].boundary.msn {
                        assert!(
                            length_s >= 0.85 * target_s,
                            "{:?}: {length_s} of {target_s}",
                            pair[0].boundary
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn two_second_gops_make_two_second_segments_of_four_parts() {
        let cuts = source(30.0, 60, 20.0).cut();
        cuts.check_rules();
        cuts.check_part_lengths();
        assert_eq!(cuts.target_duration_s, Some(4));
        for (start, end, parts) in Cuts::segments(&cuts.lead) {
            assert!((end - start - 2.0).abs() < 0.002 && parts == 4, "{start}..{end} in {parts}");
        }
        assert!(cuts.lead.iter().all(|part| part.boundary.independent == (part.boundary.part == 0)));
        let first = cuts.lead[0].boundary;
        assert_eq!(first.program_date_time_ms, ANCHOR_MS);
    }

    #[test]
    fn short_gops_are_gathered_to_the_segment_target() {
        let cuts = source(30.0, 15, 20.0).cut();
        cuts.check_rules();
        assert_eq!(cuts.target_duration_s, Some(3));
        assert!(Cuts::segments(&cuts.lead).iter().all(|(start, end, _)| (end - start - 2.0).abs() < 0.002));
        assert!(cuts.lead.iter().all(|part| part.boundary.independent), "every part begins a GOP");
    }

    /// OBS, untouched: a keyframe every 250 frames.
    #[test]
    fn obs_default_of_8_3_seconds_is_one_segment_per_gop() {
        let cuts = source(30.0, 250, 60.0).cut();
        cuts.check_rules();
        cuts.check_part_lengths();
        assert_eq!(cuts.target_duration_s, Some(11));
        assert!(Cuts::segments(&cuts.lead).iter().all(|(start, end, _)| (end - start - 8.333).abs() < 0.01));
        assert_eq!(cuts.counts.segments_forced, 0);
    }

    #[test]
    fn without_keyframes_a_segment_ends_at_12_seconds_and_the_next_keyframe_cuts_at_once() {
        let cuts = source(30.0, 400, 60.0).cut();
        cuts.check_rules();
        assert_eq!(cuts.target_duration_s, Some(12));
        let segments = Cuts::segments(&cuts.lead);
        assert!((12.0..12.5).contains(&segments[0].1), "{segments:?}");
        assert!((segments[1].1 - 400.0 / 30.0).abs() < 0.01, "{segments:?}");
        assert!(cuts.counts.segments_forced > 0);
    }

    #[test]
    fn parts_keep_their_length_at_every_frame_rate_and_profile() {
        for fps in [23.976, 24.0, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0] {
            for part_target in [Duration::from_millis(500), Duration::from_millis(200)] {
                let cuts = Source { part_target, ..source(fps, (fps * 2.0).round() as usize, 30.0) }.cut();
                cuts.check_rules();
                cuts.check_part_lengths();
                assert_eq!(cuts.counts.parts_over_target, 0, "{fps} fps");
            }
        }
    }

    #[test]
    fn audio_is_cut_at_its_first_frame_at_or_after_the_video_boundary() {
        let cuts = source(25.0, 96, 30.0).cut();
        cuts.check_rules();
        assert!(cuts.follower.len() > 50);
        for (lead, follower) in cuts.lead.iter().zip(&cuts.follower) {
            let late = follower.start - lead.start;
            assert!((-0.001..0.0214).contains(&late), "{:?}: {late}", lead.boundary);
        }
    }

    /// At 60 fps the last part of a segment may be one picture long, and no audio frame begins within it.
    #[test]
    fn every_audio_part_has_a_frame_even_beside_a_part_of_one_picture() {
        let cuts = Source { part_target: Duration::from_millis(200), ..source(60.0, 373, 40.0) }.cut();
        cuts.check_rules();
        let shortest = cuts.lead.iter().map(|part| part.end - part.start).fold(f64::MAX, f64::min);
        assert!(shortest < 0.02, "{shortest}");
        assert!(cuts.follower.iter().all(|part| part.units > 0 && part.boundary.gap.is_none()));
    }

    /// Single pictures missing, as from an encoder under load: the parts around them get shorter, not longer.
    #[test]
    fn uneven_frames_do_not_stretch_parts_over_the_target() {
        let grid = Grid::video(
            Cadence { frames_per_second: 30.0, longest_s: 0.034 },
            None,
            Duration::from_millis(500),
        );
        let (mut cutter, mut out) = (Cutter::new(grid.clone(), 0), Vec::new());
        for n in (0..1_800).filter(|n| n % 60 == 0 || n % 7 != 3) {
            let dts = (n as f64 * 1000.0 / 30.0).round() as i64 * 90;
            let unit = AccessUnit { dts, pts: dts, duration: 3000, key: n % 60 == 0, data: Bytes::new() };
            cutter.push_lead(unit, false, None, &mut out);
        }
        let lead = parts(&out, Lane::Lead, Timescale::VIDEO);
        let counts = cutter.counts();
        let cuts = Cuts { grid, counts, target_duration_s: None, lead, follower: Vec::new() };
        cuts.check_rules();
        let over = cuts.lead.iter().filter(|part| part.end - part.start > 0.501);
        assert!(over.count() <= 1, "only the first missing picture is a surprise");
    }

    /// A stall of the uplink, with stamps that tell the truth: one break, in both renditions, no part over target.
    #[test]
    fn a_hole_is_one_discontinuity_in_both_renditions() {
        let cuts = Source { video_lost: 7.2..11.0, audio_lost: 7.2..11.0, ..source(30.0, 60, 30.0) }.cut();
        cuts.check_rules();
        assert_eq!((cuts.counts.discontinuities, cuts.counts.parts_over_target), (1, 0));
        let breaks = |parts: &[Part]| parts.iter().filter(|p| p.boundary.discontinuity_sequence == 1).count();
        assert!(breaks(&cuts.lead) > 10 && breaks(&cuts.follower) > 10);
    }

    #[test]
    fn audio_that_is_missing_becomes_gap_parts_and_comes_back_on_the_grid() {
        let cuts = Source { audio_lost: 6.0..12.0, ..source(30.0, 60, 30.0) }.cut();
        cuts.check_rules();
        let gaps: Vec<_> = cuts.follower.iter().filter(|part| part.boundary.gap.is_some()).collect();
        assert!((10..=12).contains(&gaps.len()), "{} gaps", gaps.len());
        assert!(gaps.iter().all(|part| part.units == 0 && !part.boundary.independent));
        assert!(cuts.follower.last().unwrap().units > 0);
        assert!(cuts.lead.iter().all(|part| part.boundary.gap.is_none()));
    }

    #[test]
    fn audio_that_starts_late_begins_with_gaps() {
        let cuts = Source { audio_lost: 0.0..1.2, ..source(30.0, 60, 12.0) }.cut();
        cuts.check_rules();
        assert_eq!(cuts.follower.iter().take_while(|part| part.boundary.gap.is_some()).count(), 2);
    }

    /// Sound goes on; the picture's parts are gaps, and it comes back with a keyframe and one discontinuity.
    #[test]
    fn video_that_is_missing_while_audio_goes_on_becomes_gap_parts() {
        let cuts = Source { video_lost: 7.2..15.5, ..source(30.0, 60, 30.0) }.cut();
        cuts.check_rules();
        let gaps = cuts.lead.iter().filter(|part| part.boundary.gap.is_some());
        assert!((15..=18).contains(&gaps.clone().count()), "{} gaps", gaps.count());
        assert!(cuts.follower.iter().all(|part| part.boundary.gap.is_none()));
        assert_eq!(cuts.counts.discontinuities, 1);
        let back = cuts.lead.iter().find(|part| part.boundary.discontinuity_sequence == 1).unwrap();
        assert!(back.boundary.independent && (back.start - 16.0).abs() < 0.01, "{back:?}");
    }

    #[test]
    fn audio_alone_is_cut_by_its_own_clock() {
        let scale = Timescale::from_hertz(AUDIO_HERTZ).unwrap();
        let grid = Grid::audio(scale, 1024, Duration::from_millis(500));
        let mut cutter = Cutter::new(grid.clone(), ANCHOR_MS);
        let mut out = Vec::new();
        for n in 0..2_000 {
            let unit =
                AccessUnit { dts: n * 1024, pts: n * 1024, duration: 1024, key: true, data: Bytes::new() };
            cutter.push_lead(unit, false, None, &mut out);
        }
        let lead = parts(&out, Lane::Lead, scale);
        let cuts =
            Cuts { grid, counts: cutter.counts(), target_duration_s: Some(3), lead, follower: Vec::new() };
        cuts.check_rules();
        cuts.check_part_lengths();
        assert!(
            out.contains(&Entry::FirstSegment {
                target_duration_s: 3,
                keyframe_interval_s: 1024.0 / 48_000.0
            })
        );
        assert!(cuts.lead.iter().all(|part| part.boundary.independent));
    }

    /// Threat: a publisher that fills the store by never ending a segment.
    #[test]
    fn a_segment_is_bounded_in_bytes() {
        let grid = Grid::video(
            Cadence { frames_per_second: 30.0, longest_s: 0.033 },
            None,
            Duration::from_millis(500),
        );
        let (mut cutter, mut out) = (Cutter::new(grid, 0), Vec::new());
        let data = Bytes::from(vec![0; 8 * 1024 * 1024]);
        for n in 0..30 {
            let unit =
                AccessUnit { dts: n * 3000, pts: n * 3000, duration: 3000, key: n == 0, data: data.clone() };
            cutter.push_lead(unit, false, None, &mut out);
        }
        let segments =
            out.iter().filter(|e| matches!(e, Entry::Boundary { boundary, .. } if boundary.part == 0));
        assert_eq!(segments.count(), 3);
        assert_eq!(cutter.counts().segments_forced, 2);
    }

    #[test]
    fn another_configuration_is_a_discontinuity() {
        let mut cutter = Cutter::new(Grid::audio(Timescale::MILLIS, 20, Duration::from_millis(500)), 0);
        let mut out = Vec::new();
        let unit =
            |n: i64| AccessUnit { dts: n * 20, pts: n * 20, duration: 20, key: true, data: Bytes::new() };
        let codec = media::codec::aac::Config::parse(Bytes::from_static(&[0x11, 0x90]))
            .map(CodecConfig::Aac)
            .unwrap();
        for n in 0..30 {
            cutter.push_lead(unit(n), false, (n == 10).then(|| codec.clone()), &mut out);
        }
        let boundaries = out.iter().filter_map(|entry| match entry {
            Entry::Boundary { boundary, .. } => {
                Some((boundary.msn, boundary.discontinuity_sequence, boundary.start))
            }
            _ => None,
        });
        assert_eq!(boundaries.take(2).collect::<Vec<_>>(), [(0, 0, 0), (1, 1, 200)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the keyframes, the frame rate and the losses: TARGETDURATION holds, numbers run on, and both
        /// renditions have the same grid.
        #[test]
        fn rules_hold_for_any_publisher(
            fps in 1.0..70.0_f64,
            gop in 0_usize..700,
            audio: bool,
            video_lost in (0.0..40.0_f64, 0.0..9.0_f64),
            audio_lost in (0.0..40.0_f64, 0.0..9.0_f64),
            low: bool,
        ) {
            let cuts = Source {
                audio,
                part_target: Duration::from_millis(if low { 200 } else { 500 }),
                video_lost: video_lost.0.max(0.1)..video_lost.0.max(0.1) + video_lost.1,
                audio_lost: audio_lost.0..audio_lost.0 + audio_lost.1,
                ..source(fps, gop, 50.0)
            }.cut();
            cuts.check_rules();
        }
    }
}
