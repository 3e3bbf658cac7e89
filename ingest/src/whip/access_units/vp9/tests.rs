use media::VideoCodec;
use proptest::prelude::*;

use super::super::Made;
use super::super::tests::{Source, check_any, picture};
use super::*;

/// A frame of so many bytes behind its header: 640x360, or an inter frame.
fn frame(key: bool, bytes: usize) -> Vec<u8> {
    let header: &[u8] =
        if key { &[0x82, 0x49, 0x83, 0x42, 0x40, 0x27, 0xF0, 0x16, 0x70] } else { &[0x86, 0] };
    [header, &vec![0x55; bytes]].concat()
}

/// One layer, numbered in 15 bits, in the mode that is not flexible; what Chromium sends.
fn packets(frame: &[u8], piece: usize) -> Vec<Bytes> {
    layer(frame, piece, &[0x80, 0x81, 0x23])
}

fn layer(frame: &[u8], piece: usize, descriptor: &[u8]) -> Vec<Bytes> {
    let count = frame.len().div_ceil(piece);
    let packet = |(at, piece): (usize, &[u8])| {
        let mut packet = [descriptor, piece].concat();
        packet[0] |= if at == 0 { FRAME_START } else { 0 } | if at + 1 == count { FRAME_END } else { 0 };
        Bytes::from(packet)
    };
    frame.chunks(piece).enumerate().map(packet).collect()
}

#[test]
fn packets_make_the_frame_whatever_the_cut() {
    for piece in [1, 2, 3, 9, 100, 2_000] {
        let mut source = Source::new(VideoCodec::Vp9);
        let made = source.send(&packets(&frame(true, 500), piece), &[]);
        let key = picture(&made);
        assert!(key.key && key.sample == frame(true, 500));
        assert_eq!(key.config.as_ref().map(VideoConfig::dimensions), Some((640, 360)));
        let made = source.send(&packets(&frame(false, 70), piece), &[]);
        let inter = picture(&made);
        assert!(!inter.key && inter.config.is_none() && inter.sample == frame(false, 70));
    }
}

/// RFC 9628, §4.2: what may stand before the frame.
#[test]
fn every_form_of_the_descriptor_is_read_over() {
    for descriptor in [
        &[0x00][..],
        &[0x80, 0x11],
        &[0x80, 0x91, 0x22],
        &[0x20, 0x01, 0x05],                   // a layer, and its TL0PICIDX
        &[0x30, 0x01],                         // flexible: without it
        &[0x50, 0x02],                         // leans on one picture
        &[0x50, 0x03, 0x05, 0x06],             // on three
        &[0x02, 0x00],                         // a structure that says nothing
        &[0x02, 0x10, 2, 128, 1, 104],         // of one size
        &[0x02, 0x08, 2, 0x04, 1, 0x08, 1, 2], // of a group of two
        &[0xB2, 0x91, 0x22, 0x01, 0x18, 2, 128, 1, 104, 1, 0x00],
    ] {
        let mut source = Source::new(VideoCodec::Vp9);
        let payload = layer(&frame(true, 9), 1_000, descriptor);
        assert_eq!(picture(&source.send(&payload, &[])).sample, frame(true, 9), "{descriptor:02x?}");
    }
}

/// Two spatial layers are one picture: a superframe, of the size that the structure tells.
#[test]
fn layers_make_a_superframe() {
    let mut source = Source::new(VideoCodec::Vp9);
    let structure = [0xB2, 0x81, 0x23, 0x00, 0x30, 2, 128, 1, 104, 5, 0, 2, 208];
    let (low, high) = (frame(true, 300), frame(false, 600));
    let mut both = layer(&low, 100, &structure);
    both.extend(layer(&high, 100, &[0xB0, 0x81, 0x23, 0x02]));
    let made = source.send(&both, &[]);
    let key = picture(&made);
    assert_eq!(key.config.as_ref().map(VideoConfig::dimensions), Some((1280, 720)));
    let index = [0xD9, 0x35, 1, 0, 0, 0x5A, 2, 0, 0, 0xD9];
    assert_eq!(key.sample, [&low[..], &high, &index].concat());
    // The second frame has no end.
    both.pop();
    assert_eq!(source.send(&both, &[]), [Made::Broken]);
}

#[test]
fn after_a_loss_nothing_comes_until_a_keyframe() {
    let pieces = packets(&frame(false, 3_000), 1_000);
    for lost in 0..pieces.len() {
        let mut source = Source::new(VideoCodec::Vp9);
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
        &[0x8C][..],
        &[0x8C, 0x81],
        &[0x2C, 0x01],
        &[0x5C],
        &[0x5C, 0x03, 0x03, 0x03, 0x03, 0x86, 0],
        &[0x0E],
        &[0x0E, 0x10, 1, 2, 3],
        &[0x0E, 0x08, 1],
        &[0x0E, 0x08, 1, 0x0C, 1, 2],
        &[0x0C],
        &[0x04, 0x86, 0],
        &[0x0C, 0x46, 0],
        &[0x08, 0x86, 0],
    ] {
        let mut source = Source::new(VideoCodec::Vp9);
        picture(&source.send(&packets(&frame(true, 50), 1_000), &[]));
        let made = source.send(&[Bytes::copy_from_slice(payload)], &[]);
        assert_eq!(made, [Made::Broken], "{payload:02x?}");
    }
}

/// Threat: frames without end.
#[test]
fn a_picture_is_bounded() {
    let mut source = Source::new(VideoCodec::Vp9);
    let mut endless = packets(&frame(true, 9_000_000), 60_000);
    assert_eq!(source.send(&endless, &[]), [Made::Broken]);
    endless = std::iter::repeat_n(packets(&frame(true, 5), 100), FRAMES_MAX + 1).flatten().collect();
    assert_eq!(source.send(&endless, &[]), [Made::Broken], "and that was a keyframe");
    endless.truncate(FRAMES_MAX);
    picture(&source.send(&endless, &[]));
}

proptest! {
    #[test]
    fn any_payloads_make_whole_pictures(
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..20), 0..3_u32, 0..4_u32, any::<bool>()), 0..60),
        first in any::<bool>(),
    ) {
        let key = (self::packets(&frame(true, 20), 1_000)[0].to_vec(), 0, 9, true);
        let packets = std::iter::once(key).filter(|_| first).chain(packets).collect();
        prop_assert!(check_any(VideoCodec::Vp9, packets));
    }
}
