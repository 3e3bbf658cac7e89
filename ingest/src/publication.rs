//! One publication, from the accepted key to ENDLIST.
//!
//!   FLV message ─▶ stream clock ─▶ hold (2 s: tracks, frame rate, wall clock) ─▶ cutter ─▶ live log
//!
//! Owns no socket and reads no clock. Invariants: nothing enters the log before the part grid is fixed; the
//! track set never changes once it is; units of a track are written in decoding order.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use media::codec::{aac, h264};
use media::flv;
use media::{AccessUnit, CodecConfig, SessionId, StreamId, Timescale, TrackKind};
use relay::{StreamRegistry, StreamWriter};

use crate::Secret;
use crate::cutter::Counts;
use crate::error::{KeyFault, PublishError, Refusal};
use crate::health::{Circumstances, Health, KEYFRAME_INTERVAL_GOOD_S};
use crate::hold::{Held, Hold};
use crate::log::Log;
use crate::meter::Meter;
use crate::metrics::{Metrics, StreamMetrics};
use crate::refusals::{Refusals, Refused};
use crate::timeline::{AudioClock, Clock, VideoClock};

/// A publisher of whose video, or audio, nothing could be used for this long is told so.
pub(crate) const UNUSABLE_MAX: Duration = Duration::from_secs(5);

/// Largest AAC frame, in bytes. The standard allows 768 a channel (ISO/IEC 14496-3, §4.5.3), so 6 kB for eight; a frame
/// is 21 ms, and nothing else bounds the bytes of audio beside video.
const AUDIO_FRAME_BYTES_MAX: usize = 16 * 1024;

/// Media may run this far ahead of the wall clock before the publisher is slowed down: it is live, and who reads the log
/// must keep up.
const LEAD_MAX: Duration = Duration::from_secs(5);

/// Decides who may publish. `server` plugs in the real one.
pub trait Authorize: Send + Sync {
    fn may_publish(&self, id: &StreamId, key: &Secret) -> bool;
}

/// Decides who may publish, and opens publications.
#[derive(Clone)]
pub struct Gate {
    registry: StreamRegistry,
    authorize: Arc<dyn Authorize>,
    part_target: Duration,
    metrics: Metrics,
    refusals: Refusals,
}

/// What the publisher said it would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announced {
    pub video: bool,
    pub audio: bool,
    /// Of all tracks together.
    pub bits_per_second: Option<u32>,
    /// Rounded: 30 for 29.97.
    pub frames_per_second: Option<u32>,
}

impl Gate {
    /// `part_target`: how long a part should be; the part grid rounds it to whole frames.
    pub fn new(
        registry: StreamRegistry,
        authorize: Arc<dyn Authorize>,
        part_target: Duration,
        metrics: Metrics,
    ) -> Self {
        Self { registry, authorize, part_target, metrics, refusals: Refusals::default() }
    }

    /// Whom this gate turned away lately.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    pub(crate) fn turned_away(&self, refused: Refused) {
        self.refusals.note(refused);
    }

    /// # Errors
    /// [`Refusal`], in words meant for the broadcaster.
    pub fn publish(&self, id: &StreamId, key: &Secret) -> Result<Publication, Refusal> {
        if !self.authorize.may_publish(id, key) {
            return Err(Refusal::WrongKey(self.fault(id, key)));
        }
        let session = SessionId::from_random(getrandom::u64().map_err(|_| Refusal::NoRandomness)?);
        let writer = self.registry.open(id.clone(), session).map_err(|_| Refusal::NameTaken(id.clone()))?;
        Ok(Publication::new(writer, self.part_target, self.metrics.stream(id)))
    }

    fn fault(&self, id: &StreamId, key: &Secret) -> KeyFault {
        let is_key = |name: &str| self.authorize.may_publish(id, &Secret::new(name.to_owned()));
        // Both are compared whatever the first one says.
        if is_key(id.app()) | is_key(id.stream()) {
            KeyFault::InName
        } else if key.expose().is_empty() {
            KeyFault::Missing
        } else {
            KeyFault::Wrong
        }
    }
}

