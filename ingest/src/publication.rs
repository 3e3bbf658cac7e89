//! One publication, from the accepted key to ENDLIST.
//!
//!   FLV message ─▶ stream clock ─▶ hold (2 s: tracks, frame rate, wall clock) ─▶ cutter ─▶ live log
//!
//! Owns no socket and reads no clock. Invariants: nothing enters the log before the part grid is fixed; the
//! track set never changes once it is; units of a track are written in decoding order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use media::codec::{aac, h264};
use media::flv::{self, TagError};
use media::{AccessUnit, CodecConfig, SessionId, StreamId, Timescale, TrackKind};
use relay::{StreamRegistry, StreamWriter};

use crate::Secret;
use crate::hold::{HOLD_BYTES_MAX, Held, Hold, KEYFRAME_WAIT_MS};
use crate::log::Log;
use crate::meter::Meter;
use crate::metrics::{Metrics, StreamMetrics};
use crate::timeline::{AudioClock, Clock, VideoClock};

/// A keyframe distance above this, in seconds, makes every join slow; the broadcaster should know.
const KEYFRAME_INTERVAL_GOOD_S: f64 = 4.0;

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
}

/// Why a publisher may not go live. The broadcaster must act, but for the last.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the publish key is missing or wrong")]
    WrongKey,
    #[error("{0} is already being published")]
    NameTaken(StreamId),
    /// The operator must act: the system gives no random numbers.
    #[error("the server cannot make a session id")]
    NoRandomness,
}

/// Why a running publication was closed. The broadcaster must act.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("{0}")]
    Tag(#[from] TagError),
    #[error("H.264 configuration: {0}")]
    H264(#[from] h264::ConfigError),
    #[error("AAC configuration: {0}")]
    Aac(#[from] aac::ConfigError),
    #[error("no keyframe in the first {} s of video", KEYFRAME_WAIT_MS / 1000)]
    NoKeyframe,
    #[error("more than {} MiB in the first seconds", HOLD_BYTES_MAX / 1024 / 1024)]
    TooMuchAtStart,
    #[error("the audio format changed; stop and start the stream")]
    AudioChanged,
}

/// What the publisher said it would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announced {
    pub video: bool,
    pub audio: bool,
    /// Of all tracks together.
    pub bits_per_second: Option<u32>,
}

impl Gate {
    /// `part_target`: how long a part should be; the part grid rounds it to whole frames.
    pub fn new(
        registry: StreamRegistry,
        authorize: Arc<dyn Authorize>,
        part_target: Duration,
        metrics: Metrics,
    ) -> Self {
        Self { registry, authorize, part_target, metrics }
    }

    /// # Errors
    /// [`Refusal`], in words meant for the broadcaster.
    pub fn publish(
        &self,
        id: &StreamId,
        key: &Secret,
        protocol: &'static str,
        peer: SocketAddr,
    ) -> Result<Publication, Refusal> {
        if !self.authorize.may_publish(id, key) {
            return Err(Refusal::WrongKey);
        }
        let session = SessionId::from_random(getrandom::u64().map_err(|_| Refusal::NoRandomness)?);
        let writer = self.registry.open(id.clone(), session).map_err(|_| Refusal::NameTaken(id.clone()))?;
        tracing::info!(%session, protocol, %peer, "publishing");
        Ok(Publication::new(writer, self.part_target, self.metrics.stream(id)))
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
    Open(Log),
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
        }
    }

    pub fn announce(&mut self, announced: Announced) {
        self.announced = announced;
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
        let Some(track) = &mut self.video else {
            self.metrics.unit_dropped();
            return Ok(());
        };
        let Ok(key) = track.config.is_idr(&data) else {
            self.metrics.unit_dropped();
            return Ok(());
        };
        let mapped = self.clock.map(TrackKind::Video, stamp, now);
        self.broken |= mapped.rebased;
        let (dts, pts) = track.clock.map(mapped.millis, offset_ms, key);
        let config = if key { track.next.take() } else { None };
        if let Some(config) = &config {
            track.config = config.clone();
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
        let Some(track) = &mut self.audio else {
            self.metrics.unit_dropped();
            return Ok(());
        };
        let mapped = self.clock.map(TrackKind::Audio, stamp, now);
        self.broken |= mapped.rebased;
        let Some(dts) = track.clock.map(mapped.millis) else {
            self.metrics.unit_dropped();
            return Ok(());
        };
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
        let video = self.video.as_ref().map(|track| &track.config);
        let audio = self.audio.as_ref().map(|track| &track.config);
        let Some(opening) = std::mem::take(hold).open(video, audio, self.part_target) else { return };
        for (announced, kind) in
            [(self.announced.video, TrackKind::Video), (self.announced.audio, TrackKind::Audio)]
        {
            if announced && opening.tracks.iter().all(|track| track.codec.kind() != kind) {
                tracing::info!(?kind, "announced, but did not come in the first seconds: left out");
            }
        }
        self.stage = Stage::Open(Log::open(opening, self.announced.bits_per_second, &mut self.writer));
    }

    /// Once a second: what people see of this publication.
    fn tell(&mut self, millis: i64) {
        let Some(meter) = &self.meter else { return };
        let (starting, counts) = match &self.stage {
            Stage::Holding(_) => (Some("waiting for the first two seconds of media".to_owned()), None),
            Stage::Open(log) if log.is_live() => (None, Some(log.counts())),
            Stage::Open(log) => (Some(waiting(meter.keyframe_age_s(millis))), Some(log.counts())),
        };
        let facts = meter.facts(starting);
        let anchors = self.audio.as_ref().map_or(0, |track| track.clock.anchors());
        self.metrics.tell(&facts, counts.unwrap_or_default(), anchors);
        self.writer.set_facts(facts);
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        if let Stage::Open(log) = &mut self.stage {
            log.finish(&self.writer);
        }
    }
}

/// Why there is no playlist yet, when the newest keyframe is `age_s` old.
fn waiting(age_s: f64) -> String {
    if age_s <= KEYFRAME_INTERVAL_GOOD_S {
        return "waiting for the first segment to be complete".to_owned();
    }
    format!(
        "waiting for a keyframe, the last one came {age_s:.0} s ago: \
         a keyframe interval of 2 s in the encoder starts the stream sooner"
    )
}
