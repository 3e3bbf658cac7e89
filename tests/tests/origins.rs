//! Origins apart from the node that takes publishers: both have the same, and viewers do not notice that one is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::http::{Answer, Http, resolve};
use harness::media::output_dir;
use harness::nats::Nats;
use harness::player::Viewers;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::video_path;
use serde::Deserialize;

const STREAM: &str = "live/cam";
const MULTIVARIANT: &str = "/hls/live/cam/index.m3u8";
/// What a worker makes of it.
const RUNG: &str = "v180";
/// What is passed through.
const PASSED: [&str; 2] = ["v", "a"];

/// A first playlist, also on a busy machine.
const LIVE_MAX: Duration = Duration::from_secs(60);
/// Nodes hear of each other within a heartbeat, and of one that is drained at once.
const HEARD_MAX: Duration = Duration::from_secs(60);
/// What a page does until it tells something.
const STEP_MAX: Duration = Duration::from_secs(120);
/// What a viewer looks at, with what was there before: from before an origin is gone until well after.
const WATCHED: Duration = Duration::from_secs(28);

/// Each of both origins reads parts and access units.
const READ_BY_BOTH: f64 = 4.0;

/// A picture that stands still for longer than this is gone, also on a busy machine.
const STILL_MAX: Duration = Duration::from_secs(8);

struct Scene {
    ingest: Tidecast,
    origins: Vec<(String, Tidecast)>,
    edges: Vec<Tidecast>,
    cluster: Cluster,
    nats: Nats,
}

impl Scene {
    fn new(origins: &[&str]) -> Result<Self> {
        Self::with(origins, "ingest", Setup::default())
    }

    fn with(origins: &[&str], publishers: &str, setup: Setup) -> Result<Self> {
        let (cluster, nats) = (Cluster::new()?, Nats::start()?);
        let ingest = cluster.node("ingest", publishers, &nats, setup)?;
        let edges = ["e1", "e2"].map(|name| cluster.node(name, "edge", &nats, Setup::default()));
        let edges = edges.into_iter().collect::<Result<Vec<_>>>()?;
        let mut scene = Self { ingest, origins: Vec::new(), edges, cluster, nats };
        origins.iter().try_for_each(|name| scene.add(name))?;
        scene.all_heard()?;
        Ok(scene)
    }

    /// Another origin.
    fn add(&mut self, name: &str) -> Result<()> {
        let origin = self.cluster.node(name, "origin", &self.nats, Setup::default())?;
        self.origins.push((name.to_owned(), origin));
        Ok(())
    }

    fn origins(&self) -> impl Iterator<Item = &Tidecast> {
        self.origins.iter().map(|(_, origin)| origin)
    }

    fn nodes(&self) -> impl Iterator<Item = &Tidecast> {
        [&self.ingest].into_iter().chain(self.origins()).chain(&self.edges)
    }

    fn all_heard(&self) -> Result<()> {
        let count = self.nodes().count();
        poll::until("nodes to hear of each other", HEARD_MAX, || {
            let mut all = self.nodes().map(|node| node.ask("nodes").map(|nodes| nodes.len()));
            Ok(all.all(|nodes| nodes.is_ok_and(|nodes| nodes == count)).then_some(()))
        })
    }

    fn publish(&self) -> Result<Publisher> {
        Publisher::of_clip("gop-2", &self.ingest.publish_url(STREAM))
    }

    /// The path of the picture's playlist, which is the same everywhere, once both edges have it and so many subscriptions are open
    /// at the ingest.
    fn live(&self, subscriptions: f64) -> Result<String> {
        let paths = self.edges.iter().map(|edge| video_path(&edge.viewer_http(), STREAM, LIVE_MAX));
        let paths = paths.collect::<Result<Vec<_>>>().with_context(|| self.told())?;
        ensure!(paths[0] == paths[1], "{paths:?}");
        poll::until("the origins to have it", LIVE_MAX, || {
            Ok((self.ingest.metric("relay_subscriptions")? == subscriptions).then_some(()))
        })
        .with_context(|| self.told())?;
        Ok(paths[0].clone())
    }

