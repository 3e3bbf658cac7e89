//! The open log of a publication: runs units through the cutter and writes what comes out. Layers go beside the cutter.

mod layer;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use media::{AccessUnit, Captions, CodecConfig, MediaTime, Timescale, TrackKind};
use relay::{Boundary, Live, STORE_BYTES_MAX, StreamRecord, StreamWriter, TrackWriter};

use self::layer::Layer;
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::cutter::{Counts, Cutter, Entry, Lane, Numbers};
use crate::grid::Grid;
use crate::hold::{Held, Opening};
use crate::ladder::part_hold_back_ms;
use crate::meter::Weight;

/// The playlist window, in target durations; fewer if the origin could not keep what viewers may still ask for, and
/// never fewer than the three that rfc8216bis demands.
const WINDOW_TARGET_DURATIONS: RangeInclusive<u32> = 3..=7;

/// Bandwidth is stamped when the playlist appears, and once more when that many keyframes have been seen:
/// two whole GOPs say more than one.
const RESTAMP_KEYFRAMES: u32 = 3;

pub(crate) struct Log {
    cutter: Cutter,
    lead: TrackKind,
    lead_frame: u32,
    keep: Keep,
    group: u32,
    /// The publisher's own, the lead first, as in the stream record.
    tracks: Vec<Output>,
    /// In the order of the stream record.
    layers: Vec<Layer>,
    announced_bits_per_second: Option<u32>,
    stage: Stage,
    keyframes: u32,
    /// That were seen so far.
    captions: Captions,
    /// Between calls empty; kept for its allocation.
    entries: Vec<Entry>,
}

/// One track of the log, and what its bytes weigh.
struct Output {
    writer: TrackWriter,
    weight: Weight,
}

/// What a checkpoint is made of, besides the numbers.
struct Keep {
    checkpoints: Arc<dyn Checkpoints>,
    /// With the codec configurations in force.
    record: StreamRecord,
    grid: Grid,
    since_ms: i64,
    anchor_ms: i64,
}

/// What became of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    Written,
    /// Its time was published as a gap already.
    Late,
}

enum Stage {
    /// Segment 0 is incomplete.
    Starting,
    Live(Live),
    /// As `Live`, with its last bandwidth.
    Settled(Live),
}

impl Log {
    /// Opens the log of `writer` and writes what was held.
    pub(crate) fn open(
        opening: Opening,
        announced_bits_per_second: Option<u32>,
        since_ms: i64,
        checkpoints: Arc<dyn Checkpoints>,
        writer: &mut StreamWriter,
    ) -> Self {
        let record = StreamRecord {
            session: writer.session(),
            epoch: 1,
            part_hold_back_ms: part_hold_back_ms(&opening.tracks),
            frame_rate: opening.frame_rate,
            tracks: opening.tracks,
            live: None,
        };
        let cutter = Cutter::new(opening.grid.clone(), opening.anchor_ms);
        let keep = Keep { checkpoints, record, grid: opening.grid, since_ms, anchor_ms: opening.anchor_ms };
        let mut log = Self::new(cutter, keep, Stage::Starting, writer);
        log.announced_bits_per_second = announced_bits_per_second;
        let mut broken = false;
        for mut held in opening.units {
            // A break noticed on the follower is the lead's to draw.
            broken |= held.broken;
            held.broken = held.kind == log.lead && std::mem::take(&mut broken);
            log.push(held, writer);
        }
        log
    }

