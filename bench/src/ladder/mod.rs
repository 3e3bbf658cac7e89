//! What a ladder of renditions costs, beside ffmpeg with the same ladder and settings; what it looks like; and how soon
//! a child that waits has its first picture.
//!
//! ffmpeg scales every rung from the source, as its users write it; and, for the sake of knowing, from the next larger
//! rung, as we do.

mod child;
mod source;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::media::clip;
use pipe::{Preset, Rung};
use tempfile::TempDir;

use crate::Options;
use crate::measure::{Samples, interleaved, sleep};
use crate::table::{Table, Target};
use child::Encoder;
use source::Source;

/// Of ffmpeg's CPU time, and of its kilobits.
const RATIO_MAX: f64 = 1.0;
/// Decibels of PSNR that ffmpeg may be better by.
const PSNR_DEFICIT_MAX: f64 = 0.5;
const FIRST_PICTURE_MS_MAX: f64 = 300.0;

const FRAME_RATE: u32 = 30;
const COLUMNS: &[&str] = &["min", "median"];
/// A spare has loaded its plugins by then.
const SPARE_AGE: Duration = Duration::from_secs(2);

struct Ladder {
    name: &'static str,
    /// What ffmpeg makes the source from the film with; the 720p clip is there.
    source: Option<&'static [&'static str]>,
    rungs: &'static [Rung],
}

const P720: Rung = rung(720, 1280, 2_500);
const P480: Rung = rung(480, 854, 1_200);
const P360: Rung = rung(360, 640, 700);

const LADDERS: &[Ladder] = &[
    Ladder {
        name: "1080p30 to 720p, 480p, 360p",
        source: Some(&[
            "-vf",
            "fps=30",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-profile:v",
            "high",
            "-bf",
            "0",
            "-b:v",
            "5M",
            "-maxrate",
            "6M",
            "-bufsize",
            "6M",
            "-g",
            "60",
            "-keyint_min",
            "60",
            "-sc_threshold",
            "0",
            "-pix_fmt",
            "yuv420p",
        ]),
        rungs: &[P720, P480, P360],
    },
    Ladder { name: "720p30 to 480p, 360p", source: None, rungs: &[P480, P360] },
];

const fn rung(height: u16, width: u16, kbit_s: u32) -> Rung {
    Rung { number: height, width, height, kbit_s, preset: Preset::Superfast, every: 1 }
}

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let (rounds, seconds) = if options.quick { (1, 5) } else { (4, 12) };
    let folder = TempDir::new()?;
    let mut tables = Vec::new();
    for ladder in LADDERS {
        let path = ladder.clip(folder.path(), seconds)?;
        let source = source::read(&path, FRAME_RATE)?;
        tables.push(cost(ladder, &path, &source, rounds, folder.path())?);
        tables.push(quality(ladder, &path, folder.path())?);
    }
    tables.push(start(&LADDERS[0], &source::read(&LADDERS[0].clip(folder.path(), 1)?, FRAME_RATE)?)?);
    Ok(tables)
}

impl Ladder {
    /// The first `seconds` of the source.
    fn clip(&self, folder: &Path, seconds: u32) -> Result<PathBuf> {
        let path = folder.join(format!("source-{}-{seconds}.mp4", self.rungs.len()));
        let (from, how) = match self.source {
            // Fetching the film is the clip's business.
            Some(arguments) => (clip("bbb720p30")?.with_file_name("film.mp4"), arguments),
            None => (clip("bbb720p30")?, ["-c", "copy"].as_slice()),
        };
        let seconds = seconds.to_string();
        let mut command = ffmpeg();
        command.args(["-t", &seconds, "-i"]).arg(from).args(["-map", "0:v"]).args(how).arg(&path);
        said_by(&mut command)?;
        Ok(path)
    }

    /// The same settings as ours, in ffmpeg's words; both are x264.
    fn ffmpeg(&self, clip: &Path, folder: &Path, cascade: bool) -> Command {
        let mut graph = Vec::new();
        let count = self.rungs.len();
        let scale = |rung: &Rung| format!("scale={}:{}:flags=bicubic", rung.width, rung.height);
        if cascade {
            for (index, rung) in self.rungs.iter().enumerate() {
                let from = if index == 0 { "0:v".to_owned() } else { format!("next{index}") };
                graph.push(if index + 1 == count {
                    format!("[{from}]{}[out{index}]", scale(rung))
                } else {
                    format!("[{from}]{},split=2[out{index}][next{}]", scale(rung), index + 1)
                });
            }
        } else {
            let pads: String = (0..count).map(|index| format!("[in{index}]")).collect();
            graph.push(format!("[0:v]split={count}{pads}"));
            let rungs = self.rungs.iter().enumerate();
            graph.extend(rungs.map(|(index, rung)| format!("[in{index}]{}[out{index}]", scale(rung))));
        }
        let mut command = ffmpeg();
        command.args(["-benchmark", "-threads", "1", "-i"]).arg(clip);
        command.args(["-filter_complex_threads", "1", "-filter_complex", &graph.join(";")]);
        for (index, Rung { number, kbit_s, preset, .. }) in self.rungs.iter().enumerate() {
            let rate = format!("{kbit_s}k");
            command.args(["-map", &format!("[out{index}]"), "-c:v", "libx264", "-preset", preset.name()]);
            command.args(["-tune", "zerolatency", "-b:v", &rate, "-maxrate", &rate, "-bufsize", &rate]);
            command.args(["-force_key_frames", "expr:gte(t,2*n_forced)", "-x264-params", X264]);
            command.arg(folder.join(format!("ffmpeg-{number}.h264")));
        }
        command
    }
}

