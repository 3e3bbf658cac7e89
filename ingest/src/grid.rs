//! The part grid: how long a part is, fixed once for the life of a session from what was measured.
//!
//! A player of Apple's stops for good when PART-TARGET changes, so nothing here is ever computed again.

use std::time::Duration;

use media::Timescale;

/// Segments are cut at the first keyframe after this span.
pub(crate) const SEGMENT_TARGET: Duration = Duration::from_secs(2);

/// Frame rates that encoders really mean. Two seconds of millisecond stamps measure a rate to about 0.1 %.
const FRAME_RATES: [f64; 12] = [
    10.0,
    12.0,
    15.0,
    24_000.0 / 1001.0,
    24.0,
    25.0,
    30_000.0 / 1001.0,
    30.0,
    48.0,
    50.0,
    60_000.0 / 1001.0,
    60.0,
];

/// A part may not be shorter than this share of PART-TARGET unless it ends its segment (rfc8216bis, EXT-X-PART).
const PART_SHARE_MIN: f64 = 0.85;

/// What was seen of the video in the first seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cadence {
    pub(crate) frames_per_second: f64,
    /// The longest distance of two frames, in seconds.
    pub(crate) longest_s: f64,
}

impl Cadence {
    /// From DTS in milliseconds, rising; `nominal` is the rate the bitstream claims, believed if it is near.
    /// `None` for fewer than two frames.
    pub(crate) fn measure(dts_ms: &[i64], nominal: Option<f64>) -> Option<Self> {
        let mut intervals: Vec<_> = dts_ms.windows(2).map(|pair| pair[1] - pair[0]).collect();
        intervals.sort_unstable();
        let (&longest_ms, median_ms) = (intervals.last()?, intervals[intervals.len() / 2]);
        // The mean without what is far longer than usual: pictures that were lost on the way say nothing of the rate.
        let usual: Vec<_> = intervals.iter().filter(|&&interval| interval <= median_ms * 2).collect();
        let usual_ms: i64 = usual.iter().copied().sum();
        if usual_ms <= 0 {
            return None;
        }
        let measured = usual.len() as f64 * 1000.0 / usual_ms as f64;
        let near = |rate: &f64, share: f64| (rate / measured - 1.0).abs() < share;
        let common = FRAME_RATES
            .into_iter()
            .filter(|rate| near(rate, 0.004))
            .min_by(|a, b| (a - measured).abs().total_cmp(&(b - measured).abs()));
        let frames_per_second = nominal.filter(|rate| near(rate, 0.01)).or(common).unwrap_or(measured);
        Some(Self { frames_per_second, longest_s: longest_ms as f64 / 1000.0 })
    }
}

/// The grid of a session. Spans are in ticks of the lead track: the video, or the audio of a stream without.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Grid {
    pub(crate) scale: Timescale,
    /// A nominal frame.
    pub(crate) frame: i64,
    /// A part of n nominal frames.
    pub(crate) part: i64,
    /// PART-TARGET of the lead track and, where there is one, of the audio that follows it.
    pub(crate) part_target_ms: u32,
    pub(crate) follower: Option<Follower>,
}

/// Audio that is cut where the video is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Follower {
    pub(crate) scale: Timescale,
    /// Samples of one frame.
    pub(crate) frame: i64,
    pub(crate) part_target_ms: u32,
}

impl Grid {
    /// A grid for video, and for the audio beside it: (timescale, samples per frame).
    pub(crate) fn video(cadence: Cadence, audio: Option<(Timescale, u32)>, target: Duration) -> Self {
        let fps = cadence.frames_per_second;
        let frame_s = fps.recip();
        let mut frames = (target.as_secs_f64() * fps).round().max(1.0);
        if let Some((scale, samples)) = audio {
            let audio_frame_s = scale.seconds(i64::from(samples));
            while audio_share(frames * frame_s, audio_frame_s) < PART_SHARE_MIN {
                frames += 1.0;
            }
        }
        let part_s = frames * frame_s;
        // A part ends before the first frame that starts past part − ½ frame, so a longer frame than nominal
        // stretches it by what it is longer than half a frame. Only a variable rate has such frames; and where they
        // are longer than a part may be shorter, they stay over the target and are counted.
        let stretch_s = cadence.longest_s - frame_s / 2.0;
        let stretched_s = if stretch_s > frame_s { part_s + stretch_s } else { part_s };
        let share_s = (part_s - 0.001) / PART_SHARE_MIN;
        let audio_share_s = audio.map_or(share_s, |(scale, samples)| {
            let frame_s = scale.seconds(i64::from(samples));
            (((part_s - 0.001) / frame_s).floor() / PART_SHARE_MIN).floor() * frame_s
        });
        let longest_s = stretched_s.min(share_s - 0.002).min(audio_share_s - 0.002).max(part_s);
        let part_target_ms = (longest_s * 1000.0 - 1e-6).ceil() as u32 + 1;
        let hertz = f64::from(Timescale::VIDEO.hertz());
        Self {
            scale: Timescale::VIDEO,
            frame: (frame_s * hertz).round() as i64,
            part: (part_s * hertz).round() as i64,
            part_target_ms,
            follower: audio.map(|(scale, samples)| Follower {
                scale,
                frame: i64::from(samples),
                part_target_ms: audio_part_target_ms(f64::from(part_target_ms) / 1000.0, scale, samples),
            }),
        }
    }

