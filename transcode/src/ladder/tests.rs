use bytes::Bytes;
use pipe::{Codec, VideoJob};
use proptest::prelude::*;

use super::*;

const fn fps(numerator: u32) -> FrameRate {
    FrameRate { numerator, denominator: 1 }
}

fn video(width: u32, height: u32, rate: u32) -> Video {
    let coded_pixels = width * height;
    Video { width, height, coded_pixels, frame_rate: fps(rate), is_h264: true, suits_webrtc: true }
}

fn pictures(video: Video) -> Source {
    Source { video: Some(video), audio: None }
}

/// Name, size, frame rate if it is another than the source's, kbit/s.
fn told(plan: &Plan) -> Vec<String> {
    let rung = |rung: &VideoRung| {
        let VideoRung { name, width, height, frame_rate, bitrate, .. } = rung;
        let rate =
            frame_rate.map_or(String::new(), |rate| format!(" {}/{}", rate.numerator, rate.denominator));
        format!("{name} {width}x{height}{rate} {}k", bitrate / 1_000)
    };
    plan.video.iter().map(rung).collect()
}

fn auto(video: Video) -> Vec<String> {
    told(&plan(&pictures(video), &LadderConfig::Auto))
}

#[test]
fn auto_lies_below_the_source() {
    let low = ["360p 640x360 700k", "240p 426x240 250k"];
    let all = [["720p 1280x720 2500k", "480p 854x480 1200k"], low].concat();
    assert_eq!(auto(video(3840, 2160, 30)), all);
    assert_eq!(auto(video(1920, 1080, 30)), all);
    assert_eq!(auto(video(1280, 720, 25)), all[1..]);
    assert_eq!(auto(video(854, 480, 30)), ["360p 640x360 700k", "240p 428x240 250k"]);
    assert_eq!(auto(video(640, 360, 30)), ["240p 426x240 250k"]);
    assert_eq!(auto(video(534, 300, 30)), ["240p 428x240 250k"]);
    assert_eq!(auto(video(532, 298, 30)), [""; 0]);
    assert_eq!(auto(video(426, 240, 30)), [""; 0]);
    assert_eq!(auto(video(16, 16, 30)), [""; 0]);
}

#[test]
fn auto_leaves_out_what_is_hardly_smaller() {
    assert_eq!(auto(video(1440, 848, 30))[0], "720p 1222x720 2500k");
    assert_eq!(auto(video(1440, 846, 30))[0], "480p 818x480 1200k");
    assert_eq!(auto(video(960, 540, 30))[0], "360p 640x360 700k");
}

#[test]
fn the_shape_is_kept() {
    assert_eq!(
        auto(video(1080, 1920, 30)),
        ["720p 720x1280 2500k", "480p 480x854 1200k", "360p 360x640 700k", "240p 240x426 250k"]
    );
    assert_eq!(auto(video(1024, 768, 30))[0], "480p 640x480 1200k");
    assert_eq!(auto(video(1080, 1080, 30))[0], "720p 720x720 2500k");
    assert_eq!(auto(video(2560, 1080, 30))[0], "720p 1706x720 2500k");
    // Wider than an encoder takes: what remains is what fits.
    assert_eq!(auto(video(8192, 1080, 30))[0], "480p 3640x480 1200k");
}

#[test]
fn more_frames_get_more_bits_above_and_are_thinned_out_below() {
    assert_eq!(
        auto(video(1920, 1080, 60)),
        ["720p 1280x720 3750k", "480p 854x480 1800k", "360p 640x360 60/2 700k", "240p 426x240 60/2 250k"]
    );
    assert_eq!(auto(video(1920, 1080, 50))[2], "360p 640x360 50/2 700k");
    assert_eq!(auto(video(1920, 1080, 120))[0], "720p 1280x720 5000k");
    assert_eq!(auto(video(1920, 1080, 120))[3], "240p 426x240 120/4 250k");
    assert_eq!(auto(video(1920, 1080, 144))[3], "240p 426x240 144/5 250k");
    assert_eq!(auto(video(1920, 1080, 1))[0], "720p 1280x720 2500k");
    // As measured, a little above.
    let measured = FrameRate { numerator: 30_020, denominator: 1_000 };
    assert_eq!(auto(Video { frame_rate: measured, ..video(1920, 1080, 30) })[3], "240p 426x240 250k");
}

