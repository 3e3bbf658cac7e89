//! What became of each picture: where keys are due, whether they came, and what belongs to a picture but does not go
//! through decoder and encoder.
//!
//! One for all rungs of a job. Fed by the reader (`accept`), before each encoder (`before_encoder`) and after it
//! (`encoded`). A forced key whose picture the decoder lost moves to the next picture that comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};

use bytes::Bytes;
use pipe::FaultClass;

/// Pictures between the pipe and the slowest encoder: a decoder reorders 16 at most, queues and appsrc hold a dozen.
/// Of more, the oldest is forgotten: it was lost.
const IN_FLIGHT_MAX: usize = 256;

/// Forced keys that no picture has come for yet; keys are seconds apart, so this many were lost. The oldest goes.
const PENDING_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Ledger {
    /// By PTS, in ticks.
    in_flight: BTreeMap<i64, Companion>,
    rungs: Vec<RungLedger>,
}

/// What goes round decoder and encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Companion {
    pub(crate) duration: u32,
    /// SEI NAL units with the picture's captions.
    pub(crate) captions: Vec<Bytes>,
}

#[derive(Debug)]
struct RungLedger {
    /// Of so many pictures one is encoded; of how many the next is not.
    every: u8,
    left_out: u8,
    /// Captions of pictures that were left out, by their PTS, until the next one takes them along.
    carried: BTreeMap<i64, Vec<Bytes>>,
    /// Up to here, pictures were taken for keys that were due. Before the first of them none is encoded.
    taken_for_key: Option<i64>,
    started: bool,
    /// PTS at or after which the next picture is to be a key.
    pending: BTreeSet<i64>,
    /// PTS of pictures the encoder was asked to make a key of, in order.
    expected: VecDeque<i64>,
    last: Option<i64>,
}

/// A key that is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyFault {
    pub(crate) class: FaultClass,
    pub(crate) pts: i64,
}

impl Ledger {
    /// Of each rung: of how many pictures one is encoded.
    pub(crate) fn new(every: &[u8]) -> Self {
        let rung = |&every| RungLedger {
            every,
            left_out: 0,
            carried: BTreeMap::new(),
            taken_for_key: None,
            started: false,
            pending: BTreeSet::new(),
            expected: VecDeque::new(),
            last: None,
        };
        Self { in_flight: BTreeMap::new(), rungs: every.iter().map(rung).collect() }
    }

    /// A unit of the source is about to be decoded.
    pub(crate) fn accept(&mut self, pts: i64, force: bool, companion: Companion) {
        self.in_flight.insert(pts, companion);
        if self.in_flight.len() > IN_FLIGHT_MAX {
            self.in_flight.pop_first();
        }
        if force {
            for rung in &mut self.rungs {
                rung.pending.insert(pts);
                if rung.pending.len() > PENDING_MAX {
                    rung.pending.pop_first();
                }
            }
        }
    }

    /// Whether `rung` encodes the picture of `pts`, which was decoded: each, or one of several, and always the one that is
    /// to be a key; none before the first key. Ask once for each, in their order.
    pub(crate) fn wants(&mut self, rung: usize, pts: i64) -> bool {
        let Some(rung) = self.rungs.get_mut(rung) else { return false };
        let after = rung.taken_for_key.map_or(Unbounded, Excluded);
        let due = rung.pending.range((after, Included(pts))).next().is_some();
        if due {
            rung.taken_for_key = Some(pts);
        } else if rung.taken_for_key.is_none() {
            return false;
        }
        if due || rung.left_out == 0 {
            rung.left_out = rung.every.saturating_sub(1);
            return true;
        }
        rung.left_out -= 1;
        if let Some(companion) = self.in_flight.get(&pts).filter(|companion| !companion.captions.is_empty()) {
            rung.carried.insert(pts, companion.captions.clone());
            if rung.carried.len() > IN_FLIGHT_MAX {
                rung.carried.pop_first();
            }
        }
        false
    }

