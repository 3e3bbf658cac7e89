//! Origins apart from the node that takes publishers: both have the same, and viewers do not notice that one is gone.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::browser::Browser;
use harness::cluster::Cluster;
use harness::http::{Answer, Http, resolve};
use harness::media::output_dir;
use harness::nats::Nats;
use harness::poll;
use harness::publisher::Publisher;
use harness::server::{Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::video_path;
use serde::Deserialize;

const STREAM: &str = "live/cam";
const MULTIVARIANT: &str = "/hls/live/cam/index.m3u8";

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

/// A player that is told to come back for longer than this has nothing more to show, also on a busy machine.
const TURNED_AWAY_MAX: Duration = Duration::from_secs(8);

/// The same of a picture.
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

    /// Players at both edges, from now on, of the picture and of the sound.
    fn watch(&self, path: &str) -> Viewers {
        let paths = [path.to_owned(), path.replace("/v/", "/a/")];
        let all = self.edges.iter().flat_map(|edge| paths.clone().map(|path| (edge.viewer_http(), path)));
        let watch =
            |(http, path): (Http, String)| thread::spawn(move || Player::default().watch(&http, &path));
        Viewers(all.map(watch).collect())
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
fn same_everywhere(nodes: &[&Tidecast], path: &str) -> Result<usize> {
    let mut compared = 0;
    for rendition in ["/v/", "/a/"] {
        let path = path.replace("/v/", rendition);
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
        let parts = playlist.segments.iter().flat_map(|segment| &segment.parts);
        let whole = playlist.segments.iter().filter_map(|segment| Some(segment.finished.clone()?.1));
        let uris = init.chain(parts.map(|part| part.uri.clone())).chain(whole);
        for uri in uris.collect::<std::collections::BTreeSet<_>>() {
            let uri = resolve(&path, &uri);
            let bodies = nodes.iter().map(|node| Ok(node.viewer_http().get_ok(&uri)?.body));
            let bodies = bodies.collect::<Result<Vec<_>>>()?;
            ensure!(bodies.iter().all(|body| *body == bodies[0] && !body.is_empty()), "{uri}");
            compared += 1;
        }
    }
    Ok(compared)
}

/// Follows a playlist by blocking reloads, and fetches each part that is new in it.
#[derive(Default)]
struct Player {
    newest: Option<(u64, usize)>,
    parts: usize,
    /// Of the publisher, which has no time now and then on a busy machine.
    gaps: usize,
    /// Told to come back.
    turned_away: usize,
}

impl Player {
    /// Every part comes after the one before, and none is missing where there is one.
    fn watch(mut self, http: &Http, path: &str) -> Result<Self> {
        let mut played = Duration::ZERO;
        let mut request = path.to_owned();
        while played < WATCHED {
            let text = self.told(http, &request)?;
            let playlist = MediaPlaylist::parse(&String::from_utf8(text)?)?;
            ensure!(!playlist.ended, "{path}: viewers were told that it is over");
            let newest = playlist
                .segments
                .iter()
                .rev()
                .find_map(|segment| Some((segment.msn, segment.parts.len().checked_sub(1)?)));
            ensure!(newest >= self.newest, "{path}: {newest:?} comes after {:?}", self.newest);
            let all = playlist.segments.iter().flat_map(|segment| {
                segment.parts.iter().enumerate().map(|(number, part)| ((segment.msn, number), part))
            });
            let before = self.newest;
            for (place, part) in all.filter(|(place, _)| before.is_none_or(|before| *place > before)) {
                let follows =
                    |(msn, number): (u64, usize)| place == (msn, number + 1) || place == (msn + 1, 0);
                ensure!(self.newest.is_none_or(follows), "{path}: {place:?} comes after {:?}", self.newest);
                if part.gap {
                    self.gaps += 1;
                } else {
                    self.told(http, &resolve(path, &part.uri))?;
                    self.parts += 1;
                }
                (self.newest, played) = (Some(place), played + part.duration);
            }
            let last = playlist.segments.last().context("a playlist appears with its first segment")?;
            let next = match &last.finished {
                Some(_) => (last.msn + 1, 0),
                None => (last.msn, last.parts.len()),
            };
            request = format!("{path}?_HLS_msn={}&_HLS_part={}", next.0, next.1);
        }
        Ok(self)
    }

    /// Comes back for as long as it is told to, as players do.
    fn told(&mut self, http: &Http, path: &str) -> Result<Vec<u8>> {
        poll::until("an answer", TURNED_AWAY_MAX, || self.ask(http, path))
    }

    fn ask(&mut self, http: &Http, path: &str) -> Result<Option<Vec<u8>>> {
        let answer = http.get(path)?;
        match answer.status {
            200 => Ok(Some(answer.body)),
            503 => {
                self.turned_away += 1;
                Ok(None)
            }
            status => bail!("GET {path}: status {status}: {}", answer.text()),
        }
    }
}

struct Viewers(Vec<JoinHandle<Result<Player>>>);

impl Viewers {
    fn missed_nothing(self) -> Result<()> {
        for viewer in self.0 {
            let player = viewer.join().expect("a viewer does not panic")?;
            let Player { parts, gaps, turned_away, .. } = player;
            println!(
                "{parts} parts, none missing; {gaps} gaps of the publisher; told {turned_away} times to come back"
            );
            ensure!(parts > gaps, "{parts} parts and {gaps} gaps");
        }
        Ok(())
    }
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
    let scene = Scene::new(&["o1", "o2"])?;
    let publisher = scene.publish()?;
    let path = scene.live(READ_BY_BOTH)?;
    scene.plays_on(&path, 3)?;
    let nodes: Vec<_> = scene.origins().chain(&scene.edges).collect();
    let compared = same_everywhere(&nodes, &path)?;
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
    let compared = same_everywhere(&nodes, &path)?;
    println!("{compared} bodies are the same");
    scene.take_primary()?.1.kill()?;
    scene.plays_on(&path, 2)?;
    let nodes: Vec<_> = scene.origins().chain(&scene.edges).collect();
    same_everywhere(&nodes, &path)?;
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
