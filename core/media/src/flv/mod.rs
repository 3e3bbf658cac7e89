//! FLV audio and video messages, as RTMP carries them (message types 8 and 9).
//!
//! One message body in, one meaning out. Payloads are slices of the message: nothing is copied.

mod audio;
mod video;

use std::borrow::Cow;

pub use audio::Audio;
pub use video::Video;

/// Why a message could not be taken. The broadcaster must change the encoder or its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    #[error("{codec} is not supported; send H.264")]
    UnsupportedVideo { codec: Cow<'static, str> },
    #[error("{codec} is not supported; send AAC")]
    UnsupportedAudio { codec: Cow<'static, str> },
    #[error("a {bytes}-byte audio or video message ends in its own header")]
    Truncated { bytes: usize },
    /// Neither a sequence header nor media: `AVCPacketType` or `AACPacketType`.
    #[error("an audio or video message has the unknown packet type {kind}")]
    PacketType { kind: u8 },
}

/// The codec an Enhanced RTMP message names in its FourCC, in words; `medium` is "video" or "audio".
fn enhanced_name(fourcc: [u8; 4], medium: &str) -> Cow<'static, str> {
    let name = match &fourcc {
        b"avc1" => "H.264",
        b"hvc1" => "HEVC",
        b"vvc1" => "VVC",
        b"av01" => "AV1",
        b"vp08" => "VP8",
        b"vp09" => "VP9",
        b"mp4a" => "AAC",
        b"Opus" => "Opus",
        b"fLaC" => "FLAC",
        b"ac-3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b".mp3" => "MP3",
        // Escaped: a stranger's bytes end up in a log line.
        other => return format!("\"{}\" {medium} (Enhanced RTMP)", other.escape_ascii()).into(),
    };
    format!("{name} {medium} (Enhanced RTMP)").into()
}

#[cfg(test)]
mod tests;