/// A live publication; dropping it ends the stream.
pub struct Publication {
    stage: Stage,
    writer: StreamWriter,
    part_target: Duration,
    metrics: StreamMetrics,
    announced: Announced,
    clock: Clock,
    video: Option<VideoTrack>,
    audio: Option<AudioTrack>,
    /// The timeline broke, and the lead has had no unit since.
    broken: bool,
    meter: Option<Meter>,
    health: Health,
    /// Since when nothing of a track could be used.
    unusable_video: Option<Instant>,
    unusable_audio: Option<Instant>,
}

struct VideoTrack {
    config: h264::Config,
    /// Another configuration, in force from the next keyframe on.
    next: Option<h264::Config>,
    clock: VideoClock,
}

struct AudioTrack {
    config: aac::Config,
    clock: AudioClock,
}

enum Stage {
    Holding(Hold),
    Open(Box<Log>),
}

impl Publication {
    fn new(writer: StreamWriter, part_target: Duration, metrics: StreamMetrics) -> Self {
        Self {
            stage: Stage::Holding(Hold::default()),
            writer,
            part_target,
            metrics,
            announced: Announced::default(),
            clock: Clock::default(),
            video: None,
            audio: None,
            broken: false,
            meter: None,
            health: Health::new(),
            unusable_video: None,
            unusable_audio: None,
        }
    }

    /// Publishers may say it again, in the middle of the stream.
    pub fn announce(&mut self, announced: Announced) {
        self.announced = announced;
    }

    pub fn session(&self) -> SessionId {
        self.writer.session()
    }

    /// How long the publisher must be left unread, because its media runs ahead of the wall clock.
    pub fn lead(&self, now: Instant) -> Duration {
        self.clock.lead(now).saturating_sub(LEAD_MAX)
    }

    /// One FLV video tag body (RTMP message type 9), whole, with its 32-bit millisecond stamp.
    ///
    /// # Errors
    /// [`PublishError`]: the publication cannot go on.
    pub fn video(
        &mut self,
        stamp: u32,
        body: Bytes,
        now: Instant,
        wall: SystemTime,
    ) -> Result<(), PublishError> {
        let (offset_ms, data) = match flv::Video::parse(body)? {
            flv::Video::Unit { composition_offset_ms, data } => (composition_offset_ms, data),
            flv::Video::SequenceHeader(record) => {
                self.video_config(h264::Config::parse(record)?);
                return Ok(());
            }
            flv::Video::EndOfSequence | flv::Video::Info => return Ok(()),
        };
        let usable = self.video.as_mut().and_then(|track| {
            let key = track.config.is_idr(&data).ok()?;
            Some((track, key))
        });
        let Some((track, key)) = usable else {
            self.metrics.unit_dropped();
            return pass_over("video", &mut self.unusable_video, now);
        };
        self.unusable_video = None;
        let mapped = self.clock.map(TrackKind::Video, stamp, now);
        self.broken |= mapped.rebased;
        let (dts, pts) = track.clock.map(mapped.millis, offset_ms, key);
        self.health.picture(mapped.millis, self.clock.elapsed_ms(now), Timescale::VIDEO.seconds(pts - dts));
        let config = if key { track.next.take() } else { None };
        if let Some(config) = &config {
            track.config = config.clone();
        }
        if let (Stage::Holding(hold), true) = (&mut self.stage, key) {
            hold.begin_video(&track.config);
        }
        let held = Held {
            kind: TrackKind::Video,
            // The log knows the nominal duration once the frame rate is measured.
            unit: AccessUnit { dts, pts, duration: 0, key, data },
            scale: Timescale::VIDEO,
            broken: false,
            config: config.map(CodecConfig::H264),
        };
        self.unit(held, mapped.millis, wall)
    }

