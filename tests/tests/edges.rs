//! An edge on another node: what its viewers get, what it costs the origin, and what happens when either is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::cluster::Cluster;
use harness::http::{Http, resolve};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Setup, Tidecast};
use harness::strict::{MediaPlaylist, MultivariantPlaylist};

const STREAM: &str = "live/cam";
const MULTIVARIANT: &str = "/hls/live/cam/index.m3u8";
const LIVE_MAX: Duration = Duration::from_secs(25);

/// A stream at the origin, and an edge that nobody has asked for it.
struct Scene {
    origin: Tidecast,
    edge: Tidecast,
    _publisher: Publisher,
    cluster: Cluster,
}

impl Scene {
    fn new() -> Result<Self> {
        let cluster = Cluster::new()?;
        let origin = cluster.origin(Setup::default())?;
        let edge = cluster.edge("edge1", &origin)?;
        let publisher = Publisher::of_clip("gop-0.5", &origin.publish_url(STREAM))?;
        live(&origin.viewer_http())?;
        Ok(Self { origin, edge, _publisher: publisher, cluster })
    }
}

/// The path of the video playlist, once there is one.
fn live(http: &Http) -> Result<String> {
    let text = poll::until("the first playlist", LIVE_MAX, || {
        let answer = http.get(MULTIVARIANT)?;
        Ok((answer.status == 200).then(|| answer.text()))
    })?;
    let variants = MultivariantPlaylist::parse(&text)?.variants;
    Ok(resolve(MULTIVARIANT, &variants.first().context("no variant")?.uri))
}

fn edge_of(http: &Http, path: &str) -> Result<(u64, Option<u64>)> {
    MediaPlaylist::parse(&http.get_ok(path)?.text())?.edge().context("an empty playlist")
}

/// Viewers who come all at once are one child of the origin.
#[test]
fn two_thousand_viewers_on_a_cold_edge_are_one_subscription() -> Result<()> {
    const VIEWERS: usize = 2000;
    let scene = Scene::new()?;
    let addr = scene.edge.http_address();
    let start = Instant::now();
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        let mut viewer = TcpStream::connect(addr)?;
        viewer.set_read_timeout(Some(LIVE_MAX))?;
        write!(viewer, "GET {MULTIVARIANT} HTTP/1.1\r\nHost: edge\r\n\r\n")?;
        viewers.push(viewer);
    }
    println!("{VIEWERS} joined within {:?}", start.elapsed());
    for viewer in &mut viewers {
        let mut head = [0; 12];
        viewer.read_exact(&mut head)?;
        ensure!(head == *b"HTTP/1.1 200", "{}", String::from_utf8_lossy(&head));
    }
    // And those that took its place: on a machine as busy as with this crowd, the origin may be silent for half a second.
    poll::until("one subscription", LIVE_MAX, || {
        let asked = scene.edge.metric("pull_subscriptions_total")?;
        let broken = scene.edge.metric("pull_breaks_total")?;
        let answered = scene.origin.metric("relay_subscribed_total")?;
        Ok((asked == answered && asked - broken == 1.0).then_some(()))
    })?;
    scene.edge.stop()?;
    scene.origin.stop()
}

/// Bodies from before the edge came are fetched when they are wanted, once.
#[test]
fn an_old_part_is_fetched_once() -> Result<()> {
    let scene = Scene::new()?;
    let http = scene.origin.viewer_http();
    let path = live(&http)?;
    // Parts of the last four seconds come with the index.
    poll::until("eight seconds of stream", LIVE_MAX, || Ok((edge_of(&http, &path)?.0 >= 6).then_some(())))?;
    let oldest = MediaPlaylist::parse(&http.get_ok(&path)?.text())?.segments.first().context("empty")?.msn;
    let segment = resolve(&path, &format!("{oldest}.m4s"));
    let expected = http.get_ok(&segment)?.body;
    for _ in 0..3 {
        ensure!(scene.edge.viewer_http().get_ok(&segment)?.body == expected, "another segment");
    }
    let bodies = scene.edge.metric("pull_bodies_total")?;
    ensure!((1.0..=5.0).contains(&bodies), "{bodies} bodies for one segment");
    Ok(())
}

