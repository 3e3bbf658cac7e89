//! What leaves a pipeline, and what is known of its progress. Filled by GStreamer's threads, written by ours.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use gstreamer::ClockTime;
use pipe::{Fault, FromEncoder, Progress};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::StreamClock;

/// Messages between encoders and the pipe. When it is full the encoders wait, then the decoder, then we no longer read:
/// nothing is lost, and nothing grows.
const EVENTS_MAX: usize = 32;

/// Pictures that rungs are at, as in the ledger. Of more, the oldest is forgotten: a rung lost it.
const PICTURES_MAX: usize = 256;

#[derive(Debug)]
pub(crate) enum Event {
    Message(FromEncoder),
    /// Everything was encoded.
    Ended,
    /// The worker is gone, and nobody wants the rest.
    Abandoned,
}

/// A handle to the pipe's writer, for any thread.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    events: SyncSender<Event>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    clock: OnceLock<StreamClock>,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    units_in: u64,
    last_in: Option<ClockTime>,
    /// For each rung: units, and the time of the last.
    rungs: Vec<(u64, Option<ClockTime>)>,
    /// By PTS, in ticks: how many rungs have the picture, and their unit of it is not written.
    pictures: BTreeMap<i64, usize>,
}

impl Output {
    pub(crate) fn new(rungs: usize) -> (Self, Receiver<Event>) {
        let (events, receiver) = sync_channel(EVENTS_MAX);
        let tally = Mutex::new(Tally { rungs: vec![(0, None); rungs], ..Tally::default() });
        let shared = Arc::new(Shared { tally, ..Shared::default() });
        (Self { events, shared }, receiver)
    }

    /// Waits while the writer is behind. `false` when there is no writer any more: the process is about to end.
    pub(crate) fn send(&self, message: FromEncoder) -> bool {
        self.event(Event::Message(message))
    }

    pub(crate) fn fault(&self, fault: Fault) -> bool {
        self.send(FromEncoder::Fault(fault))
    }

    pub(crate) fn event(&self, event: Event) -> bool {
        self.events.send(event).is_ok()
    }

    /// The pipeline's clock, which begins with the first unit.
    pub(crate) fn clock(&self, first: impl FnOnce() -> StreamClock) -> StreamClock {
        *self.shared.clock.get_or_init(first)
    }

    /// `time` of a unit that left the pipeline, in ticks. `None` before any unit went in.
    pub(crate) fn ticks(&self, time: ClockTime, timescale: u32) -> Option<i64> {
        Some(self.shared.clock.get()?.ticks(time, timescale))
    }

    pub(crate) fn went_in(&self, time: ClockTime) {
        let mut tally = self.tally();
        tally.units_in += 1;
        tally.last_in = Some(tally.last_in.map_or(time, |last| last.max(time)));
    }

    /// A unit that stands for so many of the source.
    pub(crate) fn came_out(&self, rung: usize, time: ClockTime, every: u8) {
        if let Some(rung) = self.tally().rungs.get_mut(rung) {
            *rung = (rung.0 + u64::from(every), Some(time));
        }
    }

    /// One more rung is given the picture of `pts`.
    pub(crate) fn begun(&self, pts: i64) {
        let pictures = &mut self.tally().pictures;
        *pictures.entry(pts).or_default() += 1;
        if pictures.len() > PICTURES_MAX {
            pictures.pop_first();
        }
    }

    /// A unit of `pts` was taken to be written. `true` if no other rung is still at that picture.
    pub(crate) fn taken(&self, pts: i64) -> bool {
        match self.tally().pictures.entry(pts) {
            Entry::Occupied(mut rungs) if *rungs.get() > 1 => {
                *rungs.get_mut() -= 1;
                false
            }
            Entry::Occupied(rungs) => {
                rungs.remove();
                true
            }
            Entry::Vacant(_) => true,
        }
    }

    pub(crate) fn progress(&self, timescale: u32) -> Progress {
        let tally = self.tally();
        let units_out = tally.rungs.iter().map(|(units, _)| *units).min().unwrap_or(0);
        let last_out = tally.rungs.iter().map(|(_, last)| *last).min().flatten();
        let lag = match (tally.last_in, last_out) {
            (Some(last_in), Some(last_out)) => last_in.saturating_sub(last_out),
            _ => ClockTime::ZERO,
        };
        let lag = u128::from(lag.nseconds()) * u128::from(timescale) / 1_000_000_000;
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        Progress {
            units_in: tally.units_in,
            units_out,
            lag: u64::try_from(lag).unwrap_or(u64::MAX),
            cpu: Duration::new(cpu.tv_sec.unsigned_abs(), cpu.tv_nsec.unsigned_abs() as u32),
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Counters are whole whoever panicked over them.
        self.shared.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
