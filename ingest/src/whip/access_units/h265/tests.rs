use media::VideoCodec;
use proptest::prelude::*;

use super::super::Made;
use super::super::tests::{Source, check_any, picture, sample};
use super::*;

/// Of x265, Main profile, 1280x720.
const VPS_NAL: &[u8] = &[
    0x40, 0x01, 0x0C, 0x01, 0xFF, 0xFF, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00,
    0x00, 0x03, 0x00, 0x5D, 0x95, 0x94, 0x09,
];
const SPS_NAL: &[u8] = &[
    0x42, 0x01, 0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00,
    0x5D, 0xA0, 0x02, 0x80, 0x80, 0x2D, 0x16, 0x59, 0x59, 0x52, 0x93, 0x0B, 0xC0, 0x5A, 0x02, 0x00, 0x00,
    0x03, 0x00, 0x02, 0x00, 0x00, 0x03, 0x00, 0x3C, 0x10,
];
const PPS_NAL: &[u8] = &[0x44, 0x01, 0xC0, 0x73, 0xC1, 0x89];

const IDR: u8 = 19;
const TRAIL: u8 = 1;

fn nal(kind: u8, bytes: usize) -> Bytes {
    let mut nal = vec![0x55; bytes.max(2)];
    (nal[0], nal[1]) = (kind << 1, 1);
    nal.into()
}

fn aggregate(nals: &[&[u8]]) -> Bytes {
    let mut payload = vec![AGGREGATE << 1, 1];
    for nal in nals {
        payload.extend((nal.len() as u16).to_be_bytes());
        payload.extend_from_slice(nal);
    }
    payload.into()
}

fn fragments(nal: &Bytes, bytes: usize) -> Vec<Bytes> {
    let count = nal[2..].chunks(bytes).count();
    let fragment = |(at, chunk): (usize, &[u8])| {
        let flags = if at == 0 { FU_START } else { 0 } | if at + 1 == count { FU_END } else { 0 };
        Bytes::from([&[nal[0] & 0x81 | FRAGMENT << 1, nal[1], flags | kind(nal)], chunk].concat())
    };
    nal[2..].chunks(bytes).enumerate().map(fragment).collect()
}

fn keyframe(bytes: usize, piece: usize) -> Vec<Bytes> {
    [vec![aggregate(&[VPS_NAL, SPS_NAL, PPS_NAL])], fragments(&nal(IDR, bytes), piece)].concat()
}

#[test]
fn packets_make_the_unit_whatever_the_cut() {
    for piece in [1, 2, 3, 9, 100, 2_000] {
        let mut source = Source::new(VideoCodec::H265);
        let made = source.send(&keyframe(500, piece), &[]);
        let key = picture(&made);
        assert!(key.key && key.sample == sample(&[&nal(IDR, 500)]), "in pieces of {piece}");
        let config = key.config.clone().unwrap();
        assert_eq!(config.dimensions(), (1280, 720));
        assert_eq!(media::CodecConfig::from(config).rfc6381(), "hvc1.1.6.L93.90");
        let made = source.send(&fragments(&nal(TRAIL, 70), piece), &[]);
        assert!(!picture(&made).key && picture(&made).sample == sample(&[&nal(TRAIL, 70)]));
    }
    // Parameter sets as packets of their own, and what a sample has no use for.
    let single = [VPS_NAL, SPS_NAL, PPS_NAL].map(Bytes::from_static);
    let packets = [&single[..], &[nal(DELIMITER, 3), nal(39, 20), nal(IDR, 50), nal(FILLER, 9)]].concat();
    let made = Source::new(VideoCodec::H265).send(&packets, &[]);
    assert_eq!(picture(&made).sample, sample(&[&nal(39, 20), &nal(IDR, 50)]));
}

#[test]
fn after_a_loss_nothing_comes_until_a_keyframe() {
    let pieces = fragments(&nal(TRAIL, 3_000), 1_000);
    for lost in 0..pieces.len() {
        let mut source = Source::new(VideoCodec::H265);
        picture(&source.send(&keyframe(50, 1_000), &[]));
        let mut made = source.send(&pieces, &[lost]);
        made.extend(source.send(&[nal(TRAIL, 50)], &[]));
        assert_eq!(made, [Made::Broken], "fragment {lost}");
        // The parameter sets are known.
        picture(&source.send(&[nal(IDR, 50)], &[]));
    }
}

#[test]
fn malformed_payloads_are_damage() {
    for payload in [
        &[0x02][..],
        &[AGGREGATE << 1, 1, 0],
        &[AGGREGATE << 1, 1, 0, 5, 0x26, 1],
        &[AGGREGATE << 1, 1, 0, 0],
        &[FRAGMENT << 1, 1],
        &[FRAGMENT << 1, 1, 0x53, 1, 2],
        &[FRAGMENT << 1, 1, 0x93, 1, 2],
        &[50 << 1, 1, 0, 0, 0],
        &[63 << 1, 1, 0],
    ] {
        let mut source = Source::new(VideoCodec::H265);
        picture(&source.send(&keyframe(50, 1_000), &[]));
        let made = source.send(&[Bytes::copy_from_slice(payload)], &[]);
        assert_eq!(made, [Made::Broken], "{payload:02x?}");
    }
    // A keyframe without parameter sets.
    assert_eq!(Source::new(VideoCodec::H265).send(&[nal(IDR, 50)], &[]), [Made::Broken]);
}

proptest! {
    #[test]
    fn any_payloads_make_whole_units(
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..20), 0..3_u32, 0..4_u32, any::<bool>()), 0..60),
        first in any::<bool>(),
    ) {
        let sets = (aggregate(&[VPS_NAL, SPS_NAL, PPS_NAL]).to_vec(), 0, 9, false);
        let key = (nal(IDR, 30).to_vec(), 0, 9, true);
        let packets = [sets, key].into_iter().filter(|_| first).chain(packets).collect();
        prop_assert!(check_any(VideoCodec::H265, packets));
    }
}
