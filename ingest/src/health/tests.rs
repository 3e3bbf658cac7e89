use super::*;

/// A good publisher, 30 fps at 4 Mbit/s with stereo sound; a test spoils one thing.
struct Studio {
    health: Health,
    now: Circumstances,
    rate: u32,
    frames: u32,
    frame_bytes: usize,
    sound: bool,
    reorder_s: f64,
    delay_ms: i64,
    report: Report,
}

impl Studio {
    fn new() -> Self {
        let mut health = Health::default();
        health.open(Some(30.0));
        let now = Circumstances {
            now_ms: 0,
            keyframe_interval_s: Some(2.0),
            counts: Counts::default(),
            announced: Announced { video: true, audio: true, ..Announced::default() },
            audio_channels: Some(2),
            rare_pixels: false,
            video_codec: Some(VideoCodec::H264),
            packets: None,
            has_ladder: false,
        };
        let report = Report::default();
        Self {
            health,
            now,
            rate: 4_000_000,
            frames: 30,
            frame_bytes: 340,
            sound: true,
            reorder_s: 0.0,
            delay_ms: 0,
            report,
        }
    }

    fn run(&mut self, seconds: u32) -> &mut Self {
        for _ in 0..seconds {
            for frame in 0..i64::from(self.frames) {
                let millis = self.now.now_ms + frame * 1000 / i64::from(self.frames);
                self.health.picture(millis, millis + self.delay_ms, self.reorder_s);
            }
            for frame in (0..47).filter(|_| self.sound) {
                let millis = self.now.now_ms + frame * 21;
                self.health.sound(millis, millis + self.delay_ms, self.frame_bytes);
            }
            self.now.now_ms += 1_000;
            let sample =
                Sample { span_ms: 1_000, bits_per_second: self.rate, frame_rate: self.frames as f32 };
            self.report = self.health.second(sample, &self.now);
        }
        self
    }

    /// The one warning there is.
    fn warned(&self) -> &str {
        let [warning] = self.report.warnings.as_slice() else { panic!("{:?}", self.report.warnings) };
        warning
    }

    fn is_well(&self) -> bool {
        self.report.warnings.is_empty()
    }
}

#[test]
fn a_good_stream_has_five_minutes_of_history_and_nothing_to_mend() {
    let mut studio = Studio::new();
    studio.run(400);
    assert!(studio.is_well() && studio.report.health.hints.is_empty(), "{:?}", studio.report.warnings);
    let health = &studio.report.health;
    assert_eq!(health.samples.len(), HEALTH_SAMPLES_MAX);
    assert_eq!(health.sound, Sound::Arriving { bits_per_second: 47 * 340 * 8 });
    assert_eq!(health.late_ms, 0);
}

#[test]
fn keyframes_far_apart_are_told_with_their_distance() {
    let mut studio = Studio::new();
    studio.now.keyframe_interval_s = Some(8.333);
    assert!(studio.run(1).warned().contains("every 8.3 s"));
}

#[test]
fn an_uplink_that_does_not_keep_up_is_told_and_forgotten_when_it_does() {
    let mut studio = Studio::new();
    studio.run(10).delay_ms = 1_400;
    assert!(studio.run(1).is_well(), "a hiccup");
    studio.delay_ms = 3_100;
    assert!(studio.run(1).warned().contains("3.1 s late"));
    assert_eq!(studio.report.health.late_ms, 3_100);
    studio.delay_ms = 0;
    assert!(studio.run(1).is_well());
}

/// Only the delay that is added counts: the first message has one, too.
#[test]
fn a_clock_that_starts_late_is_not_late() {
    let mut studio = Studio::new();
    studio.delay_ms = 5_000;
    assert!(studio.run(20).is_well());
}

