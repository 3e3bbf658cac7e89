//! Frames into messages, from any split of the bytes.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use media::{Captions, CodecConfig, SessionId};

use super::{
    Derived, FLAG_GAP, FLAG_INDEPENDENT, FLAG_LAST_IN_SEGMENT, FLAG_LAST_OF_TRACK, FLAG_LISTED, FLAG_RESUMED,
    FRAME_BYTES_MAX, Init, KIND_CLOCK, KIND_CONDITION, KIND_INDEX, KIND_INDEX_COMPLETE, KIND_INIT, KIND_PART,
    KIND_RECORD, KIND_STREAM, KIND_TRACK_END, Live, Message, PART_RECORD_BYTES, Part, RENDITIONS_MAX, Record,
    Rendition, SMALL_FRAME_BYTES_MAX, record,
};
use crate::frame::{Frame, FrameError, HEADER_BYTES, Kind};

/// Why the bytes are no frames. The node that sent them is broken, or none of ours; the connection ends.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("a frame says it is {bytes} bytes long, less than its own header")]
    TooShort { bytes: usize },
    #[error("frame longer than allowed: {bytes} bytes of kind {kind}, at most {max}")]
    TooLong { kind: u8, bytes: usize, max: usize },
    #[error("a frame of kind {kind} is malformed")]
    Malformed { kind: u8 },
    #[error("codec configuration: {0}")]
    Codec(#[source] FrameError),
    #[error("an entry of the log: {0}")]
    Frame(#[source] FrameError),
}

/// Reassembles frames. Media is handed on in the slices it came in, and never copied.
#[derive(Debug, Default)]
pub struct Decoder {
    received: VecDeque<Bytes>,
    bytes: usize,
    /// Of an unknown frame, still to be thrown away.
    skip: usize,
    header: Option<Header>,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    payload_bytes: usize,
    kind: u8,
    flags: u8,
    track: u16,
    group: u32,
    frame: u32,
    dts: i64,
    duration: u32,
    /// As it came.
    wire: [u8; HEADER_BYTES],
}

impl Decoder {
    /// Takes what the socket brought. Poll until `None` before the next push: that keeps what is buffered below one
    /// frame and one push.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.received.push_back(bytes);
        }
    }

    /// The next message, once it is complete.
    ///
    /// # Errors
    /// [`WireError`]; nothing after it can be trusted.
    pub fn poll_message(&mut self) -> Result<Option<Message>, WireError> {
        loop {
            self.throw_away();
            if self.skip > 0 {
                return Ok(None);
            }
            let header = match self.header {
                Some(header) => header,
                None if self.bytes < HEADER_BYTES => return Ok(None),
                None => Header::parse(self.take_array())?,
            };
            if !is_known(header.kind) {
                self.skip = header.payload_bytes;
                continue;
            }
            self.header = Some(header);
            if self.bytes < header.payload_bytes {
                return Ok(None);
            }
            self.header = None;
            return self.message(header).map(Some);
        }
    }

    fn message(&mut self, header: Header) -> Result<Message, WireError> {
        let Header { kind, track, payload_bytes, .. } = header;
        if kind == KIND_PART {
            return Ok(Message::Part { track, part: self.part(header)? });
        }
        if Kind::from_number(kind).is_some() {
            return Frame::parse(self.take_frame(header)).map(Message::Frame).map_err(WireError::Frame);
        }
        let mut payload = self.take_bytes(payload_bytes);
        Ok(match kind {
            KIND_RECORD => Message::Record(parts_record(payload)?),
            KIND_STREAM => Message::Stream(Box::new(record::decode(payload)?)),
            KIND_CONDITION => Message::Condition(record::decode_condition(payload)?),
            KIND_INDEX => Message::Index { resumed: header.flags & FLAG_RESUMED != 0, epoch: header.group },
            KIND_INIT => {
                let hash = payload.try_get_u64_le().map_err(|_| WireError::Malformed { kind })?;
                Message::Init { track, init: Init { hash, bytes: payload } }
            }
            KIND_INDEX_COMPLETE => Message::IndexComplete,
            KIND_TRACK_END => Message::TrackEnd { track },
            KIND_CLOCK => Message::Clock { sent_ms: header.dts },
            _ => Message::End,
        })
    }

    fn part(&mut self, header: Header) -> Result<Part, WireError> {
        let malformed = WireError::Malformed { kind: header.kind };
        let Some(carried) = header.payload_bytes.checked_sub(PART_RECORD_BYTES) else {
            return Err(malformed);
        };
        let record: [u8; PART_RECORD_BYTES] = self.take_array();
        let mut record = record.as_slice();
        let (msn, oldest_msn) = (record.get_u64_le(), record.get_u64_le());
        let program_date_time_ms = record.get_i64_le();
        let (discontinuity_sequence, init) = (record.get_u64_le(), record.get_u64_le());
        let bytes = record.get_u32_le();
        let has = |flag: u8| header.flags & flag != 0;
        let listed = has(FLAG_LISTED);
        if carried != if listed { 0 } else { bytes as usize } {
            return Err(malformed);
        }
        Ok(Part {
            msn,
            part: header.frame,
            oldest_msn,
            duration: header.duration,
            independent: has(FLAG_INDEPENDENT),
            gap: has(FLAG_GAP),
            last_in_segment: has(FLAG_LAST_IN_SEGMENT),
            last_of_track: has(FLAG_LAST_OF_TRACK),
            program_date_time_ms,
            discontinuity_sequence,
            init,
            bytes,
            body: (!listed).then(|| self.take_slices(carried)),
        })
    }

    fn throw_away(&mut self) {
        while self.skip > 0 && self.bytes > 0 {
            let slice = self.take_slice(self.skip);
            self.skip -= slice.len();
        }
    }

    /// Up to `max` bytes of the first slice; there is one.
    fn take_slice(&mut self, max: usize) -> Bytes {
        let Some(front) = self.received.front_mut() else { return Bytes::new() };
        let taken = if front.len() > max { front.split_to(max) } else { std::mem::take(front) };
        if front.is_empty() {
            self.received.pop_front();
        }
        self.bytes -= taken.len();
        taken
    }

    /// `bytes` of what was received, which is at least as much.
    fn take_slices(&mut self, mut bytes: usize) -> Vec<Bytes> {
        let mut slices = Vec::new();
        while bytes > 0 {
            let slice = self.take_slice(bytes);
            bytes -= slice.len();
            slices.push(slice);
        }
        slices
    }

    /// In one piece; a copy only if they came in several.
    fn take_bytes(&mut self, bytes: usize) -> Bytes {
        let mut slices = self.take_slices(bytes);
        if slices.len() == 1 {
            return slices.pop().unwrap_or_default();
        }
        let mut joined = BytesMut::with_capacity(bytes);
        slices.iter().for_each(|slice| joined.extend_from_slice(slice));
        joined.freeze()
    }

    /// Header and payload in an allocation of exactly their size, as they may be kept for long; the payload was received.
    fn take_frame(&mut self, header: Header) -> Bytes {
        let mut frame = BytesMut::with_capacity(HEADER_BYTES + header.payload_bytes);
        frame.extend_from_slice(&header.wire);
        self.take_slices(header.payload_bytes).iter().for_each(|slice| frame.extend_from_slice(slice));
        frame.freeze()
    }

    /// Of what was received, which is at least as much.
    fn take_array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let mut filled = 0;
        while filled < N {
            let slice = self.take_slice(N - filled);
            array[filled..filled + slice.len()].copy_from_slice(&slice);
            filled += slice.len();
        }
        array
    }
}

