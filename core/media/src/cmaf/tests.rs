//! What we write is read back by mp4-atom, which shares no code with us.

use bytes::Bytes;
use mp4_atom::{
    Codec, Colr, Decode, FixedPoint, Ftyp, Header, Mfhd, Moof, Moov, Pasp, Tfdt, Tfhd, Traf, Trun, TrunEntry,
    TrunSamples,
};
use proptest::prelude::*;

use super::*;
use crate::codec::testing::hex;
use crate::codec::{CodecConfig, aac, av1, h264, h265, opus, vp9};

/// 1920x1080 BT.709, from x264.
const AVCC_1080: &[u8] = b"\x01\x64\x00\x28\xff\xe1\x00\x1e\x67\x64\x00\x28\xac\xd9\x40\x78\x02\x27\xe5\xc0\x5a\x80\x80\
    \x80\xa0\x00\x00\x03\x00\x20\x00\x00\x06\x41\xe3\x06\x32\xc0\x01\x00\x06\x68\xeb\xe3\xcb\x22\xc0\xfd\xf8\xf8\x00";

/// 720x576 with pixels of 16:11, from x264.
const AVCC_WIDE: &[u8] =
    b"\x01\x64\x00\x1e\xff\xe1\x00\x18\x67\x64\x00\x1e\xac\xd9\x40\xb4\x24\xd8\x20\x80\x00\x00\x03\
    \x00\x80\x00\x00\x19\x0f\x8a\x14\xcb\x01\x00\x06\x68\xfb\xa3\xcb\x22\xc0\xfd\xf8\xf8\x00";

#[test]
fn vp9_has_its_record_without_what_is_ours() {
    // 640x360, BT.709.
    let keyframe = [0x82, 0x49, 0x83, 0x42, 0x40, 0x27, 0xF0, 0x16, 0x70];
    let config = vp9::Config::of_keyframe(&keyframe).unwrap();
    let (_, moov) = decode_init(&init_segment(&CodecConfig::Vp9(config.clone())).bytes);
    let [Codec::Vp09(entry)] = &moov.trak[0].mdia.minf.stbl.stsd.codecs[..] else { panic!("one vp09") };
    assert_eq!((entry.visual.width, entry.visual.height), (640, 360));
    let record = &entry.vpcc;
    assert_eq!((record.profile, record.level, record.bit_depth, record.chroma_subsampling), (0, 30, 8, 1));
    assert_eq!(
        (record.color_primaries, record.transfer_characteristics, record.matrix_coefficients),
        (1, 1, 1)
    );
    let kept = CodecConfig::Vp9(config);
    let (sample_entry, record) = kept.record();
    assert_eq!(CodecConfig::from_record(sample_entry, record.clone()), Ok(kept.clone()));
}

#[test]
fn a_video_init_segment_says_what_the_encoder_said() {
    let init = init_segment(&h264(AVCC_1080));
    let (ftyp, moov) = decode_init(&init.bytes);
    assert_eq!(ftyp.major_brand, b"iso6".into());
    assert!(ftyp.compatible_brands.contains(&b"iso6".into()));

    let [trak] = &moov.trak[..] else { panic!("one track") };
    assert_eq!((trak.tkhd.track_id, moov.mvhd.next_track_id), (1, 2));
    assert!(trak.tkhd.enabled && trak.edts.is_none());
    assert_eq!((trak.tkhd.width, trak.tkhd.height), (FixedPoint::new(1920, 0), FixedPoint::new(1080, 0)));
    assert_eq!((trak.mdia.mdhd.timescale, trak.mdia.mdhd.language.as_str()), (90_000, "und"));
    assert_eq!(trak.mdia.hdlr.handler, b"vide".into());
    let trex = &moov.mvex.as_ref().unwrap().trex;
    assert_eq!((trex[0].track_id, trex[0].default_sample_description_index), (1, 1));

    let [Codec::Avc1(avc1)] = &trak.mdia.minf.stbl.stsd.codecs[..] else { panic!("one avc1") };
    assert_eq!((avc1.visual.width, avc1.visual.height), (1920, 1080));
    assert_eq!(avc1.pasp, Some(Pasp::new(1, 1).unwrap()));
    assert_eq!(avc1.colr, Some(Colr::new(1, 1, 1, false).unwrap()));
}