#[test]
fn what_webrtc_cannot_show_is_also_made_in_its_own_size() {
    let other = |width, height, rate| auto(Video { suits_webrtc: false, ..video(width, height, rate) });
    assert_eq!(other(1920, 1080, 30)[..2], ["1080p 1920x1080 5200k", "720p 1280x720 2500k"]);
    assert_eq!(other(1920, 1080, 60)[0], "1080p 1920x1080 7800k");
    assert_eq!(other(1280, 720, 30)[0], "720p 1280x720 2500k");
    assert_eq!(other(1080, 1920, 30)[0], "1080p 1080x1920 5200k");
    // However small; nothing is below it.
    assert_eq!(other(160, 90, 30), ["90p 160x90 100k"]);
    assert_eq!(other(17, 17, 30), ["16p 16x16 100k"]);
    assert_eq!(other(1921, 1081, 30)[0], "1080p 1920x1080 5200k");
    assert_eq!(other(8192, 4320, 30)[0], "2160p 4096x2160 19100k");
    // Shrunk to what encoders take, it is a rung of the list.
    assert_eq!(other(5992, 703, 30)[..2], ["480p 4096x480 4900k", "360p 3068x360 700k"]);
}

#[test]
fn a_list_is_kept_as_far_as_it_lies_below() {
    let rung = |height, bitrate, frame_rate_max| RungConfig { height, bitrate, frame_rate_max };
    let list = LadderConfig::Rungs(vec![
        rung(240, 300_000, Some(15)),
        rung(700, 2_000_000, None),
        rung(720, 2_600_000, None),
        rung(1080, 5_000_000, None),
        rung(241, 350_000, None),
        rung(8, 100_000, None),
        rung(200, 1, None),
    ]);
    let told = told(&plan(&pictures(video(1280, 720, 60)), &list));
    assert_eq!(told, ["700p 1244x700 2000k", "240p 426x240 350k", "200p 356x200 16k"]);

    let many = LadderConfig::Rungs((1..=20).map(|step| rung(step * 40, 500_000, None)).collect());
    let names =
        |video| -> Vec<_> { plan(&pictures(video), &many).video.into_iter().map(|rung| rung.name).collect() };
    assert_eq!(names(video(1920, 1080, 30))[0], "320p");
    let other = names(Video { suits_webrtc: false, ..video(1920, 1080, 30) });
    assert_eq!((other.len(), other[0].as_str(), other[1].as_str()), (RUNGS_MAX, "1080p", "280p"));
}

#[test]
fn off_makes_nothing() {
    let other = Video { suits_webrtc: false, ..video(1920, 1080, 30) };
    let source = Source { video: Some(other), audio: Some(Audio { is_aac: false, channels: 6 }) };
    assert_eq!(plan(&source, &LadderConfig::Off), Plan::default());
    assert_eq!(plan(&Source::default(), &LadderConfig::Auto), Plan::default());
}

#[test]
fn sound_becomes_aac_that_every_player_takes_and_opus_for_webrtc() {
    let [stereo, mono] = [("aac", 2, 128_000, 48_000), ("aac", 1, 64_000, 48_000)];
    let [opus, mono_opus] = [("opus", 2, 96_000, 48_000), ("opus", 1, 48_000, 48_000)];
    for (is_aac, channels, expected) in [
        (true, 2, vec![opus]),
        (true, 1, vec![mono_opus]),
        (true, 6, vec![stereo, opus]),
        (false, 2, vec![stereo]),
        (false, 1, vec![mono]),
        (false, 6, vec![stereo, opus]),
    ] {
        let source = Source { video: None, audio: Some(Audio { is_aac, channels }) };
        let audio = plan(&source, &LadderConfig::Auto).audio;
        let made = audio.iter().map(|audio| (audio.name, audio.channels, audio.bitrate, audio.rate));
        assert_eq!(made.collect::<Vec<_>>(), expected, "AAC: {is_aac}, {channels} channels");
    }
}

#[test]
fn the_machine_decides_how_far_up_it_goes() {
    let source =
        Source { audio: Some(Audio { is_aac: false, channels: 2 }), ..pictures(video(1920, 1080, 30)) };
    let full = plan(&source, &LadderConfig::Auto);
    let model = &CostModel::MEASURED;
    let admitted = |cores| full.clone().admit(&source, cores, model);
    assert_eq!(admitted(full.cost(&source, model) + 1e-9), full);
    let names = |plan: &Plan| -> Vec<_> { plan.video.iter().map(|rung| rung.name.clone()).collect() };
    let (mut seen, mut rungs) = (Vec::new(), 0);
    for step in 0..200 {
        let cores = f64::from(step) / 100.0;
        let plan = admitted(cores);
        assert!(plan.cost(&source, model) <= cores);
        assert!(plan.video.len() >= rungs, "{cores} cores are enough for less than fewer are");
        rungs = plan.video.len();
        seen.push((plan.audio.len(), names(&plan)));
    }
    seen.dedup();
    let expected: [(usize, &[&str]); 6] = [
        (0, &[]),
        (1, &[]),
        (1, &["240p"]),
        (1, &["360p", "240p"]),
        (1, &["480p", "360p", "240p"]),
        (1, &["720p", "480p", "360p", "240p"]),
    ];
    assert_eq!(seen, expected.map(|(audio, names)| (audio, names.iter().map(ToString::to_string).collect())));
}

