//! Messages into frames.

use bytes::{BufMut, Bytes, BytesMut};
use media::{Captions, CodecConfig, TrackId};

use super::{
    FLAG_GAP, FLAG_INDEPENDENT, FLAG_LAST_IN_SEGMENT, FLAG_LAST_OF_TRACK, FLAG_LISTED, FLAG_RESUMED,
    FRAME_BYTES_MAX, Init, KIND_CLOCK, KIND_CONDITION, KIND_END, KIND_INDEX, KIND_INDEX_COMPLETE, KIND_INIT,
    KIND_PART, KIND_RECORD, KIND_STREAM, KIND_TRACK_END, Live, Message, PART_RECORD_BYTES, Part, Record,
    Slices, record,
};
use crate::frame::{self, Frame, HEADER_BYTES};

/// The header's fields that any of these kinds uses.
#[derive(Default)]
struct Header {
    flags: u8,
    track: u16,
    /// Low half of a part's MSN, for whoever looks at the bytes, the record has all of it; an index's epoch.
    group: u32,
    frame: u32,
    dts: i64,
    duration: u32,
}

impl Message {
    /// The frame, in the slices that were given.
    pub fn encode(self) -> Slices {
        match self {
            Self::Record(record) => small(KIND_RECORD, Header::default(), &payload(&record)),
            Self::Index { resumed, epoch } => {
                let flags = if resumed { FLAG_RESUMED } else { 0 };
                // Earlier releases neither write nor read the place of it.
                small(KIND_INDEX, Header { flags, group: epoch, ..Header::default() }, &[])
            }
            Self::Init { track, init: Init { hash, bytes } } => {
                let mut payload = BytesMut::with_capacity(8 + bytes.len());
                payload.put_u64_le(hash);
                payload.put_slice(&bytes);
                small(KIND_INIT, Header { track, ..Header::default() }, &payload)
            }
            Self::Part { track, part } => encode_part(track, part),
            Self::IndexComplete => small(KIND_INDEX_COMPLETE, Header::default(), &[]),
            Self::TrackEnd { track } => small(KIND_TRACK_END, Header { track, ..Header::default() }, &[]),
            Self::Clock { sent_ms } => small(KIND_CLOCK, Header { dts: sent_ms, ..Header::default() }, &[]),
            Self::End => small(KIND_END, Header::default(), &[]),
            Self::Stream(stream) => small(KIND_STREAM, Header::default(), &record::encode(&stream)),
            Self::Condition(condition) => {
                let payload = record::encode_condition(condition);
                small(KIND_CONDITION, Header::default(), &payload)
            }
            Self::Frame(frame) => frame.wire().clone().into(),
        }
    }
}

fn small(kind: u8, header: Header, payload: &[u8]) -> Slices {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + payload.len());
    put_header(&mut frame, kind, header, payload.len());
    frame.put_slice(payload);
    frame.freeze().into()
}

fn put_header(out: &mut BytesMut, kind: u8, header: Header, payload_bytes: usize) {
    out.put_u32_le((HEADER_BYTES + payload_bytes) as u32);
    out.put_u8(kind);
    out.put_u8(header.flags);
    out.put_u16_le(header.track);
    out.put_u32_le(header.group);
    out.put_u32_le(header.frame);
    out.put_i64_le(header.dts);
    out.put_i32_le(0); // pts - dts
    out.put_u32_le(header.duration);
}

fn encode_part(track: u16, part: Part) -> Slices {
    // What would not fit into a frame is fetched by URL.
    let body =
        part.body.filter(|_| PART_RECORD_BYTES + part.bytes as usize <= FRAME_BYTES_MAX - HEADER_BYTES);
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let flags = flag(part.independent, FLAG_INDEPENDENT)
        | flag(part.gap, FLAG_GAP)
        | flag(part.last_in_segment, FLAG_LAST_IN_SEGMENT)
        | flag(part.last_of_track, FLAG_LAST_OF_TRACK)
        | flag(body.is_none(), FLAG_LISTED);
    let header = Header {
        flags,
        track,
        group: part.msn as u32,
        frame: part.part,
        duration: part.duration,
        ..Header::default()
    };
    let carried = if body.is_some() { part.bytes as usize } else { 0 };
    let mut head = BytesMut::with_capacity(HEADER_BYTES + PART_RECORD_BYTES);
    put_header(&mut head, KIND_PART, header, PART_RECORD_BYTES + carried);
    head.put_u64_le(part.msn);
    head.put_u64_le(part.oldest_msn);
    head.put_i64_le(part.program_date_time_ms);
    head.put_u64_le(part.discontinuity_sequence);
    head.put_u64_le(part.init);
    head.put_u32_le(part.bytes);
    let mut frame = Slices::from(head.freeze());
    body.into_iter().flatten().for_each(|slice| frame.push(slice));
    frame
}

fn payload(record: &Record) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(record.session.to_string().as_bytes());
    out.put_u32_le(record.format);
    out.put_u32_le(record.part_hold_back_ms);
    // A target duration is never zero, so zero says that there is none yet.
    let none = Live { target_duration_s: 0, window_ms: 0, frame_rate: None, captions: Captions::default() };
    let live = record.live.unwrap_or(none);
    out.put_u32_le(live.target_duration_s);
    out.put_u32_le(live.window_ms);
    out.put_f64_le(live.frame_rate.unwrap_or(0.0));
    out.put_u16_le(record.renditions.len() as u16);
    for rendition in &record.renditions {
        out.put_u32_le(rendition.part_target_ms);
        out.put_u64_le(rendition.peak);
        out.put_u64_le(rendition.average);
        put_field(&mut out, rendition.name.as_bytes());
        put_codec(&mut out, &rendition.codec);
    }
    let derived = record.renditions.iter().map(|rendition| rendition.derived);
    derived.clone().for_each(|derived| out.put_u8(derived.map_or(0, |derived| derived.every)));
    derived.for_each(|derived| out.put_u8(derived.is_some_and(|derived| derived.on_demand).into()));
    // Nothing follows where there are none, so that what was recorded of this version holds. A field that is added behind them
    // has to write them always, as another version.
    if !live.captions.is_empty() {
        out.put_u16_le(live.captions.to_bits());
    }
    out.freeze()
}

/// As in the log, so that a codec is taught to one place.
pub(super) fn put_codec(out: &mut BytesMut, codec: &CodecConfig) {
    let place = frame::Place { track: TrackId(0), group: 0, frame: 0 };
    let config = Frame::config(place, 0, codec);
    put_field(out, &config.wire()[HEADER_BYTES..]);
}

pub(super) fn put_field(out: &mut BytesMut, field: &[u8]) {
    out.put_u32_le(field.len() as u32);
    out.put_slice(field);
}
