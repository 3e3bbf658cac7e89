//! What a child is told of a log.

use bytes::{Buf, Bytes};
use media::codec::{aac, h264, opus};
use media::{AccessUnit, Captions, CodecConfig, SessionId, StreamId, TrackId};
use relay::wire::{Decoder, UnitPlace};
use relay::{Bandwidth, Boundary, Facts, Kind, StreamRegistry, StreamWriter, TrackRecord, TrackWriter};

use super::*;
use crate::serve::RelayMetrics;

const SECOND: i64 = 48_000;
const AVCC: &[u8] = b"\x01\x42\xc0\x1e\xff\xe1\x00\x19\x67\x42\xc0\x1e\xda\x02\x80\xbf\xe5\xc0\x44\x00\x00\x03\x00\x04\x00\x00\x03\x00\xf0\x3c\x58\xba\x80\x01\x00\x04\x68\xce\x0f\xc8";
const OPUS_HEAD: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00";

/// A stream with a picture, sound that WebRTC does not carry, and sound that it does; only the last is written.
struct Scene {
    writer: Option<StreamWriter>,
    tracks: Vec<TrackWriter>,
    stream: Arc<Stream>,
}

fn opus_config() -> CodecConfig {
    CodecConfig::Opus(opus::Config::parse(Bytes::from_static(OPUS_HEAD)).unwrap())
}

impl Scene {
    fn new() -> Self {
        let registry = StreamRegistry::default();
        let (id, session) = (StreamId::new("live", "cam").unwrap(), SessionId::from_random(7));
        let mut writer = registry.open(id.clone(), session).unwrap();
        let track = |id, name: &str, codec| TrackRecord {
            id: TrackId(id),
            name: name.into(),
            codec,
            part_target_ms: 500,
            reorder_delay: 0,
            derived: None,
        };
        let bandwidth = |peak| Bandwidth { peak, average: peak };
        let aac = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
        let avc = CodecConfig::H264(h264::Config::parse(Bytes::from_static(AVCC)).unwrap());
        let tracks = writer.open(StreamRecord {
            session,
            epoch: 3,
            part_hold_back_ms: 1536,
            frame_rate: Some(30.0),
            tracks: vec![track(0, "v", avc), track(1, "a", aac), track(2, "ao", opus_config())],
            live: Some(Live {
                target_duration_s: 4,
                window_ms: 28_000,
                bandwidth: vec![bandwidth(3_000), bandwidth(128), bandwidth(96)],
                captions: Captions::default(),
            }),
        });
        Self { writer: Some(writer), tracks, stream: registry.get(&id).unwrap() }
    }

    /// Groups of one second with a boundary and ten units, of which the first is a key.
    fn groups(&mut self, groups: std::ops::Range<u32>) {
        let sound = &mut self.tracks[2];
        for group in groups {
            let start = i64::from(group) * SECOND;
            sound.open_group(group, start);
            sound.push_boundary(&Boundary {
                msn: group.into(),
                part: 0,
                start,
                program_date_time_ms: 0,
                discontinuity_sequence: 0,
                independent: true,
                gap: None,
            });
            for unit in 0..10 {
                let (dts, data) = (start + unit * SECOND / 10, Bytes::from_static(b"sound"));
                sound.push_unit(&AccessUnit { dts, pts: dts, duration: 4_800, key: unit == 0, data });
            }
        }
    }

    fn config(&mut self, group: u32) {
        let start = i64::from(group) * SECOND;
        self.tracks[2].open_group(group, start);
        self.tracks[2].push_config(start, &opus_config());
    }

    fn units(&self, from: Option<&UnitResume>) -> Units {
        let child = RelayMetrics::default().child(&"edge1".parse().unwrap(), self.stream.id());
        Units::new(self.stream.clone(), from, child, Box::pin(std::future::pending()))
    }
}

fn messages(mut told: Slices) -> Vec<Message> {
    let mut decoder = Decoder::default();
    decoder.push(told.copy_to_bytes(told.remaining()));
    std::iter::from_fn(|| decoder.poll_message().unwrap()).collect()
}

/// Group, number and kind of each frame.
fn frames(told: &[Message]) -> Vec<(u32, u32, Kind)> {
    let frames = told.iter().filter_map(|message| match message {
        Message::Frame(frame) => Some((frame.group(), frame.index(), frame.kind())),
        _ => None,
    });
    frames.collect()
}

fn units(group: u32, numbers: std::ops::RangeInclusive<u32>) -> Vec<(u32, u32, Kind)> {
    numbers.map(|number| (group, number, Kind::Unit)).collect()
}

async fn next(units: &mut Units) -> Vec<Message> {
    messages(units.next().await.expect("it goes on"))
}

