use proptest::prelude::*;

use super::*;
use crate::codec::testing::{Bits, hex, unit, with_emulation_prevention};
use crate::codec::{CodecConfig, PICTURE_SIDE};

/// What an encoder wrote, and what it was told to.
struct Sent {
    hvcc: &'static str,
    rfc6381: &'static str,
    size: (u32, u32),
    frame_rate: f64,
    chroma: Chroma,
    bit_depth: u8,
}

/// `hvcC` records that x265 wrote into MP4 files, from ffmpeg 9.0.2's `testsrc2`, without the arrays of SEI messages.
const SENT: [Sent; 5] = [
    Sent {
        hvcc: "0101600000009000000000005df000fcfdf8f800000f03a00001001840010c01ffff01600000030090000003000003005d95940\
               9a10001002b42010101600000030090000003000003005da00280802d16595952930bc05a020000030002000003003c10a2000\
               100064401c073c189",
        rfc6381: "hvc1.1.6.L93.90",
        size: (1280, 720),
        frame_rate: 30.0,
        chroma: Chroma::Yuv420,
        bit_depth: 8,
    },
    // ten bits, BT.2020 and PQ, four B-frames, a hypothetical reference decoder
    Sent {
        hvcc: MAIN_10,
        rfc6381: "hvc1.2.4.L120.90",
        size: (1920, 1080),
        frame_rate: 30_000.0 / 1_001.0,
        chroma: Chroma::Yuv420,
        bit_depth: 10,
    },
    // three temporal layers, scaling lists
    Sent {
        hvcc: "0104080000009d08000000005df000fcfefafa00001b03a00001001d40010c04ffff0408000003009d0800000300005d00009594\
               aca5650240a10001002f4201040408000003009d0800000300005d0000b006c201e1cdb659594aca5654a4e1780b4040000003\
               004000000c82a2000100064401c073c189",
        rfc6381: "hvc1.4.10.L93.9D.8",
        size: (854, 480),
        frame_rate: 50.0,
        chroma: Chroma::Yuv422,
        bit_depth: 10,
    },
    Sent {
        hvcc: WIDE_444,
        rfc6381: "hvc1.4.10.L60.9E.8",
        size: (320, 240),
        frame_rate: 25.0,
        chroma: Chroma::Yuv444,
        bit_depth: 8,
    },
    Sent {
        hvcc: "0104080000009fc8000000003cf000fcfcf8f800000f03a00001001740010c01ffff0408000003009fc800000300003c911409a1\
               0001002a4201010408000003009fc800000300003cc02820307c6e591152930bc05b020000030002000003003210a200010006\
               4401c073c189",
        rfc6381: "hvc1.4.10.L60.9F.C8",
        size: (320, 180),
        frame_rate: 25.0,
        chroma: Chroma::Monochrome,
        bit_depth: 8,
    },
];

const MAIN_10: &str = "01022000000090000000000078f000fcfdfafa00000f03a00001001840010c01ffff0220000003009000000300000300789598\
                       09a100010038420101022000000300900000030000030078a003c08010e4d96566924caf016a1220120800001f480003a98300\
                       a4b3700016e360002dc6c4a2000100074401c172b46240";

/// Pixels of 16:11, full range.
const WIDE_444: &str = "0104080000009e08000000003cf000fcfff8f800000f03a00001001740010c01ffff0408000003009e0800000300003c959409a1\
                        000100284201010408000003009e0800000300003c90014101e2cb2b2a526178236040000003004000000642a2000100084401\
                        c07318301890";

#[test]
fn records_of_a_real_encoder_are_read_as_it_was_told() {
    for sent in SENT {
        let config = parse(sent.hvcc);
        let name = sent.rfc6381;
        assert_eq!(config.rfc6381(), name);
        assert_eq!((config.width(), config.height()), sent.size, "{name}");
        assert_eq!(config.frame_rate(), Some(sent.frame_rate), "{name}");
        assert_eq!((config.chroma(), config.bit_depth()), (sent.chroma, sent.bit_depth), "{name}");
        assert_eq!(config.hvcc()[..], hex(sent.hvcc), "{name}");
    }
}

