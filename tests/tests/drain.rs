//! Nodes that their operator drains: who is there goes to others, nobody new comes, and the process goes on running.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::http::{Answer, Http};
use harness::media::output_dir;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::{Watched, video_path};
use serde::Deserialize;
use serde_json::Value;

const STREAM: &str = "live/cam";
const MULTIVARIANT: &str = "/hls/live/cam/index.m3u8";
const CLIP: &str = "gop-0.5";

/// A first playlist, or new media, also on a busy machine.
const LIVE_MAX: Duration = Duration::from_secs(25);
/// Nodes hear of each other, and of orders, within a heartbeat, also on a busy machine.
const HEARD_MAX: Duration = Duration::from_secs(30);
/// What a page does until it tells something, also on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(90);
/// A viewer's freeze on the way to another node, of two browsers on two cores that have other things to do; it is tenths of a second
/// where they have not.
const FREEZE_MAX: Duration = Duration::from_secs(20);

/// The same where nobody said that it would be gone, so that its silence has to be noticed.
const KILLED_FREEZE_MAX: Duration = Duration::from_secs(30);

struct Nodes {
    cluster: Cluster,
    nats: Nats,
}

impl Nodes {
    fn new() -> Result<Self> {
        Ok(Self { cluster: Cluster::new()?, nats: Nats::start()? })
    }

    fn start(&self, name: &str, roles: &str) -> Result<Tidecast> {
        self.cluster.node(name, roles, &self.nats, Setup::default())
    }

    /// For publishers, and what viewers by WebRTC need to hear them.
    fn origin(&self) -> Result<Tidecast> {
        let setup = Setup::default().set("transcode.ladder", "180:200k");
        self.cluster.node("a", "ingest, transcode, origin", &self.nats, setup)
    }

    /// Waits until each of these knows all of them.
    fn meet(nodes: &[&Tidecast]) -> Result<()> {
        poll::until("nodes to hear of each other", HEARD_MAX, || {
            let all = nodes.iter().map(|node| node.ask("nodes").map(|heard| heard.len()));
            let all = all.collect::<Result<Vec<_>>>()?;
            Ok(all.iter().all(|heard| *heard == nodes.len()).then_some(()))
        })
    }
}

/// What an order is answered with.
fn order(at: &Tidecast, words: &str) -> Result<Value> {
    at.ask(words)?.into_iter().next().context("an order has an answer")
}

fn wait_for_state(asked: &Tidecast, name: &str, state: &str) -> Result<()> {
    poll::until(&format!("{name} to be {state}"), LIVE_MAX, || {
        let nodes = asked.ask("nodes")?;
        Ok(nodes.iter().any(|node| node["id"] == name && node["state"] == state).then_some(()))
    })
}

/// By WebRTC.
fn wait_for_viewers(node: &Tidecast) -> Result<()> {
    poll::until("somebody to watch by WebRTC", STEP_MAX, || {
        Ok((node.metric("whep_viewers")? > 0.0).then_some(()))
    })
}

fn readiness(node: &Tidecast) -> Result<(u16, String)> {
    let answer = node.admin_http().get("/readyz")?;
    Ok((answer.status, answer.text()))
}

fn whep(http: &Http) -> Result<Answer> {
    http.send("POST", "/whep/live/cam", &[("content-type", "application/sdp")], b"v=0")
}

/// The path of the video playlist, once there is one.
fn live(http: &Http) -> Result<String> {
    video_path(http, STREAM, LIVE_MAX)
}

#[derive(Deserialize)]
struct Told {}

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

