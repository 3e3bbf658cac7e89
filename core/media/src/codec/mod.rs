//! Codec configurations: what a decoder must know before the first access unit, and what playlists say of it.

pub mod aac;
mod bits;
pub mod h264;

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

impl CodecConfig {
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
