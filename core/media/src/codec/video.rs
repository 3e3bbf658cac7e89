//! What ingest asks of a video configuration, whatever the codec.

use bytes::Bytes;

use super::{Chroma, CodecConfig, av1, h264, h265, vp8, vp9};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VideoCodec {
    H264,
    H265,
    Av1,
    Vp8,
    Vp9,
}

/// The decoder configuration of a video track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoConfig {
    H264(h264::Config),
    H265(h265::Config),
    Av1(av1::Config),
    Vp8(vp8::Config),
    Vp9(vp9::Config),
}

/// Where decoding can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing after it, in either order, needs anything before it: an IDR, and its like.
    Key,
    /// Pictures that follow it, but are shown before it, may need what was before. Good enough to begin a stream with,
    /// not to begin a segment.
    OpenGop,
    None,
}

impl VideoConfig {
    /// # Errors
    /// [`VideoConfigError`]: the publisher's encoder must change.
    pub fn parse(codec: VideoCodec, record: Bytes) -> Result<Self, VideoConfigError> {
        Ok(match codec {
            VideoCodec::H264 => Self::H264(h264::Config::parse(record)?),
            VideoCodec::H265 => Self::H265(h265::Config::parse(record)?),
            VideoCodec::Av1 => Self::Av1(av1::Config::parse(record)?),
            VideoCodec::Vp8 => Self::Vp8(vp8::Config::parse(&record).map_err(VideoConfigError::Vp8)?),
            VideoCodec::Vp9 => Self::Vp9(vp9::Config::parse(&record).map_err(VideoConfigError::Vp9)?),
        })
    }

    pub fn codec(&self) -> VideoCodec {
        match self {
            Self::H264(_) => VideoCodec::H264,
            Self::H265(_) => VideoCodec::H265,
            Self::Av1(_) => VideoCodec::Av1,
            Self::Vp8(_) => VideoCodec::Vp8,
            Self::Vp9(_) => VideoCodec::Vp9,
        }
    }

    /// Frames per second the encoder announces, if they are between 1 and 300. A hint.
    pub fn frame_rate(&self) -> Option<f64> {
        match self {
            Self::H264(config) => config.frame_rate(),
            Self::H265(config) => config.frame_rate(),
            Self::Av1(config) => config.frame_rate(),
            Self::Vp8(_) | Self::Vp9(_) => None,
        }
    }

    /// Displayed width and height in pixels.
    pub fn dimensions(&self) -> (u32, u32) {
        match self {
            Self::H264(config) => (config.width(), config.height()),
            Self::H265(config) => (config.width(), config.height()),
            Self::Av1(config) => (config.width(), config.height()),
            Self::Vp8(config) => (config.width(), config.height()),
            Self::Vp9(config) => (config.width(), config.height()),
        }
    }

    pub fn chroma(&self) -> Chroma {
        match self {
            Self::H264(config) => config.chroma(),
            Self::H265(config) => config.chroma(),
            Self::Av1(config) => config.chroma(),
            Self::Vp8(_) => Chroma::Yuv420,
            Self::Vp9(config) => config.chroma(),
        }
    }

    /// Bits per sample, of luma or chroma, whichever has more.
    pub fn bit_depth(&self) -> u8 {
        match self {
            Self::H264(config) => config.bit_depth(),
            Self::H265(config) => config.bit_depth(),
            Self::Av1(config) => config.bit_depth(),
            Self::Vp8(_) => 8,
            Self::Vp9(config) => config.bit_depth(),
        }
    }

    /// Whether decoding can start at `unit`. `None` if it is damaged: no decoder could read it.
    pub fn access(&self, unit: &[u8]) -> Option<Access> {
        let key = match self {
            Self::H264(config) => config.is_idr(unit).ok()?,
            Self::H265(config) => return config.access(unit).ok(),
            Self::Av1(config) => config.is_key(unit).ok()?,
            Self::Vp8(_) => vp8::is_key(unit).ok()?,
            Self::Vp9(_) => vp9::is_key(unit).ok()?,
        };
        Some(if key { Access::Key } else { Access::None })
    }

    /// `unit` as an MP4 sample holds it.
    pub fn sample(&self, unit: Bytes) -> Bytes {
        match self {
            Self::H264(_) | Self::H265(_) | Self::Vp8(_) | Self::Vp9(_) => unit,
            Self::Av1(_) => av1::Config::without_delimiters(unit),
        }
    }
}

impl From<VideoConfig> for CodecConfig {
    fn from(config: VideoConfig) -> Self {
        match config {
            VideoConfig::H264(config) => Self::H264(config),
            VideoConfig::H265(config) => Self::H265(config),
            VideoConfig::Av1(config) => Self::Av1(config),
            VideoConfig::Vp8(config) => Self::Vp8(config),
            VideoConfig::Vp9(config) => Self::Vp9(config),
        }
    }
}

/// Why a video configuration was refused. The publisher's encoder must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VideoConfigError {
    #[error("H.264 configuration: {0}")]
    H264(#[from] h264::ConfigError),
    #[error("HEVC configuration: {0}")]
    H265(#[from] h265::ConfigError),
    #[error("AV1 configuration: {0}")]
    Av1(#[from] av1::ConfigError),
    #[error("VP8: {0}")]
    Vp8(vp8::ConfigError),
    #[error("VP9: {0}")]
    Vp9(vp9::ConfigError),
}
