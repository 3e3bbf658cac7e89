//! Publishers by WHIP (RFC 9725): a browser tab and ffmpeg, watched over LL-HLS; and everything that goes wrong over HTTP.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::http::{Answer, Http};
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{PUBLISH_KEY, Profile, Setup, Tidecast};
use harness::viewer::{Kind, follow};
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(60);

/// Out of Chromium.
const OFFER: &str = include_str!("../../ingest/src/whip/offer/chromium.sdp");
const FRAGMENT: &str =
    "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n";

#[derive(Deserialize)]
struct Published {
    state: String,
}

#[derive(Deserialize)]
struct Looked {
    problems: Vec<String>,
    watched_s: f64,
    frames: u64,
    audio_bytes: u64,
    size: (u32, u32),
    sender: Sender,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sender {
    pli_count: u64,
    nack_count: u64,
    target_bitrate_max: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Restarted {
    changed: bool,
    state: String,
    frames_sent: u64,
}

#[derive(Deserialize)]
struct Ended {
    status: u16,
}

fn state(http: &Http, stream: &str) -> Result<String> {
    let text = http.get_ok(&format!("/state/{stream}"))?.text();
    let state = text.split("\"state\":\"").nth(1).and_then(|rest| rest.split('"').next());
    Ok(state.with_context(|| format!("no state in {text}"))?.to_owned())
}

/// The tab's camera on the watch page in another tab. Its bitrate climbs, it is asked for keyframes (PLI), and
/// goes on after an ICE restart.
#[test]
fn a_browser_tab_goes_live_and_is_watched() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let screenshot = output_dir()?.join("whip.png");
    let (origin, screenshot) = (server.page_url(""), screenshot.to_string_lossy().into_owned());
    let browser = Browser::run("whip.mjs", &[&origin, "live/tab", PUBLISH_KEY, &screenshot, "restart"])?;
    let published: Published = browser.wait_for("published", STEP_MAX)?;
    ensure!(published.state == "connected", "{}", published.state);
    let looked: Looked = browser.wait_for("looked", STEP_MAX)?;
    ensure!(looked.problems.is_empty(), "script errors: {:?}", looked.problems);
    ensure!(looked.size == (640, 360), "the picture is {:?}", looked.size);
    let rate = looked.frames as f64 / looked.watched_s;
    ensure!(rate > 5.0, "{rate} frames/s shown");
    ensure!(looked.audio_bytes > 0, "no sound was decoded");
    let Sender { pli_count, nack_count, target_bitrate_max } = looked.sender;
    ensure!(pli_count >= 3, "asked for {pli_count} keyframes in {} s", looked.watched_s);
    ensure!(nack_count == 0, "{nack_count} packets asked for again on the loopback");
    // It begins at 300 kbit/s, and would stay there without any feedback.
    ensure!(target_bitrate_max > 330_000.0, "the browser aims at {target_bitrate_max} bit/s at most");
    let restarted: Restarted = browser.wait_for("restarted", STEP_MAX)?;
    ensure!(restarted.changed && restarted.state == "connected", "{}", restarted.state);
    ensure!(restarted.frames_sent >= 60);
    let ended: Ended = browser.wait_for("ended", STEP_MAX)?;
    ensure!(ended.status == 200);
    let http = server.viewer_http();
    poll::until("the end", STEP_MAX, || Ok((state(&http, "live/tab")? == "ended").then_some(())))?;
    server.stop()
}

/// Where a firewall drops UDP, the same over TCP (RFC 6544), on the same port number.
#[test]
fn a_browser_without_udp_publishes_over_tcp() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let screenshot = output_dir()?.join("whip-tcp.png");
    let (origin, screenshot) = (server.page_url(""), screenshot.to_string_lossy().into_owned());
    let browser = Browser::run("whip.mjs", &[&origin, "live/tcp", PUBLISH_KEY, &screenshot, "tcp"])?;
    let published: Published = browser.wait_for("published", STEP_MAX)?;
    ensure!(published.state == "connected", "{}", published.state);
    let looked: Looked = browser.wait_for("looked", STEP_MAX)?;
    ensure!(looked.frames > 0 && looked.audio_bytes > 0, "{} frames shown", looked.frames);
    let ended: Ended = browser.wait_for("ended", STEP_MAX)?;
    ensure!(ended.status == 200);
    server.stop()
}

