//! Several nodes on NATS: how they find each other, and what viewers see of it when one of them, or NATS, is gone.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::http::{Http, resolve};
use harness::media::output_dir;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::{Watched, video_path};
use serde::Deserialize;

const STREAM: &str = "live/cam";
const MULTIVARIANT: &str = "/hls/live/cam/index.m3u8";
const CLIP: &str = "gop-0.5";

/// A first playlist, also on a busy machine.
const LIVE_MAX: Duration = Duration::from_secs(25);
/// Nodes hear of each other within a heartbeat, also on a busy machine.
const HEARD_MAX: Duration = Duration::from_secs(30);
/// Until there is new media behind an interruption.
const MEDIA_BACK_MAX: Duration = Duration::from_secs(25);

/// A node has noticed that it has lost a stream, and a linger is over; also on a busy machine.
const GIVEN_UP_MAX: Duration = Duration::from_secs(60);

/// What a page does until it tells something, also on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(90);
/// A viewer's freeze beyond the time without a publisher, of two browsers on two cores.
const RECOVERY_MAX: Duration = Duration::from_secs(10);
/// hls.js 1.7.4 without our page around it stood still for 19 s, once in ten runs.
const BARE_RECOVERY_MAX: Duration = Duration::from_secs(30);

/// Two nodes that take publishers, two that take viewers, and NATS.
struct Scene {
    a: Tidecast,
    b: Tidecast,
    edge1: Tidecast,
    edge2: Tidecast,
    nats: Nats,
    _cluster: Cluster,
}

impl Scene {
    fn new() -> Result<Self> {
        Self::with(&Setup::default())
    }

    fn with(setup: &Setup) -> Result<Self> {
        let (cluster, nats) = (Cluster::new()?, Nats::start()?);
        let node = |name: &str, roles: &str| cluster.node(name, roles, &nats, setup.clone());
        let (a, b) = (node("a", "all")?, node("b", "all")?);
        let (edge1, edge2) = (node("edge1", "edge")?, node("edge2", "edge")?);
        poll::until("nodes to hear of each other", HEARD_MAX, || {
            let all = [&a, &b, &edge1, &edge2].map(|node| node.ask("nodes").map(|nodes| nodes.len()));
            Ok(all.into_iter().all(|nodes| nodes.is_ok_and(|nodes| nodes == 4)).then_some(()))
        })?;
        Ok(Self { a, b, edge1, edge2, nats, _cluster: cluster })
    }

    /// The stream's entry in the directory, as `node` has heard of it.
    fn entry(node: &Tidecast) -> Result<Option<serde_json::Value>> {
        Ok(node.ask("streams")?.into_iter().find(|entry| entry["stream"] == STREAM))
    }

    fn wait_for_holder(node: &Tidecast, holder: &str) -> Result<u64> {
        poll::until(&format!("{holder} to have the stream"), HEARD_MAX, || {
            let entry = Self::entry(node)?.filter(|entry| entry["holder"]["node"] == holder);
            Ok(entry.and_then(|entry| entry["epoch"].as_u64()))
        })
    }
}

/// Events are told when what they tell of has happened, and heard of a moment later.
fn wait_for_events(node: &Tidecast, kind: &str, count: usize) -> Result<()> {
    poll::until(&format!("{count} events {kind}"), LIVE_MAX, || {
        let events = node.ask("events").unwrap_or_default();
        Ok((events.iter().filter(|event| event["kind"] == kind).count() >= count).then_some(()))
    })
}

fn publisher(node: &Tidecast) -> Result<Publisher> {
    Publisher::of_clip(CLIP, &node.publish_url(STREAM))
}

/// The path of the video playlist, once there is one.
fn live(http: &Http) -> Result<String> {
    video_path(http, STREAM, LIVE_MAX)
}

fn playlist(http: &Http, path: &str) -> Result<MediaPlaylist> {
    Ok(MediaPlaylist::parse(&http.get_ok(path)?.text())?)
}

/// Waits for media behind `msn` and a discontinuity, in the playlist that a viewer has had open all the time.
fn media_behind(http: &Http, path: &str, msn: u64) -> Result<MediaPlaylist> {
    poll::until("media after the interruption", MEDIA_BACK_MAX, || {
        let answer = http.get(path)?;
        // As a player that asks again.
        if answer.status != 200 {
            return Ok(None);
        }
        let text = answer.text();
        ensure!(!text.contains("#EXT-X-ENDLIST"), "viewers were told that it is over");
        let playlist = MediaPlaylist::parse(&text)?;
        let newest = playlist.segments.iter().rev().find(|segment| !segment.has_only_gaps());
        Ok(newest.is_some_and(|newest| newest.msn > msn + 1).then_some(playlist))
    })
}

