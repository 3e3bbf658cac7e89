//! The sequence parameter set, H.265 §7.3.2.2, and the head of Annex E's usability information.
//!
//! Everything a decoder would allocate or divide by is checked here, before any decoder sees it.

use crate::codec::bits::{BitReader, BitsError, without_emulation_prevention};
use crate::codec::picture::{Chroma, Colour, PixelAspect, believable_rate, checked_size, pixel_aspect};

use super::ConfigError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sps {
    pub(super) profile: Profile,
    pub(super) chroma: Chroma,
    pub(super) bit_depth: u8,
    /// After cropping.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) vui: Vui,
}

/// `profile_tier_level`, §7.3.3, its general part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) space: u8,
    pub(super) tier_high: bool,
    /// 1 is Main, 2 Main 10.
    pub(super) profile: u8,
    /// One bit for each profile, the first in the highest bit.
    pub(super) compatibility: u32,
    pub(super) constraints: [u8; 6],
    /// Thirty times the level, as in 93 for 3.1.
    pub(super) level: u8,
}

/// Video usability information, as far as somebody here asks for it. Hints, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Vui {
    pub(super) pixel_aspect: Option<PixelAspect>,
    pub(super) colour: Option<Colour>,
    timing: Option<Timing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timing {
    units_in_tick: u32,
    /// Ticks per second; one tick a picture, unlike H.264.
    time_scale: u32,
}

/// Pictures in one reference picture set (§A.4.1: at most 16 in the buffer).
const REFERENCES_MAX: u32 = 16;

impl Sps {
    /// `nal` with its two-byte header.
    pub(super) fn parse(nal: &[u8]) -> Result<Self, ConfigError> {
        let payload = without_emulation_prevention(nal);
        let mut reader = BitReader::new(&payload);
        reader.skip(16 + 4)?; // header, sps_video_parameter_set_id
        let sub_layers = at_most(6, "sps_max_sub_layers_minus1", reader.bits(3)?)?;
        reader.skip(1)?; // sps_temporal_id_nesting_flag
        let profile = Profile::parse(&mut reader, sub_layers)?;
        at_most(15, "sps_seq_parameter_set_id", reader.unsigned_golomb()?)?;

        let chroma = match reader.unsigned_golomb()? {
            0 => Chroma::Monochrome,
            1 => Chroma::Yuv420,
            2 => Chroma::Yuv422,
            3 => {
                reader.skip(1)?; // separate_colour_plane_flag
                Chroma::Yuv444
            }
            value => return Err(ConfigError::OutOfRange { field: "chroma_format_idc", value }),
        };
        let (width, height) = picture_size(&mut reader, chroma)?;
        let luma = at_most(8, "bit_depth_luma_minus8", reader.unsigned_golomb()?)?;
        let colour = at_most(8, "bit_depth_chroma_minus8", reader.unsigned_golomb()?)?;

        skip_coding_tools(&mut reader, sub_layers)?;
        // As with H.264: nothing in it is needed for decoding, so what cannot be read is not there.
        let vui = if reader.bit()? { Vui::parse(&mut reader).unwrap_or_default() } else { Vui::default() };
        Ok(Self { profile, chroma, bit_depth: 8 + luma.max(colour) as u8, width, height, vui })
    }
}

impl Profile {
    fn parse(reader: &mut BitReader<'_>, sub_layers: u32) -> Result<Self, BitsError> {
        let profile = Self {
            space: reader.bits(2)? as u8,
            tier_high: reader.bit()?,
            profile: reader.bits(5)? as u8,
            compatibility: reader.bits(32)?,
            constraints: {
                let mut constraints = [0; 6];
                for flags in &mut constraints {
                    *flags = reader.byte()?;
                }
                constraints
            },
            level: reader.byte()?,
        };
        let mut sub_layer_bits = 0;
        for _ in 0..sub_layers {
            let (with_profile, with_level) = (reader.bit()?, reader.bit()?);
            sub_layer_bits += if with_profile { 88 } else { 0 } + if with_level { 8 } else { 0 };
        }
        if sub_layers > 0 {
            reader.skip(2 * (8 - sub_layers as usize))?; // reserved
        }
        reader.skip(sub_layer_bits)?;
        Ok(profile)
    }
}

/// Width and height in pixels after cropping. The coded size is bounded too: that is what a decoder allocates.
fn picture_size(reader: &mut BitReader<'_>, chroma: Chroma) -> Result<(u32, u32), ConfigError> {
    let coded_width = u64::from(reader.unsigned_golomb()?);
    let coded_height = u64::from(reader.unsigned_golomb()?);
    let coded = checked_size(coded_width, coded_height)?;
    if !reader.bit()? {
        return Ok(coded);
    }
    // Offsets count in chroma samples (table 6-1).
    let (unit_x, unit_y) = match chroma {
        Chroma::Yuv420 => (2, 2),
        Chroma::Yuv422 => (2, 1),
        Chroma::Yuv444 | Chroma::Monochrome => (1, 1),
    };
    let mut offset = || reader.unsigned_golomb().map(u64::from);
    let (left, right, top, bottom) = (offset()?, offset()?, offset()?, offset()?);
    let width = coded_width.checked_sub((left + right) * unit_x).ok_or(ConfigError::Cropping)?;
    let height = coded_height.checked_sub((top + bottom) * unit_y).ok_or(ConfigError::Cropping)?;
    Ok(checked_size(width, height)?)
}