/// An unknown name is asked for once a second, whoever asks for it.
#[test]
fn a_name_that_nobody_publishes_does_not_reach_the_origin() -> Result<()> {
    let scene = Scene::new()?;
    let http = scene.edge.viewer_http();
    let start = Instant::now();
    for _ in 0..300 {
        let answer = http.get("/hls/live/nobody/index.m3u8")?;
        ensure!(answer.status == 404, "status {}", answer.status);
    }
    let asked = scene.edge.metric("pull_subscriptions_total")?;
    ensure!(asked <= start.elapsed().as_secs_f64() + 2.0, "{asked} in {:?}", start.elapsed());
    let broken = http.get("/hls/live/no%2fbody/index.m3u8")?;
    ensure!(broken.status == 404, "status {}", broken.status);
    Ok(())
}

#[test]
fn the_pages_of_an_edge_know_the_streams_of_its_origin() -> Result<()> {
    let scene = Scene::new()?;
    let http = scene.edge.viewer_http();
    let state = http.get_ok(&format!("/state/{STREAM}"))?;
    ensure!(state.header("content-type") == "application/json" && !state.header("etag").is_empty());
    let state: serde_json::Value = serde_json::from_slice(&state.body)?;
    ensure!(state["state"] == "live" && state["viewers"] == 0, "{state}");
    let list: serde_json::Value = serde_json::from_slice(&http.get_ok("/state")?.body)?;
    ensure!(list["streams"][0]["stream"] == "cam", "{list}");
    ensure!(list.get("rtmp_port").is_none(), "publishers are sent to an edge: {list}");
    for page in ["/", "/watch/live/cam"] {
        ensure!(http.get_ok(page)?.text().contains("<html"), "{page}");
    }
    // The edge counts its own viewers: of the first rendition, each reload counts.
    let path = live(&http)?;
    poll::until("a viewer", LIVE_MAX, || {
        let (msn, part) = edge_of(&http, &path)?;
        http.get_ok(&format!("{path}?_HLS_msn={msn}&_HLS_part={}", part.map_or(0, |part| part + 1)))?;
        let state: serde_json::Value =
            serde_json::from_slice(&http.get_ok(&format!("/state/{STREAM}"))?.body)?;
        Ok((state["viewers"] == 1).then_some(()))
    })?;
    let there: serde_json::Value =
        serde_json::from_slice(&scene.origin.viewer_http().get_ok(&format!("/state/{STREAM}"))?.body)?;
    ensure!(there["viewers"] == 0, "{there}");
    Ok(())
}

/// What is there is served on; a playlist too old to follow is not; and then it goes on.
#[test]
fn a_hanging_origin_is_noticed_served_without_and_resumed() -> Result<()> {
    let scene = Scene::new()?;
    let http = scene.edge.viewer_http();
    let path = live(&http)?;
    let part = resolve(&path, &newest_part(&http, &path)?);
    scene.origin.freeze()?;
    scene.edge.wait_for_log("the loss", LIVE_MAX, |line| {
        line.contains("the upstream is lost: nothing was heard for 500 ms").then_some(())
    })?;
    ensure!(http.get(&path)?.status == 200, "a playlist that is a moment old");
    let target_duration: u64 = http
        .get_ok(&path)?
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("#EXT-X-TARGETDURATION:")?.parse().ok())
        .context("TARGETDURATION")?;
    let refused = poll::until("503", Duration::from_secs(3 * target_duration) + LIVE_MAX, || {
        let answer = http.get(&path)?;
        Ok((answer.status != 200).then_some(answer))
    })?;
    ensure!(refused.status == 503 && refused.header("retry-after") == "1", "status {}", refused.status);
    ensure!(
        refused.header("access-control-allow-origin") == "*" && refused.header("cache-control") == "no-store"
    );
    ensure!(http.get(&part)?.status == 200, "a part that is here");

    scene.origin.thaw()?;
    poll::until("it goes on", LIVE_MAX, || Ok((http.get(&path)?.status == 200).then_some(())))?;
    let resumed = scene.origin.metric("relay_resumed_total")?;
    ensure!(resumed >= 1.0, "{resumed} resumed");
    Ok(())
}

