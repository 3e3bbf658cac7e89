//! H.264: the decoder configuration record (`avcC`), the sequence parameter set, and finding an IDR.
//!
//! The record is kept byte for byte: it goes into the init segment as the publisher sent it, and its hash
//! names that segment. What we read of it is for playlists, the sample entry and refusals.

mod nominal;
mod sps;

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::BitsError;
use super::nal;
pub use super::nal::UnitError;
pub use super::picture::{Chroma, Colour, PICTURE_SIDE, PixelAspect, SizeError};
use sps::Sps;

/// Longest `avcC` we keep, in bytes. Real ones stay below 200; with all 31 sequence and 255 picture parameter
/// sets that it has room to count, honest ones would stay below 8 kB.
pub const AVCC_BYTES_MAX: usize = 16 * 1024;

/// `nal_unit_type`, H.264 table 7-1.
const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;

/// Where an `avcC` counts its sequence parameter sets: behind version, profile, constraints, level and NAL length.
const SPS_COUNT_AT: usize = 5;

/// `profile_idc` of the profiles whose records end with the parameter sets.
const PROFILE_BASELINE: u8 = 66;
const PROFILE_MAIN: u8 = 77;
const PROFILE_EXTENDED: u8 = 88;

/// A record counts its sequence parameter sets in five bits.
const SPS_MAX: u8 = 31;

/// A parsed and checked `avcC` (ISO/IEC 14496-15, §5.3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    avcc: Bytes,
    nal_length_bytes: u8,
    sps: Sps,
}

impl Config {
    /// Reads an `avcC`. The sizes and rates told below are those of its first sequence parameter set; the
    /// others are checked as strictly, because a decoder may be switched to them.
    ///
    /// # Errors
    /// [`ConfigError`]: the publisher's encoder wrote something H.264 does not allow, or that we do not take.
    pub fn parse(avcc: Bytes) -> Result<Self, ConfigError> {
        if avcc.len() > AVCC_BYTES_MAX {
            return Err(ConfigError::TooLong { bytes: avcc.len() });
        }
        let (&[version, _profile, _compatibility, _level, lengths, sps_count], mut rest) =
            avcc.split_first_chunk().ok_or(ConfigError::Truncated)?;
        if version != 1 {
            return Err(ConfigError::Version { version });
        }
        let nal_length_bytes = match lengths & 0x03 {
            0 => 1,
            1 => 2,
            3 => 4,
            _ => return Err(ConfigError::NalLength),
        };

        let mut first = None;
        for _ in 0..sps_count & 0x1F {
            let nal = parameter_set(&mut rest, NAL_SPS)?;
            let sps = Sps::parse(nal)?;
            first.get_or_insert(sps);
        }
        let sps = first.ok_or(ConfigError::NoSps)?;

        let (&pps_count, mut rest) = rest.split_first().ok_or(ConfigError::Truncated)?;
        for _ in 0..pps_count {
            parameter_set(&mut rest, NAL_PPS)?;
        }
        if pps_count == 0 {
            return Err(ConfigError::NoPps);
        }

        // What follows is the High-profile extension: chroma and bit depth once more, which the sequence
        // parameter set already told. Encoders differ in whether and how they write it, so it is only carried.
        Ok(Self { avcc, nal_length_bytes, sps })
    }

    /// Makes the record of parameter sets that came in band, as RTP carries them (RFC 6184), whole NAL units each. Units
    /// have lengths of four bytes then.
    ///
    /// # Errors
    /// As [`Config::parse`], and if there are more sets than a record can count.
    pub fn from_parameter_sets(sps: &[Bytes], pps: &[Bytes]) -> Result<Self, ConfigError> {
        let Some(&[profile, constraints, level]) = sps.first().and_then(|sps| sps.get(1..4)) else {
            return Err(ConfigError::NoSps);
        };
        let count = |sets: &[Bytes], max: u8| {
            u8::try_from(sets.len()).ok().filter(|count| *count <= max).ok_or(ConfigError::TooManySets)
        };
        let mut avcc = BytesMut::with_capacity(64);
        avcc.extend_from_slice(&[1, profile, constraints, level, 0xFF]);
        for (sets, reserved, max) in [(sps, 0xE0, SPS_MAX), (pps, 0, u8::MAX)] {
            avcc.put_u8(reserved | count(sets, max)?);
            for set in sets {
                let bytes =
                    u16::try_from(set.len()).map_err(|_| ConfigError::TooLong { bytes: set.len() })?;
                avcc.put_u16(bytes);
                avcc.extend_from_slice(set);
            }
        }
        let record = Self::parse(avcc.clone().freeze())?;
        // §5.3.3.1.2: of all profiles but these three the record tells chroma and bit depth.
        if matches!(profile, PROFILE_BASELINE | PROFILE_MAIN | PROFILE_EXTENDED) {
            return Ok(record);
        }
        let chroma = match record.chroma() {
            Chroma::Monochrome => 0,
            Chroma::Yuv420 => 1,
            Chroma::Yuv422 => 2,
            Chroma::Yuv444 => 3,
        };
        let depth = 0xF8 | record.bit_depth().saturating_sub(8);
        // Of luma and chroma, which are the same in all that we take; and no extension of the sequence parameter sets.
        avcc.extend_from_slice(&[0xFC | chroma, depth, depth, 0]);
        Self::parse(avcc.freeze())
    }

    /// The record as the publisher sent it.
    pub fn avcc(&self) -> &Bytes {
        &self.avcc
    }

