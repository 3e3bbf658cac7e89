mod enhanced;

use std::sync::{Barrier, Mutex};
use std::time::UNIX_EPOCH;

use media::{Captions, CodecConfig, StreamId};
use relay::{Boundary, Frame, HEADER_BYTES, Kind, Read, StreamRecord, StreamRegistry};

use super::*;
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::claims::{Claims, Elsewhere};
use crate::error::{KeyFault, Refusal};
use crate::gate::{Authorize, Gate, OnConflict, Policy};
use crate::ladder::PassThrough;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::testing::{AVCC, AVCC_SMALL};

const LINGER: Duration = Duration::from_secs(20);

struct RightKey;

impl Authorize for RightKey {
    fn may_publish(&self, _: &StreamId, key: &Secret) -> bool {
        key.expose() == "right"
    }
}

/// The newest checkpoint, as a disk would keep it.
#[derive(Default)]
struct Disk(Mutex<Option<Vec<u8>>>);

impl Checkpoints for Disk {
    fn store(&self, checkpoint: &Checkpoint) {
        *self.0.lock().unwrap() = Some(checkpoint.to_json());
    }

    fn remove(&self, _: &StreamId) {
        *self.0.lock().unwrap() = None;
    }

    /// As if other nodes had this disk, too.
    fn leave(&self, _: &StreamId) {}
}

/// A node, and its clock: `started` is both its time zero and 1,800,000,000 s after the Unix epoch.
struct Server {
    gate: Gate,
    registry: StreamRegistry,
    id: StreamId,
    disk: Arc<Disk>,
    started: Instant,
}

impl Server {
    fn new() -> Self {
        Self::with(OnConflict::Refuse)
    }

    fn with(on_conflict: OnConflict) -> Self {
        Self::on(Arc::default(), Instant::now(), on_conflict)
    }

    fn on(disk: Arc<Disk>, started: Instant, on_conflict: OnConflict) -> Self {
        let registry = StreamRegistry::default();
        let policy = Policy { part_target: Duration::from_millis(500), on_conflict, linger: LINGER };
        let gate = Gate::new(
            registry.clone(),
            Arc::new(RightKey),
            policy,
            disk.clone(),
            Arc::new(PassThrough),
            Metrics::default(),
        );
        Self { gate, registry, id: StreamId::new("live", "cam").unwrap(), disk, started }
    }

    fn at(&self, seconds: f64) -> (Instant, SystemTime) {
        let since = Duration::from_secs_f64(seconds);
        (self.started + since, UNIX_EPOCH + Duration::from_secs(1_800_000_000) + since)
    }

    fn publish(&self, key: &str) -> Result<Publication, Refusal> {
        self.publish_at(key, 0.0)
    }

    fn publish_at(&self, key: &str, seconds: f64) -> Result<Publication, Refusal> {
        self.gate.publish(&self.id, &Secret::new(key.to_owned()), self.at(seconds).0)
    }

    /// Lets time pass, from one whole tenth of a second to another. The gate is asked only when it wants to be.
    fn tick(&self, seconds: std::ops::Range<f64>) {
        let mut next = self.started;
        for tenth in (seconds.start * 10.0) as u32..(seconds.end * 10.0) as u32 {
            let (now, wall) = self.at(f64::from(tenth) / 10.0);
            if now >= next {
                next = self.gate.tick(now, wall);
            }
        }
    }

    fn record(&self) -> Option<Arc<StreamRecord>> {
        self.registry.get(&self.id)?.record().borrow().clone()
    }

    fn session(&self) -> Option<SessionId> {
        Some(self.registry.get(&self.id)?.session())
    }

    fn interrupted_since_s(&self) -> Option<f64> {
        let since_ms = self.registry.get(&self.id)?.facts().interrupted_since_ms?;
        Some((since_ms - 1_800_000_000_000) as f64 / 1000.0)
    }
}

/// An encoder in real time: pictures at 25 fps with a keyframe every two seconds, AAC at 48 kHz.
struct Encoder {
    publication: Publication,
    started: Instant,
    wall: SystemTime,
    picture: i64,
    sound: i64,
    /// Added to every stamp.
    offset: u32,
    keyframes: bool,
}

impl Encoder {
    fn new(server: &Server, publication: Publication) -> Self {
        Self::new_at(server, publication, 0.0)
    }

    /// Its stamps begin at zero when it connects, `seconds` after the server's start.
    fn new_at(server: &Server, publication: Publication, seconds: f64) -> Self {
        let (started, wall) = server.at(seconds);
        Self { publication, started, wall, picture: 0, sound: 0, offset: 0, keyframes: true }
    }

    fn video_header(&mut self, avcc: &[u8]) -> Result<(), PublishError> {
        self.video(0, [&[0x17, 0, 0, 0, 0], avcc].concat())
    }

    fn audio_header(&mut self) -> Result<(), PublishError> {
        self.publication.audio(0, Bytes::from_static(&[0xAF, 0, 0x11, 0x90]), self.started, self.wall)
    }

    fn video(&mut self, millis: i64, body: Vec<u8>) -> Result<(), PublishError> {
        let since = Duration::from_millis(millis as u64);
        let stamp = self.offset.wrapping_add(millis as u32);
        self.publication.video(stamp, body.into(), self.started + since, self.wall + since)
    }

