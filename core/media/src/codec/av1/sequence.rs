//! The sequence header, AV1 §5.5.
//!
//! Everything a decoder would allocate or divide by is checked here, before any decoder sees it.

use crate::codec::bits::{BitReader, BitsError};
use crate::codec::picture::{Chroma, Colour, believable_rate, checked_size};

use super::ConfigError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    /// 0 is Main, 1 High, 2 Professional.
    pub(super) profile: u8,
    /// `seq_level_idx` of the first operating point: 4 × (major − 2) + minor.
    pub(super) level: u8,
    pub(super) tier_high: bool,
    pub(super) width: u32,
    pub(super) height: u32,
    /// `reduced_still_picture_header`: frame headers say nothing, each frame is a shown key frame.
    pub(super) is_still: bool,
    pub(super) colour: ColourConfig,
    timing: Option<Timing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ColourConfig {
    pub(super) chroma: Chroma,
    pub(super) bit_depth: u8,
    /// 0 is unknown, 1 vertical, 2 colocated.
    pub(super) chroma_position: u8,
    pub(super) description: Option<Colour>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timing {
    units_in_tick: u32,
    time_scale: u32,
    /// With equal intervals only.
    ticks_per_picture: Option<u32>,
}

struct OperatingPoints {
    level: u8,
    tier_high: bool,
}

const PROFILE_PROFESSIONAL: u8 = 2;

impl Sequence {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, ConfigError> {
        let reader = &mut BitReader::new(payload);
        let profile = reader.bits(3)? as u8;
        if profile > PROFILE_PROFESSIONAL {
            return Err(ConfigError::OutOfRange { field: "seq_profile", value: profile.into() });
        }
        reader.skip(1)?; // still_picture
        let is_still = reader.bit()?;
        let mut timing = None;
        let point = if is_still {
            OperatingPoints { level: reader.bits(5)? as u8, tier_high: false }
        } else {
            operating_points(reader, &mut timing)?
        };

        let (width_bits, height_bits) = (reader.bits(4)? + 1, reader.bits(4)? + 1);
        let width = u64::from(reader.bits(width_bits)?) + 1;
        let height = u64::from(reader.bits(height_bits)?) + 1;
        let (width, height) = checked_size(width, height)?;

        if !is_still && reader.bit()? {
            reader.skip(4 + 3)?; // lengths of frame ids
        }
        reader.skip(3)?; // superblock size, intra filters
        if !is_still {
            skip_inter_tools(reader)?;
        }
        reader.skip(3)?; // superres, cdef, restoration
        let colour = ColourConfig::parse(reader, profile)?;
        let OperatingPoints { level, tier_high } = point;
        Ok(Self { profile, level, tier_high, width, height, is_still, colour, timing })
    }

    pub(super) fn frame_rate(&self) -> Option<f64> {
        let Timing { units_in_tick, time_scale, ticks_per_picture } = self.timing?;
        believable_rate(time_scale, f64::from(units_in_tick) * f64::from(ticks_per_picture?))
    }
}

/// Timing, decoder model and operating points, of which only the first counts for a player that takes them all.
fn operating_points(
    reader: &mut BitReader<'_>,
    timing: &mut Option<Timing>,
) -> Result<OperatingPoints, ConfigError> {
    let mut delay_bits = None;
    if reader.bit()? {
        *timing = Some(Timing::parse(reader)?);
        if reader.bit()? {
            delay_bits = Some(reader.bits(5)? as usize + 1);
            reader.skip(32 + 5 + 5)?; // decoding tick, lengths of times
        }
    }
    let display_delays = reader.bit()?;
    let points = reader.bits(5)? + 1;
    let mut first = None;
    for _ in 0..points {
        reader.skip(12)?; // operating_point_idc
        let level = reader.bits(5)? as u8;
        // Levels below 4.0 have no tiers.
        let tier_high = level > 7 && reader.bit()?;
        first.get_or_insert(OperatingPoints { level, tier_high });
        if let Some(delay_bits) = delay_bits
            && reader.bit()?
        {
            reader.skip(2 * delay_bits + 1)?; // decoder and encoder buffer delay, low delay mode
        }
        if display_delays && reader.bit()? {
            reader.skip(4)?;
        }
    }
    first.ok_or(ConfigError::Truncated)
}

impl Timing {
    fn parse(reader: &mut BitReader<'_>) -> Result<Self, ConfigError> {
        let (units_in_tick, time_scale) = (reader.bits(32)?, reader.bits(32)?);
        let ticks_per_picture = if reader.bit()? {
            // `uvlc` (§4.10.3) is H.264's unsigned code.
            reader.unsigned_golomb()?.checked_add(1)
        } else {
            None
        };
        Ok(Self { units_in_tick, time_scale, ticks_per_picture })
    }
}

fn skip_inter_tools(reader: &mut BitReader<'_>) -> Result<(), BitsError> {
    reader.skip(4)?; // interintra, masked compound, warped motion, dual filter
    let order_hint = reader.bit()?;
    if order_hint {
        reader.skip(2)?; // jnt_comp, ref_frame_mvs
    }
    let choose_screen_content = reader.bit()?;
    let screen_content = choose_screen_content || reader.bit()?;
    if screen_content && !reader.bit()? {
        reader.skip(1)?; // seq_force_integer_mv
    }
    if order_hint {
        reader.skip(3)?; // order_hint_bits_minus_1
    }
    Ok(())
}

impl ColourConfig {
    /// `color_config`, §5.5.2.
    fn parse(reader: &mut BitReader<'_>, profile: u8) -> Result<Self, BitsError> {
        const BT709: u8 = 1;
        const SRGB: u8 = 13;
        const IDENTITY: u8 = 0;

        let high_bit_depth = reader.bit()?;
        let bit_depth = match high_bit_depth {
            true if profile == PROFILE_PROFESSIONAL && reader.bit()? => 12,
            true => 10,
            false => 8,
        };
        let monochrome = profile != 1 && reader.bit()?;
        let mut description = None;
        if reader.bit()? {
            let (primaries, transfer, matrix) = (reader.byte()?, reader.byte()?, reader.byte()?);
            description = Some(Colour { primaries, transfer, matrix, full_range: false });
        }
        let told = |full_range| description.map(|colour| Colour { full_range, ..colour });
        if monochrome {
            let description = told(reader.bit()?);
            return Ok(Self { chroma: Chroma::Monochrome, bit_depth, chroma_position: 0, description });
        }
        let rgb = matches!(told(true), Some(colour)
            if (colour.primaries, colour.transfer, colour.matrix) == (BT709, SRGB, IDENTITY));
        if rgb {
            return Ok(Self {
                chroma: Chroma::Yuv444,
                bit_depth,
                chroma_position: 0,
                description: told(true),
            });
        }
        let description = told(reader.bit()?);
        let (half_width, half_height) = match (profile, bit_depth) {
            (0, _) => (true, true),
            (1, _) => (false, false),
            (_, 12) => {
                let half_width = reader.bit()?;
                (half_width, half_width && reader.bit()?)
            }
            _ => (true, false),
        };
        let (chroma, chroma_position) = match (half_width, half_height) {
            (true, true) => (Chroma::Yuv420, reader.bits(2)? as u8),
            (true, false) => (Chroma::Yuv422, 0),
            (false, _) => (Chroma::Yuv444, 0),
        };
        Ok(Self { chroma, bit_depth, chroma_position, description })
    }
}
