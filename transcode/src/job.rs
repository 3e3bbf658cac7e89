//! What becomes of one job whose child fails, falls behind, or cannot start.
//!
//!   Starting ──Ready──▶ Running ──Stop──▶ Stopping ──Ended──▶ Waiting ──▶ Starting …
//!                                              ├────────────────────────▶ GivenUp ─5 min─▶ Starting …
//!                                              └────────────────────────▶ Idle ──Wanted──▶ Starting …
//!
//! A failure starts a new child after a while, which grows; three within a minute make the job a step cheaper: a cheaper
//! preset, then without the largest rung, at last nothing, and the stream is passed through only. A job that falls
//! behind gives up its lowest rung at once, or first the one of the source's own size, and goes the same way if that does
//! not help. Each step is taken back alone, after a long calm: each is a splice that viewers may see.
//!
//! A child that another machine lends may have to leave that machine: it is replaced where a segment begins, which is no
//! failure either.
//!
//! A job on demand makes the rungs from the largest that is wanted to the smallest, and is idle while none is: that is no
//! failure and no step. It begins at once; a child at work is replaced where the source is cut, which nobody sees.
//!
//! Owns no process and reads no clock; a worker drives it. Invariants:
//! - there are never two children: [`Output::Start`] comes only after [`Input::Ended`] of the one before;
//! - the wait before a start never shrinks from one failure to the next within a minute.

mod pace;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use pipe::{FaultClass, FrameRate, Preset, Progress};

use pace::Pace;

use crate::workers::TAKEN_WITHIN;

/// A child that has not said by then that its pipeline stands never will: with a spare it takes a tenth of a second.
const READY_WITHIN: Duration = Duration::from_secs(5);
const _: () = assert!(TAKEN_WITHIN.as_millis() < READY_WITHIN.as_millis(), "why nobody takes a job is told");

/// Before a new child, after the first failure, the second, and every further one.
const BACK_OFF: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];

/// So many failures within [`FAILURES_WITHIN`] are no accident: the job becomes cheaper.
const FAILURES_MAX: usize = 3;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);

/// A step down is taken back after this long, and if nothing happened for [`CALM`].
const RESTORE_AFTER: Duration = Duration::from_secs(5 * 60);
/// A job that falls behind within this after a step was not helped by it.
const CALM: Duration = Duration::from_secs(30);

/// Until other machines are asked again. None of them has failed, so that the job becomes no cheaper by it.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// A segment that is longer than this is not waited for by a child whose machine will be gone: any part will do.
const LEAVE_ANYWHERE: Duration = Duration::from_secs(5);

/// Until a job that was given up is tried again, as it was last.
const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// A job as it was planned.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// At least one, numbered from the largest on. Sound is one.
    pub rungs: u16,
    /// Sound has no cheaper one than [`Preset::Ultrafast`].
    pub preset: Preset,
    /// Of all stamps, in ticks per second.
    pub timescale: u32,
    /// Of the source; of sound, units per second.
    pub frame_rate: FrameRate,
    /// Only what is [wanted](Input::Wanted) is made, and nothing before.
    pub on_demand: bool,
    /// The largest rung is as large as the source: it costs most, and those who can show the source do without.
    pub own_size: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The child that was just started has to decode so much media before it comes to what is to be encoded.
    Missed(Duration),
    /// The child's pipeline stands.
    Ready,
    /// A unit of the source came, whether or not the child's queue had room for it.
    UnitIn {
        pts: i64,
    },
    /// A unit of the rung came from the child.
    UnitOut {
        rung: u16,
        pts: i64,
    },
    Progress(Progress),
    Fault(FaultClass),
    /// The child is gone, and everything it said was told.
    Ended,
    /// The machine is short of processor time, and this job is to need less; see
    /// [`Budget::is_short`](crate::budget::Budget::is_short).
    MachineShort,
    /// Somebody watches these of the planned rungs, and perhaps some between them; empty if nobody watches any.
    Wanted(Range<u16>),
    /// The source is cut here, before its next unit. `independent`: that is a keyframe, and a segment begins with it.
    Boundary {
        independent: bool,
    },
    /// The machine that the child runs on will be gone: another is to go on with the next segment.
    Leaving,
    /// No machine takes the job. That was told in place of the [end](Input::Ended) of a child.
    NoMachine,
    /// It is [`Supervisor::wait_until`].
    Tick,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Start a child with these rungs, from the newest group on.
    Start { preset: Preset, rungs: Range<u16> },
    /// End the child, and tell when it [has ended](Input::Ended).
    Stop(Reason),
    /// Nothing is made until then; the stream is passed through.
    GiveUp { why: Failure, until: Instant },
}

