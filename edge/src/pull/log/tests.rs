//! A node's log as another node tells it, in and out of order.

use std::sync::Arc;

use bytes::Bytes;
use media::codec::aac;
use media::{AccessUnit, Captions, CodecConfig, SessionId};
use relay::{Bandwidth, Derived, Live, Read, Stream, Track, TrackRecord};

use super::*;

const FRAME: i64 = 1024;

fn id() -> StreamId {
    StreamId::new("live", "cam").unwrap()
}

fn record(session: u64, epoch: u32) -> StreamRecord {
    let codec = CodecConfig::Aac(aac::Config::parse(Bytes::from_static(&[0x11, 0x90])).unwrap());
    let derived = Derived {
        from: TrackId(0),
        every: 1,
        bandwidth: Bandwidth::default(),
        on_demand: true,
        for_webrtc: true,
        layer: false,
    };
    let track = |id, name: &str, derived| TrackRecord {
        id: TrackId(id),
        name: name.into(),
        codec: codec.clone(),
        part_target_ms: 512,
        reorder_delay: 0,
        derived,
    };
    StreamRecord {
        session: SessionId::from_random(session),
        epoch,
        part_hold_back_ms: 1536,
        frame_rate: None,
        tracks: vec![track(0, "a", None), track(3, "ao", Some(derived))],
        live: None,
    }
}

fn told(record: StreamRecord) -> Message {
    Message::Stream(Box::new(record))
}

/// The node that is copied.
struct Origin {
    _stream: StreamWriter,
    writer: TrackWriter,
    track: Arc<Track>,
    cursor: relay::Cursor,
}

impl Origin {
    fn new(session: u64, epoch: u32) -> Self {
        let registry = StreamRegistry::default();
        let mut stream = registry.open(id(), SessionId::from_random(session)).unwrap();
        let writer = stream.open(record(session, epoch)).remove(0);
        let track = registry.get(&id()).unwrap().tracks()[0].clone();
        Self { _stream: stream, writer, cursor: track.oldest(), track }
    }

    /// Writes a group of `units`, and hands out what was written.
    fn group(&mut self, number: u32, units: i64) -> Vec<Message> {
        let start = i64::from(number) * 100 * FRAME;
        self.writer.open_group(number, start);
        for unit in 0..units {
            let (dts, data) = (start + unit * FRAME, Bytes::from(vec![number as u8; 20]));
            self.writer.push_unit(&AccessUnit { dts, pts: dts, duration: FRAME as u32, key: true, data });
        }
        self.written()
    }

    fn written(&mut self) -> Vec<Message> {
        let mut frames = Vec::new();
        while self.track.read(&mut self.cursor, false, &mut frames) == Read::Frames {}
        frames.into_iter().map(Message::Frame).collect()
    }
}

/// The node that copies.
struct Edge {
    copy: LogCopy,
    streams: StreamRegistry,
}

impl Edge {
    fn new() -> Self {
        let streams = StreamRegistry::default();
        Self { copy: LogCopy::new(id(), streams.clone(), Counter::default()), streams }
    }

    fn hear(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            self.copy.apply(message).unwrap();
        }
    }

    fn stream(&self) -> Arc<Stream> {
        self.streams.get(&id()).unwrap()
    }

    fn resume(&self) -> Option<String> {
        self.copy.resume().map(|resume| resume.to_string())
    }
}

fn wires(track: &Track) -> Vec<Bytes> {
    let (mut cursor, mut frames) = (track.oldest(), Vec::new());
    while matches!(track.read(&mut cursor, false, &mut frames), Read::Frames) {}
    frames.iter().map(|frame| frame.wire().clone()).collect()
}