#[test]
fn shape_and_colour_of_pixels_are_read() {
    assert_eq!(parse(WIDE_444).pixel_aspect(), Some(PixelAspect { horizontal: 16, vertical: 11 }));
    let pq = Colour { primaries: 9, transfer: 16, matrix: 9, full_range: false };
    assert_eq!(parse(MAIN_10).colour(), Some(pq));
}

/// A WebRTC publisher sends parameter sets only.
#[test]
fn a_record_is_made_of_parameter_sets() {
    for sent in [parse(MAIN_10), parse(WIDE_444)] {
        let (mut sets, mut rest) = ([const { Vec::new() }; 3], &sent.hvcc()[23..]);
        while let Some((&[kind, 0, 1], after)) = rest.split_first_chunk() {
            rest = after;
            let nal = nal::prefixed(&mut rest).unwrap();
            if let Some(sets) = sets.get_mut(usize::from(kind & 0x3F) - usize::from(NAL_VPS)) {
                sets.push(Bytes::copy_from_slice(nal));
            }
        }
        let made = Config::from_parameter_sets(&sets[0], &sets[1], &sets[2]).unwrap();
        let told = |config: &Config| (config.rfc6381(), config.width(), config.bit_depth(), config.chroma());
        assert_eq!(told(&made), told(&sent));
        // But for how many layers there are, which it does not say.
        assert_eq!(made.hvcc()[..12], sent.hvcc()[..12]);
        assert_eq!(made.hvcc()[15..21], sent.hvcc()[15..21]);
        assert_eq!(Config::from_parameter_sets(&[], &sets[1], &sets[2]), Err(ConfigError::Missing("video")));
        assert_eq!(
            Config::from_parameter_sets(&sets[0], &[], &sets[2]),
            Err(ConfigError::Missing("sequence"))
        );
    }
}

#[test]
fn a_record_cut_anywhere_is_refused() {
    let whole = hex(MAIN_10);
    for length in 0..whole.len() {
        assert!(Config::parse(Bytes::copy_from_slice(&whole[..length])).is_err(), "{length} bytes");
    }
}

#[test]
fn records_that_break_the_rules_are_refused_by_name() {
    let sps = SpsWriter::default().build();
    let (vps_array, sps_array, pps_array) =
        ((NAL_VPS, &[VPS][..]), (NAL_SPS, &[sps.as_slice()][..]), (NAL_PPS, &[PPS][..]));
    assert!(Config::parse(record(3, &[vps_array, sps_array, pps_array])).is_ok());
    assert!(Config::parse(record(3, &[sps_array, pps_array, vps_array])).is_ok(), "in any order");

    let refused = |record: Bytes| Config::parse(record).unwrap_err();
    assert_eq!(refused(record(2, &[vps_array, sps_array, pps_array])), ConfigError::NalLength);
    assert_eq!(refused(record(3, &[sps_array, pps_array])), ConfigError::Missing("video"));
    assert_eq!(refused(record(3, &[vps_array, pps_array])), ConfigError::Missing("sequence"));
    assert_eq!(refused(record(3, &[vps_array, sps_array])), ConfigError::Missing("picture"));
    let swapped = record(3, &[(NAL_SPS, &[PPS]), vps_array, pps_array]);
    assert_eq!(refused(swapped), ConfigError::NotAParameterSet);
    assert_eq!(refused(record(3, &[(NAL_SPS, &[&[]])])), ConfigError::NotAParameterSet);
    // Four billion parameter sets declared, none sent.
    assert_eq!(
        refused([&record(3, &[])[..22], &[1, NAL_PPS, 0xFF, 0xFF]].concat().into()),
        ConfigError::Truncated
    );

    let mut version_two = record(3, &[vps_array, sps_array, pps_array]).to_vec();
    version_two[0] = 2;
    assert_eq!(refused(version_two.into()), ConfigError::Version { version: 2 });
    let bytes = HVCC_BYTES_MAX + 1;
    assert_eq!(refused(vec![1; bytes].into()), ConfigError::TooLong { bytes });
}