fn newest_msn(http: &Http, path: &str) -> Result<u64> {
    Ok(playlist(http, path)?.edge().context("an empty playlist")?.0)
}

#[test]
fn nodes_find_each_other_and_viewers_find_streams() -> Result<()> {
    let scene = Scene::new()?;
    let _publisher = publisher(&scene.a)?;
    let path = live(&scene.edge1.viewer_http())?;
    ensure!(live(&scene.edge2.viewer_http())? == path);
    let own = live(&scene.a.viewer_http())?;
    ensure!(own == path, "{own} at its own node, {path} at an edge");
    Scene::wait_for_holder(&scene.b, "a")?;

    // What any node serves of it is the same.
    let segment = newest_msn(&scene.a.viewer_http(), &path)?;
    for node in [&scene.a, &scene.edge1, &scene.edge2] {
        // Held until the segment is whole there.
        node.viewer_http().get_ok(&format!("{path}?_HLS_msn={segment}"))?;
    }
    let uri = resolve(&path, &format!("{segment}.m4s"));
    let bodies = [&scene.a, &scene.edge1, &scene.edge2].map(|node| node.viewer_http().get_ok(&uri));
    let bodies = bodies.into_iter().map(|answer| Ok(answer?.body)).collect::<Result<Vec<_>>>()?;
    ensure!(bodies.iter().all(|body| *body == bodies[0] && !body.is_empty()));

    // A node that does not have it sends viewers on, and who asks where to go is told.
    for at in [MULTIVARIANT, &path, "/watch/live/cam", "/embed/live/cam", "/state/live/cam"] {
        let answer = scene.b.viewer_http().get(at)?;
        ensure!(answer.status == 307, "{at}: {}", answer.status);
        let location = answer.header("location");
        let nodes = [&scene.a, &scene.edge1, &scene.edge2].map(|node| node.page_url(at));
        ensure!(nodes.contains(&location.to_owned()), "{at} leads to {location}");
    }
    let whep = scene.b.viewer_http().send(
        "POST",
        "/whep/live/cam",
        &[("content-type", "application/sdp")],
        b"v=0",
    )?;
    ensure!(whep.status == 307 && whep.header("location").ends_with("/whep/live/cam"));
    let told = scene.b.viewer_http().get_with("/where/live/cam", &[("accept", "application/json")])?;
    let told: serde_json::Value = serde_json::from_slice(&told.body)?;
    let nodes: Vec<_> =
        told["nodes"].as_array().context("a list")?.iter().map(|node| &node["node"]).collect();
    ensure!(nodes.len() == 3 && !nodes.iter().any(|node| *node == "b"), "{told}");
    let first = scene.b.viewer_http().get("/where/live/cam")?;
    let best = told["nodes"][0]["origin"].as_str().context("an origin")?;
    ensure!(first.status == 307 && first.header("location") == format!("{best}{MULTIVARIANT}"));
    // The same, whoever is asked.
    let elsewhere = scene.edge1.viewer_http().get("/where/live/cam")?;
    ensure!(elsewhere.header("location") == first.header("location"));

    // An edge lists the streams of all, and so does a node that has some itself.
    let _other = Publisher::of_clip(CLIP, &scene.b.publish_url("live/other"))?;
    for node in [&scene.edge1, &scene.a, &scene.b] {
        poll::until("both on the list of a node", LIVE_MAX, || {
            let list: serde_json::Value = serde_json::from_slice(&node.viewer_http().get_ok("/state")?.body)?;
            let names = list["streams"].as_array().context("a list")?.iter().map(|stream| &stream["stream"]);
            Ok(names.eq(["cam", "other"]).then_some(()))
        })?;
    }
    for kind in ["node-started", "stream-started"] {
        wait_for_events(&scene.edge2, kind, 2)?;
    }
    for node in [scene.edge1, scene.edge2, scene.a, scene.b] {
        node.stop()?;
    }
    Ok(())
}