    fn picture(&mut self) -> Result<(), PublishError> {
        let key = self.keyframes && self.picture % 50 == 0;
        let nal = if key { 0x65 } else { 0x41 };
        let millis = self.picture * 40;
        self.picture += 1;
        self.video(millis, vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 0, 0, 0, 0, 2, nal, 0x80])
    }

    fn sound(&mut self) -> Result<(), PublishError> {
        let millis = self.sound * 1024 * 1000 / 48_000;
        let since = Duration::from_millis(millis as u64);
        self.sound += 1;
        let stamp = self.offset.wrapping_add(millis as u32);
        let body = Bytes::from_static(&[0xAF, 1, 0x21, 0x10]);
        self.publication.audio(stamp, body, self.started + since, self.wall + since)
    }

    /// Pictures and sound until `seconds` after the start.
    fn run_until(&mut self, seconds: f64) -> Result<(), PublishError> {
        while self.picture as f64 * 0.04 < seconds {
            self.picture()?;
            while self.sound as f64 * 1024.0 / 48_000.0 < self.picture as f64 * 0.04 {
                self.sound()?;
            }
        }
        Ok(())
    }
}

fn frames(server: &Server, track: usize) -> Vec<Frame> {
    let stream = server.registry.get(&server.id).unwrap();
    let track = &stream.tracks()[track];
    let (mut cursor, mut frames) = (track.oldest(), Vec::new());
    while track.read(&mut cursor, false, &mut frames) == Read::Frames {}
    frames
}

fn boundaries(frames: &[Frame]) -> Vec<Boundary> {
    frames.iter().filter_map(|frame| frame.to_boundary().ok()).collect()
}

fn started(server: &Server) -> Encoder {
    started_at(server, 0.0)
}

fn started_at(server: &Server, seconds: f64) -> Encoder {
    let mut encoder = Encoder::new_at(server, server.publish_at("right", seconds).unwrap(), seconds);
    encoder.video_header(AVCC).unwrap();
    encoder.audio_header().unwrap();
    encoder
}

/// Of CEA-608: the playlist names them from the first picture on that shows some.
#[test]
fn captions_are_announced_when_they_are_seen() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(5.0).unwrap();
    let announced = || server.record().unwrap().live.as_ref().unwrap().captions;
    assert!(announced().is_empty());

    for (command, seen) in [(0x80, 0), (0x25, 1)] {
        let sei =
            [b"\x06\x04\x0E\xB5\x00\x31GA94\x03\x41\xFF\xFC\x94".as_slice(), &[command, 0xFF, 0x80]].concat();
        let (length, millis) = (sei.len() as u8, encoder.picture * 40);
        encoder.picture += 1;
        let nals = [&[0, 0, 0, length], sei.as_slice(), &[0, 0, 0, 2, 0x41, 0x80]].concat();
        encoder.video(millis, [&[0x27, 1, 0, 0, 0], nals.as_slice()].concat()).unwrap();
        assert_eq!(announced(), Captions::from_bits(seen));
    }
    encoder.run_until(20.0).unwrap();
    assert_eq!(announced(), Captions::from_bits(1), "with another bandwidth, too");
}

/// Found by fuzzing: the gate and its sessions held each other, and nobody let go.
#[test]
fn sessions_go_with_their_gate() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(5.0).unwrap();
    let Server { gate, registry, id, disk, .. } = server;
    drop(encoder);
    assert!(registry.get(&id).is_some(), "it waits for its publisher");
    drop(gate);
    assert!(registry.get(&id).is_none());
    assert!(disk.0.lock().unwrap().is_some(), "the next process goes on with it");
}

#[test]
fn only_the_right_key_publishes_and_only_once_at_a_time() {
    let server = Server::new();
    assert!(matches!(server.publish("wrong"), Err(Refusal::WrongKey(KeyFault::Wrong))));
    let first = server.publish("right").unwrap();
    assert!(matches!(server.publish("right"), Err(Refusal::NameTaken(_))));
    drop(first);
    assert!(server.publish("right").is_ok());
}

#[test]
fn the_log_opens_after_two_seconds_with_everything_held() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(1.96).unwrap();
    assert_eq!(server.record(), None);
    encoder.run_until(2.1).unwrap();
    let record = server.record().unwrap();
    assert_eq!(record.tracks.iter().map(|track| &*track.name).collect::<Vec<_>>(), ["v", "a"]);
    assert_eq!((record.frame_rate, record.part_hold_back_ms), (Some(25.0), 3 * 534));
    let video = frames(&server, 0);
    assert!(video.iter().any(Frame::is_key_unit));
    assert_eq!(boundaries(&video)[0].program_date_time_ms, 1_800_000_000_000);
    let live = record.live.clone().expect("the keyframe at 2 s completes the first segment");
    assert_eq!((live.target_duration_s, live.window_ms), (4, 28_000));
}

#[test]
fn a_track_that_is_announced_but_does_not_come_is_left_out() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.publication.announce(Announced { video: true, audio: true, ..Announced::default() });
    while encoder.picture < 60 {
        encoder.picture().unwrap();
    }
    assert_eq!(server.record().unwrap().tracks.len(), 1);
    encoder.sound().unwrap();
}

/// As from a browser on a busy machine: sound comes at once, and the first picture after four seconds.
#[test]
fn a_picture_that_is_announced_is_waited_for() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.publication.announce(Announced { video: true, audio: true, ..Announced::default() });
    while encoder.sound < 4 * 47 {
        encoder.sound().unwrap();
    }
    assert_eq!(server.record(), None);
    encoder.picture = 100;
    encoder.run_until(4.9).unwrap();
    assert_eq!(server.record(), None, "less than a second of it");
    encoder.run_until(5.2).unwrap();
    assert_eq!(server.record().unwrap().frame_rate, Some(25.0));
    assert_eq!(
        server.record().unwrap().tracks.iter().map(|track| &*track.name).collect::<Vec<_>>(),
        ["v", "a"]
    );
}