    /// The picture of `pts` comes to the encoder of `rung`: is it to be made a key? Never the first: it is one by
    /// itself, and x264enc of GStreamer 1.22 that was asked for it ignores every later request.
    pub(crate) fn before_encoder(&mut self, rung: usize, pts: i64) -> bool {
        let Some(rung) = self.rungs.get_mut(rung) else { return false };
        let later = rung.pending.split_off(&pts.saturating_add(1));
        let due = !std::mem::replace(&mut rung.pending, later).is_empty();
        let first = !std::mem::replace(&mut rung.started, true);
        if due || first {
            rung.expected.push_back(pts);
        }
        due && !first
    }

    /// The picture of `pts` left the encoder of `rung`. Its companion, if it is a picture of the source's, and what is
    /// wrong with keys up to here.
    pub(crate) fn encoded(&mut self, rung: usize, pts: i64, key: bool) -> (Option<Companion>, Vec<KeyFault>) {
        let mut companion = self.in_flight.get(&pts).cloned();
        let Some(ledger) = self.rungs.get_mut(rung) else { return (companion, Vec::new()) };
        if let Some(companion) = &mut companion {
            // It is shown until the next, which is that much later.
            companion.duration = companion.duration.saturating_mul(u32::from(ledger.every));
            let later = ledger.carried.split_off(&pts);
            let carried = std::mem::replace(&mut ledger.carried, later).into_values().flatten();
            companion.captions = carried.chain(std::mem::take(&mut companion.captions)).collect();
        }
        let mut faults = Vec::new();
        let mut missed = |pts| faults.push(KeyFault { class: FaultClass::MissedKey, pts });
        let mut asked = false;
        while let Some(expected) = ledger.expected.pop_front_if(|expected| *expected <= pts) {
            asked |= expected == pts;
            if expected < pts || !key {
                missed(expected);
            }
        }
        if key && !asked {
            faults.push(KeyFault { class: FaultClass::UnexpectedKey, pts });
        }
        ledger.last = Some(pts);
        self.forget();
        (companion, faults)
    }

