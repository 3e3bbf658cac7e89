//! The stream clock: a publisher's 32-bit millisecond stamps in, one monotone 64-bit clock out.
//!
//!   FLV stamp ─▶ [`Clock`] ─▶ milliseconds of the stream ─┬▶ [`VideoClock`] ─▶ DTS, PTS in 1/90000 s
//!                                                         └▶ [`AudioClock`] ─▶ DTS in samples
//!
//! Pure: arrival time is an argument. Nobody downstream stamps anything again.

use std::time::{Duration, Instant};

use media::Timescale;

/// A stamp this far ahead of its track, in milliseconds, is another clock and not a gap.
const JUMP_MS: i64 = 10_000;

/// A stamp may step back this far, in milliseconds, before it counts as another clock. Encoders that stamp
/// by wall clock do so by a few.
const REWIND_MS: i64 = 100;

/// Where a new clock continues behind the newest stamp of the old one, in milliseconds: about one frame.
const REBASE_STEP_MS: i64 = 40;

/// Largest composition offset we believe, in milliseconds. Encoders reorder over a few frames; what lies beyond is
/// damage, and would move the track by hours.
const OFFSET_MAX_MS: i32 = 5_000;

/// FLV's stamps were 24 bits wide once, and some encoders still wrap there (4.66 hours).
const WRAP_24: i64 = 1 << 24;

/// Audio is stamped by counting samples while that stays this close to the publisher's stamps: their
/// milliseconds must not reach the decoder.
const AUDIO_SLACK: Duration = Duration::from_millis(30);

/// A moment of the stream clock, and the same moment of ours: where the stream clock stands without any media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamTime {
    pub(crate) at: Instant,
    /// Stream time at that moment.
    pub(crate) millis: i64,
}

impl StreamTime {
    pub(crate) fn millis(self, now: Instant) -> i64 {
        self.millis + now.saturating_duration_since(self.at).as_millis() as i64
    }
}

/// Maps the stamps of one publisher, all tracks together, onto the stream clock.
#[derive(Default)]
pub(crate) struct Clock {
    /// The newest stamp, unwrapped.
    unwrapped: Option<i64>,
    /// Stream time of stamp zero: of the clock in force, and of the one before it, which a track may still
    /// be sending for a moment after the other has changed over.
    offset: Option<i64>,
    offset_previous: Option<i64>,
    /// The newest stream time of each track.
    video: Option<i64>,
    audio: Option<i64>,
    /// What publishers before this one have filled of the stream.
    taken: Option<i64>,
    /// The first stamp of the stream is its time zero.
    zero: Option<StreamTime>,
}

/// Which elementary stream a stamp belongs to.
pub(crate) use media::TrackKind;

/// A stamp on the stream clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) millis: i64,
    /// The publisher's clock jumped here, and was rebased.
    pub(crate) rebased: bool,
}

impl Clock {
    /// For a publisher that goes on with a stream: its first stamp is now, and behind what is `taken`.
    pub(crate) fn joining(zero: StreamTime, taken: i64) -> Self {
        Self { taken: Some(taken), zero: Some(zero), ..Self::default() }
    }

    pub(crate) fn map(&mut self, kind: TrackKind, stamp: u32, now: Instant) -> Mapped {
        let unwrapped = self.unwrap(stamp);
        let zero = *self.zero.get_or_insert(StreamTime { at: now, millis: 0 });
        let Some(newest) = self.video.max(self.audio).max(self.taken) else {
            self.offset = Some(-unwrapped);
            return self.accept(kind, 0, false);
        };
        let last = self.track(kind).unwrap_or(newest);
        let fits = |offset: &i64| (-REWIND_MS..=JUMP_MS).contains(&(unwrapped + offset - last));
        if let Some(offset) = [self.offset, self.offset_previous].into_iter().flatten().find(fits) {
            return self.accept(kind, unwrapped + offset, false);
        }
        let millis = zero.millis(now).max(newest + REBASE_STEP_MS);
        self.offset_previous = self.offset;
        self.offset = Some(millis - unwrapped);
        self.accept(kind, millis, true)
    }

    /// Where a stamp stands on the clock that the newest one was mapped by; `None` if it is far from that. Moves nothing.
    pub(crate) fn place(&self, stamp: u32) -> Option<i64> {
        let newest = self.unwrapped?;
        let step = i64::from(stamp.wrapping_sub(newest as u32) as i32);
        Some(newest + step + self.offset?).filter(|_| step.abs() <= JUMP_MS)
    }