#[test]
fn a_picture_that_is_announced_is_not_waited_for_for_ever() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.publication.announce(Announced { video: true, audio: true, ..Announced::default() });
    while encoder.sound < 9 * 47 {
        encoder.sound().unwrap();
    }
    assert_eq!(server.record().unwrap().tracks.iter().map(|track| &*track.name).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn audio_alone_is_a_stream() {
    let server = Server::new();
    let mut encoder = Encoder::new(&server, server.publish("right").unwrap());
    encoder.audio_header().unwrap();
    while encoder.sound < 300 {
        encoder.sound().unwrap();
    }
    let record = server.record().unwrap();
    assert_eq!(record.tracks.iter().map(|track| &*track.name).collect::<Vec<_>>(), ["a"]);
    assert_eq!(record.live.clone().unwrap().target_duration_s, 3);
}

#[test]
fn nothing_comes_before_the_first_keyframe() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.picture = 20;
    encoder.run_until(5.0).unwrap();
    let (video, audio) = (frames(&server, 0), frames(&server, 1));
    let first =
        |frames: &[Frame]| frames.iter().find(|frame| frame.kind() == Kind::Unit).unwrap().to_unit().unwrap();
    assert!(first(&video).key);
    let (video_s, audio_s) = (first(&video).dts as f64 / 90_000.0, first(&audio).dts as f64 / 48_000.0);
    assert!((0.0..0.0214).contains(&(audio_s - video_s)), "video from {video_s}, audio from {audio_s}");
}

#[test]
fn video_without_any_keyframe_is_refused_in_words() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.keyframes = false;
    let error = encoder.run_until(20.0).unwrap_err();
    assert!(matches!(error, PublishError::NoKeyframe), "{error}");
    assert_eq!(error.to_string(), "no keyframe in the first 12 s of video");
}

/// Threat: a publisher that sends gigabytes before anything can be shown.
#[test]
fn what_is_held_at_the_start_is_bounded() {
    let server = Server::new();
    let mut encoder = started(&server);
    let nal = (4_u32 * 1024 * 1024).to_be_bytes();
    let unit = [&[0x17, 1, 0, 0, 0], nal.as_slice(), &[0x65], &vec![0; 4 * 1024 * 1024 - 1]].concat();
    let refused = (0..20).find_map(|millis| encoder.video(millis, unit.clone()).err());
    assert!(matches!(refused, Some(PublishError::TooMuchAtStart)));
}

/// Threat: a clock that jumps ten hours ahead, or ten seconds back, in mid-stream.
#[test]
fn a_jump_of_the_publishers_clock_is_one_discontinuity() {
    for jump in [36_000_000_u32, 10_000_u32.wrapping_neg()] {
        let server = Server::new();
        let mut encoder = started(&server);
        encoder.offset = 100_000;
        encoder.run_until(7.0).unwrap();
        encoder.offset = encoder.offset.wrapping_add(jump);
        encoder.run_until(14.0).unwrap();
        for (track, hertz) in [(0, 90_000.0), (1, 48_000.0)] {
            let frames = frames(&server, track);
            assert!(frames.is_sorted_by(|a, b| a.dts() <= b.dts()), "jump {jump}");
            let last_s = frames.last().unwrap().dts() as f64 / hertz;
            assert!((13.5..14.1).contains(&last_s), "jump {jump}: {last_s}");
            assert_eq!(boundaries(&frames).last().unwrap().discontinuity_sequence, 1, "jump {jump}");
        }
    }
}

/// Threat: stamps that wrap, at 24 and at 32 bits, one second into the stream.
#[test]
fn stamps_that_wrap_are_not_noticed() {
    for start in [0xFF_FFFF - 1_000, u32::MAX - 1_000] {
        let server = Server::new();
        let mut encoder = started(&server);
        encoder.offset = start;
        encoder.run_until(8.0).unwrap();
        assert_eq!(boundaries(&frames(&server, 0)).last().unwrap().discontinuity_sequence, 0);
    }
}

#[test]
fn another_picture_size_is_a_discontinuity_from_the_next_keyframe_on() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(5.0).unwrap();
    encoder.video_header(AVCC_SMALL).unwrap();
    encoder.run_until(10.0).unwrap();
    let video = frames(&server, 0);
    let at = video.iter().position(|frame| frame.kind() == Kind::Config).unwrap();
    let Ok(CodecConfig::H264(config)) = video[at].to_config() else { panic!("not a configuration") };
    assert_eq!((config.width(), config.height()), (320, 180));
    let boundary = video[at + 1].to_boundary().unwrap();
    assert_eq!((boundary.part, boundary.discontinuity_sequence, boundary.start), (0, 1, 6 * 90_000));
    assert!(video[at + 2].is_key_unit());
    assert_eq!(boundaries(&frames(&server, 1)).last().unwrap().discontinuity_sequence, 1);
}

#[test]
fn a_publisher_that_says_goodbye_ends_every_track() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(5.0).unwrap();
    let stream = server.registry.get(&server.id).unwrap();
    encoder.publication.goodbye();
    assert!(server.registry.get(&server.id).is_none());
    for track in stream.tracks() {
        let (mut cursor, mut frames) = (track.oldest(), Vec::new());
        while track.read(&mut cursor, false, &mut frames) != Read::Ended {}
        assert_eq!(frames.last().unwrap().kind(), Kind::End);
    }
    assert_eq!(*server.disk.0.lock().unwrap(), None, "nothing to go on with");
}