/// A program of an operator, which runs now here and now there.
#[test]
fn a_reader_of_events_goes_on_at_another_node_with_exactly_what_came_since() -> Result<()> {
    let (cluster, mut nats) = (Cluster::new()?, Nats::start()?);
    let node = |name: &str, roles: &str| cluster.node(name, roles, &nats, Setup::default());
    let (a, b) = (node("a", "all")?, node("b", "edge")?);
    wait_for_events(&a, "node-started", 2)?;
    let read = |node: &Tidecast| node.ask("events --as mail");
    let has = |events: &[serde_json::Value], kind: &str| events.iter().any(|event| event["kind"] == kind);
    let mut told = read(&a)?;
    ensure!(has(&told, "node-started"), "{told:?}");
    // Whatever has not happened meanwhile.
    for node in [&a, &b] {
        told.extend(read(node)?);
    }

    // It is away while the node is started again at which it was, and NATS.
    let a = a.restart(End::Drained)?;
    nats.kill()?;
    nats.start_again()?;
    wait_for_events(&b, "node-started", 3)?;
    let came = read(&b)?;
    ensure!(has(&came, "node-stopped") && has(&came, "node-started"), "{came:?}");
    told.extend(came);

    let follower = b.asking("events --as mail --follow")?;
    nats.kill()?;
    follower.wait_for("that it waits", HEARD_MAX, |line| line.contains("when that is back").then_some(()))?;
    nats.start_again()?;
    poll::until("the drain of a", HEARD_MAX, || Ok(a.ask("nodes drain a --force").ok().map(drop)))?;
    let drained: serde_json::Value = follower.wait_for("the drain of a", HEARD_MAX, |line| {
        line.contains("node-draining").then(|| serde_json::from_str(line).ok()).flatten()
    })?;
    let sequence = drained["sequence"].as_u64().context("a number")?;
    let log = b.ask("events --since 1")?;
    ensure!(log.starts_with(&told), "{told:?} is not how the log begins: {log:?}");
    let since = b.ask(&format!("events --since {sequence}"))?;
    ensure!(since.first() == Some(&drained) && b.ask("events --since 1h")?.starts_with(&log), "{since:?}");

    // Once it has acknowledged that, another process under its name moves the reader away from under it.
    poll::until("the reader to be moved", HEARD_MAX, || {
        let answer = a.admin_http().get_ok("/api/v1/events?as=mail&wait=false")?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
        let Some(place) = answer["reader"]["from"].as_u64().filter(|from| *from >= sequence) else {
            return Ok(None);
        };
        let back = format!(r#"{{"from":{place},"to":{},"by":"other"}}"#, place - 1);
        let moved = a.admin_http().send("PUT", "/api/v1/events/readers/mail", &[], back.as_bytes())?;
        Ok((moved.status == 200).then_some(()))
    })?;
    let refused = follower.refused(HEARD_MAX)?;
    ensure!(refused.contains("reads under that name"), "{refused}");
    Ok(())
}

/// The node that is sent the film is not the one that a crowd comes to.
#[test]
fn a_node_for_publishers_sends_viewers_to_an_edge_while_there_is_one() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let node = |name: &str, roles: &str| cluster.node(name, roles, &nats, Setup::default());
    let origin = node("origin", "ingest, origin")?;
    let _publisher = publisher(&origin)?;
    let path = live(&origin.viewer_http())?;
    let edge = node("edge1", "edge")?;
    ensure!(live(&edge.viewer_http())? == path);
    let answer = poll::until("viewers to be sent on", HEARD_MAX, || {
        let answer = origin.viewer_http().get(&path)?;
        Ok((answer.status == 307).then_some(answer))
    })?;
    ensure!(answer.header("location") == edge.page_url(&path), "{}", answer.header("location"));
    ensure!(origin.viewer_http().get_ok("/studio")?.text().contains("<html"));
    edge.stop()?;
    poll::until("the origin to show it itself", HEARD_MAX, || {
        Ok((origin.viewer_http().get(&path)?.status == 200).then_some(()))
    })?;
    origin.stop()
}

#[test]
fn a_name_is_published_to_one_node_at_a_time() -> Result<()> {
    let scene = Scene::new()?;
    let _publisher = publisher(&scene.a)?;
    live(&scene.edge1.viewer_http())?;
    let refused = publisher(&scene.b)?.refused(LIVE_MAX)?;
    ensure!(refused.contains("already being published, to node a"), "{refused}");
    ensure!(Scene::wait_for_holder(&scene.b, "a").is_ok());
    Ok(())
}

