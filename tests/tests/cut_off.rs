//! NATS loses a server, and a node loses NATS, or everybody.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::cluster::Cluster;
use harness::http::Http;
use harness::line::Line;
use harness::nats::{Nats, NatsCluster};
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::video_path;

const STREAM: &str = "live/cam";
const LIVE_MAX: Duration = Duration::from_secs(30);
/// An election of JetStream takes up to nine seconds, and each watch is begun anew after it.
const ELECTION_MAX: Duration = Duration::from_secs(40);
/// A node that is not heard for twenty seconds is lost; also on a busy machine.
const LOST_MAX: Duration = Duration::from_secs(60);

/// The path of the video playlist, once there is one.
fn live(http: &Http, stream: &str) -> Result<String> {
    video_path(http, stream, LIVE_MAX)
}

fn newest(http: &Http, path: &str) -> Result<u64> {
    Ok(MediaPlaylist::parse(&http.get_ok(path)?.text())?.edge().context("an empty playlist")?.0)
}

/// Media comes, segment by segment, and none of it is a gap.
fn plays_on(http: &Http, path: &str, segments: u64) -> Result<()> {
    let from = newest(http, path)?;
    poll::until("the stream to go on", LIVE_MAX, || {
        Ok((newest(http, path)? >= from + segments).then_some(()))
    })?;
    let playlist = MediaPlaylist::parse(&http.get_ok(path)?.text())?;
    let gaps = playlist.segments.iter().filter(|segment| segment.msn >= from && segment.has_only_gaps());
    ensure!(gaps.count() == 0, "viewers see a gap");
    Ok(())
}

/// The session of which a viewer had seen `msn` has media of its next owner: behind a discontinuity.
fn goes_on_elsewhere(http: &Http, path: &str, msn: u64) -> Result<()> {
    poll::until("the same session to go on", LIVE_MAX, || {
        let answer = http.get(path)?;
        if answer.status != 200 {
            return Ok(None);
        }
        let playlist = MediaPlaylist::parse(&answer.text())?;
        ensure!(!playlist.ended, "viewers were told that it is over");
        let media = playlist.segments.iter().rev().find(|segment| !segment.has_only_gaps());
        let is_next = media.is_some_and(|media| media.msn > msn + 1 && media.discontinuity_sequence > 0);
        Ok(is_next.then_some(()))
    })
}

fn holder(node: &Tidecast, stream: &str) -> Result<Option<(String, u64)>> {
    let entry = node.ask("streams")?.into_iter().find(|entry| entry["stream"] == stream);
    Ok(entry.and_then(|entry| Some((entry["holder"]["node"].as_str()?.to_owned(), entry["epoch"].as_u64()?))))
}

fn all_there(nodes: &[&Tidecast]) -> Result<()> {
    poll::until("nodes to hear of each other", LIVE_MAX, || {
        let counts = nodes.iter().map(|node| node.ask("nodes").map(|there| there.len()));
        Ok(counts.into_iter().all(|count| count.is_ok_and(|count| count == nodes.len())).then_some(()))
    })
}

/// Whoever watches sees nothing of it, and what is written is written again within seconds.
#[test]
fn the_leader_of_nats_is_killed_while_streams_play() -> Result<()> {
    let (cluster, mut nats) = (Cluster::new()?, NatsCluster::start()?);
    let setup = Setup::default().set("cluster.nats_replicas", "3");
    let node = |name: &str, roles: &str| cluster.node_at(name, roles, &nats.urls(), setup.clone());
    let (a, b) = (node("a", "all")?, node("b", "all")?);
    let (edge1, edge2) = (node("edge1", "edge")?, node("edge2", "edge")?);
    all_there(&[&a, &b, &edge1, &edge2])?;
    let _first = Publisher::of_clip("gop-0.5", &a.publish_url(STREAM))?;
    let path = live(&edge1.viewer_http(), STREAM)?;
    let epoch = poll::until("the claim", LIVE_MAX, || holder(&edge2, STREAM))?;
    let killed = nats.kill_leader_of("KV_tidecast_streams")?;
    println!("{killed} led, and is killed");

    // At once: an edge that nobody watched at, and a broadcaster at another node.
    ensure!(live(&edge2.viewer_http(), STREAM)? == path);
    let _second = Publisher::of_clip("gop-0.5", &b.publish_url("live/other"))?;
    plays_on(&edge1.viewer_http(), &path, 4)?;
    live(&b.viewer_http(), "live/other")?;
    let other = poll::until("the claim of the new stream", ELECTION_MAX, || holder(&edge1, "live/other"))?;
    ensure!(other.0 == "b", "{other:?}");
    live(&edge1.viewer_http(), "live/other")?;
    ensure!(holder(&edge1, STREAM)? == Some(epoch), "the stream was claimed again");
    // The name is still taken.
    let refused = Publisher::of_clip("gop-0.5", &b.publish_url(STREAM))?.refused(LIVE_MAX)?;
    ensure!(refused.contains("to node a"), "{refused}");
    plays_on(&edge1.viewer_http(), &path, 2)
}

/// A node whose way to NATS, and whose relay, can be cut.
struct Scene {
    a: Tidecast,
    b: Tidecast,
    edge1: Tidecast,
    edge2: Tidecast,
    to_nats: Line,
    to_relay: Line,
    path: String,
    first: Publisher,
    _nats: Nats,
    _cluster: Cluster,
}

