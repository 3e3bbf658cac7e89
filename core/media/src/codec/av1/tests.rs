use proptest::prelude::*;

use super::*;
use crate::codec::testing::{Bits, hex};
use crate::codec::{CodecConfig, PICTURE_SIDE};

/// What an encoder wrote, and what it was told to.
struct Sent {
    av1c: &'static str,
    rfc6381: &'static str,
    size: (u32, u32),
    chroma: Chroma,
    bit_depth: u8,
}

/// `av1C` records that SVT-AV1 4.2 and libaom wrote into MP4 files, from ffmpeg 9.0.2's `testsrc2`.
const SENT: [Sent; 4] = [
    Sent { av1c: SVT, rfc6381: "av01.0.05M.08", size: (1280, 720), chroma: Chroma::Yuv420, bit_depth: 8 },
    // ten bits, BT.2020 and PQ
    Sent {
        av1c: "81094c000a0f0200004a955dfe1b805f0a12201208",
        rfc6381: "av01.0.09M.10.0.110.09.16.09.0",
        size: (1920, 1080),
        chroma: Chroma::Yuv420,
        bit_depth: 10,
    },
    Sent {
        av1c: "812040000a0a200000043cfeccdaf942",
        rfc6381: "av01.1.00M.10.0.000.01.01.01.0",
        size: (320, 180),
        chroma: Chroma::Yuv444,
        bit_depth: 10,
    },
    Sent {
        av1c: "81001c000a0a000000043cfeccdaf92a",
        rfc6381: "av01.0.00M.08.1.110.01.01.01.0",
        size: (320, 180),
        chroma: Chroma::Monochrome,
        bit_depth: 8,
    },
];

const SVT: &str = "81050c000a0c0200002d2a67fd9e017c0020";

#[test]
fn records_of_real_encoders_are_read_as_they_were_told() {
    for sent in SENT {
        let config = parse(sent.av1c);
        let name = sent.rfc6381;
        assert_eq!(config.rfc6381(), name);
        assert_eq!((config.width(), config.height()), sent.size, "{name}");
        assert_eq!((config.chroma(), config.bit_depth()), (sent.chroma, sent.bit_depth), "{name}");
        assert_eq!(config.av1c()[..], hex(sent.av1c), "{name}");
    }
}

#[test]
fn a_record_cut_anywhere_is_refused() {
    let whole = hex(SVT);
    for length in 0..whole.len() {
        assert!(Config::parse(Bytes::copy_from_slice(&whole[..length])).is_err(), "{length} bytes");
    }
}

#[test]
fn records_that_break_the_rules_are_refused_by_name() {
    let refused = |av1c: &[u8]| Config::parse(Bytes::copy_from_slice(av1c)).unwrap_err();
    assert_eq!(refused(&[0x82, 5, 12, 0]), ConfigError::Version { byte: 0x82 });
    // What rav1e writes: a record without the header that everything else stands in.
    assert_eq!(refused(&hex("811f0c00")), ConfigError::NoSequenceHeader);
    assert_eq!(refused(&[0x81, 5, 12, 0, 0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0]), ConfigError::Truncated);
    let bytes = AV1C_BYTES_MAX + 1;
    assert_eq!(refused(&vec![0x81; bytes]), ConfigError::TooLong { bytes });
}

/// Threat: a header that makes a decoder allocate gigabytes or divide by zero.
#[test]
fn hostile_sequence_headers_are_refused() {
    let refused = |writer: Writer| Config::parse(writer.build()).unwrap_err();
    let huge = Writer { size: [65_536, 65_536], ..Writer::default() };
    assert_eq!(refused(huge), ConfigError::Size(SizeError { width: 65_536, height: 65_536 }));
    let dot = Writer { size: [1, 1], ..Writer::default() };
    assert_eq!(refused(dot), ConfigError::Size(SizeError { width: 1, height: 1 }));
    let profile = Writer { profile: 3, ..Writer::default() };
    assert_eq!(refused(profile), ConfigError::OutOfRange { field: "seq_profile", value: 3 });
}