#[test]
fn wide_pixels_make_a_wide_picture() {
    let (_, moov) = decode_init(&init_segment(&h264(AVCC_WIDE)).bytes);
    // 720 · 16/11 = 1047.27…
    let tkhd = &moov.trak[0].tkhd;
    assert_eq!((tkhd.width.integer(), tkhd.height.integer()), (1047, 576));
    let [Codec::Avc1(avc1)] = &moov.trak[0].mdia.minf.stbl.stsd.codecs[..] else { panic!("one avc1") };
    assert_eq!((avc1.visual.width, avc1.pasp.as_ref().unwrap().h_spacing), (720, 16));
}

/// Reserved bits that should be ones, no extension, an extension cut short: some encoder wrote it, and a player
/// somewhere accepts it. Rebuilding the record would change the name of the segment.
#[test]
fn the_configuration_comes_through_byte_for_byte() {
    let mut reserved_zeros = AVCC_1080.to_vec();
    reserved_zeros[4] &= 0x03;
    reserved_zeros[5] &= 0x1F;
    let without_extension = &AVCC_1080[..AVCC_1080.len() - 4];
    let cut_extension = &AVCC_1080[..AVCC_1080.len() - 2];
    let mut hashes = Vec::new();
    for avcc in [AVCC_1080, &reserved_zeros, without_extension, cut_extension] {
        let init = init_segment(&h264(avcc));
        assert!(holds(&init.bytes, b"avcC", avcc));
        hashes.push(init.hash);
    }
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 4, "each is a segment of its own");
}

#[test]
fn an_audio_init_segment_says_what_the_encoder_said() {
    let he_aac: &[u8] = &[0x2B, 0x11, 0x88, 0x00];
    let surround: &[u8] = &[0x11, 0xB0, 0x56, 0xE5, 0x00];
    let fast: &[u8] = &[0x10, 0x10];
    let five_on_the_side: &[u8] = b"\x11\x80\x04\xC8\x40\x00\x20\x08\x80\x0DLavc59.37.100V\xE5\x00";
    // 96 kHz does not fit the sample entry's 16 bits.
    let cases = [
        (he_aac, 24_000, 24_000, 2),
        (surround, 48_000, 48_000, 6),
        (fast, 96_000, 0, 2),
        (five_on_the_side, 48_000, 48_000, 5),
    ];
    for (asc, timescale, entry_rate, channels) in cases {
        let config = aac::Config::parse(Bytes::from_static(asc)).unwrap();
        let (_, moov) = decode_init(&init_segment(&CodecConfig::Aac(config)).bytes);
        let mdia = &moov.trak[0].mdia;
        assert_eq!((mdia.mdhd.timescale, mdia.hdlr.handler), (timescale, b"soun".into()));
        assert_eq!(moov.trak[0].tkhd.volume, FixedPoint::new(1, 0));
        let [Codec::Mp4a(mp4a)] = &mdia.minf.stbl.stsd.codecs[..] else { panic!("one mp4a") };
        assert_eq!((mp4a.audio.sample_rate.integer(), mp4a.audio.channel_count), (entry_rate, channels));
        let decoder = &mp4a.esds.es_desc.dec_config;
        assert_eq!((decoder.object_type_indication, decoder.stream_type), (0x40, 5));
        assert_eq!(decoder.dec_specific.as_ref().unwrap().raw, asc);
    }
}

/// 1920x1080, ten bits, BT.2020 and PQ, from x265 and from SVT-AV1.
const HVCC_PQ: &str = "01022000000090000000000078f000fcfdfafa00000f03a00001001840010c01ffff0220000003009000000300000300789598\
                       09a100010038420101022000000300900000030000030078a003c08010e4d96566924caf016a1220120800001f480003a98300\
                       a4b3700016e360002dc6c4a2000100074401c172b46240";
const AV1C_PQ: &str = "81094c000a0f0200004a955dfe1b805f0a12201208";

#[test]
fn an_hevc_init_segment_says_what_the_encoder_said() {
    let record = hex(HVCC_PQ);
    let config = h265::Config::parse(record.clone().into()).unwrap();
    let init = init_segment(&CodecConfig::H265(config));
    let (_, moov) = decode_init(&init.bytes);
    let [Codec::Hvc1(hvc1)] = &moov.trak[0].mdia.minf.stbl.stsd.codecs[..] else { panic!("one hvc1") };
    assert_eq!((hvc1.visual.width, hvc1.visual.height), (1920, 1080));
    assert_eq!(hvc1.colr, Some(Colr::new(9, 16, 9, false).unwrap()));
    assert_eq!((hvc1.hvcc.general_profile_idc, hvc1.hvcc.general_level_idc), (2, 120));
    assert_eq!(hvc1.hvcc.arrays.len(), 3);
    assert!(holds(&init.bytes, b"hvcC", &record));
}