    /// One FLV audio tag body (RTMP message type 8).
    ///
    /// # Errors
    /// [`PublishError`]: the publication cannot go on.
    pub fn audio(
        &mut self,
        stamp: u32,
        body: Bytes,
        now: Instant,
        wall: SystemTime,
    ) -> Result<(), PublishError> {
        let data = match flv::Audio::parse(body)? {
            flv::Audio::Frame(data) => data,
            flv::Audio::SequenceHeader(record) => return self.audio_config(aac::Config::parse(record)?),
            flv::Audio::Silence => return Ok(()),
        };
        let usable = self.audio.as_mut().filter(|_| data.len() <= AUDIO_FRAME_BYTES_MAX);
        let Some(track) = usable else {
            self.metrics.unit_dropped();
            return pass_over("audio", &mut self.unusable_audio, now);
        };
        self.unusable_audio = None;
        let mapped = self.clock.map(TrackKind::Audio, stamp, now);
        self.broken |= mapped.rebased;
        let Some(dts) = track.clock.map(mapped.millis) else {
            self.metrics.unit_dropped();
            return Ok(());
        };
        self.health.sound(mapped.millis, self.clock.elapsed_ms(now), data.len());
        let held = Held {
            kind: TrackKind::Audio,
            unit: AccessUnit { dts, pts: dts, duration: track.config.samples_per_frame(), key: true, data },
            scale: track.config.timescale(),
            broken: false,
            config: None,
        };
        self.unit(held, mapped.millis, wall)
    }

    fn video_config(&mut self, config: h264::Config) {
        let known = self.video.as_ref().is_some_and(|track| track.config == config);
        if !known && is_rare(&config) {
            let (chroma, bit_depth) = (config.chroma(), config.bit_depth());
            tracing::warn!(
                ?chroma,
                bit_depth,
                "many devices play only 8-bit 4:2:0; set the encoder to yuv420p"
            );
        }
        match &mut self.video {
            Some(track) if track.config == config => track.next = None,
            Some(track) => track.next = Some(config),
            None => self.video = Some(VideoTrack { config, next: None, clock: VideoClock::default() }),
        }
    }

    fn audio_config(&mut self, config: aac::Config) -> Result<(), PublishError> {
        match &self.audio {
            Some(track) if track.config == config => Ok(()),
            Some(_) => Err(PublishError::AudioChanged),
            None => {
                let clock = AudioClock::new(config.timescale(), config.samples_per_frame());
                self.audio = Some(AudioTrack { config, clock });
                Ok(())
            }
        }
    }

    fn unit(&mut self, mut held: Held, millis: i64, wall: SystemTime) -> Result<(), PublishError> {
        let arrival_ms = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let meter = self.meter.get_or_insert_with(|| Meter::new(arrival_ms));
        let told = meter.note(held.kind, millis, held.unit.data.len(), held.unit.key);
        match &mut self.stage {
            Stage::Holding(hold) => {
                held.broken = std::mem::take(&mut self.broken);
                hold.push(held, millis, arrival_ms)?;
                if hold.is_over()? {
                    self.open_log();
                }
            }
            Stage::Open(log) => {
                held.broken = held.kind == log.lead() && std::mem::take(&mut self.broken);
                log.push(held, &self.writer);
            }
        }
        if told {
            self.tell(millis);
        }
        Ok(())
    }

    fn open_log(&mut self) {
        let Stage::Holding(hold) = &mut self.stage else { return };
        let audio = self.audio.as_ref().map(|track| &track.config);
        let Some(opening) = std::mem::take(hold).open(audio, self.part_target) else { return };
        for (announced, kind) in
            [(self.announced.video, TrackKind::Video), (self.announced.audio, TrackKind::Audio)]
        {
            if announced && opening.tracks.iter().all(|track| track.codec.kind() != kind) {
                tracing::info!(?kind, "announced, but did not come in the first seconds: left out");
            }
        }
        self.health.open(opening.frame_rate);
        let log = Log::open(opening, self.announced.bits_per_second, &mut self.writer);
        self.stage = Stage::Open(Box::new(log));
    }

    /// Once a second: what people see of this publication.
    fn tell(&mut self, millis: i64) {
        let Some(meter) = &self.meter else { return };
        let (starting, counts) = match &self.stage {
            Stage::Holding(_) => {
                (Some("Waiting for the first two seconds of media.".to_owned()), Counts::default())
            }
            Stage::Open(log) if log.is_live() => (None, log.counts()),
            Stage::Open(log) => (Some(waiting(meter.keyframe_age_s(millis))), log.counts()),
        };
        let circumstances = Circumstances {
            now_ms: millis,
            keyframe_interval_s: meter.keyframe_interval_s(millis),
            counts,
            announced: self.announced,
            rare_pixels: self.video.as_ref().is_some_and(|track| is_rare(&track.config)),
            audio_channels: self.audio.as_ref().map(|track| track.config.channels()),
        };
        let report = self.health.second(meter.newest(), &circumstances);
        let facts = meter.facts(starting, report);
        let anchors = self.audio.as_ref().map_or(0, |track| track.clock.anchors());
        self.metrics.tell(&facts, counts, anchors);
        self.writer.set_facts(facts);
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if let Stage::Open(log) = &mut self.stage {
            log.finish(&self.writer);
        }
        let counts = match &self.stage {
            Stage::Holding(_) => Counts::default(),
            Stage::Open(log) => log.counts(),
        };
        tracing::info!(
            seconds = self.clock.newest().as_secs(),
            discontinuities = counts.discontinuities,
            parts_over_target = counts.parts_over_target,
            segments_forced = counts.segments_forced,
            "publication ended"
        );
    }
}

