//! What a reader of the log tells its shard.

use bytes::Bytes;
use media::codec::h264;
use media::{AccessUnit, SessionId, StreamId, TrackId};
use relay::{StreamRecord, StreamRegistry, TrackRecord};

use super::*;

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
