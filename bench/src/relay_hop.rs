//! What hops delay: the same part announced by an origin, by an edge of it, and by the third of a chain of edges, to viewers
//! who wait for it at all of them; and the same access unit in their logs, where viewers by WebRTC are served from. All in
//! this process, over loopback, with media in real time.

use std::collections::HashMap;
use std::future::pending;
use std::hash::Hash;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use edge::{Audience, Listener, PullMetrics, Puller, Purpose, Site, Upstreams, Watching};
use hls::{Catalog, FORMAT_VERSION};
use media::StreamId;
use origin::{Found, FoundLog, Keep, NotFound, Offer, Relay, RelayMetrics};
use relay::wire::Hops;
use relay::{Dialer, Identity, Kind, Read, StreamRegistry, Track, WireMetrics};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::measure::Samples;
use crate::node::{DEFAULT_PART, Node};
use crate::part_delay::{HEAD_START, follow, publish_until};
use crate::process::Cluster;
use crate::relay_cpu::Here;
use crate::table::{Table, Target};

/// Of the chain.
const HOPS: usize = 3;
const ONE_MS_MAX: f64 = 0.5;
const ALL_MS_MAX: f64 = 3.0;

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let watched = Duration::from_secs(if options.quick { 10 } else { 40 });
    let [one, all] = watch(watched)?;
    let mut table = Table::new("at an edge after the origin, ms", &["p50", "p90", "p99"]);
    for (hops, limit, Delays { parts, units }) in
        [("one hop", ONE_MS_MAX, &one), ("three hops", ALL_MS_MAX, &all)]
    {
        for (what, delays) in [("a part", parts), ("an access unit", units)] {
            let row = [0.5, 0.9, 0.99].map(|share| delays.quantile(share));
            table.judge(format!("{hops}: {what}"), &row, Target { column: 0, limit });
        }
    }
    let counted = format!("{} parts, {} units", all.parts.len(), all.units.len());
    table.note(format!("{counted}; publisher, nodes and viewers share the cores"));
    Ok(vec![table])
}

/// Milliseconds between the two answers for the same part, and between the two sights of the same unit.
struct Delays {
    parts: Samples,
    units: Samples,
}

/// Behind the first edge, and behind the last.
fn watch(watched: Duration) -> Result<[Delays; 2]> {
    let cluster = Cluster::new()?;
    let runtime = Runtime::new()?;
    let node = Node::new(DEFAULT_PART);
    let stop = CancellationToken::new();
    let entered = runtime.enter();
    let (catalog, streams) = (node.catalog.clone(), node.registry.clone());
    let site = Site::new(streams.clone(), catalog.clone(), 1935);
    let offer = Here(catalog.clone(), streams.clone());
    let origin = serve(site, (catalog, streams), offer, &cluster.identity("origin")?, &stop)?;
    let (mut upstream, mut edges) = (origin.relay, Vec::new());
    for number in 1..=HOPS {
        let edge = Edge::start(upstream, &cluster.identity(&format!("edge{number}"))?, &stop)?;
        upstream = edge.serving.relay;
        edges.push(edge);
    }
    drop(entered);
    runtime.spawn(node.origin().run(stop.clone()));
    // The process ends with its last round, and the nodes with it.
    let _stop = stop.drop_guard();

    let id = StreamId::new("live", "bench")?;
    let mut publisher = node.publish(&id, HEAD_START)?;
    let begun = Instant::now();
    publish_until(&mut publisher, begun)?;
    let stream = node.registry.get(&id).context("the stream is published")?;
    let playlist = format!("/hls/{id}/{}/v/index.m3u8", stream.session());
    let until = begun + watched;
    let watched = [&edges[0], &edges[HOPS - 1]];
    let (mut logs, mut watching) = (vec![stream], Vec::new());
    for edge in watched {
        let joined = runtime.block_on(edge.puller.join_log(&id, Hops::default()));
        let (copy, kept) = joined.map_err(|error| anyhow::anyhow!("no access units: {error:?}"))?;
        logs.push(copy);
        watching.push(kept);
    }
    let seen: Vec<_> = logs
        .iter()
        .map(|stream| {
            let track = stream.tracks().iter().find(|track| track.record().suits_webrtc()).cloned();
            let track = track.context("there is nothing that WebRTC can show")?;
            Ok(runtime.spawn(note(track, until)))
        })
        .collect::<Result<_>>()?;
    let told = thread::scope(|scope| {
        let nodes = [origin.http, watched[0].serving.http, watched[1].serving.http];
        let viewers = nodes.map(|address| {
            let playlist = &playlist;
            scope.spawn(move || follow(address, playlist, until))
        });
        publish_until(&mut publisher, until + DEFAULT_PART)?;
        anyhow::Ok(viewers.map(|viewer| viewer.join().expect("a viewer does not panic")))
    })?;
    let parts: Vec<HashMap<_, _>> = told
        .into_iter()
        .map(|answers| Ok(answers?.iter().map(|answer| ((answer.msn, answer.part), answer.at)).collect()))
        .collect::<Result<_>>()?;
    let units: Vec<_> = seen.into_iter().map(|seen| runtime.block_on(seen)).collect::<Result<_, _>>()?;
    Ok([1, 2].map(|behind| Delays {
        parts: delays(&parts[0], &parts[behind]),
        units: delays(&units[0], &units[behind]),
    }))
}

