use std::time::Instant;

use media::codec::Access;
use proptest::prelude::*;

use super::super::reorder::Packet;
use media::codec::h264 as codec;

use super::h264::{FU_A, FU_END, FU_START};
use super::nals::UNIT_NALS_MAX;
use super::*;
use crate::testing::{AVCC, AVCC_SMALL};

/// The parameter sets in an `avcC` with one of each.
fn sets(avcc: &'static [u8]) -> (Bytes, Bytes) {
    let length = |at: usize| usize::from(u16::from_be_bytes([avcc[at], avcc[at + 1]]));
    let sps_end = 8 + length(6);
    let pps_begin = sps_end + 3;
    let pps = &avcc[pps_begin..pps_begin + length(sps_end + 1)];
    (Bytes::from_static(&avcc[8..sps_end]), Bytes::from_static(pps))
}

fn nal(header: u8, bytes: usize) -> Bytes {
    let mut nal = vec![0x55; bytes];
    nal[0] = header;
    nal.into()
}

fn stap_a(nals: &[&Bytes]) -> Bytes {
    let mut payload = vec![0x78];
    for nal in nals {
        payload.extend((nal.len() as u16).to_be_bytes());
        payload.extend_from_slice(nal);
    }
    payload.into()
}

fn fu_a(nal: &Bytes, fragment_bytes: usize) -> Vec<Bytes> {
    let chunks: Vec<_> = nal[1..].chunks(fragment_bytes).collect();
    let last = chunks.len() - 1;
    let fragment = |(at, chunk): (usize, &&[u8])| {
        let flags = if at == 0 { FU_START } else { 0 } | if at == last { FU_END } else { 0 };
        Bytes::from([&[nal[0] & 0xE0 | FU_A, flags | nal[0] & 0x1F], *chunk].concat())
    };
    chunks.iter().enumerate().map(fragment).collect()
}

/// A publisher whose packets some line takes out.
pub(super) struct Source {
    units: AccessUnits,
    made: Vec<Made>,
    timestamp: u32,
    lost: u32,
}

impl Source {
    pub(super) fn new(codec: VideoCodec) -> Self {
        Self { units: AccessUnits::new(codec), made: Vec::new(), timestamp: 0, lost: 0 }
    }

    /// One access unit in these payloads, of which those at `lost` do not come.
    pub(super) fn send(&mut self, payloads: &[Bytes], lost: &[usize]) -> Vec<Made> {
        self.timestamp = self.timestamp.wrapping_add(3_000);
        for (at, payload) in payloads.iter().enumerate() {
            if lost.contains(&at) {
                self.lost += 1;
                continue;
            }
            let packet = Packet {
                sequence: 0,
                timestamp: self.timestamp,
                marker: at + 1 == payloads.len(),
                payload: payload.clone(),
                arrived: Instant::now(),
            };
            let lost = std::mem::take(&mut self.lost);
            self.units.push(Ordered { packet, lost }, &mut self.made);
        }
        std::mem::take(&mut self.made)
    }

    fn keyframe(&mut self) -> Vec<Made> {
        let (sps, pps) = sets(AVCC);
        self.send(&[stap_a(&[&sps, &pps]), nal(0x65, 500)], &[])
    }

    fn picture(&mut self) -> Vec<Made> {
        self.send(&[nal(0x41, 200)], &[])
    }
}

pub(super) fn picture(made: &[Made]) -> &Picture {
    match made {
        [Made::Picture(picture)] => picture,
        other => panic!("not one picture: {other:?}"),
    }
}

fn avcc(key: &Picture) -> &Bytes {
    match key.config.as_ref() {
        Some(VideoConfig::H264(config)) => config.avcc(),
        other => panic!("no H.264: {other:?}"),
    }
}

pub(super) fn sample(nals: &[&Bytes]) -> Bytes {
    let mut sample = Vec::new();
    for nal in nals {
        sample.extend((nal.len() as u32).to_be_bytes());
        sample.extend_from_slice(nal);
    }
    sample.into()
}

