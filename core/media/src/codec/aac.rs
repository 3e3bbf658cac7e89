//! AAC: the AudioSpecificConfig (ISO/IEC 14496-3, §1.6.2.1).
//!
//! The configuration is kept byte for byte for the init segment. HE-AAC is AAC-LC at half the rate plus
//! instructions for the upper half (SBR) and, in its second version, for stereo (PS): frames are counted, and
//! this track's clock runs, at the rate of the AAC-LC core.

use bytes::Bytes;

use super::bits::{BitReader, BitsError};
use crate::time::Timescale;

/// Longest configuration we keep, in bytes. Real ones have 2 to 5; with a program config element and its
/// comment about 300.
pub const ASC_BYTES_MAX: usize = 512;

/// Sample rates AAC is defined for, in hertz (table 1.18).
const SAMPLE_RATE: std::ops::RangeInclusive<u32> = 7_350..=96_000;
const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];
const SAMPLE_RATE_EXPLICIT: u32 = 15;

/// Audio object types, table 1.17.
const OBJECT_LC: u8 = 2;
const OBJECT_SBR: u8 = 5;
const OBJECT_PS: u8 = 29;
const OBJECT_ESCAPE: u8 = 31;

/// `syncExtensionType` before SBR and PS that are appended for decoders that know them (§1.6.2.1).
const SYNC_SBR: u32 = 0x2B7;
const SYNC_PS: u32 = 0x548;

/// A parsed and checked AudioSpecificConfig: AAC-LC, HE-AAC or HE-AAC v2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    asc: Bytes,
    profile: Profile,
    core_rate: Timescale,
    output_rate: u32,
    channels: u8,
    samples_per_frame: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    Lc,
    He,
    HeV2,
}

impl Config {
    /// # Errors
    /// [`ConfigError`]: the publisher's encoder wrote something MPEG-4 does not allow, or that players do not
    /// play.
    pub fn parse(asc: Bytes) -> Result<Self, ConfigError> {
        if asc.len() > ASC_BYTES_MAX {
            return Err(ConfigError::TooLong { bytes: asc.len() });
        }
        let mut reader = BitReader::new(&asc);
        let reader = &mut reader;

        let mut object = object_type(reader)?;
        let core_rate = sample_rate(reader)?;
        let layout = reader.bits(4)?;
        let mut extension = Extension::default();
        if object == OBJECT_SBR || object == OBJECT_PS {
            extension =
                Extension { output_rate: Some(sample_rate(reader)?), parametric_stereo: object == OBJECT_PS };
            object = object_type(reader)?;
        }
        if object != OBJECT_LC {
            return Err(ConfigError::Unsupported { object_type: object });
        }

        // GASpecificConfig, §4.4.1.
        let samples_per_frame = if reader.bit()? { 960 } else { 1024 };
        if reader.bit()? {
            reader.skip(14)?; // coreCoderDelay
        }
        let extension_flag = reader.bit()?;
        let core_channels = match layout {
            0 => program_config_channels(reader)?,
            layout => layout_channels(layout)?,
        };
        if extension_flag {
            reader.skip(1)?; // extensionFlag3
        }
        if extension.output_rate.is_none() {
            extension = appended_extension(reader)?;
        }

        let Extension { output_rate, parametric_stereo } = extension;
        Ok(Self {
            profile: match (output_rate, parametric_stereo) {
                (None, _) => Profile::Lc,
                (Some(_), false) => Profile::He,
                (Some(_), true) => Profile::HeV2,
            },
            core_rate: Timescale::from_hertz(core_rate)
                .ok_or(ConfigError::SampleRate { hertz: core_rate })?,
            output_rate: output_rate.unwrap_or(core_rate),
            channels: if parametric_stereo && core_channels == 1 { 2 } else { core_channels },
            samples_per_frame,
            asc,
        })
    }

    /// The configuration as the publisher sent it.
    pub fn asc(&self) -> &Bytes {
        &self.asc
    }

    /// Of the AAC-LC core, in hertz; [`Self::samples_per_frame`] counts in it.
    pub fn sample_rate(&self) -> u32 {
        self.core_rate.hertz()
    }

    /// What comes out of a decoder, in hertz: twice the core's rate with HE-AAC, if the publisher says so.
    pub fn output_rate(&self) -> u32 {
        self.output_rate
    }

    /// What comes out of a decoder: two with HE-AAC v2, whose core is mono.
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// 1024, or 960 in broadcast profiles; of the core.
    pub fn samples_per_frame(&self) -> u32 {
        self.samples_per_frame
    }

    /// The clock of this track: the core's sample rate.
    pub fn timescale(&self) -> Timescale {
        self.core_rate
    }

