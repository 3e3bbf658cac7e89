use media::VideoCodec;
use proptest::prelude::*;

use super::super::Made;
use super::super::tests::{Source, check_any, picture};
use super::*;

/// Of SVT-AV1, 1280x720: the sequence header's payload, out of its `av1C`.
const SEQUENCE: [u8; 12] = [0x02, 0x00, 0x00, 0x2D, 0x2A, 0x67, 0xFD, 0x9E, 0x01, 0x7C, 0x00, 0x20];

/// OBUs as RTP has them: without sizes.
fn sequence() -> Vec<u8> {
    [&[0x08], SEQUENCE.as_slice()].concat()
}

fn frame(key: bool, bytes: usize) -> Vec<u8> {
    // Of the frame header: nothing shown before, its type, and that it is shown.
    [&[0x30, if key { 0x10 } else { 0x30 }], vec![0x55; bytes].as_slice()].concat()
}

fn length(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Each element behind its length, cut into packets of at most `piece` bytes of elements.
fn packets(obus: &[Vec<u8>], piece: usize) -> Vec<Bytes> {
    let (mut packets, mut packet, mut continues) = (Vec::new(), Vec::new(), false);
    let mut room = piece;
    for obu in obus {
        let mut rest = &obu[..];
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(room));
            packet.extend(length(part.len()));
            packet.extend_from_slice(part);
            (rest, room) = (after, room - part.len());
            if room == 0 {
                let header = u8::from(continues) << 7 | u8::from(!rest.is_empty()) << 6;
                packets.push(Bytes::from([&[header], packet.as_slice()].concat()));
                (packet, continues, room) = (Vec::new(), !rest.is_empty(), piece);
            }
        }
    }
    if !packet.is_empty() {
        packets.push(Bytes::from([&[u8::from(continues) << 7], packet.as_slice()].concat()));
    }
    packets
}

/// OBUs as a sample has them.
fn sized(obus: &[Vec<u8>]) -> Vec<u8> {
    obus.iter().flat_map(|obu| [&[obu[0] | 2][..], &length(obu.len() - 1), &obu[1..]].concat()).collect()
}

fn key(bytes: usize) -> Vec<Vec<u8>> {
    vec![sequence(), frame(true, bytes)]
}

#[test]
fn packets_make_the_unit_whatever_the_cut() {
    for piece in [1, 2, 3, 9, 12, 13, 100, 2_000] {
        let mut source = Source::new(VideoCodec::Av1);
        let made = source.send(&packets(&key(500), piece), &[]);
        let first = picture(&made);
        assert!(first.key);
        assert_eq!(first.sample, sized(&key(500)), "in pieces of {piece}");
        assert_eq!(first.config.as_ref().map(VideoConfig::dimensions), Some((1280, 720)));
        let made = source.send(&packets(&[frame(false, 300)], piece), &[]);
        assert!(!picture(&made).key && picture(&made).sample == sized(&[frame(false, 300)]));
    }
}

/// As Chromium sends it: the number of elements told, the last without a length; and a delimiter, which a sample has not.
#[test]
fn elements_are_counted_or_measured() {
    let (sequence, frame) = (sequence(), frame(true, 30));
    let two = [&[0x28], length(sequence.len()).as_slice(), &sequence, &frame].concat();
    let three =
        [&[0x38], length(2).as_slice(), &[0x12, 0], &length(sequence.len()), &sequence, &frame].concat();
    for payload in [two, three] {
        let mut source = Source::new(VideoCodec::Av1);
        assert_eq!(picture(&source.send(&[payload.into()], &[])).sample, sized(&key(30)));
    }
}

#[test]
fn after_a_loss_nothing_comes_until_a_keyframe() {
    let pieces = packets(&[frame(false, 3_000)], 1_000);
    for lost in 0..pieces.len() {
        let mut source = Source::new(VideoCodec::Av1);
        picture(&source.send(&packets(&key(50), 1_000), &[]));
        let mut made = source.send(&pieces, &[lost]);
        made.extend(source.send(&packets(&[frame(false, 50)], 1_000), &[]));
        assert_eq!(made, [Made::Broken], "packet {lost}");
        picture(&source.send(&packets(&key(50), 1_000), &[]));
    }
}

#[test]
fn malformed_payloads_are_damage() {
    for payload in [
        &[0x10][..],
        &[0x20, 5, 0x30],
        &[0x00, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0x00, 0x85],
        &[0x00, 0],
        &[0x10, 0xB0, 1],
        &[0x10, 0x32, 9, 1],
        &[0x90, 0x30, 0x30],
        &[0x50, 0x30, 0x30],
        &[0x40],
        &[0x30, 1, 0x30],
    ] {
        let mut source = Source::new(VideoCodec::Av1);
        picture(&source.send(&packets(&key(50), 1_000), &[]));
        let made = source.send(&[Bytes::copy_from_slice(payload)], &[]);
        assert_eq!(made, [Made::Broken], "{payload:02x?}");
    }
}

/// Threat: an OBU that never ends.
#[test]
fn a_unit_is_bounded() {
    let mut source = Source::new(VideoCodec::Av1);
    assert_eq!(source.send(&packets(&key(9_000_000), 60_000), &[]), [Made::Broken]);
}

proptest! {
    #[test]
    fn any_payloads_make_whole_units(
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..20), 0..3_u32, 0..4_u32, any::<bool>()), 0..60),
        first in any::<bool>(),
    ) {
        let key = (self::packets(&key(20), 1_000)[0].to_vec(), 0, 9, true);
        let packets = std::iter::once(key).filter(|_| first).chain(packets).collect();
        prop_assert!(check_any(VideoCodec::Av1, packets));
    }
}
