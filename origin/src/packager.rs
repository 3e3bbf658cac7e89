//! Log entries in, CMAF parts out. Pure, and deterministic: the same entries make the same bytes on any node.

use std::sync::Arc;

use bytes::Bytes;
use hls::{Part, SegmentStart};
use media::AccessUnit;
use media::cmaf::{self, Init, Sample};
use relay::{Boundary, Frame, FrameError, Kind, TrackRecord};

/// Packages one track.
pub struct Packager {
    reorder_delay: u32,
    init: Arc<Init>,
    /// In force from the next boundary on.
    init_next: Option<Arc<Init>>,
    open: Option<Open>,
}

/// The part whose units are still coming.
struct Open {
    boundary: Boundary,
    init: Arc<Init>,
    units: Vec<AccessUnit>,
}

impl Packager {
    pub fn new(track: &TrackRecord) -> Self {
        let init = Arc::new(cmaf::init_segment(&track.codec));
        Self { reorder_delay: track.reorder_delay, init, init_next: None, open: None }
    }

    /// Takes the next entry of the log. Returns the part that it completes.
    ///
    /// # Errors
    /// [`FrameError`] for an entry that is not what its kind says; the log is broken.
    pub fn push(&mut self, frame: &Frame) -> Result<Option<Part>, FrameError> {
        let delay = self.reorder_delay;
        match frame.kind() {
            Kind::Unit => {
                if let Some(open) = &mut self.open {
                    open.units.push(frame.to_unit()?);
                }
                Ok(None)
            }
            Kind::Config => {
                self.init_next = Some(Arc::new(cmaf::init_segment(&frame.to_config()?)));
                Ok(None)
            }
            Kind::Boundary => {
                let boundary = frame.to_boundary()?;
                if let Some(init) = self.init_next.take() {
                    self.init = init;
                }
                let units = Vec::with_capacity(self.open.as_ref().map_or(0, |open| open.units.len()));
                let next = Open { boundary, init: self.init.clone(), units };
                Ok(self.open.replace(next).map(|open| open.close(Some(&boundary), boundary.start, delay)))
            }
            Kind::End => Ok(self.open.take().map(|open| open.close(None, frame.dts(), delay))),
        }
    }
}

impl Open {
    /// `next` begins where this part ends, at `end`, unless the timeline breaks between them.
    fn close(self, next: Option<&Boundary>, end: i64, reorder_delay: u32) -> Part {
        let Self { boundary, init, units } = self;
        let broken = next.is_some_and(|next| next.discontinuity_sequence != boundary.discontinuity_sequence);
        let gap = units.is_empty();
        let end = match units.last() {
            Some(last) if broken => last.dts + i64::from(last.duration),
            None if broken => end.min(boundary.start + i64::from(boundary.gap.unwrap_or(0))),
            _ => end,
        };
        Part {
            msn: boundary.msn,
            part: boundary.part,
            duration: span(boundary.start, end),
            independent: boundary.independent && !gap,
            gap,
            last: next.is_none_or(|next| next.msn != boundary.msn),
            body: if gap { Vec::new() } else { body(&boundary, units, end, reorder_delay) },
            segment: SegmentStart {
                program_date_time_ms: boundary.program_date_time_ms,
                discontinuity_sequence: boundary.discontinuity_sequence,
                init,
            },
        }
    }
}

/// `moof`, `mdat` header, and the units' own bytes, untouched.
fn body(boundary: &Boundary, units: Vec<AccessUnit>, end: i64, reorder_delay: u32) -> Vec<Bytes> {
    let delay = i64::from(reorder_delay);
    let ends = units.iter().skip(1).map(|unit| unit.dts).chain([end]);
    let samples: Vec<_> = units
        .iter()
        .zip(ends)
        .map(|(unit, end)| Sample {
            bytes: unit.data.len() as u32,
            duration: span(unit.dts, end),
            composition_offset: (unit.pts - unit.dts + delay) as i32,
            key: unit.key,
        })
        .collect();
    let start = units.first().map_or(boundary.start, |unit| unit.dts);
    let decode_time = u64::try_from(start - delay).unwrap_or(0);
    let header = cmaf::fragment_header(sequence(boundary), decode_time, &samples);
    let mut body = Vec::with_capacity(1 + units.len());
    body.push(header);
    body.extend(units.into_iter().map(|unit| unit.data));
    body
}