/// The process of the origin dies and comes back: the same session, numbers risen, nothing to be done at the edge.
#[test]
fn an_origin_that_restarts_is_followed_again() -> Result<()> {
    let scene = Scene::new()?;
    let Scene { origin, edge, _publisher, cluster: _cluster } = scene;
    let http = edge.viewer_http();
    let path = live(&http)?;
    let before = edge_of(&http, &path)?;
    let origin = origin.restart(End::Killed)?;
    let _again = Publisher::of_clip("gop-0.5", &origin.publish_url(STREAM))?;
    let after = poll::until("media after the restart", LIVE_MAX, || {
        let answer = http.get(&path)?;
        if answer.status != 200 {
            return Ok(None);
        }
        let playlist = MediaPlaylist::parse(&answer.text())?;
        ensure!(!playlist.ended, "the edge told an end that nobody told it");
        Ok(playlist.edge().filter(|edge| edge.0 > before.0 + 1))
    })?;
    println!("{before:?} before, {after:?} after");
    let same = origin.viewer_http().get_ok(&path)?;
    let here = http.get_ok(&path)?;
    if same.header("etag") == here.header("etag") {
        ensure!(same.body == here.body, "{}\nand\n{}", same.text(), here.text());
    }
    Ok(())
}

/// An edge that dies leaves nothing behind, and one of the same name begins anew.
#[test]
fn an_edge_that_dies_is_forgotten_and_comes_back() -> Result<()> {
    let scene = Scene::new()?;
    live(&scene.edge.viewer_http())?;
    poll::until("one reading", LIVE_MAX, || {
        Ok((scene.origin.metric("relay_subscriptions")? == 1.0).then_some(()))
    })?;
    let edge = scene.edge.restart(End::Killed)?;
    poll::until("nobody reading", LIVE_MAX, || {
        Ok((scene.origin.metric("relay_subscriptions")? == 0.0).then_some(()))
    })?;
    live(&edge.viewer_http())?;
    edge.stop()?;
    scene.origin.stop()
}

/// Nobody watches any more: after the linger the origin is left alone.
#[test]
fn a_stream_without_viewers_is_let_go() -> Result<()> {
    let scene = Scene::new()?;
    let since = Instant::now();
    live(&scene.edge.viewer_http())?;
    poll::until("let go", LIVE_MAX * 2, || Ok((scene.edge.metric("pull_streams")? == 0.0).then_some(())))?;
    ensure!(since.elapsed() >= Duration::from_secs(20), "already after {:?}", since.elapsed());
    poll::until("unsubscribed", LIVE_MAX, || {
        Ok((scene.origin.metric("relay_subscriptions")? == 0.0).then_some(()))
    })?;
    live(&scene.edge.viewer_http()).map(drop)
}

#[test]
fn an_edge_whose_upstream_is_itself_says_so() -> Result<()> {
    let edge = Cluster::new()?.circle("edge1")?;
    let answer = edge.viewer_http().get(MULTIVARIANT)?;
    ensure!(answer.status == 404, "status {}", answer.status);
    edge.wait_for_log("the circle", LIVE_MAX, |line| {
        line.contains("edge1 asks itself by way of edge1: its upstream must lead to an origin").then_some(())
    })
}

/// Threat: a node of somebody else's, or one that was let in by mistake elsewhere.
#[test]
fn an_edge_of_another_cluster_gets_nothing_and_both_sides_are_told() -> Result<()> {
    let cluster = Cluster::new()?;
    let origin = cluster.origin(Setup::default())?;
    let begun = Instant::now();
    let stranger = Cluster::new()?.edge("edge1", &origin)?;
    let answer = stranger.viewer_http().get(MULTIVARIANT)?;
    ensure!(answer.status == 503, "status {}", answer.status);
    stranger.wait_for_log("the reason", LIVE_MAX, |line| {
        line.contains("its certificate was made by another authority than this cluster's").then_some(())
    })?;
    origin.wait_for_log("the refusal", LIVE_MAX, |line| {
        line.contains("refused a connection to the relay: it does not know the authority").then_some(())
    })?;
    ensure!(origin.metric("relay_refused_total")? >= 1.0);
    let lines = origin.log().iter().filter(|line| line.contains("refused a connection")).count() as u64;
    // One each ten seconds, however long this took.
    ensure!(lines <= 1 + begun.elapsed().as_secs() / 10, "{lines} lines about one stranger");
    Ok(())
}

#[test]
fn an_edge_in_no_cluster_does_not_start() -> Result<()> {
    let edge = Setup::default().set("roles", "edge").set("upstream", "https://127.0.0.1:7400").start();
    let error = format!("{:#}", edge.err().context("it started")?);
    ensure!(error.contains("tidecast cluster token") && error.contains("tidecast cluster join"), "{error}");
    Ok(())
}

fn newest_part(http: &Http, path: &str) -> Result<String> {
    let playlist = MediaPlaylist::parse(&http.get_ok(path)?.text())?;
    let parts = playlist.segments.iter().flat_map(|segment| &segment.parts);
    Ok(parts.last().context("no part")?.uri.clone())
}
