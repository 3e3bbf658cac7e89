//! HEVC (H.265): the decoder configuration record (`hvcC`), the sequence parameter set, and finding a picture that
//! decoding can start at.
//!
//! Kept byte for byte, as H.264's is; what we read of it is for playlists, the sample entry and refusals.

mod sps;

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::BitsError;
use super::nal;
pub use super::nal::UnitError;
pub use super::picture::{Chroma, Colour, PixelAspect, SizeError};
pub use super::video::Access;
use sps::Sps;

/// Longest `hvcC` we keep, in bytes. Real ones stay below 500, with HDR metadata below 1,000.
pub const HVCC_BYTES_MAX: usize = 16 * 1024;

/// Bytes of an `hvcC` before its first array of parameter sets.
const HEADER_BYTES: usize = 23;

/// `nal_unit_type`, table 7-1.
const NAL_BLA_FIRST: u8 = 16;
const NAL_IDR_LAST: u8 = 20;
const NAL_CRA: u8 = 21;
const NAL_VPS: u8 = 32;
const NAL_SPS: u8 = 33;
const NAL_PPS: u8 = 34;

/// A parsed and checked `hvcC` (ISO/IEC 14496-15, §8.3.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    hvcc: Bytes,
    nal_length_bytes: u8,
    sps: Sps,
}

impl Config {
    /// Reads an `hvcC`. The sizes and rates told below are those of its first sequence parameter set; the others are
    /// checked as strictly.
    ///
    /// # Errors
    /// [`ConfigError`]: the publisher's encoder wrote something HEVC does not allow, or that we do not take.
    pub fn parse(hvcc: Bytes) -> Result<Self, ConfigError> {
        if hvcc.len() > HVCC_BYTES_MAX {
            return Err(ConfigError::TooLong { bytes: hvcc.len() });
        }
        let (header, mut rest) = hvcc.split_first_chunk::<HEADER_BYTES>().ok_or(ConfigError::Truncated)?;
        let (version, lengths, arrays) = (header[0], header[21], header[22]);
        if version != 1 {
            return Err(ConfigError::Version { version });
        }
        let nal_length_bytes = match lengths & 0x03 {
            0 => 1,
            1 => 2,
            3 => 4,
            _ => return Err(ConfigError::NalLength),
        };

        let (mut first, mut vps, mut pps) = (None, false, false);
        for _ in 0..arrays {
            let (&[kind, high, low], after) = rest.split_first_chunk().ok_or(ConfigError::Truncated)?;
            rest = after;
            let kind = kind & 0x3F;
            for _ in 0..u16::from_be_bytes([high, low]) {
                let nal = nal::prefixed(&mut rest).ok_or(ConfigError::Truncated)?;
                if nal_type(nal) != Some(kind) {
                    return Err(ConfigError::NotAParameterSet);
                }
                match kind {
                    NAL_VPS => vps = true,
                    NAL_SPS => {
                        let sps = Sps::parse(nal)?;
                        first.get_or_insert(sps);
                    }
                    NAL_PPS => pps = true,
                    _ => {} // messages to the decoder, only carried
                }
            }
        }
        let sps = first.ok_or(ConfigError::Missing("sequence"))?;
        if !vps {
            return Err(ConfigError::Missing("video"));
        }
        if !pps {
            return Err(ConfigError::Missing("picture"));
        }
        Ok(Self { hvcc, nal_length_bytes, sps })
    }

