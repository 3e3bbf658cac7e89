//! The open log of a publication: runs units through the cutter and writes what comes out.

use std::ops::RangeInclusive;

use media::TrackKind;
use relay::{Live, STORE_BYTES_MAX, StreamRecord, StreamWriter, TrackWriter};

use crate::cutter::{Counts, Cutter, Entry, Lane};
use crate::hold::{Held, Opening};
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
    /// The lead first, as in the stream record.
    tracks: Vec<Output>,
    announced_bits_per_second: Option<u32>,
    stage: Stage,
    keyframes: u32,
    /// Between calls empty; kept for its allocation.
    entries: Vec<Entry>,
}

/// One track of the log, and what its bytes weigh.
struct Output {
    writer: TrackWriter,
    weight: Weight,
}

enum Stage {
    /// Segment 0 is incomplete.
    Starting,
    Live(Live),
    /// As `Live`, with its last bandwidth.
    Settled,
}

impl Log {
    /// Opens the log of `writer` and writes what was held.
    pub(crate) fn open(
        opening: Opening,
        announced_bits_per_second: Option<u32>,
        writer: &mut StreamWriter,
    ) -> Self {
        let lead = opening.tracks.first().map_or(TrackKind::Video, |track| track.codec.kind());
        let scales: Vec<_> = opening.tracks.iter().map(|track| track.codec.timescale()).collect();
        let writers = writer.open(StreamRecord {
            session: writer.session(),
            epoch: 1,
            part_hold_back_ms: opening.grid.part_hold_back_ms(),
            frame_rate: opening.frame_rate,
            tracks: opening.tracks,
            live: None,
        });
        let tracks = writers.into_iter().zip(scales);
        let mut log = Self {
            lead,
            lead_frame: u32::try_from(opening.grid.frame).unwrap_or(u32::MAX),
            cutter: Cutter::new(opening.grid, opening.anchor_ms),
            tracks: tracks.map(|(writer, scale)| Output { writer, weight: Weight::new(scale) }).collect(),
            announced_bits_per_second,
            stage: Stage::Starting,
            keyframes: 0,
            entries: Vec::new(),
        };
        let mut broken = false;
        for mut held in opening.units {
            // A break noticed on the follower is the lead's to draw.
            broken |= held.broken;
            held.broken = held.kind == lead && std::mem::take(&mut broken);
            log.push(held, writer);
        }
        log
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

    pub(crate) fn push(&mut self, held: Held, writer: &StreamWriter) {
        let Held { kind, mut unit, broken, config, .. } = held;
        let mut entries = std::mem::take(&mut self.entries);
        if kind == self.lead {
            if unit.duration == 0 {
                unit.duration = self.lead_frame;
            }
            self.keyframes += u32::from(unit.key);
            self.cutter.push_lead(unit, broken, config, &mut entries);
        } else if self.tracks.len() > 1 {
            self.cutter.push_follower(unit, &mut entries);
        }
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
                Entry::Group { lane, id, start } => self.output(lane).writer.open_group(id, start),
                Entry::Config { codec, dts } => self.output(Lane::Lead).writer.push_config(dts, &codec),
                Entry::FirstSegment { target_duration_s, keyframe_interval_s } => {
                    self.go_live(target_duration_s, keyframe_interval_s, writer);
                }
                Entry::Boundary { lane, boundary } => {
                    let output = self.output(lane);
                    output.weight.boundary(boundary.start, boundary.part == 0);
                    output.writer.push_boundary(&boundary);
                    if lane == Lane::Lead && boundary.part == 0 {
                        self.restamp(writer);
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
        let peak = bandwidth.iter().map(|track| u64::from(track.peak)).sum();
        let window_ms = window_target_durations(target_duration_s, peak) * target_duration_s * 1000;
        let live = Live { target_duration_s, window_ms, bandwidth };
        let tracks: Vec<_> = live.bandwidth.iter().map(|track| track.peak).collect();
        tracing::info!(target_duration_s, keyframe_interval_s, window_s = window_ms / 1000, bandwidth = ?tracks, "live");
        writer.go_live(live.clone());
        self.stage = Stage::Live(live);
    }

    /// Stamps the bandwidth once more, never lower, when enough has been seen.
    fn restamp(&mut self, writer: &StreamWriter) {
        let Stage::Live(live) = &mut self.stage else { return };
        if self.keyframes <= RESTAMP_KEYFRAMES {
            return;
        }
        for (stamped, track) in live.bandwidth.iter_mut().zip(&self.tracks) {
            let measured = track.weight.bandwidth();
            stamped.peak = stamped.peak.max(measured.peak);
            stamped.average = measured.average;
        }
        writer.go_live(live.clone());
        self.stage = Stage::Settled;
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