    /// A grid for a stream that has only audio: every part has the same number of frames.
    pub(crate) fn audio(scale: Timescale, samples_per_frame: u32, target: Duration) -> Self {
        let frame = i64::from(samples_per_frame);
        let frames = (target.as_secs_f64() / scale.seconds(frame) - 1e-9).ceil().max(1.0) as i64;
        Self {
            scale,
            frame,
            part: frames * frame,
            part_target_ms: audio_part_target_ms(target.as_secs_f64(), scale, samples_per_frame),
            follower: None,
        }
    }

    /// The shortest part within a segment, also of the audio that is cut where it ends.
    pub(crate) fn part_min(&self) -> i64 {
        let shortest_s = |target_ms: u32| f64::from(target_ms) / 1000.0 * PART_SHARE_MIN;
        let audio_s = self.follower.map_or(0.0, |follower| {
            let frame_s = follower.scale.seconds(follower.frame);
            let frames = (shortest_s(follower.part_target_ms) / frame_s - 1e-9).ceil();
            // As in `audio_share`.
            frames * frame_s + 0.001
        });
        let part_s = shortest_s(self.part_target_ms).max(audio_s);
        (part_s * f64::from(self.scale.hertz())).ceil() as i64
    }

    pub(crate) fn segment(&self) -> i64 {
        (SEGMENT_TARGET.as_secs_f64() * f64::from(self.scale.hertz())) as i64
    }
}

/// Shortest over longest audio part when audio of `frame_s` frames is cut every `part_s`.
fn audio_share(part_s: f64, frame_s: f64) -> f64 {
    // Video stamps are whole milliseconds, so two boundaries are part_s ± 1 ms apart.
    let shortest = ((part_s - 0.001) / frame_s).floor();
    let longest = ((part_s + 0.001) / frame_s).ceil();
    shortest / longest
}