/// The broadcaster's encoder connects again, and is led to another node.
#[test]
fn a_session_goes_on_at_another_node_when_its_own_is_killed() -> Result<()> {
    let Scene { a, b, edge1, edge2, nats: _nats, _cluster } = Scene::new()?;
    let first = publisher(&a)?;
    let http = edge1.viewer_http();
    let path = live(&http)?;
    let epoch = Scene::wait_for_holder(&b, "a")?;
    let msn = newest_msn(&http, &path)?;
    a.kill()?;
    first.refused(LIVE_MAX)?;
    let _second = publisher(&b)?;
    let behind = media_behind(&http, &path, msn)?;
    let newest = behind.segments.last().context("an empty playlist")?;
    ensure!(newest.discontinuity_sequence == 1, "one discontinuity: {}", newest.discontinuity_sequence);
    ensure!(Scene::wait_for_holder(&edge2, "b")? > epoch);
    // Who comes now finds the same session.
    ensure!(live(&edge2.viewer_http())? == path);
    wait_for_events(&edge2, "stream-moved", 1)?;

    // All that are left have seen it, and what each of them tells after that is told already.
    for node in [&b, &edge1, &edge2] {
        poll::until("the node to be given up", HEARD_MAX, || {
            Ok((node.ask("nodes")?.len() == 3).then_some(()))
        })?;
    }
    edge1.stop()?;
    edge2.stop()?;
    b.ask("nodes drain b --force")?;
    wait_for_events(&b, "node-stopped", 2)?;
    wait_for_events(&b, "node-draining", 3)?;
    let events = b.ask("events")?;
    let lost: Vec<_> = events.iter().filter(|event| event["kind"] == "node-lost").collect();
    ensure!(lost.len() == 1 && lost[0]["subject"] == "a", "one death, told once: {lost:?}");
    Ok(())
}

/// A machine that hangs, is given up, and goes on as if nothing had been.
#[test]
fn a_node_that_stood_still_gives_way_and_reaches_no_viewer() -> Result<()> {
    let Scene { a, b, edge1, edge2, nats: _nats, _cluster } = Scene::new()?;
    let _first = publisher(&a)?;
    let http = edge1.viewer_http();
    let path = live(&http)?;
    Scene::wait_for_holder(&b, "a")?;
    let msn = newest_msn(&http, &path)?;
    a.freeze()?;
    let _second = publisher(&b)?;
    media_behind(&http, &path, msn)?;
    a.thaw()?;
    a.wait_for_log("that it gives way", HEARD_MAX, |line| {
        line.contains("is published to b now").then_some(())
    })?;
    // Its viewers are led on, and those of the edges never hear of it.
    let answer = poll::until("a to send viewers on", HEARD_MAX, || {
        let answer = a.viewer_http().get(&path)?;
        Ok((answer.status == 307).then_some(answer))
    })?;
    ensure!(!answer.header("location").starts_with(&a.page_url("")), "to itself");
    let msn = newest_msn(&http, &path)?;
    media_behind(&http, &path, msn + 1)?;
    ensure!(live(&edge2.viewer_http())? == path);
    ensure!(Scene::wait_for_holder(&edge2, "b").is_ok());
    Ok(())
}

/// A machine that hangs, whose broadcaster goes on at a second node. What it writes when it goes on, and that its own session is
/// over, must not be what a third node finds when the second one dies as well.
#[test]
fn a_session_goes_on_at_a_third_node_after_the_first_stood_still_and_the_second_died() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let node = |name: &str, roles: &str| cluster.node(name, roles, &nats, Setup::default());
    let (a, b, c, edge) = (node("a", "all")?, node("b", "all")?, node("c", "all")?, node("edge", "edge")?);
    let _first = publisher(&a)?;
    let http = edge.viewer_http();
    let path = live(&http)?;
    let first_epoch = Scene::wait_for_holder(&b, "a")?;
    let msn = newest_msn(&http, &path)?;
    a.freeze()?;
    let second = publisher(&b)?;
    media_behind(&http, &path, msn)?;
    let second_epoch = Scene::wait_for_holder(&c, "b")?;
    let before = playlist(&http, &path)?;
    let newest = before.segments.last().context("an empty playlist")?;
    // It writes no more, so that nothing of it comes after the last words of the first.
    b.freeze()?;
    a.thaw()?;
    a.wait_for_log("the end of what it had", GIVEN_UP_MAX, |line| {
        line.contains("publication ended").then_some(())
    })?;
    b.kill()?;
    second.refused(LIVE_MAX)?;
    let _third = publisher(&c)?;
    let behind = media_behind(&http, &path, newest.msn)?;
    let after = behind.segments.last().context("an empty playlist")?;
    ensure!(
        after.discontinuity_sequence > newest.discontinuity_sequence,
        "discontinuity {} behind {}",
        after.discontinuity_sequence,
        newest.discontinuity_sequence
    );
    ensure!(live(&http)? == path, "it is another session");
    let third_epoch = Scene::wait_for_holder(&edge, "c")?;
    ensure!(first_epoch < second_epoch && second_epoch < third_epoch);
    Ok(())
}