#[test]
fn a_drained_edge_sends_viewers_on_and_stays_so_over_a_restart_until_that_is_undone() -> Result<()> {
    let nodes = Nodes::new()?;
    let (a, edge1, edge2) = (nodes.origin()?, nodes.start("edge1", "edge")?, nodes.start("edge2", "edge")?);
    Nodes::meet(&[&a, &edge1, &edge2])?;
    let _publisher = Publisher::of_clock("gop-2", &a.publish_url(STREAM))?;
    let watched = Watched::of(&edge1, STREAM);
    poll::until("a ladder", STEP_MAX, || Ok((watched.whole("v180")?.len() > 1).then_some(())))?;
    let path = live(&edge1.viewer_http())?;
    let folder = output_dir()?.to_string_lossy().into_owned();
    let pages = Browser::run("players.mjs", &[&edge1.page_url(""), STREAM, "watch,webrtc", &folder, "25"])?;
    let Told {} = pages.wait_for("playing", STEP_MAX)?;
    wait_for_viewers(&edge1)?;

    // From another machine than its own.
    let told = order(&a, "nodes drain edge1")?;
    ensure!(told["obeyed"] == true && told["drained"] == true, "{told}");
    ensure!(told["words"].as_str().is_some_and(|words| words.contains("goes on running")), "{told}");
    wait_for_state(&edge2, "edge1", "draining")?;
    let (status, why) = readiness(&edge1)?;
    ensure!(status == 503 && why.contains("tidecast nodes drain"), "{status}: {why}");

    let http = edge1.viewer_http();
    for at in [MULTIVARIANT, "/watch/live/cam", "/embed/live/cam"] {
        let answer = http.get(at)?;
        ensure!(answer.status == 307, "{at}: {}", answer.status);
        ensure!(answer.header("location") == edge2.page_url(&format!("{at}?sent")), "{at}");
    }
    let newcomer = whep(&http)?;
    ensure!(newcomer.status == 307, "{}", newcomer.status);
    // Who watches by HLS stays.
    http.get_ok(&path)?;
    // Where a busy machine connects it too late the page goes on by HLS.
    poll::until("the viewer by WebRTC to be sent to edge2", STEP_MAX, || {
        let is_gone = edge1.metric("whep_viewers")? == 0.0;
        Ok((is_gone && edge2.metric("whep_answered_total")? > 0.0).then_some(()))
    })?;
    let report: Report = pages.wait_for("seen", STEP_MAX)?;
    println!("an edge is drained: {report:?}");
    // The page has gone by itself, with the session elsewhere before it gave up this one.
    let is_told = |line: &String| line.contains("viewers by WebRTC are sent to other nodes");
    ensure!(!edge1.log().iter().any(is_told), "the viewer had to be told goodbye");
    for player in &report.players {
        let freeze = player.freeze_ms.with_context(|| format!("it never came back: {player:?}"))?;
        ensure!(Duration::from_millis(freeze) < FREEZE_MAX, "{player:?}");
    }
    pages.terminate();

    let edge1 = edge1.restart(End::Drained)?;
    poll::until("edge1 to hear of the order", HEARD_MAX, || Ok((readiness(&edge1)?.0 == 503).then_some(())))?;
    wait_for_state(&a, "edge1", "draining")?;
    let told = order(&edge2, "nodes drain edge1 --undo")?;
    ensure!(told["drained"] == false, "{told}");
    poll::until("edge1 to be ready", HEARD_MAX, || Ok((readiness(&edge1)?.0 == 200).then_some(())))?;
    wait_for_state(&edge2, "edge1", "serving")?;
    ensure!(live(&edge1.viewer_http())? == path);
    poll::until("the events of both orders", HEARD_MAX, || {
        let events = edge2.ask("events")?;
        let is_told = |kind| events.iter().any(|event| event["kind"] == kind && event["subject"] == "edge1");
        Ok((is_told("node-draining") && is_told("node-resumed")).then_some(()))
    })
}