#[test]
fn only_a_constant_frame_rate_that_can_be_is_believed() {
    let rate = |timing| {
        let writer = Writer { timing: Some(timing), ..Writer::default() };
        Config::parse(writer.build()).unwrap().frame_rate()
    };
    assert_eq!(rate([1_001, 60_000, 1]), Some(60_000.0 / 1_001.0));
    assert_eq!(rate([1, 60, 2]), Some(30.0));
    assert_eq!(rate([0, 60, 1]), None);
    assert_eq!(rate([0, 0, 1]), None);
    assert_eq!(rate([1, 60, 0]), None, "intervals that differ");
}

#[test]
fn the_bitstream_says_where_decoding_can_start() {
    let config = parse(SVT);
    let key = |obus: &[&[u8]]| config.is_key(&obus.concat());
    // Key and shown; key and hidden; inter and shown; one that was decoded before.
    let [shown_key, hidden_key, inter, existing] =
        [0b0001_0000, 0b0000_0000, 0b0011_0000, 0b1000_0000].map(|header| [0x32, 2, header, 0]);
    assert_eq!(key(&[DELIMITER, SEQUENCE, &shown_key]), Ok(true));
    assert_eq!(key(&[SEQUENCE, &shown_key, &inter]), Ok(true));
    assert_eq!(key(&[SEQUENCE, &[0x1A, 1, 0b0001_0000]]), Ok(true), "a frame header of its own");
    assert_eq!(key(&[SEQUENCE, &[0x30, 0b0001_0000]]), Ok(true), "the last OBU without its size");
    assert_eq!(key(&[SEQUENCE, &[0x36, 0, 2, 0b0001_0000, 0]]), Ok(true), "with its layer");
    assert_eq!(key(&[&shown_key]), Ok(false), "a decoder needs the sequence header too");
    assert_eq!(key(&[&inter, SEQUENCE, &shown_key]), Ok(false), "the first frame counts");
    for other in [hidden_key, inter, existing] {
        assert_eq!(key(&[SEQUENCE, &other]), Ok(false), "{other:02x?}");
    }
    assert_eq!(key(&[]), Ok(false));
    assert_eq!(key(&[SEQUENCE, &[0x32, 9, 0]]), Err(UnitError::Truncated));
    assert_eq!(key(&[&[0x80, 0]]), Err(UnitError::Forbidden));
}

/// In an MP4 sample they mean nothing; players stumble over them.
#[test]
fn temporal_delimiters_are_left_out_without_copying() {
    let unit = Bytes::from([DELIMITER, SEQUENCE, &[0x32, 1, 0x10]].concat());
    let stripped = Config::without_delimiters(unit.clone());
    assert_eq!(stripped, unit[2..]);
    assert_eq!(stripped.as_ptr(), unit[2..].as_ptr());
    assert_eq!(Config::without_delimiters(stripped.clone()), stripped);
    assert_eq!(Config::without_delimiters(Bytes::from_static(DELIMITER)), Bytes::new());
    let damaged = Bytes::from_static(&[0x12, 9]);
    assert_eq!(Config::without_delimiters(damaged.clone()), damaged);
}

fn check_any(av1c: Vec<u8>) -> Result<(), TestCaseError> {
    if let Ok(config) = Config::parse(av1c.into()) {
        prop_assert!(PICTURE_SIDE.contains(&config.width()) && PICTURE_SIDE.contains(&config.height()));
        prop_assert!(config.frame_rate().is_none_or(|rate| (1.0..=300.0).contains(&rate)));
        config.rfc6381();
        crate::cmaf::init_segment(&CodecConfig::Av1(config));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_record_never_panics(rest in any::<Vec<u8>>()) {
        check_any([&[0x81], rest.as_slice()].concat())?;
    }

    #[test]
    fn any_sequence_header_never_panics(payload in prop::collection::vec(any::<u8>(), 0..100)) {
        check_any([&[0x81, 5, 12, 0, 0x0A, payload.len() as u8], payload.as_slice()].concat())?;
    }

    #[test]
    fn a_real_record_with_bits_flipped_never_panics(
        of in 0..SENT.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0u32..8), 1..8),
    ) {
        let mut av1c = hex(SENT[of].av1c);
        for (at, bit) in flips {
            let at = at.index(av1c.len());
            av1c[at] ^= 1u8 << bit;
        }
        check_any(av1c)?;
    }

    #[test]
    fn any_unit_never_panics(unit in any::<Vec<u8>>()) {
        let _ = parse(SVT).is_key(&unit);
        let whole = Bytes::from(unit);
        prop_assert!(whole.ends_with(&Config::without_delimiters(whole.clone())));
    }
}

