use proptest::prelude::*;

use super::*;

const TIMESCALE: u32 = 90_000;
const TERMS: Terms = Terms {
    rungs: 4,
    preset: Preset::Superfast,
    timescale: TIMESCALE,
    frame_rate: FrameRate { numerator: 30, denominator: 1 },
    on_demand: false,
    own_size: false,
};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What a child of the simulation is like.
#[derive(Debug, Clone, Copy)]
struct Nature {
    /// From its start; `None`: never.
    ready: Option<Duration>,
    /// Seconds of media it makes in a second.
    pace: f64,
    /// It gives nothing, but takes what comes.
    silent: bool,
    /// It ends by itself once it is ready.
    crashes: bool,
}

const SOUND: Nature = Nature { ready: Some(millis(100)), pace: 3.0, silent: false, crashes: false };

#[derive(Debug)]
struct SimChild {
    started: Instant,
    is_ready: bool,
    rungs: Range<u16>,
    /// Media it was given and has not made, in ticks; by then.
    made: f64,
    first: i64,
    ends: Option<Instant>,
}

/// A worker with a source of some frames a second and children of one nature, on a clock that is moved by hand.
struct Sim {
    begun: Instant,
    now: Instant,
    supervisor: Supervisor,
    nature: Nature,
    frame: Duration,
    /// Stamp of the next unit.
    pts: i64,
    /// Whether units come.
    source: bool,
    /// Units that came: the source is cut every half second, and a segment begins every two seconds.
    units: u32,
    child: Option<SimChild>,
    /// How long a child takes to go when it is told.
    ends_within: Duration,
    log: Vec<(Duration, Output)>,
    /// Of the last failures: when, and how long until the next start.
    failure: Option<Instant>,
    streak: usize,
}

impl Sim {
    fn new(terms: Terms, nature: Nature) -> Self {
        let now = Instant::now();
        let FrameRate { numerator, denominator } = terms.frame_rate;
        let mut sim = Self {
            begun: now,
            now,
            supervisor: Supervisor::new(terms, now),
            nature,
            frame: seconds(1) * denominator / numerator,
            pts: 1_000_000,
            source: true,
            units: 0,
            child: None,
            ends_within: millis(20),
            log: Vec::new(),
            failure: None,
            streak: 0,
        };
        sim.obey();
        sim
    }

    fn input(&mut self, input: Input) {
        let alone =
            matches!(input, Input::Ended) && self.child.take().is_some_and(|child| child.ends.is_none());
        if alone {
            self.failed();
        }
        if input == Input::NoMachine {
            self.child = None;
        }
        self.supervisor.handle_input(input, self.now);
        self.obey();
    }

    fn failed(&mut self) {
        let is_streak = self.failure.is_some_and(|last| self.now - last <= FAILURES_WITHIN);
        self.streak = if is_streak { self.streak + 1 } else { 1 };
        self.failure = Some(self.now);
    }

    fn obey(&mut self) {
        while let Some(output) = self.supervisor.poll_output() {
            match &output {
                Output::Start { preset, rungs } => {
                    assert!(self.child.is_none(), "two children at once");
                    assert!(*preset <= TERMS.preset && !rungs.is_empty() && rungs.end <= TERMS.rungs);
                    if let Some(failure) = self.failure.filter(|at| self.now - *at <= FAILURES_WITHIN) {
                        let least = BACK_OFF[(self.streak - 1).min(2)];
                        let waited = self.now - failure;
                        let is_planned = self.log.iter().rev().find_map(|(_, output)| match output {
                            Output::Stop(reason) => Some(!matches!(reason, Reason::Failed(_))),
                            _ => None,
                        });
                        assert!(
                            waited >= least || is_planned == Some(true),
                            "{waited:?} after {} failures",
                            self.streak
                        );
                    }
                    self.child = Some(SimChild {
                        started: self.now,
                        is_ready: false,
                        rungs: rungs.clone(),
                        made: self.pts as f64,
                        first: self.pts,
                        ends: None,
                    });
                }
                Output::Stop(reason) => {
                    let child = self.child.as_mut().expect("somebody to stop");
                    assert!(child.ends.is_none(), "stopped twice");
                    child.ends = Some(self.now + self.ends_within);
                    if matches!(reason, Reason::Failed(_)) {
                        self.failed();
                    }
                }
                Output::GiveUp { .. } => assert!(self.child.is_none()),
            }
            self.log.push((self.now - self.begun, output));
        }
    }

