//! The operator's page in real Chromium: of a node that is alone, of one whose neighbour dies, and of a stream's way through many.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::media::output_dir;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use serde::Deserialize;

const STREAM: &str = "live/cam";
/// Also on a busy machine; a node is given up after 20 s.
const STEP_MAX: Duration = Duration::from_secs(90);

#[derive(Debug, Deserialize)]
struct Shown {
    nodes: Vec<String>,
    streams: Vec<String>,
    events: Vec<String>,
    /// What all nodes have alike.
    cluster: Vec<String>,
    /// Of streams.
    links: Vec<String>,
    /// The kinds of the events that are left when "stream-started" is chosen.
    filtered: Vec<String>,
    problems: Vec<String>,
    /// What axe calls serious or critical, and what is wider than the window.
    axe: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Suspect {
    axe: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Lost {
    nodes: Vec<String>,
    /// The event.
    row: String,
    /// Its colour.
    red: String,
    /// What a screen reader is told at once.
    alarm: String,
    problems: Vec<String>,
    axe: Vec<String>,
}

/// A stream's way through the nodes.
#[derive(Debug, Deserialize)]
struct Way {
    hops: Vec<Hop>,
    facts: String,
    renditions: String,
    problems: Vec<String>,
    axe: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Hop {
    node: String,
    kind: String,
    /// The node on whose box this one hangs.
    under: String,
    text: String,
}

impl Way {
    fn hop(&self, node: &str) -> Result<&Hop> {
        ensure!(self.axe.is_empty() && self.problems.is_empty(), "{:?} {:?}", self.axe, self.problems);
        self.hops.iter().find(|hop| hop.node == node).with_context(|| format!("no {node} in {:?}", self.hops))
    }
}

fn visit(node: &Tidecast, name: &str, other: &str) -> Result<Browser> {
    let folder = output_dir()?.to_string_lossy().into_owned();
    Browser::run("operator.mjs", &[&node.admin_url("/"), &folder, name, other])
}

fn published_to(node: &Tidecast) -> Result<Publisher> {
    Publisher::of_clip("gop-0.5", &node.publish_url(STREAM))
}

#[test]
fn a_node_alone_shows_itself_and_its_stream_and_viewers_get_nothing_of_the_page() -> Result<()> {
    let server = Setup::default().start()?;
    let _publisher = published_to(&server)?;
    let browser = visit(&server, "alone", "")?;
    let shown: Shown = browser.wait_for("shown", STEP_MAX)?;
    ensure!(shown.axe.is_empty() && shown.problems.is_empty(), "{:?} {:?}", shown.axe, shown.problems);
    ensure!(shown.nodes.len() == 1 && shown.nodes[0].to_lowercase().contains("serving"), "{:?}", shown.nodes);
    ensure!(shown.nodes[0].contains("1 stream"), "{:?}", shown.nodes);
    ensure!(
        shown.streams.len() == 1 && shown.streams[0].contains("640×360 · H.264 · "),
        "{:?}",
        shown.streams
    );
    ensure!(shown.links.len() == 1 && shown.links[0].ends_with("/watch/live/cam"), "{:?}", shown.links);
    ensure!(shown.filtered == ["stream-started"], "{:?}", shown.filtered);

    let page = server.admin_http().get_ok("/")?.text();
    let assets: Vec<_> = page.split('"').filter(|text| text.starts_with("/assets/operator-")).collect();
    ensure!(assets.len() == 2, "{assets:?}");
    for asset in assets {
        let (own, viewers) = (server.admin_http().get_ok(asset)?, server.viewer_http().get(asset)?);
        ensure!(!own.body.is_empty() && viewers.status == 404, "{asset}: {}", viewers.status);
    }
    ensure!(server.viewer_http().get_ok("/")?.text() != page);
    ensure!(server.viewer_http().get("/operator/operator.html")?.status == 404);
    server.stop()
}

#[test]
fn a_node_that_is_killed_is_suspect_then_lost_and_the_event_is_red() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let a = cluster.node("a", "all", &nats, Setup::default())?;
    let b = cluster.node("b", "edge", &nats, Setup::default())?;
    // By way of the store, once that is there.
    poll::until("its own start", STEP_MAX, || Ok((!a.ask("events")?.is_empty()).then_some(())))?;
    a.asked_for_people("config set publish.linger 7s")?;
    let _publisher = published_to(&a)?;
    let browser = visit(&a, "cluster", "b")?;
    let shown: Shown = browser.wait_for("shown", STEP_MAX)?;
    ensure!(shown.axe.is_empty() && shown.problems.is_empty(), "{:?} {:?}", shown.axe, shown.problems);
    ensure!(shown.nodes.len() == 2 && shown.events.len() >= 3, "{:?} {:?}", shown.nodes, shown.events);
    ensure!(shown.nodes[0].contains("a (this node)"), "{:?}", shown.nodes);
    let alike =
        "publish.linger is 7s for all nodes from their next start, set on a; here it is 20s (default)";
    ensure!(shown.cluster == [alike], "{:?}", shown.cluster);
    ensure!(shown.nodes.iter().all(|node| node.to_lowercase().contains("serving")), "{:?}", shown.nodes);
    ensure!(shown.streams.len() == 1 && shown.streams[0].contains("on a · epoch"), "{:?}", shown.streams);
    let watch = [&a, &b].map(|node| node.watch_url(STREAM));
    ensure!(shown.links == watch, "{:?} are not {watch:?}", shown.links);

    b.kill()?;
    let suspect: Suspect = browser.wait_for("suspect", STEP_MAX)?;
    ensure!(suspect.axe.is_empty(), "{:?}", suspect.axe);
    let lost: Lost = browser.wait_for("lost", STEP_MAX)?;
    ensure!(lost.axe.is_empty() && lost.problems.is_empty(), "{:?} {:?}", lost.axe, lost.problems);
    ensure!(lost.nodes.len() == 2 && lost.nodes[1].contains("b was not heard for 20 s"), "{:?}", lost.nodes);
    ensure!(lost.row.contains("node-lost") && lost.row.contains("b was not heard"), "{}", lost.row);
    ensure!(lost.red == "rgb(255, 156, 156)", "{}", lost.red);
    ensure!(lost.alarm.contains("b was not heard"), "{}", lost.alarm);
    Ok(())
}

/// Asked of a node that has nothing to do with the stream but that it shows it.
#[test]
fn the_way_of_a_stream_through_the_nodes_is_seen_from_any_of_them_and_an_origin_that_is_killed_is_left()
-> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let setup = Setup::default().set("transcode.ladder", "180:150k");
    let ingest = cluster.node("ingest", "ingest", &nats, setup)?;
    let _worker = cluster.node("w1", "transcode", &nats, Setup::default())?;
    let origins = ["o1", "o2"].map(|name| Ok((name, cluster.node(name, "origin", &nats, Setup::default())?)));
    let mut origins = origins.into_iter().collect::<Result<Vec<_>>>()?;
    let edge = cluster.node("e1", "edge", &nats, Setup::default())?;
    poll::until("nodes to hear of each other, and what the worker lends", STEP_MAX, || {
        let nodes = ingest.ask("nodes")?;
        let lends =
            nodes.iter().any(|node| node["load"]["encode_free"].as_f64().is_some_and(|free| free > 0.0));
        Ok((nodes.len() == 5 && lends && edge.ask("nodes")?.len() == 5).then_some(()))
    })?;
    let _publisher = Publisher::of_clip("gop-2", &ingest.publish_url(STREAM))?;
    let folder = output_dir()?.to_string_lossy().into_owned();
    let (page, watch) = (edge.admin_url("/"), edge.watch_url(STREAM));
    let browser = Browser::run("operator.mjs", &[&page, &folder, "way", "e1", &watch])?;

    let way: Way = browser.wait_for("way", STEP_MAX)?;
    let first = way.hop("ingest")?;
    ensure!(first.under.is_empty() && first.text.contains("epoch"), "{first:?}");
    let (shows, encodes) = (way.hop("e1")?, way.hop("w1")?);
    ensure!((encodes.kind.as_str(), encodes.under.as_str()) == ("worker", "ingest"), "{encodes:?}");
    for origin in ["o1", "o2"] {
        let hop = way.hop(origin)?;
        ensure!(hop.under == "ingest" && hop.kind == "origin", "{hop:?}");
    }
    let read =
        origins.iter().position(|(name, _)| *name == shows.under).with_context(|| format!("{way:?}"))?;
    for told in ["640×360 · H.264 · ", " fps · keyframe each 2.0 s · ", "b/s · "] {
        ensure!(way.facts.contains(told), "{}", way.facts);
    }
    ensure!(way.renditions.starts_with("Renditions: 180p "), "{}", way.renditions);

    // The same in a terminal, and why.
    let (killed, other) = (origins[read].0, origins[1 - read].0);
    let whole = [" > e1; ", "; w1 encodes", "640x360@", "each 2.0 s"];
    poll::until("the way in a terminal", STEP_MAX, || {
        let told = edge.asked_for_people("streams")?;
        Ok(whole.iter().all(|part| told.contains(part)).then_some(()))
    })?;
    let why = edge.asked_for_people("explain live/cam")?;
    for words in [
        "live/cam is on ingest, which only takes publishers",
        "; viewers are sent here",
        "first by rendezvous hashing",
        "next by rendezvous hashing",
        "encodes it now",
    ] {
        ensure!(why.contains(words), "{why}");
    }
    let accept = [("accept", "application/json")];
    let asked = edge.viewer_http().get_with("/where/live/cam", &accept)?;
    let asked: serde_json::Value = serde_json::from_slice(&asked.body)?;
    let best = &asked["nodes"][0];
    ensure!(best["node"] == "e1" && best["verdict"] == "near", "{asked}");
    ensure!(best.get("cpu_share").is_none(), "how busy it is nobody else has to know: {asked}");

    origins.remove(read).1.kill()?;
    let moved: Way = browser.wait_for("moved", STEP_MAX)?;
    ensure!(moved.hop("e1")?.under == other, "{moved:?}");
    let gone: Way = browser.wait_for("gone", STEP_MAX)?;
    let (ghost, shows) = (gone.hop(killed)?, gone.hop("e1")?);
    ensure!(ghost.under == "ingest" && ghost.text.contains("lost") && shows.under == other, "{gone:?}");
    Ok(())
}
