//! One entry of the log, in the very bytes that nodes exchange: a fixed 32-byte header, then the payload.
//!
//! ```text
//!  0        4      5       6       8       12      16            24          28         32
//!  | length | kind | flags | track | group | frame | dts (i64)   | pts - dts | duration | payload …
//! ```
//! Little endian; `length` counts header and payload. Times are in ticks of the track's timescale.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use media::{AccessUnit, CodecConfig, TrackId, codec};

/// Bytes before a frame's payload.
pub const HEADER_BYTES: usize = 32;

const FLAG_KEY: u8 = 1 << 0;
const FLAG_GAP: u8 = 1 << 1;

/// Bytes of a boundary record's payload.
const BOUNDARY_BYTES: usize = 28;

/// No time of an honest node is further from zero: 396 years of ticks at 90 kHz. Sums and differences of such times, and
/// their products with a timescale in 128 bits, are in range everywhere.
const TIME_MAX: i64 = 1 << 50;

/// What a frame's payload is. The numbers are the wire's; readers skip kinds they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A coded picture or audio frame.
    Unit = 1,
    /// A decoder configuration, in force from the next boundary on.
    Config = 2,
    /// A part begins here, and the one before it ends.
    Boundary = 3,
    /// The track is over; `dts` is where its last unit ends.
    End = 4,
}

/// The start of part `part` of segment `msn`, drawn by ingest's cutter and copied by everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    pub msn: u64,
    pub part: u32,
    /// Where the part begins, in ticks of the track: the DTS of its first unit, or earlier where units are
    /// missing. The part before ends here, unless the timeline broke in between.
    pub start: i64,
    /// Wall-clock time of `start`, in milliseconds since the Unix epoch.
    pub program_date_time_ms: i64,
    pub discontinuity_sequence: u64,
    /// The first unit can be decoded without any other.
    pub independent: bool,
    /// The part has no media, and lasts this many ticks if the timeline breaks behind it.
    pub gap: Option<u32>,
}

/// One entry of the log. Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    kind: Kind,
    flags: u8,
    track: TrackId,
    group: u32,
    frame: u32,
    dts: i64,
    composition_offset: i32,
    duration: u32,
    wire: Bytes,
}

/// Why a payload is not what its frame's kind promises. The node that sent it is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a {kind:?} frame was read as something else")]
    Kind { kind: Kind },
    #[error("a {kind:?} payload of {bytes} bytes is malformed")]
    Payload { kind: Kind, bytes: usize },
    #[error("{0}")]
    Config(#[from] codec::ConfigError),
    #[error("a frame of {bytes} bytes has no header, or one that says something else")]
    Header { bytes: usize },
    #[error("a frame of {dts} ticks is of another age")]
    Time { dts: i64 },
}

/// Where a frame stands in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) track: TrackId,
    pub(crate) group: u32,
    pub(crate) frame: u32,
}

impl Kind {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::Unit, Self::Config, Self::Boundary, Self::End].into_iter().find(|kind| *kind as u8 == number)
    }
}

impl Frame {
    /// Copies the unit's data once, into an allocation of exactly its size: a frame lives as long as the parts made
    /// of it, minutes, and must not pin the larger block it was received in.
    pub(crate) fn unit(place: Place, unit: &AccessUnit) -> Self {
        let offset = i32::try_from(unit.pts - unit.dts).unwrap_or(0);
        let flags = if unit.key { FLAG_KEY } else { 0 };
        Self::build(Kind::Unit, flags, place, unit.dts, offset, unit.duration, &unit.data)
    }

    pub(crate) fn config(place: Place, dts: i64, codec: &CodecConfig) -> Self {
        let (sample_entry, record) = codec.record();
        let payload = [sample_entry.as_slice(), record].concat();
        Self::build(Kind::Config, 0, place, dts, 0, 0, &payload)
    }

    pub(crate) fn boundary(place: Place, boundary: &Boundary) -> Self {
        let mut payload = [0; BOUNDARY_BYTES];
        let mut rest = payload.as_mut_slice();
        rest.put_u64_le(boundary.msn);
        rest.put_u32_le(boundary.part);
        rest.put_i64_le(boundary.program_date_time_ms);
        rest.put_u64_le(boundary.discontinuity_sequence);
        let key = if boundary.independent { FLAG_KEY } else { 0 };
        let gap = if boundary.gap.is_some() { FLAG_GAP } else { 0 };
        let duration = boundary.gap.unwrap_or(0);
        Self::build(Kind::Boundary, key | gap, place, boundary.start, 0, duration, &payload)
    }