#[test]
fn frames_left_out_are_counted_against_what_was_announced_and_what_was_measured() {
    let mut studio = Studio::new();
    studio.run(20).frames = 21;
    assert!(studio.run(10).warned().contains("Only 21 of 30 frames"));

    let mut studio = Studio::new();
    studio.now.announced.frames_per_second = Some(60);
    assert!(studio.run(10).warned().contains("Only 30 of 60 frames"));

    let mut studio = Studio::new();
    studio.now.announced.frames_per_second = Some(90_000);
    assert!(studio.run(10).is_well(), "a timescale is no frame rate");
}

#[test]
fn a_frame_rate_that_swings_is_told() {
    let mut studio = Studio::new();
    for frames in [30, 24, 34, 30, 24, 34, 30, 24, 34, 30] {
        studio.frames = frames;
        studio.run(1);
    }
    assert!(studio.warned().contains("between 24 and 34 a second"));
}

#[test]
fn a_bit_rate_that_swings_is_told_after_a_minute_and_small_ones_never() {
    let swing = |low: u32, high: u32, seconds: u32| {
        let mut studio = Studio::new();
        for second in 0..seconds {
            studio.rate = if second / 10 % 2 == 0 { low } else { high };
            studio.run(1);
        }
        studio
    };
    assert!(swing(500_000, 6_000_000, 59).is_well());
    assert!(swing(500_000, 6_000_000, 60).warned().contains("between 0.5 and 6.0 Mb/s"));
    assert!(swing(2_500_000, 6_000_000, 60).is_well());
    assert!(swing(30_000, 400_000, 60).is_well(), "a slide show");
}

/// What ffmpeg makes of silence: 6 bytes a frame in stereo, 4 in mono, 19 in 5.1; the quietest tone takes 47.
#[test]
fn frames_as_small_as_silence_are_probably_silent_after_five_seconds() {
    for (channels, frame_bytes) in [(1, 4), (2, 6), (6, 19)] {
        let mut studio = Studio::new();
        studio.now.audio_channels = Some(channels);
        studio.frame_bytes = frame_bytes;
        assert!(studio.run(4).is_well());
        assert!(studio.run(1).warned().contains("probably silent"));
        assert_eq!(studio.report.health.sound, Sound::ProbablySilent);
        studio.frame_bytes = 47;
        assert!(studio.run(1).is_well(), "the quietest tone");
    }
}

#[test]
fn sound_that_never_came_and_sound_that_stopped_are_two_things() {
    let mut studio = Studio::new();
    studio.sound = false;
    assert!(studio.run(1).warned().contains("announced sound, but none arrives"));

    studio.now.announced.audio = false;
    assert!(studio.run(1).is_well());
    assert!(studio.report.health.hints[0].contains("has no sound"));

    let mut studio = Studio::new();
    studio.run(3).sound = false;
    assert!(studio.run(4).is_well());
    assert!(studio.run(2).warned().contains("No sound has arrived for 6 s"), "{}", studio.warned());
}

#[test]
fn a_picture_that_stopped_is_told() {
    let mut studio = Studio::new();
    studio.run(3).frames = 0;
    studio.run(12);
    assert!(studio.warned().contains("No picture has arrived for 12 s"), "{}", studio.warned());
}

#[test]
fn jumps_of_the_clock_and_long_parts_are_told_while_they_are_recent() {
    let mut studio = Studio::new();
    studio.run(5).now.counts.discontinuities = 1;
    assert!(studio.run(1).warned().contains("jumped once"));
    assert!(studio.run(HEALTH_SAMPLES_MAX as u32).is_well());

    // A browser that begins small, or a phone that is turned.
    studio.now.counts.discontinuities += 1;
    studio.now.counts.reconfigured += 1;
    assert!(studio.run(1).is_well());

    studio.now.counts.parts_over_target = 2;
    assert!(studio.run(1).is_well());
    studio.now.counts.parts_over_target = 9;
    assert!(studio.run(1).warned().contains("9 parts of the last minute"));
    assert!(studio.run(60).is_well());
}