    /// Goes on with the session of a process before this one, with gaps up to `now_ms` on the stream clock and from there.
    pub(crate) fn resume(
        checkpoint: &Checkpoint,
        now_ms: i64,
        checkpoints: Arc<dyn Checkpoints>,
        writer: &mut StreamWriter,
    ) -> Self {
        let Checkpoint { grid, live, since_ms, anchor_ms, .. } = checkpoint.clone();
        let record = StreamRecord { epoch: checkpoint.record.epoch + 1, ..checkpoint.record.clone() };
        let ticks = |millis| MediaTime::new(millis, Timescale::MILLIS).ticks_in(grid.scale);
        let (began, now) = (ticks(checkpoint.position_ms), ticks(now_ms));
        let (last, target_duration_s) = (checkpoint.last(), live.target_duration_s);
        let mut entries = Vec::new();
        let cutter =
            Cutter::resume(grid.clone(), anchor_ms, target_duration_s, last, began, now, &mut entries);
        let keep = Keep { checkpoints, record, grid, since_ms, anchor_ms };
        let newest = entries.iter().rev().find_map(|entry| match entry {
            Entry::Boundary { lane: Lane::Lead, boundary } if boundary.part == 0 => Some(*boundary),
            _ => None,
        });
        // What is listed again is older than the checkpoint that there is.
        let mut log = Self::new(cutter, keep, Stage::Starting, writer);
        writer.go_live(live.clone());
        if let Some(newest) = newest {
            log.store(&newest, &live, writer);
        }
        log.write(&mut entries, writer);
        log.stage = Stage::Settled(live);
        log
    }

    fn new(cutter: Cutter, keep: Keep, stage: Stage, writer: &mut StreamWriter) -> Self {
        let lead = keep.record.tracks.first().map_or(TrackKind::Video, |track| track.codec.kind());
        let writers = writer.open(keep.record.clone()).into_iter();
        let (tracks, layers): (Vec<_>, Vec<_>) =
            writers.partition(|writer| writer.record().derived.is_none());
        let output = |writer: TrackWriter| {
            let weight = Weight::new(writer.record().codec.timescale());
            Output { writer, weight }
        };
        Self {
            cutter,
            lead,
            lead_frame: u32::try_from(keep.grid.frame).unwrap_or(u32::MAX),
            keep,
            group: 0,
            tracks: tracks.into_iter().map(output).collect(),
            layers: layers.into_iter().map(Layer::new).collect(),
            announced_bits_per_second: None,
            stage,
            keyframes: 0,
            captions: Captions::default(),
            entries: Vec::new(),
        }
    }

    pub(crate) fn lead(&self) -> TrackKind {
        self.lead
    }

    pub(crate) fn is_live(&self) -> bool {
        !matches!(self.stage, Stage::Starting)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.cutter.counts()
    }

    pub(crate) fn anchor_ms(&self) -> i64 {
        self.keep.anchor_ms
    }

    pub(crate) fn frame_rate(&self) -> Option<f64> {
        self.keep.record.frame_rate
    }

    /// Whether renditions are made of the video.
    pub(crate) fn has_ladder(&self) -> bool {
        let mut tracks = self.keep.record.tracks.iter();
        tracks.any(|track| !track.is_sent() && track.codec.kind() == TrackKind::Video)
    }

    /// The configuration in force of the track of this kind, if there is one.
    pub(crate) fn codec(&self, kind: TrackKind) -> Option<&CodecConfig> {
        self.keep.record.tracks.iter().map(|track| &track.codec).find(|codec| codec.kind() == kind)
    }

    /// Stream time in milliseconds up to which there is media, or a gap has begun; rounded up.
    pub(crate) fn taken_ms(&self) -> i64 {
        self.cutter.edge().map_or(0, |edge| edge.millis() + 1)
    }

    /// See [`Cutter::interval`].
    pub(crate) fn interval(&self) -> Duration {
        self.cutter.interval()
    }

    pub(crate) fn is_in_gap(&self) -> bool {
        self.cutter.is_in_gap()
    }