/// Why a child is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Failed(Failure),
    /// It is behind, or the machine is short: the next does less.
    Overload,
    /// There was a long calm: the next does more.
    Restore,
    /// Others are watched than it makes, or none.
    Demand,
    /// Its machine will be gone.
    Leaving,
}

/// What went wrong with a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It ended by itself.
    Ended,
    /// Its pipeline did not stand within 5 s.
    NotReady,
    /// Units went in and nothing came out.
    Silent,
    /// It is behind, and there is nothing left to take from it.
    Behind,
    Fault(FaultClass),
}

/// For metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    pub starts: u64,
    pub failures: u64,
    pub overloads: u64,
    pub missed_keys: u64,
    pub unexpected_keys: u64,
}

/// Of one job, from its first child to its last.
#[derive(Debug)]
pub struct Supervisor {
    terms: Terms,
    state: State,
    /// Of the plan.
    wanted: Range<u16>,
    /// Of the last child.
    made: Range<u16>,
    /// Since when the machine of the last child is about to be gone.
    leaving: Option<Instant>,
    /// From what was planned to what is done.
    steps: Vec<Step>,
    stepped: Instant,
    /// Last failure, or last time it was behind.
    troubled: Option<Instant>,
    /// Since the last step.
    failures: VecDeque<Instant>,
    /// Since a minute without failure.
    streak: usize,
    failed: Option<Instant>,
    counters: Counters,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    Starting {
        since: Instant,
        pace: Pace,
    },
    Running {
        since: Instant,
        pace: Pace,
    },
    Stopping(Next),
    Waiting {
        until: Instant,
    },
    GivenUp {
        until: Instant,
    },
    /// Nobody watches.
    Idle,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Start(Instant),
    GiveUp(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    CheaperPreset,
    WithoutLargest,
    WithoutLowest,
}

impl Supervisor {
    /// Orders the first child, unless it is to wait until somebody wants it.
    pub fn new(terms: Terms, now: Instant) -> Self {
        let mut supervisor = Self {
            terms,
            state: State::Waiting { until: now },
            wanted: if terms.on_demand { 0..0 } else { 0..terms.rungs },
            made: 0..0,
            leaving: None,
            steps: Vec::new(),
            stepped: now,
            troubled: None,
            failures: VecDeque::new(),
            streak: 0,
            failed: None,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        };
        supervisor.start(now);
        supervisor
    }

    /// Then poll until `None`.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Ended => self.ended(|this| this.after(Failure::Ended, now), now),
            Input::Missed(media) => {
                if let Some(pace) = self.pace() {
                    pace.missed(media);
                }
            }
            Input::Ready => self.ready(now),
            Input::UnitIn { pts } => self.unit_in(pts, now),
            Input::UnitOut { rung, pts } => {
                if let Some(pace) = self.pace() {
                    pace.unit_out(rung, pts);
                }
            }
            Input::Progress(progress) => {
                if let Some(pace) = self.pace() {
                    pace.progress(progress.cpu);
                }
            }
            Input::Fault(class) => self.fault(class, now),
            Input::MachineShort if matches!(self.state, State::Running { .. }) => self.overload(now),
            Input::Wanted(rungs) => self.wanted(rungs, now),
            Input::Boundary { independent } => self.boundary(independent, now),
            Input::Leaving => self.leaving = Some(now),
            Input::NoMachine => self.ended(|_| Next::Start(now + ASK_AGAIN), now),
            Input::MachineShort | Input::Tick => {}
        }
        self.tick(now);
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due, if nothing happens before.
    pub fn wait_until(&self) -> Option<Instant> {
        match self.state {
            State::Starting { since, .. } => Some(since + READY_WITHIN),
            State::Running { since, .. } => self.restore_at(since),
            State::Stopping(_) | State::Idle => None,
            State::Waiting { until } | State::GivenUp { until } => Some(until),
        }
    }