/// Threat: a parameter set that makes a decoder allocate gigabytes, divide by zero or count below zero.
#[test]
fn hostile_parameter_sets_are_refused() {
    let base = SpsWriter::default();
    let size = |width, height| ConfigError::Size(SizeError { width, height });
    assert_eq!(refused(SpsWriter { size: [0, 0], ..base }), size(0, 0));
    assert_eq!(refused(SpsWriter { size: [65_536, 65_536], ..base }), size(65_536, 65_536));
    let widest = SpsWriter { size: [u32::MAX - 1, 720], ..base };
    assert_eq!(refused(widest), size(u64::from(u32::MAX) - 1, 720));
    // Cropping does not hide what a decoder would allocate.
    assert_eq!(
        refused(SpsWriter { size: [65_536, 720], crop: [0, 32_128, 0, 0], ..base }),
        size(65_536, 720)
    );
    // 1280x720, cropped to nothing, to less than nothing, and to a sliver.
    assert_eq!(refused(SpsWriter { crop: [0, 640, 0, 360], ..base }), size(0, 0));
    assert_eq!(refused(SpsWriter { crop: [0, 641, 0, 0], ..base }), ConfigError::Cropping);
    assert_eq!(refused(SpsWriter { crop: [u32::MAX - 1; 4], ..base }), ConfigError::Cropping);
    assert_eq!(refused(SpsWriter { crop: [0, 636, 0, 0], ..base }), size(8, 720));

    let out_of_range = |field, value| ConfigError::OutOfRange { field, value };
    let deep = SpsWriter { bit_depth_minus8: 9, ..base };
    assert_eq!(refused(deep), out_of_range("bit_depth_luma_minus8", 9));
    let buffers = SpsWriter { references: 1_000_000, ..base };
    assert_eq!(refused(buffers), out_of_range("sps_max_dec_pic_buffering_minus1", 1_000_000));
    let sets = SpsWriter { reference_sets: 65, ..base };
    assert_eq!(refused(sets), out_of_range("num_short_term_ref_pic_sets", 65));
    let set = SpsWriter { reference_sets: 1, pictures_in_set: u32::MAX - 1, ..base };
    assert_eq!(refused(set), out_of_range("num_negative_pics", u32::MAX - 1));
    for (at, field) in [
        (0, "log2_min_luma_coding_block_size_minus3"),
        (1, "log2_diff_max_min_luma_coding_block_size"),
        (2, "log2_min_luma_transform_block_size_minus2"),
        (3, "log2_diff_max_min_luma_transform_block_size"),
        (4, "max_transform_hierarchy_depth_inter"),
        (5, "max_transform_hierarchy_depth_intra"),
    ] {
        let mut blocks = base.blocks;
        blocks[at] = 5;
        assert_eq!(refused(SpsWriter { blocks, ..base }), out_of_range(field, 5));
    }
    let long_term = SpsWriter { long_term: Some(33), ..base };
    assert_eq!(refused(long_term), out_of_range("num_long_term_ref_pics_sps", 33));
    // A set that is told as a difference has a picture more than the one before it.
    let grown = SpsWriter { reference_sets: 2, pictures_in_set: 16, predicted: true, ..base };
    assert_eq!(refused(grown), out_of_range("pictures in a reference picture set", 17));
    written(SpsWriter { reference_sets: 2, pictures_in_set: 15, predicted: true, ..base });
}

