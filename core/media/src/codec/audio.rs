//! What ingest asks of an audio configuration, whatever the codec.

use bytes::Bytes;

use super::{CodecConfig, aac, opus};
use crate::flv::AudioCodec;
use crate::time::Timescale;

/// The decoder configuration of an audio track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioConfig {
    Aac(aac::Config),
    Opus(opus::Config),
}

impl AudioConfig {
    /// # Errors
    /// [`AudioConfigError`]: the publisher's encoder must change.
    pub fn parse(codec: AudioCodec, record: Bytes) -> Result<Self, AudioConfigError> {
        Ok(match codec {
            AudioCodec::Aac => Self::Aac(aac::Config::parse(record)?),
            AudioCodec::Opus => Self::Opus(opus::Config::parse(record)?),
        })
    }

    pub fn codec(&self) -> AudioCodec {
        match self {
            Self::Aac(_) => AudioCodec::Aac,
            Self::Opus(_) => AudioCodec::Opus,
        }
    }

    /// The clock of this track.
    pub fn timescale(&self) -> Timescale {
        match self {
            Self::Aac(config) => config.timescale(),
            Self::Opus(config) => config.timescale(),
        }
    }

    pub fn channels(&self) -> u8 {
        match self {
            Self::Aac(config) => config.channels(),
            Self::Opus(config) => config.channels(),
        }
    }

    /// How long `frame` lasts, in ticks of the timescale. `None` if it is damaged: no decoder could read it.
    pub fn samples(&self, frame: &[u8]) -> Option<u32> {
        match self {
            Self::Aac(config) => Some(config.samples_per_frame()),
            Self::Opus(_) => opus::samples(frame),
        }
    }
}

impl From<AudioConfig> for CodecConfig {
    fn from(config: AudioConfig) -> Self {
        match config {
            AudioConfig::Aac(config) => Self::Aac(config),
            AudioConfig::Opus(config) => Self::Opus(config),
        }
    }
}

/// Why an audio configuration was refused. The publisher's encoder must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AudioConfigError {
    #[error("AAC configuration: {0}")]
    Aac(#[from] aac::ConfigError),
    #[error("Opus configuration: {0}")]
    Opus(#[from] opus::ConfigError),
}
