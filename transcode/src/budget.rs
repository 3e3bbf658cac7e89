//! How much of this machine the jobs have.
//!
//! A job is admitted by an estimate. Once it runs, what it was measured to need takes the estimate's place, so that the
//! next is admitted by the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use media::StreamId;

/// How much of the machine jobs are admitted to: the rest is for the server, and for scenes that are harder than those
/// that were measured.
const ADMITTED: f64 = 0.8;

/// A handle; clones are of the same machine. Costs are in cores: seconds of processor time per second of media.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Mutex<Jobs>>);

#[derive(Debug)]
struct Jobs {
    cores: f64,
    next: u64,
    costs: BTreeMap<u64, f64>,
    /// Which stream a job is of; not of one that another node has asked for.
    streams: BTreeMap<u64, StreamId>,
}

/// One job's part. Dropped, it is free again.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    job: u64,
}

impl Budget {
    pub fn new(cores: usize) -> Self {
        let (costs, streams) = (BTreeMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(Jobs { cores: cores as f64, next: 0, costs, streams })))
    }

    /// What a new job may cost; zero if there is no room.
    pub fn free(&self) -> f64 {
        self.jobs().free()
    }

    /// `None` if the jobs would need more than 80 % of the cores together, or if `cost` is no number.
    pub fn admit(&self, cost: f64) -> Option<Share> {
        let mut jobs = self.jobs();
        // So that a NaN is refused too.
        if !(0.0..=jobs.free()).contains(&cost) {
            return None;
        }
        let job = jobs.next;
        jobs.next += 1;
        jobs.costs.insert(job, cost);
        Some(Share { budget: self.clone(), job })
    }

    /// For a job that runs already, whether there is room or not.
    pub fn take(&self, cost: f64) -> Share {
        let mut jobs = self.jobs();
        let job = jobs.next;
        jobs.next += 1;
        jobs.costs.insert(job, if cost.is_finite() { cost.max(0.0) } else { 0.0 });
        Share { budget: self.clone(), job }
    }

    /// For a job of a stream of this node, which has nothing of this machine yet.
    pub(crate) fn take_for(&self, id: &StreamId) -> Share {
        let share = self.take(0.0);
        self.jobs().streams.insert(share.job, id.clone());
        share
    }

    /// The streams of this node of which something is made on this machine.
    pub fn streams(&self) -> BTreeSet<StreamId> {
        let jobs = self.jobs();
        let here = jobs.streams.iter().filter(|(job, _)| jobs.costs.get(job).is_some_and(|cost| *cost > 0.0));
        here.map(|(_, id)| id.clone()).collect()
    }

    /// Whether the jobs that run need more than there is: some must become cheaper.
    pub fn is_short(&self) -> bool {
        let jobs = self.jobs();
        jobs.used() > jobs.cores
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        // Whole after every call, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Jobs {
    fn used(&self) -> f64 {
        self.costs.values().sum()
    }

    fn free(&self) -> f64 {
        (self.cores * ADMITTED - self.used()).max(0.0)
    }
}

impl Share {
    pub fn cost(&self) -> f64 {
        self.budget.jobs().costs.get(&self.job).copied().unwrap_or_default()
    }

    /// Makes it `cost`, if there is room for that where there is now this one.
    pub(crate) fn admit(&self, cost: f64) -> bool {
        let mut jobs = self.budget.jobs();
        let own = jobs.costs.insert(self.job, 0.0).unwrap_or_default();
        let fits = (0.0..=jobs.free()).contains(&cost);
        jobs.costs.insert(self.job, if fits { cost } else { own });
        fits
    }