#[test]
fn a_frame_rate_that_divides_by_zero_is_no_frame_rate() {
    let rate = |timing| written(SpsWriter { timing: Some(timing), ..SpsWriter::default() }).frame_rate();
    assert_eq!(rate([1_001, 60_000]), Some(60_000.0 / 1_001.0));
    assert_eq!(rate([0, 60_000]), None);
    assert_eq!(rate([0, 0]), None);
    assert_eq!(rate([1, u32::MAX]), None);
}

/// Only IDR and BLA begin anew; CRA may lean on what was before (§7.4.2.2, table 7-1).
#[test]
fn the_bitstream_says_where_decoding_can_start() {
    let config = parse(MAIN_10);
    let (parameter_sets, sei) = ([0x42, 1], [0x4E, 1]);
    for (kind, access) in [
        (0, Access::None),
        (1, Access::None),
        (9, Access::None),
        (16, Access::Key),
        (17, Access::Key),
        (18, Access::Key),
        (19, Access::Key),
        (20, Access::Key),
        (21, Access::OpenGop),
        (22, Access::None),
    ] {
        let slice = [kind << 1, 1, 0x80];
        assert_eq!(config.access(&unit(4, &[&parameter_sets, &sei, &slice])), Ok(access), "type {kind}");
    }
    assert_eq!(config.access(&[]), Ok(Access::None));
    assert_eq!(config.access(&unit(4, &[&[]])), Ok(Access::None));
    assert_eq!(config.access(&[0, 0, 0, 9, 0x26]), Err(UnitError::Truncated));
}

fn check_any(hvcc: Vec<u8>) -> Result<(), TestCaseError> {
    if let Ok(config) = Config::parse(hvcc.into()) {
        prop_assert!(PICTURE_SIDE.contains(&config.width()) && PICTURE_SIDE.contains(&config.height()));
        prop_assert!(config.frame_rate().is_none_or(|rate| (1.0..=300.0).contains(&rate)));
        config.rfc6381();
        crate::cmaf::init_segment(&CodecConfig::H265(config));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_record_never_panics(hvcc in any::<Vec<u8>>()) {
        check_any(hvcc)?;
    }

    #[test]
    fn a_real_record_with_bits_flipped_never_panics(
        of in 0..SENT.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u32..8), 1..8),
    ) {
        let mut hvcc = hex(SENT[of].hvcc);
        for (at, bit) in flips {
            let at = at.index(hvcc.len());
            hvcc[at] ^= 1u8 << bit;
        }
        check_any(hvcc)?;
    }

    #[test]
    fn any_parameter_set_never_panics(rest in any::<Vec<u8>>()) {
        let sps = [&[0x42, 1], rest.as_slice()].concat();
        let sets: [(u8, &[&[u8]]); 3] = [(NAL_VPS, &[VPS]), (NAL_SPS, &[&sps]), (NAL_PPS, &[PPS])];
        check_any(record(3, &sets).to_vec())?;
    }

    #[test]
    fn any_unit_never_panics(unit in any::<Vec<u8>>()) {
        let _ = parse(MAIN_10).access(&unit);
    }
}

const VPS: &[u8] = &[0x40, 0x01, 0x0C];
const PPS: &[u8] = &[0x44, 0x01, 0xC0];

fn parse(hvcc: &str) -> Config {
    Config::parse(hex(hvcc).into()).unwrap()
}

fn written(sps: SpsWriter) -> Config {
    let sps = sps.build();
    let sets: [(u8, &[&[u8]]); 3] = [(NAL_VPS, &[VPS]), (NAL_SPS, &[&sps]), (NAL_PPS, &[PPS])];
    Config::parse(record(3, &sets)).unwrap()
}

fn refused(sps: SpsWriter) -> ConfigError {
    Config::parse(record(3, &[(NAL_SPS, &[&sps.build()])])).unwrap_err()
}