    /// Rungs that a child makes now, or the next will; numbers of the plan. Empty if none is wanted.
    pub fn rungs(&self) -> Range<u16> {
        let count = |step| self.steps.iter().filter(|other| **other == step).count() as u16;
        let left = count(Step::WithoutLargest)..self.terms.rungs.saturating_sub(count(Step::WithoutLowest));
        let rungs = left.start.max(self.wanted.start)..left.end.min(self.wanted.end);
        if rungs.is_empty() { 0..0 } else { rungs }
    }

    pub fn preset(&self) -> Preset {
        let cheaper = self.steps.iter().filter(|step| **step == Step::CheaperPreset).count();
        let planned = Preset::ALL.iter().position(|preset| *preset == self.terms.preset).unwrap_or(0);
        Preset::ALL[planned.saturating_sub(cheaper)]
    }

    /// Whether nothing is made, and nothing is tried.
    pub fn is_given_up(&self) -> bool {
        matches!(self.state, State::GivenUp { .. })
    }

    /// Whether there is no child, because nobody wants one.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Seconds of processor time that the child needs per second of media, over its last ten seconds or so.
    pub fn cost(&self) -> Option<f64> {
        match &self.state {
            State::Running { pace, .. } => pace.cost(),
            _ => None,
        }
    }

