//! One session of a stream, from its first publisher to ENDLIST, whoever publishes it meanwhile.
//!
//! While media comes, this hands it to the log. When none comes, the clock runs on: every part is a gap, on all
//! renditions, until the publisher is back or the session is given up (`gate.rs` decides that). Reads no clock.
//!
//! [`Session::end`] forgets the checkpoint, and [`Session::leave`] this process's part of it; a session that is merely dropped,
//! because the process goes, leaves it to the next one.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use media::{AccessUnit, AudioConfig, CodecConfig, SessionId, TrackKind, VideoConfig};
use relay::{Facts, StreamWriter};

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::cutter::Counts;
use crate::gate::Shared;
use crate::hold::{Held, Opening};
use crate::log::{Log, Placed};
use crate::metrics::StreamMetrics;
use crate::timeline::StreamTime;

/// No media of any track for this long, and the parts that are missing are published as gaps. A stall of the uplink
/// that is over before costs viewers nothing but the wait.
pub(crate) const SILENCE_MIN: Duration = Duration::from_secs(2);

/// The same for sources slower than that, in units of their longest frame.
const SILENCE_INTERVALS: f64 = 1.5;

/// How late a gap may be published: little against a part, and next to nothing as work.
pub(crate) const GAP_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct Session {
    writer: StreamWriter,
    metrics: StreamMetrics,
    checkpoints: Arc<dyn Checkpoints>,
    /// `None` while the first publisher's media is held back.
    open: Option<Open>,
    media_last: Instant,
    facts: Facts,
}

struct Open {
    log: Log,
    zero: StreamTime,
}

impl Session {
    pub(crate) fn new(writer: StreamWriter, shared: &Shared, now: Instant) -> Self {
        let metrics = shared.metrics.stream(writer.id());
        let checkpoints = shared.checkpoints.clone();
        Self { writer, metrics, checkpoints, open: None, media_last: now, facts: Facts::default() }
    }

    /// Goes on where a process before this one was, with gaps from now on.
    pub(crate) fn restore(
        writer: StreamWriter,
        shared: &Shared,
        checkpoint: &Checkpoint,
        now: Instant,
        wall: SystemTime,
    ) -> Self {
        let mut session = Self::new(writer, shared, now);
        let wall_ms = unix_ms(wall);
        // A wall clock that was set back meanwhile must not take the stream clock with it.
        let millis = (wall_ms - checkpoint.anchor_ms).max(checkpoint.position_ms);
        let zero = StreamTime { at: now, millis };
        let checkpoints = session.checkpoints.clone();
        let log = Log::resume(checkpoint, millis, checkpoints, &mut session.writer);
        session.facts = Facts {
            since_ms: checkpoint.since_ms,
            interrupted_since_ms: Some(checkpoint.written_ms()),
            ..Facts::default()
        };
        session.writer.set_facts(session.facts.clone());
        session.open = Some(Open { log, zero });
        tracing::info!(
            stream.id = %session.writer.id(),
            session = %session.writer.session(),
            "session of the last run goes on: waiting for its publisher"
        );
        session
    }

    pub(crate) fn id(&self) -> SessionId {
        self.writer.session()
    }

    /// When its first publisher was accepted, Unix time; zero if that has told nothing yet.
    pub(crate) fn since_ms(&self) -> i64 {
        self.facts.since_ms
    }