    /// Displayed width in pixels, after cropping, before the pixel aspect ratio.
    pub fn width(&self) -> u32 {
        self.sps.width
    }

    /// Displayed height in pixels, after cropping, before the pixel aspect ratio.
    pub fn height(&self) -> u32 {
        self.sps.height
    }

    /// `profile_idc`: 66 is Baseline, 77 Main, 100 High.
    pub fn profile(&self) -> u8 {
        self.sps.profile
    }

    /// `level_idc`: ten times the level, as in 31 for 3.1.
    pub fn level(&self) -> u8 {
        self.sps.level
    }

    pub fn chroma(&self) -> Chroma {
        self.sps.chroma
    }

    /// Bits per sample, of luma or chroma, whichever has more.
    pub fn bit_depth(&self) -> u8 {
        self.sps.bit_depth
    }

    /// Frames per second the encoder announces. A hint: with a variable rate it is the encoder's clock, and
    /// some encoders write nonsense; what is not between 1 and 300 is `None`.
    pub fn frame_rate(&self) -> Option<f64> {
        self.sps.vui.frame_rate()
    }

    /// How many pictures may be decoded ahead of one that is shown before them: `Some(0)` promises that there
    /// are no B-frames to wait for, `None` promises nothing.
    pub fn reorder_frames_max(&self) -> Option<u8> {
        self.sps.reorder_frames_max()
    }

    /// Shape of one pixel, if the encoder says.
    pub fn pixel_aspect(&self) -> Option<PixelAspect> {
        self.sps.vui.pixel_aspect
    }

    /// Code points of ITU-T H.273, if the encoder says.
    pub fn colour(&self) -> Option<Colour> {
        self.sps.vui.colour
    }

    /// As in `avc1.640028`: profile, constraint flags and level of the sequence parameter set (RFC 6381, §3.3).
    pub fn rfc6381(&self) -> String {
        format!("avc1.{:02x}{:02x}{:02x}", self.sps.profile, self.sps.constraints, self.sps.level)
    }

    /// Size of the length before each NAL unit of an access unit: 1, 2 or 4.
    pub fn nal_length_bytes(&self) -> u8 {
        self.nal_length_bytes
    }

    /// Its sequence parameter sets, then its picture parameter sets.
    pub fn parameter_sets(&self) -> Vec<&[u8]> {
        let mut sets = Vec::new();
        let mut rest = self.avcc.get(SPS_COUNT_AT..).unwrap_or_default();
        for count_mask in [0x1F, 0xFF] {
            let Some((&count, behind)) = rest.split_first() else { break };
            rest = behind;
            sets.extend((0..count & count_mask).map_while(|_| nal::prefixed(&mut rest)));
        }
        sets
    }

    /// The NAL units of an access unit, in decoding order.
    ///
    /// # Errors
    /// [`UnitError::Truncated`], and nothing after it, if `unit` is not a run of length-prefixed NAL units.
    pub fn nal_units<'a>(
        &self,
        unit: &'a [u8],
    ) -> impl Iterator<Item = Result<&'a [u8], UnitError>> + use<'a> {
        nal::units(unit, self.nal_length_bytes)
    }

    /// Whether decoding can start at `unit`: it holds a slice of an IDR picture. The bitstream decides, never
    /// a container's flag.
    ///
    /// # Errors
    /// [`UnitError::Truncated`] if `unit` is not a run of length-prefixed NAL units; a decoder would fail on it.
    pub fn is_idr(&self, unit: &[u8]) -> Result<bool, UnitError> {
        let mut idr = false;
        for nal in nal::units(unit, self.nal_length_bytes) {
            idr |= nal?.first().is_some_and(|&header| nal_type(header) == NAL_IDR);
        }
        Ok(idr)
    }
}

/// Takes the next parameter set off `rest`.
fn parameter_set<'a>(rest: &mut &'a [u8], kind: u8) -> Result<&'a [u8], ConfigError> {
    let nal = nal::prefixed(rest).ok_or(ConfigError::Truncated)?;
    match nal.first() {
        Some(&header) if nal_type(header) == kind => Ok(nal),
        _ => Err(ConfigError::NotAParameterSet),
    }
}

fn nal_type(header: u8) -> u8 {
    header & 0x1F
}

/// Why an `avcC` was refused. The publisher's encoder must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("the record has {bytes} bytes, above the limit of {AVCC_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the record has version {version}, not 1")]
    Version { version: u8 },
    #[error("the record ends in the middle")]
    Truncated,
    /// ISO/IEC 14496-15 allows 1, 2 and 4.
    #[error("the record announces NAL lengths of 3 bytes")]
    NalLength,
    #[error("the record holds no sequence parameter set")]
    NoSps,
    #[error("the record holds no picture parameter set")]
    NoPps,
    #[error("more parameter sets than a record can hold")]
    TooManySets,
    #[error("the record holds something else where a parameter set should be")]
    NotAParameterSet,
    #[error("a number in the sequence parameter set has more than 32 bits")]
    NumberTooLong,
    /// Beyond what the standard allows for `field`.
    #[error("the sequence parameter set says {field} = {value}, which the standard does not allow")]
    OutOfRange { field: &'static str, value: u32 },
    #[error(transparent)]
    Size(#[from] SizeError),
    #[error("the sequence parameter set crops more than the whole picture")]
    Cropping,
}

impl From<BitsError> for ConfigError {
    fn from(error: BitsError) -> Self {
        match error {
            BitsError::Truncated => Self::Truncated,
            BitsError::NumberTooLong => Self::NumberTooLong,
        }
    }
}

#[cfg(test)]
mod tests;