/// `ffmpeg` without `-re`: a minute of media within a moment.
#[test]
fn a_publisher_faster_than_time_is_left_unread_until_it_is_live_again() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(30.0).unwrap();
    let (publication, started) = (&encoder.publication, encoder.started);
    let lead = publication.lead(started + Duration::from_secs(1));
    assert!((Duration::from_secs(23)..Duration::from_secs(25)).contains(&lead), "{lead:?}");
    assert_eq!(publication.lead(started + Duration::from_secs(26)), Duration::ZERO);
}

/// No sequence header, or start codes instead of lengths: the name must not be blocked for ever in silence.
#[test]
fn a_publisher_of_nothing_usable_is_told_so() {
    let server = Server::new();
    let mut encoder = Encoder::new(&server, server.publish("right").unwrap());
    let error = encoder.run_until(20.0).unwrap_err();
    assert!(matches!(error, PublishError::Unusable("video")), "{error}");
    assert!(encoder.picture < 130, "after {} pictures", encoder.picture);
}

/// Threat: a clock that stands still, so that the first two seconds never pass.
#[test]
fn the_hold_ends_whatever_the_stamps_say() {
    let server = Server::new();
    let mut encoder = started(&server);
    let unit = vec![0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x80];
    let many = (0..100_000).find_map(|_| encoder.video(0, unit.clone()).err());
    assert!(matches!(many, Some(PublishError::TooMuchAtStart)), "{many:?}");

    let server = Server::new();
    let mut slow = started(&server);
    let stuck = (0..60_u64).find_map(|second| {
        let since = Duration::from_secs(second);
        let (now, wall) = (slow.started + since, slow.wall + since);
        slow.publication.video(0, unit.clone().into(), now, wall).err()
    });
    assert!(matches!(stuck, Some(PublishError::NoProgress)), "{stuck:?}");
}

/// The first keyframe's configuration is the session's, though another has come before the log opened.
#[test]
fn a_configuration_that_changes_in_the_first_seconds_changes_nothing_before_its_keyframe() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(0.5).unwrap();
    encoder.video_header(AVCC_SMALL).unwrap();
    encoder.run_until(5.0).unwrap();
    let record = server.record().unwrap();
    let CodecConfig::H264(config) = &record.tracks[0].codec else { panic!("not H.264") };
    assert_eq!((config.width(), config.height()), (640, 360));
    let changed = frames(&server, 0).iter().filter(|frame| frame.kind() == Kind::Config).count();
    assert_eq!(changed, 1);
}

/// Threat: audio frames of a megabyte, which nothing else would bound.
#[test]
fn an_audio_frame_that_is_none_is_passed_over() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(3.0).unwrap();
    for (bytes, taken) in [(16 * 1024, true), (16 * 1024 + 1, false), (1024 * 1024, false)] {
        let body = Bytes::from([&[0xAF, 1], vec![0; bytes].as_slice()].concat());
        let stamp = (encoder.sound * 1024 * 1000 / 48_000) as u32;
        encoder.publication.audio(stamp, body, encoder.started, encoder.wall).unwrap();
        encoder.sound += 1;
        // Sound is held until the picture has drawn its next boundary.
        encoder.run_until(encoder.picture as f64 * 0.04 + 2.0).unwrap();
        let there = frames(&server, 1).iter().any(|frame| frame.wire().len() == HEADER_BYTES + bytes);
        assert_eq!(there, taken, "{bytes} bytes");
    }
}

#[test]
fn damaged_units_are_passed_over() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(3.0).unwrap();
    let before = frames(&server, 0).len();
    encoder.video(3_000, vec![0x27, 1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x65]).unwrap();
    assert_eq!(frames(&server, 0).len(), before);
    encoder.run_until(4.0).unwrap();
    assert!(frames(&server, 0).len() > before);
}

/// Who plays: the parts of a track, in seconds of the stream clock, as (start, msn, discontinuity sequence, gap).
fn parts(server: &Server, track: usize, hertz: f64) -> Vec<(f64, u64, u64, bool)> {
    let frames = frames(server, track);
    let of = |b: &Boundary| (b.start as f64 / hertz, b.msn, b.discontinuity_sequence, b.gap.is_some());
    boundaries(&frames).iter().map(of).collect()
}

/// The rules that any player relies on, whatever the publishers did.
fn check_numbers(parts: &[(f64, u64, u64, bool)]) {
    for pair in parts.windows(2) {
        assert!(pair[0].0 < pair[1].0, "{pair:?}");
        assert!(pair[1].1 == pair[0].1 || pair[1].1 == pair[0].1 + 1, "{pair:?}");
        assert!((pair[0].2..=pair[0].2 + 1).contains(&pair[1].2), "{pair:?}");
    }
}

