//! Codec configurations: what a decoder must know before the first access unit, and what playlists say of it.

pub mod aac;
mod audio;
pub mod av1;
mod bits;
pub mod captions;
pub mod h264;
pub mod h265;
mod nal;
pub mod opus;
mod picture;
#[cfg(test)]
pub(crate) mod testing;
mod video;
pub mod vp8;
pub mod vp9;
mod vpx;

use bytes::Bytes;

use crate::flv::AudioCodec;
use crate::time::Timescale;
pub use audio::{AudioConfig, AudioConfigError};
pub use bits::without_emulation_prevention;
pub use picture::{Chroma, Colour, PICTURE_SIDE, PixelAspect};
pub use video::{Access, VideoCodec, VideoConfig, VideoConfigError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackKind {
    Video,
    Audio,
}

/// The decoder configuration of one track, parsed and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodecConfig {
    H264(h264::Config),
    H265(h265::Config),
    Av1(av1::Config),
    Vp8(vp8::Config),
    Vp9(vp9::Config),
    Aac(aac::Config),
    Opus(opus::Config),
}

/// Why a kept or received configuration is none. Whoever wrote it is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Video(#[from] VideoConfigError),
    #[error(transparent)]
    Audio(#[from] AudioConfigError),
    #[error("a configuration of an unknown kind")]
    Unknown,
}

impl CodecConfig {
    /// What [`CodecConfig::from_record`] reads again: the name of the sample entry (ISO/IEC 14496-12, §8.5.2), and
    /// the decoder's own record, byte for byte; of VP8 and VP9, which have none with all that is asked of it, one of ours.
    pub fn record(&self) -> (&'static [u8; 4], &Bytes) {
        match self {
            Self::H264(config) => (b"avc1", config.avcc()),
            Self::H265(config) => (b"hvc1", config.hvcc()),
            Self::Av1(config) => (b"av01", config.av1c()),
            Self::Vp8(config) => (b"vp08", config.record()),
            Self::Vp9(config) => (b"vp09", config.record()),
            Self::Aac(config) => (b"mp4a", config.asc()),
            Self::Opus(config) => (b"Opus", config.head()),
        }
    }

    /// # Errors
    /// [`ConfigError`]: not a record that [`CodecConfig::record`] could have given.
    pub fn from_record(sample_entry: &[u8], record: Bytes) -> Result<Self, ConfigError> {
        match sample_entry {
            b"avc1" => Ok(VideoConfig::parse(VideoCodec::H264, record)?.into()),
            b"hvc1" => Ok(VideoConfig::parse(VideoCodec::H265, record)?.into()),
            b"av01" => Ok(VideoConfig::parse(VideoCodec::Av1, record)?.into()),
            b"vp08" => Ok(VideoConfig::parse(VideoCodec::Vp8, record)?.into()),
            b"vp09" => Ok(VideoConfig::parse(VideoCodec::Vp9, record)?.into()),
            b"mp4a" => Ok(AudioConfig::parse(AudioCodec::Aac, record)?.into()),
            b"Opus" => Ok(AudioConfig::parse(AudioCodec::Opus, record)?.into()),
            _ => Err(ConfigError::Unknown),
        }
    }

    pub fn kind(&self) -> TrackKind {
        match self {
            Self::H264(_) | Self::H265(_) | Self::Av1(_) | Self::Vp8(_) | Self::Vp9(_) => TrackKind::Video,
            Self::Aac(_) | Self::Opus(_) => TrackKind::Audio,
        }
    }

    /// Value of the `CODECS` attribute, RFC 6381.
    pub fn rfc6381(&self) -> String {
        match self {
            Self::H264(config) => config.rfc6381(),
            Self::H265(config) => config.rfc6381(),
            Self::Av1(config) => config.rfc6381(),
            Self::Vp8(config) => config.rfc6381(),
            Self::Vp9(config) => config.rfc6381(),
            Self::Aac(config) => config.rfc6381(),
            Self::Opus(config) => config.rfc6381(),
        }
    }

    /// The clock this track's times are written in.
    pub fn timescale(&self) -> Timescale {
        match self {
            Self::H264(_) | Self::H265(_) | Self::Av1(_) | Self::Vp8(_) | Self::Vp9(_) => Timescale::VIDEO,
            Self::Aac(config) => config.timescale(),
            Self::Opus(config) => config.timescale(),
        }
    }

    /// Displayed width and height of video, in pixels, before the pixel aspect ratio.
    pub fn dimensions(&self) -> Option<(u32, u32)> {
        match self {
            Self::H264(config) => Some((config.width(), config.height())),
            Self::H265(config) => Some((config.width(), config.height())),
            Self::Av1(config) => Some((config.width(), config.height())),
            Self::Vp8(config) => Some((config.width(), config.height())),
            Self::Vp9(config) => Some((config.width(), config.height())),
            Self::Aac(_) | Self::Opus(_) => None,
        }
    }

    /// The messages with captions in `unit`. Only of codecs that have them in SEI messages.
    pub fn captions(&self, unit: &[u8]) -> Vec<Vec<u8>> {
        match self {
            Self::H264(config) => captions::in_h264(unit, config.nal_length_bytes()),
            Self::H265(config) => captions::in_h265(unit, config.nal_length_bytes()),
            Self::Av1(_) | Self::Vp8(_) | Self::Vp9(_) | Self::Aac(_) | Self::Opus(_) => Vec::new(),
        }
    }

    /// What the numbers of video's pixels mean, if the encoder says.
    pub fn colour(&self) -> Option<Colour> {
        match self {
            Self::H264(config) => config.colour(),
            Self::H265(config) => config.colour(),
            Self::Av1(config) => config.colour(),
            Self::Vp8(config) => config.colour(),
            Self::Vp9(config) => config.colour(),
            Self::Aac(_) | Self::Opus(_) => None,
        }
    }

    /// What comes out of a decoder of audio.
    pub fn channels(&self) -> Option<u8> {
        match self {
            Self::Aac(config) => Some(config.channels()),
            Self::Opus(config) => Some(config.channels()),
            Self::H264(_) | Self::H265(_) | Self::Av1(_) | Self::Vp8(_) | Self::Vp9(_) => None,
        }
    }

    /// What comes out of a decoder of audio, in hertz.
    pub fn sample_rate(&self) -> Option<u32> {
        match self {
            Self::Aac(config) => Some(config.output_rate()),
            Self::Opus(config) => Some(config.timescale().hertz()),
            Self::H264(_) | Self::H265(_) | Self::Av1(_) | Self::Vp8(_) | Self::Vp9(_) => None,
        }
    }
}