/// Whole audio frames that cover `part_s`, in milliseconds, rounded up.
fn audio_part_target_ms(part_s: f64, scale: Timescale, samples_per_frame: u32) -> u32 {
    let frame_s = scale.seconds(i64::from(samples_per_frame));
    let frames = (part_s / frame_s - 1e-9).ceil().max(1.0);
    (frames * frame_s * 1000.0 - 1e-6).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_millis(500);
    const LOW: Duration = Duration::from_millis(200);

    fn hertz(rate: u32) -> Timescale {
        Timescale::from_hertz(rate).unwrap()
    }

    /// DTS of a constant rate as FLV writes it: whole milliseconds.
    fn stamps(fps: f64, seconds: f64) -> Vec<i64> {
        (0..(fps * seconds) as i64).map(|n| (n as f64 * 1000.0 / fps).round() as i64).collect()
    }

    #[test]
    fn frame_rates_are_recognised_through_millisecond_stamps() {
        for fps in [15.0, 24_000.0 / 1001.0, 24.0, 25.0, 30.0, 50.0, 60.0] {
            let cadence = Cadence::measure(&stamps(fps, 2.0), None).unwrap();
            assert!((cadence.frames_per_second - fps).abs() < 0.03, "{fps}: {cadence:?}");
        }
        let ntsc = 30_000.0 / 1001.0;
        assert_eq!(Cadence::measure(&stamps(ntsc, 2.0), Some(ntsc)).unwrap().frames_per_second, ntsc);
        let lying = Cadence::measure(&stamps(30.0, 2.0), Some(60.0)).unwrap();
        assert_eq!(lying.frames_per_second, 30.0);
        assert_eq!(Cadence::measure(&[5], None), None);
        assert_eq!(Cadence::measure(&[5, 5], None), None);
    }

    /// A hiccup of a webcam or an uplink in the first two seconds must not lengthen the parts of the whole session, so
    /// that all the others fall below 85 % of PART-TARGET.
    #[test]
    fn lost_pictures_at_the_start_change_neither_rate_nor_share() {
        for lost in 1..12 {
            let stamps: Vec<_> = stamps(30.0, 2.0).into_iter().enumerate().collect();
            let kept =
                stamps.into_iter().filter(|(n, _)| !(20..20 + lost).contains(n)).map(|(_, stamp)| stamp);
            let cadence = Cadence::measure(&kept.collect::<Vec<_>>(), Some(30.0)).unwrap();
            assert_eq!(cadence.frames_per_second, 30.0, "{lost} lost");
            for target in [DEFAULT, LOW] {
                let grid = Grid::video(cadence, Some((hertz(48_000), 1024)), target);
                let share = (grid.part as f64 / 90.0 - 1.0) / f64::from(grid.part_target_ms);
                assert!(share >= PART_SHARE_MIN, "{lost} lost: {share} of {} ms", grid.part_target_ms);
                let audio_ms = f64::from(grid.follower.unwrap().part_target_ms);
                let shortest_ms = ((grid.part as f64 / 90.0 - 1.0) / (1024.0 / 48.0)).floor() * 1024.0 / 48.0;
                assert!(
                    shortest_ms >= PART_SHARE_MIN * audio_ms,
                    "{lost} lost: {shortest_ms} of {audio_ms} ms"
                );
            }
        }
    }

    #[test]
    fn default_and_low_profile_have_the_documented_targets() {
        let cadence = Cadence { frames_per_second: 30.0, longest_s: 0.034 };
        let audio = Some((hertz(48_000), 1024));
        let grid = Grid::video(cadence, audio, DEFAULT);
        assert_eq!((grid.part, grid.part_target_ms), (45_000, 501));
        assert_eq!(grid.follower.unwrap().part_target_ms, 512);
        let low = Grid::video(cadence, audio, LOW);
        assert_eq!((low.part, low.part_target_ms), (18_000, 201));
        assert_eq!(low.follower.unwrap().part_target_ms, 214);
    }

    /// Audio frames of 128 ms (8 kHz) would make parts of 3 or 4 frames, 75 %: the whole stream's parts grow.
    #[test]
    fn coarse_audio_raises_the_parts_of_the_whole_stream() {
        for rate in [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000] {
            for fps in [24.0, 25.0, 30_000.0 / 1001.0, 30.0, 50.0, 60.0] {
                for target in [DEFAULT, LOW] {
                    let cadence = Cadence { frames_per_second: fps, longest_s: 1.0 / fps };
                    let grid = Grid::video(cadence, Some((hertz(rate), 1024)), target);
                    let share = audio_share(grid.part as f64 / 90_000.0, 1024.0 / f64::from(rate));
                    assert!(share >= PART_SHARE_MIN, "{rate} Hz, {fps} fps, {target:?}: {share}");
                    let (part_min, part) = (grid.part_min(), grid.part);
                    assert!(part_min <= part, "{rate} Hz, {fps} fps, {target:?}: {part_min} of {part}");
                }
            }
        }
    }

    #[test]
    fn slow_sources_have_one_frame_in_a_part() {
        let grid = Grid::video(Cadence { frames_per_second: 1.0, longest_s: 1.0 }, None, DEFAULT);
        assert_eq!((grid.part, grid.part_target_ms), (90_000, 1001));
    }

    #[test]
    fn audio_alone_has_equal_parts() {
        let grid = Grid::audio(hertz(44_100), 1024, DEFAULT);
        assert_eq!((grid.part, grid.part_target_ms), (22 * 1024, 511));
    }

    /// Opus packets are round fractions of a second, so that half a second is a whole number of them.
    #[test]
    fn opus_alone_has_parts_of_exactly_the_target() {
        for (samples, packets) in [(120, 200), (480, 50), (960, 25)] {
            let grid = Grid::audio(hertz(48_000), samples, DEFAULT);
            assert_eq!((grid.part, grid.part_target_ms), (packets * i64::from(samples), 500));
        }
        assert_eq!(Grid::audio(hertz(48_000), 2_880, DEFAULT).part_target_ms, 540, "nine of 60 ms");
    }
}