    /// It needs `cost`, as was measured, or is about to, because its rungs changed. More than what is free is taken
    /// too: it is the truth. What is no number is not.
    pub fn set_cost(&self, cost: f64) {
        if cost.is_finite() && cost >= 0.0 {
            self.budget.jobs().costs.insert(self.job, cost);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut jobs = self.budget.jobs();
        jobs.costs.remove(&self.job);
        jobs.streams.remove(&self.job);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn four_fifths_of_the_cores_are_admitted_and_no_more() {
        let budget = Budget::new(4);
        assert!((budget.free() - 3.2).abs() < 1e-9);
        let first = budget.admit(2.0).expect("half of the machine");
        assert!(budget.admit(1.3).is_none());
        let second = budget.admit(1.1).expect("room for it");
        assert!(budget.admit(0.2).is_none());
        drop(first);
        assert!(budget.admit(2.0).is_some());
        drop(second);
        assert!((budget.free() - 3.2).abs() < 1e-9);
    }

    #[test]
    fn a_stream_is_made_here_while_one_of_its_jobs_has_part_of_this_machine() {
        let (budget, id) = (Budget::new(2), StreamId::new("live", "cam").unwrap());
        let (video, audio) = (budget.take_for(&id), budget.take_for(&id));
        let _of_another_node = budget.admit(0.5);
        assert!(budget.streams().is_empty(), "another node makes it");
        video.set_cost(0.4);
        assert_eq!(budget.streams(), BTreeSet::from([id.clone()]));
        audio.set_cost(0.1);
        drop(video);
        assert_eq!(budget.streams(), BTreeSet::from([id]));
        drop(audio);
        assert!(budget.streams().is_empty());
    }

    #[test]
    fn what_was_measured_takes_the_place_of_the_estimate() {
        let budget = Budget::new(2);
        let share = budget.admit(1.0).expect("room");
        share.set_cost(0.4);
        assert!((budget.free() - 1.2).abs() < 1e-9);
        assert!(!budget.is_short());
        share.set_cost(1.9);
        assert!(budget.free() == 0.0 && !budget.is_short());
        assert!(budget.admit(0.01).is_none());
        share.set_cost(2.1);
        assert!(budget.is_short());
        drop(share);
        assert!(!budget.is_short());
    }

    #[test]
    fn a_share_grows_into_what_is_free_and_no_further() {
        let budget = Budget::new(4);
        let (share, other) = (budget.take(1.0), budget.take(2.0));
        assert!(!share.admit(1.3) && !share.admit(f64::NAN));
        assert!((share.cost() - 1.0).abs() < 1e-9);
        assert!(share.admit(1.2));
        other.set_cost(9.0);
        assert!(!share.admit(0.1));
    }

    #[test]
    fn what_is_no_cost_changes_nothing() {
        let budget = Budget::new(2);
        let share = budget.admit(1.0).expect("room");
        for cost in [f64::NAN, f64::INFINITY, -1.0] {
            assert!(budget.admit(cost).is_none(), "{cost}");
            share.set_cost(cost);
            assert!((share.cost() - 1.0).abs() < 1e-9, "{cost}");
        }
    }

    proptest! {
        /// Whatever comes and goes: estimates alone never take more than four fifths, and all of it comes back.
        #[test]
        fn estimates_stay_within_the_budget(
            cores in 1_usize..64,
            events in prop::collection::vec((any::<bool>(), 0.0..8.0_f64, any::<prop::sample::Index>()), 0..100),
        ) {
            let budget = Budget::new(cores);
            let mut shares = Vec::new();
            for (comes, cost, which) in events {
                if comes || shares.is_empty() {
                    let free = budget.free();
                    let share = budget.admit(cost);
                    prop_assert_eq!(share.is_some(), cost <= free);
                    shares.extend(share);
                } else {
                    shares.swap_remove(which.index(shares.len()));
                }
                let used: f64 = shares.iter().map(Share::cost).sum();
                prop_assert!(used <= cores as f64 * ADMITTED + 1e-9);
            }
            shares.clear();
            prop_assert!((budget.free() - cores as f64 * ADMITTED).abs() < 1e-9);
        }
    }
}