/// As in transcode/encoder/src/encoders.rs.
const X264: &str =
    "threads=1:bframes=0:keyint=infinite:scenecut=0:open-gop=0:weightp=0:ref=1:cabac=1:8x8dct=1:aud=0";

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-y"]);
    command
}

/// What ffmpeg says in its log, which is where it tells its figures.
fn said_by(command: &mut Command) -> Result<String> {
    let output = command.output().context("ffmpeg")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "ffmpeg: {said}");
    Ok(said)
}

/// The number behind the last `name`.
fn figure(said: &str, name: &str) -> Option<f64> {
    let (_, behind) = said.rsplit_once(name)?;
    behind.split(|letter: char| letter != '.' && !letter.is_ascii_digit()).next()?.parse().ok()
}

fn cost(ladder: &Ladder, clip: &Path, source: &Source, rounds: usize, folder: &Path) -> Result<Table> {
    // NaN misses every target, and the words say why.
    let told = |what: &str, measured: Result<f64>| {
        measured.inspect_err(|error| println!("   {what}: {error:#}")).unwrap_or(f64::NAN)
    };
    let ours = || {
        let encoded = Encoder::spawn()?.encode(source, FRAME_RATE, ladder.rungs, folder)?;
        ensure!(encoded.bytes > 0, "nothing came out");
        Ok(encoded.cpu.as_secs_f64() / source.seconds)
    };
    let theirs = |cascade| {
        let said = said_by(&mut ladder.ffmpeg(clip, folder, cascade))?;
        let time = |name| figure(&said, name).context("ffmpeg tells no time");
        Ok((time("utime=")? + time("stime=")?) / source.seconds)
    };
    let [ours, cascaded, theirs] = interleaved(
        rounds,
        [&mut || told("tidecast-encoder", ours()), &mut || told("ffmpeg", theirs(true)), &mut || {
            told("ffmpeg", theirs(false))
        }],
    );
    let title = format!("{}: CPU s per second of video, {rounds} rounds in turn", ladder.name);
    let figures = |samples: &Samples| [samples.min(), samples.median()];
    let mut table = Table::new(title, COLUMNS);
    table.tell("tidecast-encoder", &figures(&ours));
    table.tell("ffmpeg, every rung scaled from the source", &figures(&theirs));
    table.tell("ffmpeg, each rung scaled from the next larger", &figures(&cascaded));
    let ratio = [ours.min() / theirs.min(), ours.median() / theirs.median()];
    table.judge("ratio", &ratio, Target { column: 1, limit: RATIO_MAX });
    Ok(table)
}

/// What the last round left in `folder`, against the scaled source.
fn quality(ladder: &Ladder, clip: &Path, folder: &Path) -> Result<Table> {
    let title = format!("{}: PSNR in dB, size in kbit/s", ladder.name);
    let mut table = Table::new(title, &["ours", "ffmpeg", "deficit", "our size", "its size"]);
    for Rung { number, width, height, .. } in ladder.rungs {
        let psnr = |name: String| -> Result<(f64, f64)> {
            let file = folder.join(name);
            let graph = format!(
                "[0:v]settb=1/{FRAME_RATE},setpts=N[ours];[1:v]scale={width}:{height}:flags=bicubic,\
                 settb=1/{FRAME_RATE},setpts=N[source];[ours][source]psnr"
            );
            let mut command = ffmpeg();
            command.args(["-r", &FRAME_RATE.to_string(), "-i"]).arg(&file).arg("-i").arg(clip);
            let said = said_by(command.args(["-lavfi", &graph, "-f", "null", "-"]))?;
            let average = figure(&said, "average:").context("ffmpeg tells no PSNR")?;
            Ok((average, std::fs::metadata(&file)?.len() as f64 * 8.0 / 1_000.0))
        };
        let seconds = source::read(clip, FRAME_RATE)?.seconds;
        let (ours, our_size) = psnr(format!("{number}.h264"))?;
        let (theirs, its_size) = psnr(format!("ffmpeg-{number}.h264"))?;
        table.judge(
            format!("{number}p"),
            &[ours, theirs, theirs - ours, our_size / seconds, its_size / seconds],
            Target { column: 2, limit: PSNR_DEFICIT_MAX },
        );
    }
    Ok(table)
}

fn start(ladder: &Ladder, source: &Source) -> Result<Table> {
    let mut table = Table::new("job to the first picture of every rung, ms", COLUMNS);
    let (mut spare, mut cold) = (Samples::default(), Samples::default());
    for _ in 0..3 {
        let waiting = Encoder::spawn()?;
        sleep(SPARE_AGE);
        spare.push(waiting.first_pictures(source, FRAME_RATE, ladder.rungs)?.as_secs_f64() * 1e3);
        cold.push(Encoder::spawn()?.first_pictures(source, FRAME_RATE, ladder.rungs)?.as_secs_f64() * 1e3);
    }
    let figures = |samples: &Samples| [samples.min(), samples.median()];
    table.judge("a child that waits", &figures(&spare), Target { column: 1, limit: FIRST_PICTURE_MS_MAX });
    table.tell("a child that is started for it", &figures(&cold));
    Ok(table)
}