    /// Takes the origin that the edges read out of the scene. On a busy machine it may have been silent for too long for one of them,
    /// which reads from the other one then.
    fn take_primary(&mut self) -> Result<(String, Tidecast)> {
        let reading = self.origins().map(|origin| origin.metric("relay_subscriptions"));
        let reading = reading.collect::<Result<Vec<_>>>()?;
        let (primary, read) = reading
            .iter()
            .enumerate()
            .max_by(|(_, one), (_, other)| one.total_cmp(other))
            .context("no origin")?;
        ensure!(*read > 0.0, "the edges read from none: {}", self.told());
        Ok(self.origins.remove(primary))
    }

    /// Players at both edges, from now on.
    fn watch(&self, path: &str) -> Viewers {
        Viewers::of(&self.edges, path, |played| played >= WATCHED)
    }

    /// Waits until viewers at both edges have so many segments more.
    fn plays_on(&self, path: &str, segments: u64) -> Result<()> {
        for edge in &self.edges {
            let http = edge.viewer_http();
            let from = newest(&http, path)?;
            poll::until("the stream to go on", LIVE_MAX, || {
                Ok((newest(&http, path)? >= from + segments).then_some(()))
            })
            .with_context(|| self.told())?;
        }
        Ok(())
    }

    fn told(&self) -> String {
        let logs = self.nodes().map(|node| node.log().join("\n"));
        logs.collect::<Vec<_>>().join("\n---\n")
    }
}

fn newest(http: &Http, path: &str) -> Result<u64> {
    Ok(MediaPlaylist::parse(&http.get_ok(path)?.text())?.edge().context("an empty playlist")?.0)
}

/// Of every rendition the playlist, init segment and parts are the same wherever they are asked for. Returns how many parts.
fn same_everywhere(nodes: &[&Tidecast], path: &str, renditions: &[&str]) -> Result<usize> {
    let bodies = same_playlists(nodes, path, renditions)?;
    same_bodies(nodes, &bodies)?;
    Ok(bodies.len())
}

/// Paths of all that the playlists list, which are the same everywhere.
fn same_playlists(nodes: &[&Tidecast], path: &str, renditions: &[&str]) -> Result<BTreeSet<String>> {
    let mut listed = BTreeSet::new();
    for rendition in renditions {
        let path = path.replace("/v/", &format!("/{rendition}/"));
        let playlists = poll::until("the same moment everywhere", LIVE_MAX, || {
            let answers = nodes.iter().map(|node| node.viewer_http().get_ok(&path));
            let answers = answers.collect::<Result<Vec<Answer>>>()?;
            let is_same = |answer: &Answer| answer.header("etag") == answers[0].header("etag");
            Ok(answers.iter().all(is_same).then_some(answers))
        })?;
        let text = playlists[0].text();
        ensure!(
            playlists.iter().all(|playlist| playlist.text() == text),
            "{:?}",
            playlists.iter().map(Answer::text)
        );
        let playlist = MediaPlaylist::parse(&text)?;
        let init = playlist.segments.iter().filter_map(|segment| segment.map.clone());
        // A gap of the publisher is answered with 404.
        let parts = playlist.segments.iter().flat_map(|segment| &segment.parts).filter(|part| !part.gap);
        let whole = playlist.segments.iter().filter(|segment| !segment.gap);
        let whole = whole.filter_map(|segment| Some(segment.finished.clone()?.1));
        let uris = init.chain(parts.map(|part| part.uri.clone())).chain(whole);
        listed.extend(uris.map(|uri| resolve(&path, &uri)));
    }
    Ok(listed)
}

