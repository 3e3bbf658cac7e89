//! Viewers by WHEP: real Chromium over WebRTC, of streams that came by RTMP and by WHIP; and what goes wrong over HTTP.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::http::{Answer, Http};
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{PUBLISH_KEY, Profile, Setup, Tidecast};
use harness::watched::Watched;
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(90);

/// Out of Chromium.
const OFFER: &str = include_str!("../../core/rtc/src/sdp/fixtures/chromium.sdp");

#[derive(Debug, Deserialize)]
struct Seen {
    times: Times,
    watched_s: f64,
    frames: u64,
    lost: i64,
    delay_ms: f64,
    energy: f64,
    width: u32,
    profile: String,
}

#[derive(Debug, Deserialize)]
struct Times {
    post_ms: f64,
    shown_ms: f64,
}

#[derive(Deserialize)]
struct Pinned {
    status: u16,
    width: u32,
    switched_ms: f64,
    freezes: u64,
    lost: i64,
}

#[derive(Deserialize)]
struct Returned {
    stood_ms: f64,
    state: String,
}

#[derive(Deserialize)]
struct Playing {}

#[derive(Deserialize)]
struct Ended {}

/// For who reads the log: nothing here is promised on a busy machine.
fn tell(seen: &Seen) {
    let Seen { times: Times { post_ms, shown_ms }, delay_ms, lost, .. } = seen;
    // Packets are lost where a browser has no time to take them.
    println!(
        "answered after {post_ms:.0} ms, shown after {shown_ms:.0}; {delay_ms:.0} ms in the jitter buffer, {lost} packets lost"
    );
}

/// What any viewer of a stream of this width should have seen. The machine is busy, so two thirds of the pictures may be missing.
fn looks_right(seen: &Seen, width: u32, frames_per_second: f64) -> Result<()> {
    tell(seen);
    ensure!(seen.width == width, "{} pixels wide", seen.width);
    ensure!(seen.frames as f64 / seen.watched_s > frames_per_second / 3.0, "{} frames", seen.frames);
    ensure!(seen.energy > 0.0, "nothing was heard");
    ensure!(seen.profile == "SRTP_AEAD_AES_128_GCM", "sealed with {}", seen.profile);
    Ok(())
}

/// AAC becomes Opus for the viewer alone; a rung is shown without a new offer; the session outlives its publisher, and ends with
/// the stream.
#[test]
fn an_rtmp_stream_is_watched_by_webrtc() -> Result<()> {
    let server = Setup::default().set("transcode.ladder", "180:200k").start()?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/cam"))?;
    let watched = Watched::of(&server, "live/cam");
    poll::until("a ladder", STEP_MAX, || Ok((watched.whole("v180")?.len() > 1).then_some(())))?;
    let screenshot = output_dir()?.join("whep.png");
    let (origin, screenshot) = (server.page_url(""), screenshot.to_string_lossy().into_owned());
    let browser = Browser::run("whep.mjs", &[&origin, "live/cam", "6", &screenshot, "v180"])?;
    // Six seconds before it asks for another rendition.
    let Playing {} = browser.wait_for("playing", STEP_MAX)?;
    ensure!(server.metric("whep_viewers")? == 1.0);
    poll::until("the publisher's own to be sent", STEP_MAX, || {
        Ok((server.metric("whep_rendition_viewers{rendition=\"v\"}")? == 1.0).then_some(()))
    })?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    looks_right(&seen, 640, 30.0)?;
    let state: serde_json::Value =
        serde_json::from_slice(&server.viewer_http().get_ok("/state/live/cam")?.body)?;
    // Who asked for the ladder is taken for a viewer or more.
    ensure!(state["viewers"].as_u64() >= Some(1), "{state}");
    let pinned: Pinned = browser.wait_for("pinned", STEP_MAX)?;
    ensure!(server.metric("whep_rendition_viewers{rendition=\"v180\"}")? == 1.0);
    let Pinned { status, width, switched_ms, freezes, lost } = pinned;
    println!("another rendition after {switched_ms:.0} ms, with {freezes} freezes, {lost} packets lost");
    ensure!((status, width) == (204, 320), "{status}: {width} pixels wide");

    publisher.kill()?;
    poll::until("an interruption", STEP_MAX, || {
        let state = server.viewer_http().get_ok("/state/live/cam")?.text();
        Ok(state.contains("\"state\":\"interrupted\"").then_some(()))
    })?;
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/cam"))?;
    let returned: Returned = browser.wait_for("returned", STEP_MAX)?;
    ensure!(returned.state == "connected", "{}", returned.state);
    println!("stood still for {:.0} ms, and went on", returned.stood_ms);
    publisher.stop()?;
    let Ended {} = browser.wait_for("ended", STEP_MAX)?;
    poll::until("nobody watches", STEP_MAX, || Ok((server.metric("whep_viewers")? == 0.0).then_some(())))?;
    counts_add_up(&server)?;
    server.stop()
}

