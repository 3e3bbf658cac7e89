//! hls.js with playlists that come as delta updates, in real Chromium.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::publisher::Publisher;
use harness::server::{Profile, Tidecast};
use serde::Deserialize;

/// Until the page plays, until six target durations have passed, and the time of watching.
const WATCHED_MAX: Duration = Duration::from_secs(140);

#[derive(Debug, Deserialize)]
struct Watched {
    /// Playlists that hls.js wanted as delta updates.
    asked: u32,
    /// Those that came as such.
    skipped: u32,
    /// Those that hls.js put together with what it had.
    merged: u32,
    /// Those that it could not.
    failed: u32,
    /// How often it waited for media.
    stalls: u32,
    /// What hls.js reported.
    errors: Vec<String>,
    media_s: f64,
    watched_s: f64,
    /// Script errors of the page.
    problems: Vec<String>,
}

#[test]
fn r8_hls_js_plays_on_with_delta_updates() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let stream = "live/delta";
    // Target durations of 3 s: nothing else needs to be waited for so little.
    let publisher = Publisher::of_clip("gop-0.5", &server.publish_url(stream))?;
    let page = Browser::run("delta.mjs", &[&server.watch_url(stream)])?;
    let watched: Watched = page.wait_for("watched", WATCHED_MAX)?;
    println!("{watched:?}");
    // Picture and sound, two reloads a second each, with room for a loaded machine.
    let expected = (2.0 * 2.0 * watched.watched_s / 3.0) as u32;
    ensure!(watched.skipped >= expected && watched.asked >= watched.skipped, "{watched:?}");
    ensure!(watched.merged >= expected && watched.failed == 0, "{watched:?}");
    // A machine with more to do than it can starves a player whatever the playlists are like, and hls.js says so, and that it
    // nudges the picture on; one that cannot make anything of them reports something else, and stands still.
    let is_starved = |error: &&String| ["bufferStalledError", "bufferNudgeOnStall"].contains(&error.as_str());
    let other: Vec<_> = watched.errors.iter().filter(|error| !is_starved(error)).collect();
    ensure!(other.is_empty() && watched.problems.is_empty(), "{watched:?}");
    let speed = watched.media_s / watched.watched_s;
    // A player that was starved leaps to where it should be.
    ensure!((0.5..1.5).contains(&speed), "{speed}, with {} stalls: {watched:?}", watched.stalls);
    publisher.stop()?;
    server.stop()
}