/// How much later the same things were seen behind, milliseconds.
fn delays<K: Eq + Hash>(first: &HashMap<K, Instant>, behind: &HashMap<K, Instant>) -> Samples {
    let mut delays = Samples::default();
    for (what, at) in behind {
        let Some(first) = first.get(what) else { continue };
        // Who is behind may be the first to be scheduled.
        delays.push(at.saturating_duration_since(*first).as_secs_f64() * 1000.0);
    }
    delays
}

/// Where a node is reached, by viewers and by nodes.
struct Serving {
    http: SocketAddr,
    relay: SocketAddr,
}

/// To be called within a runtime.
fn serve(
    site: Site,
    (catalog, streams): (Catalog, StreamRegistry),
    offer: impl Offer,
    identity: &Identity,
    stop: &CancellationToken,
) -> Result<Serving> {
    let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
    let places = net::Places::new(net::Limits { total: 100, per_address: 100 });
    let viewers = Listener::new(net::bind(anywhere, edge::SOCKET)?, site, places, edge::Metrics::default());
    let socket = net::bind(anywhere, relay::server::SOCKET)?;
    let nodes = relay::server::Listener::new(socket, identity, WireMetrics::default());
    let relay = Relay::new(identity, catalog, streams, offer, RelayMetrics::default());
    let serving = Serving { http: viewers.local_addr()?, relay: nodes.local_addr()? };
    tokio::spawn(viewers.run(stop.clone()));
    tokio::spawn(nodes.run(relay, stop.clone()));
    Ok(serving)
}

struct Edge {
    puller: Puller,
    serving: Serving,
}

impl Edge {
    /// To be called within a runtime.
    fn start(upstream: SocketAddr, identity: &Identity, stop: &CancellationToken) -> Result<Self> {
        let url = format!("https://{upstream}").parse().map_err(anyhow::Error::msg)?;
        let upstream = Dialer::new(identity, FORMAT_VERSION).at(url);
        let (catalog, streams) = (Catalog::new(hls::Metrics::default()), StreamRegistry::default());
        let puller = Puller::new(
            Upstreams::one(upstream),
            Purpose::Viewers,
            catalog.clone(),
            streams.clone(),
            Audience::default(),
            PullMetrics::default(),
        );
        let offer = There { catalog: catalog.clone(), puller: puller.clone() };
        let site = Site::remote(puller.clone());
        let serving = serve(site, (catalog, streams), offer, identity, stop)?;
        let (pulls, stop) = (puller.clone(), stop.clone());
        tokio::spawn(async move { pulls.run(stop).await });
        Ok(Self { puller, serving })
    }
}

/// What an edge has for the next.
struct There {
    catalog: Catalog,
    puller: Puller,
}

impl Offer for There {
    async fn find(&self, id: &StreamId, hops: Hops) -> Result<Found, NotFound> {
        let watching = self.puller.join(id, hops).await.map_err(|_| NotFound::Unreachable)?;
        let index = self.catalog.get(id).ok_or(NotFound::Absent)?;
        Ok(Found { index, keep: kept(watching) })
    }

    async fn find_log(&self, id: &StreamId, hops: Hops) -> Result<FoundLog, NotFound> {
        let joined = self.puller.join_log(id, hops).await;
        let (stream, watching) = joined.map_err(|_| NotFound::Unreachable)?;
        Ok(FoundLog { stream, keep: kept(watching) })
    }

    async fn state(&self, id: Option<&StreamId>, hops: Hops) -> Option<Bytes> {
        self.puller.state_json(id, hops).await
    }
}

/// For as long as the next edge reads it.
fn kept(watching: Watching) -> Keep {
    Box::pin(async move {
        let _watching = watching;
        pending::<()>().await;
    })
}

/// When each unit was seen, by its group and number.
type Sights = HashMap<(u32, u32), Instant>;

/// Reads a track as it is written.
async fn note(track: Arc<Track>, until: Instant) -> Sights {
    let (mut cursor, mut frames, mut sights) = (track.start(), Vec::new(), HashMap::new());
    // What was there before came all at once.
    while matches!(track.read(&mut cursor, false, &mut frames), Read::Frames) {}
    loop {
        let appended = track.appended();
        frames.clear();
        let read = track.read(&mut cursor, false, &mut frames);
        let now = Instant::now();
        let units = frames.iter().filter(|frame| frame.kind() == Kind::Unit);
        sights.extend(units.map(|frame| ((frame.group(), frame.index()), now)));
        match read {
            _ if now >= until => return sights,
            Read::Frames | Read::Jumped => {}
            Read::Idle => appended.await,
            Read::Lost | Read::Ended => return sights,
        }
    }
}