#[test]
fn while_nobody_publishes_every_part_is_a_gap_on_the_clock_and_in_both_renditions() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(7.0).unwrap();
    drop(encoder);
    server.tick(7.0..8.9);
    assert!(parts(&server, 0, 90_000.0).iter().all(|part| !part.3), "a moment's silence is no gap yet");
    assert_eq!(server.interrupted_since_s(), None);
    server.tick(8.9..15.0);
    let since_s = server.interrupted_since_s().unwrap();
    assert!((6.9..7.0).contains(&since_s), "{since_s}");
    for (track, hertz) in [(0, 90_000.0), (1, 48_000.0)] {
        let parts = parts(&server, track, hertz);
        check_numbers(&parts);
        let gaps: Vec<_> = parts.iter().filter(|part| part.3).map(|part| part.0).collect();
        assert!((gaps[0] - 7.0).abs() < 0.05, "{gaps:?}");
        assert!(gaps.windows(2).all(|pair| (0.4..0.6).contains(&(pair[1] - pair[0]))), "{gaps:?}");
        let newest = gaps.last().unwrap();
        assert!((14.3..15.0).contains(newest), "the clock stands at {newest}");
        assert!(parts.iter().all(|part| part.2 == 0), "a gap is no discontinuity");
    }
    let last = |track, hertz| parts(&server, track, hertz).last().map(|part| part.1);
    assert_eq!(last(0, 90_000.0), last(1, 48_000.0));
}

#[test]
fn a_publisher_that_comes_back_goes_on_with_the_session_after_one_discontinuity() {
    for (away, gone_at) in [(1.0, 7.0), (4.3, 7.0), (15.0, 8.5)] {
        let server = Server::new();
        let mut encoder = started(&server);
        encoder.run_until(gone_at).unwrap();
        let session = server.session();
        drop(encoder);
        server.tick(gone_at..gone_at + away);
        let back_at = gone_at + away;
        let mut encoder = started_at(&server, back_at);
        encoder.run_until(6.0).unwrap();
        assert_eq!(server.session(), session, "away for {away} s");
        assert_eq!(server.interrupted_since_s(), None);
        for (track, hertz) in [(0, 90_000.0), (1, 48_000.0)] {
            let parts = parts(&server, track, hertz);
            check_numbers(&parts);
            let back = parts.iter().find(|part| part.2 == 1).unwrap();
            assert!((0.0..0.08).contains(&(back.0 - back_at)), "away for {away} s: back at {back:?}");
            assert!(!back.3 && parts.last().unwrap().2 == 1, "one discontinuity");
            let newest = frames(&server, track).last().unwrap().dts() as f64 / hertz;
            assert!((newest - back_at - 6.0).abs() < 0.2, "away for {away} s: {newest}");
        }
    }
}

#[test]
fn a_session_nobody_comes_back_to_ends_after_the_linger() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    drop(encoder);
    server.tick(6.0..25.9);
    assert!(server.session().is_some());
    server.tick(25.9..26.2);
    assert_eq!(server.session(), None);
    assert_eq!(*server.disk.0.lock().unwrap(), None);
}

/// Somebody who waits for a keyframe of an encoder with long GOPs must not lose the session meanwhile.
#[test]
fn a_publisher_that_is_back_but_has_no_keyframe_yet_keeps_the_session() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    let session = server.session();
    drop(encoder);
    server.tick(6.0..24.0);
    let mut encoder = started_at(&server, 24.0);
    encoder.keyframes = false;
    encoder.run_until(8.0).unwrap();
    server.tick(24.0..32.0);
    encoder.keyframes = true;
    encoder.run_until(12.0).unwrap();
    assert_eq!(server.session(), session);
    assert_eq!(parts(&server, 0, 90_000.0).last().unwrap().2, 1);
}

#[test]
fn another_picture_size_after_the_return_is_the_same_session() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    let session = server.session();
    drop(encoder);
    server.tick(6.0..9.0);
    let mut encoder = Encoder::new_at(&server, server.publish_at("right", 9.0).unwrap(), 9.0);
    encoder.video_header(AVCC_SMALL).unwrap();
    encoder.audio_header().unwrap();
    encoder.run_until(5.0).unwrap();
    assert_eq!(server.session(), session);
    let video = frames(&server, 0);
    let at = video.iter().position(|frame| frame.kind() == Kind::Config).unwrap();
    assert_eq!(video[at + 1].to_boundary().unwrap().discontinuity_sequence, 1);
    assert!(video[at + 2].is_key_unit());
}

#[test]
fn another_track_set_is_a_new_session() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    let session = server.session().unwrap();
    drop(encoder);
    server.tick(6.0..9.0);
    let mut encoder = Encoder::new_at(&server, server.publish_at("right", 9.0).unwrap(), 9.0);
    encoder.video_header(AVCC).unwrap();
    while encoder.picture < 40 {
        encoder.picture().unwrap();
    }
    assert_eq!(server.session(), Some(session), "the sound may still come");
    while encoder.picture < 120 {
        encoder.picture().unwrap();
    }
    assert_ne!(server.session(), Some(session));
    assert_eq!(server.record().unwrap().tracks.len(), 1);
}

#[test]
fn a_second_publisher_is_refused_while_the_first_sends_and_let_in_three_seconds_after() {
    let server = Server::new();
    let mut half_open = started(&server);
    half_open.run_until(6.0).unwrap();
    let session = server.session();
    assert!(matches!(server.publish_at("right", 6.5), Err(Refusal::NameTaken(_))));
    server.tick(6.0..9.0);
    let mut encoder = started_at(&server, 9.0);
    encoder.run_until(4.0).unwrap();
    assert_eq!(server.session(), session);
    // What the network still had of the first one comes late, and is refused.
    let late = half_open.picture();
    assert!(matches!(late, Err(PublishError::TakenOver)), "{late:?}");
    let written = frames(&server, 0).len();
    drop(half_open);
    assert_eq!((server.session(), frames(&server, 0).len()), (session, written));
}

