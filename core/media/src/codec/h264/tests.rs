use proptest::prelude::*;

use super::*;
use crate::codec::CodecConfig;
use crate::codec::testing::{Bits, hex, unit, with_emulation_prevention};

/// What an encoder wrote, and what it was told to.
struct Sent {
    avcc: &'static str,
    rfc6381: &'static str,
    size: (u32, u32),
    frame_rate: f64,
    reorder_frames_max: u8,
    chroma: Chroma,
    bit_depth: u8,
}

/// `avcC` records that x264 164 wrote into FLV files, from ffmpeg 5.1's `testsrc2` with `-profile:v` and
/// `-pix_fmt` as named.
const SENT: [Sent; 8] = [
    // baseline
    Sent {
        avcc: "0142c01effe100196742c01ed900a02ff970110000030001000003003c0f162e4801000568cb83cb20",
        rfc6381: "avc1.42c01e",
        size: (640, 360),
        frame_rate: 30.0,
        reorder_frames_max: 0,
        chroma: Chroma::Yuv420,
        bit_depth: 8,
    },
    // main, two B-frames, 30000/1001 frames per second
    Sent {
        avcc: "014d401fffe10017674d401feca02802dd808800001f480007530078c18cb001000568ebe3cb20",
        rfc6381: "avc1.4d401f",
        size: (1280, 720),
        frame_rate: 30_000.0 / 1_001.0,
        reorder_frames_max: 2,
        chroma: Chroma::Yuv420,
        bit_depth: 8,
    },
    // high, coded as 1920x1088 and cropped, BT.709
    Sent {
        avcc: HIGH_1080,
        rfc6381: "avc1.640028",
        size: (1920, 1080),
        frame_rate: 25.0,
        reorder_frames_max: 2,
        chroma: Chroma::Yuv420,
        bit_depth: 8,
    },
    // high422, ten bits
    Sent {
        avcc: "017a0020ffe1001a677a0020b6cd9405005bb011000003000100000300640f18319601000668ebe3cb22c0fefafa00",
        rfc6381: "avc1.7a0020",
        size: (1280, 720),
        frame_rate: 50.0,
        reorder_frames_max: 2,
        chroma: Chroma::Yuv422,
        bit_depth: 10,
    },
    // high444
    Sent {
        avcc: "01f4000dffe1001967f4000d919b28283f6022000003000200000300781e28532c01000668ebe3c44844fff8f800",
        rfc6381: "avc1.f4000d",
        size: (320, 240),
        frame_rate: 30.0,
        reorder_frames_max: 2,
        chroma: Chroma::Yuv444,
        bit_depth: 8,
    },
    // high, grey
    Sent {
        avcc: "0164000dffe100196764000df3650507ec05b2000003000200000300781e28532c01000668ebe3cb22c0fcf8f800",
        rfc6381: "avc1.64000d",
        size: (320, 240),
        frame_rate: 30.0,
        reorder_frames_max: 2,
        chroma: Chroma::Monochrome,
        bit_depth: 8,
    },
    // high, cropped in both directions' units, zerolatency
    Sent {
        avcc: "0164001fffe1001a6764001facb201b07bcde022000003000200000300791e30649001000668ebc3cb22c0fdf8f800",
        rfc6381: "avc1.64001f",
        size: (854, 480),
        frame_rate: 30.0,
        reorder_frames_max: 0,
        chroma: Chroma::Yuv420,
        bit_depth: 8,
    },
    // high with a hypothetical reference decoder, nal-hrd=cbr
    Sent {
        avcc: "0164001fffe100246764001facd9405005bb0110000003001000000303c604000f424001e84e4c30078c18cb\
               01000568ebecb22cfdf8f800",
        rfc6381: "avc1.64001f",
        size: (1280, 720),
        frame_rate: 30.0,
        reorder_frames_max: 2,
        chroma: Chroma::Yuv420,
        bit_depth: 8,
    },
];

const HIGH_1080: &str =
    "01640028ffe1001e67640028acd940780227e5c05a808080a0000003002000000641e30632c001000668ebe3cb22c0fdf8f800";

