//! Publishers as they are: too fast, gone too soon, or back at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::{Http, resolve};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Profile, Tidecast};
use harness::strict::{MediaPlaylist, MultivariantPlaylist};

const START_MAX: Duration = Duration::from_secs(40);

/// The path of the video playlist, once there is one.
fn video_playlist(http: &Http, stream: &str) -> Result<String> {
    let path = format!("/hls/{stream}/index.m3u8");
    let text = poll::until("the first playlist", START_MAX, || {
        let answer = http.get(&path)?;
        Ok((answer.status == 200).then(|| answer.text()))
    })?;
    let variants = MultivariantPlaylist::parse(&text)?.variants;
    Ok(resolve(&path, &variants.first().context("no variant")?.uri))
}

fn state(http: &Http, stream: &str) -> Result<String> {
    let text = http.get_ok(&format!("/state/{stream}"))?.text();
    let state = text.split("\"state\":\"").nth(1).and_then(|rest| rest.split('"').next());
    Ok(state.with_context(|| format!("no state in {text}"))?.to_owned())
}

/// ffmpeg without `-re` sends half a minute within a moment. It is slowed down to real time, and the stream lives to its end.
#[test]
fn a_file_sent_as_fast_as_possible_is_live_in_real_time() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let started = Instant::now();
    let publisher = Publisher::of_file("gop-2", &server.publish_url("live/fast"))?;
    let video = video_playlist(&http, "live/fast")?;
    let playlist = poll::until("the end of the clip", Duration::from_secs(60), || {
        let playlist = MediaPlaylist::parse(&http.get_ok(&video)?.text())?;
        Ok(playlist.ended.then_some(playlist))
    })?;
    publisher.stop()?;
    ensure!(started.elapsed() > Duration::from_secs(20), "30 s of media took {:?}", started.elapsed());
    // ffmpeg hangs up without reading our last acknowledgement, and TCP may then take back what it sent last: the goodbye,
    // too, so that the end comes after the linger.
    let media = playlist.segments.iter().rev().find(|segment| !segment.gap);
    let last = media.context("no segment")?.msn;
    ensure!((12..=14).contains(&last), "the last of 15 segments is {last}");
    server.stop()
}

/// A name is free again the moment its publisher is gone, and the next session takes over the address.
#[test]
fn a_publisher_that_comes_back_at_once_is_live_again() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let mut before = String::new();
    for _ in 0..3 {
        let publisher = Publisher::of_clip("gop-0.5", &server.publish_url("live/again"))?;
        let video = poll::until("a new session", START_MAX, || {
            let video = video_playlist(&http, "live/again")?;
            Ok((video != before).then_some(video))
        })?;
        ensure!(state(&http, "live/again")? == "live");
        publisher.stop()?;
        poll::until("the end", START_MAX, || Ok((state(&http, "live/again")? == "ended").then_some(())))?;
        poll::until("the end of the playlist", START_MAX, || {
            Ok(http.get_ok(&video)?.text().contains("#EXT-X-ENDLIST").then_some(()))
        })?;
        before = video;
    }
    server.stop()
}

#[test]
fn a_publisher_that_leaves_before_it_was_live_leaves_nothing() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let http = server.viewer_http();
    let publisher = Publisher::of_clip("gop-2", &server.publish_url("live/short"))?;
    poll::until("starting", START_MAX, || Ok((state(&http, "live/short")? == "starting").then_some(())))?;
    publisher.stop()?;
    server.wait_for_log("the end", START_MAX, |line| line.contains("publication ended").then_some(()))?;
    poll::until("nothing", START_MAX, || Ok((state(&http, "live/short")? == "offline").then_some(())))?;
    ensure!(http.get("/hls/live/short/index.m3u8")?.status == 404);
    server.stop()
}
