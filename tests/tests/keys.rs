//! One publish key for all nodes of a cluster, and how a node on its own becomes one of many, while streams play.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::http::Http;
use harness::media::output_dir;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{End, Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::video_path;
use serde::Deserialize;

const STREAM: &str = "live/cam";
/// A first playlist, also on a busy machine.
const LIVE_MAX: Duration = Duration::from_secs(30);
/// A command is heard, and told to others, within seconds; also on a busy machine.
const HEARD_MAX: Duration = Duration::from_secs(30);
/// What a page does until it tells something, also on a busy machine.
const STEP_MAX: Duration = Duration::from_secs(90);
/// A viewer's freeze beyond the time without a publisher.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

fn publish(node: &Tidecast, stream: &str, key: &str) -> Result<Publisher> {
    Publisher::of_clip("gop-0.5", &node.publish_url_with_key(stream, key))
}

/// Publishes a stream of its own until it is live, which takes a key that is right.
fn takes(node: &Tidecast, stream: &str, key: &str) -> Result<()> {
    let publisher = publish(node, stream, key)?;
    video_path(&node.viewer_http(), stream, LIVE_MAX)?;
    publisher.stop()
}

fn refuses(node: &Tidecast, key: &str) -> Result<()> {
    let refused = publish(node, "live/other", key)?.refused(LIVE_MAX)?;
    ensure!(refused.contains("the publish key is missing or wrong"), "{refused}");
    Ok(())
}

fn shown(node: &Tidecast) -> Result<String> {
    Ok(node.operate(&["keys", "show"])?.trim().to_owned())
}

fn playlist(http: &Http, path: &str) -> Result<MediaPlaylist> {
    Ok(MediaPlaylist::parse(&http.get_ok(path)?.text())?)
}

/// Waits for the cluster's key at `node`, made on `by`.
fn wait_for_key(node: &Tidecast, by: &str) -> Result<()> {
    let words = format!("publish key: the cluster's is in force, which was made on {by}");
    node.wait_for_log("the cluster's key", HEARD_MAX, |line| line.contains(&words).then_some(()))
}

/// Waits until `node` has made its key the cluster's.
fn wait_for_own(node: &Tidecast) -> Result<()> {
    node.wait_for_log("the cluster to have its key", HEARD_MAX, |line| {
        line.contains("publish key: the cluster's publish key is the one that").then_some(())
    })
}

#[test]
fn a_new_key_is_in_force_on_all_nodes_and_who_is_live_stays_so() -> Result<()> {
    let (cluster, mut nats) = (Cluster::new()?, Nats::start()?);
    let a = cluster.node("a", "all", &nats, Setup::default().with_kept_key())?;
    wait_for_own(&a)?;
    let b = cluster.node("b", "all", &nats, Setup::default().with_kept_key())?;
    wait_for_key(&b, "a")?;
    let old = shown(&a)?;
    let _publisher = publish(&a, STREAM, &old)?;
    let http = a.viewer_http();
    let path = video_path(&http, STREAM, LIVE_MAX)?;
    takes(&b, "live/second", &old)?;
    // Nobody but the node where it was made can tell it.
    let refused = shown(&b).err().context("b shows a key")?.to_string();
    ensure!(refused.contains("was made on a"), "{refused}");

    b.operate(&["keys", "new"])?;
    let new = shown(&b)?;
    ensure!(new != old);
    wait_for_key(&a, "b")?;
    takes(&a, "live/third", &new)?;
    refuses(&a, &old)?;
    refuses(&b, &old)?;
    let before = playlist(&http, &path)?.edge().context("an empty playlist")?;
    poll::until("the stream to go on", LIVE_MAX, || {
        let playlist = playlist(&http, &path)?;
        ensure!(
            !playlist.ended && playlist.segments.iter().all(|segment| segment.discontinuity_sequence == 0)
        );
        Ok((playlist.edge().is_some_and(|(msn, _)| msn > before.0 + 2)).then_some(()))
    })?;
    let events = a.ask("events")?;
    ensure!(events.iter().filter(|event| event["kind"] == "key-changed").count() == 2, "{events:?}");

    // A node knows it without NATS, and nobody finds it there or in a log.
    nats.kill()?;
    let a = a.restart(End::Drained)?;
    takes(&a, "live/fourth", &new)?;
    for node in [&a, &b] {
        let told = node.log().iter().any(|line| line.contains(&old) || line.contains(&new));
        ensure!(!told, "a key is in the log of a node");
    }
    Ok(())
}

#[test]
fn a_node_whose_key_is_configured_says_that_it_is_not_the_clusters() -> Result<()> {
    let (cluster, nats) = (Cluster::new()?, Nats::start()?);
    let a = cluster.node("a", "all", &nats, Setup::default().with_kept_key())?;
    wait_for_own(&a)?;
    let configured = cluster.node("b", "all", &nats, Setup::default().set("publish.linger", "7s"))?;
    configured.wait_for_log("the conflict in words", HEARD_MAX, |line| {
        (line.contains("another than the cluster's, which was made on a")
            && line.contains("auth.publish_key"))
        .then_some(())
    })?;
    refuses(&configured, &shown(&a)?)?;
    // Of other settings that should be equal the list of nodes tells.
    let expected =
        r#"publish.linger should be equal on all nodes that take publishers: it is "20s" on a; "7s" on b"#;
    poll::until("a to tell of itself and b", HEARD_MAX, || {
        Ok((a.asked_for_people("nodes")?.lines().last() == Some(expected)).then_some(()))
    })?;
    // One that brings its own file is told so, and takes the cluster's.
    let alone = Setup::default().with_kept_key().start()?;
    let own = shown(&alone)?;
    let c = cluster.takes_in("c", alone)?.set("cluster.nats", &nats.url()).restart(End::Drained)?;
    c.wait_for_log("the conflict in words", HEARD_MAX, |line| {
        (line.contains("made on a") && line.contains("which this node had")).then_some(())
    })?;
    takes(&c, "live/third", &shown(&a)?)?;
    refuses(&c, &own)?;
    // The file that it still has is nobody's wish, however often it starts, and also when another key was configured meanwhile.
    let c = c.restart(End::Drained)?;
    takes(&c, "live/fourth", &shown(&a)?)?;
    refuses(&a, &own)
}

#[derive(Deserialize)]
struct Told {}

#[derive(Debug, Deserialize)]
struct Report {
    players: Vec<Seen>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    /// `None`: the picture never came back.
    freeze_ms: Option<u64>,
}

/// As the README says it: `cluster init` while it runs, then a restart with NATS. Viewers keep their page, the broadcaster the key.
#[test]
fn a_node_on_its_own_becomes_one_of_many_and_drops_nobody() -> Result<()> {
    let nats = Nats::start()?;
    let alone = Setup::default().with_kept_key().set("publish.linger", "120s").start()?;
    let key = shown(&alone)?;
    let clock = |node: &Tidecast| Publisher::of_clock("gop-2", &node.publish_url_with_key(STREAM, &key));
    let first = clock(&alone)?;
    let http = alone.viewer_http();
    let path = video_path(&http, STREAM, LIVE_MAX)?;
    let folder = output_dir()?.to_string_lossy().into_owned();
    let viewers = Browser::run("players.mjs", &[&alone.page_url(""), STREAM, "watch", &folder, "25"])?;
    let Told {} = viewers.wait_for("playing", STEP_MAX)?;
    let before = playlist(&http, &path)?;

    alone.operate(&["cluster", "init", "first"])?;
    let moved = std::time::Instant::now();
    let node = alone.set("cluster.nats", &nats.url()).restart(End::Drained)?;
    first.refused(LIVE_MAX)?;
    let _second = clock(&node)?;
    poll::until("media again", LIVE_MAX, || {
        let playlist = playlist(&http, &path)?;
        let newest = playlist.segments.iter().rev().find(|segment| !segment.has_only_gaps());
        Ok(newest.is_some_and(|newest| newest.discontinuity_sequence > 0).then_some(()))
    })?;
    let away = moved.elapsed();
    let report: Report = viewers.wait_for("seen", STEP_MAX)?;
    println!("without a broadcaster for {away:?}: {report:?}");
    for player in &report.players {
        let freeze = player.freeze_ms.with_context(|| format!("it never came back: {player:?}"))?;
        ensure!(Duration::from_millis(freeze) < away + RECOVERY_MAX, "{player:?}");
    }
    let after = playlist(&http, &path)?;
    ensure!(after.edge() > before.edge(), "the same session goes on");
    ensure!(after.segments.last().is_some_and(|newest| newest.discontinuity_sequence == 1));
    wait_for_own(&node)?;

    // What comes now has its key, and shows its stream.
    let machine = harness::cluster::Machine::new()?;
    machine.join(&node.token(Some("second"))?, &[])?;
    let second = machine.node("all", &nats, Setup::default().with_kept_key())?;
    wait_for_key(&second, "first")?;
    takes(&second, "live/other", &key)?;
    poll::until("viewers to be led to the first", LIVE_MAX, || {
        let answer = second.viewer_http().get(&path)?;
        Ok((answer.status == 307 && answer.header("location") == node.page_url(&path)).then_some(()))
    })
}
