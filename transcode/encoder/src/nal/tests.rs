use media::codec::captions::{in_h264, in_h265};
use media::codec::without_emulation_prevention;
use proptest::prelude::*;

use super::*;

/// Captions of A/53 with these bytes behind their header.
fn payload(data: &[u8]) -> Vec<u8> {
    [b"\xB5\x00\x31GA94\x03", data].concat()
}

fn sei(messages: &[(usize, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    messages.iter().for_each(|(kind, payload)| put_message(&mut body, *kind, payload));
    body.push(0x80);
    let mut nal = vec![SEI];
    put_with_emulation_prevention(&mut nal, &body);
    nal
}

fn unit(nals: &[&[u8]]) -> Vec<u8> {
    let mut unit = Vec::new();
    nals.iter().for_each(|nal| put(&mut unit, nal));
    unit
}

const IDR_SLICE: &[u8] = &[0x65, 1, 2];
const OTHER_SLICE: &[u8] = &[0x41, 3, 4];

#[test]
fn captions_are_found_among_other_messages() {
    let other = (REGISTERED_USER_DATA, b"\xB5\x00\x31DTG1\x41".to_vec());
    let timing = (1, vec![0; 300]);
    let captions_message = (REGISTERED_USER_DATA, payload(&[0x41, 0xFF, 0xFC, 0x94, 0x20, 0, 0, 0, 0xFF]));
    let nal = sei(&[timing, other, captions_message.clone()]);
    let found = captions(&in_h264(&unit(&[&[9, 0xF0], &nal, IDR_SLICE]), 4));
    assert_eq!(found.as_deref(), Some(sei(&[captions_message]).as_slice()));
    assert_eq!(captions(&in_h264(&unit(&[IDR_SLICE]), 4)), None);
}

/// HEVC has two bytes of header where H.264 has one, and then the same.
#[test]
fn captions_of_hevc_become_those_of_h264() {
    let nal = sei(&[(REGISTERED_USER_DATA, payload(b"\x41\xFF"))]);
    let hevc = [&[39 << 1, 1], &nal[1..]].concat();
    let unit: Vec<u8> = [&(hevc.len() as u16).to_be_bytes(), hevc.as_slice()].concat();
    assert_eq!(captions(&in_h265(&unit, 2)).as_deref(), Some(nal.as_slice()));
}

#[test]
fn captions_go_before_the_picture_and_what_is_of_no_use_goes() {
    let about_itself = sei(&[(UNREGISTERED_USER_DATA, vec![0xDC; 40])]);
    let encoders = unit(&[&[9, 0xF0], &[0x67, 1], &[0x68, 1], &about_itself, IDR_SLICE, IDR_SLICE]);
    let captions = Bytes::from(sei(&[(REGISTERED_USER_DATA, payload(b"\x41"))]));
    assert_eq!(
        outgoing(&encoders, std::slice::from_ref(&captions)),
        unit(&[&captions, IDR_SLICE, IDR_SLICE])
    );
    assert_eq!(outgoing(&encoders, &[]), unit(&[IDR_SLICE, IDR_SLICE]));
    assert_eq!(is_key(&encoders), Some(true));
    assert_eq!(is_key(&unit(&[OTHER_SLICE])), Some(false));
    assert_eq!(is_key(&unit(&[&[9, 0xF0]])), None);
}

#[test]
fn a_flood_of_captions_is_cut() {
    let many = vec![(REGISTERED_USER_DATA, payload(&[0; 100])); 50];
    let found = captions(&in_h264(&unit(&[&sei(&many)]), 4)).expect("some fit");
    assert!(found.len() < 2 * CAPTIONS_BYTES_MAX, "{}", found.len());
}

proptest! {
    #[test]
    fn emulation_prevention_comes_off_again(payload in prop::collection::vec(0u8..5, 0..64)) {
        let mut nal = Vec::new();
        put_with_emulation_prevention(&mut nal, &payload);
        prop_assert!(!nal.windows(3).any(|bytes| bytes[..2] == [0, 0] && bytes[2] < 3));
        prop_assert_eq!(without_emulation_prevention(&nal), payload);
    }

    #[test]
    fn any_bytes_never_panic(bytes in any::<Vec<u8>>()) {
        captions(std::slice::from_ref(&bytes));
        outgoing(&bytes, &[]);
        is_key(&bytes);
    }
}
