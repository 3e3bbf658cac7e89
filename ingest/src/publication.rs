//! One publisher's media, from the accepted key until it leaves.
//!
//!   FLV message ─▶ stream clock ─▶ hold (2 s: tracks, frame rate, wall clock) ─▶ session ─▶ cutter ─▶ live log
//!                                └▶ or straight on, at a keyframe, with the session of a publisher before it
//!
//! Owns no socket and reads no clock. Invariants: nothing enters the log before the part grid is fixed; the
//! track set never changes once it is; units of a track are written in decoding order.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use media::codec::{Access, Chroma};
use media::flv;
use media::{AccessUnit, AudioConfig, MediaTime, SessionId, Timescale, TrackKind, VideoCodec, VideoConfig};
use relay::Stream;
use tracing::{Span, field, info, warn};

use crate::error::PublishError;
use crate::gate::{Claims, Shared, Slot};
use crate::health::{Circumstances, Health, KEYFRAME_INTERVAL_GOOD_S, Packets};
use crate::hold::{Held, Hold};
use crate::layers::Layers;
use crate::log::Placed;
use crate::meter::Meter;
use crate::session::{Session, unix_ms};
use crate::timeline::{AudioClock, Clock, VideoClock};
use crate::warnings::Warnings;

/// A publisher of whose video, or audio, nothing could be used for this long is told so.
pub(crate) const UNUSABLE_MAX: Duration = Duration::from_secs(5);

/// Largest audio frame, in bytes. AAC allows 768 a channel (ISO/IEC 14496-3, §4.5.3), so 6 kB for eight, in 21 ms; Opus at
/// 510 kbit/s has 8 kB in its longest packet, 120 ms. Nothing else bounds the bytes of audio beside video.
const AUDIO_FRAME_BYTES_MAX: usize = 16 * 1024;

/// Media may run this far ahead of the wall clock before the publisher is slowed down: it is live, and who reads the log
/// must keep up.
const LEAD_MAX: Duration = Duration::from_secs(5);

/// Keyframes may come too late for their time for this long after a silence; most encoders catch up in a burst. One that
/// does not has lost that time for good, and its stamps are mapped anew.
const LATE_MAX: Duration = Duration::from_secs(3);

/// What the publisher said it would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announced {
    pub video: bool,
    pub audio: bool,
    /// Of all tracks together.
    pub bits_per_second: Option<u32>,
    /// Rounded: 30 for 29.97.
    pub frames_per_second: Option<u32>,
    /// In how many sizes the video comes at once (simulcast); 0 if it does not say.
    pub layers: usize,
}

/// One coded picture on its way to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoUnit {
    pub codec: VideoCodec,
    /// PTS − DTS.
    pub composition_offset_ms: i32,
    pub data: Bytes,
}

/// A publisher that was let in. Dropping it is a lost connection: the session waits for it to come back.
pub struct Publication {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    claim: u64,
    /// What its session is called if it begins one.
    fresh: SessionId,
    stage: Stage,
    announced: Announced,
    packets: Option<Packets>,
    clock: Clock,
    /// Of each kind one track is taken.
    video_tracks: flv::Tracks,
    audio_tracks: flv::Tracks,
    video: Option<VideoTrack>,
    audio: Option<AudioTrack>,
    layers: Layers,
    warnings: Warnings,
    /// The timeline broke, and the lead has had no unit since.
    broken: bool,
    meter: Option<Meter>,
    health: Health,
    /// Since when nothing of a track could be used.
    unusable_video: Option<Instant>,
    unusable_audio: Option<Instant>,
    /// Since when keyframes have been too late for their time.
    late: Option<Instant>,
    anchors_told: u32,
}

struct VideoTrack {
    config: VideoConfig,
    /// Another configuration of the same codec, in force from the next keyframe on.
    next: Option<VideoConfig>,
    clock: VideoClock,
    /// A keyframe has come.
    begun: bool,
}

struct AudioTrack {
    config: AudioConfig,
    clock: AudioClock,
}

impl VideoTrack {
    fn new(config: VideoConfig) -> Self {
        Self { config, next: None, clock: VideoClock::default(), begun: false }
    }
}

enum Stage {
    /// `settled`: its tracks are known and are those of the session that is there; at the next keyframe it goes on with it.
    Holding {
        hold: Box<Hold>,
        settled: bool,
    },
    Writing,
}