/// Cores for 720p, 480p and 360p, each scaled from the next larger, as they were measured.
#[test]
fn the_model_is_what_was_measured() {
    let ladder = |preset, source: &Source| {
        let rung = |width, height| VideoRung {
            name: String::new(),
            width,
            height,
            every: 1,
            frame_rate: None,
            bitrate: 1_000_000,
            preset,
        };
        let plan = Plan { video: vec![rung(1280, 720), rung(854, 480), rung(640, 360)], audio: vec![] };
        plan.cost(source, &CostModel::MEASURED)
    };
    for (width, height, cores) in [(1280, 720, 0.790), (1920, 1080, 1.014)] {
        let cost = ladder(Preset::Superfast, &pictures(video(width, height, 30)));
        assert!((cost / cores - 1.0).abs() < 0.1, "{width}x{height}: {cost}, measured {cores}");
    }
    let source = pictures(video(1280, 720, 30));
    let costs = Preset::ALL.map(|preset| ladder(preset, &source));
    assert!(costs.is_sorted(), "{costs:?}");
    let hevc = Video { is_h264: false, ..video(1280, 720, 30) };
    assert!(ladder(Preset::Superfast, &pictures(hevc)) > costs[1]);
}

/// What x264 and x265 write into FLV, by ffmpeg from `testsrc2`.
const BASELINE_360: &str =
    "0142c01effe100196742c01ed900a02ff970110000030001000003003c0f162e4801000568cb83cb20";
const MAIN_720_B_FRAMES: &str =
    "014d401fffe10017674d401feca02802dd808800001f480007530078c18cb001000568ebe3cb20";
const HIGH_422_10_BIT: &str =
    "017a0020ffe1001a677a0020b6cd9405005bb011000003000100000300640f18319601000668ebe3cb22c0fefafa00";
const HIGH_480: &str =
    "0164001fffe1001a6764001facb201b07bcde022000003000200000300791e30649001000668ebc3cb22c0fdf8f800";
const PIXELS_16_11: &str =
    "0164001effe100186764001eacd940b424d8208000000300800000190f8a14cb01000668fba3cb22c0fdf8f800";
const HEVC_MAIN_10: &str = "01022000000090000000000078f000fcfdfafa00000f03a00001001840010c01ffff022000000300\
    9000000300000300789598\
    09a100010038420101022000000300900000030000030078a003c08010e4d96566924caf016a1220120800001f480003a98300\
    a4b3700016e360002dc6c4a2000100074401c172b46240";

fn config(sample_entry: &[u8; 4], record: &[u8]) -> CodecConfig {
    CodecConfig::from_record(sample_entry, Bytes::copy_from_slice(record)).expect("an encoder wrote it")
}

fn parse(sample_entry: &[u8; 4], hex: &str) -> CodecConfig {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    config(sample_entry, &(0..hex.len()).step_by(2).map(digits).collect::<Vec<_>>())
}

#[test]
fn configurations_tell_what_webrtc_can_show() {
    let video = |hex, reorders| Video::of(&parse(b"avc1", hex), None, reorders).expect("pictures");
    let told = |video: Video| {
        let FrameRate { numerator, denominator } = video.frame_rate;
        (video.width, video.height, numerator, denominator, video.suits_webrtc)
    };
    assert_eq!(told(video(BASELINE_360, false)), (640, 360, 30, 1, true));
    assert_eq!(told(video(HIGH_480, false)), (854, 480, 30, 1, true));
    // It says nothing of B-frames, and has them.
    assert_eq!(told(video(HIGH_480, true)), (854, 480, 30, 1, false));
    assert_eq!(told(video(MAIN_720_B_FRAMES, false)), (1280, 720, 30_000, 1_001, false));
    assert_eq!(told(video(HIGH_422_10_BIT, false)), (1280, 720, 50, 1, false));
    // As wide as it is coded, and as high as it is shown then.
    let wide = video(PIXELS_16_11, false);
    assert_eq!((wide.width, wide.height, wide.coded_pixels), (720, 396, 720 * 576));

    let hevc = Video::of(&parse(b"hvc1", HEVC_MAIN_10), None, false).expect("pictures");
    assert!(!hevc.suits_webrtc && !hevc.is_h264);
    let measured = FrameRate { numerator: 24, denominator: 1 };
    let video = Video::of(&parse(b"avc1", BASELINE_360), Some(measured), false).expect("pictures");
    assert_eq!(video.frame_rate, measured);
    assert_eq!(Audio::of(&parse(b"avc1", BASELINE_360)), None);
}