fn same_bodies(nodes: &[&Tidecast], paths: &BTreeSet<String>) -> Result<()> {
    for path in paths {
        let bodies = nodes.iter().map(|node| Ok(node.viewer_http().get_ok(path)?.body));
        let bodies = bodies.collect::<Result<Vec<_>>>()?;
        ensure!(bodies.iter().all(|body| *body == bodies[0] && !body.is_empty()), "{path}");
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Playing {}

#[derive(Debug, Deserialize)]
struct Seen {
    watched_s: f64,
    frames: u64,
    still_ms: f64,
    energy: f64,
}

fn watch_by_webrtc(edge: &Tidecast, name: &str) -> Result<Browser> {
    let screenshot = output_dir()?.join(name).to_string_lossy().into_owned();
    Browser::run("whep.mjs", &[&edge.page_url(""), STREAM, "15", &screenshot])
}

impl Seen {
    /// The machine is busy, so two thirds of the pictures may be missing.
    fn is_right(&self) -> Result<()> {
        println!("by WebRTC: for {:.0} ms no picture came, at most", self.still_ms);
        ensure!(self.frames as f64 / self.watched_s > 10.0, "{self:?}");
        ensure!(Duration::from_secs_f64(self.still_ms / 1000.0) < STILL_MAX, "{self:?}");
        Ok(())
    }
}

#[test]
fn both_origins_and_all_edges_have_the_same() -> Result<()> {
    let setup = Setup::default().set("transcode.ladder", "180:200k");
    let scene = Scene::with(&["o1", "o2"], "ingest, transcode", setup)?;
    let publisher = scene.publish()?;
    let path = scene.live(READ_BY_BOTH)?;
    let rung = path.replace("/v/", &format!("/{RUNG}/"));
    poll::until("the rung", LIVE_MAX, || {
        let answers = scene.edges.iter().map(|edge| edge.viewer_http().get(&rung));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        Ok(answers.iter().all(|answer| answer.status == 200).then_some(()))
    })
    .with_context(|| scene.told())?;
    scene.plays_on(&rung, 3)?;
    let nodes: Vec<_> = scene.origins().chain(&scene.edges).collect();
    let compared = same_everywhere(&nodes, &path, &["v", "a", RUNG])?;
    println!("{compared} init segments, parts and segments are the same at {} nodes", nodes.len());
    ensure!(compared > 10, "{compared} bodies");
    let state = |node: &Tidecast| -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&node.viewer_http().get_ok("/state/live/cam")?.body)?)
    };
    for edge in &scene.edges {
        let (there, here) = (state(&scene.origins[0].1)?, state(edge)?);
        ensure!(here["state"] == "live" && here["session"] == there["session"], "{here} and {there}");
        let list: serde_json::Value = serde_json::from_slice(&edge.viewer_http().get_ok("/state")?.body)?;
        ensure!(list["streams"].as_array().context("a list")?.len() == 1, "{list}");
    }
    // Whoever watches, it is read twice, and the edges read nothing from there.
    poll::until("it to be read twice", LIVE_MAX, || {
        Ok((scene.ingest.metric("relay_subscriptions")? == READ_BY_BOTH).then_some(()))
    })?;
    publisher.stop()?;
    poll::until("the end at the edges", LIVE_MAX, || {
        let ended = |edge: &Tidecast| Ok(edge.viewer_http().get(&path)?.text().contains("#EXT-X-ENDLIST"));
        let ended = scene.edges.iter().map(ended).collect::<Result<Vec<_>>>()?;
        Ok(ended.iter().all(|ended| *ended).then_some(()))
    })?;
    let Scene { ingest, origins, edges, .. } = scene;
    let origins = origins.into_iter().map(|(_, origin)| origin);
    edges.into_iter().chain(origins).chain([ingest]).try_for_each(Tidecast::stop)
}

#[test]
fn of_an_origin_that_is_killed_viewers_notice_nothing() -> Result<()> {
    let mut scene = Scene::new(&["o1", "o2"])?;
    let _publisher = scene.publish()?;
    let path = scene.live(READ_BY_BOTH)?;
    let browser = watch_by_webrtc(&scene.edges[0], "whep-origin-killed.png")?;
    let Playing {} = browser.wait_for("playing", STEP_MAX)?;
    let viewers = scene.watch(&path);
    scene.plays_on(&path, 1)?;
    scene.take_primary()?.1.kill()?;
    viewers.missed_nothing().with_context(|| scene.told())?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    seen.is_right()?;
    let breaks = scene.edges.iter().map(|edge| edge.metric("pull_breaks_total"));
    let breaks = breaks.collect::<Result<Vec<_>>>()?;
    ensure!(breaks.iter().sum::<f64>() >= 1.0, "both read elsewhere all the time");
    Ok(())
}