/// Of one viewer, who came, was turned to another rendition, and was told goodbye.
fn counts_add_up(server: &Tidecast) -> Result<()> {
    for (name, count) in [
        ("whep_answered_total", 1.0),
        ("whep_connected_total", 1.0),
        ("whep_handshakes_failed_total", 0.0),
        ("whep_rendition_changes_total{reason=\"pinned\"}", 1.0),
        ("whep_ended_total{reason=\"by_us\"}", 1.0),
        ("whep_rendition_viewers{rendition=\"v180\"}", 0.0),
    ] {
        let counted = server.metric(name)?;
        ensure!(counted == count, "{name} is {counted}");
    }
    // It reports once a second, and was sent some 600 pictures in fewer system calls than packets.
    ensure!(server.metric("whep_estimate_bits_per_second_count")? > 5.0);
    let (sent, sends) = (server.metric("webrtc_sent_total")?, server.metric("webrtc_sends_total")?);
    ensure!(sent > 1_000.0 && sends < sent, "{sent} datagrams in {sends} sends");
    Ok(())
}

/// From camera to screen over WebRTC alone, Opus as it came.
#[test]
fn a_whip_publisher_is_watched_by_webrtc() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let publisher = Publisher::of_whip(&server.whip_url("live/tab"), PUBLISH_KEY)?;
    let http = server.viewer_http();
    poll::until("a stream", STEP_MAX, || {
        Ok(http.get_ok("/state/live/tab")?.text().contains("\"state\":\"live\"").then_some(()))
    })?;
    let screenshot = output_dir()?.join("whep-of-whip.png");
    let (origin, screenshot) = (server.page_url(""), screenshot.to_string_lossy().into_owned());
    let browser = Browser::run("whep.mjs", &[&origin, "live/tab", "6", &screenshot])?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    tell(&seen);
    ensure!(seen.frames as f64 / seen.watched_s > 10.0, "{seen:?}");
    publisher.stop()?;
    let Ended {} = browser.wait_for("ended", STEP_MAX)?;
    server.stop()
}

fn post(http: &Http, path: &str, kind: &str, body: &str) -> Result<Answer> {
    http.send("POST", path, &[("Content-Type", kind)], body.as_bytes())
}

#[test]
fn requests_that_lead_nowhere_are_told_why() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let absent = post(&http, "/whep/live/nobody", "application/sdp", OFFER)?;
    ensure!(absent.status == 404 && !absent.header("retry-after").is_empty(), "{}", absent.text());

    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/cam"))?;
    // It is published by then, and waits.
    let answer = post(&http, "/whep/live/cam?wait", "application/sdp", OFFER)?;
    ensure!(answer.status == 201, "{}: {}", answer.status, answer.text());
    let session = answer.header("location").to_owned();
    ensure!(
        answer.text().contains("a=ice-lite") && answer.text().contains("a=sendonly"),
        "{}",
        answer.text()
    );
    let etag = answer.header("etag").to_owned();

    let without_video = post(&http, "/whep/live/cam", "application/sdp", "v=0\r\n")?;
    ensure!((400..=406).contains(&without_video.status), "{}", without_video.text());
    ensure!(post(&http, "/whep/live/cam", "text/plain", OFFER)?.status == 415);
    ensure!(post(&http, "/whep/live/..", "application/sdp", OFFER)?.status == 404);
    let long = "a".repeat(70_000);
    ensure!(post(&http, "/whep/live/cam", "application/sdp", &long)?.status == 413);
    ensure!(http.send("GET", "/whep/live/cam", &[], b"")?.status == 405);
    let options = http.send("OPTIONS", "/whep/live/cam", &[], b"")?;
    ensure!(options.status == 204 && options.header("access-control-allow-methods") == "OPTIONS, POST");

    let fragment = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n";
    let patch = |condition: Option<&str>, kind, body: &str| {
        let headers = [("Content-Type", kind), ("If-Match", condition.unwrap_or_default())];
        let headers = if condition.is_some() { &headers[..] } else { &headers[..1] };
        http.send("PATCH", &session, headers, body.as_bytes())
    };
    let trickle = "application/trickle-ice-sdpfrag";
    ensure!(patch(None, trickle, fragment)?.status == 428);
    ensure!(patch(Some("\"other\""), trickle, fragment)?.status == 412);
    ensure!(patch(Some(&etag), trickle, fragment)?.status == 204);
    let restarted = patch(Some("*"), trickle, fragment)?;
    ensure!(restarted.status == 200 && restarted.text().contains("a=ice-pwd:"), "{}", restarted.text());
    ensure!(patch(Some(&etag), trickle, fragment)?.status == 412, "that was of the generation before");
    ensure!(patch(None, "application/json", "{\"rendition\": 7}")?.status == 400);
    ensure!(patch(None, "application/json", "{\"rendition\": null}")?.status == 204);
    ensure!(patch(None, "application/json", "{\"rendition\": \"v\"}")?.status == 204);
    let unknown = patch(None, "application/json", "{\"rendition\": \"v720\"}")?;
    ensure!(
        unknown.status == 422 && unknown.text() == "there is no such rendition here; there are: v\n",
        "{}: {}",
        unknown.status,
        unknown.text()
    );
    ensure!(http.send("DELETE", &session, &[], b"")?.status == 200);
    poll::until("the end of the session", STEP_MAX, || {
        Ok((http.send("DELETE", &session, &[], b"")?.status == 404).then_some(()))
    })?;
    ensure!(server.metric("whep_viewers")? == 0.0);
    publisher.stop()?;
    server.stop()
}
