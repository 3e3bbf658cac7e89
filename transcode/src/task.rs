//! One job at work: reads the source, feeds the child, cuts what comes of it, and does what its supervisor decides.

use std::future::pending;
use std::mem::discriminant;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::{AccessUnit, TrackKind};
use pipe::{Codec, FaultClass, FromEncoder, Machine, Preset, RungUnit, SourceUnit, ToEncoder};
use relay::{Boundary, Stream, Track, TrackRecord, TrackWriter, Wanted};
use tokio::time::{sleep_until, timeout};
use tracing::{debug, error, info, warn};

use crate::budget::{Budget, Share};
use crate::child::{Child, DRAIN, Encoders, Ended, Event, SendError};
use crate::cut::{Begins, Cutter, Entry, Starts};
use crate::job::{Input, Output, Reason, Supervisor, Terms};
use crate::metrics::{JobMetrics, Metrics};
use crate::order::{Order, PRESET};
use crate::source::{self, LATE, Missed, Source, SourceError};
use crate::workers::Refusal;

/// For a child to finish when its source has ended; longer than it is given, so that its end is seen.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// A job, from the opening of its stream to its end.
pub(crate) struct Task {
    order: Order,
    encoders: Encoders,
    budget: Budget,
    /// Of this machine.
    share: Share,
    stream: Arc<Stream>,
    /// Rungs that somebody watches, as the supervisor was told.
    wanted: Range<u16>,
    source: Source,
    supervisor: Supervisor,
    child: Option<Child>,
    /// Why no other node takes it, so that it is said once.
    refusal: Option<Refusal>,
    /// The child has nothing to begin with, or lost what it would need: units go to it from the next key on.
    awaits_key: bool,
    /// A key was due on a unit that it did not get.
    force: bool,
    /// By number.
    rungs: Vec<Rung>,
    /// Newest time of the source, in its ticks.
    newest: i64,
    events: Vec<source::Event>,
    metrics: JobMetrics,
}

struct Rung {
    writer: TrackWriter,
    cutter: Cutter,
    entries: Vec<Entry>,
    /// It is made, or is to be: otherwise nobody waits for its parts.
    is_wanted: bool,
}

impl Task {
    /// `writers`: of all tracks of the order.
    pub(crate) fn new(
        order: Order,
        track: Arc<Track>,
        writers: Vec<TrackWriter>,
        encoders: Encoders,
        budget: Budget,
        metrics: &Metrics,
        stream: Arc<Stream>,
    ) -> Self {
        let starts = |track: &TrackRecord| match order.kind {
            TrackKind::Video => Starts::Source,
            TrackKind::Audio => Starts::Unit(track.codec.timescale()),
        };
        let begins = |track: &TrackRecord| match track.derived {
            Some(derived) if derived.for_webrtc => Begins::Anywhere,
            Some(derived) if derived.on_demand => Begins::AtOnce,
            _ => Begins::WithMedia,
        };
        let rungs = writers.into_iter().map(|writer| Rung {
            cutter: Cutter::new(starts(writer.record()), begins(writer.record())),
            is_wanted: !order.on_demand,
            writer,
            entries: Vec::new(),
        });
        let rungs: Vec<_> = rungs.collect();
        let terms = Terms {
            rungs: rungs.len() as u16,
            preset: PRESET,
            timescale: order.timescale,
            frame_rate: order.frame_rate,
            on_demand: order.on_demand,
            own_size: rungs.first().is_some_and(|rung| {
                rung.writer.record().codec.dimensions() == track.record().codec.dimensions()
            }) && order.kind == TrackKind::Video,
        };
        let supervisor = Supervisor::new(terms, Instant::now());
        let names = rungs.iter().map(|rung| &*rung.writer.record().name);
        Self {
            metrics: metrics.job(stream.id(), names),
            share: budget.take_for(stream.id()),
            stream,
            wanted: 0..0,
            source: Source::new(track),
            supervisor,
            child: None,
            refusal: None,
            awaits_key: true,
            force: false,
            rungs,
            newest: i64::MIN,
            events: Vec::new(),
            order,
            encoders,
            budget,
        }
    }