/// 720x576 interlaced with pixels of 16:11.
const INTERLACED_WIDE: &str =
    "0164001effe100186764001eacd940b424d8208000000300800000190f8a14cb01000668fba3cb22c0fdf8f800";

/// The scaling matrices of the standard's JVT set live in the picture parameter set, which is only carried.
const JVT_SCALING: &str =
    "0164001fffe1001a6764001facd9405005bb0110000003001000000303c0f183196001000768ebe3cb3002c0fdf8f800";

#[test]
fn records_of_a_real_encoder_are_read_as_it_was_told() {
    for sent in SENT {
        let config = parse(sent.avcc);
        assert_eq!(config.rfc6381(), sent.rfc6381);
        let name = sent.rfc6381;
        assert_eq!((config.width(), config.height()), sent.size, "{name}");
        assert_eq!(config.frame_rate(), Some(sent.frame_rate), "{name}");
        assert_eq!(config.reorder_frames_max(), Some(sent.reorder_frames_max), "{name}");
        assert_eq!((config.chroma(), config.bit_depth()), (sent.chroma, sent.bit_depth), "{name}");
        assert_eq!(config.nal_length_bytes(), 4, "{name}");
        assert_eq!(config.avcc()[..], hex(sent.avcc), "{name}");
    }
}

#[test]
fn shape_and_colour_of_pixels_are_read() {
    let wide = parse(INTERLACED_WIDE);
    assert_eq!((wide.width(), wide.height(), wide.frame_rate()), (720, 576, Some(25.0)));
    assert_eq!(wide.pixel_aspect(), Some(PixelAspect { horizontal: 16, vertical: 11 }));

    let bt709 = Colour { primaries: 1, transfer: 1, matrix: 1, full_range: false };
    assert_eq!(parse(HIGH_1080).colour(), Some(bt709));
    assert_eq!(parse(HIGH_1080).pixel_aspect(), Some(PixelAspect { horizontal: 1, vertical: 1 }));
    assert_eq!(parse(JVT_SCALING).height(), 720);
}

#[test]
fn a_record_cut_anywhere_is_refused_or_says_the_same() {
    let whole = hex(HIGH_1080);
    let extension_bytes = 4;
    for length in 0..whole.len() {
        let cut = Config::parse(Bytes::copy_from_slice(&whole[..length]));
        if length < whole.len() - extension_bytes {
            assert!(cut.is_err(), "{length} bytes");
        } else {
            assert_eq!(cut.unwrap().rfc6381(), "avc1.640028", "{length} bytes");
        }
    }
}

/// A camera's broken usability information costs the hints in it, not the stream.
#[test]
fn a_parameter_set_cut_anywhere_is_refused_until_only_hints_are_missing() {
    let whole = hex(HIGH_1080);
    let sps = &whole[8..8 + 0x1E];
    let first_hint = 12;
    for length in 1..sps.len() {
        let cut = Config::parse(record(3, &[&sps[..length]], &[PPS]));
        if length < first_hint {
            assert_eq!(cut.unwrap_err(), ConfigError::Truncated, "{length} bytes");
        } else {
            assert_eq!(cut.unwrap().height(), 1080, "{length} bytes");
        }
    }
}

#[test]
fn records_that_break_the_rules_are_refused_by_name() {
    let sps = SpsWriter::default().build();
    let sets = [sps.as_slice()];
    assert!(Config::parse(record(3, &sets, &[PPS])).is_ok());

    let refused = |record: Bytes| Config::parse(record).unwrap_err();
    assert_eq!(refused(record(2, &sets, &[PPS])), ConfigError::NalLength);
    assert_eq!(refused(record(3, &[], &[PPS])), ConfigError::NoSps);
    assert_eq!(refused(record(3, &sets, &[])), ConfigError::NoPps);
    assert_eq!(refused(record(3, &[PPS], &[PPS])), ConfigError::NotAParameterSet);
    assert_eq!(refused(record(3, &[&[]], &[PPS])), ConfigError::NotAParameterSet);
    assert_eq!(refused(record(3, &sets, &[&sps])), ConfigError::NotAParameterSet);
    assert_eq!(refused(Bytes::new()), ConfigError::Truncated);

    let mut version_two = record(3, &sets, &[PPS]).to_vec();
    version_two[0] = 2;
    assert_eq!(refused(version_two.into()), ConfigError::Version { version: 2 });

    let bytes = AVCC_BYTES_MAX + 1;
    assert_eq!(refused(vec![1; bytes].into()), ConfigError::TooLong { bytes });
}

