//! The watch page by WebRTC in real Chromium: where it is wanted and works, where it does not get through, and where it is not
//! preferred.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::media::output_dir;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::watched::Watched;
use serde::Deserialize;

/// One browser at a time: it decodes in software, and is given three seconds for its first picture.
static ALONE: Mutex<()> = Mutex::new(());

const STREAM: &str = "live/clock";
const STEP_MAX: Duration = Duration::from_secs(90);
/// A minute of HLS, and what the attempt takes.
const CLIMB_MAX: Duration = Duration::from_secs(150);

#[derive(Debug, Deserialize)]
struct Looked {
    player: String,
    width: u32,
    /// From opening the page.
    first_ms: f64,
    /// From the clock in the picture; absent if it could not be read.
    latency_ms: Option<f64>,
    told_latency_s: Option<f64>,
    link: Option<Link>,
    /// Tracks of sound in the session.
    audio: Option<u32>,
    #[serde(default)]
    axe: Vec<String>,
    /// Sessions that were asked for.
    #[serde(default)]
    posts: u32,
    #[serde(default)]
    problems: Vec<String>,
    /// The longest time between two of the last pictures.
    #[serde(default)]
    stood_ms: Option<f64>,
    /// Of the switch in the menu: "true", "false", or there is none.
    #[serde(default)]
    low_latency: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    protocol: Option<String>,
    round_trip: Option<f64>,
    jitter: Option<f64>,
    loss: Option<f64>,
}

#[derive(Deserialize)]
struct Pinned {
    overlay: String,
    player: String,
    rendition: u32,
    axe: Vec<String>,
}

#[derive(Deserialize)]
struct Done {}

#[derive(Deserialize)]
struct Switched {
    kept: Plays,
}

#[derive(Deserialize)]
struct Lost {
    once: Plays,
    twice: Plays,
}

#[derive(Debug, Deserialize)]
struct Plays {
    player: String,
    posts: u32,
}

#[derive(Deserialize)]
struct Inspected {
    axe: Vec<String>,
    #[serde(default)]
    problems: Vec<String>,
}

/// With a rung, and so with the sound that WebRTC carries.
fn prefers_webrtc() -> Result<Tidecast> {
    Setup::default().set("player.prefer", "webrtc").set("transcode.ladder", "180:200k").start()
}

fn publish(server: &Tidecast) -> Result<Publisher> {
    Publisher::of_clock("gop-2", &server.publish_url(STREAM))
}

fn wait_for_ladder(server: &Tidecast) -> Result<()> {
    let watched = Watched::of(server, STREAM);
    poll::until("a ladder", STEP_MAX, || Ok((watched.whole("v180")?.len() > 1).then_some(())))
}

fn open(server: &Tidecast, scene: &str, query: &str) -> Result<Browser> {
    let shots = output_dir()?;
    let origin = format!("http://{}", server.http_address());
    Browser::run("webrtc.mjs", &[&origin, STREAM, &shots.to_string_lossy(), scene, query])
}

