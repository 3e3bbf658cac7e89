//! What viewers see of an interruption, in real players: hls.js, shaka and Chromium's own HLS, bare as people embed
//! them, and our page.
//! The player measures how long its picture stood still; the server is not asked.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Profile, Setup, Tidecast};
use serde::Deserialize;

const STREAM: &str = "live/clock";
const CLIP: &str = "gop-2";
const ALL: &str = "watch,hls.js,shaka,native";
/// Everybody has a picture, and has had one for a while.
const PLAYING_MAX: Duration = Duration::from_secs(90);
/// What they saw, and three seconds of moving pictures in every player.
const SEEN_MAX: Duration = Duration::from_secs(150);

/// A viewer's freeze beyond the outage itself, of four players on two cores. Half of what it takes our page to start over.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
/// What our page may take for it. It asks every second at first, and shows the first picture there is.
const PAGE_RECOVERY_MAX: Duration = Duration::from_secs(5);

/// Browsers decode in software: two at once on two cores measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Deserialize)]
struct Playing {}

#[derive(Debug, Deserialize)]
struct Report {
    players: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    name: String,
    /// `None`: the picture never came back.
    freeze_ms: Option<u64>,
    /// What the player gave up for.
    #[expect(dead_code, reason = "for the message")]
    fatal: Option<String>,
    #[expect(dead_code, reason = "for the message")]
    error: Option<String>,
    problems: Vec<String>,
}

fn publisher(server: &Tidecast) -> Result<Publisher> {
    Publisher::of_clock(CLIP, &server.publish_url(STREAM))
}

/// Viewers who tell after `seconds` what they saw, see [`seen`].
fn watch(server: &Tidecast, players: &str, seconds: u32) -> Result<Browser> {
    let origin = format!("http://{}", server.http_address());
    let screenshots = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/test-output/players");
    fs::create_dir_all(&screenshots)?;
    let (screenshots, seconds) = (screenshots.to_string_lossy(), seconds.to_string());
    let browser = Browser::run("players.mjs", &[&origin, STREAM, players, &screenshots, &seconds])?;
    browser.wait_for::<Playing>("playing", PLAYING_MAX)?;
    Ok(browser)
}

/// The freeze of each player; fails if one of them did not come back by itself, or the page had a problem.
fn seen(browser: &Browser) -> Result<Vec<(String, Duration)>> {
    let report: Report = browser.wait_for("seen", SEEN_MAX)?;
    println!("{report:?}");
    report
        .players
        .into_iter()
        .map(|player| {
            ensure!(player.problems.is_empty(), "{player:?}");
            let freeze = player.freeze_ms.with_context(|| format!("it never came back: {player:?}"))?;
            Ok((player.name, Duration::from_millis(freeze)))
        })
        .collect()
}

/// Until a publisher that came back has been heard, and its first segment is there.
const MEDIA_BACK_MAX: Duration = Duration::from_secs(40);

/// Waits for media behind the interruption's gaps.
fn wait_for_media(server: &Tidecast) -> Result<()> {
    let http = server.viewer_http();
    poll::until("media after the interruption", MEDIA_BACK_MAX, || {
        let multivariant = http.get(&format!("/hls/{STREAM}/index.m3u8"))?.text();
        let Some(video) = multivariant.lines().rfind(|line| !line.starts_with('#')) else { return Ok(None) };
        let playlist = http.get(&format!("/hls/{STREAM}/{video}"))?.text();
        // Listed, or only counted where the window of a new process began behind it.
        let interrupted = ["#EXT-X-DISCONTINUITY\n", "#EXT-X-DISCONTINUITY-SEQUENCE:1\n"];
        let interrupted = interrupted.iter().any(|tag| playlist.contains(tag));
        let newest = playlist.lines().rfind(|line| line.starts_with("#EXT-X-PART:"));
        let has_media = newest.is_some_and(|part| !part.contains("GAP=YES"));
        Ok((interrupted && has_media).then_some(()))
    })
}

/// The publisher is killed, and another one is there after `away`. Who is far enough behind may not even notice.
fn survive_an_outage(away: Duration) -> Result<()> {
    let _alone = alone();
    let server = Tidecast::start(Profile::Default)?;
    let first = publisher(&server)?;
    let browser = watch(&server, ALL, 40)?;
    let killed = Instant::now();
    first.kill()?;
    // The outage is the scenario: it has to last.
    poll::until("the outage to pass", away * 2, || Ok((killed.elapsed() >= away).then_some(())))?;
    let second = publisher(&server)?;
    let frozen = seen(&browser)?;
    ensure!(frozen.iter().all(|(_, freeze)| *freeze < away + RECOVERY_MAX), "{frozen:?}");
    drop((browser, second));
    server.stop()
}

#[test]
fn our_page_and_bare_players_come_back_by_themselves_after_two_seconds() -> Result<()> {
    survive_an_outage(Duration::from_secs(2))
}

#[test]
fn our_page_and_bare_players_come_back_by_themselves_after_fifteen_seconds() -> Result<()> {
    survive_an_outage(Duration::from_secs(15))
}