#[tokio::test(start_paused = true)]
async fn a_child_begins_with_the_record_and_the_newest_keyframe_and_what_is_in_force_there() {
    let mut scene = Scene::new();
    scene.config(0);
    scene.groups(1..3);
    let mut child = scene.units(None);
    let told = next(&mut child).await;
    let Message::Stream(record) = &told[0] else { panic!("{told:?}") };
    let names: Vec<_> = record.tracks.iter().map(|track| &*track.name).collect();
    assert_eq!(names, ["v", "ao"], "AAC is no use to WebRTC");
    let peaks = record.live.as_ref().unwrap().bandwidth.iter().map(|bandwidth| bandwidth.peak);
    assert_eq!(peaks.collect::<Vec<_>>(), [3_000, 96]);
    assert_eq!(told[1], Message::Condition(Condition::default()));
    let expected = [vec![(0, 0, Kind::Config), (2, 0, Kind::Boundary)], units(2, 1..=10)].concat();
    assert_eq!(frames(&told), expected);

    // Nothing happens, then something.
    assert!(matches!(next(&mut child).await[..], [Message::Clock { .. }]));
    scene.writer.as_ref().unwrap().set_facts(Facts { interrupted_since_ms: Some(9), ..Facts::default() });
    let condition = Condition { keyframe_interval_s: None, interrupted_since_ms: Some(9) };
    assert_eq!(next(&mut child).await[0], Message::Condition(condition));
    scene.groups(3..4);
    let expected = [vec![(3, 0, Kind::Boundary)], units(3, 1..=10)].concat();
    assert_eq!(frames(&next(&mut child).await), expected);

    scene.writer.as_mut().unwrap().go_live(Live {
        target_duration_s: 4,
        window_ms: 9,
        bandwidth: Vec::new(),
        captions: Captions::default(),
    });
    assert!(matches!(next(&mut child).await[..], [Message::Stream(_)]));
    scene.tracks.clear();
    scene.writer = None;
    let mut told = next(&mut child).await;
    assert_eq!(told.len(), 2, "the ends of two tracks: {told:?}");
    told.extend(next(&mut child).await);
    assert_eq!(told.last(), Some(&Message::End));
    assert!(child.next().await.is_none());
}

/// Between the look-up and the first time that the connection had room.
#[tokio::test(start_paused = true)]
async fn a_child_of_a_stream_that_has_just_ended_is_told_the_record_before_its_frames() {
    let mut scene = Scene::new();
    scene.groups(0..1);
    let mut child = scene.units(None);
    scene.tracks.clear();
    scene.writer = None;
    let mut told = next(&mut child).await;
    assert!(matches!(told[0], Message::Stream(_)), "{told:?}");
    assert_eq!(frames(&told)[1..=11], [vec![(0, 0, Kind::Boundary)], units(0, 1..=10)].concat());
    told.extend(next(&mut child).await);
    assert_eq!(told.last(), Some(&Message::End));
    assert!(child.next().await.is_none());
}

/// The node above it had to read it anew.
#[tokio::test(start_paused = true)]
async fn a_child_of_a_copy_that_is_written_anew_is_cut_off_and_not_told_an_end() {
    let mut scene = Scene::new();
    scene.groups(0..1);
    let mut child = scene.units(None);
    next(&mut child).await;
    let _anew = scene.writer.as_ref().unwrap().anew();
    scene.tracks.clear();
    scene.writer = None;
    let told = next(&mut child).await;
    assert!(!told.contains(&Message::End), "{told:?}");
    assert!(child.next().await.is_none());
}

/// Nor is one whose stream has moved to another node: there it goes on.
#[tokio::test(start_paused = true)]
async fn a_child_of_a_session_that_has_moved_is_cut_off_and_not_told_an_end() {
    let mut scene = Scene::new();
    scene.groups(0..1);
    let mut child = scene.units(None);
    next(&mut child).await;
    scene.writer.as_ref().unwrap().set_moved();
    scene.tracks.clear();
    scene.writer = None;
    let told = next(&mut child).await;
    assert!(!told.contains(&Message::End), "{told:?}");
    assert!(child.next().await.is_none());
}

fn resume(session: u64, group: u32, frame: u32) -> UnitResume {
    let places = vec![UnitPlace { track: TrackId(2), group, frame }];
    UnitResume { session: SessionId::from_random(session), epoch: 3, places }
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_back_is_told_what_it_missed_and_nothing_twice() {
    let mut scene = Scene::new();
    scene.groups(0..3);
    let told = next(&mut scene.units(Some(&resume(7, 1, 9)))).await;
    assert!(matches!(told[0], Message::Stream(_)));
    assert_eq!(frames(&told), units(1, 9..=10));
    // A place in another session means nothing.
    let told = next(&mut scene.units(Some(&resume(8, 1, 9)))).await;
    assert_eq!(frames(&told)[..2], [(2, 0, Kind::Boundary), (2, 1, Kind::Unit)]);
}

/// It may have missed the configuration of what it goes on with.
#[tokio::test(start_paused = true)]
async fn a_child_that_is_slow_goes_on_at_a_newer_keyframe_with_what_is_in_force_there() {
    let mut scene = Scene::new();
    scene.groups(0..2);
    let mut child = scene.units(None);
    next(&mut child).await;
    scene.config(2);
    scene.groups(3..12);
    let expected = [vec![(2, 0, Kind::Config), (11, 0, Kind::Boundary)], units(11, 1..=10)].concat();
    assert_eq!(frames(&next(&mut child).await), expected);
    // One whose place is long gone is told the same way.
    scene.groups(12..80);
    let told = next(&mut scene.units(Some(&resume(7, 1, 9)))).await;
    let expected = [vec![(2, 0, Kind::Config), (79, 0, Kind::Boundary)], units(79, 1..=10)].concat();
    assert_eq!(frames(&told), expected);
}