/// The graph goes on over an interruption, and who comes back is not judged by it.
#[test]
fn a_publisher_that_comes_back_has_the_history_of_the_one_before() {
    let mut before = Studio::new();
    before.now.counts.discontinuities = 3;
    before.frames = 12;
    before.run(20);
    let counts = before.now.counts;
    let mut studio = Studio::new();
    studio.health = Health::after(&before.report.health, Duration::from_secs(7), counts);
    studio.health.open(Some(30.0));
    studio.now.counts = counts;
    assert!(studio.run(20).is_well(), "{:?}", studio.report.warnings);
    let samples = &studio.report.health.samples;
    assert_eq!(samples.len(), 20 + 1 + 20);
    assert_eq!((samples[20].span_ms, samples[20].bits_per_second), (7_000, 0));
    studio.now.counts.discontinuities = 4;
    assert!(studio.run(1).warned().contains("jumped once"));
}

#[test]
fn what_some_devices_cannot_play_is_told_and_what_could_be_better_is_a_hint() {
    let mut studio = Studio::new();
    studio.now.rare_pixels = true;
    assert!(studio.run(1).warned().contains("8-bit 4:2:0"));

    for (codec, has_ladder, told) in [
        (VideoCodec::H265, false, ["The video is HEVC, which browsers on many", "they see nothing"]),
        (VideoCodec::Av1, true, ["The video is AV1, which iPhones", "they see the renditions in H.264"]),
        (VideoCodec::Vp9, true, ["The video is VP9, which iPhones", "they see the renditions in H.264"]),
        (
            VideoCodec::Vp8,
            true,
            ["The video is VP8, which viewers by HLS", "they see the renditions in H.264"],
        ),
    ] {
        let mut studio = Studio::new();
        studio.now = Circumstances { video_codec: Some(codec), has_ladder, ..studio.now };
        studio.run(1);
        let hints = studio.report.health.hints.join("\n");
        assert!(told.iter().all(|words| hints.contains(words)), "{hints}");
    }

    let mut studio = Studio::new();
    studio.reorder_s = 0.0801;
    studio.now.audio_channels = Some(6);
    assert!(studio.run(1).is_well());
    let hints = studio.report.health.hints.join("\n");
    assert!(hints.contains("about 80 ms of delay") && hints.contains("6 channels"), "{hints}");
    assert!(hints.contains("WebRTC cannot show them: its viewers see nothing"), "{hints}");
    studio.now.has_ladder = true;
    studio.run(1);
    let hints = studio.report.health.hints.join("\n");
    assert!(hints.contains("its viewers are shown a rendition"), "{hints}");
}

/// WebRTC goes over UDP, and what is lost for good stops the picture up to the next keyframe.
#[test]
fn a_line_that_loses_packets_is_told_until_it_is_mended() {
    let told =
        |studio: &Studio| studio.report.warnings.iter().any(|words| words.contains("is lost on its way"));
    let mut studio = Studio::new();
    for (second, lost) in (0..60).map(|second| (second, u64::from((20..30).contains(&second)))) {
        let packets = studio.now.packets.unwrap_or_default();
        studio.now.packets =
            Some(Packets { received: packets.received + 400, lost: packets.lost + 10 * lost });
        studio.run(1);
        match second {
            0..20 | 50.. => assert!(!told(&studio), "{second}: {:?}", studio.report.warnings),
            22..35 => assert!(told(&studio), "{second}: {:?}", studio.report.warnings),
            _ => {}
        }
    }
}

/// A browser follows its line.
#[test]
fn a_bitrate_that_swings_is_no_fault_of_one_that_measures_its_line() {
    let swinging = |packets| {
        let mut studio = Studio::new();
        studio.now.packets = packets;
        for second in 0..70 {
            studio.rate = if second % 20 < 10 { 500_000 } else { 4_000_000 };
            studio.run(1);
        }
        studio.report.warnings.iter().any(|words| words.contains("bitrate swings"))
    };
    assert!(swinging(None));
    assert!(!swinging(Some(Packets::default())));
}
