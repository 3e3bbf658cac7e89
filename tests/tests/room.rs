//! An edge without room: who is there is served on, who comes is sent to another edge, or told that all are full.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::http::Answer;
use harness::media::output_dir;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use serde::Deserialize;

const STREAM: &str = "live/cam";
const MULTIVARIANT: &str = "/hls/live/cam/index.m3u8";
const FIRST: [&str; 3] = [MULTIVARIANT, "/watch/live/cam", "/embed/live/cam"];

/// A first playlist, also on a busy machine.
const LIVE_MAX: Duration = Duration::from_secs(25);
/// Loads are told within a heartbeat.
const HEARD_MAX: Duration = Duration::from_secs(20);
/// What a page does until it tells something, also on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(90);
/// Of a player on two busy cores: none of it is the server's doing.
const FREEZE_MAX: Duration = Duration::from_secs(5);

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
    freeze_ms: Option<u64>,
    fatal: Option<String>,
}

fn whep(node: &Tidecast, query: &str) -> Result<Answer> {
    let path = format!("/whep/{STREAM}{query}");
    node.viewer_http().send("POST", &path, &[("content-type", "application/sdp")], b"v=0")
}

fn is_full(answer: &Answer) -> bool {
    answer.status == 503 && answer.header("retry-after") == "5" && answer.text().contains("full")
}

fn wait_for_room(asked: &Tidecast, node: &str, room: &str) -> Result<()> {
    poll::until(&format!("{node} to have {room} room"), HEARD_MAX, || {
        let nodes = asked.ask("nodes")?;
        Ok(nodes.iter().any(|seen| seen["id"] == node && seen["room"] == room).then_some(()))
    })
}

#[test]
fn a_full_edge_keeps_its_viewers_and_sends_newcomers_to_another_while_there_is_one() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let node = |name: &str, roles: &str, setup: Setup| cluster.node(name, roles, &nats, setup);
    let origin = node("origin", "ingest, origin", Setup::default())?;
    // Less than one viewer takes.
    let edge1 = node("edge1", "edge", Setup::default().set("http.egress_max", "100k"))?;
    let _publisher = Publisher::of_clock("gop-2", &origin.publish_url(STREAM))?;
    let http = edge1.viewer_http();
    poll::until(
        "the first playlist",
        LIVE_MAX,
        || Ok((http.get(MULTIVARIANT)?.status == 200).then_some(())),
    )?;
    let folder = output_dir()?.to_string_lossy().into_owned();
    // Alone, so that the first thing it asks for finds room: a second one, or the files of our page, may find none.
    let players = Browser::run("players.mjs", &[&edge1.page_url(""), STREAM, "hls.js", &folder, "15"])?;
    let Told {} = players.wait_for("playing", STEP_MAX)?;
    wait_for_room(&origin, "edge1", "none")?;

    // Nobody else has the stream for viewers.
    for at in FIRST {
        let answer = http.get(at)?;
        ensure!(is_full(&answer), "{at}: {} {}", answer.status, answer.text());
    }
    let refused = whep(&edge1, "")?;
    ensure!(is_full(&refused), "{} {}", refused.status, refused.text());

    let edge2 = node("edge2", "edge", Setup::default())?;
    poll::until("edge1 to hear of edge2", HEARD_MAX, || {
        Ok((http.get(MULTIVARIANT)?.status == 307).then_some(()))
    })?;
    for at in FIRST {
        let (answer, there) = (http.get(at)?, edge2.page_url(&format!("{at}?sent")));
        ensure!(answer.status == 307 && answer.header("location") == there, "{at}: {}", answer.status);
        // And not to and fro.
        ensure!(is_full(&http.get(&format!("{at}?sent"))?), "{at}");
    }
    let sent = whep(&edge1, "")?;
    ensure!(sent.status == 307 && sent.header("location").contains(&edge2.page_url("")), "{}", sent.status);
    let asked = http.get(&format!("/where/{STREAM}"))?;
    ensure!(asked.header("location") == edge2.page_url(MULTIVARIANT), "{}", asked.header("location"));

    let report: Report = players.wait_for("seen", STEP_MAX)?;
    println!("on an edge that is full: {report:?}");
    for player in &report.players {
        ensure!(player.freeze_ms.is_some_and(|ms| Duration::from_millis(ms) < FREEZE_MAX), "{player:?}");
    }
    // They leave, and there is room again.
    players.terminate();
    drop(players);
    wait_for_room(&origin, "edge1", "plenty")?;
    ensure!(http.get(MULTIVARIANT)?.status == 200);
    Ok(())
}

/// An operator knows that a crowd will come.
#[test]
fn as_many_edges_as_an_expected_audience_fills_have_the_stream_before_anybody_comes() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let node = |name: &str, roles: &str, setup: Setup| cluster.node(name, roles, &nats, setup);
    let origin = node("origin", "ingest, origin", Setup::default())?;
    // Ten viewers each.
    let edge = |name: &str| node(name, "edge", Setup::default().set("http.egress_max", "40M"));
    let edges = [edge("edge1")?, edge("edge2")?, edge("edge3")?];
    poll::until("nodes to hear of each other", HEARD_MAX, || {
        Ok((origin.ask("nodes")?.len() == 4 && edges[0].ask("nodes")?.len() == 4).then_some(()))
    })?;
    let told = origin.ask("streams expect live/cam 15")?.remove(0);
    let expected: Vec<_> =
        told["edges"].as_array().into_iter().flatten().filter_map(|edge| edge.as_str()).collect();
    ensure!(expected.len() == 2, "{told}");
    let later = origin.ask("streams expect live/later 15 --at 2099-01-01T00:00:00Z")?.remove(0);
    ensure!(later["at_ms"] == 4_070_908_800_000_i64, "{later}");

    let _publishers = [
        Publisher::of_clip("gop-0.5", &origin.publish_url(STREAM))?,
        Publisher::of_clip("gop-0.5", &origin.publish_url("live/later"))?,
    ];
    poll::until("both to have the stream open, and the third not", LIVE_MAX, || {
        let open = edges.iter().map(|edge| edge.metric("pull_streams")).collect::<Result<Vec<_>>>()?;
        let due = ["edge1", "edge2", "edge3"].map(|name| f64::from(u8::from(expected.contains(&name))));
        Ok((open == due).then_some(()))
    })?;
    let planned = poll::until("everybody to know of it", HEARD_MAX, || {
        let mut streams = edges[2].ask("streams")?.into_iter();
        Ok(streams.find(|line| line["viewers"] == 15 && line["stream"] == STREAM))
    })?;
    ensure!(planned["edges"] == told["edges"], "{planned}");
    let told = origin.ask("streams expect live/cam 0")?.remove(0);
    ensure!(told["viewers"] == 0, "{told}");
    poll::until("nobody to be expected", HEARD_MAX, || {
        let streams = edges[0].ask("streams")?;
        Ok((!streams.iter().any(|line| line["viewers"] == 15 && line["stream"] == STREAM)).then_some(()))
    })
}