    /// How far the slowest rung is behind the source.
    pub fn lag(&self) -> Duration {
        match &self.state {
            State::Starting { pace, .. } | State::Running { pace, .. } => pace.lag(),
            _ => Duration::ZERO,
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn pace(&mut self) -> Option<&mut Pace> {
        match &mut self.state {
            State::Starting { pace, .. } | State::Running { pace, .. } => Some(pace),
            _ => None,
        }
    }

    fn start(&mut self, now: Instant) {
        let (preset, rungs) = (self.preset(), self.rungs());
        if rungs.is_empty() {
            self.state = State::Idle;
            return;
        }
        (self.made, self.leaving) = (rungs.clone(), None);
        let pace = Pace::new(rungs.clone(), self.terms.timescale, self.terms.frame_rate);
        self.state = State::Starting { since: now, pace };
        self.counters.starts += 1;
        self.outputs.push_back(Output::Start { preset, rungs });
    }

    fn wanted(&mut self, rungs: Range<u16>, now: Instant) {
        self.wanted = rungs.start..rungs.end.min(self.terms.rungs);
        if self.rungs().is_empty() {
            // What was too much with other rungs need not be with these, if any.
            self.steps.retain(|step| *step == Step::CheaperPreset);
        }
        if self.is_idle() {
            self.start(now);
        }
    }

    fn boundary(&mut self, independent: bool, now: Instant) {
        if self.pace().is_none() {
            return;
        }
        if self.rungs() != self.made {
            self.stop(Reason::Demand, Next::Start(now));
        } else if self.leaving.is_some_and(|since| independent || now >= since + LEAVE_ANYWHERE) {
            self.stop(Reason::Leaving, Next::Start(now));
        }
    }

    fn ready(&mut self, now: Instant) {
        let state = std::mem::replace(&mut self.state, State::Waiting { until: now });
        self.state = match state {
            State::Starting { mut pace, .. } => {
                pace.ready(now);
                State::Running { since: now, pace }
            }
            other => other,
        };
    }

    fn unit_in(&mut self, pts: i64, now: Instant) {
        let Some(pace) = self.pace() else { return };
        pace.unit_in(pts, now);
        let State::Running { pace, .. } = &mut self.state else { return };
        if pace.is_silent(now) {
            self.fail(Failure::Silent, now);
        } else if pace.is_behind(now) {
            self.overload(now);
        }
    }

    fn fault(&mut self, class: FaultClass, now: Instant) {
        match class {
            FaultClass::MissedKey => self.counters.missed_keys += 1,
            FaultClass::UnexpectedKey => {
                self.counters.unexpected_keys += 1;
                return;
            }
            _ => {}
        }
        if self.pace().is_some() {
            self.fail(Failure::Fault(class), now);
        }
    }

    /// There is no child. `unasked`: what is next if it was not told to end.
    fn ended(&mut self, unasked: impl FnOnce(&mut Self) -> Next, now: Instant) {
        match self.state {
            State::Starting { .. } | State::Running { .. } => {
                let next = unasked(self);
                self.go(next, now);
            }
            State::Stopping(next) => self.go(next, now),
            State::Waiting { .. } | State::GivenUp { .. } | State::Idle => {}
        }
    }

    fn tick(&mut self, now: Instant) {
        match self.state {
            State::Starting { since, .. } if now >= since + READY_WITHIN => self.fail(Failure::NotReady, now),
            State::Running { since, .. } if self.restore_at(since).is_some_and(|at| now >= at) => {
                let before = (self.preset(), self.rungs());
                // One that takes away what is not wanted anyhow is nothing to wait another five minutes for.
                while self.steps.pop().is_some() && before == (self.preset(), self.rungs()) {}
                self.stepped = now;
                if before != (self.preset(), self.rungs()) {
                    self.stop(Reason::Restore, Next::Start(now));
                }
            }
            State::Waiting { until } | State::GivenUp { until } if now >= until => self.start(now),
            _ => {}
        }
    }

    /// When the last step down may be taken back, by a child that runs since `since`.
    fn restore_at(&self, since: Instant) -> Option<Instant> {
        self.steps.last()?;
        let calm = self.troubled.map_or(since, |troubled| troubled.max(since)) + CALM;
        Some(calm.max(self.stepped + RESTORE_AFTER))
    }

    fn fail(&mut self, failure: Failure, now: Instant) {
        let next = self.after(failure, now);
        self.stop(Reason::Failed(failure), next);
    }

    /// Counts a failure, and says what comes after it.
    fn after(&mut self, failure: Failure, now: Instant) -> Next {
        self.counters.failures += 1;
        self.troubled = Some(now);
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= FAILURES_WITHIN;
        self.streak = if self.failed.is_some_and(is_recent) { self.streak + 1 } else { 1 };
        self.failed = Some(now);
        self.failures.push_back(now);
        while self.failures.pop_front_if(|at| !is_recent(*at)).is_some() {}
        match failure {
            // No restart installs it.
            Failure::Fault(FaultClass::MissingDecoder | FaultClass::MissingEncoder) => {
                return Next::GiveUp(failure);
            }
            _ if self.failures.len() >= FAILURES_MAX => {
                self.failures.clear();
                if !self.step_down(now) {
                    return Next::GiveUp(failure);
                }
            }
            _ => {}
        }
        Next::Start(now + BACK_OFF[(self.streak - 1).min(BACK_OFF.len() - 1)])
    }

    fn overload(&mut self, now: Instant) {
        let is_first = self.steps.is_empty() || now >= self.stepped + CALM;
        let stepped = if is_first && self.rungs().len() > 1 {
            let own_size = self.terms.own_size && self.rungs().start == 0;
            self.push(if own_size { Step::WithoutLargest } else { Step::WithoutLowest }, now);
            true
        } else {
            self.step_down(now)
        };
        if stepped {
            self.counters.overloads += 1;
            self.troubled = Some(now);
            self.stop(Reason::Overload, Next::Start(now));
        } else {
            self.fail(Failure::Behind, now);
        }
    }

    /// `false` if there is nothing left to take.
    fn step_down(&mut self, now: Instant) -> bool {
        let step = if self.preset() != Preset::ALL[0] {
            Step::CheaperPreset
        } else if self.rungs().len() > 1 {
            Step::WithoutLargest
        } else {
            return false;
        };
        self.push(step, now);
        true
    }

    fn push(&mut self, step: Step, now: Instant) {
        let before = (self.preset(), self.rungs());
        // Taken from what was planned; of that, what is not wanted is not made already.
        while before == (self.preset(), self.rungs()) {
            self.steps.push(step);
        }
        self.stepped = now;
    }

    fn stop(&mut self, reason: Reason, next: Next) {
        self.state = State::Stopping(next);
        self.outputs.push_back(Output::Stop(reason));
    }

    fn go(&mut self, next: Next, now: Instant) {
        match next {
            Next::Start(at) if at <= now => self.start(now),
            Next::Start(at) => self.state = State::Waiting { until: at },
            Next::GiveUp(why) => {
                let until = now + RETRY_AFTER;
                self.state = State::GivenUp { until };
                self.outputs.push_back(Output::GiveUp { why, until });
            }
        }
    }
}
