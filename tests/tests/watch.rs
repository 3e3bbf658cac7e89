//! A viewer on the watch page in real Chromium, from before the stream to after it.

use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::media::{clip, output_dir};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Profile, Tidecast};
use serde::Deserialize;

/// One browser at a time: two would compete for the cores, and latency is what is measured.
static ALONE: Mutex<()> = Mutex::new(());

const STEP_MAX: Duration = Duration::from_secs(60);
const CLIP: &str = "gop-2";
const CLIP_FRAMES: u64 = 900;

#[derive(Deserialize)]
struct Looked {
    /// What axe calls serious or critical.
    axe: Vec<String>,
}

#[derive(Deserialize)]
struct Live {
    axe: Vec<String>,
    watched_s: f64,
    media_s: f64,
    frames: u64,
    dropped: u64,
    size: (u32, u32),
    audio_bytes: u64,
    /// Of the frames, those whose clock could be read.
    readable_share: f64,
    latency_p50_ms: f64,
    latency_p95_ms: f64,
    /// Absent if the page plays natively.
    hls: Option<Hls>,
    requests: Requests,
    failed_requests: Vec<String>,
    picture: Picture,
}

#[derive(Deserialize)]
struct Hls {
    low_latency_mode: bool,
    latency_s: f64,
    target_latency_s: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Requests {
    parts: u64,
    segments: u64,
    blocking_reloads: u64,
}

#[derive(Deserialize)]
struct Picture {
    /// Of the film's frame that is shown.
    number: u64,
    /// 16 x 9 mean colours, row by row.
    colours: Vec<[f64; 3]>,
}

#[derive(Deserialize)]
struct Ended {
    axe: Vec<String>,
    problems: Vec<String>,
}

#[test]
fn a_page_opened_early_goes_live_by_itself_shows_the_film_with_low_latency_and_says_when_it_is_over()
-> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Tidecast::start(Profile::Default)?;
    let stream = "live/film";
    let shots = output_dir()?;
    let page = Browser::run("watch.mjs", &[&server.watch_url(stream), &shots.to_string_lossy()])?;

    let offline: Looked = page.wait_for("offline", STEP_MAX)?;
    ensure!(offline.axe.is_empty(), "offline: {:?}", offline.axe);

    let publisher = Publisher::of_clock(CLIP, &server.publish_url(stream))?;
    let live: Live = page.wait_for("live", STEP_MAX)?;
    live.check()?;

    publisher.stop()?;
    let ended: Ended = page.wait_for("ended", STEP_MAX)?;
    ensure!(ended.axe.is_empty(), "ended: {:?}", ended.axe);
    ensure!(ended.problems.is_empty(), "script errors: {:?}", ended.problems);
    server.stop()
}

#[derive(Deserialize)]
struct Measured {
    first_picture_ms: Quantiles,
    latency_ms: Quantiles,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct Quantiles {
    p50: f64,
    p95: f64,
}

/// How soon the first picture is there, and how exactly, is for the benchmark: other programs may run on this machine.
#[test]
fn profile_low_brings_latency_near_one_second() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Tidecast::start(Profile::Low)?;
    let publisher = Publisher::of_clock(CLIP, &server.publish_url("live/low"))?;
    let http = server.viewer_http();
    poll::until(
        "live",
        STEP_MAX,
        || Ok((http.get("/hls/live/low/index.m3u8")?.status == 200).then_some(())),
    )?;
    let page =
        Browser::run("latency.mjs", &[&server.watch_url("live/low"), "--joins", "3", "--seconds", "10"])?;
    let Measured { first_picture_ms, latency_ms, problems } = page.wait_for("measured", STEP_MAX)?;
    println!("capture to display: p50 {} ms, p95 {} ms", latency_ms.p50, latency_ms.p95);
    println!("first picture: p50 {} ms", first_picture_ms.p50);
    ensure!(problems.is_empty(), "script errors: {problems:?}");
    ensure!(latency_ms.p50 < 1500.0, "capture to display took {} ms", latency_ms.p50);
    publisher.stop()?;
    server.stop()
}

impl Live {
    fn check(&self) -> Result<()> {
        ensure!(self.axe.is_empty(), "live: {:?}", self.axe);
        ensure!(self.failed_requests.is_empty(), "{:?}", self.failed_requests);
        ensure!(self.size == (640, 360), "the picture is {:?}", self.size);

        // It advances: at speed, without stops, with sound.
        let speed = self.media_s / self.watched_s;
        ensure!((0.8..1.2).contains(&speed), "{} s of media in {} s", self.media_s, self.watched_s);
        // A browser on a busy machine drops what it has no time to draw.
        let rate = self.frames as f64 / self.watched_s;
        ensure!(rate > 10.0, "{rate} frames/s shown of 30; {} dropped", self.dropped);
        ensure!(self.audio_bytes > 0, "no sound was decoded");

        // It is low latency, by what hls.js says, by what it asked for, and by the clock in the picture.
        let hls = self.hls.as_ref().context("the page does not use hls.js")?;
        ensure!(hls.low_latency_mode, "hls.js is not in low-latency mode");
        let behind = (hls.latency_s - hls.target_latency_s).abs();
        ensure!(behind < 0.5, "hls.js is at {} s, its target is {} s", hls.latency_s, hls.target_latency_s);
        let parts_expected = (2.0 * self.watched_s / 0.5 * 0.8) as u64;
        ensure!(self.requests.parts >= parts_expected, "{} parts asked for", self.requests.parts);
        ensure!(
            self.requests.blocking_reloads >= parts_expected,
            "{} reloads",
            self.requests.blocking_reloads
        );
        ensure!(
            self.requests.segments < self.requests.parts / 4,
            "{} segments asked for",
            self.requests.segments
        );
        ensure!(self.readable_share > 0.95, "the clock was read in {} of the frames", self.readable_share);
        println!("capture to display: p50 {} ms, p95 {} ms", self.latency_p50_ms, self.latency_p95_ms);
        ensure!(self.latency_p50_ms < 2600.0, "capture to display took {} ms", self.latency_p50_ms);

        // It is the right picture: the frame it says it is, and not another one of the film.
        let right = self.picture.distance(self.picture.number % CLIP_FRAMES)?;
        let wrong = self.picture.distance((self.picture.number + CLIP_FRAMES / 3) % CLIP_FRAMES)?;
        println!("colours: {right} from frame {}, {wrong} from another", self.picture.number);
        ensure!(right < 8.0 && right < wrong / 3.0, "colours are {right} off, and {wrong} off another frame");
        Ok(())
    }
}

impl Picture {
    /// How far the mean colours are from those of a frame of the clip, in steps of 255, below the burned-in rows.
    fn distance(&self, frame: u64) -> Result<f64> {
        let filter = format!("select='eq(n,{frame})',scale=16:9:flags=area");
        let output = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(clip(CLIP)?)
            .args(["-vf", &filter, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
            .output()
            .context("cannot start ffmpeg")?;
        let expected = output.stdout.chunks_exact(3);
        ensure!(expected.len() == self.colours.len(), "{} fields", expected.len());
        let burned_in = 2 * 16;
        let distances = self.colours.iter().zip(expected).skip(burned_in).flat_map(|(shown, expected)| {
            shown.iter().zip(expected).map(|(shown, expected)| (shown - f64::from(*expected)).abs())
        });
        let count = distances.clone().count();
        Ok(distances.sum::<f64>() / count as f64)
    }
}