#[test]
fn every_length_size_and_several_parameter_sets_are_taken() {
    let small = SpsWriter { macroblocks_wide: 40, map_units_high: 30, ..SpsWriter::default() }.build();
    let large = SpsWriter::default().build();
    for (length_size_minus_one, bytes) in [(0, 1), (1, 2), (3, 4)] {
        let config = Config::parse(record(length_size_minus_one, &[&small, &large], &[PPS, PPS])).unwrap();
        assert_eq!(config.nal_length_bytes(), bytes);
        assert_eq!((config.width(), config.height()), (640, 480));
        assert_eq!(config.parameter_sets(), [&small[..], &large, PPS, PPS]);
    }
    let hostile = SpsWriter { macroblocks_wide: 4096, ..SpsWriter::default() }.build();
    assert!(Config::parse(record(3, &[&small, &hostile], &[PPS])).is_err(), "a hostile second one");
}

/// Threat: a parameter set that makes a decoder allocate gigabytes, divide by zero or count below zero.
#[test]
fn hostile_sizes_are_refused() {
    let base = SpsWriter::default();
    let refused = |sps: SpsWriter| Config::parse(record(3, &[&sps.build()], &[PPS])).unwrap_err();

    // 1280x720, cropped to nothing, to less than nothing, and to a sliver.
    let nothing = refused(SpsWriter { crop: Some([0, 640, 0, 360]), ..base });
    assert_eq!(nothing, ConfigError::Size(SizeError { width: 0, height: 0 }));
    assert_eq!(refused(SpsWriter { crop: Some([0, 641, 0, 0]), ..base }), ConfigError::Cropping);
    assert_eq!(refused(SpsWriter { crop: Some([u32::MAX - 1; 4]), ..base }), ConfigError::Cropping);
    let sliver = refused(SpsWriter { crop: Some([0, 636, 0, 0]), ..base });
    assert_eq!(sliver, ConfigError::Size(SizeError { width: 8, height: 720 }));

    let huge = refused(SpsWriter { macroblocks_wide: 4096, map_units_high: 4096, ..base });
    assert_eq!(huge, ConfigError::Size(SizeError { width: 65_536, height: 65_536 }));
    // Cropping does not hide what a decoder would allocate.
    let hidden = SpsWriter { macroblocks_wide: 4096, crop: Some([0, 32_128, 0, 0]), ..base };
    assert_eq!(refused(hidden), ConfigError::Size(SizeError { width: 65_536, height: 720 }));
    let widest = refused(SpsWriter { macroblocks_wide: u32::MAX, ..base });
    assert_eq!(widest, ConfigError::Size(SizeError { width: 16 * u64::from(u32::MAX), height: 720 }));
}

