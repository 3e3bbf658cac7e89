//! Edges are upgraded one after the other while an audience watches: each is told to end, and another process takes its place.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::audience::{Audience, Seen};
use harness::chaos;
use harness::cluster::Cluster;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Setup, Tidecast};
use harness::watched::video_path;

const STREAM: &str = "live/cam";

const STEP_MAX: Duration = Duration::from_secs(60);
/// A stall that is the machine's: tests of other files run beside it.
const STALL_MAX: Duration = Duration::from_secs(10);

/// Viewers and upgrades where other tests run beside it, and where targets are demanded.
const FEW: (usize, usize) = (60, 2);
const MANY: (usize, usize) = (500, 20);

fn wait_until_it_serves(asked: &Tidecast, name: &str) -> Result<()> {
    poll::until(&format!("{name} to serve"), STEP_MAX, || {
        let nodes = asked.ask("nodes")?;
        Ok(nodes.iter().any(|node| node["id"] == name && node["state"] == "serving").then_some(()))
    })
}

#[test]
fn edges_are_upgraded_one_after_the_other_and_no_viewer_notices() -> Result<()> {
    let demanded = chaos::is_asked_for();
    let (viewers, upgrades) = if demanded { MANY } else { FEW };
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let node = |name: &str, roles: &str| {
        cluster.node(name, roles, &nats, Setup::default().set("drain.timeout", "15s"))
    };
    let origin = node("a", "ingest, origin")?;
    let names = ["edge1", "edge2"];
    let mut edges = names.iter().map(|name| node(name, "edge")).collect::<Result<Vec<_>>>()?;
    for (name, edge) in names.iter().zip(&edges) {
        edges.iter().chain([&origin]).try_for_each(|asked| wait_until_it_serves(asked, name))?;
        wait_until_it_serves(edge, "a")?;
    }
    let _publisher = Publisher::of_clip("gop-2", &origin.publish_url(STREAM))?;
    let path = video_path(&edges[0].viewer_http(), STREAM, STEP_MAX)?;
    video_path(&edges[1].viewer_http(), STREAM, STEP_MAX)?;

    let addresses: Vec<_> = edges.iter().map(Tidecast::http_address).collect();
    let audience = Audience::of(&addresses, STREAM, &path, viewers);
    for upgrade in 0..upgrades {
        let name = names[upgrade % names.len()];
        let edge = edges.remove(0);
        poll::until("the edge to count its audience", STEP_MAX, || {
            let nodes = edge.ask("nodes")?;
            let own = nodes.iter().find(|node| node["id"] == name).context("it knows itself")?;
            Ok(own["load"]["viewers"].as_u64().filter(|viewers| *viewers > 0))
        })?;
        let edge = edge.restart(End::Drained).with_context(|| format!("upgrade {upgrade}, of {name}"))?;
        edges.push(edge);
        let others = edges.iter().chain([&origin]);
        others.into_iter().try_for_each(|asked| wait_until_it_serves(asked, name))?;
    }
    let Seen { parts, moves, stalls, failed } = audience.seen()?;
    let longest = stalls.iter().max().copied().unwrap_or_default();
    println!(
        "{viewers} viewers, {upgrades} upgrades: {moves} moves, {parts} parts, {} requests failed, {} stalls, the longest {longest:?}",
        failed.len(),
        stalls.len()
    );
    // A viewer that had no processor for seconds comes too late.
    let failed_max = if demanded { 0 } else { viewers / 10 };
    ensure!(failed.len() <= failed_max, "{} requests failed, the first: {:?}", failed.len(), failed.first());
    // All of an edge's audience goes, each time.
    ensure!(moves >= viewers / 2 * upgrades, "{moves} moves of {viewers} viewers in {upgrades} upgrades");
    ensure!(longest < STALL_MAX, "nothing was left to be shown for {longest:?}");
    ensure!(!demanded || stalls.is_empty(), "{} stalls, the longest {longest:?}", stalls.len());
    Ok(())
}