impl Publication {
    pub(crate) fn new(shared: Arc<Shared>, slot: Arc<Slot>, claim: u64, fresh: SessionId) -> Self {
        Self {
            shared,
            slot,
            claim,
            fresh,
            stage: Stage::Holding { hold: Box::default(), settled: false },
            announced: Announced::default(),
            packets: None,
            clock: Clock::default(),
            video_tracks: flv::Tracks::default(),
            audio_tracks: flv::Tracks::default(),
            video: None,
            audio: None,
            layers: Layers::default(),
            warnings: Warnings::default(),
            broken: false,
            meter: None,
            health: Health::default(),
            unusable_video: None,
            unusable_audio: None,
            late: None,
            anchors_told: 0,
        }
    }

    /// Publishers may say it again, in the middle of the stream.
    pub fn announce(&mut self, announced: Announced) {
        self.announced = announced;
    }

    /// What has become of the publisher's packets so far, where its line may lose some.
    pub fn packets(&mut self, packets: Packets) {
        self.packets = Some(packets);
    }

    /// The publisher says that it is over, and means it: no session waits for it.
    pub fn goodbye(self) {
        self.slot.lock().leave(self.claim, true);
    }

    /// What viewers read of it; `None` once it is over.
    pub(crate) fn stream(&self) -> Option<Arc<Stream>> {
        self.shared.registry.get(self.slot.id())
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
        match flv::Video::parse(body, &mut self.video_tracks)? {
            flv::Video::Unit { codec, composition_offset_ms, data } => {
                let unit = VideoUnit { codec, composition_offset_ms, data };
                self.video_unit(stamp, unit, now, wall)
            }
            flv::Video::SequenceHeader { codec, record } => {
                self.video_config(VideoConfig::parse(codec, record)?)
            }
            flv::Video::EndOfSequence | flv::Video::Info => Ok(()),
        }
    }

    /// One picture as a sample of a file holds it (H.264: NAL units behind their lengths), with the publisher's stamp in
    /// milliseconds, which may wrap at 32 bits.
    ///
    /// # Errors
    /// [`PublishError`]: the publication cannot go on.
    pub fn video_unit(
        &mut self,
        stamp: u32,
        unit: VideoUnit,
        now: Instant,
        wall: SystemTime,
    ) -> Result<(), PublishError> {
        let VideoUnit { codec, composition_offset_ms: offset_ms, data } = unit;
        let track = self.video.as_ref().filter(|track| track.config.codec() == codec);
        let usable = track.and_then(|track| Some((track.config.access(&data)?, track.begun)));
        let Some((access, begun)) = usable else {
            self.unit_dropped();
            return pass_over("video", &mut self.unusable_video, now);
        };
        self.unusable_video = None;
        let key = access == Access::Key || access == Access::OpenGop && !begun;
        self.warnings.open_gops |= access == Access::OpenGop && !key;
        let slot = self.slot.clone();
        let mut claims = slot.lock();
        if key {
            self.at_keyframe(&mut claims, now)?;
        }
        let mapped = self.clock.map(TrackKind::Video, stamp, now);
        self.broken |= mapped.rebased;
        let Some(track) = &mut self.video else { return Ok(()) };
        track.begun |= key;
        let data = track.config.sample(data);
        let (dts, pts) = track.clock.map(mapped.millis, offset_ms, key);
        self.health.picture(mapped.millis, self.clock.now_ms(now), Timescale::VIDEO.seconds(pts - dts));
        let config = if key { track.next.take() } else { None };
        if let Some(config) = &config {
            track.config = config.clone();
        }
        if let (Stage::Holding { hold, .. }, true) = (&mut self.stage, key) {
            hold.begin_video(&track.config);
        }
        let held = Held {
            kind: TrackKind::Video,
            // The log knows the nominal duration once the frame rate is measured.
            unit: AccessUnit { dts, pts, duration: 0, key, data },
            scale: Timescale::VIDEO,
            broken: false,
            config: config.map(Into::into),
        };
        self.unit(&mut claims, held, mapped.millis, now, wall)
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
        match flv::Audio::parse(body, &mut self.audio_tracks)? {
            flv::Audio::Frame { codec, data } => self.audio_frame(stamp, codec, data, now, wall),
            flv::Audio::SequenceHeader { codec, record } => {
                self.audio_config(AudioConfig::parse(codec, record)?)
            }
            flv::Audio::Silence => Ok(()),
        }
    }