/// H.264 High and Opus, by the rules of LL-HLS, from the first part on.
#[test]
fn ffmpeg_by_whip_makes_a_stream_that_keeps_the_rules() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let publisher = Publisher::of_whip(&server.whip_url("live/ff"), PUBLISH_KEY)?;
    let recording = follow(&http, "live/ff", Duration::from_secs(10))?;
    ensure!(recording.violations.is_empty(), "{:?}", recording.violations);
    let kinds: Vec<_> = recording.renditions.iter().map(|rendition| rendition.kind).collect();
    ensure!(kinds == [Kind::Video, Kind::Audio], "{kinds:?}");
    let video = &recording.renditions[0];
    ensure!(
        video.playlists.last().is_some_and(|playlist| playlist.segments.iter().all(|segment| !segment.gap))
    );
    ensure!(server.metric("whip_packets_lost_total")? == 0.0);
    ensure!(server.metric("whip_publishers")? == 1.0);
    publisher.stop()?;
    poll::until("the end", STEP_MAX, || Ok((state(&http, "live/ff")? == "ended").then_some(())))?;
    poll::until("nobody publishes", STEP_MAX, || {
        Ok((server.metric("whip_publishers")? == 0.0).then_some(()))
    })?;
    server.stop()
}

/// A second publisher is refused while the first sends, and takes over if that is configured; over RTMP or WHIP alike.
#[test]
fn two_publishers_of_one_name_follow_the_rules_of_rtmp() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let first = Publisher::of_clip("gop-2", &server.publish_url("live/one"))?;
    poll::until("live", STEP_MAX, || Ok((state(&http, "live/one")? == "live").then_some(())))?;
    let refused = post(&http, "live/one", PUBLISH_KEY, OFFER)?;
    ensure!(
        refused.status == 409 && refused.text().contains("already"),
        "{}: {}",
        refused.status,
        refused.text()
    );
    first.stop()?;
    server.stop()?;

    let server = Setup::default().set("publish.on_conflict", "takeover").start()?;
    let http = server.viewer_http();
    let first = Publisher::of_whip(&server.whip_url("live/one"), PUBLISH_KEY)?;
    poll::until("live", STEP_MAX, || Ok((state(&http, "live/one")? == "live").then_some(())))?;
    let second = Publisher::of_whip(&server.whip_url("live/one"), PUBLISH_KEY)?;
    server.wait_for_log("the first is sent away", STEP_MAX, |line| {
        line.contains("another publisher has taken over").then_some(())
    })?;
    ensure!(state(&http, "live/one")? == "live");
    second.stop()?;
    // ffmpeg does not listen to our goodbye.
    first.kill()?;
    server.stop()
}

fn post(http: &Http, stream: &str, key: &str, offer: &str) -> Result<Answer> {
    let authorization = format!("Bearer {key}");
    let headers = [("content-type", "application/sdp"), ("authorization", &authorization)];
    http.send("POST", &format!("/whip/{stream}"), &headers, offer.as_bytes())
}

/// RFC 9725, §4, and threat 19: a session's address is not enough to end it, and a key is not either.
#[test]
fn a_session_is_its_publishers_alone() -> Result<()> {
    let server = Setup::default().set("webrtc.ice_servers", "stun:stun.example:3478").start()?;
    let http = server.viewer_http();
    let created = post(&http, "live/cam", PUBLISH_KEY, OFFER)?;
    ensure!(created.status == 201, "{}: {}", created.status, created.text());
    ensure!(created.header("content-type") == "application/sdp");
    ensure!(created.header("link") == "<stun:stun.example:3478>; rel=\"ice-server\"");
    let (location, etag) = (created.header("location"), created.header("etag"));
    let id = location.strip_prefix("/whip/live/cam/").context(location.to_owned())?;
    ensure!(id.len() == 32 && etag.starts_with('"'), "{location} {etag}");
    let answer = created.text();
    let port = server.webrtc_address().port();
    let feedback =
        ["a=rtcp-fb:102 transport-cc", "a=rtcp-fb:102 nack pli", "a=rtcp-fb:102 nack", "a=fmtp:103 apt=102"];
    for line in feedback {
        ensure!(answer.lines().any(|other| other.trim_end() == line), "no {line} in {answer}");
    }
    for line in [
        "a=ice-lite",
        "a=setup:passive",
        "a=recvonly",
        &format!(" udp 2130706431 127.0.0.1 {port} typ host"),
        &format!(" 127.0.0.1 {port} typ host tcptype passive"),
    ] {
        ensure!(answer.contains(line), "no {line} in {answer}");
    }
    ensure!(answer.matches("a=candidate:").count() == 2 && !answer.contains("VP8"), "{answer}");
    let other = post(&http, "live/cam", PUBLISH_KEY, OFFER)?;
    ensure!(other.status == 409, "{}", other.status);

    let (right, wrong) = (format!("Bearer {PUBLISH_KEY}"), "Bearer canary-of-somebody-else");
    let fragment = ("content-type", "application/trickle-ice-sdpfrag");
    let own_fragment = FRAGMENT.replace("EsAw", ufrag(OFFER)?);
    let patch = |key: &str, condition: Option<&str>, body: &str| {
        let mut headers = vec![fragment, ("authorization", key)];
        headers.extend(condition.map(|condition| ("if-match", condition)));
        http.send("PATCH", location, &headers, body.as_bytes())
    };
    ensure!(patch(&right, None, &own_fragment)?.status == 428);
    ensure!(patch(&right, Some("\"another\""), &own_fragment)?.status == 412);
    ensure!(patch(wrong, Some(etag), &own_fragment)?.status == 401);
    ensure!(patch(&right, Some(etag), &own_fragment)?.status == 204);
    let restarted = patch(&right, Some("*"), FRAGMENT)?;
    ensure!(restarted.status == 200 && restarted.header("etag") != etag, "{}", restarted.text());
    ensure!(ufrag(&restarted.text())? != ufrag(&answer)?, "the same name as before: {}", restarted.text());
    ensure!(patch(&right, Some(etag), FRAGMENT)?.status == 412, "an ETag from before the restart");

    let delete = |path: &str, key: &str| http.send("DELETE", path, &[("authorization", key)], b"");
    let refused = delete(location, wrong)?;
    ensure!(refused.status == 401 && refused.header("www-authenticate").starts_with("Bearer"));
    ensure!(delete(&location.replace(id, &"0".repeat(32)), &right)?.status == 404);
    ensure!(delete(location, &right)?.status == 200);
    ensure!(delete(location, &right)?.status == 404);
    ensure!(post(&http, "live/cam", PUBLISH_KEY, OFFER)?.status == 201, "the name is free again");
    server.stop()
}