/// As Chromium sends it: parameter sets in an aggregate, the picture in fragments.
#[test]
fn aggregates_and_fragments_make_a_sample_and_a_record() {
    let mut source = Source::new(VideoCodec::H264);
    let (sps, pps) = sets(AVCC);
    let (sei, idr) = (nal(0x06, 20), nal(0x65, 5_000));
    let packets = [&[stap_a(&[&sps, &pps]), sei.clone()], fu_a(&idr, 1_100).as_slice()].concat();
    let made = source.send(&packets, &[]);
    let key = picture(&made);
    assert!(key.key && key.timestamp == 3_000);
    assert_eq!(key.sample, sample(&[&sei, &idr]));
    assert_eq!(avcc(key), AVCC);

    let made = source.picture();
    let next = picture(&made);
    assert!(!next.key && next.config.is_none() && next.timestamp == 6_000);
    assert_eq!(next.sample, sample(&[&nal(0x41, 200)]));
    let made = source.keyframe();
    assert!(picture(&made).key && picture(&made).config.is_none(), "the same configuration as before");
}

#[test]
fn another_size_is_another_record_at_its_keyframe() {
    let mut source = Source::new(VideoCodec::H264);
    source.keyframe();
    let (sps, pps) = sets(AVCC_SMALL);
    let made = source.send(&[sps, pps, nal(0x65, 100)], &[]);
    assert_eq!(picture(&made).config.as_ref().unwrap().dimensions().0, 320);
}

/// A decoder that gets a picture with a hole shows smears until the next keyframe.
#[test]
fn after_a_loss_nothing_comes_until_a_keyframe_and_it_is_asked_for_once() {
    let mut source = Source::new(VideoCodec::H264);
    assert_eq!(source.picture(), [Made::Broken], "nothing can begin here");
    assert_eq!(source.picture(), []);
    picture(&source.keyframe());
    let fragments = fu_a(&nal(0x41, 3_000), 1_000);
    for lost in 0..fragments.len() {
        let mut made = source.send(&fragments, &[lost]);
        made.extend(source.picture());
        assert_eq!(made, [Made::Broken], "fragment {lost}");
        assert_eq!(source.picture(), []);
        picture(&source.keyframe());
        picture(&source.picture());
    }
}

#[test]
fn a_keyframe_with_a_hole_is_none() {
    let mut source = Source::new(VideoCodec::H264);
    let (sps, pps) = sets(AVCC);
    let packets = [&[stap_a(&[&sps, &pps])], fu_a(&nal(0x65, 3_000), 1_000).as_slice()].concat();
    assert_eq!(source.send(&packets, &[1]), [Made::Broken]);
    assert_eq!(source.send(&packets[..2], &[]), [], "a fragment that has no end");
    // Its parameter sets were whole.
    picture(&source.send(&[nal(0x65, 100)], &[]));
}

/// It is the answer to a request, which was for nothing.
#[test]
fn a_keyframe_with_a_hole_is_asked_for_again() {
    let mut source = Source::new(VideoCodec::H264);
    assert_eq!(source.picture(), [Made::Broken]);
    let (sps, pps) = sets(AVCC);
    let packets = [&[stap_a(&[&sps, &pps])], fu_a(&nal(0x65, 3_000), 1_000).as_slice()].concat();
    assert_eq!(source.send(&packets, &[2]), [Made::Broken]);
    assert_eq!(source.picture(), [], "once");
    picture(&source.keyframe());
}

#[test]
fn a_unit_whose_end_is_not_marked_ends_with_the_next() {
    let mut units = AccessUnits::new(VideoCodec::H264);
    let mut made = Vec::new();
    let (sps, pps) = sets(AVCC);
    for (timestamp, payload) in [(1, stap_a(&[&sps, &pps])), (1, nal(0x65, 90)), (2, nal(0x41, 30))] {
        let packet = Packet { sequence: 0, timestamp, marker: false, payload, arrived: Instant::now() };
        units.push(Ordered { packet, lost: 0 }, &mut made);
    }
    assert!(picture(&made).key);
}