    pub(crate) fn push(&mut self, held: Held, writer: &StreamWriter) -> Placed {
        let Held { kind, mut unit, broken, config, .. } = held;
        let mut entries = std::mem::take(&mut self.entries);
        let mut placed = Placed::Written;
        if kind == self.lead {
            if unit.duration == 0 {
                unit.duration = self.lead_frame;
            }
            self.keyframes += u32::from(unit.key);
            self.look_for_captions(&unit, writer);
            let start = MediaTime::new(unit.dts, self.keep.grid.scale);
            if self.cutter.is_in_gap() && self.cutter.edge().is_some_and(|edge| start <= edge) {
                placed = Placed::Late;
            }
            self.cutter.push_lead(unit, broken, config, &mut entries);
        } else if self.tracks.len() > 1 {
            self.cutter.push_follower(unit, &mut entries);
        }
        self.write(&mut entries, writer);
        self.entries = entries;
        placed
    }

    /// See [`Layer::pixels`].
    pub(crate) fn layer_pixels(&self) -> Vec<u64> {
        self.layers.iter().map(Layer::pixels).collect()
    }

    pub(crate) fn push_layer(&mut self, track: usize, mut unit: AccessUnit, config: Option<&CodecConfig>) {
        unit.duration = self.lead_frame;
        if let Some(layer) = self.layers.get_mut(track) {
            layer.push(&unit, config, self.group);
        }
    }

    /// Nothing comes: gaps up to `now_ms` on the stream clock.
    pub(crate) fn silence(&mut self, now_ms: i64, writer: &StreamWriter) {
        let mut entries = std::mem::take(&mut self.entries);
        self.cutter.silence(MediaTime::new(now_ms, Timescale::MILLIS), &mut entries);
        self.write(&mut entries, writer);
        self.entries = entries;
    }

    /// Writes what the cutter still holds. The End frames follow when the track writers are dropped.
    pub(crate) fn finish(&mut self, writer: &StreamWriter) {
        let mut entries = std::mem::take(&mut self.entries);
        self.cutter.finish(&mut entries);
        self.write(&mut entries, writer);
    }

    fn write(&mut self, entries: &mut Vec<Entry>, writer: &StreamWriter) {
        for entry in entries.drain(..) {
            match entry {
                Entry::Group { lane, id, start } => {
                    if lane == Lane::Lead {
                        self.group = id;
                    }
                    self.output(lane).writer.open_group(id, start);
                }
                Entry::Config { codec, dts } => {
                    self.output(Lane::Lead).writer.push_config(dts, &codec);
                    if let Some(lead) = self.keep.record.tracks.first_mut() {
                        lead.codec = codec;
                    }
                }
                Entry::FirstSegment { target_duration_s, keyframe_interval_s } => {
                    self.go_live(target_duration_s, keyframe_interval_s, writer);
                }
                Entry::Boundary { lane, boundary } => {
                    if lane == Lane::Lead
                        && boundary.part == 0
                        && let Stage::Live(live) | Stage::Settled(live) = &self.stage
                    {
                        self.store(&boundary, live, writer);
                    }
                    let output = self.output(lane);
                    output.weight.boundary(boundary.start, boundary.part == 0);
                    output.writer.push_boundary(&boundary);
                    if lane == Lane::Lead {
                        self.layers.iter_mut().for_each(|layer| layer.boundary(&boundary));
                        if boundary.part == 0 {
                            self.restamp(writer);
                        }
                    }
                }
                Entry::Unit { lane, unit } => {
                    let output = self.output(lane);
                    output.weight.unit(&unit);
                    output.writer.push_unit(&unit);
                }
            }
        }
    }

    /// Before anybody can see the segment that begins here.
    fn store(&self, boundary: &Boundary, live: &Live, writer: &StreamWriter) {
        let Keep { checkpoints, record, grid, since_ms, anchor_ms } = &self.keep;
        checkpoints.store(&Checkpoint {
            id: writer.id().clone(),
            record: record.clone(),
            live: live.clone(),
            grid: grid.clone(),
            since_ms: *since_ms,
            anchor_ms: *anchor_ms,
            position_ms: MediaTime::new(boundary.start, grid.scale).millis(),
            numbers: Numbers {
                msn: boundary.msn,
                group: self.group,
                discontinuity_sequence: boundary.discontinuity_sequence,
            },
        });
    }

