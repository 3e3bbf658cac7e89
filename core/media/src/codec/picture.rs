//! What every video codec says of its pictures: size, colour, shape of a pixel.

use super::bits::{BitReader, BitsError};

/// Smallest and largest side of a picture we take, in pixels. The highest levels of H.264, HEVC and AV1 are made for
/// 8192x4320 or a little more; what lies outside makes decoders allocate gigabytes or divide by zero.
pub const PICTURE_SIDE: std::ops::RangeInclusive<u32> = 16..=8192;

/// How much colour a picture carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chroma {
    Monochrome,
    Yuv420,
    Yuv422,
    Yuv444,
}

/// Width and height of one pixel, relative to each other; neither is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelAspect {
    pub horizontal: u16,
    pub vertical: u16,
}

/// Code points of ITU-T H.273.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    pub primaries: u8,
    pub transfer: u8,
    pub matrix: u8,
    pub full_range: bool,
}

/// A picture outside [`PICTURE_SIDE`], coded or, after cropping, displayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pictures of {width}x{height} are not supported; each side must be {} to {} pixels",
    PICTURE_SIDE.start(), PICTURE_SIDE.end())]
pub struct SizeError {
    pub width: u64,
    pub height: u64,
}

/// The same size, if we take it.
pub(super) fn checked_size(width: u64, height: u64) -> Result<(u32, u32), SizeError> {
    let side = |pixels: u64| u32::try_from(pixels).ok().filter(|pixels| PICTURE_SIDE.contains(pixels));
    side(width).zip(side(height)).ok_or(SizeError { width, height })
}

/// Frames per second, if they are believable. A hint: with a variable rate it is the encoder's clock, and some
/// encoders write nonsense.
pub(super) fn believable_rate(ticks_per_second: u32, ticks_per_frame: f64) -> Option<f64> {
    // Zero in either gives an infinity, a NaN or a zero, none of which is in the range.
    let rate = f64::from(ticks_per_second) / ticks_per_frame;
    (1.0..=300.0).contains(&rate).then_some(rate)
}

/// `aspect_ratio_idc` 1 to 16, the same in H.264 (table E-1) and HEVC (table E.1).
const PIXEL_ASPECTS: [(u16, u16); 16] = [
    (1, 1),
    (12, 11),
    (10, 11),
    (16, 11),
    (40, 33),
    (24, 11),
    (20, 11),
    (32, 11),
    (80, 33),
    (18, 11),
    (15, 11),
    (64, 33),
    (160, 99),
    (4, 3),
    (3, 2),
    (2, 1),
];
const PIXEL_ASPECT_EXTENDED: u8 = 255;

/// `aspect_ratio_idc`, and what may follow it.
pub(super) fn pixel_aspect(reader: &mut BitReader<'_>) -> Result<Option<PixelAspect>, BitsError> {
    let (horizontal, vertical) = match reader.byte()? {
        PIXEL_ASPECT_EXTENDED => (reader.bits(16)? as u16, reader.bits(16)? as u16),
        index => {
            let known = usize::from(index).checked_sub(1).and_then(|index| PIXEL_ASPECTS.get(index));
            known.copied().unwrap_or_default()
        }
    };
    // Zero means unspecified, in either place (H.264, §E.2.1).
    let specified = horizontal != 0 && vertical != 0;
    Ok(specified.then_some(PixelAspect { horizontal, vertical }))
}
