//! A broadcaster on the connect page in real Chromium, from a mistyped key to a stream on the air.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{PUBLISH_KEY, Profile, Setup, Tidecast};
use serde::Deserialize;

const STEP_MAX: Duration = Duration::from_secs(60);
const REFUSAL_MAX: Duration = Duration::from_secs(30);
const WRONG_KEY: &str = "canary-of-somebody-else-81c2";

#[derive(Deserialize)]
struct Looked {
    /// What axe calls serious or critical.
    axe: Vec<String>,
}

#[derive(Deserialize)]
struct Open {
    server: String,
    link: String,
}

#[derive(Deserialize)]
struct Refused {
    axe: Vec<String>,
    words: String,
}

#[derive(Deserialize)]
struct Live {
    axe: Vec<String>,
    /// Label, value and detail of each.
    dials: Vec<String>,
    banner: bool,
    problems: Vec<String>,
    /// Addresses with the key in them.
    leaks: u32,
    /// The key is kept longer than the tab.
    stored: bool,
}

#[test]
fn a_broadcaster_learns_why_the_encoder_is_refused_and_then_how_the_stream_is() -> Result<()> {
    let server = Tidecast::start(Profile::Default)?;
    let (page, folder) = (server.page_url("/connect"), output_dir()?);
    let browser =
        Browser::run_with("connect.mjs", &[&page, &folder.to_string_lossy()], &[("KEY", PUBLISH_KEY)])?;
    let looked: Looked = browser.wait_for("wrong_key", STEP_MAX)?;
    ensure!(looked.axe.is_empty(), "{:?}", looked.axe);
    let open: Open = browser.wait_for("open", STEP_MAX)?;
    let rtmp = server.publish_url("live/cam1");
    ensure!(rtmp.starts_with(&format!("{}/cam1?key=", open.server)), "{} is not {rtmp}", open.server);
    ensure!(open.link == server.watch_url("live/cam1"), "{}", open.link);

    Publisher::of_clip("gop-2", &server.publish_url_with_key("live/cam1", WRONG_KEY))?
        .refused(REFUSAL_MAX)?;
    let refused: Refused = browser.wait_for("refused", STEP_MAX)?;
    ensure!(refused.axe.is_empty(), "{:?}", refused.axe);
    ensure!(
        refused.words.starts_with("Turned away: wrong key (live/cam1, from 127.0.0.1, ffmpeg (Lavf "),
        "{}",
        refused.words
    );

    let publisher = Publisher::of_clip("gop-2", &rtmp)?;
    let live: Live = browser.wait_for("live", STEP_MAX)?;
    publisher.stop()?;
    ensure!(live.axe.is_empty() && live.problems.is_empty(), "{:?} {:?}", live.axe, live.problems);
    ensure!(!live.banner, "an alarm over a stream that is on the air");
    for dial in ["Keyframe every 2.0 s", "H.264", "AAC 48 kHz stereo"] {
        ensure!(live.dials.iter().any(|shown| shown.contains(dial)), "no {dial}: {:?}", live.dials);
    }
    ensure!(live.leaks == 0 && !live.stored, "the key is in {} addresses, kept: {}", live.leaks, live.stored);

    let report = server
        .viewer_http()
        .get_with("/connect/state/live/cam1", &[("Authorization", &format!("Bearer {PUBLISH_KEY}"))])?;
    let texts = [
        report.text(),
        server.viewer_http().get_ok("/state")?.text(),
        server.log().join("\n"),
        server.admin_http().get_ok("/metrics")?.text(),
    ];
    ensure!(report.status == 200 && texts[0].contains("wrong key"), "{}", texts[0]);
    let leak = texts.iter().find(|text| text.contains(PUBLISH_KEY) || text.contains(WRONG_KEY));
    ensure!(leak.is_none(), "a key is in {leak:?}");
    ensure!(texts[3].contains("connect_wrong_keys_total 1"), "{}", texts[3]);
    Ok(())
}

#[test]
fn an_unlisted_stream_is_watched_by_its_link_alone() -> Result<()> {
    let server = Setup::default().set("streams.unlisted", "live/backstage, test/*").start()?;
    let publisher = Publisher::of_clip("gop-0.5", &server.publish_url("live/backstage"))?;
    let http = server.viewer_http();
    poll::until("live/backstage live", Duration::from_secs(20), || {
        let state = http.get_ok("/state/live/backstage")?.text();
        Ok(state.contains(r#""state":"live""#).then_some(()))
    })?;
    http.get_ok("/hls/live/backstage/index.m3u8")?;
    http.get_ok("/watch/live/backstage")?;
    let list = http.get_ok("/state")?.text();
    ensure!(list.starts_with(r#"{"streams":[],"#), "{list}");
    publisher.stop()
}