/// A WebRTC publisher sends no record, and its sequence header says all that stands in one.
#[test]
fn a_record_is_made_of_a_sequence_header() {
    let sent = parse(SVT);
    let unit = [DELIMITER, &sent.av1c()[4..]].concat();
    let made = Config::of_keyframe(&unit).unwrap();
    assert_eq!((made.rfc6381(), made.width(), made.height()), (sent.rfc6381(), sent.width(), sent.height()));
    assert_eq!(made.av1c()[..3], sent.av1c()[..3]);
    assert_eq!(made.av1c()[4..], sent.av1c()[4..]);
    assert_eq!(Config::of_keyframe(DELIMITER), Err(ConfigError::NoSequenceHeader));
}

/// RTP leaves out sizes and delimiters, samples leave out delimiters.
#[test]
fn obus_lose_their_sizes_and_get_them_back() {
    let long = [&[0x36, 0x20, 0x90, 0x02], [7; 272].as_slice()].concat();
    let unit = [DELIMITER, SEQUENCE, &long, &[0x7A, 1, 9]].concat();
    let bare = bare_obus(&unit).unwrap();
    let shapes: Vec<_> = bare.iter().map(|(header, payload)| (header.bytes(), payload.len())).collect();
    assert_eq!(shapes, [(&[0x08][..], 1), (&[0x34, 0x20], 272)], "with its layers, and no padding");
    let mut again = BytesMut::new();
    for (header, payload) in bare {
        put_obu(&mut again, &[header.bytes(), payload].concat()).unwrap();
    }
    assert_eq!(again, [SEQUENCE, &long].concat());
    put_obu(&mut again, SEQUENCE).unwrap();
    assert!(again.ends_with(SEQUENCE), "one that came with its size keeps it");
    for broken in [&[][..], &[0x80], &[0x34], &[0x0A, 2, 0], &[0x0A, 1, 0, 0]] {
        assert!(put_obu(&mut again, broken).is_err(), "{broken:?}");
    }
    assert!(bare_obus(&[0x0A, 2, 0]).is_err());
}

const DELIMITER: &[u8] = &[0x12, 0];
const SEQUENCE: &[u8] = &[0x0A, 1, 0];

fn parse(av1c: &str) -> Config {
    Config::parse(hex(av1c).into()).unwrap()
}

/// Writes a record around a Main profile sequence header; 1280x720 unless told otherwise.
struct Writer {
    profile: u32,
    size: [u32; 2],
    /// `num_units_in_display_tick`, `time_scale`, and ticks per picture or 0 for intervals that differ.
    timing: Option<[u32; 3]>,
}

impl Default for Writer {
    fn default() -> Self {
        Self { profile: 0, size: [1280, 720], timing: None }
    }
}

impl Writer {
    fn build(self) -> Bytes {
        let mut bits = Bits::default();
        bits.field(self.profile, 3);
        bits.field(0, 2); // no still picture
        bits.field(u32::from(self.timing.is_some()), 1);
        if let Some([units_in_tick, time_scale, ticks]) = self.timing {
            bits.field(units_in_tick, 32);
            bits.field(time_scale, 32);
            bits.field(u32::from(ticks > 0), 1);
            if let Some(ticks) = ticks.checked_sub(1) {
                bits.golomb(ticks);
            }
            bits.field(0, 1); // decoder model
        }
        bits.field(0, 1); // display delays
        bits.field(0, 5 + 12); // one operating point
        bits.field(5, 5); // its level, 3.1
        bits.field(0xFF, 8); // sizes of sixteen bits
        self.size.into_iter().for_each(|side| bits.field(side - 1, 16));
        bits.field(0, 1 + 3 + 4); // frame ids, superblocks, intra and inter tools
        bits.field(0, 1); // order hint
        bits.field(0b11, 2); // screen content, integer vectors: chosen by frame
        bits.field(0, 3); // superres, cdef, restoration
        bits.field(0, 4); // 8 bits, colour, not described, limited range
        bits.field(0, 2 + 2); // chroma position, quantisers, film grain
        bits.field(1, 1);
        let payload = bits.into_bytes();
        [&[0x81, 5, 12, 0, 0x0A, payload.len() as u8], payload.as_slice()].concat().into()
    }
}
