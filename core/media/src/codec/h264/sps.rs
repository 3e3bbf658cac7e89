//! The sequence parameter set, H.264 §7.3.2.1.1 and Annex E.
//!
//! Everything a decoder would allocate or divide by is checked here, before any decoder sees it.

use crate::codec::bits::{BitReader, BitsError, without_emulation_prevention};
use crate::codec::picture::{Chroma, Colour, PixelAspect, believable_rate, checked_size, pixel_aspect};

use super::ConfigError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sps {
    pub(super) profile: u8,
    /// `constraint_set0_flag` to `constraint_set5_flag` and two reserved bits, as they stand.
    pub(super) constraints: u8,
    pub(super) level: u8,
    pub(super) chroma: Chroma,
    pub(super) bit_depth: u8,
    /// After cropping.
    pub(super) width: u32,
    pub(super) height: u32,
    /// `pic_order_cnt_type` 2: pictures are shown in the order they are decoded in (§8.2.1.3).
    shown_as_decoded: bool,
    pub(super) vui: Vui,
}

/// Video usability information, as far as somebody here asks for it. Hints, all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Vui {
    pub(super) pixel_aspect: Option<PixelAspect>,
    pub(super) colour: Option<Colour>,
    timing: Option<Timing>,
    reorder_frames_max: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timing {
    units_in_tick: u32,
    /// Ticks per second; two ticks a frame.
    time_scale: u32,
}

/// Profiles whose parameter set tells chroma, bit depth and scaling (§7.3.2.1.1).
const PROFILES_WITH_CHROMA: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

impl Sps {
    /// `nal` with its one-byte header.
    pub(super) fn parse(nal: &[u8]) -> Result<Self, ConfigError> {
        let payload = without_emulation_prevention(nal);
        let mut reader = BitReader::new(&payload);
        reader.skip(8)?;
        let profile = reader.byte()?;
        let constraints = reader.byte()?;
        let level = reader.byte()?;
        at_most(31, "seq_parameter_set_id", reader.unsigned_golomb()?)?;

        let format = if PROFILES_WITH_CHROMA.contains(&profile) {
            SampleFormat::parse(&mut reader)?
        } else {
            SampleFormat { chroma: Chroma::Yuv420, bit_depth: 8 }
        };
        at_most(12, "log2_max_frame_num_minus4", reader.unsigned_golomb()?)?;
        let shown_as_decoded = picture_order(&mut reader)?;
        at_most(16, "max_num_ref_frames", reader.unsigned_golomb()?)?;
        reader.skip(1)?; // gaps_in_frame_num_value_allowed_flag
        let (width, height) = picture_size(&mut reader, format.chroma)?;

        // Cameras exist whose usability information is cut off or overlong. Nothing in it is needed for
        // decoding, so what cannot be read is not there.
        let vui = if reader.bit()? { Vui::parse(&mut reader).unwrap_or_default() } else { Vui::default() };
        Ok(Self {
            profile,
            constraints,
            level,
            chroma: format.chroma,
            bit_depth: format.bit_depth,
            width,
            height,
            shown_as_decoded,
            vui,
        })
    }

    pub(super) fn reorder_frames_max(&self) -> Option<u8> {
        if self.shown_as_decoded { Some(0) } else { self.vui.reorder_frames_max }
    }
}

struct SampleFormat {
    chroma: Chroma,
    bit_depth: u8,
}

