//! The first two seconds of a publication, held back until it is known which tracks it has, how fast its
//! frames come and what the wall clock was: all of it is fixed for the session once the log opens. Pure.

use std::time::Duration;

use media::{AccessUnit, AudioConfig, CodecConfig, MediaTime, Timescale, TrackId, TrackKind, VideoConfig};
use relay::TrackRecord;

use crate::checkpoint::track_name;
use crate::error::PublishError;
use crate::grid::{Cadence, Grid};

/// Media held before the log opens, in milliseconds.
const HOLD_MS: i64 = 2_000;

/// And this much sound where a picture was announced and none has come: a session that opens without one never has one, and
/// browsers on busy machines, of whose layers one is to be chosen besides, were seen to begin theirs after three seconds.
const PICTURE_WAIT_MS: i64 = 8_000;

/// How much is looked at of a picture that came later than its sound: enough to know how fast its frames come.
const PICTURE_MS: i64 = 1_000;

/// Most bytes held. Two seconds at 60 Mbit/s are 15 MB.
pub(crate) const HOLD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Most messages held, pictures passed over included: two seconds of 60 fps and audio are 220.
pub(crate) const HOLD_UNITS_MAX: usize = 16 * 1024;

/// Wall-clock time that a hold may last, whatever the stamps say.
pub(crate) const HOLD_TIME_MAX: Duration = Duration::from_secs(20);

/// A publisher that has sent this much video, in milliseconds, without a keyframe cannot be shown at all.
pub(crate) const KEYFRAME_WAIT_MS: i64 = 12_000;

/// A unit on its way to the cutter.
pub(crate) struct Held {
    pub(crate) kind: TrackKind,
    pub(crate) unit: AccessUnit,
    pub(crate) scale: Timescale,
    /// The timeline breaks before this unit.
    pub(crate) broken: bool,
    /// Another decoder configuration than the unit before had.
    pub(crate) config: Option<CodecConfig>,
}

#[derive(Default)]
pub(crate) struct Hold {
    units: Vec<Held>,
    bytes: usize,
    /// In force at the first keyframe.
    video: Option<VideoConfig>,
    /// Unix time of the first message.
    since_ms: Option<i64>,
    /// Stream time of the first and the newest message, in milliseconds.
    span: Option<(i64, i64)>,
    video_dts_ms: Vec<i64>,
    /// Smallest arrival − PTS: what a unit that was delayed nowhere would have.
    anchor_ms: Option<i64>,
}

/// What the first seconds settled.
pub(crate) struct Opening {
    pub(crate) grid: Grid,
    pub(crate) frame_rate: Option<f64>,
    /// Wall-clock time of stream time zero, in milliseconds since the Unix epoch.
    pub(crate) anchor_ms: i64,
    /// The lead first, derived ones last.
    pub(crate) tracks: Vec<TrackRecord>,
    /// What was held, from the lead's first unit on.
    pub(crate) units: Vec<Held>,
}

impl Hold {
    /// The configuration of a keyframe that is about to be pushed. The first one is the session's.
    pub(crate) fn begin_video(&mut self, config: &VideoConfig) {
        self.video.get_or_insert_with(|| config.clone());
    }

    /// `millis`: the unit's stamp on the stream clock; `arrival_ms`: Unix time.
    ///
    /// # Errors
    /// [`PublishError::TooMuchAtStart`] and [`PublishError::NoProgress`]: the hold is bounded in bytes, messages and time.
    pub(crate) fn push(&mut self, held: Held, millis: i64, arrival_ms: i64) -> Result<(), PublishError> {
        let since_ms = *self.since_ms.get_or_insert(arrival_ms);
        if arrival_ms - since_ms > HOLD_TIME_MAX.as_millis() as i64 {
            return Err(PublishError::NoProgress);
        }
        let (first, newest) = self.span.unwrap_or((millis, millis));
        self.span = Some((first.min(millis), newest.max(millis)));
        let pts_ms = MediaTime::new(held.unit.pts, held.scale).millis();
        let anchor_ms = arrival_ms - pts_ms;
        self.anchor_ms = Some(self.anchor_ms.map_or(anchor_ms, |least| least.min(anchor_ms)));
        if held.kind == TrackKind::Video {
            self.video_dts_ms.push(millis);
        }
        self.bytes += held.unit.data.len();
        let messages = self.units.len().max(self.video_dts_ms.len());
        if self.bytes > HOLD_BYTES_MAX || messages >= HOLD_UNITS_MAX {
            return Err(PublishError::TooMuchAtStart);
        }
        if held.kind == TrackKind::Video && !held.unit.key && self.video.is_none() {
            return Ok(());
        }
        self.units.push(held);
        Ok(())
    }

