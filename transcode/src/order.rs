//! What a worker finds in a stream's record: which of its tracks one child makes, and what that child is told.

use std::ops::Range;

use media::{CodecConfig, TrackId, TrackKind};
use pipe::{AudioJob, AudioTarget, Codec, FrameRate, Job, Preset, Rung, VideoJob};
use relay::{StreamRecord, TrackRecord};

use crate::ladder::{self, CostModel, Plan, Source, Video, VideoRung};

/// With which x264 has the rungs' quality, and most machines the time for it.
pub(crate) const PRESET: Preset = Preset::Superfast;

/// For a source whose rate was never measured.
const FRAME_RATE: FrameRate = FrameRate { numerator: 30, denominator: 1 };

/// The work of one child: all pictures that are made of one track, or one sound.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) from: TrackId,
    pub(crate) kind: TrackKind,
    pub(crate) timescale: u32,
    pub(crate) frame_rate: FrameRate,
    /// Only while somebody watches, and only what is watched.
    pub(crate) on_demand: bool,
    /// By the number that a child knows them by.
    pub(crate) tracks: Vec<TrackRecord>,
}

impl Order {
    /// Those of a stream.
    pub(crate) fn all(record: &StreamRecord) -> Vec<Self> {
        let frame_rate = record.frame_rate.map_or(FRAME_RATE, ladder::fraction);
        let order = |from: &TrackRecord, tracks: &[TrackRecord]| Self {
            from: from.id,
            kind: from.codec.kind(),
            timescale: from.codec.timescale().hertz(),
            frame_rate,
            on_demand: tracks.iter().any(|track| track.derived.is_some_and(|made| made.on_demand)),
            tracks: tracks.to_vec(),
        };
        let orders = record.tracks.iter().filter(|track| track.derived.is_none()).flat_map(|from| {
            let made = |track: &&TrackRecord| {
                track.derived.is_some_and(|derived| !derived.layer && derived.from == from.id)
            };
            let tracks: Vec<_> = record.tracks.iter().filter(made).cloned().collect();
            let together = match from.codec.kind() {
                TrackKind::Video => tracks.len(),
                TrackKind::Audio => 1,
            };
            tracks.chunks(together.max(1)).map(|tracks| order(from, tracks)).collect::<Vec<_>>()
        });
        orders.collect()
    }

    /// In cores, before it is measured. `source` is the track that it is made of, `numbers` are those of the tracks that are
    /// made.
    pub(crate) fn estimate(&self, source: &TrackRecord, preset: Preset, numbers: &Range<u16>) -> f64 {
        if self.kind == TrackKind::Audio {
            return CostModel::MEASURED.audio(self.sound());
        }
        let video = Video::of(&source.codec, Some(self.frame_rate), source.reorder_delay > 0);
        let source = Source { video, audio: None };
        let rungs = self.numbered(numbers).filter_map(|(_, track)| {
            let (width, height) = track.codec.dimensions()?;
            let (width, height) = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
            let bitrate = track.derived.map_or(0, |derived| derived.bandwidth.average);
            let every = track.derived.map_or(1, |derived| derived.every);
            let frame_rate = (every > 1).then(|| self.frame_rate.divided(every));
            Some(VideoRung { name: String::new(), width, height, every, frame_rate, bitrate, preset })
        });
        Plan { video: rungs.collect(), audio: Vec::new() }.cost(&source, &CostModel::MEASURED)
    }

    /// For a child that begins with units coded like this. `numbers`: of the tracks it is to make.
    pub(crate) fn job(&self, source: Codec, preset: Preset, numbers: &Range<u16>) -> Job {
        let tracks = self.numbered(numbers);
        let kbit_s =
            |track: &TrackRecord| track.derived.map_or(0, |derived| derived.bandwidth.average / 1_000);
        if self.kind == TrackKind::Audio {
            let target = self.tracks.first();
            return Job::Audio(AudioJob {
                source,
                timescale: self.timescale,
                target: self.sound(),
                rate: target.map_or(0, |track| track.codec.timescale().hertz()),
                channels: target.and_then(|track| track.codec.channels()).unwrap_or(0),
                kbit_s: target.map_or(0, kbit_s),
            });
        }
        let rungs = tracks.map(|(number, track)| {
            let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
            let (width, height) = track.codec.dimensions().unwrap_or_default();
            let every = track.derived.map_or(1, |derived| derived.every);
            Rung { number, width: side(width), height: side(height), kbit_s: kbit_s(track), preset, every }
        });
        Job::Video(VideoJob {
            source,
            timescale: self.timescale,
            frame_rate: self.frame_rate,
            encoders: Vec::new(),
            rungs: rungs.collect(),
        })
    }

    /// Into what an order of sound turns its source.
    fn sound(&self) -> AudioTarget {
        match self.tracks.first().map(|track| &track.codec) {
            Some(CodecConfig::Opus(_)) => AudioTarget::Opus,
            _ => AudioTarget::Aac,
        }
    }

    fn numbered(&self, numbers: &Range<u16>) -> impl Iterator<Item = (u16, &TrackRecord)> {
        (0..).zip(&self.tracks).filter(|(number, _)| numbers.contains(number))
    }
}

#[cfg(test)]
mod tests {
    use media::SessionId;
    use media::codec::h264;
    use relay::{Bandwidth, Derived};

    use super::*;

    /// What the publisher sends in a smaller size itself is not to be made.
    #[test]
    fn layers_are_no_order() {
        let track = |number, name: &str, layer: Option<bool>| TrackRecord {
            id: TrackId(number),
            name: name.into(),
            codec: CodecConfig::H264(h264::Config::nominal(640, 360, 30.0, 700_000).unwrap()),
            part_target_ms: 501,
            reorder_delay: 0,
            derived: layer.map(|layer| Derived {
                from: TrackId(0),
                every: 1,
                bandwidth: Bandwidth::default(),
                on_demand: false,
                for_webrtc: layer,
                layer,
            }),
        };
        let orders = |tracks| {
            let record = StreamRecord {
                session: SessionId::from_random(1),
                epoch: 1,
                part_hold_back_ms: 1_503,
                frame_rate: Some(30.0),
                tracks,
                live: None,
            };
            let names =
                |order: Order| order.tracks.iter().map(|track| track.name.to_string()).collect::<Vec<_>>();
            Order::all(&record).into_iter().map(names).collect::<Vec<_>>()
        };
        let layered = vec![track(0, "v", None), track(1, "s360", Some(true)), track(2, "v360", Some(false))];
        assert_eq!(orders(layered), [["v360"]]);
        assert_eq!(orders(vec![track(0, "v", None), track(1, "s360", Some(true))]), [[""; 0]; 0]);
    }
}
