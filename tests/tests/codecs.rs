//! HEVC, AV1 and Opus, published by Enhanced RTMP, on the watch page in real Chromium: what it can play it shows, and of
//! what it cannot it says so.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::http::Http;
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Profile, Tidecast};
use serde::Deserialize;

/// One browser at a time: AV1 is decoded in software.
static ALONE: Mutex<()> = Mutex::new(());

const STEP_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Looked {
    problems: Vec<String>,
    state: String,
    title: String,
    frames: u64,
    watched_s: f64,
    audio_bytes: u64,
    size: (u32, u32),
    /// Requests for playlists, but for blocking reloads, after the page had made up its mind.
    playlists_after: u64,
}

#[test]
fn av1_and_opus_play_in_chromium() -> Result<()> {
    plays("av1-opus", (320, 180), 25.0)
}

#[test]
fn avc_and_opus_play_in_chromium() -> Result<()> {
    plays("h264-opus", (640, 360), 30.0)
}

/// Debian's Chromium has no decoder for HEVC. The page says so once, instead of starting over again and again.
#[test]
fn a_browser_without_hevc_is_told_so() -> Result<()> {
    let looked = look("hevc")?;
    ensure!(looked.state == "error", "the page is {}", looked.state);
    ensure!(looked.title == "This browser cannot play HEVC", "the page says {:?}", looked.title);
    ensure!(looked.playlists_after == 0, "{} playlists asked for afterwards", looked.playlists_after);
    Ok(())
}

/// The broadcaster's program takes all its tracks for shown; the state that its page polls says which are not.
#[test]
fn tracks_that_are_left_out_are_named() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let publisher = Publisher::of_enhanced_clip("multitrack", &server.publish_url("live/many"))?;
    let state = live_state(&server.viewer_http(), "live/many")?;
    let left_out = "Left out: video track 1 (HEVC), audio track 1 (Opus).";
    ensure!(state.contains(left_out), "{state}");
    let told = server.log().iter().filter(|line| line.contains(left_out)).count();
    ensure!(told == 1, "logged {told} times");
    publisher.stop()?;
    server.stop()
}

fn plays(clip: &str, size: (u32, u32), frame_rate: f64) -> Result<()> {
    let looked = look(clip)?;
    ensure!(looked.state == "live", "the page is {}: {}", looked.state, looked.title);
    ensure!(looked.size == size, "the picture is {:?}", looked.size);
    let rate = looked.frames as f64 / looked.watched_s;
    // Decoded in software, on a busy machine.
    ensure!(rate > frame_rate / 3.0, "{rate} frames/s shown of {frame_rate}");
    ensure!(looked.audio_bytes > 0, "no sound was decoded");
    Ok(())
}

/// What the page shows of a clip while it is published.
fn look(clip: &str) -> Result<Looked> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Tidecast::start(Profile::Default)?;
    let stream = format!("live/{clip}");
    let publisher = Publisher::of_enhanced_clip(clip, &server.publish_url(&stream))?;
    live_state(&server.viewer_http(), &stream)?;
    let screenshot = output_dir()?.join(format!("codecs-{clip}.png"));
    let page = Browser::run("codecs.mjs", &[&server.watch_url(&stream), &screenshot.to_string_lossy()])?;
    let looked: Looked = page.wait_for("looked", STEP_MAX)?;
    ensure!(looked.problems.is_empty(), "script errors: {:?}", looked.problems);
    publisher.stop()?;
    server.stop()?;
    Ok(looked)
}

/// The state of a stream in JSON, once it is live.
fn live_state(http: &Http, stream: &str) -> Result<String> {
    poll::until("live", STEP_MAX, || {
        let text = http.get_ok(&format!("/state/{stream}"))?.text();
        Ok(text.contains("\"state\":\"live\"").then_some(text))
    })
    .with_context(|| stream.to_owned())
}
