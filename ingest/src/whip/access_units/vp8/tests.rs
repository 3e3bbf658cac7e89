use media::VideoCodec;
use proptest::prelude::*;

use super::super::Made;
use super::super::tests::{Source, check_any, picture};
use super::*;

/// A frame of so many bytes behind its header: 320x180, or an inter frame.
fn frame(key: bool, bytes: usize) -> Vec<u8> {
    let header: &[u8] = if key { &[0x50, 0x07, 0, 0x9D, 1, 0x2A, 0x40, 1, 0xB4, 0] } else { &[0x51, 7, 0] };
    [header, &vec![0x55; bytes]].concat()
}

/// As Chromium sends it: a picture number of 15 bits in each packet.
fn packets(frame: &[u8], piece: usize) -> Vec<Bytes> {
    let descriptor = |at: usize| [if at == 0 { 0x90 } else { 0x80 }, 0x80, 0x81, 0x23];
    let packet = |(at, piece): (usize, &[u8])| Bytes::from([&descriptor(at), piece].concat());
    frame.chunks(piece).enumerate().map(packet).collect()
}

#[test]
fn packets_make_the_frame_whatever_the_cut() {
    for piece in [1, 2, 3, 9, 100, 2_000] {
        let mut source = Source::new(VideoCodec::Vp8);
        let made = source.send(&packets(&frame(true, 500), piece), &[]);
        let key = picture(&made);
        assert!(key.key && key.sample == frame(true, 500));
        assert_eq!(key.config.as_ref().map(VideoConfig::dimensions), Some((320, 180)));
        let made = source.send(&packets(&frame(false, 70), piece), &[]);
        let inter = picture(&made);
        assert!(!inter.key && inter.config.is_none() && inter.sample == frame(false, 70));
    }
}

/// RFC 7741, §4.2: what may stand before the frame.
#[test]
fn every_form_of_the_descriptor_is_read_over() {
    for descriptor in [
        &[0x10][..],
        &[0x30],
        &[0x90, 0x00],
        &[0x90, 0x80, 0x11],
        &[0x90, 0x80, 0x91, 0x22],
        &[0x90, 0x40, 0x01],
        &[0x90, 0x20, 0x01],
        &[0x90, 0x10, 0x01],
        &[0x90, 0xF0, 0x91, 0x22, 0x01, 0xE1],
    ] {
        let mut source = Source::new(VideoCodec::Vp8);
        let payload = Bytes::from([descriptor, &frame(true, 9)].concat());
        assert_eq!(picture(&source.send(&[payload], &[])).sample, frame(true, 9), "{descriptor:02x?}");
    }
}

#[test]
fn after_a_loss_nothing_comes_until_a_keyframe() {
    let pieces = packets(&frame(false, 3_000), 1_000);
    for lost in 0..pieces.len() {
        let mut source = Source::new(VideoCodec::Vp8);
        picture(&source.send(&packets(&frame(true, 50), 1_000), &[]));
        let mut made = source.send(&pieces, &[lost]);
        made.extend(source.send(&packets(&frame(false, 50), 1_000), &[]));
        assert_eq!(made, [Made::Broken], "packet {lost}");
        picture(&source.send(&packets(&frame(true, 50), 1_000), &[]));
    }
}

#[test]
fn malformed_payloads_are_damage() {
    for payload in [
        &[0x80][..],
        &[0x90, 0x80],
        &[0x90, 0x80, 0x81],
        &[0x90, 0x40],
        &[0x90, 0x10],
        &[0x10],
        &[0x10, 0x51],
        &[0x00, 0x51, 7, 0],
        &[0x11, 0x51, 7, 0],
    ] {
        let mut source = Source::new(VideoCodec::Vp8);
        picture(&source.send(&packets(&frame(true, 50), 1_000), &[]));
        let made = source.send(&[Bytes::copy_from_slice(payload)], &[]);
        assert_eq!(made, [Made::Broken], "{payload:02x?}");
    }
    // Two frames of one time, and a keyframe that nobody can play.
    let mut source = Source::new(VideoCodec::Vp8);
    let twice = [packets(&frame(true, 50), 1_000), packets(&frame(false, 50), 1_000)].concat();
    assert_eq!(source.send(&twice, &[]), [Made::Broken]);
    let mut zero = frame(true, 50);
    zero[6..10].fill(0);
    assert_eq!(source.send(&packets(&zero, 1_000), &[]), [], "it was told");
}

/// Threat: a frame that never ends.
#[test]
fn a_frame_is_bounded() {
    let mut source = Source::new(VideoCodec::Vp8);
    let mut endless = packets(&frame(true, 0), 1_000);
    endless.extend(std::iter::repeat_n(Bytes::from(vec![0; 60_000]), 200));
    assert_eq!(source.send(&endless, &[]), [Made::Broken]);
}

proptest! {
    #[test]
    fn any_payloads_make_whole_frames(
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..20), 0..3_u32, 0..4_u32, any::<bool>()), 0..60),
        first in any::<bool>(),
    ) {
        let key = (packets_of_key(), 0, 9, true);
        let packets = std::iter::once(key).filter(|_| first).chain(packets).collect();
        prop_assert!(check_any(VideoCodec::Vp8, packets));
    }
}

fn packets_of_key() -> Vec<u8> {
    packets(&frame(true, 20), 1_000)[0].to_vec()
}
