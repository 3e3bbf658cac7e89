//! One layer of the publisher's picture (simulcast) in the log: a track that the cutter does not see.
//!
//! Its groups begin at its own keyframes, and its boundary records are those of the lead, each written before the first
//! unit behind it: whoever reads it learns what time it is, and nobody cuts it.

use media::{AccessUnit, CodecConfig, MediaTime, Timescale};
use relay::{Bandwidth, Boundary, GROUP_BYTES_MAX, TrackWriter};

use crate::meter::Weight;

/// A group without a keyframe is closed after this span, as the lead's.
const GROUP_TICKS_MAX: i64 = 12 * Timescale::VIDEO.hertz() as i64;

pub(super) struct Layer {
    writer: TrackWriter,
    weight: Weight,
    /// `None` before the first keyframe.
    group: Option<Group>,
    /// The lead's newest boundary, until a unit behind it comes.
    boundary: Option<Boundary>,
    newest: i64,
}

struct Group {
    id: u32,
    start: i64,
    bytes: usize,
}

impl Layer {
    pub(super) fn new(writer: TrackWriter) -> Self {
        let weight = Weight::new(Timescale::VIDEO);
        Self { writer, weight, group: None, boundary: None, newest: i64::MIN }
    }

    pub(super) fn bandwidth(&self) -> Bandwidth {
        self.weight.bandwidth()
    }

    /// Of its picture, as it was when the session began.
    pub(super) fn pixels(&self) -> u64 {
        let dimensions = self.writer.record().codec.dimensions();
        dimensions.map_or(0, |(width, height)| u64::from(width) * u64::from(height))
    }

    /// A boundary of the lead. Where that has a gap, the layer just has no units either.
    pub(super) fn boundary(&mut self, boundary: &Boundary) {
        if boundary.gap.is_none() {
            self.boundary = Some(*boundary);
        }
    }

    /// A unit with its decoder configuration, if that is another one than before. `group`: the lead's, whose numbers this one's follow.
    /// Units up to the first keyframe, and such as step back in time, are left out.
    pub(super) fn push(&mut self, unit: &AccessUnit, config: Option<&CodecConfig>, group: u32) {
        if unit.dts <= self.newest || self.group.is_none() && !unit.key {
            return;
        }
        let is_full =
            |group: &Group| group.bytes >= GROUP_BYTES_MAX || unit.dts - group.start >= GROUP_TICKS_MAX;
        if unit.key || self.group.as_ref().is_none_or(is_full) {
            let id = self.group.as_ref().map_or(group, |last| group.max(last.id + 1));
            self.group = Some(Group { id, start: unit.dts, bytes: 0 });
            self.writer.open_group(id, unit.dts);
        }
        if let Some(config) = config {
            self.writer.push_config(unit.dts, config);
        }
        if let Some(boundary) = self.boundary.take_if(|boundary| boundary.start <= unit.dts) {
            let later = MediaTime::new(unit.dts - boundary.start, Timescale::VIDEO).millis();
            let program_date_time_ms = boundary.program_date_time_ms + later;
            let here = Boundary { start: unit.dts, program_date_time_ms, independent: unit.key, ..boundary };
            self.weight.boundary(here.start, here.part == 0);
            self.writer.push_boundary(&here);
        }
        self.newest = unit.dts;
        if let Some(group) = &mut self.group {
            group.bytes += unit.data.len();
        }
        self.weight.unit(unit);
        self.writer.push_unit(unit);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use media::{SessionId, StreamId, TrackId};
    use relay::{Derived, Kind, StreamRecord, StreamRegistry, Track, TrackRecord};

    use super::*;
    use crate::testing::avcc;

    fn layer() -> (Layer, Arc<Track>) {
        let registry = StreamRegistry::default();
        let id = StreamId::new("live", "cam").unwrap();
        let mut stream = registry.open(id.clone(), SessionId::from_random(1)).unwrap();
        let own = TrackRecord {
            id: TrackId(0),
            name: "v".into(),
            codec: CodecConfig::H264(avcc()),
            part_target_ms: 501,
            reorder_delay: 0,
            derived: None,
        };
        let derived = Derived {
            from: TrackId(0),
            every: 1,
            bandwidth: Bandwidth::default(),
            on_demand: false,
            for_webrtc: true,
            layer: true,
        };
        let record = StreamRecord {
            session: SessionId::from_random(1),
            epoch: 1,
            part_hold_back_ms: 1_503,
            frame_rate: Some(25.0),
            tracks: vec![
                own.clone(),
                TrackRecord { id: TrackId(1), name: "s360".into(), derived: Some(derived), ..own },
            ],
            live: None,
        };
        let writer = stream.open(record).pop().unwrap();
        (Layer::new(writer), registry.get(&id).unwrap().tracks()[1].clone())
    }

    fn unit(dts: i64, key: bool) -> AccessUnit {
        AccessUnit { dts, pts: dts, duration: 3_600, key, data: Bytes::from_static(&[0; 100]) }
    }

    fn boundary(part: u32, start: i64) -> Boundary {
        Boundary {
            msn: 3,
            part,
            start,
            program_date_time_ms: 1_000_000 + start / 90,
            discontinuity_sequence: 0,
            independent: part == 0,
            gap: None,
        }
    }

    #[test]
    fn its_groups_are_its_own_and_it_is_told_what_time_it_is() {
        let (mut layer, track) = layer();
        layer.push(&unit(0, false), None, 7);
        layer.boundary(&boundary(0, 3_600));
        layer.push(&unit(3_500, true), None, 7);
        // The lead's keyframe comes a moment later than its own.
        layer.push(&unit(7_200, false), None, 8);
        layer.push(&unit(7_200, false), None, 8);
        layer.boundary(&Boundary { gap: Some(45_000), ..boundary(1, 9_000) });
        layer.push(&unit(180_000, true), None, 8);
        layer.push(&unit(180_000 + GROUP_TICKS_MAX, false), None, 8);
        let (mut cursor, mut frames) = (track.oldest(), Vec::new());
        while track.read(&mut cursor, false, &mut frames) == relay::Read::Frames {}
        let told: Vec<_> = frames.iter().map(|frame| (frame.kind(), frame.group(), frame.dts())).collect();
        assert_eq!(
            told,
            [
                (Kind::Unit, 7, 3_500),
                (Kind::Boundary, 7, 7_200),
                (Kind::Unit, 7, 7_200),
                (Kind::Unit, 8, 180_000),
                (Kind::Unit, 9, 180_000 + GROUP_TICKS_MAX),
            ]
        );
        let told = frames[1].to_boundary().unwrap();
        assert_eq!((told.start, told.program_date_time_ms, told.independent), (7_200, 1_000_080, false));
    }
}