#[test]
fn where_it_is_preferred_the_page_plays_by_webrtc_through_all_that_befalls_a_stream() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = prefers_webrtc()?;
    let publisher = publish(&server)?;
    wait_for_ladder(&server)?;
    let page = open(&server, "plays", "")?;

    let seen: Looked = page.wait_for("playing", STEP_MAX)?;
    println!("{seen:?}");
    ensure!((seen.player.as_str(), seen.width, seen.audio) == ("webrtc", 640, Some(1)), "{seen:?}");
    let link = seen.link.context("no counters")?;
    // Chromium takes the one that answers first, and turns to UDP later.
    ensure!(link.protocol.is_some_and(|protocol| ["UDP", "TCP"].contains(&protocol.as_str())));
    // A browser without time reads its socket too late.
    ensure!(link.loss.is_some_and(|loss| loss < 0.2), "{:?} lost on the loopback", link.loss);
    ensure!(link.round_trip.is_some() && link.jitter.is_some(), "no round trip, or no jitter");
    // Nothing is promised on a busy machine; another epoch would be decades away.
    let latency = seen.latency_ms.context("the clock could not be read")? / 1000.0;
    let told = seen.told_latency_s.context("the page knows no latency")?;
    println!("{told} s behind by the statistics, {latency} s by the picture");
    ensure!((told - latency).abs() < 10.0, "{told} s by the statistics, {latency} s by the picture");
    ensure!(seen.axe.is_empty(), "live: {:?}", seen.axe);

    let pinned: Pinned = page.wait_for("pinned", STEP_MAX)?;
    ensure!((pinned.player.as_str(), pinned.rendition) == ("webrtc", 180));
    for word in ["WebRTC over ", "Round trip", "Loss", "Jitter", "Freezes", "Latency", "Rendition"] {
        ensure!(pinned.overlay.contains(word), "no {word} in {}", pinned.overlay);
    }
    ensure!(pinned.axe.is_empty(), "statistics: {:?}", pinned.axe);
    let Done {} = page.wait_for("sound", STEP_MAX)?;
    let Switched { kept } = page.wait_for("switched", STEP_MAX)?;
    ensure!(kept.player == "hls.js" && kept.posts == 0, "the choice was not kept: {kept:?}");
    let Lost { once, twice } = page.wait_for("lost", STEP_MAX)?;
    ensure!(once.player == "webrtc" && once.posts == 1, "a session that was lost: {once:?}");
    ensure!(twice.player == "hls.js" && twice.posts <= 2, "and lost again: {twice:?}");
    let Done {} = page.wait_for("climbed-by-hand", STEP_MAX)?;

    publisher.kill()?;
    let interrupted: Inspected = page.wait_for("interrupted", STEP_MAX)?;
    ensure!(interrupted.axe.is_empty(), "interrupted: {:?}", interrupted.axe);
    let publisher = publish(&server)?;
    let returned: Plays = page.wait_for("returned", STEP_MAX)?;
    ensure!(returned.player == "webrtc" && returned.posts == 0, "not the same session: {returned:?}");

    publisher.stop()?;
    let ended: Inspected = page.wait_for("ended", STEP_MAX)?;
    ensure!(ended.axe.is_empty(), "ended: {:?}", ended.axe);
    ensure!(ended.problems.is_empty(), "script errors: {:?}", ended.problems);
    server.stop()
}

#[test]
fn where_nothing_gets_through_hls_plays_and_it_is_remembered_until_something_does() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = prefers_webrtc()?;
    let publisher = publish(&server)?;
    wait_for_ladder(&server)?;
    let page = open(&server, "blocked", "")?;

    let fallen: Looked = page.wait_for("fell-back", STEP_MAX)?;
    println!("the first picture by HLS after {} ms", fallen.first_ms);
    ensure!((fallen.player.as_str(), fallen.posts) == ("hls.js", 1), "{fallen:?}");
    // Three seconds, and what HLS takes on a machine with other things to do.
    ensure!((3000.0..20_000.0).contains(&fallen.first_ms), "{fallen:?}");
    let again: Looked = page.wait_for("remembered", STEP_MAX)?;
    ensure!((again.player.as_str(), again.posts) == ("hls.js", 0), "{again:?}");
    let climbed: Looked = page.wait_for("climbed", CLIMB_MAX)?;
    ensure!((climbed.player.as_str(), climbed.posts) == ("webrtc", 1), "{climbed:?}");
    let stood = climbed.stood_ms.context("no pictures")?;
    println!("the change took {stood} ms");
    ensure!(stood < 5000.0, "the picture stood still for {stood} ms while HLS gave way");
    ensure!(climbed.problems.is_empty(), "script errors: {:?}", climbed.problems);
    publisher.stop()?;
    server.stop()
}

#[test]
fn where_hls_is_preferred_webrtc_plays_for_who_asks_at_an_edge_too() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = Cluster::new()?;
    let origin = cluster.origin(Setup::default().set("transcode.ladder", "180:200k"))?;
    let edge = cluster.edge_with("edge1", &origin, Setup::default())?;
    let publisher = publish(&origin)?;
    wait_for_ladder(&origin)?;

    // Who asks, by the link; who does not; who asks where the stream was published.
    for (server, query, player, posts, switch) in [
        (&edge, "?via=webrtc", "webrtc", 1, Some("true")),
        (&edge, "", "hls.js", 0, Some("false")),
        (&origin, "", "hls.js", 0, Some("false")),
        (&origin, "?via=webrtc", "webrtc", 1, Some("true")),
    ] {
        let seen: Looked = open(server, "once", query)?.wait_for("playing", STEP_MAX)?;
        ensure!((seen.player.as_str(), seen.posts) == (player, posts), "{query}: {seen:?}");
        ensure!(seen.low_latency.as_deref() == switch, "{query}: {seen:?}");
        ensure!(seen.problems.is_empty(), "script errors: {:?}", seen.problems);
    }
    publisher.stop()?;
    edge.stop()?;
    origin.stop()
}
