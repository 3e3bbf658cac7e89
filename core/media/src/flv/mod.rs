//! FLV audio and video messages, as RTMP carries them (message types 8 and 9), in their old form (FLV 10.1, Annex E)
//! and in that of Enhanced RTMP v2.
//!
//! One message body in, one meaning out. Payloads are slices of the message: nothing is copied.

mod audio;
mod enhanced;
mod tracks;
mod video;

use std::borrow::Cow;

pub use audio::{Audio, AudioCodec};
pub use tracks::{PassedOver, Tracks};
pub use video::Video;

/// FourCCs of what we take, as a publisher reads them in the answer to its `connect`.
pub const VIDEO_FOURCCS: [&str; 3] = ["avc1", "hvc1", "av01"];
pub const AUDIO_FOURCCS: [&str; 2] = ["mp4a", "Opus"];

/// Why a message could not be taken. The broadcaster must change the encoder or its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    #[error("{codec} is not supported; send H.264, HEVC or AV1")]
    UnsupportedVideo { codec: Cow<'static, str> },
    #[error("{codec} is not supported; send AAC or Opus")]
    UnsupportedAudio { codec: Cow<'static, str> },
    /// `MPEG2TSSequenceStart`, which has no sequence header in it.
    #[error(
        "video that is configured as for MPEG-2 TS is not supported; set the encoder to MP4 or FLV headers"
    )]
    TransportStream,
    #[error("a {bytes}-byte audio or video message ends in its own header")]
    Truncated { bytes: usize },
    /// Neither a sequence header nor media: `AVCPacketType`, `AACPacketType` or their successors.
    #[error("an audio or video message has the unknown packet type {kind}")]
    PacketType { kind: u8 },
    #[error("a multitrack message is laid out in the unknown way {kind}")]
    Layout { kind: u8 },
}

#[cfg(test)]
mod tests;
