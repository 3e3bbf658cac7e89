//! What readers of a ring find, and what it costs.

use bytes::Bytes;

use super::*;

const SECOND: i64 = 90_000;

/// A video track at 10 fps: GOP k starts at k · `gop_s` seconds.
struct Source {
    ring: Ring,
    gop_s: i64,
    bytes: usize,
}

impl Source {
    fn new(gop_s: i64, bytes: usize) -> Self {
        Self { ring: Ring::new(TrackId(0), Timescale::VIDEO), gop_s, bytes }
    }

    /// Appends GOPs `from..to`, whole.
    fn gops(&mut self, from: u32, to: u32) {
        for group in from..to {
            let start = i64::from(group) * self.gop_s * SECOND;
            self.ring.open_group(group, start);
            for n in 0..self.gop_s * 10 {
                let dts = start + n * SECOND / 10;
                let data = Bytes::from(vec![0; self.bytes]);
                let unit = AccessUnit { dts, pts: dts, duration: 9_000, key: n == 0, data };
                self.ring.push_unit(&unit);
            }
        }
    }
}

fn read_all(ring: &Ring, cursor: &mut Cursor, may_jump: bool) -> (Vec<Frame>, bool) {
    let (mut frames, mut jumped) = (Vec::new(), false);
    loop {
        match ring.read(cursor, may_jump, &mut frames) {
            Read::Idle | Read::Ended => return (frames, jumped),
            Read::Jumped => jumped = true,
            Read::Frames => {}
            Read::Lost => panic!("lost at {cursor:?}"),
        }
    }
}

/// A worker that came late begins with a group that is not the first.
#[test]
fn a_reader_that_was_there_before_anything_else_misses_nothing() {
    let mut source = Source::new(2, 1_000);
    let mut cursor = source.ring.oldest(1);
    source.gops(5, 6);
    source.gops(9, 10);
    assert_eq!(read_all(&source.ring, &mut cursor, false).0.len(), 40);
}

#[test]
fn late_reader_starts_on_the_newest_keyframe() {
    let mut source = Source::new(2, 1_000);
    source.gops(0, 3);
    let mut cursor = source.ring.start(1);
    let (frames, jumped) = read_all(&source.ring, &mut cursor, true);
    assert!(frames[0].is_key_unit() && !jumped);
    assert_eq!(frames[0].dts(), 4 * SECOND);
    assert_eq!(frames.len(), 20);
}

#[test]
fn viewer_that_falls_behind_jumps_to_the_newest_keyframe_and_loses_nothing_after_it() {
    let mut source = Source::new(2, 1_000);
    source.gops(0, 1);
    let mut cursor = source.ring.start(1);
    read_all(&source.ring, &mut cursor, true);
    source.gops(1, 3);
    let (frames, jumped) = read_all(&source.ring, &mut cursor, true);
    assert!(!jumped, "two groups behind is still in time");
    assert_eq!(frames.len(), 40);
    source.gops(3, 7);
    let (frames, jumped) = read_all(&source.ring, &mut cursor, true);
    assert!(jumped);
    assert_eq!(frames[0].dts(), 12 * SECOND);
    assert_eq!(frames.len(), 20);
}

/// With long GOPs the newest keyframe may lie behind the viewer: jumping there would show it old pictures again.
#[test]
fn viewer_never_jumps_backwards() {
    let mut source = Source::new(10, 1_000);
    source.gops(0, 1);
    let mut cursor = Cursor { epoch: 1, group: 0, frame: 30 };
    let (frames, jumped) = read_all(&source.ring, &mut cursor, true);
    assert!(!jumped);
    assert_eq!(frames.len(), 70);
}

#[test]
fn reader_that_never_jumps_gets_every_frame_or_is_told() {
    let mut source = Source::new(2, 1_000);
    source.gops(0, 10);
    let mut origin = Cursor { epoch: 1, group: 0, frame: 0 };
    assert_eq!(read_all(&source.ring, &mut origin, false).0.len(), 200);
    let mut stalled = Cursor { epoch: 1, group: 2, frame: 5 };
    source.gops(10, 40);
    assert_eq!(source.ring.read(&mut stalled, false, &mut Vec::new()), Read::Lost);
}

#[test]
fn ring_is_bounded_by_bytes_and_by_time_and_keeps_the_newest_group() {
    let mut short = Source::new(1, 100);
    short.gops(0, 100);
    assert!(short.ring.groups.len() as i64 <= RING_SECONDS_MAX + 1, "{} groups", short.ring.groups.len());
    let mut heavy = Source::new(1, 2 * 1024 * 1024);
    heavy.gops(0, 6);
    assert!(heavy.ring.bytes <= RING_BYTES_MAX + 20 * 1024 * 1024, "{} bytes", heavy.ring.bytes);
    assert_eq!(heavy.ring.groups.back().map(|group| group.frames.len()), Some(10));
}

