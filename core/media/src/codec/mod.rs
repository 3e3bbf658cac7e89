//! Codec configurations: what a decoder must know before the first access unit, and what playlists say of it.

pub mod aac;
mod bits;
pub mod h264;

use bytes::Bytes;

use crate::time::Timescale;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackKind {
    Video,
    Audio,
}

/// The decoder configuration of one track, parsed and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodecConfig {
    H264(h264::Config),
    Aac(aac::Config),
}

/// Why a kept or received configuration is none. Whoever wrote it is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("H.264 configuration: {0}")]
    H264(#[from] h264::ConfigError),
    #[error("AAC configuration: {0}")]
    Aac(#[from] aac::ConfigError),
    #[error("a configuration of an unknown kind")]
    Unknown,
}

impl CodecConfig {
    /// What [`CodecConfig::from_record`] reads again: the name of the sample entry (ISO/IEC 14496-12, §8.5.2), and
    /// the decoder's own record, byte for byte.
    pub fn record(&self) -> (&'static [u8; 4], &Bytes) {
        match self {
            Self::H264(config) => (b"avc1", config.avcc()),
            Self::Aac(config) => (b"mp4a", config.asc()),
        }
    }

    /// # Errors
    /// [`ConfigError`]: not a record that [`CodecConfig::record`] could have given.
    pub fn from_record(sample_entry: &[u8], record: Bytes) -> Result<Self, ConfigError> {
        match sample_entry {
            b"avc1" => Ok(Self::H264(h264::Config::parse(record)?)),
            b"mp4a" => Ok(Self::Aac(aac::Config::parse(record)?)),
            _ => Err(ConfigError::Unknown),
        }
    }

    pub fn kind(&self) -> TrackKind {
        match self {
            Self::H264(_) => TrackKind::Video,
            Self::Aac(_) => TrackKind::Audio,
        }
    }

    /// Value of the `CODECS` attribute, RFC 6381.
    pub fn rfc6381(&self) -> String {
        match self {
            Self::H264(config) => config.rfc6381(),
            Self::Aac(config) => config.rfc6381(),
        }
    }

    /// The clock this track's times are written in.
    pub fn timescale(&self) -> Timescale {
        match self {
            Self::H264(_) => Timescale::VIDEO,
            Self::Aac(config) => config.timescale(),
        }
    }
}