    /// Whatever stamp comes next is now. For a publisher that has fallen behind the clock for good.
    pub(crate) fn catch_up(&mut self, taken: i64) {
        (self.offset, self.offset_previous, self.taken) = (None, None, Some(taken));
    }

    /// Stream time zero; `None` before the first stamp.
    pub(crate) fn zero(&self) -> Option<StreamTime> {
        self.zero
    }

    /// Where the stream clock stands without any media; zero before the first stamp.
    pub(crate) fn now_ms(&self, now: Instant) -> i64 {
        self.zero.map_or(0, |zero| zero.millis(now))
    }

    /// How far the newest stamp runs ahead of the clock.
    pub(crate) fn lead(&self, now: Instant) -> Duration {
        let newest = self.video.max(self.audio).unwrap_or(0);
        let lead = self.zero.map_or(0, |zero| newest - zero.millis(now));
        Duration::from_millis(u64::try_from(lead).unwrap_or(0))
    }

    /// The stamp as a point of an endless clock: the one nearest to the newest stamp seen, on any track.
    fn unwrap(&mut self, stamp: u32) -> i64 {
        let Some(newest) = self.unwrapped else {
            self.unwrapped = Some(i64::from(stamp));
            return i64::from(stamp);
        };
        let mut step = i64::from(stamp.wrapping_sub(newest as u32) as i32);
        if (step + WRAP_24).abs() <= JUMP_MS {
            step += WRAP_24;
        }
        self.unwrapped = Some(newest + step);
        newest + step
    }

    fn accept(&mut self, kind: TrackKind, millis: i64, rebased: bool) -> Mapped {
        let last = self.track(kind);
        *last = (*last).max(Some(millis));
        Mapped { millis, rebased }
    }

    fn track(&mut self, kind: TrackKind) -> &mut Option<i64> {
        match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }
}

/// Decoding and presentation times of the video track.
///
/// FLV's DTS runs ahead of the PTS of an IDR by the encoder's reorder delay. In the log both are equal at every IDR, so
/// that a boundary is one time for all tracks; the packager puts the delay back.
#[derive(Default)]
pub(crate) struct VideoClock {
    /// PTS − DTS of the newest IDR, in milliseconds.
    shift_ms: i64,
    last_dts: Option<i64>,
}

impl VideoClock {
    /// `millis` is the unit's DTS on the stream clock; `offset_ms` its composition offset.
    /// Returns (DTS, PTS) in 1/90000 s. DTS rises strictly, whatever the publisher sends.
    pub(crate) fn map(&mut self, millis: i64, offset_ms: i32, key: bool) -> (i64, i64) {
        let believed = offset_ms.abs() <= OFFSET_MAX_MS;
        let offset_ms = if believed { i64::from(offset_ms) } else { self.shift_ms };
        if key {
            self.shift_ms = offset_ms;
        }
        let per_ms = i64::from(Timescale::VIDEO.hertz() / 1000);
        let dts = (millis + self.shift_ms) * per_ms;
        let dts = self.last_dts.map_or(dts, |last| dts.max(last + 1));
        let pts = (millis + offset_ms) * per_ms;
        self.last_dts = Some(dts);
        (dts, if key { dts } else { pts })
    }
}

/// Decoding times of an audio track, counted in samples.
pub(crate) struct AudioClock {
    timescale: Timescale,
    /// Where the next frame begins if nothing is lost.
    next: Option<i64>,
    anchors: u32,
}

impl AudioClock {
    pub(crate) fn new(timescale: Timescale) -> Self {
        Self { timescale, next: None, anchors: 0 }
    }

    /// The DTS of the frame of `samples` stamped `millis`; `None` if the frame must go, because the publisher sends more
    /// samples than time passes and DTS may not step back.
    pub(crate) fn map(&mut self, millis: i64, samples: u32) -> Option<i64> {
        let hertz = i64::from(self.timescale.hertz());
        let stamp = (millis * hertz).div_euclid(1000);
        let slack = AUDIO_SLACK.as_millis() as i64 * hertz / 1000;
        let dts = match self.next {
            None => stamp,
            Some(next) if (stamp - next).abs() <= slack => next,
            Some(next) => {
                self.anchors += 1;
                if stamp < next {
                    return None;
                }
                stamp
            }
        };
        self.next = Some(dts + i64::from(samples));
        Some(dts)
    }

    /// How often the count left the publisher's stamps and was anchored anew.
    pub(crate) fn anchors(&self) -> u32 {
        self.anchors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: i64) -> Instant {
        start + Duration::from_millis(millis as u64)
    }