/// A half-open publisher: its connection stays, and nothing comes. The second one takes over.
#[test]
fn viewers_are_back_when_a_half_open_publisher_is_taken_over_from() -> Result<()> {
    let _alone = alone();
    let server = Tidecast::start(Profile::Default)?;
    let half_open = publisher(&server)?;
    let browser = watch(&server, ALL, 40)?;
    let silent = Instant::now();
    half_open.freeze()?;
    server.wait_for_log("gaps", MEDIA_BACK_MAX, |line| line.contains("no media").then_some(()))?;
    let second = Publisher::once_free(&server, MEDIA_BACK_MAX, || publisher(&server))?;
    wait_for_media(&server)?;
    let away = silent.elapsed();
    let frozen = seen(&browser)?;
    ensure!(frozen.iter().all(|(_, freeze)| *freeze < away + RECOVERY_MAX), "{away:?} away: {frozen:?}");
    drop((browser, second));
    server.stop()
}

/// The server ends and is started again; no page is reloaded.
fn survive_a_restart(end: End, players: &str, seconds: u32) -> Result<()> {
    let _alone = alone();
    let server = Tidecast::start(Profile::Default)?;
    let first = publisher(&server)?;
    let browser = watch(&server, players, seconds)?;
    let ended = Instant::now();
    let server = server.restart(end)?;
    first.refused(MEDIA_BACK_MAX)?;
    let second = publisher(&server)?;
    wait_for_media(&server)?;
    let away = ended.elapsed();
    let frozen = seen(&browser)?;
    ensure!(frozen.iter().all(|(_, freeze)| *freeze < away + RECOVERY_MAX), "{away:?} away: {frozen:?}");
    let page = frozen.iter().find(|(name, _)| name == "watch").context("our page")?.1;
    ensure!(page < away + PAGE_RECOVERY_MAX, "{away:?} away, and our page stood still for {page:?}");
    drop((browser, second));
    server.stop()
}

/// Without Chromium's own player: it gives up for ever on an answer that is cut off in the middle, if there is one.
#[test]
fn our_page_comes_back_by_itself_after_a_restart_of_the_process() -> Result<()> {
    survive_a_restart(End::Killed, "watch,hls.js,shaka", 40)
}

#[test]
fn viewers_come_back_by_themselves_after_a_clean_restart() -> Result<()> {
    survive_a_restart(End::Drained, "watch,native", 20)
}

/// The broadcaster's clock is set: all timestamps leap, the connection stays.
#[test]
fn viewers_come_back_by_themselves_from_timestamps_that_leap() -> Result<()> {
    const LEAP_AFTER_S: u64 = 60;
    let _alone = alone();
    let server = Tidecast::start(Profile::Default)?;
    let started = Instant::now();
    let _publisher = Publisher::of_clock_that_leaps(CLIP, &server.publish_url(STREAM), LEAP_AFTER_S)?;
    let browser = watch(&server, ALL, 60)?;
    ensure!(started.elapsed().as_secs() < LEAP_AFTER_S, "the players took too long to see it");
    let frozen = seen(&browser)?;
    ensure!(started.elapsed().as_secs() > LEAP_AFTER_S + 10, "nobody waited for the leap");
    let multivariant = server.viewer_http().get_ok(&format!("/hls/{STREAM}/index.m3u8"))?.text();
    let video = multivariant.lines().rfind(|line| !line.starts_with('#')).context("a variant")?;
    let playlist = server.viewer_http().get_ok(&format!("/hls/{STREAM}/{video}"))?.text();
    ensure!(playlist.contains("#EXT-X-DISCONTINUITY"), "there was no leap: {playlist}");
    // Nothing is missing; what is seen is the players' way over a discontinuity, four of them on two cores.
    ensure!(frozen.iter().all(|(_, freeze)| *freeze < Duration::from_secs(20)), "{frozen:?}");
    drop(browser);
    server.stop()
}

/// The edge that the page came from dies; the page turns to the other one.
#[test]
fn our_page_moves_to_another_edge_when_its_own_dies() -> Result<()> {
    let _alone = alone();
    let cluster = Cluster::new()?;
    let origin = cluster.origin(Setup::default())?;
    let other = cluster.edge("edge2", &origin)?;
    let alternates = format!("http://{}", other.http_address());
    let own = cluster.edge_with("edge1", &origin, Setup::default().set("http.alternates", &alternates))?;
    let _publisher = publisher(&origin)?;
    let browser = watch(&own, "watch", 15)?;
    own.kill()?;
    let frozen = seen(&browser)?;
    // With 1 s in hand 2 s are the aim; the rest is for a loaded machine.
    ensure!(frozen.iter().all(|(_, freeze)| *freeze < Duration::from_secs(5)), "{frozen:?}");
    poll::until("a viewer at the other edge", MEDIA_BACK_MAX, || {
        let watched = other.viewer_http().get_ok(&format!("/state/{STREAM}"))?.text();
        Ok(watched.contains("\"viewers\":1").then_some(()))
    })
}