/// What another node wrote is read as if it had been written here, though it came in with holes.
#[test]
fn a_copy_has_the_numbers_of_the_original_and_the_same_cursors() {
    let mut source = Source::new(2, 1_000);
    source.gops(0, 6);
    let mut frames = Vec::new();
    let mut cursor = source.ring.oldest(1);
    while source.ring.read(&mut cursor, false, &mut frames) == Read::Frames {}
    let mut copy = Ring::new(TrackId(0), Timescale::VIDEO);
    // A part of a group, and one of the next, as it is for a child that was slow.
    let came = |frame: &&Frame| (5..10).contains(&frame.index()) || (13..).contains(&frame.index());
    for frame in frames.iter().filter(came) {
        copy.push_copy(frame.clone()).unwrap();
    }
    let mut cursor = Cursor { epoch: 1, group: 2, frame: 7 };
    let mut read = Vec::new();
    assert_eq!(copy.read(&mut cursor, false, &mut read), Read::Frames);
    let numbers: Vec<_> = read.iter().map(Frame::index).collect();
    assert_eq!(numbers, [7, 8, 9, 13, 14, 15, 16, 17, 18, 19]);
    assert_eq!(cursor, Cursor { epoch: 1, group: 2, frame: 20 });
    // One that is not here is the next that is.
    let mut cursor = Cursor { epoch: 1, group: 2, frame: 11 };
    read.clear();
    copy.read(&mut cursor, false, &mut read);
    assert_eq!(read.first().map(Frame::index), Some(13));
    assert_eq!(read[0].wire(), frames[2 * 20 + 13].wire());
}

#[test]
fn a_copy_refuses_what_no_honest_node_sends() {
    let mut source = Source::new(2, 1_000);
    source.gops(3, 5);
    let mut frames = Vec::new();
    let mut cursor = source.ring.oldest(1);
    while source.ring.read(&mut cursor, false, &mut frames) == Read::Frames {}
    let mut copy = Ring::new(TrackId(0), Timescale::VIDEO);
    for frame in &frames {
        copy.push_copy(frame.clone()).unwrap();
    }
    for again in [&frames[0], &frames[39]] {
        assert!(matches!(copy.push_copy(again.clone()), Err(AppendError::Order { .. })));
    }
    // Empty units for ever, in one group: they count for what they take.
    let unit = AccessUnit { dts: 0, pts: 0, duration: 0, key: false, data: Bytes::new() };
    let mut ends = (0_u32..).map(|frame| {
        let place = Place { track: TrackId(0), group: 9, frame };
        copy.push_copy(Frame::unit(place, &unit))
    });
    let refused = ends.by_ref().take(1 << 20).find_map(Result::err);
    assert_eq!(refused, Some(AppendError::GroupTooLong { group: 9 }));
}

/// Its encoder is configured once, and its viewers come when they like.
#[test]
fn a_late_reader_is_told_the_configuration_though_it_left_the_ring() {
    let codec = |config: &'static [u8]| {
        CodecConfig::Aac(media::codec::aac::Config::parse(Bytes::from_static(config)).unwrap())
    };
    let boundary = |msn, start| Boundary {
        msn,
        part: 0,
        start,
        program_date_time_ms: 0,
        discontinuity_sequence: 0,
        independent: true,
        gap: None,
    };
    let mut source = Source::new(2, 1_000);
    source.ring.open_group(0, 0);
    source.ring.push_config(0, &codec(&[0x11, 0x90]));
    source.gops(1, 3);
    source.ring.push_config(4 * SECOND, &codec(&[0x12, 0x10]));
    source.gops(3, 40);
    source.ring.open_group(40, 80 * SECOND);
    source.ring.push_boundary(&boundary(40, 80 * SECOND));
    let unit = AccessUnit { dts: 80 * SECOND, pts: 0, duration: 1, key: true, data: Bytes::new() };
    source.ring.push_unit(&unit);
    source.ring.push_boundary(&boundary(41, 81 * SECOND));
    assert!(source.ring.dropped.is_some_and(|dropped| dropped > 3));

    let start = source.ring.start(1);
    assert_eq!(start, Cursor { epoch: 1, group: 40, frame: 1 });
    let preface = source.ring.preface(start);
    assert_eq!(preface.iter().map(Frame::kind).collect::<Vec<_>>(), [Kind::Config, Kind::Boundary]);
    assert_eq!(preface[0].to_config().unwrap(), codec(&[0x12, 0x10]));
    assert_eq!(preface[1].to_boundary().unwrap().msn, 40, "the one in force there, and not the newest");
}

#[test]
fn every_reader_sees_the_end() {
    let mut source = Source::new(2, 10);
    source.gops(0, 2);
    let mut cursor = source.ring.start(1);
    source.ring.push_end(4 * SECOND);
    let mut frames = Vec::new();
    assert_eq!(source.ring.read(&mut cursor, true, &mut frames), Read::Ended);
    assert_eq!(frames.last().map(Frame::kind), Some(Kind::End));
    assert_eq!(source.ring.read(&mut cursor, true, &mut frames), Read::Ended);
}