    /// Whether the log can open. `expects_video`: the publisher has announced some.
    ///
    /// # Errors
    /// [`PublishError::NoKeyframe`] if there is video, and none of it can be decoded.
    pub(crate) fn is_over(&self, expects_video: bool) -> Result<bool, PublishError> {
        let held_ms = self.span.map_or(0, |(first, newest)| newest - first);
        let video = self.video_dts_ms.first().zip(self.video_dts_ms.last());
        let video_ms = video.map_or(0, |(first, newest)| newest - first);
        let undecodable = !self.video_dts_ms.is_empty() && self.video.is_none();
        match (held_ms, undecodable) {
            (..HOLD_MS, _) => Ok(false),
            (..PICTURE_WAIT_MS, false) if expects_video => Ok(video_ms >= PICTURE_MS),
            (KEYFRAME_WAIT_MS.., true) => Err(PublishError::NoKeyframe),
            (_, undecodable) => Ok(!undecodable),
        }
    }

    /// Whether anything usable of a track has come.
    pub(crate) fn has(&self, kind: TrackKind) -> bool {
        self.units.iter().any(|held| held.kind == kind)
    }

    /// Fixes tracks and grid. `None` if nothing was held.
    pub(crate) fn open(self, audio: Option<&AudioConfig>, part_target: Duration) -> Option<Opening> {
        let video = self.video.as_ref();
        let audio = audio.filter(|_| self.has(TrackKind::Audio));
        let audio_frames = audio.map(|config| (config.timescale(), self.audio_frame()));
        let cadence = video.map(|config| {
            // A single frame in two seconds: as good as one a second.
            let slow = Cadence { frames_per_second: 1.0, longest_s: 1.0 };
            Cadence::measure(&self.video_dts_ms, config.frame_rate()).unwrap_or(slow)
        });
        let grid = match (cadence, audio_frames) {
            (Some(cadence), audio) => Grid::video(cadence, audio, part_target),
            (None, Some((scale, samples))) => Grid::audio(scale, samples, part_target),
            (None, None) => return None,
        };
        let video = video.map(|config| TrackRecord {
            id: TrackId(0),
            name: track_name(TrackKind::Video).into(),
            codec: config.clone().into(),
            part_target_ms: grid.part_target_ms,
            reorder_delay: self.reorder_delay(),
            derived: None,
        });
        let audio = audio.map(|config| TrackRecord {
            id: TrackId(1),
            name: track_name(TrackKind::Audio).into(),
            codec: config.clone().into(),
            part_target_ms: grid.follower.map_or(grid.part_target_ms, |follower| follower.part_target_ms),
            reorder_delay: 0,
            derived: None,
        });
        let tracks: Vec<_> = video.into_iter().chain(audio).collect();
        let lead = tracks.first()?.codec.kind();
        let start = self.units.iter().find(|held| held.kind == lead)?.time();
        Some(Opening {
            grid,
            frame_rate: cadence.map(|cadence| cadence.frames_per_second),
            anchor_ms: self.anchor_ms?,
            tracks,
            units: self.units.into_iter().filter(|held| held.time() >= start).collect(),
        })
    }

    /// Samples of an audio frame; of the longest, where they differ.
    fn audio_frame(&self) -> u32 {
        let audio = self.units.iter().filter(|held| held.kind == TrackKind::Audio);
        audio.map(|held| held.unit.duration).max().unwrap_or(1)
    }

    /// The most that a picture is shown before its DTS.
    fn reorder_delay(&self) -> u32 {
        let ahead = self.units.iter().map(|held| held.unit.dts - held.unit.pts);
        ahead.max().and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(0)
    }
}

impl Held {
    fn time(&self) -> MediaTime {
        MediaTime::new(self.unit.dts, self.scale)
    }
}