impl Header {
    fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let mut rest = bytes.as_slice();
        let length = rest.get_u32_le() as usize;
        let (kind, flags, track) = (rest.get_u8(), rest.get_u8(), rest.get_u16_le());
        let (group, frame, dts) = (rest.get_u32_le(), rest.get_u32_le(), rest.get_i64_le());
        let (_composition_offset, duration) = (rest.get_i32_le(), rest.get_u32_le());
        let payload_bytes = length.checked_sub(HEADER_BYTES).ok_or(WireError::TooShort { bytes: length })?;
        // An unknown kind may be as long as anything; it is never buffered.
        let is_media = kind == KIND_PART || kind == Kind::Unit as u8;
        let max = if is_known(kind) && !is_media { SMALL_FRAME_BYTES_MAX } else { FRAME_BYTES_MAX };
        if length > max {
            return Err(WireError::TooLong { kind, bytes: length, max });
        }
        Ok(Self { payload_bytes, kind, flags, track, group, frame, dts, duration, wire: bytes })
    }
}

fn is_known(kind: u8) -> bool {
    (KIND_RECORD..=KIND_CONDITION).contains(&kind) || Kind::from_number(kind).is_some()
}

fn parts_record(mut payload: Bytes) -> Result<Record, WireError> {
    fields(&mut payload)?.ok_or(WireError::Malformed { kind: KIND_RECORD })
}