#[test]
fn an_av1_init_segment_says_what_the_encoder_said() {
    let record = hex(AV1C_PQ);
    let config = av1::Config::parse(record.clone().into()).unwrap();
    let init = init_segment(&CodecConfig::Av1(config));
    let (_, moov) = decode_init(&init.bytes);
    let [Codec::Av01(av01)] = &moov.trak[0].mdia.minf.stbl.stsd.codecs[..] else { panic!("one av01") };
    assert_eq!((av01.visual.width, av01.visual.height), (1920, 1080));
    assert_eq!((av01.av1c.seq_profile, av01.av1c.seq_level_idx_0, av01.av1c.high_bitdepth), (0, 9, true));
    assert_eq!(av01.av1c.config_obus, record[4..]);
    assert!(holds(&init.bytes, b"av1C", &record));
}

#[test]
fn an_opus_init_segment_says_what_the_encoder_said() {
    let config =
        opus::Config::parse(Bytes::from_static(b"OpusHead\x01\x02\x38\x01\x44\xAC\0\0\0\0\0")).unwrap();
    let (_, moov) = decode_init(&init_segment(&CodecConfig::Opus(config)).bytes);
    let mdia = &moov.trak[0].mdia;
    assert_eq!((mdia.mdhd.timescale, mdia.hdlr.handler), (48_000, b"soun".into()));
    let [Codec::Opus(opus)] = &mdia.minf.stbl.stsd.codecs[..] else { panic!("one Opus") };
    assert_eq!((opus.audio.sample_rate.integer(), opus.audio.channel_count), (48_000, 2));
    let dops = &opus.dops;
    assert_eq!((dops.output_channel_count, dops.pre_skip, dops.input_sample_rate), (2, 312, 44_100));
}

/// The hash stands in URLs that caches keep for ever: a change of these bytes is a change of format.
#[test]
fn the_name_of_an_init_segment_is_stable() {
    let init = init_segment(&h264(AVCC_1080));
    assert_eq!(init, init_segment(&h264(AVCC_1080)));
    assert_eq!(init.hash, "e35a81922c9dbfbf");
    assert_ne!(init.hash, init_segment(&h264(AVCC_WIDE)).hash);
}

#[test]
fn a_video_fragment_tells_each_sample() {
    let samples = [
        Sample { bytes: 40_000, duration: 3_000, composition_offset: 0, key: true },
        Sample { bytes: 900, duration: 2_970, composition_offset: 6_030, key: false },
        Sample { bytes: 300, duration: 3_060, composition_offset: -3_000, key: false },
    ];
    let base_decode_time = (1 << 33) + 7;
    let header = fragment_header(7, base_decode_time, &samples);
    assert_eq!(header, fragment_header(7, base_decode_time, &samples));

    let entry = |sample: &Sample| TrunEntry {
        duration: Some(sample.duration),
        size: Some(sample.bytes),
        flags: Some(if sample.key { 0x0200_0000 } else { 0x0101_0000 }),
        cts: Some(sample.composition_offset.into()),
    };
    let expected = Moof {
        mfhd: Mfhd { sequence_number: 7 },
        traf: vec![Traf {
            tfhd: Tfhd { track_id: 1, default_base_is_moof: true, ..Tfhd::default() },
            tfdt: Some(Tfdt { base_media_decode_time: base_decode_time }),
            trun: vec![Trun {
                data_offset: Some(header.len() as i32),
                samples: TrunSamples::Explicit(samples.iter().map(entry).collect()),
            }],
            ..Traf::default()
        }],
    };
    assert_eq!(decode_fragment(&header), (expected, 41_200));
}