    /// Feeds (real milliseconds, stamp) and returns the stream times and the number of rebases.
    fn run(stamps: impl IntoIterator<Item = (i64, u32)>) -> (Vec<i64>, usize) {
        let (mut clock, start) = (Clock::default(), Instant::now());
        let mapped: Vec<_> = stamps
            .into_iter()
            .map(|(real, stamp)| clock.map(TrackKind::Video, stamp, at(start, real)))
            .collect();
        (mapped.iter().map(|m| m.millis).collect(), mapped.iter().filter(|m| m.rebased).count())
    }

    /// Threat: a stamp that wraps in mid-stream, at 32 bits or at the 24 bits of old encoders.
    #[test]
    fn stamps_that_wrap_go_on() {
        for top in [u32::MAX, (1 << 24) - 1] {
            let first = top - 1_000;
            let stamps = (0..100).map(|n| (n * 33, (first + 1).wrapping_add(n as u32 * 33)));
            let stamps =
                stamps.map(|(real, stamp)| (real, if top == u32::MAX { stamp } else { stamp % (1 << 24) }));
            let (times, rebased) = run(stamps);
            assert_eq!(rebased, 0, "top {top:#x}");
            assert_eq!(times, (0..100).map(|n| n * 33).collect::<Vec<_>>(), "top {top:#x}");
        }
    }

    #[test]
    fn what_is_beside_the_newest_stamp_is_placed_by_it() {
        let (mut clock, now) = (Clock::default(), Instant::now());
        assert_eq!(clock.place(7), None);
        clock.map(TrackKind::Video, u32::MAX - 9, now);
        assert_eq!(clock.place(u32::MAX), Some(9));
        assert_eq!(clock.place(30), Some(40));
        assert_eq!(clock.place(u32::MAX - 1_009), Some(-1_000));
        assert_eq!(clock.place(20_000), None);
        assert_eq!(clock.map(TrackKind::Video, u32::MAX, now).millis, 9, "nothing was moved");
    }

    #[test]
    fn interleaved_tracks_wrap_together() {
        let (mut clock, now) = (Clock::default(), Instant::now());
        assert_eq!(clock.map(TrackKind::Video, u32::MAX - 9, now).millis, 0);
        assert_eq!(clock.map(TrackKind::Audio, 5, now).millis, 15);
        assert_eq!(clock.map(TrackKind::Video, u32::MAX, now).millis, 9);
        assert_eq!(clock.map(TrackKind::Audio, 26, now).millis, 36);
    }

    /// Threat: +10 h and −10 s jumps. The stream goes on in real time, with one rebase each.
    #[test]
    fn jumps_are_rebased_onto_real_time() {
        for jump in [36_000_000_i64, -10_000, -36_000_000] {
            let base = 40_000_000;
            let stamps = (0..60).map(|n| {
                let real = n * 33;
                (real, (base + real + if n >= 30 { jump } else { 0 }) as u32)
            });
            let (times, rebased) = run(stamps);
            assert_eq!(rebased, 1, "jump {jump}");
            assert!(times.is_sorted_by(|a, b| a < b), "jump {jump}: {times:?}");
            assert!((times[59] - 59 * 33).abs() <= 50, "jump {jump}: {}", times[59]);
        }
    }

    /// When an encoder restarts its clock, one track does it first; the other must not be torn back and forth.
    #[test]
    fn tracks_that_change_over_one_after_the_other_are_rebased_once() {
        let (mut clock, start) = (Clock::default(), Instant::now());
        let mut rebased = 0;
        for n in 0..200_i64 {
            let real = n * 10;
            let kind = if n % 2 == 0 { TrackKind::Video } else { TrackKind::Audio };
            let restart = if n % 2 == 0 { 100 } else { 110 };
            let stamp = if n < restart { 7_000_000 + real } else { real };
            rebased += usize::from(clock.map(kind, stamp as u32, at(start, real)).rebased);
        }
        assert_eq!(rebased, 1);
    }

    /// The stamps of a publisher that comes back may be anything; its first picture is now, its others follow it.
    #[test]
    fn a_publisher_that_joins_begins_now_and_behind_what_is_taken() {
        let start = Instant::now();
        let zero = StreamTime { at: start, millis: 100_000 };
        for first in [0, 100_900, 4_000_000_000] {
            let mut clock = Clock::joining(zero, 100_950);
            let video = clock.map(TrackKind::Video, first, at(start, 2_000));
            assert_eq!(video, Mapped { millis: 102_000, rebased: true }, "first stamp {first}");
            let audio = clock.map(TrackKind::Audio, first + 10, at(start, 2_000));
            assert_eq!(audio, Mapped { millis: 102_010, rebased: false }, "first stamp {first}");
        }
        let mut early = Clock::joining(zero, 103_000);
        assert_eq!(early.map(TrackKind::Video, 5, at(start, 2_000)).millis, 103_000 + REBASE_STEP_MS);
    }

