//! Which rung of the ladder a viewer gets: down at once, up with patience.
//!
//! An estimate above what is sent is a guess: nothing of that size was tried. So a climb is a trial. One that has to
//! be taken back soon doubles the wait before the next, and there are never more than two a minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How much more than a rung needs the estimate must be, to climb to it.
pub const HEADROOM: f64 = 1.3;

/// How long there must have been headroom.
const CLIMB_WAIT: Duration = Duration::from_secs(8);
/// The most that failed climbs make of it.
const CLIMB_WAIT_MAX: Duration = Duration::from_secs(4 * 60);
/// A fall within this time after a climb says that the climb was wrong.
const TRIAL: Duration = Duration::from_secs(15);
/// No more than [`CLIMBS_MAX`] climbs in this time.
const CLIMBS_WINDOW: Duration = Duration::from_secs(60);
const CLIMBS_MAX: usize = 2;

/// One viewer's choice. Rungs are numbered from the lowest.
#[derive(Debug)]
pub struct Chooser {
    /// Bits per second of each rung with everything around it, rising.
    ladder: Vec<f64>,
    rung: usize,
    /// Since when there is headroom for the next rung.
    headroom_since: Option<Instant>,
    wait: Duration,
    /// Newest last; no more than [`CLIMBS_MAX`].
    climbs: VecDeque<Instant>,
    /// The last climb, while it is not yet known whether it was right.
    trial: Option<Instant>,
}

impl Chooser {
    /// `ladder` in bits per second, rising, of at least one rung; a viewer starts with the highest that fits `estimate`.
    pub fn new(ladder: Vec<f64>, estimate: f64) -> Self {
        let rung = fitting(&ladder, estimate);
        Self { ladder, rung, headroom_since: None, wait: CLIMB_WAIT, climbs: VecDeque::new(), trial: None }
    }

    pub fn rung(&self) -> usize {
        self.rung
    }

    /// What the rung needs, in bits per second.
    pub fn needs(&self, rung: usize) -> f64 {
        self.ladder.get(rung).copied().unwrap_or_default()
    }

    /// What the same rungs are known to need by now.
    pub fn set_needs(&mut self, ladder: Vec<f64>) {
        if ladder.len() == self.ladder.len() {
            self.ladder = ladder;
        }
    }

    /// Tell it whenever there is a new estimate, some times a second. Returns the rung to switch to, if it changes.
    pub fn update(&mut self, estimate: f64, now: Instant) -> Option<usize> {
        if self.trial.is_some_and(|climbed| now.saturating_duration_since(climbed) >= TRIAL) {
            self.trial = None;
            self.wait = CLIMB_WAIT;
        }
        let needed = self.needs(self.rung);
        let changed = if estimate < needed { self.fall(estimate) } else { self.climb(estimate, now) };
        changed.then_some(self.rung)
    }

    fn fall(&mut self, estimate: f64) -> bool {
        self.headroom_since = None;
        let rung = fitting(&self.ladder, estimate);
        if rung >= self.rung {
            return false;
        }
        self.rung = rung;
        if self.trial.take().is_some() {
            self.wait = (self.wait * 2).min(CLIMB_WAIT_MAX);
        }
        true
    }

    fn climb(&mut self, estimate: f64, now: Instant) -> bool {
        let next = self.ladder.get(self.rung + 1);
        if next.is_none_or(|next| estimate < next * HEADROOM) {
            self.headroom_since = None;
            return false;
        }
        let since = *self.headroom_since.get_or_insert(now);
        let crowded = self.climbs.len() == CLIMBS_MAX
            && self.climbs.front().is_some_and(|&first| now.saturating_duration_since(first) < CLIMBS_WINDOW);
        if crowded || now.saturating_duration_since(since) < self.wait {
            return false;
        }
        if self.climbs.len() == CLIMBS_MAX {
            self.climbs.pop_front();
        }
        self.climbs.push_back(now);
        self.trial = Some(now);
        self.headroom_since = None;
        self.rung += 1;
        true
    }
}