/// Everything between the bit depth and the usability information.
fn skip_coding_tools(reader: &mut BitReader<'_>, sub_layers: u32) -> Result<(), ConfigError> {
    let order_bits =
        4 + at_most(12, "log2_max_pic_order_cnt_lsb_minus4", reader.unsigned_golomb()?)? as usize;
    let told = if reader.bit()? { sub_layers + 1 } else { 1 };
    for _ in 0..told {
        at_most(REFERENCES_MAX - 1, "sps_max_dec_pic_buffering_minus1", reader.unsigned_golomb()?)?;
        at_most(REFERENCES_MAX - 1, "sps_max_num_reorder_pics", reader.unsigned_golomb()?)?;
        reader.unsigned_golomb()?; // sps_max_latency_increase_plus1
    }
    // Block sizes are powers of two, 8 to 64 for luma and 4 to 32 for transforms (§7.4.3.2.1).
    for field in [
        "log2_min_luma_coding_block_size_minus3",
        "log2_diff_max_min_luma_coding_block_size",
        "log2_min_luma_transform_block_size_minus2",
        "log2_diff_max_min_luma_transform_block_size",
    ] {
        at_most(3, field, reader.unsigned_golomb()?)?;
    }
    at_most(4, "max_transform_hierarchy_depth_inter", reader.unsigned_golomb()?)?;
    at_most(4, "max_transform_hierarchy_depth_intra", reader.unsigned_golomb()?)?;
    if reader.bit()? && reader.bit()? {
        skip_scaling_lists(reader)?;
    }
    reader.skip(2)?; // amp_enabled_flag, sample_adaptive_offset_enabled_flag
    if reader.bit()? {
        reader.skip(4 + 4)?; // bit depths of PCM blocks
        reader.unsigned_golomb()?; // their sizes
        reader.unsigned_golomb()?;
        reader.skip(1)?; // pcm_loop_filter_disabled_flag
    }
    let sets = at_most(64, "num_short_term_ref_pic_sets", reader.unsigned_golomb()?)?;
    let mut pictures = 0;
    for set in 0..sets {
        pictures = reference_set(reader, set, pictures)?;
    }
    if reader.bit()? {
        let long_term = at_most(32, "num_long_term_ref_pics_sps", reader.unsigned_golomb()?)?;
        reader.skip(long_term as usize * (order_bits + 1))?;
    }
    reader.skip(2)?; // sps_temporal_mvp_enabled_flag, strong_intra_smoothing_enabled_flag
    Ok(())
}

/// §7.3.4.
fn skip_scaling_lists(reader: &mut BitReader<'_>) -> Result<(), ConfigError> {
    for size in 0..4 {
        let matrices = if size == 3 { 2 } else { 6 };
        for _ in 0..matrices {
            if !reader.bit()? {
                reader.unsigned_golomb()?; // scaling_list_pred_matrix_id_delta
                continue;
            }
            if size > 1 {
                reader.signed_golomb()?; // scaling_list_dc_coef_minus8
            }
            for _ in 0..64.min(16 << (2 * size)) {
                reader.signed_golomb()?;
            }
        }
    }
    Ok(())
}

/// Leaves `st_ref_pic_set(set)` behind, §7.3.7, and returns how many pictures it has. Sets may be told as a difference
/// from the one before, which had `previous` pictures.
fn reference_set(reader: &mut BitReader<'_>, set: u32, previous: u32) -> Result<u32, ConfigError> {
    if set > 0 && reader.bit()? {
        reader.skip(1)?; // delta_rps_sign
        reader.unsigned_golomb()?; // abs_delta_rps_minus1
        let mut pictures = 0;
        for _ in 0..=previous {
            let used = reader.bit()?;
            if used || reader.bit()? {
                pictures += 1;
            }
        }
        return at_most(REFERENCES_MAX, "pictures in a reference picture set", pictures);
    }
    let before = at_most(REFERENCES_MAX, "num_negative_pics", reader.unsigned_golomb()?)?;
    let after = at_most(REFERENCES_MAX, "num_positive_pics", reader.unsigned_golomb()?)?;
    let pictures = at_most(REFERENCES_MAX, "pictures in a reference picture set", before + after)?;
    for _ in 0..pictures {
        reader.unsigned_golomb()?; // distance
        reader.skip(1)?; // used by this picture
    }
    Ok(pictures)
}

impl Vui {
    fn parse(reader: &mut BitReader<'_>) -> Result<Self, BitsError> {
        let mut vui = Self::default();
        if reader.bit()? {
            vui.pixel_aspect = pixel_aspect(reader)?;
        }
        if reader.bit()? {
            reader.skip(1)?; // overscan_appropriate_flag
        }
        if reader.bit()? {
            reader.skip(3)?; // video_format
            let full_range = reader.bit()?;
            if reader.bit()? {
                let (primaries, transfer, matrix) = (reader.byte()?, reader.byte()?, reader.byte()?);
                vui.colour = Some(Colour { primaries, transfer, matrix, full_range });
            }
        }
        if reader.bit()? {
            reader.unsigned_golomb()?; // chroma_sample_loc_type_top_field
            reader.unsigned_golomb()?; // chroma_sample_loc_type_bottom_field
        }
        reader.skip(3)?; // neutral chroma, field sequence, frame and field information
        if reader.bit()? {
            for _ in 0..4 {
                reader.unsigned_golomb()?; // default display window
            }
        }
        if reader.bit()? {
            vui.timing = Some(Timing { units_in_tick: reader.bits(32)?, time_scale: reader.bits(32)? });
        }
        Ok(vui)
    }

    pub(super) fn frame_rate(&self) -> Option<f64> {
        let Timing { units_in_tick, time_scale } = self.timing?;
        believable_rate(time_scale, f64::from(units_in_tick))
    }
}

fn at_most(max: u32, field: &'static str, value: u32) -> Result<u32, ConfigError> {
    if value <= max { Ok(value) } else { Err(ConfigError::OutOfRange { field, value }) }
}
