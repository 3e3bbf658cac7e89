//! Streams made by ffmpeg, as ingest would hand them on.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use media::flv::{Audio, Tracks, Video};
use media::{AudioConfig, CodecConfig, VideoConfig};
use pipe::{Codec, SourceUnit, ToEncoder};

const H264: &[&str] =
    &["-c:v", "libx264", "-preset", "ultrafast", "-g", "60", "-sc_threshold", "0", "-bf", "0"];

/// Name, what lavfi makes, and how it is encoded.
type Recipe = (&'static str, &'static str, &'static [&'static [&'static str]]);

/// Clips of 8 s at 30 frames per second with a key every 2 s, unless the name says otherwise.
const CLIPS: &[Recipe] = &[
    ("plain", "testsrc2=size=640x360:rate=30:duration=8", &[H264, &["-pix_fmt", "yuv420p"]]),
    ("4:3", "testsrc2=size=480x360:rate=30:duration=4", &[H264, &["-pix_fmt", "yuv420p", "-r", "30"]]),
    (
        "b-frames",
        "testsrc2=size=640x360:rate=30:duration=8",
        &[H264, &["-pix_fmt", "yuv420p", "-bf", "2", "-x264-params", "b-adapt=0"]],
    ),
    (
        "4:2:2 10 bit",
        "testsrc2=size=640x360:rate=30:duration=2",
        &[H264, &["-pix_fmt", "yuv422p10", "-profile:v", "high422"]],
    ),
    ("tiny", "testsrc2=size=16x16:rate=30:duration=2", &[H264, &["-pix_fmt", "yuv420p"]]),
    (
        "hevc",
        "testsrc2=size=640x360:rate=30:duration=4",
        &[&[
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-x265-params",
            "log-level=none:keyint=60:min-keyint=60:scenecut=0:open-gop=0:bframes=2:b-adapt=0",
        ]],
    ),
    (
        "av1",
        "testsrc2=size=640x360:rate=30:duration=2",
        &[&[
            "-c:v",
            "libsvtav1",
            "-preset",
            "12",
            "-g",
            "30",
            "-pix_fmt",
            "yuv420p",
            "-svtav1-params",
            "scd=0",
        ]],
    ),
    ("aac", TONE, &[&["-c:a", "aac", "-b:a", "128k", "-ac", "2"]]),
    ("aac 44.1 mono", "sine=frequency=440:duration=4:sample_rate=44100", &[&["-c:a", "aac", "-b:a", "64k"]]),
    ("aac 5.1", TONE, &[&["-c:a", "aac", "-b:a", "256k", "-ac", "6"]]),
    ("opus", TONE, &[&["-c:a", "libopus", "-b:a", "96k", "-ac", "2"]]),
    ("opus 5.1", TONE, &[&["-c:a", "libopus", "-b:a", "192k", "-ac", "6", "-mapping_family", "1"]]),
    (
        "click",
        "aevalsrc='if(between(n,96000,96023),0.9,0)':duration=4:sample_rate=48000",
        &[&["-c:a", "aac", "-b:a", "128k", "-ac", "2"]],
    ),
];

const TONE: &str = "sine=frequency=440:duration=4:sample_rate=48000";

#[derive(Debug)]
pub(crate) struct Clip {
    pub(crate) codec: Codec,
    pub(crate) timescale: u32,
    /// In decoding order; every key is forced.
    pub(crate) units: Vec<SourceUnit>,
}

impl Clip {
    pub(crate) fn messages(&self) -> impl Iterator<Item = ToEncoder> {
        self.units.iter().cloned().map(ToEncoder::Unit)
    }

    /// In the order in which pictures are shown.
    pub(crate) fn stamps(&self) -> Vec<i64> {
        sorted(self.units.iter().map(|unit| unit.pts))
    }

    pub(crate) fn keys(&self) -> Vec<i64> {
        sorted(self.units.iter().filter(|unit| unit.key).map(|unit| unit.pts))
    }

    /// With its times moved by `ticks`.
    pub(crate) fn moved(&self, ticks: impl Fn(usize) -> i64) -> Vec<SourceUnit> {
        let moved = self.units.iter().enumerate().map(|(index, unit)| SourceUnit {
            pts: unit.pts + ticks(index),
            dts: unit.dts + ticks(index),
            ..unit.clone()
        });
        moved.collect()
    }
}

pub(crate) fn sorted(stamps: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut stamps: Vec<_> = stamps.collect();
    stamps.sort_unstable();
    stamps
}

/// Makes a clip once for all tests.
pub(crate) fn clip(name: &'static str) -> Arc<Clip> {
    static MADE: LazyLock<Mutex<HashMap<&str, Arc<Clip>>>> = LazyLock::new(Mutex::default);
    let mut made = MADE.lock().expect("no clip fails twice");
    made.entry(name).or_insert_with(|| Arc::new(make(name))).clone()
}

fn make(name: &str) -> Clip {
    let (_, input, output) = CLIPS.iter().find(|(of, ..)| *of == name).expect("it is in the list");
    let flv = ffmpeg(&[input], &[output.concat().as_slice(), &["-f", "flv", "-"]].concat(), &[]);
    let (mut tracks, mut config, mut units) = (Tracks::default(), None, Vec::new());
    let mut at = 13;
    while let Some(head) = flv.get(at..at + 11) {
        let size = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
        let stamp = i64::from(head[7]) << 24
            | i64::from(head[4]) << 16
            | i64::from(head[5]) << 8
            | i64::from(head[6]);
        let body = Bytes::copy_from_slice(&flv[at + 11..at + 11 + size]);
        at += 11 + size + 4;
        match head[0] {
            9 => video(body, stamp, &mut tracks, &mut config, &mut units),
            8 => audio(body, &mut tracks, &mut config, &mut units),
            _ => {}
        }
    }
    let config = config.expect("a stream begins with its configuration");
    assert!(units.len() > 40, "{name} has {} units", units.len());
    Clip { codec: Codec::from(&config), timescale: config.timescale().hertz(), units }
}

fn video(
    body: Bytes,
    stamp: i64,
    tracks: &mut Tracks,
    config: &mut Option<CodecConfig>,
    units: &mut Vec<SourceUnit>,
) {
    match Video::parse(body, tracks).expect("ffmpeg writes what we take") {
        Video::SequenceHeader { codec, record } => {
            *config = Some(VideoConfig::parse(codec, record).expect("and configures it").into());
        }
        Video::Unit { codec, composition_offset_ms, data } => {
            let record = config.as_ref().expect("the configuration is first").record().1.clone();
            let video = VideoConfig::parse(codec, record).expect("it was before");
            let key = video.access(&data) == Some(media::codec::Access::Key);
            units.push(SourceUnit {
                pts: (stamp + i64::from(composition_offset_ms)) * 90,
                dts: stamp * 90,
                duration: 3_000,
                key,
                force: key,
                data: video.sample(data),
            });
        }
        Video::EndOfSequence | Video::Info => {}
    }
}

fn audio(body: Bytes, tracks: &mut Tracks, config: &mut Option<CodecConfig>, units: &mut Vec<SourceUnit>) {
    match Audio::parse(body, tracks).expect("ffmpeg writes what we take") {
        Audio::SequenceHeader { codec, record } => {
            *config = Some(AudioConfig::parse(codec, record).expect("and configures it").into());
        }
        Audio::Frame { codec, data } => {
            let record = config.as_ref().expect("the configuration is first").record().1.clone();
            let audio = AudioConfig::parse(codec, record).expect("it was before");
            let duration = audio.samples(&data).expect("a whole frame");
            let pts = units.last().map_or(0, |last: &SourceUnit| last.pts + i64::from(last.duration));
            units.push(SourceUnit { pts, dts: pts, duration, key: true, force: false, data });
        }
        Audio::Silence => {}
    }
}

/// What ffmpeg makes of lavfi `sources`, or of `fed` on its standard input.
pub(crate) fn ffmpeg(sources: &[&str], arguments: &[&str], fed: &[u8]) -> Vec<u8> {
    let program = harness::media::recent_ffmpeg().expect("scripts/setup.sh test installs it");
    run(
        Command::new(program).args(["-nostdin", "-loglevel", "error"]).env("SVT_LOG", "0"),
        sources,
        arguments,
        fed,
    )
}

fn run(command: &mut Command, sources: &[&str], arguments: &[&str], fed: &[u8]) -> Vec<u8> {
    for source in sources {
        command.args(["-f", "lavfi", "-i", source]);
    }
    fed_to(command.args(arguments), fed)
}

/// Standard output of `command`, which reads `fed`.
pub(crate) fn fed_to(command: &mut Command, fed: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("it is piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            let _it_may_have_read_enough = input.write_all(fed);
        });
        child.wait_with_output().expect("it can be read")
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}
