//! Whether a child keeps up with its source.
//!
//! Measured by what goes in and comes out here, not by what the child says of itself: it reads only as much as it has
//! room for, and what waits before it is behind too.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use pipe::FrameRate;

/// Nothing came out for so long, while so many units went in: a decoder that meets damage says nothing, and holds none
/// back for reordering beyond these.
const SILENCE_MAX: Duration = Duration::from_secs(1);
const SILENCE_UNITS: u32 = 10;

/// Further behind than this, or than [`LAG_UNITS`], for [`LAG_FOR`], and not catching up.
const LAG_MAX: Duration = Duration::from_secs(2);
const LAG_FOR: Duration = Duration::from_secs(1);
const LAG_UNITS: u32 = 10;

/// A child begins with what it has missed, and with libraries to load: nothing is said of its pace for so long.
const SETTLES_WITHIN: Duration = Duration::from_secs(4);

/// Or falling further behind for so long, by so much, or by [`LAG_UNITS`]: a machine that does four fifths of what it should is found out
/// within 5 s, before it is 2 s behind.
const FALLING_FOR: Duration = Duration::from_secs(3);
const FALLING_BY: Duration = Duration::from_millis(500);

/// Nothing is late that is no further behind than this.
const LAG_NOTED: Duration = Duration::from_millis(250);

/// How often the lag is looked at, and how much it must have shrunk by then to count as catching up.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const CATCHING_UP_BY: Duration = Duration::from_millis(50);

/// Samples of processor time, of which a child gives one a second.
const COST_SAMPLES: usize = 10;

#[derive(Debug)]
pub(super) struct Pace {
    timescale: u32,
    /// [`LAG_UNITS`], as far apart as they come.
    lag_units: Duration,
    rungs: Vec<Rung>,
    first_number: u16,
    /// Smallest PTS that went in; where a rung begins that has given nothing.
    first_in: Option<i64>,
    last_in: Option<i64>,
    sampled: Option<Instant>,
    behind: Option<Behind>,
    /// What it has to decode first; it does that faster than it comes.
    missed: Duration,
    /// It may be behind until then.
    settles: Option<Instant>,
    /// Processor time of the child, and the media it had made by then, in ticks.
    costs: VecDeque<(Duration, i64)>,
}

#[derive(Debug, Clone)]
struct Rung {
    /// Went in since anything came out, and when the first did.
    owed: u32,
    owed_since: Option<Instant>,
    last_out: Option<i64>,
}

/// It has not caught up since.
#[derive(Debug, Clone, Copy)]
struct Behind {
    since: Instant,
    at_first: Duration,
    now: Duration,
}

impl Pace {
    pub(super) fn new(rungs: Range<u16>, timescale: u32, frame_rate: FrameRate) -> Self {
        let FrameRate { numerator, denominator } = frame_rate;
        let frame = f64::from(denominator) / f64::from(numerator.max(1));
        let lag_units = Duration::try_from_secs_f64(frame * f64::from(LAG_UNITS)).unwrap_or(LAG_MAX);
        Self {
            timescale,
            lag_units,
            first_number: rungs.start,
            rungs: rungs.map(|_| Rung { owed: 0, owed_since: None, last_out: None }).collect(),
            first_in: None,
            last_in: None,
            sampled: None,
            behind: None,
            missed: Duration::ZERO,
            settles: None,
            costs: VecDeque::new(),
        }
    }

    pub(super) fn missed(&mut self, media: Duration) {
        self.missed = media;
    }

    /// What went in before waited for the pipeline.
    pub(super) fn ready(&mut self, now: Instant) {
        self.settles = Some(now + SETTLES_WITHIN + self.missed);
        for rung in self.rungs.iter_mut().filter(|rung| rung.owed > 0) {
            rung.owed_since = Some(now);
        }
    }

    pub(super) fn unit_in(&mut self, pts: i64, now: Instant) {
        self.first_in = Some(self.first_in.map_or(pts, |first| first.min(pts)));
        self.last_in = Some(self.last_in.map_or(pts, |last| last.max(pts)));
        for rung in &mut self.rungs {
            rung.owed = rung.owed.saturating_add(1);
            rung.owed_since.get_or_insert(now);
        }
    }

    pub(super) fn unit_out(&mut self, number: u16, pts: i64) {
        let index = number.checked_sub(self.first_number).map(usize::from);
        if let Some(rung) = index.and_then(|index| self.rungs.get_mut(index)) {
            *rung = Rung { owed: 0, owed_since: None, last_out: Some(pts) };
        }
    }

    pub(super) fn progress(&mut self, cpu: Duration) {
        if let Some(made) = self.made() {
            self.costs.push_back((cpu, made));
            while self.costs.len() > COST_SAMPLES {
                self.costs.pop_front();
            }
        }
    }

    pub(super) fn cost(&self) -> Option<f64> {
        let (&(cpu_first, made_first), &(cpu, made)) = (self.costs.front()?, self.costs.back()?);
        let seconds = self.time(made.checked_sub(made_first)?).as_secs_f64();
        (seconds >= 1.0).then(|| cpu.saturating_sub(cpu_first).as_secs_f64() / seconds)
    }

    /// Up to where the slowest rung is.
    fn made(&self) -> Option<i64> {
        self.rungs.iter().map(|rung| rung.last_out).min().flatten()
    }

    pub(super) fn lag(&self) -> Duration {
        match (self.last_in, self.made().or(self.first_in)) {
            (Some(last_in), Some(made)) => self.time(last_in.saturating_sub(made)),
            _ => Duration::ZERO,
        }
    }

    /// Of `ticks`, if they are not negative.
    fn time(&self, ticks: i64) -> Duration {
        let seconds = ticks.max(0) as f64 / f64::from(self.timescale.max(1));
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Whether some rung gives nothing, while units go in: ask when one did.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.rungs.iter().any(|rung| {
            let max = if rung.last_out.is_none() { SILENCE_MAX + self.missed } else { SILENCE_MAX };
            rung.owed >= SILENCE_UNITS && rung.owed_since.is_some_and(|since| now >= since + max)
        })
    }

    /// Whether the slowest rung is too far behind and stays there: ask when a unit went in. Stamps that jump ahead put
    /// it behind for a moment.
    pub(super) fn is_behind(&mut self, now: Instant) -> bool {
        let is_sampled = self.sampled.is_some_and(|sampled| now < sampled + SAMPLE_EVERY);
        if is_sampled || self.settles.is_none_or(|settles| now < settles) {
            return false;
        }
        self.sampled = Some(now);
        let lag = self.lag();
        let behind = match self.behind {
            _ if lag <= LAG_NOTED => {
                self.behind = None;
                return false;
            }
            Some(behind) if lag + CATCHING_UP_BY > behind.now => Behind { now: lag, ..behind },
            _ => Behind { since: now, at_first: lag, now: lag },
        };
        self.behind = Some(behind);
        let lasts = |at_least: Duration| now >= behind.since + at_least;
        (lag > LAG_MAX.max(self.lag_units) && lasts(LAG_FOR))
            || (lag >= behind.at_first + FALLING_BY.max(self.lag_units) && lasts(FALLING_FOR))
    }
}
