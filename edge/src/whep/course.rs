//! Which rendition one viewer is sent, from which frame on and how fast, by what is known of its path. Pure.

use std::time::Instant;

use rtc::estimate::{Chooser, Estimator, Limits};

use super::pace::Pace;
use super::place::Place;

/// What a path is taken to carry before it told, in bit/s: most carry more, and who is started too low sees a bad picture
/// for eight seconds.
const INITIAL: f64 = 5e6;
/// Of what a rendition needs on average, for the moments when it needs more; not while a queue stands that it would lengthen.
const SLACK: f64 = 2.0;
/// No path is taken to carry less.
const MIN: f64 = 100e3;

pub(super) struct Course {
    pub(super) estimator: Estimator,
    pub(super) place: Place,
    pub(super) pace: Pace,
    /// Its rungs are the renditions, from the smallest.
    chooser: Chooser,
    renditions: usize,
    /// The viewer chose itself.
    is_pinned: bool,
    /// It begins with a rung, to go over to this.
    then: Option<usize>,
}

/// Another rendition is to be sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Turn {
    pub(super) rendition: usize,
    /// It has no time for what is left of the group: a keyframe is to be asked for.
    pub(super) is_flight: bool,
    /// Bits per second that it was decided by.
    pub(super) estimate: f64,
}

impl Course {
    /// `ladder`: bits per second of each rendition, rising. `begin`: what to begin with on the way to the one that is chosen.
    pub(super) fn new(ladder: Vec<f64>, begin: impl FnOnce(usize) -> usize, now: Instant) -> Self {
        let max = ladder.last().copied().unwrap_or_default().mul_add(2.0, 1e6);
        let limits = Limits { initial: INITIAL.min(max), min: MIN, max };
        let renditions = ladder.len();
        let (estimator, chooser) = (Estimator::new(limits, now), Chooser::new(ladder, limits.initial));
        let chosen = number_at(chooser.rung(), renditions);
        let begins = begin(chosen);
        Self {
            pace: Pace::new(estimator.estimate(now).burst_bits_per_second, now),
            place: Place::new(begins),
            estimator,
            chooser,
            renditions,
            is_pinned: false,
            then: (begins != chosen).then_some(chosen),
        }
    }

    /// `None` leaves it to us again.
    pub(super) fn pin(&mut self, rendition: Option<usize>) {
        self.is_pinned = rendition.is_some();
        self.place.want(rendition.unwrap_or_else(|| number_at(self.chooser.rung(), self.renditions)));
    }

    /// What the same renditions are known to need by now: of the publisher's own the first seconds may not be typical.
    pub(super) fn relearn(&mut self, ladder: Vec<f64>) {
        self.chooser.set_needs(ladder);
    }

    /// A frame is sent.
    pub(super) fn began(&mut self) {
        if let Some(then) = self.then.take() {
            self.place.want(then);
        }
    }

    /// To be asked whenever the estimator was told something.
    pub(super) fn choose(&mut self, now: Instant) -> Option<Turn> {
        let told = self.estimator.estimate(now);
        let estimate = told.bits_per_second;
        let before = self.chooser.rung();
        let turned = self.chooser.update(estimate, now).filter(|_| !self.is_pinned).map(|rung| {
            let (rendition, is_flight) = (number_at(rung, self.renditions), rung < before);
            if is_flight {
                self.place.flee_to(rendition, now);
            } else {
                self.place.want(rendition);
            }
            Turn { rendition, is_flight, estimate }
        });
        self.place.retry(now);
        let rung = self.place.rendition().map_or(0, |number| number_at(number, self.renditions));
        let less = self.chooser.rung();
        let slack = if told.is_queued { 1.0 } else { SLACK };
        self.pace.set(if less >= rung || self.is_pinned {
            // It is for bursts. Who gets more than the path carries, as it chose so or there is no less, gets it all the same.
            told.burst_bits_per_second.max(self.chooser.needs(rung) * slack)
        } else if self.place.is_awaiting() {
            // What is too much is not to fill the queue that the other would wait in. Pictures that are whole come more and more late,
            // until they are left out. No less than the other would need: of a path that is sent ever less nothing is seen but that it
            // carries so little.
            estimate.max(self.chooser.needs(less))
        } else {
            // The other does not come, and the estimate may be wrong.
            told.burst_bits_per_second.max(self.chooser.needs(less) * slack)
        });
        turned
    }
}

/// Number of a rung, or the rung of a number: renditions are numbered from the largest.
fn number_at(rung: usize, renditions: usize) -> usize {
    renditions.saturating_sub(rung + 1)
}

#[cfg(test)]
mod tests;
