//! The studio in real Chromium: its camera goes live, is watched over LL-HLS, comes back after trouble and ends; and what is
//! said when it cannot.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::media::output_dir;
use harness::poll;
use harness::server::{End, PUBLISH_KEY, Profile, Setup, Tidecast};
use serde::Deserialize;

/// One browser at a time: it encodes.
static ALONE: Mutex<()> = Mutex::new(());

const STEP_MAX: Duration = Duration::from_secs(120);
const WRONG_KEY: &str = "not-the-key-not-the-key";

/// What axe calls serious or critical, and what sticks out of the window.
type Axe = Vec<String>;

#[derive(Deserialize)]
struct Looked {
    axe: Axe,
}

#[derive(Deserialize)]
struct WrongKey {
    axe: Axe,
    /// The page's address after it was opened with a key.
    url: String,
}

#[derive(Deserialize)]
struct Live {
    axe: Axe,
    /// Between most fields of the broadcaster's picture and the viewer's, in steps of 255.
    distance: f64,
    /// Between the two fields of the viewer's picture that differ most.
    contrast: f64,
    size: (u32, u32),
    /// Bytes decoded.
    sound: u64,
    dials: Vec<String>,
    link: String,
    codec: String,
}

#[derive(Deserialize)]
struct Turned {
    size: (u32, u32),
}

#[derive(Deserialize)]
struct Moved {
    status: u16,
    condition: String,
    /// Begun so far, with the refused one.
    sessions: u32,
    peer: String,
}

#[derive(Deserialize)]
struct Reconnected {
    sessions: u32,
}

#[derive(Deserialize)]
struct Ended {
    problems: Vec<String>,
    /// Addresses and lines of the console with the key in them.
    leaks: Vec<String>,
    logged: Vec<String>,
    /// The key is kept longer than the tab.
    stored: bool,
}

#[derive(Deserialize)]
struct Yielded {
    /// Offers that the two made.
    older: u32,
    newer: u32,
    /// Of the newer.
    phase: String,
}

#[derive(Deserialize)]
struct Said {
    axe: Axe,
    words: String,
    #[serde(default)]
    deleted: u16,
}

#[test]
fn a_camera_goes_live_in_the_studio_survives_trouble_and_ends_when_stopped() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Tidecast::start(Profile::Default)?;
    let (origin, folder) = (server.page_url(""), output_dir()?);
    let arguments = ["live", &origin, &folder.to_string_lossy()];
    let browser = Browser::run_with("studio.mjs", &arguments, &[("KEY", PUBLISH_KEY)])?;

    let wrong: WrongKey = browser.wait_for("wrong_key", STEP_MAX)?;
    ensure!(wrong.axe.is_empty(), "{:?}", wrong.axe);
    ensure!(wrong.url == server.page_url("/studio"), "the key stays in {}", wrong.url);

    let live: Live = browser.wait_for("live", STEP_MAX)?;
    ensure!(live.axe.is_empty(), "{:?}", live.axe);
    println!("colours: {} from what is sent, {} among them", live.distance, live.contrast);
    // What is not one colour is told from one that is.
    ensure!(
        live.distance < 12.0 && live.contrast > 12.0,
        "{} off, contrast {}",
        live.distance,
        live.contrast
    );
    ensure!(live.size == (640, 360) && live.sound > 0, "{:?}, {} bytes of sound", live.size, live.sound);
    ensure!(live.codec == "video/H264", "{}", live.codec);
    ensure!(live.link == server.watch_url("live/tab"), "{}", live.link);
    for dial in ["Bitrate", "Round trip", "Packets lost0 %", "Picture640×360"] {
        ensure!(live.dials.iter().any(|shown| shown.starts_with(dial)), "no {dial}: {:?}", live.dials);
    }

    let turned: Turned = browser.wait_for("turned", STEP_MAX)?;
    ensure!(turned.size.0 < turned.size.1, "{:?}", turned.size);
    let moved: Moved = browser.wait_for("moved", STEP_MAX)?;
    ensure!(moved.status == 200 && moved.condition == "*", "{} for {}", moved.status, moved.condition);
    ensure!(moved.sessions == 2 && moved.peer == "connected", "{} sessions, {}", moved.sessions, moved.peer);
    let taken: Looked = browser.wait_for("taken", STEP_MAX)?;
    ensure!(taken.axe.is_empty(), "{:?}", taken.axe);

    let server = server.restart(End::Drained)?;
    let reconnected: Reconnected = browser.wait_for("reconnected", STEP_MAX)?;
    ensure!(reconnected.sessions >= 1);
    let ended: Ended = browser.wait_for("ended", STEP_MAX)?;
    let http = server.viewer_http();
    poll::until("the end", STEP_MAX, || {
        Ok(http.get_ok("/state/live/tab")?.text().contains(r#""state":"ended""#).then_some(()))
    })?;
    ensure!(ended.problems.is_empty(), "{:?}", ended.problems);
    ensure!(ended.leaks.is_empty() && ended.logged.is_empty() && !ended.stored, "{:?}", ended.leaks);
    let log = server.log().join("\n");
    ensure!(!log.contains(PUBLISH_KEY) && !log.contains(WRONG_KEY), "a key is in the log");
    server.stop()
}

/// With `takeover`, two studios that both come back by themselves would take the name from each other for ever.
#[test]
fn a_studio_that_is_taken_over_from_does_not_take_the_name_back() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Setup::default().set("publish.on_conflict", "takeover").start()?;
    let (origin, folder) = (server.page_url(""), output_dir()?);
    let arguments = ["taken_over", &origin, &folder.to_string_lossy()];
    let browser = Browser::run_with("studio.mjs", &arguments, &[("KEY", PUBLISH_KEY)])?;
    let yielded: Yielded = browser.wait_for("yielded", STEP_MAX)?;
    ensure!((yielded.older, yielded.newer) == (1, 1), "{} and {} offers", yielded.older, yielded.newer);
    ensure!(yielded.phase == "live", "{}", yielded.phase);
    server.stop()
}

