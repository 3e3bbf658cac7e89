//! Nodes on hosts of their own, and packets that vanish between them: nobody is told, connections stay open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::cluster::Cluster;
use harness::http::{Http, resolve};
use harness::nats::{Nats, NatsCluster};
use harness::player::Viewers;
use harness::poll;
use harness::publisher::Publisher;
use harness::router::{Host, Router};
use harness::server::{Setup, Tidecast};
use harness::strict::MediaPlaylist;
use harness::watched::video_path;

const STREAM: &str = "live/cam";

/// What nodes do until there is something to be seen of it, also on a busy machine. TCP tries again after up to half as long as it was
/// cut off.
const STEP_MAX: Duration = Duration::from_secs(180);
/// Of a scenario's part, for those who look at it.
const LOOKED_AT_MAX: Duration = Duration::from_secs(600);

/// Longer than nodes wait for one that is not heard, until it is lost.
const SILENT: Duration = Duration::from_secs(22);
/// A node tells of itself every few seconds.
const HEARD: Duration = Duration::from_secs(8);

/// Each of both origins reads parts and access units.
const READ_BY_BOTH: f64 = 4.0;

struct Placed {
    name: &'static str,
    host: Host,
    node: Tidecast,
}

impl Placed {
    fn ask(&self, command: &str) -> Result<Vec<serde_json::Value>> {
        self.host.within(|| self.node.ask(command))
    }

    fn metrics(&self) -> Result<String> {
        self.host.within(|| Ok(self.node.admin_http().get_ok("/metrics")?.text()))
    }

    /// Whether `node` reads parts here.
    fn feeds(&self, node: &Self) -> Result<bool> {
        Ok(self.metrics()?.contains(&format!("tidecast_relay_lag_seconds{{node=\"{}\"}}", node.name)))
    }

    fn http(&self) -> Http {
        self.node.viewer_http()
    }
}

struct Scene {
    in1: Placed,
    in2: Placed,
    origins: [Placed; 2],
    edges: [Placed; 2],
    nats: NatsHosts,
    _cluster: Cluster,
}

/// Kept for as long as nodes need it.
struct NatsHosts {
    urls: String,
    hosts: Vec<Host>,
    replicas: &'static str,
    servers: Servers,
}

enum Servers {
    One { _server: Nats },
    Three(NatsCluster),
}

impl NatsHosts {
    fn one(router: &mut Router) -> Result<Self> {
        let host = router.host()?;
        let server = Nats::start_on(&host)?;
        let (urls, servers) = (server.url(), Servers::One { _server: server });
        Ok(Self { urls, hosts: vec![host], replicas: "1", servers })
    }

    fn three(router: &mut Router) -> Result<Self> {
        let hosts = [router.host()?, router.host()?, router.host()?];
        let servers = NatsCluster::start_on(&hosts)?;
        Ok(Self {
            urls: servers.urls(),
            hosts: hosts.into(),
            replicas: "3",
            servers: Servers::Three(servers),
        })
    }

    /// The one of three that decides who has which stream, and the others.
    fn split(&self) -> Result<(&Host, Vec<&Host>)> {
        let Servers::Three(servers) = &self.servers else { bail!("there is only one") };
        // The others have to elect another one.
        let lost = servers.leads("KV_tidecast_streams")?;
        let others = self.hosts.iter().enumerate().filter(|(number, _)| *number != lost);
        Ok((&self.hosts[lost], others.map(|(_, host)| host).collect()))
    }
}