/// An operator drains the node, and takes that back before another node goes on with the session.
#[test]
fn a_gate_that_is_shut_sends_publishers_away_and_keeps_their_sessions() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    let session = server.session();
    server.gate.shut();
    let sent_away = encoder.picture();
    assert!(matches!(sent_away, Err(PublishError::Draining)), "{sent_away:?}");
    drop(encoder);
    assert!(matches!(server.publish_at("right", 6.5), Err(Refusal::Draining)));
    assert!(
        matches!(server.publish_at("wrong", 6.5), Err(Refusal::WrongKey(_))),
        "a stranger learns nothing"
    );
    server.tick(6.0..9.0);
    assert_eq!(server.session(), session);
    server.gate.open();
    let mut encoder = started_at(&server, 9.0);
    encoder.run_until(4.0).unwrap();
    assert_eq!(server.session(), session);
    assert_eq!(parts(&server, 0, 90_000.0).last().unwrap().2, 1, "one discontinuity");
}

#[test]
fn takeover_switches_at_a_keyframe_and_no_frames_are_interleaved() {
    let server = Server::with(OnConflict::Takeover);
    let mut first = started(&server);
    first.run_until(6.0).unwrap();
    let session = server.session();
    let mut second = started_at(&server, 6.0);
    second.keyframes = false;
    second.run_until(1.0).unwrap();
    first.run_until(7.0).unwrap();
    second.keyframes = true;
    second.run_until(4.0).unwrap();
    assert!(matches!(first.picture(), Err(PublishError::TakenOver)));
    assert_eq!(server.session(), session);
    let parts = parts(&server, 0, 90_000.0);
    check_numbers(&parts);
    assert_eq!(parts.iter().filter(|part| part.3).count(), 0, "no gap");
    assert_eq!(parts.last().unwrap().2, 1);
}

/// An uplink that stalls for four seconds and then delivers everything at once, stamps intact.
#[test]
fn what_comes_after_its_time_was_a_gap_is_in_no_part_and_the_next_keyframe_in_time_goes_on() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(7.0).unwrap();
    server.tick(7.0..11.0);
    // Arrives at 11 s, whatever its stamps say.
    let stalled_until = server.at(11.0);
    (encoder.started, encoder.wall) =
        (stalled_until.0 - Duration::from_secs(11), stalled_until.1 - Duration::from_secs(11));
    encoder.run_until(18.0).unwrap();
    let parts = parts(&server, 0, 90_000.0);
    check_numbers(&parts);
    let back = parts.iter().find(|part| part.2 == 1).unwrap();
    assert!((back.0 - 12.0).abs() < 0.01, "the first keyframe behind the gaps is at 12 s: {back:?}");
    assert_eq!(parts.last().unwrap().2, 1);
}

/// It never catches up: its media is four seconds behind the clock for good.
#[test]
fn a_publisher_that_stays_behind_is_mapped_anew_instead_of_being_lost_for_ever() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(7.0).unwrap();
    for step in 0..80 {
        let from = 7.0 + f64::from(step) * 0.25;
        server.tick(from..from + 0.25);
        if from >= 15.0 {
            let delay = Duration::from_secs(8);
            let (started, wall) = server.at(0.0);
            (encoder.started, encoder.wall) = (started + delay, wall + delay);
            encoder.run_until(from - 8.0).unwrap();
        }
    }
    let parts = parts(&server, 0, 90_000.0);
    check_numbers(&parts);
    assert!(!parts.last().unwrap().3, "{:?}", parts.last());
}

#[test]
fn after_a_restart_the_session_goes_on_with_numbers_that_rise() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(9.0).unwrap();
    let (session, record) = (server.session(), server.record().unwrap());
    let before = parts(&server, 0, 90_000.0);
    // The process dies with everything in it but the disk.
    let (disk, started) = (server.disk.clone(), server.started);
    let kept = disk.0.lock().unwrap().clone().unwrap();
    std::mem::forget(encoder);
    drop(server);

    let server = Server::on(disk, started, OnConflict::Refuse);
    let checkpoint = Checkpoint::from_json(&kept).unwrap();
    let (now, wall) = server.at(10.5);
    server.gate.restore(&checkpoint, now, wall);
    assert_eq!(server.session(), session);
    let restored = server.record().unwrap();
    assert_eq!(restored.epoch, record.epoch + 1);
    assert_eq!((&restored.tracks, &restored.live), (&record.tracks, &record.live));
    let newest = before.last().unwrap();
    for (track, hertz) in [(0, 90_000.0), (1, 48_000.0)] {
        let gaps = parts(&server, track, hertz);
        check_numbers(&gaps);
        assert!(gaps.iter().all(|part| part.3 && part.2 == newest.2));
        // What was there before stays where it was: players find their place by it.
        for msn in newest.1 - 3..=newest.1 {
            let start = |parts: &[(f64, u64, u64, bool)]| parts.iter().find(|part| part.1 == msn).unwrap().0;
            let (then, now) = (start(&before), start(&gaps));
            assert!((now - then).abs() < 0.03, "{msn}: {now} and {then}");
        }
        let last = gaps.last().unwrap();
        assert!((last.0 - 10.5).abs() < 0.6 && last.1 >= newest.1 + 2, "no number twice: {last:?}");
    }

    server.tick(10.5..13.0);
    let mut encoder = started_at(&server, 13.0);
    encoder.run_until(5.0).unwrap();
    assert_eq!(server.session(), session);
    for (track, hertz) in [(0, 90_000.0), (1, 48_000.0)] {
        let parts = parts(&server, track, hertz);
        check_numbers(&parts);
        let back = parts.iter().find(|part| !part.3).unwrap();
        assert!((0.0..0.08).contains(&(back.0 - 13.0)) && back.2 == newest.2 + 1, "{back:?}");
    }
    let pdt = boundaries(&frames(&server, 0)).last().unwrap().program_date_time_ms - 1_800_000_000_000;
    assert!((17_000..18_100).contains(&pdt), "the wall clock runs on: {pdt}");
}

