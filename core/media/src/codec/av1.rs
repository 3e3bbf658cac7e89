//! AV1: the codec configuration record (`av1C`), the sequence header, and finding a picture that decoding can start at.
//!
//! The record is kept byte for byte, as the other codecs' are; what we read of it is for playlists, the sample entry
//! and refusals.

mod obu;
mod sequence;

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::{BitReader, BitsError};
pub use super::picture::{Chroma, Colour, SizeError};
pub use obu::UnitError;
use obu::{FRAME, FRAME_HEADER, PADDING, SEQUENCE_HEADER, TEMPORAL_DELIMITER, TILE_LIST};
use sequence::Sequence;

/// Longest `av1C` we keep, in bytes. Real ones have about 20, with HDR metadata about 60.
pub const AV1C_BYTES_MAX: usize = 4 * 1024;

/// Longest sequence header that a record is made of, in bytes; the longest there can be has 700, of 32 operating points.
const SEQUENCE_BYTES_MAX: usize = 2 * 1024;

/// Bytes of an `av1C` before its OBUs.
const HEADER_BYTES: usize = 4;
/// Marker bit and version 1, the first byte of every record.
const MARKER_AND_VERSION: u8 = 0x81;

/// A parsed and checked `av1C` (AV1 Codec ISO Media File Format Binding, §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    av1c: Bytes,
    sequence: Sequence,
}

impl Config {
    /// # Errors
    /// [`ConfigError`]: the publisher's encoder wrote something AV1 does not allow, or that we do not take.
    pub fn parse(av1c: Bytes) -> Result<Self, ConfigError> {
        if av1c.len() > AV1C_BYTES_MAX {
            return Err(ConfigError::TooLong { bytes: av1c.len() });
        }
        let (header, obus) = av1c.split_first_chunk::<HEADER_BYTES>().ok_or(ConfigError::Truncated)?;
        if header[0] != MARKER_AND_VERSION {
            return Err(ConfigError::Version { byte: header[0] });
        }
        let sequence = sequence(obus)?;
        Ok(Self { av1c, sequence })
    }

    /// Of a temporal unit with a sequence header, for a publisher that sends no record.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn of_keyframe(unit: &[u8]) -> Result<Self, ConfigError> {
        let header = obu::units(unit).map_while(Result::ok).find(|obu| obu.kind == SEQUENCE_HEADER);
        let payload = header.ok_or(ConfigError::NoSequenceHeader)?.payload;
        if payload.len() > SEQUENCE_BYTES_MAX {
            return Err(ConfigError::TooLong { bytes: payload.len() });
        }
        let Sequence { profile, level, tier_high, colour, .. } = Sequence::parse(payload)?;
        let (monochrome, half_width, half_height) = match colour.chroma {
            Chroma::Monochrome => (1, 1, 1),
            Chroma::Yuv420 => (0, 1, 1),
            Chroma::Yuv422 => (0, 1, 0),
            Chroma::Yuv444 => (0, 0, 0),
        };
        let (deep, deepest) = (u8::from(colour.bit_depth > 8), u8::from(colour.bit_depth > 10));
        let mut av1c = BytesMut::with_capacity(HEADER_BYTES + 3 + payload.len());
        av1c.put_u8(MARKER_AND_VERSION);
        av1c.put_u8(profile << 5 | level);
        av1c.put_u8(
            u8::from(tier_high) << 7
                | deep << 6
                | deepest << 5
                | monochrome << 4
                | half_width << 3
                | half_height << 2
                | colour.chroma_position,
        );
        av1c.put_u8(0); // nothing is said of a delay
        av1c.put_u8(SEQUENCE_HEADER << 3 | obu::HAS_SIZE);
        obu::put_leb128(&mut av1c, payload.len());
        av1c.put_slice(payload);
        Self::parse(av1c.freeze())
    }

    /// The record as the publisher sent it.
    pub fn av1c(&self) -> &Bytes {
        &self.av1c
    }

    /// Width of the largest picture, in pixels.
    pub fn width(&self) -> u32 {
        self.sequence.width
    }

    /// Height of the largest picture, in pixels.
    pub fn height(&self) -> u32 {
        self.sequence.height
    }

    pub fn chroma(&self) -> Chroma {
        self.sequence.colour.chroma
    }

    /// Bits per sample: 8, 10 or 12.
    pub fn bit_depth(&self) -> u8 {
        self.sequence.colour.bit_depth
    }

    /// Frames per second the encoder announces, if they are constant and between 1 and 300. A hint.
    pub fn frame_rate(&self) -> Option<f64> {
        self.sequence.frame_rate()
    }

    /// Code points of ITU-T H.273, if the encoder says.
    pub fn colour(&self) -> Option<Colour> {
        self.sequence.colour.description
    }

    /// As in `av01.0.04M.08`: profile, level and tier, bit depth; and, where they are not what players take for
    /// granted, chroma and colour (AV1 Codec ISO Media File Format Binding, §5).
    pub fn rfc6381(&self) -> String {
        let Sequence { profile, level, tier_high, colour, .. } = self.sequence;
        let tier = if tier_high { 'H' } else { 'M' };
        let mut codec = format!("av01.{profile}.{level:02}{tier}.{:02}", colour.bit_depth);
        let usual = Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false };
        let told = self.colour().unwrap_or(usual);
        if colour.chroma != Chroma::Yuv420 || told != usual {
            let (monochrome, subsampling) = match colour.chroma {
                Chroma::Monochrome => (1, "11"),
                Chroma::Yuv420 => (0, "11"),
                Chroma::Yuv422 => (0, "10"),
                Chroma::Yuv444 => (0, "00"),
            };
            codec.push_str(&format!(
                ".{monochrome}.{subsampling}{}.{:02}.{:02}.{:02}.{}",
                colour.chroma_position,
                told.primaries,
                told.transfer,
                told.matrix,
                u8::from(told.full_range)
            ));
        }
        codec
    }

    /// Whether decoding can start at `unit`: it has a sequence header, and then a key frame that is shown. The bitstream
    /// decides, never a container's flag.
    ///
    /// # Errors
    /// [`UnitError`] if `unit` is not a run of OBUs; a decoder would fail on it.
    pub fn is_key(&self, unit: &[u8]) -> Result<bool, UnitError> {
        let (mut sequence_header, mut key) = (false, None);
        for obu in obu::units(unit) {
            let obu = obu?;
            match obu.kind {
                SEQUENCE_HEADER => sequence_header = true,
                FRAME | FRAME_HEADER if key.is_none() => {
                    let shown = self.sequence.is_still || is_shown_key(obu.payload);
                    key = Some(sequence_header && shown);
                }
                _ => {}
            }
        }
        Ok(key.unwrap_or(false))
    }

    /// `unit` without the temporal delimiters before it, which mean nothing in an MP4 sample (same binding, §2.4). A
    /// slice: nothing is copied.
    pub fn without_delimiters(unit: Bytes) -> Bytes {
        let mut delimiters = 0;
        for obu in obu::units(&unit) {
            match obu {
                Ok(obu) if obu.kind == TEMPORAL_DELIMITER => delimiters += obu.bytes,
                _ => break,
            }
        }
        unit.slice(delimiters..)
    }
}