/// Threat: a fragment that never ends.
#[test]
fn a_unit_is_bounded() {
    let mut source = Source::new(VideoCodec::H264);
    source.keyframe();
    let endless = Bytes::from([&[0x7C, 0x85][..], &[0; 60_000]].concat());
    let more = Bytes::from([&[0x7C, 0x05][..], &[0; 60_000]].concat());
    let mut packets = vec![endless];
    packets.extend(std::iter::repeat_n(more, 200));
    assert_eq!(source.send(&packets, &[]), [Made::Broken]);
    let single = vec![nal(0x65, 10); UNIT_NALS_MAX + 1];
    assert_eq!(source.send(&single, &[]), [Made::Broken], "and that was a keyframe");
}

/// Threat 27. `rtc-rtp` 0.21.1 panics on the first of these.
#[test]
fn malformed_payloads_are_damage() {
    for payload in [
        &[0x78, 0x00][..],
        &[0x78, 0x00, 0x05, 0x65],
        &[0x78, 0x00, 0x00],
        &[0x7C],
        &[0x7C, 0x45, 1, 2, 3],
        &[0x79, 0, 0, 0, 1, 0x65],
        &[0x00],
        &[0x1F],
    ] {
        let mut source = Source::new(VideoCodec::H264);
        source.keyframe();
        assert_eq!(source.send(&[Bytes::copy_from_slice(payload)], &[]), [Made::Broken], "{payload:02x?}");
    }
}

proptest! {
    /// Whatever comes, what is given out is a keyframe first, and NAL units behind their lengths.
    #[test]
    fn any_payloads_make_whole_samples(
        packets in prop::collection::vec(
            (any::<u8>(), prop::collection::vec(any::<u8>(), 0..40), 0..3_u32, 0..4_u32, any::<bool>()), 0..60),
    ) {
        let (mut units, mut made) = (AccessUnits::new(VideoCodec::H264), Vec::new());
        let (sps, pps) = sets(AVCC);
        let headers = [0x65, 0x41, 0x78, 0x7C, 0x67, 0x68];
        let first = (7, stap_a(&[&sps, &pps]).to_vec(), 0, 0, false);
        for (header, mut payload, lost, timestamp, marker) in std::iter::once(first).chain(packets) {
            if let (Some(begin), Some(&likely)) = (payload.first_mut(), headers.get(usize::from(header))) {
                *begin = likely;
            }
            let packet = Packet { sequence: 0, timestamp, marker, payload: payload.into(), arrived: Instant::now() };
            units.push(Ordered { packet, lost }, &mut made);
        }
        let mut decodable = false;
        for made in made {
            let Made::Picture(picture) = made else {
                decodable = false;
                continue;
            };
            decodable |= picture.key;
            prop_assert!(decodable);
            let config = codec::Config::from_parameter_sets(std::slice::from_ref(&sps), std::slice::from_ref(&pps)).unwrap();
            prop_assert_eq!(config.is_idr(&picture.sample), Ok(picture.key));
        }
    }
}

/// Whatever comes, what is given out is a keyframe first, with its configuration, and can be read as that says.
pub(super) fn check_any(codec: VideoCodec, packets: Vec<(Vec<u8>, u32, u32, bool)>) -> bool {
    let (mut units, mut made, mut config) = (AccessUnits::new(codec), Vec::new(), None);
    for (payload, lost, timestamp, marker) in packets {
        let packet =
            Packet { sequence: 0, timestamp, marker, payload: payload.into(), arrived: Instant::now() };
        units.push(Ordered { packet, lost }, &mut made);
    }
    let mut is_decodable = false;
    made.into_iter().all(|made| {
        let Made::Picture(picture) = made else {
            is_decodable = false;
            return true;
        };
        config = picture.config.or(config.take());
        is_decodable |= picture.key;
        let access = config.as_ref().and_then(|config: &VideoConfig| config.access(&picture.sample));
        is_decodable && access.is_some_and(|access| (access != Access::None) == picture.key)
    })
}
