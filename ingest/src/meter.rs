//! What a publication weighs and how it ticks: for playlists ([`Weight`]) and for people ([`Meter`]). Pure.

use std::collections::VecDeque;

use media::{AccessUnit, Timescale, TrackKind};
use relay::{Bandwidth, Facts, Sample};

use crate::health::Report;

/// Bytes that `trun` adds to a unit, and `moof` and `mdat` to a part.
const UNIT_BOX_BYTES: u64 = 16;
const PART_BOX_BYTES: u64 = 112;

/// Announced bandwidth is rounded up to this many bits per second, so that a player's estimate of what it
/// can carry does not hang on a measurement's last digits.
const BANDWIDTH_STEP: u32 = 100_000;
const AUDIO_BANDWIDTH_STEP: u32 = 16_000;

/// Facts are told once a second of media, over the last few: a second alone jumps with every keyframe.
const TELL_MS: i64 = 1_000;
const WINDOWS: usize = 4;

/// Bandwidth of one track, by segment as rfc8216bis defines it.
pub(crate) struct Weight {
    scale: Timescale,
    step: u32,
    segment_start: Option<i64>,
    segment_bytes: u64,
    first: i64,
    newest: i64,
    bytes: u64,
    peak: f64,
}

impl Weight {
    pub(crate) fn new(scale: Timescale) -> Self {
        let step = if scale == Timescale::VIDEO { BANDWIDTH_STEP } else { AUDIO_BANDWIDTH_STEP };
        Self { scale, step, segment_start: None, segment_bytes: 0, first: 0, newest: 0, bytes: 0, peak: 0.0 }
    }

    /// A part begins at `start`, and with it, maybe, a segment.
    pub(crate) fn boundary(&mut self, start: i64, segment: bool) {
        if segment {
            self.peak = self.peak.max(self.segment_rate(start));
            if self.segment_start.is_none() {
                self.first = start;
            }
            (self.segment_start, self.segment_bytes) = (Some(start), 0);
        }
        self.add(PART_BOX_BYTES);
    }

    pub(crate) fn unit(&mut self, unit: &AccessUnit) {
        self.newest = unit.dts + i64::from(unit.duration);
        self.add(UNIT_BOX_BYTES + unit.data.len() as u64);
    }

    /// Peak so far, rounded up, and average so far. While no segment is complete the open one stands for it.
    pub(crate) fn bandwidth(&self) -> Bandwidth {
        let peak = if self.peak > 0.0 { self.peak } else { self.segment_rate(self.newest) };
        let average = self.rate(self.bytes, self.newest - self.first);
        Bandwidth { peak: (peak as u32).next_multiple_of(self.step), average: average as u32 }
    }

    fn add(&mut self, bytes: u64) {
        self.segment_bytes += bytes;
        self.bytes += bytes;
    }

    fn segment_rate(&self, end: i64) -> f64 {
        self.segment_start.map_or(0.0, |start| self.rate(self.segment_bytes, end - start))
    }

    fn rate(&self, bytes: u64, ticks: i64) -> f64 {
        if ticks <= 0 { 0.0 } else { bytes as f64 * 8.0 / self.scale.seconds(ticks) }
    }
}

/// Bit rate, frame rate and keyframe interval over the last seconds of media.
pub(crate) struct Meter {
    since_ms: i64,
    window_start_ms: Option<i64>,
    /// The newest last, and still open.
    windows: VecDeque<Window>,
    key_last_ms: Option<i64>,
    keyframe_interval_s: Option<f64>,
}

#[derive(Default)]
struct Window {
    span_ms: i64,
    bytes: usize,
    frames: u32,
}

impl Meter {
    /// `since_ms`: when the publisher was accepted, Unix time.
    pub(crate) fn new(since_ms: i64) -> Self {
        Self {
            since_ms,
            window_start_ms: None,
            windows: VecDeque::from([Window::default()]),
            key_last_ms: None,
            keyframe_interval_s: None,
        }
    }