impl Scene {
    fn new(router: &mut Router, nats: NatsHosts) -> Result<Self> {
        let cluster = Cluster::new()?;
        let mut place = |name: &'static str, roles: &str| -> Result<Placed> {
            let host = router.host()?;
            let setup = Setup::default().set("cluster.nats_replicas", nats.replicas);
            let node = cluster.node_on(&host, name, roles, &nats.urls, setup)?;
            Ok(Placed { name, host, node })
        };
        let (in1, in2) = (place("in1", "ingest")?, place("in2", "ingest")?);
        let origins = [place("o1", "origin")?, place("o2", "origin")?];
        let edges = [place("e1", "edge")?, place("e2", "edge")?];
        let scene = Self { in1, in2, origins, edges, nats, _cluster: cluster };
        scene.all_heard()?;
        Ok(scene)
    }

    fn nodes(&self) -> impl Iterator<Item = &Placed> {
        [&self.in1, &self.in2].into_iter().chain(&self.origins).chain(&self.edges)
    }

    /// For how long each node has not heard of each, itself too: all that comes by NATS.
    fn silences(&self) -> Result<Vec<Vec<Duration>>> {
        let heard = self.nodes().map(|placed| -> Result<_> {
            let nodes = placed.ask("nodes")?.into_iter();
            let silent = nodes.filter_map(|node| node["silent_ms"].as_u64().map(Duration::from_millis));
            Ok(silent.collect())
        });
        heard.collect()
    }

    fn all_heard(&self) -> Result<()> {
        let count = self.nodes().count();
        poll::until("nodes to hear of each other", STEP_MAX, || {
            let silences = self.silences()?;
            let all =
                |silent: &Vec<Duration>| silent.len() == count && silent.iter().all(|silent| *silent < HEARD);
            Ok(silences.iter().all(all).then_some(()))
        })
        .with_context(|| self.told())
    }

    fn nobody_heard(&self) -> Result<()> {
        poll::until("nodes to hear nothing of each other", STEP_MAX, || {
            let silences = self.silences()?;
            Ok(silences.iter().flatten().all(|silent| *silent > SILENT).then_some(()))
        })
        .with_context(|| self.told())
    }

    /// The path of the picture's playlist, once it is everywhere and both origins read it.
    fn live(&self) -> Result<String> {
        let paths = self.edges.iter().map(|edge| video_path(&edge.http(), STREAM, STEP_MAX));
        let paths = paths.collect::<Result<Vec<_>>>().with_context(|| self.told())?;
        ensure!(paths[0] == paths[1], "{paths:?}");
        poll::until("the origins to have it", STEP_MAX, || {
            let read = self.in1.host.within(|| self.in1.node.metric("relay_subscriptions"))?;
            Ok((read == READ_BY_BOTH).then_some(()))
        })
        .with_context(|| self.told())?;
        Ok(paths[0].clone())
    }

    /// Waits until viewers at both edges have so many segments more, with media.
    fn plays_on(&self, path: &str, segments: u64) -> Result<()> {
        for edge in &self.edges {
            let (from, _) = poll::until("a playlist", STEP_MAX, || newest(&edge.http(), path))
                .with_context(|| self.told())?;
            poll::until("the stream to go on", STEP_MAX, || {
                let newest = newest(&edge.http(), path)?;
                Ok(newest.is_some_and(|(msn, _)| msn >= from + segments).then_some(()))
            })
            .with_context(|| self.told())?;
        }
        Ok(())
    }

    /// The origin that `edge` reads, and the other.
    fn origins_of(&self, edge: &Placed) -> Result<(&Placed, &Placed)> {
        let [one, other] = &self.origins;
        Ok(if one.feeds(edge)? { (one, other) } else { (other, one) })
    }

    fn told(&self) -> String {
        let logs = self.nodes().map(|placed| placed.node.log().join("\n"));
        logs.collect::<Vec<_>>().join("\n---\n")
    }
}

/// MSN and discontinuity sequence of the newest segment with media; `None` while viewers are told to come back.
fn newest(http: &Http, path: &str) -> Result<Option<(u64, u64)>> {
    let answer = http.get(path)?;
    if answer.status != 200 {
        return Ok(None);
    }
    let playlist = MediaPlaylist::parse(&answer.text())?;
    ensure!(!playlist.ended, "viewers were told that it is over");
    let newest = playlist.segments.iter().rev().find(|segment| !segment.has_only_gaps());
    Ok(newest.map(|segment| (segment.msn, segment.discontinuity_sequence)))
}