    /// A frame's time.
    fn step(&mut self) {
        self.now += self.frame;
        let ticks = (self.frame.as_secs_f64() * f64::from(TIMESCALE)).round();
        if self.child.as_ref().is_some_and(|child| child.ends.is_some_and(|ends| self.now >= ends)) {
            self.input(Input::Ended);
        }
        let Nature { ready, crashes, .. } = self.nature;
        if let Some(child) = self.child.as_mut().filter(|child| child.ends.is_none() && !child.is_ready)
            && ready.is_some_and(|after| self.now >= child.started + after)
        {
            child.is_ready = true;
            self.input(Input::Ready);
            if crashes && self.child.as_ref().is_some_and(|child| child.ends.is_none()) {
                self.input(Input::Ended);
            }
        }
        if self.source {
            let half_second = (seconds(1) / 2).div_duration_f64(self.frame).ceil() as u32;
            if self.units.is_multiple_of(half_second) {
                self.input(Input::Boundary { independent: self.units.is_multiple_of(4 * half_second) });
            }
            self.units += 1;
            self.input(Input::UnitIn { pts: self.pts });
            self.pts += ticks as i64;
        }
        let (pts, nature) = (self.pts, self.nature);
        let child =
            self.child.as_mut().filter(|child| child.is_ready && child.ends.is_none() && !nature.silent);
        if let Some(child) = child {
            child.made = (child.made + ticks * nature.pace).min(pts as f64);
            let made = child.made as i64 - ticks as i64;
            if made >= child.first {
                for rung in child.rungs.clone() {
                    self.input(Input::UnitOut { rung, pts: made });
                }
            }
        }
        self.input(Input::Tick);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn elapsed(&self) -> Duration {
        self.now - self.begun
    }

    /// Outputs since the last time, and when.
    fn told(&mut self) -> Vec<(Duration, Output)> {
        std::mem::take(&mut self.log)
    }

    fn starts(&mut self) -> Vec<(Preset, Range<u16>)> {
        let started = self.told().into_iter().filter_map(|(_, output)| match output {
            Output::Start { preset, rungs } => Some((preset, rungs)),
            _ => None,
        });
        started.collect()
    }
}

fn terms(frame_rate: u32) -> Terms {
    Terms { frame_rate: FrameRate { numerator: frame_rate, denominator: 1 }, ..TERMS }
}

#[test]
fn a_sound_child_is_left_alone() {
    let mut sim = Sim::new(TERMS, SOUND);
    sim.run(seconds(60));
    assert_eq!(sim.starts(), [(Preset::Superfast, 0..4)]);
    assert_eq!(sim.supervisor.counters(), Counters { starts: 1, ..Counters::default() });
    assert!(sim.supervisor.lag() < millis(200));
    assert_eq!(sim.supervisor.wait_until(), None);
}

#[test]
fn a_child_that_ends_is_followed_after_a_while_that_grows() {
    let mut sim = Sim::new(TERMS, SOUND);
    sim.run(seconds(1));
    for wait in [millis(200), seconds(1), seconds(5), seconds(5)] {
        sim.told();
        let ended = sim.now;
        sim.input(Input::Ended);
        assert_eq!(sim.supervisor.wait_until(), Some(ended + wait));
        sim.now = ended + wait - millis(1);
        sim.input(Input::Tick);
        assert_eq!(sim.told(), []);
        sim.now = ended + wait;
        sim.input(Input::Tick);
        assert!(matches!(sim.told()[..], [(_, Output::Start { .. })]));
        sim.run(seconds(2));
    }
    // After a minute it is an accident again.
    sim.run(seconds(61));
    let ended = sim.now;
    sim.input(Input::Ended);
    assert_eq!(sim.supervisor.wait_until(), Some(ended + millis(200)));
}

/// Three failures a minute: cheaper, then fewer, then nothing; and again after five minutes with what is left.
#[test]
fn a_child_that_always_ends_becomes_cheaper_until_it_is_given_up() {
    let mut sim = Sim::new(TERMS, Nature { crashes: true, ..SOUND });
    sim.run(seconds(120));
    assert!(sim.supervisor.is_given_up());
    let told = sim.told();
    let Some((given_up, Output::GiveUp { why: Failure::Ended, until })) = told.last() else {
        panic!("{told:?}")
    };
    assert_eq!(*until, sim.begun + *given_up + RETRY_AFTER);
    let mut levels: Vec<_> = told
        .iter()
        .filter_map(|(_, output)| match output {
            Output::Start { preset, rungs } => Some((*preset, rungs.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(levels.len(), 15);
    levels.dedup();
    let cheap = Preset::Ultrafast;
    assert_eq!(
        levels,
        [(Preset::Superfast, 0..4), (cheap, 0..4), (cheap, 1..4), (cheap, 2..4), (cheap, 3..4)]
    );

    sim.nature = SOUND;
    sim.run(RETRY_AFTER - (sim.elapsed() - *given_up) + seconds(5));
    assert_eq!(sim.starts(), [(Preset::Ultrafast, 3..4)]);
    assert!(!sim.supervisor.is_given_up());
}

#[test]
fn what_no_restart_installs_is_given_up_at_once() {
    for class in [FaultClass::MissingDecoder, FaultClass::MissingEncoder] {
        let mut sim = Sim::new(TERMS, SOUND);
        sim.told();
        sim.input(Input::Fault(class));
        let failure = Failure::Fault(class);
        assert!(matches!(sim.told()[..], [(_, Output::Stop(Reason::Failed(told)))] if told == failure));
        sim.run(seconds(1));
        assert!(matches!(sim.told()[..], [(_, Output::GiveUp { why, .. })] if why == failure));
    }
}

#[test]
fn a_child_that_does_not_get_ready_is_ended() {
    let mut sim = Sim::new(TERMS, Nature { ready: None, ..SOUND });
    assert_eq!(sim.supervisor.wait_until(), Some(sim.begun + seconds(5)));
    sim.ends_within = seconds(30);
    sim.run(seconds(20));
    let told = sim.told();
    let [(_, Output::Start { .. }), (at, Output::Stop(Reason::Failed(Failure::NotReady)))] = &told[..] else {
        panic!("{told:?}")
    };
    assert!((seconds(5)..millis(5_050)).contains(at), "{at:?}");
    // The next waits for the last one's end, however long that takes.
    sim.run(seconds(20));
    assert!(
        matches!(&sim.told()[..], [(at, Output::Start { .. })] if (seconds(35)..seconds(36)).contains(at))
    );
}

#[test]
fn silence_is_a_failure_after_a_second_or_ten_units() {
    for (frame_rate, least, most) in
        [(60, 1_000, 1_050), (30, 1_000, 1_070), (5, 1_800, 2_200), (1, 9_000, 11_000)]
    {
        let mut sim = Sim::new(terms(frame_rate), SOUND);
        sim.run(seconds(30));
        sim.told();
        let from = sim.elapsed();
        sim.nature.silent = true;
        sim.run(seconds(12));
        let told = sim.told();
        let Some((at, Output::Stop(Reason::Failed(Failure::Silent)))) = told.first() else {
            panic!("{frame_rate}: {told:?}")
        };
        let after = *at - from;
        assert!((millis(least)..=millis(most)).contains(&after), "{frame_rate} fps: {after:?}");
    }
}

#[test]
fn one_silent_rung_is_enough() {
    let mut sim = Sim::new(TERMS, SOUND);
    sim.run(seconds(1));
    sim.nature.silent = true;
    sim.told();
    for _ in 0..60 {
        for rung in 0..3 {
            sim.input(Input::UnitOut { rung, pts: sim.pts });
        }
        sim.step();
    }
    assert!(matches!(sim.told()[0].1, Output::Stop(Reason::Failed(Failure::Silent))));
}

/// A decoder may hold two pictures back; the publisher's pause is not the child's silence.
#[test]
fn a_source_that_pauses_is_no_silence() {
    let mut sim = Sim::new(TERMS, SOUND);
    sim.run(seconds(1));
    sim.nature.silent = true;
    sim.run(millis(66));
    sim.source = false;
    sim.run(seconds(20));
    sim.source = true;
    sim.run(millis(66));
    sim.nature.silent = false;
    sim.run(seconds(20));
    assert_eq!(sim.starts().len(), 1);
}

#[test]
fn a_missed_key_restarts_and_an_unasked_one_is_counted() {
    let mut sim = Sim::new(TERMS, SOUND);
    sim.run(seconds(1));
    sim.told();
    sim.input(Input::Fault(FaultClass::UnexpectedKey));
    assert_eq!(sim.told(), []);
    sim.input(Input::Fault(FaultClass::MissedKey));
    let failure = Failure::Fault(FaultClass::MissedKey);
    assert!(matches!(sim.told()[..], [(_, Output::Stop(Reason::Failed(told)))] if told == failure));
    // Other rungs of the same child missed it too.
    sim.input(Input::Fault(FaultClass::MissedKey));
    assert_eq!(sim.told(), []);
    let Counters { missed_keys, unexpected_keys, failures, .. } = sim.supervisor.counters();
    assert_eq!((missed_keys, unexpected_keys, failures), (2, 1, 1));
}

#[test]
fn a_machine_that_is_short_loses_the_lowest_rung_within_five_seconds() {
    for pace in [0.8, 0.67, 0.5, 0.2] {
        let mut sim = Sim::new(TERMS, SOUND);
        sim.run(seconds(10));
        sim.told();
        let from = sim.elapsed();
        sim.nature.pace = pace;
        sim.run(millis(5_100));
        let told = sim.told();
        let [(at, Output::Stop(Reason::Overload)), (_, Output::Start { preset, rungs })] = &told[..] else {
            panic!("{pace}: {told:?}")
        };
        assert!(*at - from <= seconds(5), "{pace}: {:?}", *at - from);
        assert_eq!((*preset, rungs.clone()), (Preset::Superfast, 0..3));
        // It was enough: that is all.
        sim.nature = SOUND;
        sim.run(seconds(60));
        assert_eq!(sim.told(), []);
        assert_eq!(sim.supervisor.counters().failures, 0);
    }
}

/// The lowest rung costs least. If it was not enough, what costs most goes.
/// Most who watch can show the source itself, and nobody else has anything but the smaller ones.
#[test]
fn a_rung_of_the_sources_own_size_goes_before_the_lowest() {
    let mut sim = Sim::new(Terms { own_size: true, ..TERMS }, SOUND);
    sim.run(seconds(10));
    sim.starts();
    sim.nature.pace = 0.8;
    sim.run(seconds(6));
    assert_eq!(sim.starts(), [(Preset::Superfast, 1..4)]);
}

#[test]
fn a_machine_that_stays_short_loses_what_costs_most() {
    let mut sim = Sim::new(TERMS, Nature { pace: 0.5, ..SOUND });
    sim.run(seconds(120));
    assert!(sim.supervisor.is_given_up());
    let mut levels = sim.starts();
    levels.dedup();
    let cheap = Preset::Ultrafast;
    let expected =
        [(Preset::Superfast, 0..4), (Preset::Superfast, 0..3), (cheap, 0..3), (cheap, 1..3), (cheap, 2..3)];
    assert_eq!(levels, expected);
}

#[test]
fn another_shortage_much_later_takes_the_next_lowest() {
    let mut sim = Sim::new(TERMS, SOUND);
    sim.run(seconds(5));
    sim.input(Input::MachineShort);
    sim.run(seconds(40));
    sim.input(Input::MachineShort);
    sim.run(seconds(5));
    // It does not count while a child starts: that one has not shown what it needs.
    sim.input(Input::MachineShort);
    sim.input(Input::MachineShort);
    sim.run(seconds(1));
    let superfast = |rungs| (Preset::Superfast, rungs);
    assert_eq!(sim.starts(), [superfast(0..4), superfast(0..3), superfast(0..2), (Preset::Ultrafast, 0..2)]);
}

/// A child begins with a whole group that is seconds long, and is behind by that much.
#[test]
fn catching_up_is_not_being_behind() {
    let mut sim = Sim::new(TERMS, Nature { pace: 1.2, ..SOUND });
    for _ in 0..8 * 30 {
        sim.input(Input::UnitIn { pts: sim.pts });
        sim.pts += 3_000;
    }
    sim.run(seconds(1));
    assert!(sim.supervisor.lag() > seconds(7), "{:?}", sim.supervisor.lag());
    sim.run(seconds(60));
    assert!(sim.supervisor.lag() < seconds(1), "{:?}", sim.supervisor.lag());
    assert_eq!(sim.starts().len(), 1);
}

/// On a machine with much else to do the first second may give nothing.
#[test]
fn a_child_may_take_a_moment_to_begin() {
    let frame_rate = FrameRate { numerator: 30, denominator: 1 };
    let mut pace = Pace::new(0..1, 90_000, frame_rate);
    let start = Instant::now();
    pace.ready(start);
    let mut is_behind = |at_ms: u64, made_s: i64| {
        let now = start + millis(at_ms);
        pace.unit_in(90_000 * (at_ms as i64 + 3_000) / 1_000, now);
        pace.unit_out(0, 90_000 * made_s);
        pace.is_behind(now)
    };
    assert!((0..40).all(|tenths| !is_behind(100 * tenths, 0)), "seven seconds behind, and just begun");
    assert!((40..60).any(|tenths| is_behind(100 * tenths, 0)), "it has not begun at all");
}

/// A broadcaster's keys may be ten seconds apart, and all of that has to be decoded before the first picture.
#[test]
fn what_has_to_be_decoded_first_is_no_silence() {
    let mut pace = Pace::new(0..1, 90_000, FrameRate { numerator: 30, denominator: 1 });
    let start = Instant::now();
    pace.missed(seconds(9));
    pace.ready(start);
    let mut is_silent = |at_ms: u64| {
        pace.unit_in(90 * at_ms as i64, start + millis(at_ms));
        pace.is_silent(start + millis(at_ms))
    };
    assert!((0..100).all(|tenths| !is_silent(100 * tenths)));
    assert!((100..120).any(|tenths| is_silent(100 * tenths)));
    pace.unit_out(0, 0);
    let later = |at_ms: u64| start + seconds(12) + millis(at_ms);
    assert!((0..20).any(|tenths| {
        pace.unit_in(90 * (12_000 + 100 * tenths), later(100 * tenths as u64));
        pace.is_silent(later(100 * tenths as u64))
    }));
}

#[test]
fn stamps_that_jump_ahead_are_not_being_behind() {
    let mut sim = Sim::new(TERMS, SOUND);
    for _ in 0..10 {
        sim.run(seconds(7));
        sim.pts += 5 * 90_000;
        let pts = sim.pts as f64;
        sim.child.as_mut().expect("it is sound").made = pts;
    }
    assert_eq!(sim.starts().len(), 1);
}

#[test]
fn a_slow_source_is_not_behind() {
    let mut sim = Sim::new(terms(1), Nature { pace: 1.0, ..SOUND });
    sim.run(seconds(600));
    assert_eq!(sim.starts().len(), 1);
}

#[test]
fn a_step_is_taken_back_alone_after_a_long_calm() {
    let mut sim = Sim::new(TERMS, SOUND);
    sim.run(seconds(5));
    for _ in 0..2 {
        sim.input(Input::MachineShort);
        sim.run(seconds(5));
    }
    let stepped = sim.elapsed() - seconds(5);
    assert_eq!(sim.starts().last(), Some(&(Preset::Ultrafast, 0..3)));
    // An accident in the meantime moves it.
    sim.run(seconds(285));
    let failed = sim.elapsed();
    sim.input(Input::Ended);
    sim.run(seconds(700));
    let told = sim.told();
    let restored: Vec<_> = told
        .iter()
        .filter(|(_, output)| *output == Output::Stop(Reason::Restore))
        .map(|(at, _)| *at)
        .collect();
    let [first, second] = restored[..] else { panic!("{told:?}") };
    assert!(first >= failed + CALM && first >= stepped + RESTORE_AFTER && first < failed + CALM + seconds(2));
    assert!((RESTORE_AFTER..RESTORE_AFTER + seconds(2)).contains(&(second - first)));
    assert_eq!((sim.supervisor.preset(), sim.supervisor.rungs()), (Preset::Superfast, 0..4));
    assert_eq!(sim.supervisor.wait_until(), None);
}

#[test]
fn cost_is_processor_time_per_second_of_media() {
    let mut sim = Sim::new(terms(4), SOUND);
    assert_eq!(sim.supervisor.cost(), None);
    let mut cpu = seconds(3);
    for second in 0..30 {
        sim.run(seconds(1));
        cpu += if second < 15 { millis(900) } else { millis(600) };
        sim.input(Input::Progress(Progress { cpu, ..Progress::default() }));
    }
    let cost = sim.supervisor.cost().expect("it runs for half a minute");
    assert!((cost - 0.6).abs() < 0.01, "{cost}");
    // A new child begins anew.
    sim.input(Input::Ended);
    sim.run(seconds(2));
    assert_eq!(sim.supervisor.cost(), None);
}

#[test]
fn sound_has_nothing_to_give() {
    let sound = Terms { rungs: 1, preset: Preset::Ultrafast, ..TERMS };
    let mut sim = Sim::new(sound, Nature { pace: 0.5, ..SOUND });
    sim.run(seconds(60));
    let told = sim.told();
    assert!(matches!(told[1].1, Output::Stop(Reason::Failed(Failure::Behind))), "{told:?}");
    assert!(matches!(told.last(), Some((_, Output::GiveUp { why: Failure::Behind, .. }))), "{told:?}");
}

#[derive(Debug, Clone)]
enum Event {
    Input(Input),
    Run(Duration),
    Nature(Nature),
    EndsWithin(Duration),
}

/// Of which nothing is made before somebody wants it.
const ON_DEMAND: Terms = Terms { on_demand: true, ..TERMS };

/// Why children were ended, and with which rungs they were started.
fn decisions(sim: &mut Sim) -> Vec<String> {
    let told = sim.told().into_iter().map(|(_, output)| match output {
        Output::Start { rungs, .. } => format!("start {rungs:?}"),
        Output::Stop(reason) => format!("stop {reason:?}"),
        Output::GiveUp { why, .. } => format!("give up {why:?}"),
    });
    told.collect()
}

#[test]
fn a_job_on_demand_makes_nothing_before_somebody_wants_it() {
    let mut sim = Sim::new(ON_DEMAND, SOUND);
    sim.run(seconds(60));
    assert!(sim.supervisor.is_idle() && sim.supervisor.rungs().is_empty());
    assert_eq!((sim.supervisor.counters(), sim.supervisor.wait_until()), (Counters::default(), None));
    let wanted = sim.elapsed();
    sim.input(Input::Wanted(2..3));
    assert_eq!(sim.told(), [(wanted, Output::Start { preset: Preset::Superfast, rungs: 2..3 })]);
    sim.run(seconds(60));
    assert_eq!(decisions(&mut sim), [] as [&str; 0]);
    assert_eq!(sim.supervisor.counters(), Counters { starts: 1, ..Counters::default() });
}

#[test]
fn a_child_at_work_is_replaced_where_the_source_is_cut_and_that_is_no_failure() {
    let mut sim = Sim::new(ON_DEMAND, SOUND);
    sim.input(Input::Wanted(2..3));
    sim.run(seconds(10));
    sim.told();
    for (wanted, decided) in [
        (1..3, vec!["stop Demand", "start 1..3"]),
        (1..3, vec![]),
        (0..1, vec!["stop Demand", "start 0..1"]),
        (0..0, vec!["stop Demand"]),
        // More than were planned.
        (3..9, vec!["start 3..4"]),
    ] {
        sim.source = false;
        let is_idle = sim.supervisor.is_idle();
        sim.input(Input::Wanted(wanted.clone()));
        assert!(is_idle || decisions(&mut sim).is_empty(), "{wanted:?}: within a part");
        sim.source = true;
        sim.run(seconds(10));
        assert_eq!(decisions(&mut sim), decided, "{wanted:?}");
        assert_eq!(sim.supervisor.is_idle(), wanted.is_empty());
    }
    let counters = sim.supervisor.counters();
    assert_eq!((counters.failures, counters.overloads), (0, 0));
}

#[test]
fn a_child_whose_machine_will_be_gone_is_replaced_where_a_segment_begins() {
    let mut sim = Sim::new(TERMS, SOUND);
    sim.run(seconds(5));
    sim.told();
    sim.input(Input::Leaving);
    sim.run(millis(900));
    assert_eq!(decisions(&mut sim), [] as [&str; 0], "between two parts of a segment");
    sim.run(seconds(10));
    assert_eq!(decisions(&mut sim), ["stop Leaving", "start 0..4"]);
    let counters = sim.supervisor.counters();
    assert_eq!((counters.failures, counters.overloads), (0, 0));
}

/// However long there is none: it is no fault of the job's.
#[test]
fn a_job_that_no_machine_takes_is_offered_again_as_it_was() {
    let mut sim = Sim::new(TERMS, Nature { ready: None, ..SOUND });
    for _ in 0..100 {
        sim.told();
        sim.input(Input::NoMachine);
        sim.run(ASK_AGAIN + millis(50));
        assert_eq!(sim.starts(), [(TERMS.preset, 0..TERMS.rungs)]);
    }
    assert_eq!(sim.supervisor.counters().failures, 0);
}

/// Who comes and goes does not shorten the wait after a failure.
#[test]
fn a_job_that_failed_waits_whoever_wants_it() {
    let mut sim = Sim::new(ON_DEMAND, SOUND);
    sim.input(Input::Wanted(0..4));
    sim.run(seconds(1));
    sim.told();
    let ended = sim.now;
    sim.input(Input::Ended);
    sim.input(Input::Wanted(0..0));
    sim.input(Input::Wanted(1..2));
    assert_eq!(decisions(&mut sim), [] as [&str; 0]);
    sim.now = ended + BACK_OFF[0];
    sim.input(Input::Tick);
    assert_eq!(decisions(&mut sim), ["start 1..2"]);
    let ended = sim.now;
    sim.input(Input::Ended);
    sim.input(Input::Wanted(0..0));
    sim.now = ended + BACK_OFF[1];
    sim.input(Input::Tick);
    assert!(sim.supervisor.is_idle());
}

#[test]
fn a_shortage_takes_from_what_is_made_and_is_over_when_nobody_watches() {
    let mut sim = Sim::new(ON_DEMAND, SOUND);
    sim.input(Input::Wanted(0..2));
    sim.run(seconds(1));
    sim.input(Input::MachineShort);
    sim.run(seconds(1));
    assert_eq!(decisions(&mut sim), ["start 0..2", "stop Overload", "start 0..1"]);
    sim.input(Input::Wanted(0..0));
    sim.run(seconds(1));
    sim.input(Input::Wanted(0..2));
    sim.run(seconds(1));
    assert_eq!(decisions(&mut sim), ["stop Demand", "start 0..2"]);
    // What was given up is all that is wanted now.
    sim.input(Input::MachineShort);
    sim.run(seconds(1));
    sim.input(Input::Wanted(1..2));
    sim.run(seconds(1));
    assert_eq!(decisions(&mut sim), ["stop Overload", "start 0..1", "stop Demand", "start 1..2"]);
}

fn any_event() -> impl Strategy<Value = Event> {
    let input = prop_oneof![
        Just(Input::Ready),
        Just(Input::Ended),
        Just(Input::MachineShort),
        Just(Input::Tick),
        any::<bool>().prop_map(|independent| Input::Boundary { independent }),
        Just(Input::Leaving),
        Just(Input::NoMachine),
        (0_u16..5, 0_u16..5).prop_map(|(start, end)| Input::Wanted(start..end.max(start))),
        any::<i64>().prop_map(|pts| Input::UnitIn { pts }),
        (any::<u16>(), any::<i64>()).prop_map(|(rung, pts)| Input::UnitOut { rung, pts }),
        (any::<u64>(), any::<u64>()).prop_map(|(lag, cpu)| Input::Progress(Progress {
            units_in: lag,
            units_out: cpu,
            lag,
            cpu: Duration::from_micros(cpu),
        })),
        prop::sample::select(&FaultClass::ALL[..]).prop_map(Input::Fault),
    ];
    let nature = (prop::option::of(0_u64..6_000), 0.1..4.0_f64, any::<bool>(), any::<bool>()).prop_map(
        |(ready, pace, silent, crashes)| Nature { ready: ready.map(millis), pace, silent, crashes },
    );
    prop_oneof![
        4 => input.prop_map(Event::Input),
        4 => (0_u64..20_000).prop_map(|time| Event::Run(millis(time))),
        1 => nature.prop_map(Event::Nature),
        1 => (0_u64..8_000).prop_map(|time| Event::EndsWithin(millis(time))),
    ]
}

proptest! {
    /// Whatever happens, also what cannot: never two children, never a wait that shrinks (`Sim::obey` insists); and
    /// when it is over, all rungs come back if children are sound, and the job is given up if they never are.
    #[test]
    fn any_schedule_ends_with_everything_or_nothing(
        events in prop::collection::vec(any_event(), 0..60),
        ends_well in any::<bool>(),
        on_demand in any::<bool>(),
    ) {
        let mut sim = Sim::new(Terms { on_demand, ..terms(4) }, SOUND);
        for event in events {
            match event {
                // Of a child that is not there nobody says that it ended.
                Event::Input(Input::Ended) if sim.child.is_none() => {}
                Event::Input(input) => sim.input(input),
                Event::Run(time) => sim.run(time),
                Event::Nature(nature) => sim.nature = nature,
                Event::EndsWithin(time) => sim.ends_within = time,
            }
        }
        sim.input(Input::Wanted(0..4));
        // A stamp from nowhere would keep the child that got it behind for ever.
        if sim.child.as_ref().is_some_and(|child| child.ends.is_none()) {
            sim.input(Input::Ended);
        }
        if ends_well {
            sim.nature = SOUND;
            sim.run(RETRY_AFTER + RESTORE_AFTER * 6);
            prop_assert_eq!(sim.supervisor.rungs(), 0..4);
            prop_assert_eq!(sim.supervisor.preset(), Preset::Superfast);
            let runs = matches!(sim.supervisor.state, State::Running { .. });
            prop_assert!(runs, "{:?}", sim.supervisor.state);
        } else {
            sim.nature = Nature { crashes: true, ..SOUND };
            let ends = sim.now + seconds(240);
            while !sim.supervisor.is_given_up() && sim.now < ends {
                sim.step();
            }
            prop_assert!(sim.supervisor.is_given_up());
            let starts = sim.supervisor.counters().starts;
            sim.run(RETRY_AFTER * 4);
            // Three failures at what is left, each time that it is tried again; and at each of four steps, if it was
            // given up for another reason before.
            let new = sim.supervisor.counters().starts - starts;
            prop_assert!(new <= 4 * 3 + 4 * 3, "{new} starts");
        }
    }
}