    /// Counts a unit stamped `millis` on the stream clock; true once a second, when the facts are new.
    pub(crate) fn note(&mut self, kind: TrackKind, millis: i64, bytes: usize, key: bool) -> bool {
        if kind == TrackKind::Video
            && key
            && let Some(last_ms) = self.key_last_ms.replace(millis)
        {
            self.keyframe_interval_s = Some((millis - last_ms) as f64 / 1000.0);
        }
        let start_ms = *self.window_start_ms.get_or_insert(millis);
        let span_ms = millis - start_ms;
        let told = span_ms >= TELL_MS;
        if told {
            if let Some(window) = self.windows.back_mut() {
                window.span_ms = span_ms;
            }
            self.window_start_ms = Some(millis);
            self.windows.push_back(Window::default());
            let excess = self.windows.len().saturating_sub(WINDOWS + 1);
            self.windows.drain(..excess);
        }
        if let Some(window) = self.windows.back_mut() {
            window.bytes += bytes;
            window.frames += u32::from(kind == TrackKind::Video);
        }
        told
    }

    /// Seconds of media since the newest keyframe, at `millis`.
    pub(crate) fn keyframe_age_s(&self, millis: i64) -> f64 {
        self.key_last_ms.map_or(0.0, |last_ms| (millis - last_ms) as f64 / 1000.0)
    }

    /// The newest distance of two keyframes or, at `millis`, the age of the newest one if that is more.
    pub(crate) fn keyframe_interval_s(&self, millis: i64) -> Option<f64> {
        self.key_last_ms.map(|_| self.keyframe_age_s(millis).max(self.keyframe_interval_s.unwrap_or(0.0)))
    }

    /// The newest complete second.
    pub(crate) fn newest(&self) -> Sample {
        let newest = self.windows.iter().rev().find(|window| window.span_ms > 0);
        newest.map_or_else(Sample::default, |window| {
            let per_second = |count: f64| count * 1000.0 / window.span_ms as f64;
            Sample {
                span_ms: u32::try_from(window.span_ms).unwrap_or(u32::MAX),
                bits_per_second: per_second(window.bytes as f64 * 8.0) as u32,
                frame_rate: per_second(f64::from(window.frames)) as f32,
            }
        })
    }

    pub(crate) fn facts(&self, starting: Option<String>, report: Report) -> Facts {
        let complete = self.windows.iter().filter(|window| window.span_ms > 0);
        let (span_ms, bytes, frames) = complete.fold((0, 0, 0), |(span_ms, bytes, frames), window| {
            (span_ms + window.span_ms, bytes + window.bytes, frames + window.frames)
        });
        let per_second = |count: f64| if span_ms > 0 { count * 1000.0 / span_ms as f64 } else { 0.0 };
        Facts {
            since_ms: self.since_ms,
            bits_per_second: per_second(bytes as f64 * 8.0) as u32,
            frame_rate: (frames > 0).then(|| per_second(f64::from(frames))),
            keyframe_interval_s: self.keyframe_interval_s,
            starting,
            warnings: report.warnings,
            health: report.health,
            interrupted_since_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn facts_are_told_every_second_over_the_last_four() {
        let mut meter = Meter::new(0);
        let mut told = 0;
        for n in 0..300 {
            // 25 fps, 1 kB a frame, and twice that in the last four whole seconds.
            let bytes = if n >= 175 { 2_000 } else { 1_000 };
            told += u32::from(meter.note(TrackKind::Video, n * 40, bytes, n % 50 == 0));
        }
        assert_eq!(told, 11);
        let facts = meter.facts(None, Report::default());
        assert_eq!((facts.bits_per_second, facts.frame_rate), (400_000, Some(25.0)));
        assert_eq!(facts.keyframe_interval_s, Some(2.0));
        let newest = meter.newest();
        assert_eq!((newest.span_ms, newest.bits_per_second, newest.frame_rate), (1_000, 400_000, 25.0));
    }

    #[test]
    fn bandwidth_is_the_heaviest_segment_rounded_up_and_the_average_is_not() {
        let mut weight = Weight::new(Timescale::VIDEO);
        for (segment, bytes) in [(0, 100_000), (1, 150_000), (2, 100_000)] {
            weight.boundary(segment * 180_000, true);
            let data = Bytes::from(vec![0; bytes]);
            let dts = segment * 180_000;
            weight.unit(&AccessUnit { dts, pts: dts, duration: 180_000, key: true, data });
        }
        weight.boundary(3 * 180_000, true);
        let bandwidth = weight.bandwidth();
        assert_eq!(bandwidth.peak, 700_000);
        assert!((466_000..468_000).contains(&bandwidth.average), "{bandwidth:?}");
    }
}