/// Looks at several nodes at once: under one name there is one thing, wherever and whenever it is asked for.
struct Witnesses {
    known: Arc<Known>,
    threads: Vec<thread::JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Known {
    is_over: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// By rendition and MSN. Whoever goes on with a session does so behind a discontinuity.
    discontinuity_sequences: HashMap<(String, u64), u64>,
    /// By path.
    parts: HashMap<String, Vec<u8>>,
}

impl Witnesses {
    fn of<'a>(nodes: impl IntoIterator<Item = &'a Placed>, path: &str) -> Self {
        let known = Arc::<Known>::default();
        let paths = [path.to_owned(), path.replace("/v/", "/a/")];
        let all = nodes.into_iter().flat_map(|placed| paths.clone().map(|path| (placed, path)));
        let threads = all.map(|(placed, path)| {
            let (known, http, name) = (known.clone(), placed.http(), placed.name);
            thread::spawn(move || known.look(&http, &path).with_context(|| format!("at {name}")))
        });
        let threads = threads.collect();
        Self { known, threads }
    }

    /// Parts seen behind the discontinuity.
    fn saw_one_thing(self) -> Result<()> {
        self.known.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().expect("a witness does not panic"))?;
        let seen = self.known.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let after = seen.discontinuity_sequences.values().filter(|sequence| **sequence == 1).count();
        println!("{} parts, {after} segments behind the discontinuity", seen.parts.len());
        ensure!(after > 4 && seen.parts.len() > 20);
        Ok(())
    }
}

impl Known {
    fn look(&self, http: &Http, path: &str) -> Result<()> {
        let (mut request, mut newest) = (path.to_owned(), None);
        poll::until("the end of the scenario", LOOKED_AT_MAX, || {
            let answer = http.get(&request)?;
            path.clone_into(&mut request);
            if answer.status == 200 {
                let playlist = MediaPlaylist::parse(&answer.text())?;
                self.see(http, path, &playlist, &mut newest)?;
                if let Some((msn, part)) = playlist.edge() {
                    let next = part.map_or((msn + 1, 0), |part| (msn, part + 1));
                    request = format!("{path}?_HLS_msn={}&_HLS_part={}", next.0, next.1);
                }
            }
            Ok(self.is_over.load(Ordering::Relaxed).then_some(()))
        })
    }

    fn see(
        &self,
        http: &Http,
        path: &str,
        playlist: &MediaPlaylist,
        newest: &mut Option<(u64, usize)>,
    ) -> Result<()> {
        ensure!(!playlist.ended, "viewers were told that it is over");
        for segment in &playlist.segments {
            let (msn, sequence) = (segment.msn, segment.discontinuity_sequence);
            let known = {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let key = (path.to_owned(), msn);
                *seen.discontinuity_sequences.entry(key).or_insert(sequence)
            };
            ensure!(
                known == sequence,
                "{path}: segment {msn} is behind discontinuity {known}, and then behind {sequence}"
            );
            for (number, part) in segment.parts.iter().enumerate() {
                if part.gap || newest.is_some_and(|newest| (msn, number) <= newest) {
                    continue;
                }
                *newest = Some((msn, number));
                let uri = resolve(path, &part.uri);
                let answer = http.get(&uri)?;
                // Who is cut off may not have it.
                if answer.status != 200 {
                    continue;
                }
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                let known = seen.parts.entry(uri.clone()).or_insert_with(|| answer.body.clone());
                ensure!(*known == answer.body, "{uri} is now this, now that");
            }
        }
        Ok(())
    }
}