/// The sound of an RTMP stream is made for viewers by WebRTC only, so who hears it was heard of two nodes further up.
#[test]
fn what_is_made_on_demand_is_made_for_a_viewer_behind_an_origin() -> Result<()> {
    let setup = Setup::default().set("transcode.ladder", "180:150k");
    let scene = Scene::with(&["o1", "o2"], "ingest, transcode", setup)?;
    let _publisher = scene.publish()?;
    scene.live(READ_BY_BOTH)?;
    let made = |line: &str| line.contains("encoder started") && line.contains("opus");
    ensure!(!scene.ingest.log().iter().any(|line| made(line)), "made for nobody: {}", scene.told());
    let browser = watch_by_webrtc(&scene.edges[0], "whep-behind-origin.png")?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    seen.is_right()?;
    ensure!(seen.energy > 0.0, "nothing was heard: {seen:?}");
    ensure!(scene.ingest.log().iter().any(|line| made(line)));
    Ok(())
}

/// As a machine that hangs: its connections stay open, and it takes new ones. When it goes on nobody reads anything old from it.
#[test]
fn of_an_origin_that_stands_still_viewers_notice_nothing_and_neither_when_it_goes_on() -> Result<()> {
    let mut scene = Scene::new(&["o1", "o2"])?;
    let _publisher = scene.publish()?;
    let path = scene.live(READ_BY_BOTH)?;
    let browser = watch_by_webrtc(&scene.edges[0], "whep-origin-frozen.png")?;
    let Playing {} = browser.wait_for("playing", STEP_MAX)?;
    let viewers = scene.watch(&path);
    scene.plays_on(&path, 1)?;
    let (_, primary) = scene.take_primary()?;
    primary.freeze()?;
    viewers.missed_nothing().with_context(|| scene.told())?;
    let seen: Seen = browser.wait_for("watched", STEP_MAX)?;
    seen.is_right()?;

    let viewers = scene.watch(&path);
    primary.thaw()?;
    scene.plays_on(&path, 1)?;
    // The other one is gone, and this one is as far as the viewers are.
    scene.take_primary()?.1.kill()?;
    viewers.missed_nothing().with_context(|| scene.told())?;
    primary.stop()
}

#[test]
fn an_origin_that_is_drained_is_left_by_its_edges_and_viewers_notice_nothing() -> Result<()> {
    let mut scene = Scene::new(&["o1", "o2"])?;
    let _publisher = scene.publish()?;
    let path = scene.live(READ_BY_BOTH)?;
    let viewers = scene.watch(&path);
    scene.plays_on(&path, 1)?;
    let (name, primary) = scene.take_primary()?;
    scene.ingest.ask(&format!("nodes drain {name}"))?;
    poll::until("its edges to leave it", HEARD_MAX, || {
        Ok((primary.metric("relay_subscriptions")? == 0.0).then_some(()))
    })
    .with_context(|| scene.told())?;
    primary.stop()?;
    viewers.missed_nothing().with_context(|| scene.told())
}

#[test]
fn an_origin_that_comes_late_has_the_whole_window() -> Result<()> {
    let mut scene = Scene::new(&["o1"])?;
    let _publisher = scene.publish()?;
    let path = scene.live(READ_BY_BOTH / 2.0)?;
    scene.plays_on(&path, 5)?;
    scene.add("o2")?;
    scene.all_heard()?;
    scene.live(READ_BY_BOTH)?;
    let (_, late) = &scene.origins[1];
    poll::until("the bodies of what it lists", LIVE_MAX, || {
        Ok((late.metric("pull_bodies_total")? > 0.0).then_some(()))
    })?;
    let nodes: Vec<_> = scene.origins().collect();
    let compared = same_everywhere(&nodes, &path, &PASSED)?;
    println!("{compared} bodies are the same");
    scene.take_primary()?.1.kill()?;
    scene.plays_on(&path, 2)?;
    let nodes: Vec<_> = scene.origins().chain(&scene.edges).collect();
    same_everywhere(&nodes, &path, &PASSED)?;
    Ok(())
}