/// The first sequence header: there is at most one (same binding, §2.3.4).
fn sequence(obus: &[u8]) -> Result<Sequence, ConfigError> {
    for obu in obu::units(obus) {
        let obu = obu.map_err(|_| ConfigError::Truncated)?;
        if obu.kind == SEQUENCE_HEADER {
            return Sequence::parse(obu.payload);
        }
    }
    Err(ConfigError::NoSequenceHeader)
}

/// Of a frame header (AV1, §5.9.2): not one shown before, and a key frame, and shown.
fn is_shown_key(header: &[u8]) -> bool {
    const KEY_FRAME: u32 = 0;
    let mut reader = BitReader::new(header);
    let mut shown_key = || -> Result<bool, BitsError> {
        let show_existing = reader.bit()?;
        let frame_type = reader.bits(2)?;
        let show = reader.bit()?;
        Ok(!show_existing && frame_type == KEY_FRAME && show)
    };
    shown_key().unwrap_or(false)
}

/// Writes an OBU that came without its size (AV1 RTP, §4.4) behind those that are in `unit`, with it, as a sample must have
/// it. Temporal delimiters, tile lists and padding are left out: a sample has none, or they mean nothing.
///
/// # Errors
/// [`UnitError`] if it is no OBU.
pub fn put_obu(unit: &mut BytesMut, obu: &[u8]) -> Result<(), UnitError> {
    let parsed = obu::units(obu).next().unwrap_or(Err(UnitError::Truncated))?;
    if parsed.bytes != obu.len() {
        return Err(UnitError::Truncated);
    }
    if matches!(parsed.kind, TEMPORAL_DELIMITER | TILE_LIST | PADDING) {
        return Ok(());
    }
    unit.put_u8(obu[0] | obu::HAS_SIZE);
    if obu[0] & obu::HAS_EXTENSION != 0 {
        unit.put_u8(obu[1]);
    }
    obu::put_leb128(unit, parsed.payload.len());
    unit.put_slice(parsed.payload);
    Ok(())
}

/// The OBUs of a temporal unit as RTP carries them: without their size (AV1 RTP, §4.5), each as its header and its
/// payload. Temporal delimiters are left out.
///
/// # Errors
/// [`UnitError`] if `unit` is not a run of OBUs.
pub fn bare_obus(unit: &[u8]) -> Result<Vec<(ObuHeader, &[u8])>, UnitError> {
    let mut rest = unit;
    let mut bare = Vec::new();
    for obu in obu::units(unit) {
        let obu = obu?;
        let header = rest;
        rest = &rest[obu.bytes..];
        if matches!(obu.kind, TEMPORAL_DELIMITER | TILE_LIST | PADDING) {
            continue;
        }
        let has_extension = header[0] & obu::HAS_EXTENSION != 0;
        let bytes = [header[0] & !obu::HAS_SIZE, if has_extension { header[1] } else { 0 }];
        bare.push((ObuHeader { bytes, has_extension }, obu.payload));
    }
    Ok(bare)
}

/// One or two bytes before an OBU's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObuHeader {
    bytes: [u8; 2],
    has_extension: bool,
}

impl ObuHeader {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..1 + usize::from(self.has_extension)]
    }
}

/// Why an `av1C` was refused. The publisher's encoder must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("the record has {bytes} bytes, above the limit of {AV1C_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("the record begins with {byte:#04x}, not with version 1")]
    Version { byte: u8 },
    #[error("the record ends in the middle")]
    Truncated,
    #[error("the record holds no sequence header")]
    NoSequenceHeader,
    /// Beyond what the standard allows for `field`.
    #[error("the sequence header says {field} = {value}, which the standard does not allow")]
    OutOfRange { field: &'static str, value: u32 },
    #[error(transparent)]
    Size(#[from] SizeError),
}

impl From<BitsError> for ConfigError {
    fn from(_: BitsError) -> Self {
        // A number too long is found where a hint stands, and there it is no error.
        Self::Truncated
    }
}

#[cfg(test)]
mod tests;