/// The highest rung that `estimate` carries, or the lowest.
fn fitting(ladder: &[f64], estimate: f64) -> usize {
    ladder.iter().rposition(|&needed| needed <= estimate).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LADDER: [f64; 3] = [600e3, 1_200e3, 3_000e3];
    const STEP: Duration = Duration::from_millis(100);

    struct Clock {
        now: Instant,
        chooser: Chooser,
        climbs: Vec<Instant>,
        falls: Vec<Instant>,
    }

    impl Clock {
        fn new(estimate: f64) -> Self {
            let chooser = Chooser::new(LADDER.into(), estimate);
            Self { now: Instant::now(), chooser, climbs: Vec::new(), falls: Vec::new() }
        }

        fn run(&mut self, seconds: u64, mut estimate: impl FnMut(usize) -> f64) {
            for _ in 0..seconds * 10 {
                self.now += STEP;
                let before = self.chooser.rung();
                if let Some(rung) = self.chooser.update(estimate(before), self.now) {
                    assert_ne!(rung, before);
                    if rung > before { self.climbs.push(self.now) } else { self.falls.push(self.now) }
                }
            }
        }
    }

    #[test]
    fn a_viewer_starts_with_what_fits() {
        for (estimate, rung) in [(0.0, 0), (600e3, 0), (1_199e3, 0), (2_999e3, 1), (9e6, 2)] {
            assert_eq!(Chooser::new(LADDER.into(), estimate).rung(), rung);
        }
    }

    #[test]
    fn it_falls_at_once_and_as_far_as_it_must() {
        let mut clock = Clock::new(4e6);
        clock.run(1, |_| 4e6);
        let at = clock.now + STEP;
        assert_eq!(clock.chooser.update(700e3, at), Some(0));
        assert_eq!(clock.chooser.update(100e3, at + STEP), None, "there is nothing below the lowest");
    }

    #[test]
    fn it_climbs_one_rung_after_eight_seconds_of_headroom() {
        let mut clock = Clock::new(0.0);
        clock.run(60, |_| 1_200e3 * HEADROOM - 1.0);
        assert_eq!(clock.chooser.rung(), 0, "less than the headroom");
        let start = clock.now;
        clock.run(60, |_| 9e6);
        let after: Vec<f64> = clock.climbs.iter().map(|at| (*at - start).as_secs_f64().round()).collect();
        assert_eq!(after, [8.0, 16.0]);
    }

    #[test]
    fn a_moment_without_headroom_starts_the_wait_anew() {
        let mut clock = Clock::new(0.0);
        for _ in 0..10 {
            clock.run(7, |_| 9e6);
            clock.run(1, |_| 1_200e3);
        }
        assert!(clock.climbs.is_empty());
    }

    /// The path carries the middle rung and no more, but nothing short of trying shows it.
    #[test]
    fn climbs_that_fail_become_rare() {
        let mut clock = Clock::new(1_500e3);
        clock.run(20 * 60, |rung| if rung == 2 { 1_400e3 } else { 9e6 });
        assert_eq!(clock.climbs.len(), clock.falls.len());
        let waits: Vec<u64> =
            clock.climbs.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64().round() as u64).collect();
        // The third would be the third in a minute.
        assert_eq!(waits, [16, 44, 64, 128, 240, 240, 240]);
    }

    /// After a climb that held, the next fall is the path's doing and not a wrong guess.
    #[test]
    fn a_climb_that_held_forgives_the_failed_ones() {
        let mut clock = Clock::new(1_500e3);
        clock.run(60, |rung| if rung == 2 { 1_400e3 } else { 9e6 });
        clock.run(120, |_| 9e6);
        assert_eq!(clock.chooser.rung(), 2);
        clock.run(1, |_| 1_300e3);
        let (start, climbs) = (clock.now, clock.climbs.len());
        clock.run(9, |_| 9e6);
        assert_eq!(clock.climbs.len(), climbs + 1);
        assert_eq!((clock.climbs[climbs] - start).as_secs_f64().round(), 8.0);
    }

    #[test]
    fn whatever_the_estimate_does_there_are_two_climbs_a_minute() {
        let seed = 7;
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut clock = Clock::new(4e6);
        for _ in 0..500 {
            let estimate = random.f64() * 6e6;
            clock.run(random.u64(1..20), |_| estimate);
        }
        assert!(clock.climbs.len() > 50, "{}", clock.climbs.len());
        for three in clock.climbs.windows(3) {
            assert!(three[2] - three[0] >= CLIMBS_WINDOW);
        }
    }

    #[test]
    fn a_rung_is_kept_by_what_it_is_known_to_need_by_now() {
        let mut clock = Clock::new(3_100e3);
        clock.chooser.set_needs(vec![600e3, 1_200e3, 2_500e3]);
        clock.run(60, |_| 2_700e3);
        assert_eq!((clock.chooser.rung(), clock.falls.len()), (2, 0));
        clock.chooser.set_needs(LADDER.into());
        clock.run(1, |_| 2_700e3);
        assert_eq!(clock.chooser.rung(), 1);
    }

    #[test]
    fn one_rung_is_never_left() {
        let mut chooser = Chooser::new(vec![1e6], 0.0);
        let now = Instant::now();
        for second in 0..100_u32 {
            let estimate = f64::from(second % 2) * 9e6;
            assert_eq!(chooser.update(estimate, now + Duration::from_secs(second.into())), None);
        }
    }
}