#[test]
fn a_drained_node_sends_its_publisher_to_another_where_the_session_goes_on() -> Result<()> {
    let nodes = Nodes::new()?;
    let (a, b, edge) = (nodes.start("a", "all")?, nodes.start("b", "all")?, nodes.start("edge1", "edge")?);
    Nodes::meet(&[&a, &b, &edge])?;
    let publish = |node: &Tidecast| Publisher::of_clip(CLIP, &node.publish_url(STREAM));
    let first = publish(&a)?;
    let http = edge.viewer_http();
    let path = live(&http)?;
    let newest = |text: &str| -> Result<u64> {
        Ok(MediaPlaylist::parse(text)?.edge().context("an empty playlist")?.0)
    };
    let msn = newest(&http.get_ok(&path)?.text())?;

    let told = order(&b, "nodes drain a")?;
    ensure!(told["obeyed"] == true, "{told}");
    let sent_away = first.refused(LIVE_MAX)?;
    println!("the broadcaster reads: {sent_away}");
    let refused = publish(&a)?.refused(LIVE_MAX)?;
    ensure!(refused.contains("takes no publishers at the moment"), "{refused}");
    // At once, though it was published to a a moment ago.
    let _second = publish(&b)?;
    poll::until("media after the interruption", LIVE_MAX, || {
        let answer = http.get(&path)?;
        if answer.status != 200 {
            return Ok(None);
        }
        let text = answer.text();
        ensure!(!text.contains("#EXT-X-ENDLIST"), "viewers were told that it is over");
        let playlist = MediaPlaylist::parse(&text)?;
        let newest = playlist.segments.iter().rev().find(|segment| !segment.has_only_gaps());
        Ok(newest.is_some_and(|newest| newest.msn > msn + 1).then_some(()))
    })?;

    // Whom nobody has heard of yet is drained when it comes.
    let told = order(&a, "nodes drain c")?;
    ensure!(told["there"] == false, "{told}");
    let c = nodes.start("c", "all")?;
    poll::until("c to hear of the order", HEARD_MAX, || Ok((readiness(&c)?.0 == 503).then_some(())))?;
    // The last one is not drained by a slip of the finger.
    let refused = a.ask("nodes drain b").err().context("the last one is drained")?.to_string();
    ensure!(
        refused.contains("b is the only node that takes publishers") && refused.contains("--force"),
        "{refused}"
    );
    ensure!(readiness(&b)?.0 == 200);
    ensure!(order(&a, "nodes drain a --undo")?["obeyed"] == true);
    let _other = Publisher::of_clip(CLIP, &a.publish_url("live/other"))?;
    poll::until("a to take publishers again", LIVE_MAX, || {
        Ok((a.viewer_http().get("/hls/live/other/index.m3u8")?.status == 200).then_some(()))
    })?;
    ensure!(order(&a, "nodes drain a --force")?["drained"] == true);
    ensure!(order(&a, "nodes drain b --force")?["drained"] == true);
    Ok(())
}

/// Nobody says goodbye: the edge is killed.
#[test]
fn pages_of_an_edge_that_is_killed_go_on_at_another_without_being_loaded_anew() -> Result<()> {
    let nodes = Nodes::new()?;
    let (a, edge1, edge2) = (nodes.origin()?, nodes.start("edge1", "edge")?, nodes.start("edge2", "edge")?);
    Nodes::meet(&[&a, &edge1, &edge2])?;
    let _publisher = Publisher::of_clock("gop-2", &a.publish_url(STREAM))?;
    let watched = Watched::of(&edge1, STREAM);
    poll::until("a ladder", STEP_MAX, || Ok((watched.whole("v180")?.len() > 1).then_some(())))?;
    let folder = output_dir()?.to_string_lossy().into_owned();
    let pages = Browser::run("players.mjs", &[&edge1.page_url(""), STREAM, "watch,webrtc", &folder, "40"])?;
    let Told {} = pages.wait_for("playing", STEP_MAX)?;
    wait_for_viewers(&edge1)?;
    edge1.kill()?;
    let report: Report = pages.wait_for("seen", STEP_MAX)?;
    println!("an edge is killed: {report:?}");
    for player in &report.players {
        let freeze = player.freeze_ms.with_context(|| format!("it never came back: {player:?}"))?;
        ensure!(Duration::from_millis(freeze) < KILLED_FREEZE_MAX, "{player:?}");
    }
    Ok(())
}