#[test]
fn an_audio_fragment_says_once_what_is_always_the_same() {
    let samples =
        [371, 0, 372].map(|bytes| Sample { bytes, duration: 1_024, composition_offset: 0, key: true });
    let header = fragment_header(1, 48_000, &samples);
    let (moof, payload) = decode_fragment(&header);
    assert_eq!(payload, 743);
    let tfhd = &moof.traf[0].tfhd;
    assert_eq!((tfhd.default_sample_duration, tfhd.default_sample_flags), (Some(1_024), Some(0x0200_0000)));
    let sizes: Vec<_> = moof.traf[0].trun[0].samples.iter().map(|entry| entry.size).collect();
    assert_eq!(sizes, [Some(371), Some(0), Some(372)]);
    assert_eq!(moof.traf[0].trun[0].data_offset, Some(header.len() as i32));

    // A frame that was re-anchored breaks the rule, and with it the short form.
    let mut uneven = samples;
    uneven[1].duration = 1_300;
    let (moof, _) = decode_fragment(&fragment_header(1, 48_000, &uneven));
    let durations: Vec<_> = moof.traf[0].trun[0].samples.iter().map(|entry| entry.duration).collect();
    assert_eq!(durations, [Some(1_024), Some(1_300), Some(1_024)]);
}

#[test]
fn a_fragment_above_4_gib_gets_a_64_bit_size() {
    let huge = Sample { bytes: u32::MAX, duration: 1, composition_offset: 0, key: true };
    let (moof, payload) = decode_fragment(&fragment_header(1, 0, &[huge, huge]));
    assert_eq!(payload, 2 * u64::from(u32::MAX));
    assert_eq!(moof.traf[0].trun[0].samples.len(), 2);

    // The last size that fits 32 bits, header included, and the first that does not.
    let fits = Sample { bytes: u32::MAX - 8, ..huge };
    assert_eq!(decode_fragment(&fragment_header(1, 0, &[fits])).1, u64::from(u32::MAX) - 8);
    let exceeds = Sample { bytes: u32::MAX - 7, ..huge };
    assert_eq!(decode_fragment(&fragment_header(1, 0, &[exceeds])).1, u64::from(u32::MAX) - 7);
}

fn any_sample() -> impl Strategy<Value = Sample> {
    (any::<u32>(), any::<u32>(), any::<i32>(), any::<bool>()).prop_map(
        |(bytes, duration, composition_offset, key)| Sample { bytes, duration, composition_offset, key },
    )
}

proptest! {
    #[test]
    fn every_fragment_reads_back(
        sequence: u32,
        base_decode_time: u64,
        samples in prop::collection::vec(any_sample(), 0..40),
    ) {
        let header = fragment_header(sequence, base_decode_time, &samples);
        let (moof, payload) = decode_fragment(&header);
        prop_assert_eq!(moof.mfhd.sequence_number, sequence);
        prop_assert_eq!(moof.traf[0].tfdt.as_ref().unwrap().base_media_decode_time, base_decode_time);
        prop_assert_eq!(payload, samples.iter().map(|sample| u64::from(sample.bytes)).sum::<u64>());
        let trun = &moof.traf[0].trun[0];
        prop_assert_eq!(trun.data_offset, Some(header.len() as i32));
        let sizes: Vec<_> = trun.samples.iter().map(|entry| entry.size.unwrap()).collect();
        prop_assert_eq!(sizes, samples.iter().map(|sample| sample.bytes).collect::<Vec<_>>());
    }
}

fn h264(avcc: &[u8]) -> CodecConfig {
    CodecConfig::H264(h264::Config::parse(Bytes::copy_from_slice(avcc)).unwrap())
}

/// Whether there is a box of `kind` with exactly this content.
fn holds(init: &[u8], kind: &[u8; 4], content: &[u8]) -> bool {
    let boxed = [&(content.len() as u32 + 8).to_be_bytes(), kind.as_slice(), content].concat();
    init.windows(boxed.len()).any(|window| window == boxed)
}

fn decode_init(mut bytes: &[u8]) -> (Ftyp, Moov) {
    let init = (Ftyp::decode(&mut bytes).unwrap(), Moov::decode(&mut bytes).unwrap());
    assert!(bytes.is_empty());
    init
}

/// The `moof`, and the bytes of payload that the `mdat` announces.
fn decode_fragment(mut bytes: &[u8]) -> (Moof, u64) {
    let moof = Moof::decode(&mut bytes).unwrap();
    let mdat = Header::decode(&mut bytes).unwrap();
    assert_eq!(mdat.kind, b"mdat".into());
    assert!(bytes.is_empty(), "the payload is the caller's");
    (moof, mdat.size.unwrap() as u64)
}