/// `Ok(None)` if it is malformed. What follows the last known field comes from a newer version, and is ignored.
fn fields(payload: &mut Bytes) -> Result<Option<Record>, WireError> {
    let head = (|| {
        let session = session(payload)?;
        let (format, part_hold_back_ms) = (u32(payload)?, u32(payload)?);
        let (target_duration_s, window_ms) = (u32(payload)?, u32(payload)?);
        let frame_rate =
            payload.try_get_f64_le().ok().map(|rate| (rate.is_finite() && rate > 0.0).then_some(rate))?;
        let captions = Captions::default();
        let live =
            (target_duration_s > 0).then_some(Live { target_duration_s, window_ms, frame_rate, captions });
        let count = usize::from(payload.try_get_u16_le().ok()?);
        Some((Record { session, format, part_hold_back_ms, renditions: Vec::new(), live }, count))
    })();
    let Some((mut record, count)) = head else { return Ok(None) };
    if count == 0 || count > RENDITIONS_MAX {
        return Ok(None);
    }
    for _ in 0..count {
        let fields = (|| {
            let part_target_ms = u32(payload)?;
            let (peak, average) = (payload.try_get_u64_le().ok()?, payload.try_get_u64_le().ok()?);
            let name = String::from_utf8(field(payload)?.to_vec()).ok()?;
            Some((part_target_ms, peak, average, name, field(payload)?))
        })();
        let Some((part_target_ms, peak, average, name, config)) = fields else { return Ok(None) };
        let codec: CodecConfig = Frame::config_from(config).map_err(WireError::Codec)?;
        record.renditions.push(Rendition { name, part_target_ms, peak, average, derived: None, codec });
    }
    for rendition in &mut record.renditions {
        let every = payload.try_get_u8().ok().filter(|every| *every > 0);
        rendition.derived = every.map(|every| Derived { every, on_demand: false });
    }
    for rendition in &mut record.renditions {
        let on_demand = payload.try_get_u8().is_ok_and(|flag| flag != 0);
        rendition.derived = rendition.derived.map(|derived| Derived { on_demand, ..derived });
    }
    let captions = Captions::from_bits(payload.try_get_u16_le().unwrap_or(0));
    record.live.iter_mut().for_each(|live| live.captions = captions);
    Ok(Some(record))
}

pub(super) fn session(payload: &mut Bytes) -> Option<SessionId> {
    /// Hexadecimal digits.
    const SESSION_BYTES: usize = 16;
    if payload.len() < SESSION_BYTES {
        return None;
    }
    std::str::from_utf8(&payload.split_to(SESSION_BYTES)).ok()?.parse().ok()
}

pub(super) fn u32(payload: &mut Bytes) -> Option<u32> {
    payload.try_get_u32_le().ok()
}

pub(super) fn field(payload: &mut Bytes) -> Option<Bytes> {
    let length = u32(payload)? as usize;
    (length <= payload.len()).then(|| payload.split_to(length))
}