impl SampleFormat {
    fn parse(reader: &mut BitReader<'_>) -> Result<Self, ConfigError> {
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
        let luma = at_most(6, "bit_depth_luma_minus8", reader.unsigned_golomb()?)?;
        let colour = at_most(6, "bit_depth_chroma_minus8", reader.unsigned_golomb()?)?;
        reader.skip(1)?; // qpprime_y_zero_transform_bypass_flag
        if reader.bit()? {
            let lists = if chroma == Chroma::Yuv444 { 12 } else { 8 };
            for list in 0..lists {
                if reader.bit()? {
                    skip_scaling_list(reader, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
        Ok(Self { chroma, bit_depth: 8 + luma.max(colour) as u8 })
    }
}

/// §7.3.2.1.1.1: the list ends early where a difference makes the next scale zero.
fn skip_scaling_list(reader: &mut BitReader<'_>, entries: usize) -> Result<(), ConfigError> {
    let mut scale = 8;
    for _ in 0..entries {
        let delta = reader.signed_golomb()?;
        if !(-128..=127).contains(&delta) {
            return Err(ConfigError::OutOfRange { field: "|delta_scale|", value: delta.unsigned_abs() });
        }
        scale = (scale + delta).rem_euclid(256);
        if scale == 0 {
            break;
        }
    }
    Ok(())
}

/// Whether pictures are shown in the order they are decoded in.
fn picture_order(reader: &mut BitReader<'_>) -> Result<bool, ConfigError> {
    let kind = at_most(2, "pic_order_cnt_type", reader.unsigned_golomb()?)?;
    if kind == 0 {
        at_most(12, "log2_max_pic_order_cnt_lsb_minus4", reader.unsigned_golomb()?)?;
    }
    if kind == 1 {
        reader.skip(1)?; // delta_pic_order_always_zero_flag
        reader.signed_golomb()?; // offset_for_non_ref_pic
        reader.signed_golomb()?; // offset_for_top_to_bottom_field
        let cycle = at_most(255, "num_ref_frames_in_pic_order_cnt_cycle", reader.unsigned_golomb()?)?;
        for _ in 0..cycle {
            reader.signed_golomb()?; // offset_for_ref_frame
        }
    }
    Ok(kind == 2)
}

/// Width and height in pixels after cropping. The coded size is bounded too: that is what a decoder allocates.
fn picture_size(reader: &mut BitReader<'_>, chroma: Chroma) -> Result<(u32, u32), ConfigError> {
    let macroblocks_wide = u64::from(reader.unsigned_golomb()?) + 1;
    let map_units_high = u64::from(reader.unsigned_golomb()?) + 1;
    let frames_only = reader.bit()?;
    if !frames_only {
        reader.skip(1)?; // mb_adaptive_frame_field_flag
    }
    reader.skip(1)?; // direct_8x8_inference_flag

    let fields = if frames_only { 1 } else { 2 };
    let coded_width = macroblocks_wide * 16;
    let coded_height = map_units_high * 16 * fields;
    checked_size(coded_width, coded_height)?;
    if !reader.bit()? {
        return Ok(checked_size(coded_width, coded_height)?);
    }

    // Offsets count in chroma samples, vertically in pairs of them if fields can be coded (§7.4.2.1.1).
    let (unit_x, unit_y) = match chroma {
        Chroma::Yuv420 => (2, 2),
        Chroma::Yuv422 => (2, 1),
        Chroma::Yuv444 | Chroma::Monochrome => (1, 1),
    };
    let mut offset = || reader.unsigned_golomb().map(u64::from);
    let (left, right, top, bottom) = (offset()?, offset()?, offset()?, offset()?);
    let width = coded_width.checked_sub((left + right) * unit_x).ok_or(ConfigError::Cropping)?;
    let height = coded_height.checked_sub((top + bottom) * unit_y * fields).ok_or(ConfigError::Cropping)?;
    Ok(checked_size(width, height)?)
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
        if reader.bit()? {
            vui.timing = Some(Timing { units_in_tick: reader.bits(32)?, time_scale: reader.bits(32)? });
            reader.skip(1)?; // fixed_frame_rate_flag
        }
        let nal_decoder = reader.bit()?;
        if nal_decoder {
            skip_reference_decoder(reader)?;
        }
        let slice_decoder = reader.bit()?;
        if slice_decoder {
            skip_reference_decoder(reader)?;
        }
        if nal_decoder || slice_decoder {
            reader.skip(1)?; // low_delay_hrd_flag
        }
        reader.skip(1)?; // pic_struct_present_flag
        if reader.bit()? {
            reader.skip(1)?; // motion_vectors_over_pic_boundaries_flag
            for _ in 0..4 {
                reader.unsigned_golomb()?; // bytes and bits per picture, lengths of motion vectors
            }
            // Above 255 it is nonsense, and as good as not said.
            vui.reorder_frames_max = u8::try_from(reader.unsigned_golomb()?).ok();
        }
        Ok(vui)
    }

    pub(super) fn frame_rate(&self) -> Option<f64> {
        let Timing { units_in_tick, time_scale } = self.timing?;
        believable_rate(time_scale, 2.0 * f64::from(units_in_tick))
    }
}

/// `hrd_parameters`, §E.1.2.
fn skip_reference_decoder(reader: &mut BitReader<'_>) -> Result<(), BitsError> {
    let buffers = u64::from(reader.unsigned_golomb()?) + 1;
    reader.skip(4 + 4)?; // bit_rate_scale, cpb_size_scale
    for _ in 0..buffers {
        reader.unsigned_golomb()?; // bit_rate_value_minus1
        reader.unsigned_golomb()?; // cpb_size_value_minus1
        reader.skip(1)?; // cbr_flag
    }
    reader.skip(4 * 5) // lengths of delays and offsets
}

fn at_most(max: u32, field: &'static str, value: u32) -> Result<u32, ConfigError> {
    if value <= max { Ok(value) } else { Err(ConfigError::OutOfRange { field, value }) }
}