#[test]
fn a_copy_is_read_as_the_original_is() {
    let (mut origin, mut edge) = (Origin::new(7, 1), Edge::new());
    assert_eq!(edge.resume(), None);
    assert_eq!(edge.copy.apply(told(record(7, 1))).unwrap(), Step::Ready);
    assert_eq!(edge.resume(), None, "nothing came yet, so it begins at the newest keyframe");
    edge.hear(origin.group(5, 3));
    edge.hear(origin.group(6, 2));
    let stream = edge.stream();
    assert_eq!(stream.record().borrow().as_deref(), Some(&record(7, 1)));
    assert_eq!(wires(&stream.tracks()[0]), wires(&origin.track));
    assert_eq!(edge.copy.received.get(), 5);
    assert_eq!(edge.resume().unwrap(), format!("{}.1;0:6.2", SessionId::from_random(7)));
}

/// The upstream restarts: its groups go on at higher numbers under the next epoch, and nobody here notices.
#[test]
fn an_upstream_that_is_back_goes_on_with_the_same_stream() {
    let (mut origin, mut edge) = (Origin::new(7, 1), Edge::new());
    edge.hear([told(record(7, 1)), Message::Condition(Condition::default())]);
    edge.hear(origin.group(5, 3));
    let stream = edge.stream();
    edge.copy.lost();
    assert!(stream.facts().interrupted_since_ms.is_some());
    assert!(!edge.copy.is_given_up(LOST_MAX, false));

    let mut origin = Origin::new(7, 2);
    let live = Some(Live {
        target_duration_s: 4,
        window_ms: 28_000,
        bandwidth: Vec::new(),
        captions: Captions::default(),
    });
    assert_eq!(edge.copy.apply(told(StreamRecord { live, ..record(7, 2) })).unwrap(), Step::Ready);
    edge.hear([Message::Condition(Condition::default())]);
    assert_eq!(stream.facts().interrupted_since_ms, None);
    edge.hear(origin.group(1005, 1));
    assert!(Arc::ptr_eq(&stream, &edge.stream()), "viewers read on");
    assert_eq!(wires(&stream.tracks()[0]).len(), 4);
    assert!(stream.record().borrow().as_ref().unwrap().live.is_some());
    assert_eq!(edge.resume().unwrap(), format!("{}.2;0:1005.1", SessionId::from_random(7)));
}

#[test]
fn an_upstream_that_stays_away_is_given_up_and_one_that_has_lost_the_stream_soon() {
    let edge = Edge::new();
    assert!(edge.copy.is_given_up(LOST_MAX + Duration::from_secs(1), false));
    assert!(!edge.copy.is_given_up(ABSENT_MAX, true));
    assert!(edge.copy.is_given_up(ABSENT_MAX + Duration::from_secs(1), true));
}

#[tokio::test]
async fn the_end_and_another_session_end_what_is_here() {
    for is_followed in [false, true] {
        let (mut origin, mut edge) = (Origin::new(7, 1), Edge::new());
        edge.hear([told(record(7, 1))]);
        edge.hear(origin.group(5, 3));
        let stream = edge.stream();
        let mut opened = stream.record();
        opened.borrow_and_update();
        if is_followed {
            edge.hear([told(record(8, 1))]);
            assert_eq!(edge.stream().session(), SessionId::from_random(8));
        } else {
            assert_eq!(edge.copy.apply(Message::End).unwrap(), Step::Over);
            assert!(edge.streams.get(&id()).is_none());
        }
        assert!(opened.changed().await.is_err(), "viewers are told");
        let (mut cursor, mut frames) = (stream.tracks()[0].oldest(), Vec::new());
        assert_eq!(stream.tracks()[0].read(&mut cursor, false, &mut frames), Read::Ended);
    }
}

#[test]
fn a_track_that_ended_ends_once() {
    let (mut origin, mut edge) = (Origin::new(7, 1), Edge::new());
    edge.hear([told(record(7, 1))]);
    edge.hear(origin.group(5, 3));
    let Origin { _stream, writer, track, mut cursor } = origin;
    drop(writer);
    let mut frames = Vec::new();
    assert_eq!(track.read(&mut cursor, false, &mut frames), Read::Ended);
    edge.hear(frames.iter().cloned().map(Message::Frame));
    assert_eq!(wires(&edge.stream().tracks()[0]), wires(&track));
    assert!(matches!(edge.copy.apply(Message::Frame(frames.remove(0))), Err(LogError::Ended(_))));
}