    pub(crate) fn end(place: Place, end: i64) -> Self {
        Self::build(Kind::End, 0, place, end, 0, 0, &[])
    }

    fn build(
        kind: Kind,
        flags: u8,
        place: Place,
        dts: i64,
        composition_offset: i32,
        duration: u32,
        payload: &[u8],
    ) -> Self {
        let mut wire = BytesMut::with_capacity(HEADER_BYTES + payload.len());
        wire.put_u32_le((HEADER_BYTES + payload.len()) as u32);
        wire.put_u8(kind as u8);
        wire.put_u8(flags);
        wire.put_u16_le(place.track.0);
        wire.put_u32_le(place.group);
        wire.put_u32_le(place.frame);
        wire.put_i64_le(dts);
        wire.put_i32_le(composition_offset);
        wire.put_u32_le(duration);
        wire.put_slice(payload);
        Self {
            kind,
            flags,
            track: place.track,
            group: place.group,
            frame: place.frame,
            dts,
            composition_offset,
            duration,
            wire: wire.freeze(),
        }
    }

    /// Header and payload, as another node wrote them. `wire` holds nothing else.
    ///
    /// # Errors
    /// [`FrameError`] unless it is a frame of the log whose payload can be read.
    pub(crate) fn parse(wire: Bytes) -> Result<Self, FrameError> {
        let bytes = wire.len();
        let header = wire.get(..HEADER_BYTES).ok_or(FrameError::Header { bytes })?;
        let mut rest = header;
        let length = rest.get_u32_le() as usize;
        let kind = Kind::from_number(rest.get_u8()).filter(|_| length == bytes);
        let kind = kind.ok_or(FrameError::Header { bytes })?;
        let (flags, track) = (rest.get_u8(), TrackId(rest.get_u16_le()));
        let (group, frame) = (rest.get_u32_le(), rest.get_u32_le());
        let (dts, composition_offset, duration) = (rest.get_i64_le(), rest.get_i32_le(), rest.get_u32_le());
        // There is one behind each.
        if frame == u32::MAX {
            return Err(FrameError::Header { bytes });
        }
        if !(-TIME_MAX..=TIME_MAX).contains(&dts) {
            return Err(FrameError::Time { dts });
        }
        let parsed = Self { kind, flags, track, group, frame, dts, composition_offset, duration, wire };
        match kind {
            Kind::Unit => {}
            Kind::Config => drop(parsed.to_config()?),
            Kind::Boundary => drop(parsed.to_boundary()?),
            Kind::End if bytes == HEADER_BYTES => {}
            Kind::End => return Err(FrameError::Payload { kind, bytes: bytes - HEADER_BYTES }),
        }
        Ok(parsed)
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn track(&self) -> TrackId {
        self.track
    }

    pub fn group(&self) -> u32 {
        self.group
    }

    pub fn index(&self) -> u32 {
        self.frame
    }

    pub fn dts(&self) -> i64 {
        self.dts
    }

    /// Where its unit or gap ends; of others where they are.
    pub(crate) fn ends_at(&self) -> i64 {
        let lasts = matches!(self.kind, Kind::Unit | Kind::Boundary);
        self.dts + if lasts { i64::from(self.duration) } else { 0 }
    }

    /// Decoding can start at this unit.
    pub fn is_key_unit(&self) -> bool {
        self.kind == Kind::Unit && self.flags & FLAG_KEY != 0
    }

    /// Header and payload, as they go to another node.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// # Errors
    /// [`FrameError::Kind`] unless this is a unit.
    pub fn to_unit(&self) -> Result<AccessUnit, FrameError> {
        self.expect(Kind::Unit)?;
        Ok(AccessUnit {
            dts: self.dts,
            pts: self.dts + i64::from(self.composition_offset),
            duration: self.duration,
            key: self.is_key_unit(),
            data: self.wire.slice(HEADER_BYTES..),
        })
    }

    /// # Errors
    /// [`FrameError`] unless this is a well-formed boundary record.
    pub fn to_boundary(&self) -> Result<Boundary, FrameError> {
        self.expect(Kind::Boundary)?;
        let payload = self.payload();
        let record: &[u8; BOUNDARY_BYTES] =
            payload.try_into().map_err(|_| FrameError::Payload { kind: self.kind, bytes: payload.len() })?;
        let mut rest = record.as_slice();
        Ok(Boundary {
            msn: rest.get_u64_le(),
            part: rest.get_u32_le(),
            start: self.dts,
            program_date_time_ms: rest.get_i64_le(),
            discontinuity_sequence: rest.get_u64_le(),
            independent: self.flags & FLAG_KEY != 0,
            gap: (self.flags & FLAG_GAP != 0).then_some(self.duration),
        })
    }

    /// # Errors
    /// [`FrameError`] unless this is a configuration we can parse.
    pub fn to_config(&self) -> Result<CodecConfig, FrameError> {
        self.expect(Kind::Config)?;
        Self::config_from(self.wire.slice(HEADER_BYTES..))
    }

    /// Reads the payload of a configuration, which stream records on the wire hold too.
    pub(crate) fn config_from(record: Bytes) -> Result<CodecConfig, FrameError> {
        match record.get(..4) {
            Some(sample_entry) => Ok(CodecConfig::from_record(sample_entry, record.slice(4..))?),
            None => Err(FrameError::Payload { kind: Kind::Config, bytes: record.len() }),
        }
    }

    fn payload(&self) -> &[u8] {
        &self.wire[HEADER_BYTES..]
    }

    fn expect(&self, kind: Kind) -> Result<(), FrameError> {
        if self.kind == kind { Ok(()) } else { Err(FrameError::Kind { kind: self.kind }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { track: TrackId(1), group: 7, frame: 3 };

    #[test]
    fn a_unit_survives_the_log_and_its_header_is_the_documented_one() {
        let unit =
            AccessUnit { dts: -5, pts: 85, duration: 3000, key: true, data: Bytes::from_static(b"nal") };
        let frame = Frame::unit(PLACE, &unit);
        assert_eq!(frame.to_unit(), Ok(unit));
        let wire = frame.wire();
        assert_eq!(wire[..4], 35_u32.to_le_bytes());
        assert_eq!(wire[4..8], [1, 1, 1, 0]);
        assert_eq!(wire[8..12], 7_u32.to_le_bytes());
        assert_eq!(wire[12..16], 3_u32.to_le_bytes());
        assert_eq!(wire[16..24], (-5_i64).to_le_bytes());
        assert_eq!(wire[24..28], 90_i32.to_le_bytes());
        assert_eq!(wire[28..32], 3000_u32.to_le_bytes());
        assert_eq!(&wire[32..], b"nal");
    }

    #[test]
    fn what_another_node_wrote_is_read_back_and_what_cannot_be_is_refused() {
        let unit = AccessUnit { dts: 9, pts: 9, duration: 3, key: true, data: Bytes::from_static(b"nal") };
        let boundary = Boundary {
            msn: 1,
            part: 2,
            start: 9,
            program_date_time_ms: 7,
            discontinuity_sequence: 0,
            independent: true,
            gap: None,
        };
        let frames = [Frame::unit(PLACE, &unit), Frame::boundary(PLACE, &boundary), Frame::end(PLACE, 12)];
        for frame in frames {
            assert_eq!(Frame::parse(frame.wire().clone()).as_ref(), Ok(&frame));
            // One byte more or less is another frame's, and of no payload but a unit's own that much.
            let short = frame.wire().slice(..frame.wire().len() - 1);
            assert!(matches!(Frame::parse(short), Err(FrameError::Header { .. })));
        }
        let late = Frame::end(PLACE, TIME_MAX + 1);
        assert_eq!(Frame::parse(late.wire().clone()), Err(FrameError::Time { dts: TIME_MAX + 1 }));
        let mut long = BytesMut::from(&Frame::end(PLACE, 12).wire()[..]);
        long.put_u8(0);
        long[0] += 1;
        assert!(matches!(Frame::parse(long.freeze()), Err(FrameError::Payload { .. })));
    }

    #[test]
    fn a_boundary_survives_the_log() {
        let boundary = Boundary {
            msn: u64::MAX - 1,
            part: 4,
            start: 180_000,
            program_date_time_ms: 1_800_000_000_123,
            discontinuity_sequence: 2,
            independent: true,
            gap: Some(45_000),
        };
        assert_eq!(Frame::boundary(PLACE, &boundary).to_boundary(), Ok(boundary));
        assert!(Frame::end(PLACE, 1).to_boundary().is_err());
    }
}
