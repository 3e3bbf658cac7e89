//! Cuts a rung where its source is cut. Pure.
//!
//! Boundaries are copied by time and never made: a picture that a decoder lost moves none of them. What is not there in
//! time is a gap, and after a gap that may have cost pictures the rung goes on with a key that opens a part.

use std::collections::VecDeque;

use media::{AccessUnit, MediaTime, Timescale};
use pipe::Codec;
use relay::Boundary;

/// Boundaries of a source that no unit has reached. A job that is further behind has long been given up.
const WAITING_MAX: usize = 1_024;

/// What to write to the rung's log, in this order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Entry {
    Group { id: u32, start: i64 },
    Config { codec: Codec, dts: i64 },
    Boundary(Boundary),
    Unit(AccessUnit),
}

/// Where parts of a rung begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starts {
    /// Where those of the source begin: pictures keep their times.
    Source,
    /// With the first unit there: frames of sound are as long as their codec has them. By the clock that times of the
    /// rung are written in.
    Unit(Timescale),
}

/// Whether a rung that never had media has parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begins {
    /// Not before its media: there is nobody whom its gaps could tell anything. But a log that begins with gaps is of a session
    /// that goes on, whose viewers find their place by them.
    WithMedia,
    /// With gaps: it is there for whoever asks for it, and made only then.
    AtOnce,
    /// The same, and its media begins with any part: no playlist has it, so it has no init segment.
    Anywhere,
}

#[derive(Debug)]
pub(crate) struct Cutter {
    starts: Starts,
    begins: Begins,
    /// Of the source, with their groups; not written yet.
    waiting: VecDeque<(u32, Boundary)>,
    group: Option<u32>,
    discontinuity_sequence: Option<u64>,
    /// Units before it come too late.
    gone: i64,
    /// Pictures are missing: the next unit is a key, and the first of its part.
    needs_key: bool,
    config: Config,
}

/// How units are coded.
#[derive(Debug, Default)]
struct Config {
    written: Option<Codec>,
    /// What the child said, where that is something else: players may keep their decoder until a discontinuity.
    next: Option<Codec>,
}

impl Cutter {
    pub(crate) fn new(starts: Starts, begins: Begins) -> Self {
        Self {
            starts,
            begins,
            waiting: VecDeque::new(),
            group: None,
            discontinuity_sequence: None,
            gone: i64::MIN,
            needs_key: true,
            config: Config::default(),
        }
    }

    /// The source was cut, in this group of its log.
    pub(crate) fn boundary(&mut self, group: u32, boundary: Boundary, out: &mut Vec<Entry>) {
        if self.waiting.len() >= WAITING_MAX {
            self.late(boundary.start, out);
        }
        self.waiting.push_back((group, boundary));
    }

    /// Units from the next on come of another child.
    pub(crate) fn begin(&mut self) {
        self.needs_key = true;
    }

    /// Units from the next on are coded this way. `false` if the rung has to wait with them for a discontinuity.
    pub(crate) fn config(&mut self, codec: Codec) -> bool {
        let Config { written, next } = &mut self.config;
        *next = (written.as_ref() != Some(&codec)).then_some(codec);
        written.is_none() || next.is_none()
    }

    /// The next unit of the rung; its DTS is its PTS.
    pub(crate) fn unit(&mut self, unit: AccessUnit, out: &mut Vec<Entry>) {
        if unit.pts < self.gone || self.needs_key && !unit.key {
            return;
        }
        let reached = self.waiting.iter().take_while(|(_, boundary)| boundary.start <= unit.pts).count();
        let Some(last) = reached.checked_sub(1).and_then(|last| self.waiting.get(last)) else {
            if !self.needs_key && self.group.is_some() {
                out.push(Entry::Unit(unit));
            }
            return;
        };
        if self.config.written.is_none() && last.1.part != 0 && self.begins != Begins::Anywhere {
            // A rendition begins with a segment, and so does its init segment.
            (0..reached).for_each(|_| self.write_gap(out));
            self.needs_key = true;
            return;
        }
        let breaks = self.discontinuity_sequence != Some(last.1.discontinuity_sequence);
        if self.config.next.is_some() && self.config.written.is_some() && !breaks {
            return;
        }
        for _ in 1..reached {
            self.write_gap(out);
        }
        let Some((group, mut boundary)) = self.waiting.pop_front() else { return };
        if let Starts::Unit(scale) = self.starts {
            // Rounded as ingest rounds its own, or dates and lengths of parts would drift apart by a millisecond.
            let millis = |ticks| MediaTime::new(ticks, scale).millis();
            boundary.program_date_time_ms += millis(unit.pts) - millis(boundary.start);
            boundary.start = unit.pts;
        }
        boundary.independent = unit.key;
        boundary.gap = None;
        self.open_group(group, boundary.start, out);
        if let Some(codec) = self.config.next.take() {
            out.push(Entry::Config { codec: codec.clone(), dts: boundary.start });
            self.config.written = Some(codec);
        }
        self.write(boundary, out);
        self.needs_key = false;
        out.push(Entry::Unit(unit));
    }

    /// Nothing of before `time` will come: parts that end until then are gaps.
    pub(crate) fn late(&mut self, time: i64, out: &mut Vec<Entry>) {
        while self.waiting.get(1).is_some_and(|(_, next)| next.start <= time) {
            // Where the source itself had nothing, nothing was lost.
            self.needs_key |= self.waiting.front().is_some_and(|(_, boundary)| boundary.gap.is_none());
            self.write_gap(out);
        }
    }

    /// Nothing will come at all. A part that had just begun is left out: nobody knows how long it is.
    pub(crate) fn finish(&mut self, out: &mut Vec<Entry>) {
        while self.waiting.front().is_some_and(|(_, next)| self.waiting.len() > 1 || next.gap.is_some()) {
            self.write_gap(out);
        }
    }

    /// The oldest part of the source that was given up neither as media nor as a gap, and its group.
    pub(crate) fn next(&self) -> Option<(u32, i64)> {
        self.waiting.front().map(|(group, boundary)| (*group, boundary.start))
    }

    /// A rendition begins with a segment, whether it has media or not.
    fn write_gap(&mut self, out: &mut Vec<Entry>) {
        let Some((group, mut boundary)) = self.waiting.pop_front() else { return };
        let end = self.waiting.front().map(|(_, next)| next.start);
        self.gone = end.unwrap_or(boundary.start + 1);
        let has_begun = match self.begins {
            Begins::WithMedia => self.group.is_some() || boundary.gap.is_some() && boundary.part == 0,
            Begins::AtOnce => self.group.is_some() || boundary.part == 0,
            Begins::Anywhere => true,
        };
        if !has_begun {
            return;
        }
        let ticks = end.and_then(|end| u32::try_from(end - boundary.start).ok());
        boundary.gap = boundary.gap.or(ticks).or(Some(0));
        boundary.independent = false;
        self.open_group(group, boundary.start, out);
        self.write(boundary, out);
    }

    fn open_group(&mut self, id: u32, start: i64, out: &mut Vec<Entry>) {
        if self.group.is_none_or(|open| open < id) {
            self.group = Some(id);
            out.push(Entry::Group { id, start });
        }
    }

    fn write(&mut self, boundary: Boundary, out: &mut Vec<Entry>) {
        self.discontinuity_sequence = Some(boundary.discontinuity_sequence);
        out.push(Entry::Boundary(boundary));
    }
}

#[cfg(test)]
mod tests;