/// A record of these arrays.
fn record(length_size_minus_one: u8, arrays: &[(u8, &[&[u8]])]) -> Bytes {
    let mut record = vec![1; 23];
    record[21] = 0x0C | length_size_minus_one;
    record[22] = arrays.len() as u8;
    for (kind, nals) in arrays {
        record.push(0x80 | kind);
        record.extend((nals.len() as u16).to_be_bytes());
        record.extend(unit(2, nals));
    }
    record.into()
}

/// Writes a Main profile parameter set; 1280x720 unless told otherwise.
#[derive(Clone, Copy)]
struct SpsWriter {
    size: [u32; 2],
    /// Left, right, top, bottom, in units of two pixels.
    crop: [u32; 4],
    bit_depth_minus8: u32,
    references: u32,
    reference_sets: u32,
    pictures_in_set: u32,
    /// All sets but the first are differences from the one before.
    predicted: bool,
    /// Block sizes, and how deep transforms nest.
    blocks: [u32; 6],
    long_term: Option<u32>,
    /// `num_units_in_tick`, `time_scale`.
    timing: Option<[u32; 2]>,
}

impl Default for SpsWriter {
    fn default() -> Self {
        Self {
            size: [1280, 720],
            crop: [0; 4],
            bit_depth_minus8: 0,
            references: 1,
            reference_sets: 0,
            pictures_in_set: 0,
            predicted: false,
            blocks: [0, 3, 0, 3, 0, 0],
            long_term: None,
            timing: None,
        }
    }
}

impl SpsWriter {
    fn build(self) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.field(0x4201, 16);
        bits.field(0b0000_0001, 8); // one sub-layer, nested
        bits.field(0b0000_0001, 8); // Main
        bits.field(0x6000_0000, 32);
        bits.field(0x9000_0000, 32);
        bits.field(0, 16);
        bits.field(93, 8);
        bits.golomb(0); // id
        bits.golomb(1); // 4:2:0
        self.size.into_iter().for_each(|side| bits.golomb(side));
        bits.field(1, 1);
        self.crop.into_iter().for_each(|offset| bits.golomb(offset));
        bits.golomb(self.bit_depth_minus8);
        bits.golomb(self.bit_depth_minus8);
        bits.golomb(4);
        bits.field(0, 1);
        bits.golomb(self.references);
        bits.golomb(0);
        bits.golomb(0);
        self.blocks.into_iter().for_each(|size| bits.golomb(size));
        bits.field(0, 1 + 2 + 1); // scaling lists, tools, PCM
        bits.golomb(self.reference_sets);
        for set in 0..self.reference_sets {
            if set > 0 && self.predicted {
                bits.field(0b11, 2); // a difference, of this sign
                bits.golomb(0);
                // One more than before, and all of them used.
                (0..=self.pictures_in_set).for_each(|_| bits.field(1, 1));
                continue;
            }
            bits.field(0, u32::from(set > 0));
            bits.golomb(self.pictures_in_set);
            bits.golomb(0);
            // What follows a refused count does not matter.
            for _ in 0..self.pictures_in_set.min(16) {
                bits.golomb(0);
                bits.field(1, 1);
            }
        }
        bits.field(u32::from(self.long_term.is_some()), 1);
        self.long_term.into_iter().for_each(|pictures| bits.golomb(pictures));
        bits.field(0, 2); // tools
        bits.field(u32::from(self.timing.is_some()), 1);
        if let Some([units_in_tick, time_scale]) = self.timing {
            bits.field(0, 4 + 3 + 1); // aspect, overscan, signal, chroma; field flags; window
            bits.field(1, 1);
            bits.field(units_in_tick, 32);
            bits.field(time_scale, 32);
            bits.field(0, 2); // tick proportion, reference decoder
            bits.field(0, 1); // restrictions
        }
        bits.field(0, 1); // extension
        bits.field(1, 1);
        with_emulation_prevention(&bits.into_bytes())
    }
}