    /// Until the source ends. Dropped, it kills its child and ends its rungs.
    pub(crate) async fn run(mut self) {
        let (track, stream) = (self.source.track(), self.stream.clone());
        // Before anything is read: the first child gets everything.
        self.obey();
        loop {
            let (appended, bounded) = (track.appended(), track.bounded());
            match self.take() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    error!(%error, "transcoding stopped: the rungs end");
                    break;
                }
            }
            self.obey();
            // The same for all tracks of the stream.
            let woken = track.demand().woken();
            let look_again = self.look();
            let wait_until = self.supervisor.wait_until();
            // Units are a child's alone; without one, all there is to do is to cut.
            let came = if self.child.is_some() { appended } else { bounded };
            let asked = async {
                match self.order.kind {
                    TrackKind::Video => stream.rung_keyframe_wanted().await,
                    // It has nothing else.
                    TrackKind::Audio => pending().await,
                }
            };
            tokio::select! {
                () = came => {}
                event = next(&mut self.child) => self.heard(event),
                () = until(wait_until) => self.input(Input::Tick),
                () = woken => {}
                () = asked => self.source.ask_for_key(),
                () = until(look_again) => {}
            }
            self.obey();
        }
        self.finish().await;
    }

    /// Takes what the source has. `false` at its end.
    fn take(&mut self) -> Result<bool, SourceError> {
        let mut events = std::mem::take(&mut self.events);
        let goes_on = self.source.read(&mut events);
        for event in events.drain(..) {
            match event {
                source::Event::Boundary { group, boundary } => {
                    self.boundary(group, boundary);
                    self.input(Input::Boundary { independent: boundary.part == 0 && boundary.independent });
                    // A child that is replaced gets none of what is behind it. A new one is not started here: it
                    // would be given twice what was read already.
                    if self.child.is_some() {
                        self.obey();
                    }
                }
                source::Event::Message(message) => {
                    if let ToEncoder::Unit(unit) = &message {
                        self.newest = self.newest.max(unit.dts);
                        self.metrics.unit_in();
                        self.input(Input::UnitIn { pts: unit.pts });
                    }
                    self.feed(message);
                }
            }
        }
        self.events = events;
        goes_on
    }

    fn boundary(&mut self, group: u32, boundary: Boundary) {
        self.newest = self.newest.max(boundary.start);
        let scale = i64::from(self.order.timescale);
        let late = self.newest - LATE.as_secs() as i64 * scale;
        for rung in &mut self.rungs {
            let to = i64::from(rung.writer.record().codec.timescale().hertz());
            let ticks = |ticks: i64| (i128::from(ticks) * i128::from(to) / i128::from(scale)) as i64;
            let gap = boundary.gap.map(|gap| ticks(gap.into()) as u32);
            let boundary = Boundary { start: ticks(boundary.start), gap, ..boundary };
            rung.cutter.boundary(group, boundary, &mut rung.entries);
            // What nobody waits for need not wait for a child either.
            let late = if rung.is_wanted { late } else { self.newest };
            rung.cutter.late(ticks(late), &mut rung.entries);
            rung.write();
        }
    }

    /// Asks who watches. Returns when to ask again, if nobody comes before.
    fn look(&mut self) -> Option<Instant> {
        if !self.order.on_demand {
            return None;
        }
        let now = Instant::now();
        let found: Vec<_> = self.rungs.iter().map(|rung| rung.writer.demand().look(now)).collect();
        let (hull, again) = (hull(&found), look_again(&found));
        if self.wanted != hull {
            debug!(rungs = ?hull, "other rungs are watched");
            for (number, rung) in (0..).zip(&mut self.rungs) {
                rung.is_wanted = hull.contains(&number);
            }
            self.wanted = hull.clone();
            self.input(Input::Wanted(hull));
            self.obey();
        }
        again
    }

    fn feed(&mut self, message: ToEncoder) {
        let Some(child) = &mut self.child else { return };
        let message = match message {
            ToEncoder::Unit(unit) if self.awaits_key && !unit.key => {
                self.force |= unit.force;
                self.metrics.unit_dropped();
                return;
            }
            ToEncoder::Unit(unit) => {
                let force = unit.force || std::mem::take(&mut self.force);
                ToEncoder::Unit(SourceUnit { force, ..unit })
            }
            other => other,
        };
        match (child.send(&message), message) {
            (Ok(()), ToEncoder::Unit(_)) => self.awaits_key = false,
            (Ok(()), _) => {}
            // It is behind by more than a group. What it misses it can do without from the next key on.
            (Err(SendError::Full), ToEncoder::Unit(unit)) => {
                self.force |= unit.force;
                self.awaits_key = true;
                self.metrics.unit_dropped();
            }
            // Without this it would misread everything after it. Its end is what it says next.
            (Err(_), _) => self.end_child(),
        }
    }

    fn end_child(&mut self) {
        if let Some(child) = &mut self.child {
            child.end(DRAIN);
        }
    }

    fn heard(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.said(message),
            Event::Ended(Ended::Refused(refusal)) => {
                let input = match &refusal {
                    Refusal::Nobody { .. } if !self.encoders.are_here() => Input::NoMachine,
                    // The job becomes cheaper, until there is room for it.
                    Refusal::Nobody { .. } | Refusal::Full { .. } => Input::Ended,
                };
                // Of one kind they differ in who was asked.
                let kind = discriminant(&refusal);
                if self.refusal.as_ref().is_none_or(|said| discriminant(said) != kind) {
                    warn!("no encoder: {refusal}");
                    self.refusal = Some(refusal);
                }
                self.ended(input);
            }
            Event::Ended(ended) => {
                match &self.child {
                    Some(child) if child.is_lent() => info!(%ended, "the encoder of another node ended"),
                    Some(child) => debug!(child = child.id(), %ended, "encoder ended"),
                    None => {}
                }
                self.ended(Input::Ended);
            }
        }
    }

    /// There is no child.
    fn ended(&mut self, input: Input) {
        self.child = None;
        self.input(input);
        if self.supervisor.is_idle() || self.supervisor.is_given_up() {
            self.share.set_cost(0.0);
        }
        self.metrics.made(0);
        self.metrics.progress(&self.supervisor);
    }

    fn said(&mut self, message: FromEncoder) {
        match message {
            FromEncoder::Ready { encoder } => {
                debug!(encoder, "encoder ready");
                self.metrics.ready(&encoder);
                self.refusal = None;
                self.input(Input::Ready);
            }
            FromEncoder::RungConfig { rung, codec } => self.config(rung, codec),
            FromEncoder::Unit(unit) => self.encoded(unit),
            FromEncoder::Progress(progress) => {
                self.input(Input::Progress(progress));
                let is_lent = self.is_lent();
                if let Some(cost) = self.supervisor.cost().filter(|_| !is_lent) {
                    self.share.set_cost(cost);
                    // Only once its need was measured: the step down before may have been enough.
                    if self.budget.is_short() {
                        self.input(Input::MachineShort);
                    }
                }
                self.metrics.progress(&self.supervisor);
            }
            FromEncoder::Fault(fault) => {
                warn!(class = ?fault.class, "encoder: {}", fault.text);
                let class = match fault.class {
                    // Another node may have one.
                    FaultClass::MissingDecoder | FaultClass::MissingEncoder if self.is_lent() => {
                        FaultClass::Pipeline
                    }
                    class => class,
                };
                self.input(Input::Fault(class));
            }
            FromEncoder::Machine(Machine::Short) => self.input(Input::MachineShort),
            FromEncoder::Machine(Machine::Leaving) => {
                info!("the node that lends the encoder will be gone: another goes on from the next segment");
                self.input(Input::Leaving);
            }
        }
    }

    fn is_lent(&self) -> bool {
        self.child.as_ref().is_some_and(Child::is_lent)
    }

    fn config(&mut self, number: u16, codec: Codec) {
        let Some(rung) = self.rungs.get_mut(usize::from(number)) else { return };
        let record = rung.writer.record();
        match codec.config() {
            Ok(config)
                if config.kind() == record.codec.kind() && config.timescale() == record.codec.timescale() =>
            {
                if config.rfc6381() != record.codec.rfc6381() {
                    debug!(
                        rendition.name = &*record.name,
                        codec = config.rfc6381(),
                        "encoded as something else than announced"
                    );
                }
                if !rung.cutter.config(codec) {
                    warn!(
                        rendition.name = &*record.name,
                        "another configuration than before: a gap until the next discontinuity"
                    );
                }
            }
            _ => warn!(rendition.name = &*record.name, "a configuration that is none of its kind"),
        }
    }

    fn encoded(&mut self, unit: RungUnit) {
        let RungUnit { rung: number, pts, duration, key, data } = unit;
        let Some(rung) = self.rungs.get_mut(usize::from(number)) else { return };
        self.metrics.unit_out(number, data.len());
        rung.cutter.unit(AccessUnit { dts: pts, pts, duration, key, data }, &mut rung.entries);
        rung.write();
        self.input(Input::UnitOut { rung: number, pts });
    }

    fn input(&mut self, input: Input) {
        self.supervisor.handle_input(input, Instant::now());
    }

    /// Does what the supervisor says.
    fn obey(&mut self) {
        while let Some(output) = self.supervisor.poll_output() {
            match output {
                Output::Start { preset, rungs } => self.start(preset, rungs),
                Output::Stop(Reason::Failed(failure)) => {
                    warn!(?failure, "encoder stopped");
                    self.ended(Input::Ended);
                }
                Output::Stop(Reason::Demand) if self.supervisor.rungs().is_empty() => {
                    info!("nobody watches: the encoder ends");
                    self.end_child();
                }
                Output::Stop(reason) => {
                    info!(?reason, rungs = self.supervisor.rungs().len(), "encoder is replaced");
                    self.end_child();
                }
                Output::GiveUp { why, until } => {
                    let retry_s = until.saturating_duration_since(Instant::now()).as_secs();
                    error!(?why, retry_s, "given up: the stream is passed through only");
                }
            }
        }
        self.metrics.counters(self.supervisor.counters());
    }

    fn start(&mut self, preset: Preset, numbers: Range<u16>) {
        self.awaits_key = true;
        self.force = false;
        self.rungs.iter_mut().for_each(|rung| rung.cutter.begin());
        let Missed { codec, messages, media } = match self.source.catch_up(self.next(&numbers)) {
            Ok(missed) => missed,
            Err(error) => {
                error!(%error, "bad log entry");
                return self.input(Input::Ended);
            }
        };
        let cost = self.order.estimate(self.source.track().record(), preset, &numbers);
        let job = self.order.job(codec, preset, &numbers);
        match self.encoders.place(self.stream.id(), job, cost, &self.share) {
            Ok(child) => {
                let made = self.rungs.get(usize::from(numbers.start)..usize::from(numbers.end));
                let names = made.unwrap_or_default().iter().map(|rung| &*rung.writer.record().name);
                let names = names.collect::<Vec<_>>().join(" ");
                let (child_id, preset) = (child.id(), preset.name());
                match (child.is_lent(), &self.refusal) {
                    (false, _) => info!(child = child_id, rungs = names, preset, "encoder started"),
                    (true, None) => info!(rungs = names, preset, "encoder of another node asked for"),
                    (true, Some(_)) => {
                        debug!(rungs = names, preset, "encoder of another node asked for again");
                    }
                }
                self.child = Some(child);
                self.metrics.made(numbers.len());
                self.input(Input::Missed(media));
                messages.into_iter().for_each(|message| self.feed(message));
            }
            Err(error) => {
                warn!(%error, "encoder not started");
                self.input(Input::Ended);
            }
        }
    }

    /// The part that all of these rungs can begin with, made on demand, and its group: none is lost that a viewer waits for,
    /// and none is given twice.
    fn next(&self, numbers: &Range<u16>) -> Option<(u32, i64)> {
        if !self.order.on_demand {
            return None;
        }
        let rungs = (0..).zip(&self.rungs).filter(|(number, _)| numbers.contains(number));
        let next = rungs.filter_map(|(_, rung)| {
            let (group, start) = rung.cutter.next()?;
            let from = i128::from(rung.writer.record().codec.timescale().hertz());
            Some((group, (i128::from(start) * i128::from(self.order.timescale) / from) as i64))
        });
        next.max_by_key(|(_, start)| *start)
    }

    /// The source is over: so are the rungs, with what the child still has.
    async fn finish(mut self) {
        self.end_child();
        let drained = timeout(DRAIN_MAX, async {
            while let Some(child) = &mut self.child {
                match child.next().await {
                    Event::Message(FromEncoder::Unit(unit)) => self.encoded(unit),
                    Event::Message(_) => {}
                    Event::Ended(_) => self.child = None,
                }
            }
        });
        if drained.await.is_err() {
            warn!("encoder did not end with its source");
        }
        for rung in &mut self.rungs {
            rung.cutter.finish(&mut rung.entries);
            rung.write();
        }
    }
}