    /// One frame of sound, with the publisher's stamp in milliseconds as in [`Publication::video_unit`].
    ///
    /// # Errors
    /// [`PublishError`]: the publication cannot go on.
    pub fn audio_frame(
        &mut self,
        stamp: u32,
        codec: flv::AudioCodec,
        data: Bytes,
        now: Instant,
        wall: SystemTime,
    ) -> Result<(), PublishError> {
        let believable = data.len() <= AUDIO_FRAME_BYTES_MAX;
        let track = self.audio.as_ref().filter(|track| believable && track.config.codec() == codec);
        let Some(samples) = track.and_then(|track| track.config.samples(&data)) else {
            self.unit_dropped();
            return pass_over("audio", &mut self.unusable_audio, now);
        };
        self.unusable_audio = None;
        let slot = self.slot.clone();
        let mut claims = slot.lock();
        if self.is_sound_alone() {
            self.at_keyframe(&mut claims, now)?;
        }
        let mapped = self.clock.map(TrackKind::Audio, stamp, now);
        self.broken |= mapped.rebased;
        let Some(track) = &mut self.audio else { return Ok(()) };
        let Some(dts) = track.clock.map(mapped.millis, samples) else {
            drop(claims);
            self.unit_dropped();
            return Ok(());
        };
        self.health.sound(mapped.millis, self.clock.now_ms(now), data.len());
        let held = Held {
            kind: TrackKind::Audio,
            unit: AccessUnit { dts, pts: dts, duration: samples, key: true, data },
            scale: track.config.timescale(),
            broken: false,
            config: None,
        };
        self.unit(&mut claims, held, mapped.millis, now, wall)
    }

    /// The configuration of the pictures that follow; a new one is in force from the next keyframe on.
    ///
    /// # Errors
    /// [`PublishError::VideoChanged`] if the codec is another one than before.
    pub fn video_config(&mut self, config: VideoConfig) -> Result<(), PublishError> {
        let known = self.video.as_ref().is_some_and(|track| track.config == config);
        if !known && is_rare(&config) {
            let (chroma, bit_depth) = (config.chroma(), config.bit_depth());
            warn!(?chroma, bit_depth, "many devices play only 8-bit 4:2:0; set the encoder to yuv420p");
        }
        match &mut self.video {
            Some(track) if track.config == config => track.next = None,
            // Players choose a decoder once, by the playlist's CODECS.
            Some(track) if track.config.codec() != config.codec() => return Err(PublishError::VideoChanged),
            Some(track) => track.next = Some(config),
            None => self.video = Some(VideoTrack::new(config)),
        }
        Ok(())
    }

    /// The configuration of the sound that follows.
    ///
    /// # Errors
    /// [`PublishError::AudioChanged`] if it is another one than before.
    pub fn audio_config(&mut self, config: AudioConfig) -> Result<(), PublishError> {
        match &self.audio {
            Some(track) if track.config == config => Ok(()),
            Some(_) => Err(PublishError::AudioChanged),
            None => {
                let clock = AudioClock::new(config.timescale());
                self.audio = Some(AudioTrack { config, clock });
                Ok(())
            }
        }
    }

    /// The configuration of what follows of one layer of the video, by the publisher's number.
    pub fn layer_config(&mut self, number: usize, config: VideoConfig) {
        self.layers.config(number, config);
    }

    /// One picture of a layer, stamped by the clock of [`Publication::video_unit`]. Viewers by WebRTC are sent it, where the
    /// session has a track for it; nothing else is made of it, so nothing that is wrong with it ends the publication.
    pub fn layer_unit(&mut self, number: usize, stamp: u32, data: Bytes, now: Instant) {
        let (Stage::Writing, Some(millis)) = (&self.stage, self.clock.place(stamp)) else { return };
        let slot = self.slot.clone();
        let mut claims = slot.lock();
        let Ok(session) = claims.owned(self.claim, now) else { return };
        let Some((track, config)) = self.layers.track(number, &session.layer_pixels()) else { return };
        let Some(access) = config.access(&data) else { return };
        let (key, config) = (access == Access::Key, config.clone());
        let is_untold = key && self.layers.take_untold(number);
        let config = is_untold.then(|| config.into());
        let dts = MediaTime::new(millis, Timescale::MILLIS).ticks_in(Timescale::VIDEO);
        // The log knows how long a picture lasts.
        let unit = AccessUnit { dts, pts: dts, duration: 0, key, data };
        session.push_layer(track, unit, config.as_ref());
    }