#[test]
fn viewers_notice_no_cut_but_the_one_from_the_publisher_and_nothing_that_is_made_behind_it() -> Result<()> {
    Router::with(|router| {
        let nats = NatsHosts::one(router)?;
        let scene = Scene::new(router, nats)?;
        let first = Publisher::of_clip("gop-2", &scene.in1.node.publish_url(STREAM))?;
        let path = scene.live()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let enough = is_over.clone();
        let viewers = Viewers::of(scene.edges.iter().map(|edge| &edge.node), &path, move |_| {
            enough.load(Ordering::Relaxed)
        });

        println!("an edge loses the way to the origin that it reads");
        let [edge, _] = &scene.edges;
        let (read, other) = scene.origins_of(edge)?;
        let cut = router.cut(&edge.host, &read.host)?;
        poll::until("it to read the other", STEP_MAX, || Ok(other.feeds(edge)?.then_some(())))
            .with_context(|| scene.told())?;
        scene.plays_on(&path, 2)?;
        cut.mend()?;

        println!("everybody loses NATS");
        let cut = router.cut_off(&scene.nats.hosts[0])?;
        scene.nobody_heard()?;
        scene.plays_on(&path, 2)?;
        cut.mend()?;
        scene.all_heard()?;
        scene.plays_on(&path, 2)?;
        is_over.store(true, Ordering::Relaxed);
        viewers.missed_nothing().with_context(|| scene.told())?;

        println!("the publisher's node loses everybody");
        let witnesses = Witnesses::of(scene.origins.iter().chain(&scene.edges), &path);
        let cut = router.cut_off(&scene.in1.host)?;
        let publish = || Publisher::of_clip("gop-2", &scene.in2.node.publish_url(STREAM));
        let _second =
            Publisher::once_free(&scene.in2.node, STEP_MAX, publish).with_context(|| scene.told())?;
        for edge in &scene.edges {
            poll::until("the session to go on", STEP_MAX, || {
                Ok(newest(&edge.http(), &path)?.filter(|(_, sequence)| *sequence == 1))
            })
            .with_context(|| scene.told())?;
        }
        // It has not heard of that, and its publisher has more for it.
        cut.mend()?;
        scene
            .in1
            .node
            .wait_for_log("that it gives way", STEP_MAX, |line| {
                line.contains("is published to in2 now").then_some(())
            })
            .with_context(|| scene.told())?;
        first.refused(STEP_MAX)?;
        scene.plays_on(&path, 3)?;
        witnesses.saw_one_thing().with_context(|| scene.told())
    })
}

/// What both of two nodes list of a playlist, by its path, with the bytes that the other one gives under it.
fn named_twice(one: &Http, other: &Http, path: &str) -> Result<HashMap<String, Vec<u8>>> {
    let playlist = MediaPlaylist::parse(&one.get_ok(path)?.text())?;
    let parts = playlist.segments.iter().flat_map(|segment| &segment.parts).filter(|part| !part.gap);
    let mut named = HashMap::new();
    for uri in parts.map(|part| resolve(path, &part.uri)) {
        let (mine, theirs) = (one.get(&uri)?, other.get(&uri)?);
        if mine.status == 200 && theirs.status == 200 && mine.body != theirs.body {
            named.insert(uri, theirs.body);
        }
    }
    Ok(named)
}