impl Scene {
    fn new() -> Result<Self> {
        let (cluster, nats) = (Cluster::new()?, Nats::start()?);
        let to_nats = Line::to(nats.address())?;
        let relay = TcpListener::bind("127.0.0.1:0")?;
        let public = format!("https://{}", relay.local_addr()?);
        let nats_of_a = format!("nats://{}", to_nats.address());
        let a = cluster.node_at("a", "all", &nats_of_a, Setup::default().set("relay.public", &public))?;
        let to_relay = Line::listening(relay, a.relay_address()?)?;
        let node = |name: &str, roles: &str| cluster.node(name, roles, &nats, Setup::default());
        let (b, edge1, edge2) = (node("b", "all")?, node("edge1", "edge")?, node("edge2", "edge")?);
        all_there(&[&a, &b, &edge1, &edge2])?;
        let first = Publisher::of_clip("gop-0.5", &a.publish_url(STREAM))?;
        let path = live(&edge1.viewer_http(), STREAM)?;
        Ok(Self { a, b, edge1, edge2, to_nats, to_relay, path, first, _nats: nats, _cluster: cluster })
    }

    /// The others have given up waiting for a: each by itself, and the first has told it.
    fn a_is_lost(&self) -> Result<()> {
        poll::until("a to be lost", LOST_MAX, || {
            for node in [&self.b, &self.edge1, &self.edge2] {
                if node.ask("nodes")?.iter().any(|heard| heard["id"] == "a") {
                    return Ok(None);
                }
            }
            let events = self.edge1.ask("events")?;
            let is_told = events.iter().any(|event| event["kind"] == "node-lost" && event["subject"] == "a");
            Ok(is_told.then_some(()))
        })
    }
}

/// Its viewers have nothing to do with NATS.
#[test]
fn a_node_that_is_cut_from_nats_plays_on_for_its_edges() -> Result<()> {
    let scene = Scene::new()?;
    let http = scene.edge1.viewer_http();
    let before = poll::until("the claim", LIVE_MAX, || holder(&scene.edge2, STREAM))?;
    scene.to_nats.cut();
    scene.a_is_lost()?;
    plays_on(&http, &scene.path, 3)?;
    // For who has not read it before, too.
    ensure!(live(&scene.edge2.viewer_http(), STREAM)? == scene.path);
    scene.to_nats.mend();
    all_there(&[&scene.a, &scene.b, &scene.edge1, &scene.edge2])?;
    ensure!(holder(&scene.edge2, STREAM)? == Some(before), "it was claimed anew");
    ensure!(live(&scene.edge2.viewer_http(), STREAM)? == scene.path);
    plays_on(&http, &scene.path, 2)?;
    Ok(())
}

/// It plays on for as long as it likes: whoever hears of the next owner reads that one, though the first still answers.
#[test]
fn a_node_that_is_cut_from_nats_loses_its_viewers_to_the_next_owner() -> Result<()> {
    let scene = Scene::new()?;
    let http = scene.edge1.viewer_http();
    let (_, epoch) = poll::until("the claim", LIVE_MAX, || holder(&scene.edge2, STREAM))?;
    let msn = newest(&http, &scene.path)?;
    scene.to_nats.cut();
    scene.a_is_lost()?;
    let _second = Publisher::of_clip("gop-0.5", &scene.b.publish_url(STREAM))?;
    let moved = poll::until("b to have the stream", LIVE_MAX, || {
        Ok(holder(&scene.edge2, STREAM)?.filter(|(node, _)| node == "b"))
    })?;
    ensure!(moved.1 > epoch, "{moved:?} after {epoch}");
    goes_on_elsewhere(&http, &scene.path, msn)?;
    plays_on(&http, &scene.path, 2)?;
    // It has its publisher still, and would show it to whoever asked.
    ensure!(!scene.a.log().iter().any(|line| line.contains("is published to b now")), "it has heard of it");
    scene.to_nats.mend();
    scene.first.refused(LOST_MAX)?;
    plays_on(&http, &scene.path, 2)?;
    ensure!(holder(&scene.edge2, STREAM)? == Some(moved), "it was taken back");
    Ok(())
}

/// The broadcaster finds another node; the one that was cut off gives way when it is back, and reaches no viewer.
#[test]
fn a_node_that_is_cut_from_everybody_gives_way_when_it_is_back() -> Result<()> {
    let scene = Scene::new()?;
    let http = scene.edge1.viewer_http();
    let msn = newest(&http, &scene.path)?;
    scene.to_nats.cut();
    scene.to_relay.cut();
    scene.a_is_lost()?;
    // Its own publisher goes on: to the node that is cut off.
    let _second = Publisher::of_clip("gop-0.5", &scene.b.publish_url(STREAM))?;
    let moved = poll::until("b to have the stream", LIVE_MAX, || {
        Ok(holder(&scene.edge2, STREAM)?.filter(|(node, _)| node == "b"))
    })?;
    goes_on_elsewhere(&http, &scene.path, msn)?;
    scene.to_nats.mend();
    scene.to_relay.mend();
    scene.a.wait_for_log("that it gives way", LOST_MAX, |line| {
        line.contains("is published to b now").then_some(())
    })?;
    scene.first.refused(LIVE_MAX)?;
    plays_on(&http, &scene.path, 2)?;
    ensure!(holder(&scene.edge2, STREAM)? == Some(moved), "it was taken back");
    ensure!(live(&scene.edge2.viewer_http(), STREAM)? == scene.path);
    Ok(())
}