    /// Whether there is no picture to wait for, so that any sound is a keyframe.
    fn is_sound_alone(&self) -> bool {
        let expected = match self.stage {
            Stage::Holding { settled, .. } => !settled && (self.announced.video || !self.announced.audio),
            Stage::Writing => false,
        };
        self.video.is_none() && !expected
    }

    /// Decoding can start at the unit that is about to be mapped: the moment to go on with the session of a publisher
    /// before this one, or to give up on a time that has passed.
    fn at_keyframe(&mut self, claims: &mut Claims, now: Instant) -> Result<(), PublishError> {
        match &self.stage {
            Stage::Holding { settled, .. } => {
                let settled = *settled;
                let session = claims.candidate(self.claim, now)?;
                let Some(session) = session.filter(|session| self.can_go_on_with(session, settled)) else {
                    return Ok(());
                };
                let Some((zero, taken_ms, video)) = session.resume() else { return Ok(()) };
                if let Some(track) = &mut self.video {
                    let config = track.next.take().unwrap_or_else(|| track.config.clone());
                    let same = video == Some(&config.clone().into());
                    *track = VideoTrack::new(config.clone());
                    track.next = (!same).then_some(config);
                }
                if let Some(track) = &mut self.audio {
                    track.clock = AudioClock::new(track.config.timescale());
                }
                self.meter = Some(Meter::new(session.since_ms()));
                self.health = Health::after(&session.facts().health, session.silence(now), session.counts());
                self.health.open(session.frame_rate());
                self.anchors_told = 0;
                self.clock = Clock::joining(zero, taken_ms);
                self.layers.join();
                self.stage = Stage::Writing;
                Span::current().record("session", field::display(session.id()));
                claims.take_over(self.claim);
                info!("goes on with the session that is there");
            }
            Stage::Writing => {
                let Some(late) = self.late else { return Ok(()) };
                if now.saturating_duration_since(late) > LATE_MAX {
                    self.late = None;
                    let session = claims.owned(self.claim, now)?;
                    if let Some((_, taken_ms, _)) = session.resume() {
                        self.clock.catch_up(taken_ms);
                    }
                }
            }
        }
        Ok(())
    }

    /// `settled`: what was announced and did not come in the first seconds will not come.
    fn can_go_on_with(&self, session: &Session, settled: bool) -> bool {
        let expects = |announced: bool, there: bool| settled || !announced || there;
        expects(self.announced.video, self.video.is_some())
            && expects(self.announced.audio, self.audio.is_some())
            && session.fits(
                self.video.as_ref().map(|track| &track.config),
                self.audio.as_ref().map(|track| &track.config),
            )
    }

    fn unit(
        &mut self,
        claims: &mut Claims,
        mut held: Held,
        millis: i64,
        now: Instant,
        wall: SystemTime,
    ) -> Result<(), PublishError> {
        let arrival_ms = unix_ms(wall);
        let meter = self.meter.get_or_insert_with(|| Meter::new(arrival_ms));
        let told = meter.note(held.kind, millis, held.unit.data.len(), held.unit.key);
        match &mut self.stage {
            Stage::Holding { hold, .. } => {
                claims.candidate(self.claim, now)?;
                held.broken = std::mem::take(&mut self.broken);
                hold.push(held, millis, arrival_ms)?;
                if hold.is_over(self.announced.video)? {
                    self.end_hold(claims, now)?;
                }
            }
            Stage::Writing => {
                let session = claims.owned(self.claim, now)?;
                let (lead, key) = (held.kind == session.lead(), held.unit.key);
                held.broken = lead && std::mem::take(&mut self.broken);
                match session.push(held, now) {
                    Placed::Late if key && lead => _ = self.late.get_or_insert(now),
                    Placed::Written if lead => self.late = None,
                    _ => {}
                }
            }
        }
        if told {
            self.tell(claims, millis, now);
        }
        Ok(())
    }

