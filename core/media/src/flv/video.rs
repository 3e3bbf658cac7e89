//! Video messages.

use std::borrow::Cow;

use bytes::Bytes;

use super::enhanced::{self, CODED_FRAMES, Packet, SEQUENCE_END, SEQUENCE_START, codec_name};
use super::{TagError, Tracks};
use crate::codec::VideoCodec;

/// What a video message brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Video {
    /// An `avcC`, `hvcC` or `av1C`.
    SequenceHeader {
        codec: VideoCodec,
        record: Bytes,
    },
    /// One access unit, never empty: length-prefixed NAL units, or the OBUs of a temporal unit. The message's own
    /// keyframe flag is not told: encoders set it on pictures that are none, so the bitstream is asked.
    Unit {
        codec: VideoCodec,
        composition_offset_ms: i32,
        data: Bytes,
    },
    EndOfSequence,
    /// Nothing to show: an empty message, one of a track that is not taken, metadata, or one of frame type 5, which
    /// servers send each other around a seek.
    Info,
}

/// Bit 7 of the first byte: what follows is a FourCC (Enhanced RTMP).
const ENHANCED: u8 = 0x80;
const FRAME_TYPE_INFO: u8 = 5;

const CODEC_AVC: u8 = 7;
/// Never standardised, but sent by encoders from before Enhanced RTMP, in AVC's layout.
const CODEC_HEVC: u8 = 12;

/// Packet types of Enhanced RTMP beside those that audio has too.
const CODED_FRAMES_X: u8 = 3;
const METADATA: u8 = 4;
const MPEG2_TS_SEQUENCE_START: u8 = 5;
const MULTITRACK: u8 = 6;

/// Frame and codec, packet type, composition offset.
const AVC_HEADER_BYTES: usize = 5;
const OFFSET_BYTES: usize = 3;

impl Video {
    /// # Errors
    /// [`TagError`]: a codec we do not take, or not long enough to be anything.
    pub fn parse(body: Bytes, tracks: &mut Tracks) -> Result<Self, TagError> {
        let Some(&first) = body.first() else { return Ok(Self::Info) };
        if first >> 4 & 0x07 == FRAME_TYPE_INFO {
            return Ok(Self::Info);
        }
        if first & ENHANCED != 0 {
            return match enhanced::packet(body, MULTITRACK, tracks)? {
                Some(packet) => Self::parse_enhanced(packet),
                None => Ok(Self::Info),
            };
        }
        let (codec, fourcc) = match first & 0x0F {
            CODEC_AVC => (VideoCodec::H264, *b"avc1"),
            CODEC_HEVC => (VideoCodec::H265, *b"hvc1"),
            codec => return Err(TagError::UnsupportedVideo { codec: legacy_name(codec) }),
        };
        if tracks.takes(0, fourcc) { Self::parse_avc(codec, body) } else { Ok(Self::Info) }
    }

    fn parse_avc(codec: VideoCodec, body: Bytes) -> Result<Self, TagError> {
        let truncated = TagError::Truncated { bytes: body.len() };
        let Some(&kind) = body.get(1) else { return Err(truncated) };
        // Some encoders leave out the offset, which means nothing here.
        if kind == 2 {
            return Ok(Self::EndOfSequence);
        }
        let Some(&[_, _, high, middle, low]) = body.first_chunk::<AVC_HEADER_BYTES>() else {
            return Err(truncated);
        };
        let data = body.slice(AVC_HEADER_BYTES..);
        match kind {
            0 => Ok(Self::SequenceHeader { codec, record: data }),
            1 => Ok(Self::unit(codec, offset_ms([high, middle, low]), data)),
            kind => Err(TagError::PacketType { kind }),
        }
    }

    fn parse_enhanced(packet: Packet) -> Result<Self, TagError> {
        let Packet { kind, fourcc, data } = packet;
        let codec = match &fourcc {
            b"avc1" => VideoCodec::H264,
            b"hvc1" => VideoCodec::H265,
            b"av01" => VideoCodec::Av1,
            _ => {
                let codec = format!("{} video (Enhanced RTMP)", codec_name(fourcc)).into();
                return Err(TagError::UnsupportedVideo { codec });
            }
        };
        match kind {
            SEQUENCE_START => Ok(Self::SequenceHeader { codec, record: data }),
            // AV1 has no offsets: a temporal unit is shown when it is decoded.
            CODED_FRAMES if codec != VideoCodec::Av1 => {
                let &offset =
                    data.first_chunk::<OFFSET_BYTES>().ok_or(TagError::Truncated { bytes: data.len() })?;
                Ok(Self::unit(codec, offset_ms(offset), data.slice(OFFSET_BYTES..)))
            }
            CODED_FRAMES | CODED_FRAMES_X => Ok(Self::unit(codec, 0, data)),
            SEQUENCE_END => Ok(Self::EndOfSequence),
            METADATA => Ok(Self::Info),
            MPEG2_TS_SEQUENCE_START => Err(TagError::TransportStream),
            kind => Err(TagError::PacketType { kind }),
        }
    }

    fn unit(codec: VideoCodec, composition_offset_ms: i32, data: Bytes) -> Self {
        if data.is_empty() { Self::Info } else { Self::Unit { codec, composition_offset_ms, data } }
    }
}

/// SI24: shifted up and back down, so that the sign comes along.
fn offset_ms([high, middle, low]: [u8; OFFSET_BYTES]) -> i32 {
    i32::from_be_bytes([high, middle, low, 0]) >> 8
}

fn legacy_name(codec: u8) -> Cow<'static, str> {
    let name = match codec {
        2 => "H.263 video",
        3 => "Screen video",
        4 => "VP6 video",
        5 => "VP6 video with alpha",
        6 => "Screen video 2",
        // Never standardised either.
        13 => "AV1 video (codec 13)",
        other => return format!("video codec {other}").into(),
    };
    name.into()
}
