use bytes::Bytes;
use proptest::prelude::*;
use rtc_rtp::codec::h264::H264Packet;
use rtc_rtp::packetizer::Depacketizer;

use super::*;

/// What x264 wrote for 640x360.
const AVCC: &[u8] = &[
    0x01, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0x00, 0x19, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9,
    0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2e, 0x48, 0x01,
    0x00, 0x05, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];
const SPS: &[u8] = AVCC.split_at(8).1.split_at(25).0;
const PPS: &[u8] = AVCC.split_at(36).1;

fn packetizer() -> H264Packetizer {
    H264Packetizer::new(Source(3), Config::parse(Bytes::from_static(AVCC)).unwrap())
}

fn unit(key: bool, nals: &[&[u8]]) -> AccessUnit {
    let mut data = Vec::new();
    for nal in nals {
        data.extend_from_slice(&(nal.len() as u32).to_be_bytes());
        data.extend_from_slice(nal);
    }
    AccessUnit { dts: 9000, pts: 9000, duration: 3000, key, data: data.into() }
}

fn slice(header: u8, bytes: usize) -> Vec<u8> {
    let mut nal: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    nal[0] = header;
    nal
}

fn sizes(frame: &Frame) -> Vec<usize> {
    (0..frame.packets()).map(|at| frame.payload(at).unwrap().len()).collect()
}

/// How many payloads each burst has.
fn bursts(frame: &Frame) -> Vec<usize> {
    frame.bursts().iter().map(ExactSizeIterator::len).collect()
}

/// What a receiver that is not ours makes of the payloads: NAL units.
fn received(frame: &Frame) -> Vec<Vec<u8>> {
    let mut depacketizer = H264Packet::default();
    depacketizer.is_avc = true;
    let mut avc = Vec::new();
    for at in 0..frame.packets() {
        let payload = Bytes::copy_from_slice(frame.payload(at).unwrap());
        avc.extend_from_slice(&depacketizer.depacketize(&payload).unwrap());
    }
    let mut rest = avc.as_slice();
    let mut nals = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (nal, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
        nals.push(nal.to_vec());
        rest = behind;
    }
    nals
}

#[test]
fn a_receiver_finds_the_nal_units_of_a_keyframe_behind_its_parameter_sets() {
    let (sei, idr) = ([0x06, 5, 1, 0xAA, 0x80], slice(0x65, 30_000));
    let frame = packetizer().packetize(&unit(true, &[&[9, 0xF0], &sei, &idr]), 7).unwrap().unwrap();
    assert_eq!(received(&frame), [SPS, PPS, &sei, &idr], "the delimiter is left out, the SEI is not");
    assert_eq!((frame.is_key(), frame.marker(), frame.group(), frame.pts()), (true, true, 7, 9000));
    let stap = frame.payload(0).unwrap();
    assert_eq!(stap[0], 0x78, "STAP-A, as important as parameter sets");
}

/// One call of the sender for an ordinary picture, one more for a keyframe's parameter sets.
#[test]
fn fragments_are_full_but_the_last() {
    let mut packetizer = packetizer();
    let frame = packetizer.packetize(&unit(false, &[&slice(0x41, 10_000)]), 0).unwrap().unwrap();
    let sizes_of_all = sizes(&frame);
    let (last, full) = sizes_of_all.split_last().unwrap();
    assert!(full.iter().all(|&size| size == PAYLOAD_BYTES_MAX), "{sizes_of_all:?}");
    assert_eq!(full.len() * (PAYLOAD_BYTES_MAX - 2) + last - 2, 9_999);
    assert_eq!(bursts(&frame), [9]);
    let frame = packetizer.packetize(&unit(true, &[&slice(0x65, 10_000)]), 0).unwrap().unwrap();
    assert_eq!(bursts(&frame), [1, 9]);
    assert_eq!(frame.first_packet(), 9);
}

#[test]
fn sizes_around_the_limit_stay_below_it_and_arrive_whole() {
    for bytes in PAYLOAD_BYTES_MAX - 3..PAYLOAD_BYTES_MAX * 2 + 6 {
        let nal = slice(0x41, bytes);
        let frame = packetizer().packetize(&unit(false, &[&nal]), 0).unwrap().unwrap();
        assert!(sizes(&frame).iter().all(|&size| size <= PAYLOAD_BYTES_MAX), "{bytes}: {:?}", sizes(&frame));
        assert_eq!(received(&frame), [nal], "{bytes}");
    }
}