/// Two halves of a cluster had a publisher each. What is here of the later one stays, and is asked of a node that has it.
#[test]
fn a_node_that_has_only_the_publisher_of_before_is_left_for_another() {
    for is_broken in [false, true] {
        let (mut origin, mut edge) = (Origin::new(7, 2), Edge::new());
        edge.hear([told(record(7, 2))]);
        let frames = origin.group(5, 3);
        edge.hear(frames.iter().cloned());
        let (stream, resume) = (edge.stream(), edge.resume());
        if is_broken {
            assert!(edge.copy.apply(frames[0].clone()).is_err(), "a second time");
        }
        assert_eq!(edge.copy.apply(told(record(7, 1))).unwrap(), Step::Behind);
        assert!(edge.copy.is_open() && Arc::ptr_eq(&stream, &edge.stream()));
        assert_eq!(edge.resume(), resume.filter(|_| !is_broken));
        edge.hear([told(record(7, 2))]);
        edge.hear(origin.group(6, 1));
        assert_eq!(edge.resume().unwrap(), format!("{}.2;0:6.1", SessionId::from_random(7)));
    }
}

/// Threat: a broken or hostile node. Whatever it was, the stream is not served on with a hole in it.
#[test]
fn what_no_honest_node_says_is_nothing_to_go_on_from() {
    let mut origin = Origin::new(7, 2);
    let frames = origin.group(5, 3);
    let only = |number: usize| frames[number].clone();
    let other_tracks = StreamRecord { tracks: record(7, 2).tracks[1..].to_vec(), ..record(7, 2) };
    let cases: Vec<(Vec<Message>, Message, bool)> = vec![
        (Vec::new(), only(0), false),
        (Vec::new(), Message::Condition(Condition::default()), false),
        (vec![told(record(7, 2))], Message::IndexComplete, true),
        (vec![told(record(7, 2)), only(0), only(2)], only(1), true),
        // Another stream.
        (vec![told(record(7, 2)), only(0)], told(other_tracks.clone()), false),
        (vec![told(other_tracks)], only(0), true),
    ];
    for (before, wrong, is_read_anew) in cases {
        let mut edge = Edge::new();
        edge.hear(before);
        let refused = edge.copy.apply(wrong.clone());
        assert!(refused.is_err(), "{wrong:?}");
        assert_eq!((edge.copy.is_open(), edge.resume()), (is_read_anew, None), "{wrong:?}");
        assert_eq!(edge.streams.get(&id()).is_some(), is_read_anew);
        assert!(edge.copy.apply(only(2)).is_err(), "after {wrong:?}");
    }
}

#[tokio::test]
async fn a_session_that_is_read_anew_goes_on_for_its_viewers_as_another_stream() {
    let (mut origin, mut edge) = (Origin::new(7, 1), Edge::new());
    edge.hear([told(record(7, 1))]);
    let frames = origin.group(5, 3);
    edge.hear(frames.iter().cloned());
    let stream = edge.stream();
    let mut opened = stream.record();
    opened.mark_unchanged();
    assert!(edge.copy.apply(frames[0].clone()).is_err(), "a second time");
    edge.copy.lost();
    assert!(
        opened.has_changed().is_ok() && stream.facts().interrupted_since_ms.is_some(),
        "they stand still"
    );

    edge.hear([told(record(7, 1))]);
    edge.hear(origin.group(6, 2));
    assert!(opened.changed().await.is_err());
    let anew = edge.stream();
    assert!(stream.successor().is_some_and(|next| Arc::ptr_eq(next, &anew)));
    assert_eq!(wires(&anew.tracks()[0]).len(), 2);
    assert_eq!(edge.resume().unwrap(), format!("{}.1;0:6.2", SessionId::from_random(7)));
}
