//! The record of a stream of access units, and its condition, as payloads. What follows the last known field comes from a
//! newer version, and is ignored.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use media::{Captions, TrackId};

use super::decode::{field, session, u32};
use super::encode::{put_codec, put_field};
use super::{Condition, KIND_CONDITION, KIND_STREAM, RENDITIONS_MAX, WireError};
use crate::frame::Frame;
use crate::record::{Bandwidth, Derived, Live, StreamRecord, TrackRecord};

const ON_DEMAND: u8 = 1 << 0;
const FOR_WEBRTC: u8 = 1 << 1;
const LAYER: u8 = 1 << 2;

pub(super) fn encode(record: &StreamRecord) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_slice(record.session.to_string().as_bytes());
    out.put_u32_le(record.epoch);
    out.put_u32_le(record.part_hold_back_ms);
    out.put_f64_le(record.frame_rate.unwrap_or(0.0));
    let live = record.live.as_ref();
    // A target duration is never zero, so zero says that there is none yet.
    out.put_u32_le(live.map_or(0, |live| live.target_duration_s));
    out.put_u32_le(live.map_or(0, |live| live.window_ms));
    out.put_u16_le(record.tracks.len() as u16);
    for (number, track) in record.tracks.iter().enumerate() {
        out.put_u16_le(track.id.0);
        out.put_u32_le(track.part_target_ms);
        out.put_u32_le(track.reorder_delay);
        let announced = live.and_then(|live| live.bandwidth.get(number).copied()).unwrap_or_default();
        put_bandwidth(&mut out, announced);
        // Nothing is derived of every zeroth picture, so zero says that it is the publisher's own.
        out.put_u8(track.derived.map_or(0, |derived| derived.every));
        out.put_u16_le(track.derived.map_or(0, |derived| derived.from.0));
        out.put_u8(track.derived.map_or(0, flags));
        put_bandwidth(&mut out, track.derived.map_or_else(Bandwidth::default, |derived| derived.bandwidth));
        put_field(&mut out, track.name.as_bytes());
        put_codec(&mut out, &track.codec);
    }
    out.freeze()
}

/// # Errors
/// [`WireError`].
pub(super) fn decode(mut payload: Bytes) -> Result<StreamRecord, WireError> {
    let malformed = || WireError::Malformed { kind: KIND_STREAM };
    let (mut record, count) = head(&mut payload).ok_or_else(malformed)?;
    // There may be none that WebRTC can show.
    if count > RENDITIONS_MAX {
        return Err(malformed());
    }
    for _ in 0..count {
        let (track, announced) = track(&mut payload).ok_or_else(malformed)??;
        if record.tracks.iter().any(|known| known.id == track.id) {
            return Err(malformed());
        }
        record.tracks.push(track);
        record.live.iter_mut().for_each(|live| live.bandwidth.push(announced));
    }
    Ok(record)
}

fn head(payload: &mut Bytes) -> Option<(StreamRecord, usize)> {
    let session = session(payload)?;
    let (epoch, part_hold_back_ms) = (u32(payload)?, u32(payload)?);
    let frame_rate = positive(payload)?;
    let (target_duration_s, window_ms) = (u32(payload)?, u32(payload)?);
    let live = (target_duration_s > 0).then_some(Live {
        target_duration_s,
        window_ms,
        bandwidth: Vec::new(),
        captions: Captions::default(),
    });
    let count = usize::from(payload.try_get_u16_le().ok()?);
    Some((StreamRecord { session, epoch, part_hold_back_ms, frame_rate, tracks: Vec::new(), live }, count))
}

/// A track, and what is announced of it.
fn track(payload: &mut Bytes) -> Option<Result<(TrackRecord, Bandwidth), WireError>> {
    let id = TrackId(payload.try_get_u16_le().ok()?);
    let (part_target_ms, reorder_delay) = (u32(payload)?, u32(payload)?);
    let announced = bandwidth(payload)?;
    let (every, from) = (payload.try_get_u8().ok()?, TrackId(payload.try_get_u16_le().ok()?));
    let (flags, bandwidth) = (payload.try_get_u8().ok()?, bandwidth(payload)?);
    let derived = (every > 0).then_some(Derived {
        from,
        every,
        bandwidth,
        on_demand: flags & ON_DEMAND != 0,
        for_webrtc: flags & FOR_WEBRTC != 0,
        layer: flags & LAYER != 0,
    });
    let name = std::str::from_utf8(&field(payload)?).ok()?.into();
    let codec = Frame::config_from(field(payload)?).map_err(WireError::Codec);
    let track = codec.map(|codec| TrackRecord { id, name, codec, part_target_ms, reorder_delay, derived });
    Some(track.map(|track| (track, announced)))
}

pub(super) fn encode_condition(condition: Condition) -> Bytes {
    let mut out = BytesMut::with_capacity(16);
    out.put_f64_le(condition.keyframe_interval_s.unwrap_or(0.0));
    out.put_i64_le(condition.interrupted_since_ms.unwrap_or(0));
    out.freeze()
}

/// # Errors
/// [`WireError`].
pub(super) fn decode_condition(mut payload: Bytes) -> Result<Condition, WireError> {
    let malformed = WireError::Malformed { kind: KIND_CONDITION };
    let keyframe_interval_s = positive(&mut payload);
    let interrupted_since_ms = payload.try_get_i64_le().ok();
    let fields = keyframe_interval_s.zip(interrupted_since_ms).ok_or(malformed)?;
    let (keyframe_interval_s, since) = fields;
    Ok(Condition { keyframe_interval_s, interrupted_since_ms: (since != 0).then_some(since) })
}

/// Of numbers that are above zero if they are known.
fn positive(payload: &mut Bytes) -> Option<Option<f64>> {
    payload.try_get_f64_le().ok().map(|number| (number.is_finite() && number > 0.0).then_some(number))
}

fn flags(derived: Derived) -> u8 {
    let flags = [(derived.on_demand, ON_DEMAND), (derived.for_webrtc, FOR_WEBRTC), (derived.layer, LAYER)];
    flags.into_iter().filter_map(|(is_set, flag)| is_set.then_some(flag)).sum()
}

fn put_bandwidth(out: &mut BytesMut, bandwidth: Bandwidth) {
    out.put_u32_le(bandwidth.peak);
    out.put_u32_le(bandwidth.average);
}

fn bandwidth(payload: &mut Bytes) -> Option<Bandwidth> {
    Some(Bandwidth { peak: u32(payload)?, average: u32(payload)? })
}
