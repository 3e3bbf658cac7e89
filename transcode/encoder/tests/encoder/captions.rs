//! Captions of television survive into every rung.

use std::collections::BTreeMap;
use std::process::Command;

use bytes::{BufMut, Bytes, BytesMut};
use media::CodecConfig;
use pipe::{RungUnit, ToEncoder};

use crate::child::{RUNGS, encode, ladder};
use crate::clip::{Clip, clip, fed_to};

/// A SEI NAL unit of A/53 with one caption triple that carries `number`, which has no zeros: nothing to escape.
fn sei(number: u16) -> Vec<u8> {
    let [high, low] = (number | 0x8080).to_be_bytes();
    let triples = [0xFC, high, low];
    let mut payload = b"\xB5\x00\x31GA94\x03\x41\xFF".to_vec();
    payload.extend(triples);
    payload.push(0xFF);
    [&[6, 4, payload.len() as u8], payload.as_slice(), &[0x80]].concat()
}

/// The stream with another caption at every picture, before its slices.
fn captioned(clip: &Clip, header: &[u8]) -> (Vec<ToEncoder>, BTreeMap<i64, Vec<u8>>) {
    let mut expected = BTreeMap::new();
    let units = clip.units.iter().enumerate().map(|(index, unit)| {
        let sei = sei(index as u16 + 0x0101);
        expected.insert(unit.pts, sei.clone());
        let mut data = BytesMut::new();
        let nal = [header, &sei[1..]].concat();
        data.put_u32(nal.len() as u32);
        data.put_slice(&nal);
        data.put_slice(&unit.data);
        let mut unit = unit.clone();
        unit.data = data.freeze();
        ToEncoder::Unit(unit)
    });
    (units.collect(), expected)
}

fn nals(unit: &Bytes) -> Vec<Vec<u8>> {
    let (mut nals, mut rest) = (Vec::new(), unit.as_ref());
    while let Some((length, after)) = rest.split_first_chunk() {
        let (nal, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        nals.push(nal.to_vec());
        rest = after;
    }
    nals
}

fn assert_captions(units: &[RungUnit], expected: &BTreeMap<i64, Vec<u8>>) {
    assert_eq!(units.len(), expected.len());
    for unit in units {
        let nals = nals(&unit.data);
        let captions: Vec<_> = nals.iter().filter(|nal| nal[0] & 0x1F == 6).collect();
        assert_eq!(captions, [&expected[&unit.pts]], "at {}", unit.pts);
        assert_eq!(nals[0][0] & 0x1F, 6, "before the picture");
        assert!(nals[1..].iter().all(|nal| matches!(nal[0] & 0x1F, 1 | 5)), "and nothing else with it");
    }
}

/// Each where its picture is shown, once, although the pictures go in another order.
#[test]
fn captions_of_h264_come_with_their_pictures() {
    for name in ["plain", "b-frames"] {
        let clip = clip(name);
        let (messages, expected) = captioned(&clip, &[6]);
        let outcome = encode(ladder(&clip), messages);
        outcome.assert_clean();
        for rung in RUNGS {
            assert_captions(&outcome.units[&rung.number], &expected);
        }
        let read = read_by_ffprobe(outcome.inits()[&9].config().expect("sound"), &outcome.units[&9]);
        assert_eq!(read, clip.units.len(), "another reader finds them too");
    }
}

/// None is lost with the pictures that a rung leaves out.
#[test]
fn captions_of_a_thinned_rung_come_in_their_order() {
    let clip = clip("plain");
    let (messages, expected) = captioned(&clip, &[6]);
    let mut job = ladder(&clip);
    job.rungs.iter_mut().for_each(|rung| rung.every = 3);
    let outcome = encode(job, messages);
    outcome.assert_clean();
    for rung in RUNGS {
        let units = &outcome.units[&rung.number];
        assert_eq!(units.len(), 80);
        let nals = units.iter().flat_map(|unit| nals(&unit.data));
        let captions: Vec<_> = nals.filter(|nal| nal[0] & 0x1F == 6).collect();
        // The last two pictures have no other after them.
        assert_eq!(captions, expected.values().take(238).cloned().collect::<Vec<_>>());
    }
}

#[test]
fn captions_of_hevc_become_those_of_h264() {
    let clip = clip("hevc");
    let (messages, expected) = captioned(&clip, &[39 << 1, 1]);
    let outcome = encode(ladder(&clip), messages);
    outcome.assert_clean();
    assert_captions(&outcome.units[&5], &expected);
}

/// How many pictures have captions, as FFmpeg sees it.
fn read_by_ffprobe(config: CodecConfig, units: &[RungUnit]) -> usize {
    const START: [u8; 4] = [0, 0, 0, 1];
    let CodecConfig::H264(config) = config else { panic!("a rung is H.264") };
    // One parameter set of each kind, as x264 writes them.
    let avcc = config.avcc();
    let sps_end = 8 + usize::from(u16::from_be_bytes([avcc[6], avcc[7]]));
    let pps_end = sps_end + 3 + usize::from(u16::from_be_bytes([avcc[sps_end + 1], avcc[sps_end + 2]]));
    let mut stream = [&START, &avcc[8..sps_end], &START, &avcc[sps_end + 3..pps_end]].concat();
    for nal in units.iter().flat_map(|unit| nals(&unit.data)) {
        stream.extend(START);
        stream.extend(nal);
    }
    let arguments = ["-loglevel", "error", "-f", "h264", "-show_frames", "-of", "compact", "-i", "-"];
    let told = fed_to(Command::new("ffprobe").args(arguments), &stream);
    String::from_utf8(told).expect("text").matches("Closed Captions").count()
}