#[test]
fn hostile_numbers_are_refused() {
    let field = |sps: SpsWriter| match Config::parse(record(3, &[&sps.build()], &[PPS])) {
        Err(ConfigError::OutOfRange { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let base = SpsWriter::default();
    assert_eq!(field(SpsWriter { id: 32, ..base }), "seq_parameter_set_id");
    assert_eq!(field(SpsWriter { references: 17, ..base }), "max_num_ref_frames");
    assert_eq!(field(SpsWriter { references: u32::MAX - 1, ..base }), "max_num_ref_frames");
    assert_eq!(field(SpsWriter { order: 3, ..base }), "pic_order_cnt_type");
    assert_eq!(field(SpsWriter { frame_number_bits: 13, ..base }), "log2_max_frame_num_minus4");
    assert_eq!(field(SpsWriter { order_bits: 13, ..base }), "log2_max_pic_order_cnt_lsb_minus4");
    let cycle = SpsWriter { order: 1, order_cycle: 256, ..base };
    assert_eq!(field(cycle), "num_ref_frames_in_pic_order_cnt_cycle");
    let high = |format: HighFormat| match Config::parse(record(3, &[&format.build()], &[PPS])) {
        Err(ConfigError::OutOfRange { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    let honest = HighFormat { chroma: 1, luma_minus8: 0, chroma_minus8: 0, delta_scale: 0 };
    assert!(Config::parse(record(3, &[&honest.build()], &[PPS])).is_ok());
    assert_eq!(high(HighFormat { chroma: 4, ..honest }), "chroma_format_idc");
    assert_eq!(high(HighFormat { luma_minus8: 7, ..honest }), "bit_depth_luma_minus8");
    assert_eq!(high(HighFormat { chroma_minus8: 248, ..honest }), "bit_depth_chroma_minus8");
    // 128, as a signed code.
    assert_eq!(high(HighFormat { delta_scale: 255, ..honest }), "|delta_scale|");

    // Sixty-four zeros: an exponential-Golomb code without end.
    let endless = [&[0x67, 66, 0, 31][..], &[0; 8]].concat();
    assert_eq!(
        Config::parse(record(3, &[&with_emulation_prevention(&endless)], &[PPS])).unwrap_err(),
        ConfigError::NumberTooLong
    );
}

/// A clock without ticks, or with absurdly many, is no frame rate; the stream itself is fine.
#[test]
fn a_frame_rate_that_cannot_be_is_not_told() {
    let rate = |units_in_tick, time_scale| {
        let sps = SpsWriter { timing: Some([units_in_tick, time_scale]), ..SpsWriter::default() }.build();
        Config::parse(record(3, &[&sps], &[PPS])).unwrap().frame_rate()
    };
    assert_eq!(rate(1, 60), Some(30.0));
    for (units_in_tick, time_scale) in [(0, 60), (1, 0), (0, 0), (1, 2_000), (u32::MAX, 1), (1, u32::MAX)] {
        assert_eq!(rate(units_in_tick, time_scale), None, "{units_in_tick} {time_scale}");
    }
}

#[test]
fn only_an_encoder_that_says_so_promises_no_reordering() {
    let reorder =
        |sps: SpsWriter| Config::parse(record(3, &[&sps.build()], &[PPS])).unwrap().reorder_frames_max();
    assert_eq!(reorder(SpsWriter::default()), None);
    assert_eq!(reorder(SpsWriter { order: 2, ..SpsWriter::default() }), Some(0));
}

#[test]
fn a_keyframe_is_what_the_bitstream_says() {
    let config = parse(HIGH_1080);
    let (slice, idr, sei, delimiter) = ([0x41, 0x9A], [0x65, 0x88], [0x06, 0x05], [0x09, 0xF0]);
    let sps: &[u8] = &[0x67, 0x64];
    let cases: [(&[&[u8]], bool); 8] = [
        (&[&sei, &idr], true),
        (&[&delimiter, sps, PPS, &idr, &idr], true),
        (&[&slice], false),
        (&[&delimiter, &slice, &slice], false),
        // New parameter sets and a recovery point are not yet a picture to start at.
        (&[sps, PPS, &sei, &slice], false),
        (&[&[], &idr, &[]], true),
        (&[&[]], false),
        (&[], false),
    ];
    for (nals, key) in cases {
        assert_eq!(config.is_idr(&unit(4, nals)), Ok(key), "{nals:02x?}");
    }
}

#[test]
fn a_unit_cut_anywhere_but_between_nals_is_refused() {
    let sps = SpsWriter::default().build();
    for (length_size_minus_one, length_bytes) in [(0, 1), (1, 2), (3, 4)] {
        let config = Config::parse(record(length_size_minus_one, &[&sps], &[PPS])).unwrap();
        let whole = unit(length_bytes, &[&[0x06, 1, 2, 3], &[0x65, 1, 2, 3, 4]]);
        let between = length_bytes + 4;
        assert_eq!(config.is_idr(&whole), Ok(true));
        for cut in 0..whole.len() {
            let expected = if cut == 0 || cut == between { Ok(false) } else { Err(UnitError::Truncated) };
            assert_eq!(config.is_idr(&whole[..cut]), expected, "{cut} bytes");
        }
    }
    // Annex B start codes: a NAL unit of one byte, then a length of 0x64001FAC.
    assert!(parse(HIGH_1080).is_idr(&[0, 0, 0, 1, 0x67, 0x64, 0x00, 0x1F, 0xAC]).is_err());
    assert_eq!(parse(HIGH_1080).is_idr(&[0xFF; 4]), Err(UnitError::Truncated));
}

fn check_any(avcc: Vec<u8>) -> Result<(), TestCaseError> {
    if let Ok(config) = Config::parse(avcc.into()) {
        prop_assert!(PICTURE_SIDE.contains(&config.width()) && PICTURE_SIDE.contains(&config.height()));
        prop_assert!(config.frame_rate().is_none_or(|rate| (1.0..=300.0).contains(&rate)));
        crate::cmaf::init_segment(&CodecConfig::H264(config));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_record_never_panics(avcc in any::<Vec<u8>>()) {
        check_any(avcc)?;
    }

    #[test]
    fn a_real_record_with_bits_flipped_never_panics(
        of in 0..SENT.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u32..8), 1..8),
    ) {
        let mut avcc = hex(SENT[of].avcc);
        for (at, bit) in flips {
            let at = at.index(avcc.len());
            avcc[at] ^= 1u8 << bit;
        }
        check_any(avcc)?;
    }

    #[test]
    fn any_parameter_set_never_panics(profile in prop::sample::select(vec![66u8, 100, 244]), rest in any::<Vec<u8>>()) {
        let sps = [&[0x67, profile, 0, 31], rest.as_slice()].concat();
        check_any(record(3, &[&sps], &[PPS]).to_vec())?;
    }

    #[test]
    fn any_unit_never_panics(unit in any::<Vec<u8>>(), length_size_minus_one in prop::sample::select(vec![0u8, 1, 3])) {
        let sps = SpsWriter::default().build();
        let config = Config::parse(record(length_size_minus_one, &[&sps], &[PPS])).unwrap();
        let _ = config.is_idr(&unit);
    }
}

const PPS: &[u8] = &[0x68, 0xEB, 0xE3, 0xCB];

fn parse(avcc: &str) -> Config {
    Config::parse(hex(avcc).into()).unwrap()
}

fn record(length_size_minus_one: u8, sps: &[&[u8]], pps: &[&[u8]]) -> Bytes {
    let mut record = vec![1, 66, 0, 31, 0xFC | length_size_minus_one, 0xE0 | sps.len() as u8];
    record.extend(unit(2, sps));
    record.push(pps.len() as u8);
    record.extend(unit(2, pps));
    record.into()
}

/// Writes a Baseline parameter set; 1280x720 unless told otherwise.
#[derive(Clone, Copy)]
struct SpsWriter {
    id: u32,
    frame_number_bits: u32,
    order: u32,
    order_bits: u32,
    order_cycle: u32,
    references: u32,
    macroblocks_wide: u32,
    map_units_high: u32,
    /// Left, right, top, bottom, in units of two pixels.
    crop: Option<[u32; 4]>,
    /// `num_units_in_tick`, `time_scale`.
    timing: Option<[u32; 2]>,
}

impl Default for SpsWriter {
    fn default() -> Self {
        let (macroblocks_wide, map_units_high) = (80, 45);
        Self {
            id: 0,
            frame_number_bits: 0,
            order: 0,
            order_bits: 0,
            order_cycle: 0,
            references: 1,
            macroblocks_wide,
            map_units_high,
            crop: None,
            timing: None,
        }
    }
}

impl SpsWriter {
    fn build(self) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.golomb(self.id);
        bits.golomb(self.frame_number_bits);
        bits.golomb(self.order);
        if self.order == 0 {
            bits.golomb(self.order_bits);
        }
        if self.order == 1 {
            bits.field(0b011, 3);
            bits.golomb(self.order_cycle);
            (0..self.order_cycle).for_each(|_| bits.golomb(0));
        }
        bits.golomb(self.references);
        bits.field(0, 1);
        bits.golomb(self.macroblocks_wide - 1);
        bits.golomb(self.map_units_high - 1);
        bits.field(0b11, 2);
        bits.field(u32::from(self.crop.is_some()), 1);
        self.crop.into_iter().flatten().for_each(|offset| bits.golomb(offset));
        bits.field(u32::from(self.timing.is_some()), 1);
        if let Some([units_in_tick, time_scale]) = self.timing {
            bits.field(0b0_0001, 5);
            bits.field(units_in_tick, 32);
            bits.field(time_scale, 32);
            bits.field(0, 5);
        }
        bits.field(1, 1);
        let sps = [&[0x67, 66, 0, 31], bits.into_bytes().as_slice()].concat();
        with_emulation_prevention(&sps)
    }
}

/// What only a High profile tells, up to its first scaling list.
#[derive(Clone, Copy)]
struct HighFormat {
    chroma: u32,
    luma_minus8: u32,
    chroma_minus8: u32,
    delta_scale: u32,
}

impl HighFormat {
    /// Followed by what is honest, so that only the format can be refused.
    fn build(self) -> Vec<u8> {
        let mut bits = Bits::default();
        bits.golomb(0);
        bits.golomb(self.chroma);
        bits.golomb(self.luma_minus8);
        bits.golomb(self.chroma_minus8);
        bits.field(0b011, 3); // a matrix, and its first list
        bits.golomb(self.delta_scale);
        (1..16).for_each(|_| bits.golomb(0));
        bits.field(0, 7);
        [0, 0, 0, 1].into_iter().for_each(|number| bits.golomb(number));
        bits.field(0, 1);
        [79, 44].into_iter().for_each(|side| bits.golomb(side));
        bits.field(0b1_1001, 5); // frames only, nothing else, and the end
        with_emulation_prevention(&[&[0x67, 100, 0, 31], bits.into_bytes().as_slice()].concat())
    }
}

/// The first parameter sets of a record.
fn parameter_sets(avcc: &[u8]) -> (Bytes, Bytes) {
    let mut rest = &avcc[6..];
    let sps = nal::prefixed(&mut rest).unwrap();
    let pps = nal::prefixed(&mut &rest[1..]).unwrap();
    (Bytes::copy_from_slice(sps), Bytes::copy_from_slice(pps))
}

/// What comes in band makes the record that the same encoder writes into a file.
#[test]
fn in_band_parameter_sets_make_the_record_of_a_file() {
    for sent in &SENT {
        let avcc = hex(sent.avcc);
        let (sps, pps) = parameter_sets(&avcc);
        let made = Config::from_parameter_sets(&[sps], &[pps]).unwrap();
        assert_eq!(made, parse(sent.avcc), "{}", sent.rfc6381);
    }
}

#[test]
fn parameter_sets_that_make_no_record_are_refused() {
    let (sps, pps) = parameter_sets(&hex(HIGH_1080));
    let refused = |sps: &[Bytes], pps: &[Bytes]| Config::from_parameter_sets(sps, pps).unwrap_err();
    assert_eq!(refused(&[], std::slice::from_ref(&pps)), ConfigError::NoSps);
    assert_eq!(refused(&[Bytes::from_static(&[0x67, 66])], std::slice::from_ref(&pps)), ConfigError::NoSps);
    assert_eq!(refused(std::slice::from_ref(&sps), &[]), ConfigError::NoPps);
    assert_eq!(refused(&vec![sps.clone(); 32], std::slice::from_ref(&pps)), ConfigError::TooManySets);
    assert_eq!(
        refused(std::slice::from_ref(&pps), std::slice::from_ref(&sps)),
        ConfigError::NotAParameterSet
    );
    let long = Bytes::from(vec![0x68; AVCC_BYTES_MAX]);
    assert!(matches!(refused(&[sps], &[long]), ConfigError::TooLong { .. }));
}