    /// A record of parameter sets, for a publisher that sends none; its access units have lengths of four bytes. Of each kind
    /// at most 65,535, the one in force first.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn from_parameter_sets(vps: &[Bytes], sps: &[Bytes], pps: &[Bytes]) -> Result<Self, ConfigError> {
        let first = sps.first().ok_or(ConfigError::Missing("sequence"))?;
        let Sps { profile, chroma, bit_depth, .. } = Sps::parse(first)?;
        let chroma_format = match chroma {
            Chroma::Monochrome => 0,
            Chroma::Yuv420 => 1,
            Chroma::Yuv422 => 2,
            Chroma::Yuv444 => 3,
        };
        let mut hvcc = BytesMut::new();
        hvcc.put_u8(1);
        hvcc.put_u8(profile.space << 6 | u8::from(profile.tier_high) << 5 | profile.profile);
        hvcc.put_u32(profile.compatibility);
        hvcc.put_slice(&profile.constraints);
        hvcc.put_u8(profile.level);
        // Reserved bits are ones; nothing is said of segments and threads.
        hvcc.put_u16(0xF000);
        hvcc.put_u8(0xFC);
        hvcc.put_u8(0xFC | chroma_format);
        hvcc.put_u8(0xF8 | (bit_depth - 8));
        hvcc.put_u8(0xF8 | (bit_depth - 8));
        hvcc.put_u16(0); // average frame rate: not known
        hvcc.put_u8(3); // lengths of four bytes; layers: not known
        hvcc.put_u8(3);
        for (kind, sets) in [(NAL_VPS, vps), (NAL_SPS, sps), (NAL_PPS, pps)] {
            const COMPLETE: u8 = 0x80;
            hvcc.put_u8(COMPLETE | kind);
            hvcc.put_u16(sets.len().try_into().map_err(|_| ConfigError::TooLong { bytes: sets.len() })?);
            for set in sets {
                hvcc.put_u16(set.len().try_into().map_err(|_| ConfigError::TooLong { bytes: set.len() })?);
                hvcc.put_slice(set);
            }
        }
        Self::parse(hvcc.freeze())
    }

    /// The record as the publisher sent it.
    pub fn hvcc(&self) -> &Bytes {
        &self.hvcc
    }

    /// Displayed width in pixels, after cropping, before the pixel aspect ratio.
    pub fn width(&self) -> u32 {
        self.sps.width
    }

    /// Displayed height in pixels, after cropping, before the pixel aspect ratio.
    pub fn height(&self) -> u32 {
        self.sps.height
    }

    pub fn chroma(&self) -> Chroma {
        self.sps.chroma
    }

    /// Bits per sample, of luma or chroma, whichever has more.
    pub fn bit_depth(&self) -> u8 {
        self.sps.bit_depth
    }

    /// Frames per second the encoder announces, if they are between 1 and 300. A hint.
    pub fn frame_rate(&self) -> Option<f64> {
        self.sps.vui.frame_rate()
    }

    /// Shape of one pixel, if the encoder says.
    pub fn pixel_aspect(&self) -> Option<PixelAspect> {
        self.sps.vui.pixel_aspect
    }

    /// Code points of ITU-T H.273, if the encoder says.
    pub fn colour(&self) -> Option<Colour> {
        self.sps.vui.colour
    }

    /// As in `hvc1.1.6.L93.B0` (ISO/IEC 14496-15, §E.3): profile space and profile, compatibility flags with their
    /// bits turned round, tier and level, constraint flags without the zeros at their end.
    pub fn rfc6381(&self) -> String {
        let sps::Profile { space, tier_high, profile, compatibility, constraints, level } = self.sps.profile;
        let space = match space {
            0 => String::new(),
            space => char::from(b'A' + space - 1).to_string(),
        };
        let tier = if tier_high { 'H' } else { 'L' };
        let mut codec = format!("hvc1.{space}{profile}.{:X}.{tier}{level}", compatibility.reverse_bits());
        let told = constraints.iter().rposition(|&flags| flags != 0).map_or(0, |last| last + 1);
        for flags in &constraints[..told] {
            codec.push_str(&format!(".{flags:X}"));
        }
        codec
    }

    /// Bytes of the length before each NAL unit of an access unit: 1, 2 or 4.
    pub fn nal_length_bytes(&self) -> u8 {
        self.nal_length_bytes
    }

    /// Whether decoding can start at `unit`: IDR and BLA are keys, CRA opens a GOP. The bitstream decides, never a container's flag.
    ///
    /// # Errors
    /// [`UnitError::Truncated`] if `unit` is not a run of length-prefixed NAL units; a decoder would fail on it.
    pub fn access(&self, unit: &[u8]) -> Result<Access, UnitError> {
        let mut access = Access::None;
        for nal in nal::units(unit, self.nal_length_bytes) {
            match nal_type(nal?) {
                Some(NAL_BLA_FIRST..=NAL_IDR_LAST) => access = Access::Key,
                Some(NAL_CRA) if access == Access::None => access = Access::OpenGop,
                _ => {}
            }
        }
        Ok(access)
    }
}

/// Of a NAL unit with its two-byte header (§7.3.1.2).
fn nal_type(nal: &[u8]) -> Option<u8> {
    nal.first().map(|header| header >> 1 & 0x3F)
}

/// Why an `hvcC` was refused. The publisher's encoder must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("the record has {bytes} bytes, above the limit of {HVCC_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the record has version {version}, not 1")]
    Version { version: u8 },
    #[error("the record ends in the middle")]
    Truncated,
    /// ISO/IEC 14496-15 allows 1, 2 and 4.
    #[error("the record announces NAL lengths of 3 bytes")]
    NalLength,
    #[error("the record holds no {0} parameter set")]
    Missing(&'static str),
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