fn ufrag(sdp: &str) -> Result<&str> {
    let line = sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:"));
    Ok(line.context("no ice-ufrag")?.trim_end())
}

/// Threat 26: the same back-off as for RTMP, with it and not beside it. And the holder of the key is told.
#[test]
fn wrong_keys_are_counted_and_made_to_wait() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    for _ in 0..6 {
        let refused = post(&http, "live/cam", "canary-wrong", OFFER)?;
        ensure!(refused.status == 401, "{}", refused.status);
        ensure!(refused.header("www-authenticate").contains("invalid_token"));
    }
    let waits = post(&http, "live/cam", PUBLISH_KEY, OFFER)?;
    ensure!(waits.status == 429 && !waits.header("retry-after").is_empty(), "{}", waits.status);
    ensure!(server.metric("whip_refused_total{reason=\"wrong_key\"}")? == 6.0);
    server.stop()
}

/// Threats 5 and 8: what strangers send to the UDP port is not answered, and keeps nobody's stream from going on.
#[test]
fn the_udp_port_answers_no_stranger() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let publisher = Publisher::of_whip(&server.whip_url("live/ff"), PUBLISH_KEY)?;
    poll::until("live", STEP_MAX, || Ok((state(&http, "live/ff")? == "live").then_some(())))?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server.webrtc_address())?;
    socket.set_nonblocking(true)?;
    // A binding request without credentials (RFC 8489, §5), DTLS, RTP, RTCP, and nothing known.
    let bare = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[7; 12]].concat();
    for datagram in
        [bare.as_slice(), &[22, 0xFE, 0xFD, 0, 0], &[0x80, 102, 0, 1], &[0x80, 200, 0, 6], &[0xFF; 1_400]]
    {
        for _ in 0..200 {
            socket.send(datagram)?;
        }
    }
    follow(&http, "live/ff", Duration::from_secs(4))?;
    ensure!(socket.recv(&mut [0; 2_000]).is_err(), "a stranger was answered");
    ensure!(server.metric("whip_packets_lost_total")? == 0.0);
    publisher.stop()?;
    server.stop()
}

/// The server goes down: the publisher's connection is closed in order, and the session waits for the next process.
#[test]
fn a_drain_sends_publishers_away_and_ends_no_session() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let publisher = Publisher::of_whip(&server.whip_url("live/ff"), PUBLISH_KEY)?;
    poll::until("live", STEP_MAX, || Ok((state(&http, "live/ff")? == "live").then_some(())))?;
    let server = server.restart(harness::server::End::Drained)?;
    let http = server.viewer_http();
    poll::until("interrupted", STEP_MAX, || Ok((state(&http, "live/ff")? == "interrupted").then_some(())))?;
    publisher.kill()?;
    let again = Publisher::of_whip(&server.whip_url("live/ff"), PUBLISH_KEY)?;
    poll::until("live again", STEP_MAX, || Ok((state(&http, "live/ff")? == "live").then_some(())))?;
    again.stop()?;
    server.stop()
}
