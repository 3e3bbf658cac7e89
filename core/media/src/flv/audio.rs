//! Audio messages.

use std::borrow::Cow;

use bytes::Bytes;

use super::enhanced::{self, CODED_FRAMES, Packet, SEQUENCE_END, SEQUENCE_START, codec_name};
use super::{TagError, Tracks};

/// What an audio message brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audio {
    /// An AudioSpecificConfig or an `OpusHead`.
    SequenceHeader { codec: AudioCodec, record: Bytes },
    /// One raw AAC frame or one Opus packet, never empty.
    Frame { codec: AudioCodec, data: Bytes },
    /// Nothing to hear: an empty message, a header without a frame, both of which real encoders send, a message of a
    /// track that is not taken, or one that only describes.
    Silence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AudioCodec {
    Aac,
    Opus,
}

const FORMAT_ENHANCED: u8 = 9;
const FORMAT_AAC: u8 = 10;

/// Packet types of Enhanced RTMP beside those that video has too. Which channel is where also stands in the codec's own
/// configuration.
const MULTICHANNEL_CONFIG: u8 = 4;
const MULTITRACK: u8 = 5;

/// Format, rate and size; packet type. The rate, size and channels here are fixed words for AAC and mean
/// nothing.
const AAC_HEADER_BYTES: usize = 2;

impl Audio {
    /// # Errors
    /// [`TagError`]: a codec we do not take, or not long enough to be anything.
    pub fn parse(body: Bytes, tracks: &mut Tracks) -> Result<Self, TagError> {
        let Some(&first) = body.first() else { return Ok(Self::Silence) };
        match first >> 4 {
            FORMAT_AAC if tracks.takes(0, *b"mp4a") => Self::parse_aac(body),
            FORMAT_AAC => Ok(Self::Silence),
            FORMAT_ENHANCED => match enhanced::packet(body, MULTITRACK, tracks)? {
                Some(packet) => Self::parse_enhanced(packet),
                None => Ok(Self::Silence),
            },
            format => Err(TagError::UnsupportedAudio { codec: legacy_name(format) }),
        }
    }

    fn parse_aac(body: Bytes) -> Result<Self, TagError> {
        let Some(&kind) = body.get(1) else { return Err(TagError::Truncated { bytes: body.len() }) };
        let (codec, data) = (AudioCodec::Aac, body.slice(AAC_HEADER_BYTES..));
        match kind {
            0 => Ok(Self::SequenceHeader { codec, record: data }),
            1 => Ok(Self::frame(codec, data)),
            kind => Err(TagError::PacketType { kind }),
        }
    }

    fn parse_enhanced(packet: Packet) -> Result<Self, TagError> {
        let Packet { kind, fourcc, data } = packet;
        let codec = match &fourcc {
            b"mp4a" => AudioCodec::Aac,
            b"Opus" => AudioCodec::Opus,
            _ => {
                let codec = format!("{} audio (Enhanced RTMP)", codec_name(fourcc)).into();
                return Err(TagError::UnsupportedAudio { codec });
            }
        };
        match kind {
            SEQUENCE_START => Ok(Self::SequenceHeader { codec, record: data }),
            CODED_FRAMES => Ok(Self::frame(codec, data)),
            SEQUENCE_END | MULTICHANNEL_CONFIG => Ok(Self::Silence),
            kind => Err(TagError::PacketType { kind }),
        }
    }

    fn frame(codec: AudioCodec, data: Bytes) -> Self {
        if data.is_empty() { Self::Silence } else { Self::Frame { codec, data } }
    }
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