impl Rung {
    fn write(&mut self) {
        for entry in self.entries.drain(..) {
            match entry {
                Entry::Group { id, start } => self.writer.open_group(id, start),
                Entry::Config { codec, dts } => match codec.config() {
                    Ok(config) => self.writer.push_config(dts, &config),
                    Err(error) => error!(%error, "a configuration that was sound before"),
                },
                Entry::Boundary(boundary) => self.writer.push_boundary(&boundary),
                Entry::Unit(unit) => self.writer.push_unit(&unit),
            }
        }
    }
}

/// From the largest that somebody watches to the smallest.
fn hull(found: &[Wanted]) -> Range<u16> {
    let is_wanted = |wanted: &Wanted| *wanted != Wanted::No;
    let first = found.iter().position(is_wanted).unwrap_or(0);
    let end = found.iter().rposition(is_wanted).map_or(0, |last| last + 1);
    first as u16..end as u16
}

/// When the first of them may be watched no more.
fn look_again(found: &[Wanted]) -> Option<Instant> {
    let until = |wanted: &Wanted| match wanted {
        Wanted::Until(until) => Some(*until),
        Wanted::No | Wanted::Held => None,
    };
    found.iter().filter_map(until).min()
}

async fn next(child: &mut Option<Child>) -> Event {
    match child {
        Some(child) => child.next().await,
        None => pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_two_that_are_watched_is_made_too() {
        let now = Instant::now();
        let [soon, later] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        let (no, held) = (Wanted::No, Wanted::Held);
        for (found, wanted, again) in [
            ([no, no, no, no], 0..0, None),
            ([no, no, held, no], 2..3, None),
            ([held, Wanted::Until(later), no, no], 0..2, Some(later)),
            ([no, Wanted::Until(later), no, Wanted::Until(soon)], 1..4, Some(soon)),
        ] {
            assert_eq!((hull(&found), look_again(&found)), (wanted, again), "{found:?}");
        }
    }
}