    /// What was told last.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How long no media has come.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.media_last)
    }

    /// Of the video, as measured when the log opened.
    pub(crate) fn frame_rate(&self) -> Option<f64> {
        self.open.as_ref().and_then(|open| open.log.frame_rate())
    }

    /// Somebody makes other renditions of its video.
    pub(crate) fn has_ladder(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.log.has_ladder())
    }

    /// Viewers have a playlist.
    pub(crate) fn is_live(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.log.is_live())
    }

    /// Whether a publisher with these tracks, and no others, can go on with this session: players have set up their
    /// decoders for its tracks, and timescales cannot change.
    pub(crate) fn fits(&self, video: Option<&VideoConfig>, audio: Option<&AudioConfig>) -> bool {
        let Some(open) = self.open.as_ref().filter(|open| open.log.is_live()) else { return false };
        let (video, audio) = (video.cloned().map(CodecConfig::from), audio.cloned().map(CodecConfig::from));
        // Video may change its configuration, but not its codec.
        let codec = |config: Option<&CodecConfig>| config.map(std::mem::discriminant);
        codec(open.log.codec(TrackKind::Video)) == codec(video.as_ref())
            && open.log.codec(TrackKind::Audio) == audio.as_ref()
    }

    /// Where a publisher that goes on with this session begins: the stream clock, and what of it is taken. And the
    /// configuration of the video that was there before.
    pub(crate) fn resume(&self) -> Option<(StreamTime, i64, Option<&CodecConfig>)> {
        let open = self.open.as_ref()?;
        Some((open.zero, open.log.taken_ms(), open.log.codec(TrackKind::Video)))
    }

    /// The tracks are known: the log opens.
    pub(crate) fn open(
        &mut self,
        opening: Opening,
        announced_bits_per_second: Option<u32>,
        zero: StreamTime,
        now: Instant,
    ) {
        let since_ms = self.facts.since_ms;
        let checkpoints = self.checkpoints.clone();
        let log = Log::open(opening, announced_bits_per_second, since_ms, checkpoints, &mut self.writer);
        self.open = Some(Open { log, zero });
        self.media_last = now;
    }

    pub(crate) fn push(&mut self, held: Held, now: Instant) -> Placed {
        self.media_last = now;
        let Some(open) = &mut self.open else { return Placed::Written };
        let placed = open.log.push(held, &self.writer);
        if placed == Placed::Written
            && let Some(since_ms) = self.facts.interrupted_since_ms.filter(|_| !open.log.is_in_gap())
        {
            let seconds = open.zero.millis(now) + open.log.anchor_ms() - since_ms;
            tracing::info!(seconds = seconds / 1000, "media is back");
            self.facts.interrupted_since_ms = None;
            self.writer.set_facts(self.facts.clone());
        }
        placed
    }

    /// Of each of its tracks for layers, how many pixels it had in the beginning.
    pub(crate) fn layer_pixels(&self) -> Vec<u64> {
        self.open.as_ref().map_or_else(Vec::new, |open| open.log.layer_pixels())
    }

    /// A unit of a layer, by the number of its track, with its decoder configuration, if that is another one than before.
    pub(crate) fn push_layer(&mut self, track: usize, unit: AccessUnit, config: Option<&CodecConfig>) {
        if let Some(open) = &mut self.open {
            open.log.push_layer(track, unit, config);
        }
    }

    pub(crate) fn lead(&self) -> TrackKind {
        self.open.as_ref().map_or(TrackKind::Video, |open| open.log.lead())
    }

    /// Lets the clock run on where media does not. Returns when it may have to again.
    pub(crate) fn tick(&mut self, now: Instant, wall: SystemTime) -> Instant {
        let silent = self.silence(now);
        let Some(open) = self.open.as_mut().filter(|open| open.log.is_live()) else {
            return now + SILENCE_MIN;
        };
        let silence = SILENCE_MIN.max(open.log.interval().mul_f64(SILENCE_INTERVALS));
        if silent < silence {
            return now + (silence - silent);
        }
        open.log.silence(open.zero.millis(now), &self.writer);
        if self.facts.interrupted_since_ms.is_none() {
            let since = wall.checked_sub(silent).unwrap_or(wall);
            tracing::info!(stream.id = %self.writer.id(), "no media: gaps until it is back");
            self.facts = Facts {
                bits_per_second: 0,
                frame_rate: None,
                interrupted_since_ms: Some(unix_ms(since)),
                ..self.facts.clone()
            };
            self.writer.set_facts(self.facts.clone());
        }
        now + GAP_INTERVAL
    }

    /// What people see of the publication, about once a second of media.
    pub(crate) fn tell(&mut self, facts: Facts, audio_anchors: u32) {
        self.facts = Facts { interrupted_since_ms: self.facts.interrupted_since_ms, ..facts };
        self.metrics.tell(&self.facts, self.counts(), audio_anchors);
        self.writer.set_facts(self.facts.clone());
    }

    pub(crate) fn counts(&self) -> Counts {
        self.open.as_ref().map_or_else(Counts::default, |open| open.log.counts())
    }

    /// Nobody will go on with it: viewers are told that it is over.
    pub(crate) fn end(self) {
        self.checkpoints.remove(self.writer.id());
        self.finish();
    }

    /// Another node has gone on with it: it is over here, and viewers are not told so.
    pub(crate) fn leave(self) {
        self.writer.set_moved();
        self.checkpoints.leave(self.writer.id());
        self.finish();
    }

    fn finish(mut self) {
        if let Some(open) = &mut self.open {
            open.log.finish(&self.writer);
        }
        let counts = self.counts();
        let edge_ms = self.open.as_ref().map_or(0, |open| open.log.taken_ms());
        tracing::info!(
            stream.id = %self.writer.id(),
            session = %self.writer.session(),
            seconds = edge_ms / 1000,
            discontinuities = counts.discontinuities,
            parts_over_target = counts.parts_over_target,
            segments_forced = counts.segments_forced,
            "publication ended"
        );
    }
}

pub(crate) fn unix_ms(wall: SystemTime) -> i64 {
    wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