    /// The first seconds have shown what there is: the tracks of the session before, or a new session.
    fn end_hold(&mut self, claims: &mut Claims, now: Instant) -> Result<(), PublishError> {
        let Stage::Holding { hold, settled } = &mut self.stage else { return Ok(()) };
        let held = std::mem::take(hold);
        let audio = self.audio.as_ref().map(|track| &track.config).filter(|_| held.has(TrackKind::Audio));
        let video = self.video.as_ref().map(|track| &track.config).filter(|_| held.has(TrackKind::Video));
        let other = claims.candidate(self.claim, now)?.filter(|session| session.id() != self.fresh);
        if other.is_some_and(|session| session.fits(video, audio)) {
            *settled = true;
            return Ok(());
        }
        let Some(zero) = self.clock.zero() else { return Ok(()) };
        let Some(mut opening) = held.open(audio, self.shared.policy.part_target) else { return Ok(()) };
        for (announced, kind) in
            [(self.announced.video, TrackKind::Video), (self.announced.audio, TrackKind::Audio)]
        {
            if announced && opening.tracks.iter().all(|track| track.codec.kind() != kind) {
                info!(?kind, "announced, but did not come in the first seconds: left out");
            }
        }
        if claims.owned(self.claim, now).is_err() {
            self.slot.begin(&self.shared, claims, self.claim, self.fresh, now);
        }
        Span::current().record("session", field::display(self.fresh));
        let session = claims.owned(self.claim, now)?;
        self.health.open(opening.frame_rate);
        let layers = self.layers.open(self.announced.layers, &opening.tracks);
        opening.tracks.extend(layers);
        let derived = self.shared.ladder.derive(self.slot.id(), &opening.tracks, opening.frame_rate);
        opening.tracks.extend(derived);
        session.open(opening, self.announced.bits_per_second, zero, now);
        self.stage = Stage::Writing;
        Ok(())
    }

    /// Once a second: what people see of this publication.
    fn tell(&mut self, claims: &mut Claims, millis: i64, now: Instant) {
        let Some(meter) = &self.meter else { return };
        // A newcomer that does not write yet has nothing to tell of the session that another one writes.
        let Ok(session) = claims.owned(self.claim, now) else { return };
        let starting = match (&self.stage, session.is_live()) {
            (Stage::Holding { .. }, _) => Some("Waiting for the first two seconds of media.".to_owned()),
            (Stage::Writing, true) => None,
            (Stage::Writing, false) => Some(waiting(meter.keyframe_age_s(millis))),
        };
        let circumstances = Circumstances {
            now_ms: millis,
            keyframe_interval_s: meter.keyframe_interval_s(millis),
            counts: session.counts(),
            announced: self.announced,
            rare_pixels: self.video.as_ref().is_some_and(|track| is_rare(&track.config)),
            video_codec: self.video.as_ref().map(|track| track.config.codec()),
            packets: self.packets,
            has_ladder: session.has_ladder(),
            audio_channels: self.audio.as_ref().map(|track| track.config.channels()),
        };
        let mut report = self.health.second(meter.newest(), &circumstances);
        let anchors = self.audio.as_ref().map_or(0, |track| track.clock.anchors());
        if self.health.is_preflight() {
            let words = report.warnings.iter().chain(&report.health.hints);
            words.for_each(|words| info!("pre-flight: {words}"));
        }
        report.warnings.extend(self.warnings.told(&self.video_tracks, &self.audio_tracks));
        session.tell(meter.facts(starting, report), anchors.saturating_sub(self.anchors_told));
        self.anchors_told = anchors;
    }

    fn unit_dropped(&self) {
        self.shared.metrics.unit_dropped();
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        self.slot.lock().leave(self.claim, false);
    }
}

/// Passes over a unit that cannot be used, as all have been since `since`, but not for ever.
fn pass_over(what: &'static str, since: &mut Option<Instant>, now: Instant) -> Result<(), PublishError> {
    let passed = now.saturating_duration_since(*since.get_or_insert(now));
    if passed < UNUSABLE_MAX { Ok(()) } else { Err(PublishError::Unusable(what)) }
}

/// Whether many devices cannot play such pixels.
fn is_rare(config: &VideoConfig) -> bool {
    // Ten bits are usual with HEVC and AV1, and played where these are.
    let deep = matches!(config, VideoConfig::H264(_)) && config.bit_depth() > 8;
    config.chroma() != Chroma::Yuv420 || deep
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
mod tests;