/// `mfhd` numbers must rise; these do, and every node computes the same.
fn sequence(boundary: &Boundary) -> u32 {
    (boundary.msn as u32).wrapping_shl(8) | boundary.part.min(0xFF)
}

fn span(start: i64, end: i64) -> u32 {
    u32::try_from(end - start).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use media::codec::aac;
    use media::{CodecConfig, SessionId, StreamId, TrackId};
    use mp4_atom::{Decode, Moof};
    use relay::{StreamRecord, StreamRegistry, StreamWriter, Track, TrackWriter};

    use super::*;

    /// AAC-LC, stereo, 48 kHz and 44.1 kHz.
    const ASC_48: &[u8] = &[0x11, 0x90];
    const ASC_44: &[u8] = &[0x12, 0x10];

    fn codec(asc: &'static [u8]) -> CodecConfig {
        CodecConfig::Aac(aac::Config::parse(Bytes::from_static(asc)).unwrap())
    }

    /// A log of one audio track with frames of 1024 ticks.
    struct Log {
        writer: TrackWriter,
        track: Arc<Track>,
        _stream: StreamWriter,
    }

    impl Log {
        fn new() -> Self {
            let registry = StreamRegistry::default();
            let id = StreamId::new("live", "cam").unwrap();
            let mut stream = registry.open(id.clone(), SessionId::from_random(7)).unwrap();
            let track = TrackRecord {
                id: TrackId(0),
                name: "a".into(),
                codec: codec(ASC_48),
                part_target_ms: 512,
                reorder_delay: 0,
                derived: None,
            };
            let mut writers = stream.open(StreamRecord {
                session: SessionId::from_random(7),
                epoch: 1,
                part_hold_back_ms: 1536,
                frame_rate: None,
                tracks: vec![track],
                live: None,
            });
            let mut writer = writers.remove(0);
            writer.open_group(0, 0);
            let track = registry.get(&id).unwrap().tracks()[0].clone();
            Self { writer, track, _stream: stream }
        }

        fn boundary(&mut self, msn: u64, part: u32, start: i64, discontinuity_sequence: u64) -> &mut Self {
            self.writer.push_boundary(&Boundary {
                msn,
                part,
                start,
                program_date_time_ms: 1_800_000_000_000 + start / 48,
                discontinuity_sequence,
                independent: true,
                gap: None,
            });
            self
        }

        fn gap(&mut self, msn: u64, part: u32, start: i64, ticks: u32) -> &mut Self {
            self.writer.push_boundary(&Boundary {
                msn,
                part,
                start,
                program_date_time_ms: 0,
                discontinuity_sequence: 0,
                independent: false,
                gap: Some(ticks),
            });
            self
        }

        fn units(&mut self, starts: &[i64]) -> &mut Self {
            for &dts in starts {
                let data = Bytes::from(vec![dts as u8; 10]);
                self.writer.push_unit(&AccessUnit { dts, pts: dts, duration: 1024, key: true, data });
            }
            self
        }

        /// The log ends, and is packaged from its beginning.
        fn package(self) -> Vec<Part> {
            let record = self.track.record().clone();
            self.package_as(&record)
        }

        fn package_as(self, record: &TrackRecord) -> Vec<Part> {
            let Self { writer, track, _stream } = self;
            drop(writer);
            let mut packager = Packager::new(record);
            let (mut cursor, mut frames) = (track.oldest(), Vec::new());
            while track.read(&mut cursor, false, &mut frames) != relay::Read::Ended {}
            frames.iter().filter_map(|frame| packager.push(frame).unwrap()).collect()
        }
    }

    fn summary(part: &Part) -> (u64, u32, u32, bool, bool) {
        (part.msn, part.part, part.duration, part.gap, part.last)
    }

    fn moof(part: &Part) -> Moof {
        let body = part.body.iter().fold(BytesMut::new(), |mut all, slice| {
            all.extend_from_slice(slice);
            all
        });
        Moof::decode(&mut body.as_ref()).unwrap()
    }

    #[test]
    fn a_part_ends_where_the_next_begins_and_its_last_unit_lasts_until_then() {
        let mut log = Log::new();
        log.boundary(0, 0, 0, 0)
            .units(&[0, 1024])
            .boundary(0, 1, 2100, 0)
            .units(&[2100])
            .boundary(1, 0, 3124, 0);
        log.units(&[3124]);
        let parts = log.package();
        assert_eq!(
            parts.iter().map(summary).collect::<Vec<_>>(),
            [(0, 0, 2100, false, false), (0, 1, 1024, false, true), (1, 0, 1024, false, true),]
        );
        let first = moof(&parts[0]);
        let track = &first.traf[0];
        assert_eq!(track.tfdt.as_ref().unwrap().base_media_decode_time, 0);
        let durations: Vec<_> = track.trun[0].samples.iter().map(|sample| sample.duration).collect();
        assert_eq!(durations, [Some(1024), Some(1076)]);
        let next = moof(&parts[1]);
        assert_eq!(next.traf[0].tfdt.as_ref().unwrap().base_media_decode_time, 2100);
        assert!(next.mfhd.sequence_number > first.mfhd.sequence_number);
    }

    /// libavformat delays every picture by the largest negative composition offset it meets; so there are none.
    #[test]
    fn reordered_pictures_have_no_negative_offset_and_keep_their_presentation_time() {
        let mut log = Log::new();
        let mut track = log.track.record().clone();
        track.reorder_delay = 2048;
        log.boundary(0, 0, 10_240, 0);
        for (dts, pts) in [(10_240, 10_240), (11_264, 13_312), (12_288, 11_264), (13_312, 12_288)] {
            let data = Bytes::from_static(b"picture");
            log.writer.push_unit(&AccessUnit { dts, pts, duration: 1024, key: dts == pts, data });
        }
        let parts = log.package_as(&track);
        let moof = moof(&parts[0]);
        let start = moof.traf[0].tfdt.as_ref().unwrap().base_media_decode_time;
        let offsets = moof.traf[0].trun[0].samples.iter().map(|sample| sample.cts.unwrap());
        let shown: Vec<_> = offsets.clone().zip(0..).map(|(cts, n)| start as i64 + n * 1024 + cts).collect();
        assert!(offsets.min().unwrap() >= 0);
        assert_eq!(shown, [10_240, 13_312, 11_264, 12_288]);
        assert_eq!(parts[0].duration, 4096);
    }

    #[test]
    fn a_part_before_a_break_ends_with_its_own_last_unit() {
        let mut log = Log::new();
        log.boundary(0, 0, 0, 0).units(&[0, 1024]).boundary(1, 0, 90_000, 1).units(&[90_000]);
        let parts = log.package();
        assert_eq!(summary(&parts[0]), (0, 0, 2048, false, true));
        assert_eq!(parts[1].segment.discontinuity_sequence, 1);
    }

    #[test]
    fn a_part_without_units_is_a_gap_with_a_length_and_no_bytes() {
        let mut log = Log::new();
        log.boundary(0, 0, 0, 0).units(&[0]).gap(0, 1, 1024, 999).boundary(0, 2, 3072, 0).units(&[3072]);
        log.gap(0, 3, 4096, 500).boundary(1, 0, 90_000, 1).units(&[90_000]);
        let parts = log.package();
        assert_eq!(summary(&parts[1]), (0, 1, 2048, true, false));
        assert_eq!(
            summary(&parts[3]),
            (0, 3, 500, true, true),
            "nobody knows where a gap before a break ends"
        );
        assert!(parts[1].body.is_empty() && !parts[1].independent);
    }

    #[test]
    fn another_configuration_takes_effect_at_the_next_boundary() {
        let mut log = Log::new();
        log.boundary(0, 0, 0, 0).units(&[0]);
        log.writer.push_config(1024, &codec(ASC_44));
        log.boundary(1, 0, 1024, 1).units(&[1024]);
        let parts = log.package();
        assert_ne!(parts[0].segment.init.hash, parts[1].segment.init.hash);
    }

    /// An edge or a standby that packages the same log serves the same bytes, from the frames' own memory.
    #[test]
    fn the_same_log_makes_the_same_bytes_and_copies_none_of_them() {
        let bodies = || {
            let mut log = Log::new();
            log.boundary(0, 0, 0, 0).units(&[0, 1024, 2048]).boundary(0, 1, 3072, 0).units(&[3072]);
            log.package().into_iter().map(|part| part.body).collect::<Vec<_>>()
        };
        assert_eq!(bodies(), bodies());
        let mut log = Log::new();
        log.boundary(0, 0, 0, 0).units(&[0]);
        let (mut cursor, mut frames) = (log.track.oldest(), Vec::new());
        log.track.read(&mut cursor, false, &mut frames);
        let in_the_ring = frames.iter().find_map(|frame| frame.to_unit().ok()).unwrap().data;
        let parts = log.package();
        assert_eq!(parts[0].body[1].as_ptr(), in_the_ring.as_ptr());
    }
}