/// Passes over a unit that cannot be used, as all have been since `since`, but not for ever.
fn pass_over(what: &'static str, since: &mut Option<Instant>, now: Instant) -> Result<(), PublishError> {
    let passed = now.saturating_duration_since(*since.get_or_insert(now));
    if passed < UNUSABLE_MAX { Ok(()) } else { Err(PublishError::Unusable(what)) }
}

/// Whether many devices cannot play such pixels.
fn is_rare(config: &h264::Config) -> bool {
    config.chroma() != h264::Chroma::Yuv420 || config.bit_depth() > 8
}

/// Why there is no playlist yet, when the newest keyframe is `age_s` old.
fn waiting(age_s: f64) -> String {
    if age_s <= KEYFRAME_INTERVAL_GOOD_S {
        return "Waiting for the first segment to be complete.".to_owned();
    }
    format!(
        "Waiting for a keyframe, the last one came {age_s:.0} s ago: \
         a keyframe interval of 2 s in the encoder starts the stream sooner."
    )
}

#[cfg(test)]
mod tests {
    use relay::{Boundary, Frame, Kind, Read, StreamRecord};

    use super::*;

    /// Baseline profile, 640x360 and 320x180, from x264.
    const AVCC: &[u8] = &[
        0x01, 0x42, 0xC0, 0x1E, 0xFF, 0xE1, 0x00, 0x19, 0x67, 0x42, 0xC0, 0x1E, 0xDA, 0x02, 0x80, 0xBF, 0xE5,
        0xC0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00, 0x03, 0x00, 0xF0, 0x3C, 0x58, 0xBA, 0x80, 0x01,
        0x00, 0x04, 0x68, 0xCE, 0x0F, 0xC8,
    ];
    const AVCC_SMALL: &[u8] = &[
        0x01, 0x42, 0xC0, 0x0D, 0xFF, 0xE1, 0x00, 0x17, 0x67, 0x42, 0xC0, 0x0D, 0xDA, 0x05, 0x06, 0x7E, 0x7C,
        0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0F, 0x03, 0xC5, 0x0A, 0xA8, 0x01, 0x00, 0x04,
        0x68, 0xCE, 0x0F, 0xC8,
    ];

    struct RightKey;

    impl Authorize for RightKey {
        fn may_publish(&self, _: &StreamId, key: &Secret) -> bool {
            key.expose() == "right"
        }
    }

    struct Server {
        gate: Gate,
        registry: StreamRegistry,
        id: StreamId,
    }

    impl Server {
        fn new() -> Self {
            let registry = StreamRegistry::default();
            let part_target = Duration::from_millis(500);
            let gate = Gate::new(registry.clone(), Arc::new(RightKey), part_target, Metrics::default());
            Self { gate, registry, id: StreamId::new("live", "cam").unwrap() }
        }

        fn publish(&self, key: &str) -> Result<Publication, Refusal> {
            self.gate.publish(&self.id, &Secret::new(key.to_owned()))
        }

        fn record(&self) -> Option<Arc<StreamRecord>> {
            self.registry.get(&self.id)?.record().borrow().clone()
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
        fn new(publication: Publication) -> Self {
            let (started, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_800_000_000));
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
        let mut encoder = Encoder::new(server.publish("right").unwrap());
        encoder.video_header(AVCC).unwrap();
        encoder.audio_header().unwrap();
        encoder
    }

