//! Audio messages: FLV 10.1, §E.4.2, and Enhanced RTMP v2.

use std::borrow::Cow;

use bytes::Bytes;

use super::{TagError, enhanced_name};

/// What an audio message brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audio {
    /// An AudioSpecificConfig.
    SequenceHeader(Bytes),
    /// One raw AAC frame, never empty.
    Frame(Bytes),
    /// Nothing to hear: an empty message, or a header without a frame. Real encoders send both.
    Silence,
}

const FORMAT_ENHANCED: u8 = 9;
const FORMAT_AAC: u8 = 10;

/// Enhanced RTMP packet types whose first byte is not followed by a FourCC.
const ENHANCED_MULTITRACK: u8 = 5;
const ENHANCED_MODIFIERS: u8 = 7;

/// Format, rate and size; packet type. The rate, size and channels here are fixed words for AAC and mean
/// nothing.
const AAC_HEADER_BYTES: usize = 2;

impl Audio {
    /// # Errors
    /// [`TagError`]: not AAC, or not long enough to be anything.
    pub fn parse(body: Bytes) -> Result<Self, TagError> {
        let Some(&first) = body.first() else { return Ok(Self::Silence) };
        match first >> 4 {
            FORMAT_AAC => Self::parse_aac(body),
            FORMAT_ENHANCED => Err(refuse_enhanced(&body)),
            format => Err(TagError::UnsupportedAudio { codec: legacy_name(format) }),
        }
    }

    fn parse_aac(body: Bytes) -> Result<Self, TagError> {
        let Some(&kind) = body.get(1) else { return Err(TagError::Truncated { bytes: body.len() }) };
        let data = body.slice(AAC_HEADER_BYTES..);
        match kind {
            0 => Ok(Self::SequenceHeader(data)),
            1 if data.is_empty() => Ok(Self::Silence),
            1 => Ok(Self::Frame(data)),
            kind => Err(TagError::PacketType { kind }),
        }
    }
}

fn refuse_enhanced(body: &Bytes) -> TagError {
    let Some(&[first, ref fourcc @ ..]) = body.first_chunk::<5>() else {
        return TagError::Truncated { bytes: body.len() };
    };
    let codec = match first & 0x0F {
        ENHANCED_MULTITRACK => Cow::Borrowed("multitrack audio (Enhanced RTMP)"),
        ENHANCED_MODIFIERS => Cow::Borrowed("audio with packet modifiers (Enhanced RTMP)"),
        _ => enhanced_name(*fourcc, "audio"),
    };
    TagError::UnsupportedAudio { codec }
}

fn legacy_name(format: u8) -> Cow<'static, str> {
    let name = match format {
        0 | 3 => "PCM audio",
        1 => "ADPCM audio",
        2 | 14 => "MP3 audio",
        4..=6 => "Nellymoser audio",
        7 | 8 => "G.711 audio",
        11 => "Speex audio",
        // Never standardised, but sent by encoders from before Enhanced RTMP.
        13 => "Opus audio (format 13)",
        other => return format!("audio format {other}").into(),
    };
    name.into()
}