/// As `publish.on_conflict = "takeover"` has it on one node; and back, to the node that has given way.
#[test]
fn with_takeover_a_second_publisher_takes_the_stream_to_its_node() -> Result<()> {
    let scene = Scene::with(&Setup::default().set("publish.on_conflict", "takeover"))?;
    let Scene { a, b, edge1, edge2, nats: _nats, _cluster } = scene;
    let http = edge1.viewer_http();
    let mut there = publisher(&a)?;
    let path = live(&http)?;
    let mut epoch = Scene::wait_for_holder(&edge2, "a")?;
    let mut msn = newest_msn(&http, &path)?;
    for (discontinuities, loser, winner, name) in [(1, &a, &b, "b"), (2, &b, &a, "a")] {
        let newcomer = publisher(winner)?;
        loser.wait_for_log("that its publisher is told", LIVE_MAX, |line| {
            line.contains("another publisher has taken over this stream").then_some(())
        })?;
        there.refused(LIVE_MAX)?;
        let behind = media_behind(&http, &path, msn)?;
        let newest = behind.segments.last().context("an empty playlist")?;
        ensure!(
            newest.discontinuity_sequence == discontinuities,
            "{} discontinuities, {name} has it",
            newest.discontinuity_sequence
        );
        let won = Scene::wait_for_holder(&edge2, name)?;
        ensure!(won > epoch, "epoch {won} after {epoch}");
        ensure!(live(&edge2.viewer_http())? == path, "it is another session");
        (there, epoch, msn) = (newcomer, won, newest_msn(&http, &path)?);
    }
    wait_for_events(&edge2, "stream-moved", 2)
}

/// A rolling upgrade: the node says goodbye, and its broadcaster goes to another one.
#[test]
fn a_session_goes_on_at_another_node_when_its_own_is_drained() -> Result<()> {
    let Scene { a, b, edge1, edge2: _edge2, nats: _nats, _cluster } = Scene::new()?;
    let first = publisher(&a)?;
    let http = edge1.viewer_http();
    let path = live(&http)?;
    let msn = newest_msn(&http, &path)?;
    a.stop()?;
    first.refused(LIVE_MAX)?;
    let _second = publisher(&b)?;
    media_behind(&http, &path, msn)?;
    let nodes = edge1.ask("nodes")?;
    ensure!(nodes.len() == 3, "it has said goodbye: {nodes:?}");
    Ok(())
}

#[test]
fn without_nats_everything_plays_on_and_what_came_meanwhile_is_known_after() -> Result<()> {
    let mut scene = Scene::new()?;
    let _publisher = publisher(&scene.a)?;
    let http = scene.edge1.viewer_http();
    let path = live(&http)?;
    Scene::wait_for_holder(&scene.edge2, "a")?;
    scene.nats.kill()?;
    let msn = newest_msn(&http, &path)?;
    poll::until("the stream to go on", MEDIA_BACK_MAX, || {
        Ok((newest_msn(&http, &path)? > msn + 2).then_some(()))
    })?;
    // An edge that nobody watched at, and a broadcaster whom nobody knows of.
    ensure!(live(&scene.edge2.viewer_http())? == path);
    let _other = Publisher::of_clip(CLIP, &scene.b.publish_url("live/other"))?;
    poll::until("the new stream at its own node", LIVE_MAX, || {
        Ok((scene.b.viewer_http().get("/hls/live/other/index.m3u8")?.status == 200).then_some(()))
    })?;
    scene.nats.start_again()?;
    poll::until("the new stream at an edge", LIVE_MAX, || {
        Ok((scene.edge1.viewer_http().get("/hls/live/other/index.m3u8")?.status == 200).then_some(()))
    })?;
    ensure!(!http.get_ok(&path)?.text().contains("#EXT-X-ENDLIST"));
    Ok(())
}