#[test]
fn of_two_halves_with_a_publisher_each_one_stream_is_left() -> Result<()> {
    Router::with(|router| {
        let nats = NatsHosts::three(router)?;
        let scene = Scene::new(router, nats)?;
        let Scene { in1, in2, origins: [o1, o2], edges: [e1, e2], nats, .. } = &scene;
        let first = Publisher::of_clip("gop-2", &in1.node.publish_url(STREAM))?;
        let path = scene.live()?;

        // Its third of NATS knows that it is less than half, and takes nothing.
        let (lost_nats, other_nats) = nats.split()?;
        let lost = [&in1.host, &o1.host, &e1.host, lost_nats];
        let others = [&in2.host, &o2.host, &e2.host].into_iter().chain(other_nats);
        let cut = router.split(lost, others)?;
        // At once, while the others elect: the claim waits for that.
        let publish = || Publisher::of_clip("gop-2", &in2.node.publish_url(STREAM));
        let _second = Publisher::once_free(&in2.node, STEP_MAX, publish).with_context(|| scene.told())?;
        scene.plays_on(&path, 2)?;
        let named = poll::until("the halves to give one name to two things", STEP_MAX, || {
            Ok(Some(named_twice(&e1.http(), &e2.http(), &path)?).filter(|named| named.len() > 3))
        })
        .with_context(|| scene.told())?;
        println!("{} parts have two bodies", named.len());
        // Let in where nobody else can be asked, and known to all behind the heal.
        let _lone = Publisher::of_clip("gop-2", &in1.node.publish_url("live/lone"))?;
        in1.node.wait_for_log("a publisher of another stream", STEP_MAX, |line| {
            line.contains("live/lone").then_some(())
        })?;

        cut.mend()?;
        first.refused(STEP_MAX).with_context(|| scene.told())?;
        let are_one = |text: &str| -> Result<bool> {
            let answers = [o1, o2, e1].map(|placed| placed.http().get(&path));
            let same = answers.into_iter().map(|answer| Ok(answer?.text() == text));
            Ok(same.collect::<Result<Vec<_>>>()?.into_iter().all(|is_same| is_same))
        };
        poll::until("one playlist everywhere", STEP_MAX, || {
            Ok(are_one(&e2.http().get(&path)?.text())?.then_some(()))
        })
        .with_context(|| scene.told())?;
        for placed in [o1, o2, e1, e2] {
            for (uri, body) in &named {
                // It may have to be fetched first.
                let answer = poll::until("an answer", STEP_MAX, || {
                    Ok(Some(placed.http().get(uri)?).filter(|answer| [200, 404].contains(&answer.status)))
                })?;
                let is_gone = answer.status == 404;
                ensure!(is_gone || answer.body == *body, "{uri} is the lost publisher's at {}", placed.name);
            }
            let theirs = named_twice(&placed.http(), &e2.http(), &path)?;
            ensure!(theirs.is_empty(), "{:?} differ at {}", theirs.keys(), placed.name);
        }
        for edge in [e1, e2] {
            video_path(&edge.http(), "live/lone", STEP_MAX).with_context(|| scene.told())?;
        }
        scene.plays_on(&path, 3)
    })
}

/// Who is connected to it has an answer to nothing, and could have one.
#[test]
fn a_server_of_nats_that_lost_the_others_is_left_for_them() -> Result<()> {
    Router::with(|router| {
        let (cluster, host) = (Cluster::new()?, router.host()?);
        let hosts = [router.host()?, router.host()?, router.host()?];
        let servers = NatsCluster::start_on(&hosts)?;
        let setup = Setup::default().set("cluster.nats_replicas", "3");
        let node = cluster.node_on(&host, "e1", "edge", &servers.url(0), setup)?;
        let node = Placed { name: "e1", host, node };
        let hears_itself = || -> Result<bool> {
            let silent = node.ask("nodes")?.iter().find_map(|node| node["silent_ms"].as_u64());
            Ok(silent.is_some_and(|silent| Duration::from_millis(silent) < HEARD))
        };
        poll::until("it to be heard", STEP_MAX, || {
            Ok((servers.clients(0)? == 1 && hears_itself()?).then_some(()))
        })?;

        let [lost, others @ ..] = &hosts;
        let cut = router.split([lost], others)?;
        poll::until("the lost one to be left", STEP_MAX, || Ok((servers.clients(0)? == 0).then_some(())))
            .with_context(|| node.node.log().join("\n"))?;
        poll::until("it to be heard by way of another", STEP_MAX, || Ok(hears_itself()?.then_some(())))
            .with_context(|| node.node.log().join("\n"))?;
        cut.mend()
    })
}