/// What was published while it stood still it is only told of, when it goes on. It has to have it before somebody asks: then it may
/// be too late.
#[test]
fn an_origin_that_stood_still_has_the_whole_window_again_before_it_is_asked() -> Result<()> {
    let mut scene = Scene::new(&["o1", "o2"])?;
    let _publisher = scene.publish()?;
    let path = scene.live(READ_BY_BOTH)?;
    let (_, still) = scene.take_primary()?;
    let had = still.metric("pull_bodies_total")?;
    still.freeze()?;
    poll::until("the node of the publisher to cut it off", STEP_MAX, || {
        Ok((scene.ingest.metric("relay_subscriptions")? == READ_BY_BOTH / 2.0).then_some(()))
    })
    .with_context(|| scene.told())?;
    still.thaw()?;
    let (http, mut looked) = (still.viewer_http(), None);
    poll::until("it to have fetched what it lacks", STEP_MAX, || {
        let fetched = still.metric("pull_bodies_total")?;
        let answer = http.get(&path)?;
        // What it lists is too old at first.
        if answer.status != 200 {
            return Ok(None);
        }
        let (msn, _) = MediaPlaylist::parse(&answer.text())?.edge().context("an empty playlist")?;
        let (since, before) = *looked.get_or_insert((msn, fetched));
        if fetched > before {
            looked = Some((msn, fetched));
        }
        Ok((fetched > had && fetched == before && msn >= since + 2).then_some(()))
    })
    .with_context(|| still.log().join("\n"))?;
    let nodes = [&still, &scene.origins[0].1];
    let listed = same_playlists(&nodes, &path, &PASSED)?;
    // There is nobody to ask any more.
    scene.ingest.kill()?;
    same_bodies(&nodes, &listed)?;
    println!("{} bodies are the same", listed.len());
    Ok(())
}

#[test]
fn without_an_origin_it_is_said_why_nobody_can_watch_until_one_comes() -> Result<()> {
    let mut scene = Scene::new(&[])?;
    let _publisher = scene.publish()?;
    let no_origin = |line: &str| line.contains("no node of the cluster is an origin").then_some(());
    scene.ingest.wait_for_log("a word of it", LIVE_MAX, no_origin)?;
    let answer = poll::until("an answer of an edge that knows of the stream", LIVE_MAX, || {
        let answer = scene.edges[0].viewer_http().get(MULTIVARIANT)?;
        Ok((answer.status == 503).then_some(answer))
    })?;
    ensure!(!answer.header("retry-after").is_empty());
    scene.edges[0].wait_for_log("the reason", LIVE_MAX, no_origin)?;
    scene.add("o1")?;
    scene.live(READ_BY_BOTH / 2.0)?;
    Ok(())
}

/// What happens to a broadcaster's node is as it is without origins: the session goes on at another one, behind one discontinuity.
#[test]
fn a_session_that_moves_to_another_node_is_followed_by_its_origins() -> Result<()> {
    let scene = Scene::new(&["o1", "o2"])?;
    let other = scene.cluster.node("other", "ingest", &scene.nats, Setup::default())?;
    let first = scene.publish()?;
    let path = scene.live(READ_BY_BOTH)?;
    scene.plays_on(&path, 1)?;
    let http = scene.edges[0].viewer_http();
    let before = newest(&http, &path)?;
    let Scene { ingest, origins, edges, .. } = scene;
    ingest.kill()?;
    first.refused(LIVE_MAX)?;
    let _second = Publisher::of_clip("gop-2", &other.publish_url(STREAM))?;
    let playlist = poll::until("media behind the interruption", LIVE_MAX, || {
        let answer = http.get(&path)?;
        // As a player that asks again.
        if answer.status != 200 {
            return Ok(None);
        }
        let playlist = MediaPlaylist::parse(&answer.text())?;
        ensure!(!playlist.ended, "viewers were told that it is over");
        let newest = playlist.segments.iter().rev().find(|segment| !segment.has_only_gaps());
        Ok(newest.is_some_and(|newest| newest.msn > before + 1).then_some(playlist))
    })?;
    let last = playlist.segments.last().context("an empty playlist")?;
    ensure!(last.discontinuity_sequence == 1, "one discontinuity: {}", last.discontinuity_sequence);
    ensure!(video_path(&edges[1].viewer_http(), STREAM, LIVE_MAX)? == path);
    ensure!(other.metric("relay_subscriptions")? >= 1.0);
    origins.into_iter().try_for_each(|(_, origin)| origin.stop())
}
