//! A browser that publishes in another codec than H.264: what viewers by WebRTC and by LL-HLS see of it, and who is turned
//! away.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::media::output_dir;
use harness::server::{PUBLISH_KEY, Setup};
use serde::Deserialize;

/// One browser at a time: it encodes and decodes in software.
static ALONE: Mutex<()> = Mutex::new(());

const STEP_MAX: Duration = Duration::from_secs(90);

/// Out of Chromium.
const OFFER: &str = include_str!("../../ingest/src/whip/offer/chromium.sdp");

#[derive(Deserialize)]
struct Published {
    codec: String,
}

#[derive(Debug, Deserialize)]
struct Seen {
    /// Pixels of 64x36 that have changed.
    moved: u32,
    width: u32,
    height: u32,
    /// Of a viewer by WebRTC.
    codec: String,
    problems: Vec<String>,
}

#[derive(Deserialize)]
struct Ended {
    status: u16,
}

/// WebRTC carries it as it came; by HLS no player takes it, and there is what is made of it.
#[test]
fn vp8_is_seen_by_everybody() -> Result<()> {
    let multivariant = shown("auto", "VP8", None, "video/VP8")?;
    ensure!(!multivariant.contains("vp08") && multivariant.contains("avc1"), "{multivariant}");
    Ok(())
}

/// Without an encoder nothing of this is made of anything else.
#[test]
fn vp9_passes_through() -> Result<()> {
    let multivariant = shown("off", "VP9", None, "video/VP9")?;
    ensure!(multivariant.contains("vp09") && !multivariant.contains("avc1"), "{multivariant}");
    Ok(())
}

#[test]
fn av1_passes_through() -> Result<()> {
    let multivariant = shown("off", "AV1", None, "video/AV1")?;
    ensure!(multivariant.contains("av01") && !multivariant.contains("avc1"), "{multivariant}");
    Ok(())
}

#[test]
fn a_viewer_without_the_publishers_codec_is_sent_what_is_made_of_it() -> Result<()> {
    let multivariant = shown("auto", "VP9", Some("H264"), "video/H264")?;
    ensure!(multivariant.contains("vp09") && multivariant.contains("avc1"), "{multivariant}");
    Ok(())
}

/// Viewers by HLS would see nothing.
#[test]
fn vp8_is_refused_where_nothing_is_transcoded() -> Result<()> {
    let formats = OFFER.lines().find(|line| line.starts_with("m=video")).unwrap_or_default();
    let vp8 = OFFER.replace(formats, "m=video 9 UDP/TLS/RTP/SAVPF 96 97");
    for (key, value) in [("transcode.ladder", "off"), ("transcode.encoder", "/nonexistent/tidecast-encoder")]
    {
        let server = Setup::default().set(key, value).start()?;
        let authorization = format!("Bearer {PUBLISH_KEY}");
        let headers = [("content-type", "application/sdp"), ("authorization", authorization.as_str())];
        let refused = server.viewer_http().send("POST", "/whip/live/vp8", &headers, vp8.as_bytes())?;
        let words = refused.text();
        ensure!(refused.status == 422 && words.contains("VP8") && words.contains("no encoder"), "{words}");
        server.stop()?;
    }
    Ok(())
}

/// Publishes in `codec`, and looks at what comes by both ways. Returns the multivariant playlist.
fn shown(ladder: &str, codec: &str, viewer: Option<&str>, expected: &str) -> Result<String> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Setup::default().set("transcode.ladder", ladder).start()?;
    let stream = format!("live/{}", codec.to_lowercase());
    let screenshot = output_dir()?.join(format!("whip-{}.png", codec.to_lowercase()));
    let (origin, screenshot) = (server.page_url(""), screenshot.to_string_lossy().into_owned());
    let mut arguments = vec![origin.as_str(), &stream, PUBLISH_KEY, &screenshot, codec];
    arguments.extend(viewer);
    let browser = Browser::run("whip-codecs.mjs", &arguments)?;
    let published: Published = browser.wait_for("published", STEP_MAX)?;
    ensure!(published.codec == format!("video/{codec}"), "the browser sends {}", published.codec);
    let watched: Seen = browser.wait_for("watched", STEP_MAX)?;
    ensure!(watched.moved >= 20 && (watched.width, watched.height) == (640, 360), "{watched:?}");
    ensure!(watched.codec == expected, "by WebRTC comes {}", watched.codec);
    let played: Seen = browser.wait_for("played", STEP_MAX)?;
    let multivariant = server.viewer_http().get_ok(&format!("/hls/{stream}/index.m3u8"))?.text();
    // Auto begins with a smaller one where the machine is slow.
    let size = format!("RESOLUTION={}x{}", played.width, played.height);
    ensure!(played.moved >= 20 && multivariant.contains(&size), "{played:?}: {multivariant}");
    ensure!(played.problems.is_empty(), "script errors: {:?}", played.problems);
    let ended: Ended = browser.wait_for("ended", STEP_MAX)?;
    ensure!(ended.status == 200);
    ensure!(server.metric("whip_packets_lost_total")? == 0.0);
    server.stop()?;
    Ok(multivariant)
}
