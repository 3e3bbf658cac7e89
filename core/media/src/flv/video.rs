//! Video messages: FLV 10.1, §E.4.3, and Enhanced RTMP v2.

use std::borrow::Cow;

use bytes::Bytes;

use super::{TagError, enhanced_name};

/// What a video message brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Video {
    /// An `avcC`.
    SequenceHeader(Bytes),
    /// One access unit of length-prefixed NAL units, never empty. The message's own keyframe flag is not told:
    /// encoders set it on pictures that are none, so the bitstream is asked.
    Unit {
        composition_offset_ms: i32,
        data: Bytes,
    },
    EndOfSequence,
    /// Nothing to show: an empty message, or one of frame type 5, which servers send each other around a seek.
    Info,
}

/// Bit 7 of the first byte: what follows is a FourCC (Enhanced RTMP).
const ENHANCED: u8 = 0x80;
const FRAME_TYPE_INFO: u8 = 5;
const CODEC_AVC: u8 = 7;

/// Enhanced RTMP packet types whose first byte is not followed by a FourCC.
const ENHANCED_MULTITRACK: u8 = 6;
const ENHANCED_MODIFIERS: u8 = 7;

/// Frame and codec, packet type, composition offset.
const AVC_HEADER_BYTES: usize = 5;

impl Video {
    /// # Errors
    /// [`TagError`]: not H.264, or not long enough to be anything.
    pub fn parse(body: Bytes) -> Result<Self, TagError> {
        let Some(&first) = body.first() else { return Ok(Self::Info) };
        if first >> 4 & 0x07 == FRAME_TYPE_INFO {
            return Ok(Self::Info);
        }
        if first & ENHANCED != 0 {
            return Err(refuse_enhanced(&body));
        }
        match first & 0x0F {
            CODEC_AVC => Self::parse_avc(body),
            codec => Err(TagError::UnsupportedVideo { codec: legacy_name(codec) }),
        }
    }

    fn parse_avc(body: Bytes) -> Result<Self, TagError> {
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
            0 => Ok(Self::SequenceHeader(data)),
            1 if data.is_empty() => Ok(Self::Info),
            1 => {
                // SI24: shifted up and back down, so that the sign comes along.
                let composition_offset_ms = i32::from_be_bytes([high, middle, low, 0]) >> 8;
                Ok(Self::Unit { composition_offset_ms, data })
            }
            kind => Err(TagError::PacketType { kind }),
        }
    }
}

fn refuse_enhanced(body: &Bytes) -> TagError {
    let Some(&[first, ref fourcc @ ..]) = body.first_chunk::<5>() else {
        return TagError::Truncated { bytes: body.len() };
    };
    let codec = match first & 0x0F {
        ENHANCED_MULTITRACK => Cow::Borrowed("multitrack video (Enhanced RTMP)"),
        ENHANCED_MODIFIERS => Cow::Borrowed("video with packet modifiers (Enhanced RTMP)"),
        _ => enhanced_name(*fourcc, "video"),
    };
    TagError::UnsupportedVideo { codec }
}

fn legacy_name(codec: u8) -> Cow<'static, str> {
    let name = match codec {
        2 => "H.263 video",
        3 => "Screen video",
        4 => "VP6 video",
        5 => "VP6 video with alpha",
        6 => "Screen video 2",
        // Never standardised, but sent by encoders from before Enhanced RTMP.
        12 => "HEVC video (codec 12)",
        13 => "AV1 video (codec 13)",
        other => return format!("video codec {other}").into(),
    };
    name.into()
}
