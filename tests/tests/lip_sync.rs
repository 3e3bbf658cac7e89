//! Sound and picture of one moment are seen and heard at one time by viewers by WebRTC, however the stream came.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::publisher::Publisher;
use harness::server::{PUBLISH_KEY, Setup, Tidecast};
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(90);

/// One browser at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What is noticed (ITU-R BT.1359: sound 45 ms early or 125 ms late), and what a browser on a busy machine is inexact by.
const OFFSET_MS_MAX: f64 = 80.0;

/// By how many milliseconds each beep was heard after its flash was seen.
#[derive(Debug, Deserialize)]
struct Watched {
    heard: Vec<f64>,
    /// Of that, what the browser knows of.
    own: Vec<f64>,
    /// The rest.
    told: Vec<f64>,
    problems: Vec<String>,
}

/// By the median of some flashes. How long a browser keeps sound and pictures is its own affair, and on a busy machine a matter of
/// chance; what the server says of when they belong is not.
fn is_in_step(server: &Tidecast, stream: &str) -> Result<()> {
    let browser = Browser::run("lip-sync.mjs", &[&server.page_url(""), stream, "20"])?;
    let watched: Watched = browser.wait_for("watched", STEP_MAX)?;
    ensure!(watched.problems.is_empty(), "script errors: {:?}", watched.problems);
    ensure!(watched.told.len() >= 6, "of ten flashes few had a beep: {watched:?}");
    let [heard, own, told] = [&watched.heard, &watched.own, &watched.told].map(|offsets| median(offsets));
    println!("{stream}: sound late by {heard:.0} ms, of which the browser knows {own:.0}");
    ensure!(told.abs() < OFFSET_MS_MAX, "told {told:.0} ms wrong: {watched:?}");
    Ok(())
}

fn median(offsets: &[f64]) -> f64 {
    let mut sorted = offsets.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// AAC becomes Opus on the way.
#[test]
fn what_came_by_rtmp_is_in_step() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Setup::default().set("transcode.ladder", "180:200k").start()?;
    let publisher = Publisher::of_flashes(&server.publish_url("live/rtmp"))?;
    is_in_step(&server, "live/rtmp")?;
    publisher.stop()?;
    server.stop()
}

#[test]
fn what_came_by_whip_is_in_step() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Setup::default().start()?;
    let publisher = Publisher::of_whip_flashes(&server.whip_url("live/whip"), PUBLISH_KEY)?;
    is_in_step(&server, "live/whip")?;
    publisher.stop()?;
    server.stop()
}