    /// `mp4a.40.2`, `.5` or `.29` (RFC 6381, §3.3: object type indication 0x40, then the audio object type).
    pub fn rfc6381(&self) -> String {
        let object = match self.profile {
            Profile::Lc => OBJECT_LC,
            Profile::He => OBJECT_SBR,
            Profile::HeV2 => OBJECT_PS,
        };
        format!("mp4a.40.{object}")
    }
}

/// What SBR and PS make of the core.
#[derive(Default)]
struct Extension {
    /// Present with SBR.
    output_rate: Option<u32>,
    parametric_stereo: bool,
}

/// SBR and PS announced behind the configuration, where an AAC-LC decoder does not look.
fn appended_extension(reader: &mut BitReader<'_>) -> Result<Extension, ConfigError> {
    let mut extension = Extension::default();
    // Shorter rests are padding (§1.6.2.1).
    if reader.remaining() < 16 || reader.bits(11)? != SYNC_SBR || object_type(reader)? != OBJECT_SBR {
        return Ok(extension);
    }
    if reader.bit()? {
        extension.output_rate = Some(sample_rate(reader)?);
        extension.parametric_stereo =
            reader.remaining() >= 12 && reader.bits(11)? == SYNC_PS && reader.bit()?;
    }
    Ok(extension)
}

fn object_type(reader: &mut BitReader<'_>) -> Result<u8, ConfigError> {
    match reader.bits(5)? as u8 {
        OBJECT_ESCAPE => Ok(32 + reader.bits(6)? as u8),
        object => Ok(object),
    }
}

fn sample_rate(reader: &mut BitReader<'_>) -> Result<u32, ConfigError> {
    let hertz = match reader.bits(4)? {
        SAMPLE_RATE_EXPLICIT => reader.bits(24)?,
        index => SAMPLE_RATES.get(index as usize).copied().ok_or(ConfigError::SampleRateIndex { index })?,
    };
    if SAMPLE_RATE.contains(&hertz) { Ok(hertz) } else { Err(ConfigError::SampleRate { hertz }) }
}

/// `channelConfiguration`, table 1.19. Later editions number layouts above 7, which players do not know.
fn layout_channels(layout: u32) -> Result<u8, ConfigError> {
    match layout {
        1..=6 => Ok(layout as u8),
        7 => Ok(8),
        _ => Err(ConfigError::ChannelLayout { layout }),
    }
}

/// Channels of a program_config_element, §4.4.1.1, which it also leaves behind.
fn program_config_channels(reader: &mut BitReader<'_>) -> Result<u8, ConfigError> {
    reader.skip(4 + 2 + 4)?; // element_instance_tag, object_type, sampling_frequency_index
    let front_side_back = reader.bits(4)? + reader.bits(4)? + reader.bits(4)?;
    let low_frequency = reader.bits(2)?;
    let associated_data = reader.bits(3)?;
    let coupling = reader.bits(4)?;
    for mixdown_bits in [4, 4, 3] {
        if reader.bit()? {
            reader.skip(mixdown_bits)?; // mono, stereo, matrix
        }
    }
    let mut channels = low_frequency;
    for _ in 0..front_side_back {
        channels += if reader.bit()? { 2 } else { 1 }; // a pair or a single
        reader.skip(4)?;
    }
    reader.skip(4 * (low_frequency + associated_data) as usize + 5 * coupling as usize)?;
    reader.skip_to_byte();
    let comment_bytes = reader.byte()?;
    reader.skip(8 * usize::from(comment_bytes))?;
    match channels {
        1..=8 => Ok(channels as u8),
        _ => Err(ConfigError::Channels { channels }),
    }
}

/// Why an AudioSpecificConfig was refused. The publisher's encoder must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("it has {bytes} bytes, above the limit of {ASC_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("it ends in the middle")]
    Truncated,
    #[error("{} audio is not supported; send AAC-LC or HE-AAC", object_name(*.object_type))]
    Unsupported { object_type: u8 },
    #[error("sample rate index {index} means nothing")]
    SampleRateIndex { index: u32 },
    #[error("a sample rate of {hertz} Hz is not supported")]
    SampleRate { hertz: u32 },
    #[error("channel layout {layout} is not supported; send mono, stereo, 5.1 or 7.1")]
    ChannelLayout { layout: u32 },
    #[error("{channels} channels are not supported; send mono, stereo, 5.1 or 7.1")]
    Channels { channels: u32 },
}

impl From<BitsError> for ConfigError {
    fn from(_: BitsError) -> Self {
        // Nothing here is an exponential-Golomb code, so the end is all that can be in the way.
        Self::Truncated
    }
}

/// What a broadcaster would find it called in an encoder's settings.
fn object_name(object_type: u8) -> String {
    let name = match object_type {
        1 => "AAC Main",
        3 => "AAC-SSR",
        4 => "AAC-LTP",
        23 => "AAC-LD",
        34 => "MP3",
        36 => "ALS",
        39 => "AAC-ELD",
        42 => "xHE-AAC",
        other => return format!("MPEG-4 object type {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