/// Encoders with slice threads write several slices a picture; small ones share a payload.
#[test]
fn small_slices_are_gathered_and_keep_their_order() {
    let slices: Vec<Vec<u8>> = [500, 600, 3_000, 40, 50].map(|bytes| slice(0x61, bytes)).into();
    let nals: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
    let frame = packetizer().packetize(&unit(false, &nals), 0).unwrap().unwrap();
    assert_eq!(received(&frame), slices);
    assert_eq!(frame.packets(), 1 + 3 + 1);
    let mut nals = vec![slices[0].as_slice(), &slices[0]];
    nals.push(&slices[1]);
    let frame = packetizer().packetize(&unit(false, &nals), 0).unwrap().unwrap();
    assert_eq!(sizes(&frame), [1 + 2 * 502, 600], "the third has no room beside the first two");
}

/// They may differ from the record's, and come later.
#[test]
fn a_keyframe_with_its_own_parameter_sets_gets_no_others() {
    let idr = slice(0x65, 100);
    let own: &[&[u8]] = &[&[0x67, 0x42, 0xC0, 0x1F], &[0x68, 0xCB], &idr];
    let frame = packetizer().packetize(&unit(true, own), 0).unwrap().unwrap();
    assert_eq!(received(&frame), own);
    let frame = packetizer().packetize(&unit(false, &[&slice(0x41, 100)]), 0).unwrap().unwrap();
    assert_eq!(frame.packets(), 1, "no parameter sets without a keyframe");
}

/// A NAL unit of type 24 or 28 would be taken for an aggregate or a fragment.
#[test]
fn types_that_mean_something_in_rtp_are_not_passed_on() {
    let picture = slice(0x41, 100);
    let frame = packetizer()
        .packetize(&unit(false, &[&[0x78, 0, 1, 9], &[0x7C, 0x85, 1], &[0x0C, 0xFF], &picture, &[]]), 0);
    assert_eq!(received(&frame.unwrap().unwrap()), [picture]);
    assert!(packetizer().packetize(&unit(false, &[&[9, 0xF0]]), 0).unwrap().is_none());
}

#[test]
fn a_unit_that_is_cut_off_is_an_error_and_takes_no_numbers() {
    let mut packetizer = packetizer();
    let mut broken = unit(false, &[&slice(0x41, 100)]);
    broken.data.truncate(50);
    assert_eq!(packetizer.packetize(&broken, 0).err(), Some(UnitError::Truncated));
    let next = packetizer.packetize(&unit(false, &[&slice(0x41, 100)]), 0).unwrap().unwrap();
    assert_eq!(next.first_packet(), 0);
}

proptest! {
    /// Whatever the bytes: an error or payloads that fit, and every NAL unit that is sent comes out as it went in.
    #[test]
    fn any_unit_is_refused_or_arrives(bytes in any::<Vec<u8>>(), key in any::<bool>()) {
        let unit = AccessUnit { dts: 0, pts: 0, duration: 0, key, data: bytes.into() };
        if let Ok(Some(frame)) = packetizer().packetize(&unit, 0) {
            prop_assert!(sizes(&frame).iter().all(|&size| (1..=PAYLOAD_BYTES_MAX).contains(&size)));
        }
    }

    /// From three bytes on: the receiver refuses payloads that are shorter.
    #[test]
    fn any_nal_units_arrive_in_order(lengths in prop::collection::vec(3..5_000_usize, 1..12)) {
        let slices: Vec<Vec<u8>> = lengths.into_iter().map(|bytes| slice(0x41, bytes)).collect();
        let nals: Vec<&[u8]> = slices.iter().map(Vec::as_slice).collect();
        let frame = packetizer().packetize(&unit(false, &nals), 0).unwrap().unwrap();
        prop_assert!(sizes(&frame).iter().all(|&size| size <= PAYLOAD_BYTES_MAX));
        prop_assert_eq!(received(&frame), slices);
    }
}