/// A node plays on, and is upgraded, with a NATS that it never sees.
#[test]
fn a_node_that_finds_no_nats_works_alone_and_ends_clean() -> Result<()> {
    let (cluster, mut nats) = (Cluster::new()?, Nats::start()?);
    nats.kill()?;
    let node = cluster.node("a", "all", &nats, Setup::default())?;
    let _publisher = publisher(&node)?;
    live(&node.viewer_http())?;
    ensure!(node.ask("nodes")?.is_empty() && node.ask("events")?.is_empty());
    node.stop()
}

/// An operator sets NATS up anew under running nodes: they tell what they have.
#[test]
fn a_nats_that_was_emptied_is_filled_by_those_who_are_there() -> Result<()> {
    let mut scene = Scene::new()?;
    let _publisher = publisher(&scene.a)?;
    let http = scene.edge1.viewer_http();
    let path = live(&http)?;
    Scene::wait_for_holder(&scene.edge2, "a")?;
    scene.nats.kill()?;
    scene.nats.empty()?;
    scene.nats.start_again()?;
    // The log was emptied, too; and who reads it there has found the new NATS.
    for node in [&scene.edge2, &scene.b] {
        wait_for_events(node, "stream-started", 1)?;
    }
    let refused = publisher(&scene.b)?.refused(LIVE_MAX)?;
    ensure!(refused.contains("to node a"), "{refused}");
    Scene::wait_for_holder(&scene.edge2, "a")?;
    ensure!(live(&scene.edge2.viewer_http())? == path);
    let msn = newest_msn(&http, &path)?;
    media_behind(&http, &path, msn)?;
    poll::until("all nodes to be known again", HEARD_MAX, || {
        Ok((scene.edge2.ask("nodes")?.len() == 4).then_some(()))
    })
}

#[derive(Deserialize)]
struct Told {}

#[derive(Deserialize)]
struct Pinned {
    status: u16,
    width: u32,
}

#[derive(Deserialize)]
struct Returned {
    stood_ms: f64,
    state: String,
}

#[derive(Debug, Deserialize)]
struct Report {
    players: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "for the message")]
struct Seen {
    name: String,
    /// `None`: the picture never came back.
    freeze_ms: Option<u64>,
    fatal: Option<String>,
    error: Option<String>,
}

/// As viewers see it: our page and hls.js bare by HLS, and a page by WebRTC. None of them is loaded anew.
#[test]
fn viewers_see_a_broadcaster_move_from_a_dead_node_to_another() -> Result<()> {
    let scene = Scene::with(&Setup::default().set("transcode.ladder", "180:200k"))?;
    let Scene { a, b, edge1, edge2, nats: _nats, _cluster } = scene;
    let clock = |node: &Tidecast| Publisher::of_clock("gop-2", &node.publish_url(STREAM));
    let first = clock(&a)?;
    let watched = Watched::of(&a, STREAM);
    poll::until("a ladder", STEP_MAX, || Ok((watched.whole("v180")?.len() > 1).then_some(())))?;
    let folder = output_dir()?.to_string_lossy().into_owned();
    let screenshot = format!("{folder}/whep-moved.png");
    let by_webrtc = Browser::run("whep.mjs", &[&edge2.page_url(""), STREAM, "3", &screenshot, "v180"])?;
    let by_hls = Browser::run("players.mjs", &[&edge1.page_url(""), STREAM, "watch,hls.js", &folder, "25"])?;
    let Pinned { status, width } = by_webrtc.wait_for("pinned", STEP_MAX)?;
    ensure!((status, width) == (204, 320), "{status}: {width} pixels wide");
    let Told {} = by_hls.wait_for("playing", STEP_MAX)?;

    let killed = Instant::now();
    a.kill()?;
    first.refused(LIVE_MAX)?;
    let Told {} = by_webrtc.wait_for("stood", STEP_MAX)?;
    let second = clock(&b)?;
    let returned: Returned = by_webrtc.wait_for("returned", STEP_MAX)?;
    let away = killed.elapsed();
    ensure!(returned.state == "connected", "{}", returned.state);
    let report: Report = by_hls.wait_for("seen", STEP_MAX)?;
    println!("{away:?} until it moved by WebRTC ({:.0} ms still), by HLS: {report:?}", returned.stood_ms);
    for player in &report.players {
        let freeze = player.freeze_ms.with_context(|| format!("it never came back: {player:?}"))?;
        let recovery = if player.name == "watch" { RECOVERY_MAX } else { BARE_RECOVERY_MAX };
        ensure!(Duration::from_millis(freeze) < away + recovery, "{player:?}");
    }
    second.stop()?;
    let Told {} = by_webrtc.wait_for("ended", STEP_MAX)?;
    Ok(())
}