#[test]
fn configurations_tell_what_sound_there_is() {
    let aac = config(b"mp4a", &[0x11, 0x90]);
    assert_eq!(Audio::of(&aac), Some(Audio { is_aac: true, channels: 2 }));
    let surround = b"OpusHead\x01\x06\x38\x01\x80\xBB\x00\x00\x00\x00\x01\x04\x02\x00\x04\x01\x02\x03\x05";
    assert_eq!(Audio::of(&config(b"Opus", surround)), Some(Audio { is_aac: false, channels: 6 }));
    assert_eq!(Video::of(&aac, None, false), None);
}

#[test]
fn announced_rates_become_fractions() {
    let told = |rate| {
        let FrameRate { numerator, denominator } = fraction(rate);
        (numerator, denominator)
    };
    assert_eq!(told(60.0), (60, 1));
    assert_eq!(told(30_000.0 / 1_001.0), (30_000, 1_001));
    assert_eq!(told(24_000.0 / 1_001.0), (24_000, 1_001));
    assert_eq!(told(12.5), (12_500, 1_000));
    assert_eq!(told(1.0), (1, 1));
    assert_eq!(told(300.0), (300, 1));
}

fn any_config() -> impl Strategy<Value = LadderConfig> {
    let rung = (any::<u16>(), any::<u32>(), prop::option::of(any::<u16>()));
    let rung = rung.prop_map(|(height, bitrate, frame_rate_max)| RungConfig {
        height: if bitrate % 2 == 0 { height % 2_500 } else { height },
        bitrate,
        frame_rate_max,
    });
    prop_oneof![
        Just(LadderConfig::Off),
        Just(LadderConfig::Auto),
        prop::collection::vec(rung, 0..12).prop_map(LadderConfig::Rungs)
    ]
}

proptest! {
    /// Whatever comes in and whatever was configured: what is planned can be made, and lies below the source.
    #[test]
    fn any_plan_can_be_made(
        (width, height) in (16_u32..=8192, 16_u32..=8192),
        frame_rate in (1_u32..=300_000, 1_u32..=1_001).prop_map(|(numerator, denominator)| FrameRate {
            numerator: numerator.clamp(denominator, denominator * 300),
            denominator,
        }),
        suits_webrtc in any::<bool>(),
        wanted in any_config(),
        cores in 0.0..20.0_f64,
    ) {
        let source = pictures(Video { frame_rate, suits_webrtc, ..video(width, height, 30) });
        let full = plan(&source, &wanted);
        prop_assert!(full.video.len() <= RUNGS_MAX);
        if !suits_webrtc && wanted != LadderConfig::Off && width.max(height) <= 4_096 {
            let own = (u32::from(full.video[0].width), u32::from(full.video[0].height));
            prop_assert_eq!(own, (width / 2 * 2, height / 2 * 2));
        }
        let mut names: Vec<_> = full.video.iter().map(|rung| &rung.name).collect();
        names.dedup();
        prop_assert_eq!(names.len(), full.video.len());
        for (index, rung) in full.video.iter().enumerate() {
            prop_assert!(u32::from(rung.width) <= width && u32::from(rung.height) <= height, "{:?}", rung);
            let own_size = index == 0 && !suits_webrtc;
            prop_assert!(own_size || u32::from(rung.shorter_side()) < width.min(height), "{:?}", rung);
            if let Some(rate) = rung.frame_rate {
                prop_assert!(per_second(rate) < per_second(frame_rate));
            }
        }
        prop_assert!(full.video.is_sorted_by(|above, below| above.shorter_side() > below.shorter_side()));
        if !full.video.is_empty() {
            let rungs = full.video.iter().zip(0..).map(|(rung, number)| rung.to_pipe(number, rung.preset));
            let job = VideoJob {
                source: Codec { sample_entry: *b"avc1", record: Bytes::new() },
                timescale: 90_000,
                frame_rate,
                encoders: Vec::new(),
                rungs: rungs.collect(),
            };
            prop_assert_eq!(pipe::Job::from(job).check(), Ok(()));
        }
        // What is admitted is the lower end, and costs no more than there is.
        let part = full.clone().admit(&source, cores, &CostModel::MEASURED);
        prop_assert!(full.video.ends_with(&part.video));
        prop_assert!(part.cost(&source, &CostModel::MEASURED) <= cores);
    }
}