#[derive(Deserialize)]
struct Layered {
    axe: Axe,
    problems: Vec<String>,
    widths: Vec<u32>,
    limits: Vec<u32>,
    /// The choice, while it is on the air.
    locked: bool,
}

#[test]
fn the_studio_sends_three_sizes_where_that_is_chosen() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Tidecast::start(Profile::Default)?;
    let (origin, folder) = (server.page_url(""), output_dir()?);
    let arguments = ["layers", &origin, &folder.to_string_lossy()];
    let browser = Browser::run_with("studio.mjs", &arguments, &[("KEY", PUBLISH_KEY)])?;
    let layered: Layered = browser.wait_for("layered", STEP_MAX)?;
    ensure!(
        layered.axe.is_empty() && layered.problems.is_empty(),
        "{:?} {:?}",
        layered.axe,
        layered.problems
    );
    ensure!(layered.widths == [320, 640, 1280], "{:?}", layered.widths);
    ensure!(layered.limits == [208_333, 625_000, 2_500_000], "{:?}", layered.limits);
    ensure!(layered.locked);
    server.stop()
}

#[derive(Deserialize)]
struct Heard {
    words: String,
    /// Of what is sent; 1 is as loud as it gets.
    peak: f64,
    #[serde(default)]
    axe: Axe,
    #[serde(default)]
    problems: Vec<String>,
    /// Bars that are shown.
    #[serde(default)]
    meters: u32,
}

#[test]
fn the_sound_of_a_screen_is_sent_beside_the_voice_and_its_lack_is_explained() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Tidecast::start(Profile::Default)?;
    let (origin, folder) = (server.page_url(""), output_dir()?);
    let arguments = ["sound", &origin, &folder.to_string_lossy()];
    let browser = Browser::run_with("studio.mjs", &arguments, &[("KEY", PUBLISH_KEY)])?;
    for (event, words, is_heard) in [
        ("shared", "", true),
        ("without_voice", "Muted: viewers do not hear you.", true),
        ("without_both", "Muted: viewers do not hear you. The screen's sound is muted.", false),
        ("without_screen", "The screen's sound is muted.", true),
        ("given_none", "The screen is shared without its sound.", true),
    ] {
        let heard: Heard = browser.wait_for(event, STEP_MAX)?;
        ensure!(
            heard.axe.is_empty() && heard.problems.is_empty(),
            "{event}: {:?} {:?}",
            heard.axe,
            heard.problems
        );
        let is_said = if words.is_empty() { heard.words.is_empty() } else { heard.words.starts_with(words) };
        ensure!(is_said, "{event}: {}", heard.words);
        ensure!((heard.peak > 0.05) == is_heard, "{event}: the loudest is {}", heard.peak);
        ensure!(event != "given_none" || heard.meters == 1, "{} bars", heard.meters);
    }
    server.stop()
}

#[test]
fn the_studio_says_in_words_why_it_cannot_go_live() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Tidecast::start(Profile::Default)?;
    let (origin, folder) = (server.page_url(""), output_dir()?);
    let arguments = ["words", &origin, &folder.to_string_lossy()];
    let browser = Browser::run_with("studio.mjs", &arguments, &[("KEY", PUBLISH_KEY)])?;
    for (event, begin) in [
        ("denied", "The browser has no permission for camera and microphone."),
        ("insecure", "This page is not secure, and browsers give camera"),
        ("no_udp", "UDP 9 does not reach this server"),
    ] {
        let said: Said = browser.wait_for(event, STEP_MAX)?;
        ensure!(said.axe.is_empty(), "{event}: {:?}", said.axe);
        ensure!(said.words.starts_with(begin), "{event}: {}", said.words);
        // The name is free at once, and does not wait for a session that never was. Where the page is slow the server, which waits
        // for a second more, has given it up first.
        ensure!(event != "no_udp" || [200, 404].contains(&said.deleted), "its end: {}", said.deleted);
    }
    server.stop()
}