    #[test]
    fn a_publisher_that_fell_behind_catches_up_with_both_tracks() {
        let (mut clock, start) = (Clock::default(), Instant::now());
        assert_eq!(clock.map(TrackKind::Video, 0, start).millis, 0);
        assert_eq!(clock.map(TrackKind::Audio, 33, at(start, 5_000)).millis, 33);
        clock.catch_up(4_900);
        let video = clock.map(TrackKind::Video, 66, at(start, 5_000));
        assert_eq!(video, Mapped { millis: 5_000, rebased: true });
        assert_eq!(
            clock.map(TrackKind::Audio, 70, at(start, 5_000)),
            Mapped { millis: 5_004, rebased: false }
        );
    }

    #[test]
    fn a_gap_within_the_limit_stays_a_gap() {
        let (times, rebased) = run([(0, 0), (33, 33), (6_033, 6_033)]);
        assert_eq!((times, rebased), (vec![0, 33, 6_033], 0));
    }

    #[test]
    fn dts_equals_pts_at_every_idr_with_b_frames() {
        let mut clock = VideoClock::default();
        // I P B B P: composition offsets of an encoder with two B-frames, 40 ms a frame.
        let gop = [(80, true), (200, false), (80, false), (40, false), (160, false)];
        let times: Vec<_> = (0..).zip(gop).map(|(n, (offset, key))| clock.map(n * 40, offset, key)).collect();
        assert_eq!(times[0].0, times[0].1);
        assert!(times.is_sorted_by(|a, b| a.0 < b.0));
        assert!(times[3].1 < times[3].0, "a B-frame is shown before its shifted DTS");
        let (dts, pts) = clock.map(5 * 40, 80, true);
        assert_eq!((dts, pts), ((200 + 80) * 90, (200 + 80) * 90));
    }

    /// Threat 24: stamps that stand still or step back by less than a jump.
    #[test]
    fn dts_rises_whatever_the_stamps_do() {
        let mut clock = VideoClock::default();
        let times = [40, 40, 0, 20, 80].map(|millis| clock.map(millis, 0, millis == 0).0);
        assert_eq!(times, [3_600, 3_601, 3_602, 3_603, 7_200]);
    }

    /// Threat: one damaged offset of 2.3 hours, after which every picture would wait for the clock to come there.
    #[test]
    fn a_damaged_composition_offset_does_not_move_the_track() {
        let mut clock = VideoClock::default();
        assert_eq!(clock.map(0, 40, true), (40 * 90, 40 * 90));
        assert_eq!(clock.map(40, 8_388_607, true), (80 * 90, 80 * 90));
        assert_eq!(clock.map(80, -8_388_608, false), (120 * 90, 120 * 90));
        assert_eq!(clock.map(120, 40, true), (160 * 90, 160 * 90));
    }

    #[test]
    fn audio_is_counted_in_samples_while_near_the_stamps() {
        let rate = Timescale::from_hertz(44_100).unwrap();
        let mut clock = AudioClock::new(rate);
        for n in 0..10_000_i64 {
            let stamp = n * 1024 * 1000 / 44_100;
            assert_eq!(clock.map(stamp, 1_024), Some(n * 1024));
        }
        assert_eq!(clock.anchors(), 0);
    }

    #[test]
    fn audio_is_anchored_anew_after_a_gap_and_thinned_when_there_is_too_much() {
        let rate = Timescale::from_hertz(48_000).unwrap();
        let mut clock = AudioClock::new(rate);
        assert_eq!(clock.map(0, 1_024), Some(0));
        assert_eq!(clock.map(100, 1_024), Some(4_800));
        assert_eq!(clock.anchors(), 1);
        assert_eq!(clock.map(80, 1_024), None, "41 ms too early");
        assert_eq!(clock.map(121, 1_024), Some(5_824));
    }
    /// Opus may change the length of its packets from one to the next.
    #[test]
    fn audio_frames_may_differ_in_length() {
        let mut clock = AudioClock::new(Timescale::from_hertz(48_000).unwrap());
        let packets = [(0, 960), (20, 2_880), (80, 120), (83, 120), (85, 960)];
        let times: Vec<_> = packets.into_iter().map(|(stamp, samples)| clock.map(stamp, samples)).collect();
        assert_eq!(times, [0, 960, 3_840, 3_960, 4_080].map(Some));
        assert_eq!(clock.anchors(), 0);
    }
}