    fn output(&mut self, lane: Lane) -> &mut Output {
        let index = match lane {
            Lane::Lead => 0,
            Lane::Follower => 1,
        };
        self.tracks.get_mut(index).expect("the cutter has a follower only if the record has two tracks")
    }

    fn go_live(&mut self, target_duration_s: u32, keyframe_interval_s: f64, writer: &StreamWriter) {
        let mut bandwidth: Vec<_> = self.tracks.iter().map(|track| track.weight.bandwidth()).collect();
        let measured: u32 = bandwidth.iter().map(|track| track.peak).sum();
        let missing = self.announced_bits_per_second.unwrap_or(0).saturating_sub(measured);
        if let Some(lead) = bandwidth.first_mut() {
            lead.peak = lead.peak.saturating_add(missing);
        }
        let made = self.keep.record.tracks.iter().filter(|track| !track.is_sent());
        let made: Vec<_> = made.filter_map(|track| Some(track.derived?.bandwidth)).collect();
        // Layers are in no playlist, so that nobody keeps them.
        let peak = bandwidth.iter().chain(&made).map(|track| u64::from(track.peak)).sum();
        bandwidth.extend(self.layers.iter().map(Layer::bandwidth));
        bandwidth.extend(made);
        let window_ms = window_target_durations(target_duration_s, peak) * target_duration_s * 1000;
        let live = Live { target_duration_s, window_ms, bandwidth, captions: self.captions };
        let tracks: Vec<_> = live.bandwidth.iter().map(|track| track.peak).collect();
        tracing::info!(target_duration_s, keyframe_interval_s, window_s = window_ms / 1000, bandwidth = ?tracks, "live");
        writer.go_live(live.clone());
        self.stage = Stage::Live(live);
    }

    /// Players find captions by themselves; who chooses among them beforehand is told of those that were seen.
    fn look_for_captions(&mut self, unit: &AccessUnit, writer: &StreamWriter) {
        let Some(lead) = self.keep.record.tracks.first() else { return };
        let messages = lead.codec.captions(&unit.data);
        let seen = messages.iter().fold(self.captions, |seen, message| seen.union(Captions::of(message)));
        if seen == self.captions {
            return;
        }
        self.captions = seen;
        if let Stage::Live(live) | Stage::Settled(live) = &mut self.stage {
            live.captions = seen;
            writer.go_live(live.clone());
        }
    }

    /// Stamps the bandwidth once more, never lower, when enough has been seen.
    fn restamp(&mut self, writer: &StreamWriter) {
        let Stage::Live(live) = &mut self.stage else { return };
        if self.keyframes <= RESTAMP_KEYFRAMES {
            return;
        }
        let own = self.tracks.iter().map(|track| track.weight.bandwidth());
        for (stamped, measured) in
            live.bandwidth.iter_mut().zip(own.chain(self.layers.iter().map(Layer::bandwidth)))
        {
            stamped.peak = stamped.peak.max(measured.peak);
            stamped.average = measured.average;
        }
        writer.go_live(live.clone());
        self.stage = Stage::Settled(live.clone());
    }
}

/// How many target durations of a stream of `peak` bits per second fit into the origin's store, which keeps two windows
/// and one target duration.
fn window_target_durations(target_duration_s: u32, peak: u64) -> u32 {
    let fits = |window: &u32| {
        let kept_s = u64::from((2 * window + 1) * target_duration_s);
        peak.saturating_mul(kept_s) / 8 <= STORE_BYTES_MAX
    };
    WINDOW_TARGET_DURATIONS.rev().find(fits).unwrap_or(*WINDOW_TARGET_DURATIONS.start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_shrinks_until_the_store_can_keep_it() {
        assert_eq!(window_target_durations(4, 3_000_000), 7);
        assert_eq!(window_target_durations(11, 13_000_000), 7);
        assert_eq!(window_target_durations(11, 20_000_000), 4);
        assert_eq!(window_target_durations(12, u64::MAX), 3);
    }
}
