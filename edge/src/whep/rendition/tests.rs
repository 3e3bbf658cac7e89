//! What a reader of the log tells its shard.

use bytes::Bytes;
use media::codec::{h264, vp8};
use media::{AccessUnit, SessionId, StreamId, TrackId};
use relay::{Bandwidth, Derived, StreamRecord, StreamRegistry, TrackRecord};

use super::*;
use crate::whep::programme::Programme;

const SECOND: i64 = 90_000;

/// Of 640 by 360 as an encoder writes it, and with another picture parameter set.
const AVCC: &[u8] = b"\x01\x42\xc0\x1e\xff\xe1\x00\x19\x67\x42\xc0\x1e\xda\x02\x80\xbf\xe5\xc0\x44\x00\x00\x03\x00\x04\x00\x00\x03\x00\xf0\x3c\x58\xba\x80\x01\x00\x04\x68\xce\x0f\xc8";
const AVCC_OTHER: &[u8] = b"\x01\x42\xc0\x1e\xff\xe1\x00\x19\x67\x42\xc0\x1e\xda\x02\x80\xbf\xe5\xc0\x44\x00\x00\x03\x00\x04\x00\x00\x03\x00\xf0\x3c\x58\xba\x80\x01\x00\x04\x68\xce\x0f\xc9";

fn codec(avcc: &'static [u8]) -> CodecConfig {
    CodecConfig::H264(h264::Config::parse(Bytes::from_static(avcc)).unwrap())
}

/// What the record says of a rung is a guess, and its encoder says once what it is. Who comes minutes later needs it too.
#[tokio::test]
async fn a_late_viewer_of_a_rung_is_sent_the_parameter_sets_of_its_encoder() {
    let registry = StreamRegistry::default();
    let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(1));
    let mut stream = registry.open(id.clone(), session).unwrap();
    let track = TrackRecord {
        id: TrackId(0),
        name: "v360".into(),
        codec: codec(AVCC),
        part_target_ms: 500,
        reorder_delay: 0,
        derived: None,
    };
    let mut writer = stream
        .open(StreamRecord {
            session,
            epoch: 1,
            part_hold_back_ms: 1536,
            frame_rate: None,
            tracks: vec![track],
            live: None,
        })
        .remove(0);
    for group in 0..60 {
        let start = i64::from(group) * 2 * SECOND;
        writer.open_group(group, start);
        if group == 0 {
            writer.push_config(start, &codec(AVCC_OTHER));
        }
        let data = Bytes::from_static(b"\0\0\0\x04\x65\x88\x84\0");
        writer.push_unit(&AccessUnit { dts: start, pts: start, duration: 3_000, key: true, data });
    }
    let track = registry.get(&id).unwrap().tracks()[0].clone();
    let mut rendition = Rendition::new(track);
    let (to, mut told) = mpsc::channel(8);
    rendition.want(&to, |told| told);
    let Some(Told::Frame(frame)) = told.recv().await else { panic!("no frame") };
    assert!(frame.is_key() && frame.pts() == 59 * 2 * SECOND);
    let sets = frame.payload(0).unwrap();
    let holds = |set: &[u8]| sets.windows(set.len()).any(|part| part == set);
    assert!(holds(b"\x68\xce\x0f\xc9") && !holds(b"\x68\xce\x0f\xc8"), "{sets:02x?}");
}

fn track(id: u16, name: &str, width: u32, height: u32, layer: Option<bool>) -> TrackRecord {
    let bandwidth = Bandwidth { peak: 1_500_000, average: 1_000_000 };
    let derived =
        |layer| Derived { from: TrackId(0), every: 1, bandwidth, on_demand: false, for_webrtc: layer, layer };
    TrackRecord {
        id: TrackId(id),
        name: name.into(),
        codec: CodecConfig::H264(h264::Config::nominal(width, height, 30.0, 1_000_000).unwrap()),
        part_target_ms: 501,
        reorder_delay: 0,
        derived: layer.map(derived),
    }
}

/// Nothing is encoded for viewers by WebRTC of what the publisher sends in several sizes itself.
#[tokio::test]
async fn layers_take_the_place_of_rungs() {
    for (layers, expected) in [(true, vec!["v", "s360", "s180"]), (false, vec!["v", "v480", "v360"])] {
        let registry = StreamRegistry::default();
        let id = StreamId::new("live", "cam").unwrap();
        let session = SessionId::from_random(1);
        let mut writer = registry.open(id.clone(), session).unwrap();
        let mut tracks = vec![track(0, "v", 1280, 720, None)];
        if layers {
            tracks.extend([track(1, "s180", 320, 180, Some(true)), track(2, "s360", 640, 360, Some(true))]);
        }
        tracks.extend([track(3, "v480", 854, 480, Some(false)), track(4, "v360", 640, 360, Some(false))]);
        writer.open(StreamRecord {
            session,
            epoch: 1,
            part_hold_back_ms: 1_503,
            frame_rate: Some(30.0),
            tracks,
            live: None,
        });
        let stream = registry.get(&id).unwrap();
        let (video, _) = choose(stream.tracks(), Formats::of([Format::H264]));
        assert_eq!(video.iter().map(Rendition::name).collect::<Vec<_>>(), expected);
        let programme = Programme::new(stream, Formats::of([Format::H264]), &mpsc::channel(1).0, drop);
        let asked = |name| programme.number_of(name);
        let by_name = if layers { [Some(1), Some(1)] } else { [Some(1), Some(2)] };
        assert_eq!([asked("v480"), asked("v360")], by_name, "what a playlist names");
        assert_eq!([asked("v"), asked("nothing")], [Some(0), None]);
        assert!(programme.ladder().is_sorted());
    }
}

/// A viewer with a decoder for what the publisher sends goes between that and the smaller rungs.
#[tokio::test]
async fn the_publishers_own_takes_the_place_of_what_is_made_of_it_in_its_size() {
    let keyframe = [0x50, 0x07, 0x00, 0x9D, 0x01, 0x2A, 0x00, 0x05, 0xD0, 0x02];
    let own = CodecConfig::Vp8(vp8::Config::of_keyframe(&keyframe).unwrap());
    let registry = StreamRegistry::default();
    let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(1));
    let mut writer = registry.open(id.clone(), session).unwrap();
    let rungs = [track(1, "v720", 1280, 720, Some(false)), track(2, "v480", 854, 480, Some(false))];
    let own = TrackRecord { codec: own, ..track(0, "v", 1280, 720, None) };
    writer.open(StreamRecord {
        session,
        epoch: 1,
        part_hold_back_ms: 1_503,
        frame_rate: Some(30.0),
        tracks: std::iter::once(own).chain(rungs).collect(),
        live: None,
    });
    let stream = registry.get(&id).unwrap();
    for (formats, expected) in [
        (&[Format::Vp8, Format::H264][..], &["v", "v480"][..]),
        (&[Format::H264], &["v720", "v480"]),
        (&[Format::Vp8], &["v"]),
        (&[], &[]),
    ] {
        let (video, _) = choose(stream.tracks(), Formats::of(formats.iter().copied()));
        assert_eq!(video.iter().map(Rendition::name).collect::<Vec<_>>(), expected, "{formats:?}");
    }
}