#[test]
fn a_restored_session_nobody_comes_back_to_ends_after_the_linger() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    let kept = server.disk.0.lock().unwrap().clone().unwrap();
    let server = Server::on(Arc::default(), server.started, OnConflict::Refuse);
    let (now, wall) = server.at(8.0);
    server.gate.restore(&Checkpoint::from_json(&kept).unwrap(), now, wall);
    server.tick(8.0..27.9);
    assert!(server.session().is_some());
    server.tick(27.9..28.1);
    assert_eq!(server.session(), None);
    drop(encoder);
}

/// What another node goes on to write has the numbers that this one would have used.
#[test]
fn a_session_that_was_handed_over_stands_still_and_its_publisher_is_sent_away() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    let before = parts(&server, 0, 90_000.0);
    server.gate.hand_over(&server.id, server.at(6.0).0);
    assert!(server.gate.is_handed_over(&server.id));
    assert!(matches!(encoder.picture(), Err(PublishError::TakenOver)));
    server.tick(6.0..25.9);
    assert_eq!(parts(&server, 0, 90_000.0), before);
    assert!(server.session().is_some(), "its viewers are still being sent on");
    server.tick(25.9..26.1);
    assert_eq!(server.session(), None);
    assert!(server.disk.0.lock().unwrap().is_some(), "it is over here alone");
}

/// The cluster, as far as a gate asks it.
struct Others {
    answer: Result<Option<Vec<u8>>, Elsewhere>,
    left: Mutex<Option<Checkpoint>>,
    /// So many ask at once, each in a thread of its own.
    askers: usize,
    together: Barrier,
    asked: Mutex<u32>,
}