    #[test]
    fn only_the_right_key_publishes_and_only_once_at_a_time() {
        let server = Server::new();
        assert!(matches!(server.publish("wrong"), Err(Refusal::WrongKey(KeyFault::Wrong))));
        assert!(matches!(server.publish(""), Err(Refusal::WrongKey(KeyFault::Missing))));
        let first = server.publish("right").unwrap();
        assert!(matches!(server.publish("right"), Err(Refusal::NameTaken(_))));
        drop(first);
        assert!(server.publish("right").is_ok());
    }

    /// The broadcaster who pastes the key alone is told so; the stranger who guesses is told what every stranger is.
    #[test]
    fn a_key_in_the_place_of_a_name_is_noticed_and_refused_in_the_same_words() {
        let server = Server::new();
        let refusal = |app: &str, stream: &str, key: &str| {
            let id = StreamId::new(app, stream).unwrap();
            server.gate.publish(&id, &Secret::new(key.to_owned())).err().unwrap()
        };
        for (app, stream, key, fault) in [
            ("live", "right", "", KeyFault::InName),
            ("right", "cam", "wrong", KeyFault::InName),
            ("live", "cam", "wrong", KeyFault::Wrong),
        ] {
            let refused = refusal(app, stream, key);
            assert!(matches!(refused, Refusal::WrongKey(found) if found == fault), "{app}/{stream}");
            assert_eq!(refused.to_string(), "the publish key is missing or wrong");
        }
    }

    #[test]
    fn the_log_opens_after_two_seconds_with_everything_held() {
        let server = Server::new();
        let mut encoder = started(&server);
        encoder.run_until(1.96).unwrap();
        assert_eq!(server.record(), None);
        encoder.run_until(2.1).unwrap();
        let record = server.record().unwrap();
        assert_eq!(record.tracks.iter().map(|track| track.name).collect::<Vec<_>>(), ["v", "a"]);
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

    #[test]
    fn the_broadcaster_is_told_how_the_stream_is() {
        let server = Server::new();
        let mut encoder = started(&server);
        encoder.run_until(8.0).unwrap();
        let facts = server.registry.get(&server.id).unwrap().facts();
        assert_eq!(facts.health.samples.len(), 7);
        // Of two bytes a frame.
        assert_eq!(facts.health.sound, relay::Sound::ProbablySilent);
        let [silent] = facts.warnings.as_slice() else { panic!("{:?}", facts.warnings) };
        assert!(silent.contains("probably silent"));
    }

    #[test]
    fn audio_alone_is_a_stream() {
        let server = Server::new();
        let mut encoder = Encoder::new(server.publish("right").unwrap());
        encoder.audio_header().unwrap();
        while encoder.sound < 300 {
            encoder.sound().unwrap();
        }
        let record = server.record().unwrap();
        assert_eq!(record.tracks.iter().map(|track| track.name).collect::<Vec<_>>(), ["a"]);
        assert_eq!(record.live.clone().unwrap().target_duration_s, 3);
    }

    #[test]
    fn nothing_comes_before_the_first_keyframe() {
        let server = Server::new();
        let mut encoder = started(&server);
        encoder.picture = 20;
        encoder.run_until(5.0).unwrap();
        let (video, audio) = (frames(&server, 0), frames(&server, 1));
        let first = |frames: &[Frame]| {
            frames.iter().find(|frame| frame.kind() == Kind::Unit).unwrap().to_unit().unwrap()
        };
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
    fn a_publisher_that_leaves_ends_every_track() {
        let server = Server::new();
        let mut encoder = started(&server);
        encoder.run_until(5.0).unwrap();
        let stream = server.registry.get(&server.id).unwrap();
        drop(encoder);
        assert!(server.registry.get(&server.id).is_none());
        for track in stream.tracks() {
            let (mut cursor, mut frames) = (track.oldest(), Vec::new());
            while track.read(&mut cursor, false, &mut frames) != Read::Ended {}
            assert_eq!(frames.last().unwrap().kind(), Kind::End);
        }
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
        let mut encoder = Encoder::new(server.publish("right").unwrap());
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
        let count = |server: &Server| frames(server, 1).len();
        let before = count(&server);
        let body = Bytes::from([&[0xAF, 1], vec![0; 1024 * 1024].as_slice()].concat());
        encoder.publication.audio(3_000, body, encoder.started, encoder.wall).unwrap();
        assert_eq!(count(&server), before);
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
}