    /// Drops what every rung is past.
    fn forget(&mut self) {
        let slowest = self.rungs.iter().map(|rung| rung.last).min().flatten();
        if let Some(slowest) = slowest {
            self.in_flight = self.in_flight.split_off(&slowest.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Companion = Companion { duration: 3_000, captions: Vec::new() };

    /// Through the decoder and the encoder of a lone rung.
    fn pass(ledger: &mut Ledger, pts: i64, force: bool, key: bool) -> (bool, Vec<KeyFault>) {
        ledger.accept(pts, force, PLAIN);
        let asked = ledger.before_encoder(0, pts);
        (asked, ledger.encoded(0, pts, key).1)
    }

    #[test]
    fn the_first_picture_is_a_key_without_being_asked() {
        let mut ledger = Ledger::new(&[1]);
        assert_eq!(pass(&mut ledger, 0, true, true), (false, vec![]));
        assert_eq!(pass(&mut ledger, 1, false, false), (false, vec![]));
        assert_eq!(pass(&mut ledger, 2, true, true), (true, vec![]));
    }

    #[test]
    fn a_key_whose_picture_is_lost_moves_to_the_next() {
        let mut ledger = Ledger::new(&[1]);
        pass(&mut ledger, 0, false, true);
        ledger.accept(10, true, PLAIN);
        assert_eq!(pass(&mut ledger, 20, false, true), (true, vec![]));
        assert_eq!(pass(&mut ledger, 30, false, false), (false, vec![]));
    }

    /// With B-frames the key is accepted before pictures that are shown before it.
    #[test]
    fn a_key_waits_for_its_place_in_presentation_order() {
        let mut ledger = Ledger::new(&[1]);
        pass(&mut ledger, 0, true, true);
        for (pts, force) in [(30, true), (10, false), (20, false)] {
            ledger.accept(pts, force, PLAIN);
        }
        let asked: Vec<_> = [10, 20, 30].into_iter().map(|pts| ledger.before_encoder(0, pts)).collect();
        assert_eq!(asked, [false, false, true]);
    }

    #[test]
    fn keys_that_did_not_come_and_keys_that_came_unasked_are_faults() {
        let mut ledger = Ledger::new(&[1]);
        pass(&mut ledger, 0, true, true);
        let fault = |class, pts| KeyFault { class, pts };
        assert_eq!(pass(&mut ledger, 10, true, false), (true, vec![fault(FaultClass::MissedKey, 10)]));
        assert_eq!(pass(&mut ledger, 20, false, true), (false, vec![fault(FaultClass::UnexpectedKey, 20)]));
        // The encoder swallowed the picture that was to be a key.
        ledger.accept(30, true, PLAIN);
        assert!(ledger.before_encoder(0, 30));
        assert_eq!(pass(&mut ledger, 40, false, false), (false, vec![fault(FaultClass::MissedKey, 30)]));
    }

    #[test]
    fn each_rung_has_its_own_keys() {
        let mut ledger = Ledger::new(&[1, 1]);
        for pts in 0..4 {
            ledger.accept(pts, pts == 2, PLAIN);
            ledger.before_encoder(0, pts);
        }
        assert!(!ledger.before_encoder(1, 1));
        assert!(ledger.before_encoder(1, 2));
    }

    #[test]
    fn companions_stay_until_the_slowest_rung_has_them_and_no_longer() {
        let mut ledger = Ledger::new(&[1, 1]);
        for pts in 0..3 {
            ledger.accept(pts, false, PLAIN);
        }
        assert_eq!(ledger.encoded(0, 1, false).0, Some(PLAIN));
        assert_eq!(ledger.in_flight.len(), 3);
        assert_eq!(ledger.encoded(1, 1, false).0, Some(PLAIN));
        assert_eq!(ledger.in_flight.len(), 1);
        assert_eq!(ledger.encoded(1, 7, false).0, None);
    }

    #[test]
    fn a_thinned_rung_takes_every_other_picture_and_counts_from_its_keys() {
        let mut ledger = Ledger::new(&[1, 2]);
        let mut taken = [Vec::new(), Vec::new()];
        for pts in 0..10 {
            ledger.accept(pts, pts == 0 || pts == 5, PLAIN);
            for (rung, taken) in taken.iter_mut().enumerate() {
                taken.extend(ledger.wants(rung, pts).then_some(pts));
            }
        }
        assert_eq!(taken, [(0..10).collect(), vec![0, 2, 4, 5, 7, 9]]);
        // Although the encoder comes to it only now.
        let asked: Vec<_> = taken[1].iter().filter(|pts| ledger.before_encoder(1, **pts)).copied().collect();
        assert_eq!(asked, [5]);
        let durations: Vec<_> =
            (0..2).map(|rung| ledger.encoded(rung, 0, true).0.map(|companion| companion.duration)).collect();
        assert_eq!(durations, [Some(3_000), Some(6_000)]);
    }

    /// Captions are a stream of bytes, of which none may be lost.
    #[test]
    fn captions_of_pictures_that_are_left_out_come_with_the_next() {
        let captions = |pts: i64| Bytes::from(vec![pts as u8]);
        let mut ledger = Ledger::new(&[3]);
        let taken: Vec<_> = (0..7)
            .filter(|&pts| {
                ledger.accept(pts, pts == 0, Companion { captions: vec![captions(pts)], ..PLAIN });
                ledger.wants(0, pts)
            })
            .collect();
        assert_eq!(taken, [0, 3, 6]);
        let came: Vec<_> = taken
            .into_iter()
            .map(|pts| ledger.encoded(0, pts, pts == 0).0.expect("its own").captions)
            .collect();
        let expected = [vec![0], vec![1, 2, 3], vec![4, 5, 6]];
        assert_eq!(came, expected.map(|pts| pts.into_iter().map(captions).collect::<Vec<_>>()));
    }

    /// A decoder that gives nothing back, because every unit is damaged, must not fill the memory.
    #[test]
    fn what_never_comes_out_is_forgotten() {
        let mut ledger = Ledger::new(&[1]);
        for pts in 0..10_000 {
            ledger.accept(pts, true, PLAIN);
        }
        assert_eq!(ledger.in_flight.len(), IN_FLIGHT_MAX);
        assert_eq!(ledger.rungs[0].pending.len(), PENDING_MAX);
    }
}