#[async_trait::async_trait]
impl Claims for Others {
    async fn claim(&self, _: &StreamId) -> Result<(), Elsewhere> {
        *self.asked.lock().unwrap() += 1;
        let left = self.answer.clone()?;
        *self.left.lock().unwrap() = left.map(|kept| Checkpoint::from_json(&kept).unwrap());
        self.together.wait();
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the others are to come past who has it, if they can")]
    fn take_left(&self, _: &StreamId) -> Option<Checkpoint> {
        let left = self.left.lock().unwrap().take();
        if left.is_some() && self.askers > 1 {
            std::thread::sleep(Duration::from_millis(20));
        }
        left
    }
}

fn among(answer: Result<Option<Vec<u8>>, Elsewhere>) -> (Server, Arc<Others>) {
    among_for(answer, 1)
}

fn among_for(answer: Result<Option<Vec<u8>>, Elsewhere>, askers: usize) -> (Server, Arc<Others>) {
    let together = Barrier::new(askers);
    let others =
        Arc::new(Others { answer, left: Mutex::default(), askers, together, asked: Mutex::default() });
    let server = Server::new();
    let gate = server.gate.with_claims(others.clone());
    (Server { gate, ..server }, others)
}

#[tokio::test]
async fn a_stream_of_another_node_is_refused_or_gone_on_with() {
    let (right, wrong) = (Secret::new("right".to_owned()), Secret::new("wrong".to_owned()));
    let (server, others) = among(Err(Elsewhere { node: "b".to_owned() }));
    let refused = server.gate.prepare(&server.id, &right).await.unwrap_err();
    assert_eq!(refused.to_string(), "live/cam is already being published, to node b");
    // Strangers ask nobody anything, and learn nothing.
    assert!(server.gate.prepare(&server.id, &wrong).await.is_ok());
    assert!(matches!(server.publish("wrong"), Err(Refusal::WrongKey(_))));
    assert_eq!(*others.asked.lock().unwrap(), 1);

    let first = Server::new();
    let mut encoder = started(&first);
    encoder.run_until(6.0).unwrap();
    let kept = first.disk.0.lock().unwrap().clone().unwrap();
    let (server, others) = among(Ok(Some(kept)));
    server.gate.prepare(&server.id, &right).await.unwrap();
    assert_eq!(server.session(), first.session());
    // It is of this node now.
    server.gate.prepare(&server.id, &right).await.unwrap();
    assert_eq!(*others.asked.lock().unwrap(), 1);
    server.gate.hand_over(&server.id, Instant::now());
    let handed_over = server.registry.get(&server.id).unwrap();
    server.gate.prepare(&server.id, &right).await.unwrap();
    assert_eq!((*others.asked.lock().unwrap(), server.gate.is_handed_over(&server.id)), (2, false));
    // It has come back: as another stream, and what was here before does not say that the session is over.
    assert_eq!(server.session(), first.session());
    let back = server.registry.get(&server.id).unwrap();
    assert!(handed_over.has_moved() && !back.has_moved() && !Arc::ptr_eq(&handed_over, &back));
}

/// All who wait for a claim hear of it at once.
#[test]
fn of_several_who_claimed_each_finds_the_session_of_the_other_node() {
    let first = Server::new();
    started(&first).run_until(6.0).unwrap();
    let kept = first.disk.0.lock().unwrap().clone().unwrap();
    for _ in 0..3 {
        let (server, _) = among_for(Ok(Some(kept.clone())), 3);
        let come = || {
            let key = Secret::new("right".to_owned());
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
                .block_on(server.gate.prepare(&server.id, &key))
                .unwrap();
            // The first of them is there, and keeps its name.
            server.publish("right").map_err(|refusal| refusal.to_string())
        };
        let published: Vec<_> = std::thread::scope(|scope| {
            let coming = [(); 3].map(|()| scope.spawn(come));
            coming.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(published.iter().any(Result::is_ok));
        assert_eq!(server.session(), first.session());
    }
}

/// The other node has ended it, or left nothing to go on with: viewers may have seen more of it than there is here.
#[tokio::test]
async fn what_was_handed_over_is_not_gone_on_with_from_what_is_here() {
    let (server, _) = among(Ok(None));
    let mut encoder = started(&server);
    encoder.run_until(6.0).unwrap();
    let session = server.session();
    server.gate.hand_over(&server.id, server.at(6.0).0);
    server.gate.prepare(&server.id, &Secret::new("right".to_owned())).await.unwrap();
    assert_eq!(server.session(), None);
    let mut again = started_at(&server, 7.0);
    again.run_until(3.0).unwrap();
    assert!(server.session().is_some_and(|new| Some(new) != session));
}

/// The broadcaster who pastes the key alone is told so; the stranger who guesses is told what every stranger is.
#[test]
fn a_key_in_the_place_of_a_name_is_noticed_and_refused_in_the_same_words() {
    let server = Server::new();
    for (app, stream, key, fault) in [
        ("live", "right", "", KeyFault::InName),
        ("right", "cam", "wrong", KeyFault::InName),
        ("live", "cam", "wrong", KeyFault::Wrong),
        ("live", "cam", "", KeyFault::Missing),
    ] {
        let id = StreamId::new(app, stream).unwrap();
        let refused = server.gate.publish(&id, &Secret::new(key.to_owned()), server.started).err().unwrap();
        assert!(matches!(refused, Refusal::WrongKey(found) if found == fault), "{app}/{stream}");
        assert_eq!(refused.to_string(), "the publish key is missing or wrong");
    }
}

#[test]
fn the_broadcaster_is_told_how_the_stream_is_and_its_last_minutes_survive_a_reconnect() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.run_until(8.0).unwrap();
    let facts = || server.registry.get(&server.id).unwrap().facts();
    assert_eq!(facts().health.samples.len(), 7);
    // Of two bytes a frame.
    assert_eq!(facts().health.sound, relay::Sound::ProbablySilent);
    let warnings = facts().warnings.clone();
    assert!(matches!(warnings.as_slice(), [silent] if silent.contains("probably silent")), "{warnings:?}");

    drop(encoder);
    server.tick(8.0..14.0);
    let mut again = Encoder::new_at(&server, server.publish_at("right", 14.0).unwrap(), 14.0);
    again.video_header(AVCC).unwrap();
    again.audio_header().unwrap();
    again.run_until(4.0).unwrap();
    let samples = facts().health.samples.clone();
    let spans: Vec<_> = samples.iter().map(|sample| sample.span_ms / 1_000).collect();
    assert_eq!(spans[..8], [1, 1, 1, 1, 1, 1, 1, 6], "{spans:?}");
    assert!(spans.len() > 9 && samples[7].bits_per_second == 0, "{samples:?}");
}

/// Layers are tracks beside the video: stamped by the same clock, with its boundaries, and its key beside each of theirs.
#[test]
fn layers_have_tracks_beside_the_video() {
    let server = Server::new();
    let mut encoder = started(&server);
    encoder.publication.announce(Announced { video: true, audio: true, layers: 2, ..Announced::default() });
    let config = |width, height| {
        VideoConfig::H264(media::codec::h264::Config::nominal(width, height, 25.0, 500_000).unwrap())
    };
    encoder.publication.layer_config(0, config(320, 180));
    encoder.publication.layer_config(1, config(1280, 720));
    while encoder.picture < 250 {
        let (picture, millis) = (encoder.picture, encoder.picture * 40);
        encoder.run_until((picture + 1) as f64 * 0.04).unwrap();
        let key = picture % 50 == 0;
        if picture == 150 {
            encoder.publication.layer_config(0, config(240, 136));
        }
        for layer in [0, 1] {
            let data = vec![0, 0, 0, 2, if key { 0x65 } else { 0x41 }, 0x80];
            let now = encoder.started + Duration::from_millis(millis as u64);
            encoder.publication.layer_unit(layer, millis as u32, data.into(), now);
        }
    }
    let stream = server.registry.get(&server.id).unwrap();
    let names: Vec<_> = stream.tracks().iter().map(|track| track.record().name.to_string()).collect();
    assert_eq!(names, ["v", "a", "s180"], "the largest is the video itself");
    let keys = |track| {
        let units = frames(&server, track).into_iter().filter_map(|frame| frame.to_unit().ok());
        units.filter(|unit| unit.key).map(|unit| unit.pts).collect::<Vec<_>>()
    };
    let (video, layer) = (keys(0), keys(2));
    assert!(layer.len() >= 3 && video.ends_with(&layer), "{video:?}, {layer:?}");
    let told = boundaries(&frames(&server, 2));
    let own = boundaries(&frames(&server, 0));
    assert!(told.len() > 8 && told.iter().all(|boundary| own.contains(boundary)), "{told:?}");
    let changes = frames(&server, 2).iter().filter(|frame| frame.to_config().is_ok()).count();
    assert_eq!(changes, 1, "it has another size from its next keyframe on");
    let record = stream.record();
    let live = record.borrow().as_ref().and_then(|record| record.live.clone()).unwrap();
    assert_eq!(live.bandwidth.len(), 3);
}
