//! The configuration record of VP8 and VP9.
//!
//! On their way to us they have none: all that a decoder must know stands before each keyframe. The record is made of
//! one: its size, which nothing else would say, and then the `vpcC` that goes into the sample entry (VP Codec ISO Media
//! File Format Binding, §2).

use bytes::{BufMut, Bytes, BytesMut};

use super::bits::BitsError;
use super::picture::{Chroma, Colour, SizeError, checked_size};

/// Width and height, 16 bits each.
const SIZE_BYTES: usize = 4;
/// Version 1, no flags, eight bytes of fields.
const VPCC_BYTES: usize = 12;
const VERSION_AND_FLAGS: u32 = 1 << 24;
/// ITU-T H.273: "unspecified", in each of the three.
const UNSPECIFIED: u8 = 2;

/// A parsed and checked record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    bytes: Bytes,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) profile: u8,
    pub(super) level: u8,
    pub(super) bit_depth: u8,
    pub(super) chroma: Chroma,
    pub(super) colour: Option<Colour>,
}

/// What a keyframe says.
pub(super) struct Fields {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) profile: u8,
    pub(super) level: u8,
    pub(super) bit_depth: u8,
    pub(super) chroma: Chroma,
    pub(super) colour: Option<Colour>,
}

impl Record {
    pub(super) fn new(fields: &Fields) -> Result<Self, ConfigError> {
        let &Fields { width, height, profile, level, bit_depth, chroma, colour } = fields;
        let (width, height) = checked_size(width.into(), height.into())?;
        let subsampling = match chroma {
            // Where the samples of colour stand, no bitstream says; most players take them to stand with those of light.
            Chroma::Yuv420 => 1,
            Chroma::Yuv422 => 2,
            Chroma::Yuv444 => 3,
            Chroma::Monochrome => return Err(ConfigError::Chroma),
        };
        let told = colour.unwrap_or(Colour {
            primaries: UNSPECIFIED,
            transfer: UNSPECIFIED,
            matrix: UNSPECIFIED,
            full_range: false,
        });
        let mut bytes = BytesMut::with_capacity(SIZE_BYTES + VPCC_BYTES);
        // Both are at most 8192.
        bytes.put_u16(width as u16);
        bytes.put_u16(height as u16);
        bytes.put_u32(VERSION_AND_FLAGS);
        bytes.put_u8(profile);
        bytes.put_u8(level);
        bytes.put_u8(bit_depth << 4 | subsampling << 1 | u8::from(told.full_range));
        bytes.put_slice(&[told.primaries, told.transfer, told.matrix]);
        bytes.put_u16(0); // codecInitializationDataSize: there is none
        Ok(Self { bytes: bytes.freeze(), width, height, profile, level, bit_depth, chroma, colour })
    }

    /// Reads what [`Record::bytes`] gave.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let fields: &[u8; SIZE_BYTES + VPCC_BYTES] = bytes.try_into().map_err(|_| ConfigError::NoRecord)?;
        let &[w1, w0, h1, h0, .., profile, level, depth, primaries, transfer, matrix, _, _] = fields;
        let is_told = (primaries, transfer, matrix) != (UNSPECIFIED, UNSPECIFIED, UNSPECIFIED);
        let record = Self::new(&Fields {
            width: u16::from_be_bytes([w1, w0]).into(),
            height: u16::from_be_bytes([h1, h0]).into(),
            profile,
            level,
            bit_depth: depth >> 4,
            chroma: match depth >> 1 & 7 {
                1 => Chroma::Yuv420,
                2 => Chroma::Yuv422,
                3 => Chroma::Yuv444,
                _ => return Err(ConfigError::Chroma),
            },
            colour: is_told.then_some(Colour { primaries, transfer, matrix, full_range: depth & 1 == 1 }),
        })?;
        let is_ours = record.bytes == bytes && matches!(record.bit_depth, 8 | 10 | 12);
        if is_ours { Ok(record) } else { Err(ConfigError::NoRecord) }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Without what is ours.
    pub(super) fn vpcc(&self) -> &[u8] {
        &self.bytes[SIZE_BYTES..]
    }
}

/// Why a keyframe, or a record that was kept of one, says nothing that can be played. The publisher's encoder must change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("the picture is no keyframe")]
    NotAKeyframe,
    #[error("the keyframe ends in its header")]
    Truncated,
    #[error("the keyframe lacks its start code")]
    StartCode,
    #[error("the keyframe's chroma format has no name in files")]
    Chroma,
    #[error("this is no record of a keyframe")]
    NoRecord,
    #[error(transparent)]
    Size(#[from] SizeError),
}

impl From<BitsError> for ConfigError {
    fn from(_: BitsError) -> Self {
        Self::Truncated
    }
}

/// Why a frame cannot be decoded by anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    #[error("a frame ends in its header")]
    Truncated,
    #[error("a frame does not begin as one")]
    Marker,
}
