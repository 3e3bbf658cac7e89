//! What a hop delays: the same part announced by an origin and by an edge of it, to viewers who wait for it at both; and the
//! same access unit in the logs of both, where viewers by WebRTC are served from. All in this process, over loopback, with
//! media in real time.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use edge::{Audience, Listener, PullMetrics, Puller, Site, Upstreams};
use hls::{Catalog, FORMAT_VERSION};
use media::StreamId;
use origin::{Relay, RelayMetrics};
use relay::wire::Hops;
use relay::{Dialer, Kind, Read, StreamRegistry, Track, WireMetrics};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::measure::Samples;
use crate::node::{DEFAULT_PART, Node};
use crate::part_delay::{HEAD_START, follow, publish_until};
use crate::process::Cluster;
use crate::relay_cpu::Here;
use crate::table::{Table, Target};

const HOP_MS_MAX: f64 = 0.5;

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let watched = Duration::from_secs(if options.quick { 10 } else { 40 });
    let [parts, units] = watch(watched)?;
    let mut table = Table::new("at the edge after the origin, ms", &["p50", "p90", "p99"]);
    let row = |delays: &Samples| [0.5, 0.9, 0.99].map(|share| delays.quantile(share));
    table.judge("one hop: a part", &row(&parts), Target { column: 0, limit: HOP_MS_MAX });
    table.judge("one hop: an access unit", &row(&units), Target { column: 0, limit: HOP_MS_MAX });
    let counted = format!("{} parts, {} units", parts.len(), units.len());
    table.note(format!("{counted}; publisher, nodes and viewers share the cores"));
    Ok(vec![table])
}

/// Milliseconds between the two answers for the same part, and between the two sights of the same unit.
fn watch(watched: Duration) -> Result<[Samples; 2]> {
    let cluster = Cluster::new()?;
    let (here, there) = (cluster.identity("origin")?, cluster.identity("edge1")?);
    let runtime = Runtime::new()?;
    let node = Node::new(DEFAULT_PART);
    let entered = runtime.enter();
    let anywhere = (Ipv4Addr::LOCALHOST, 0).into();
    let site = Site::new(node.registry.clone(), node.catalog.clone(), 1935);
    let listen = |site| -> Result<Listener> {
        let limits = net::Limits { total: 100, per_address: 100 };
        Ok(Listener::new(
            net::bind(anywhere, edge::SOCKET)?,
            site,
            net::Places::new(limits),
            edge::Metrics::default(),
        ))
    };
    let origin = listen(site)?;
    let listener = relay::server::Listener::new(
        net::bind(anywhere, relay::server::SOCKET)?,
        &here,
        WireMetrics::default(),
    );
    let (catalog, streams) = (node.catalog.clone(), node.registry.clone());
    let offer = Here(catalog.clone(), streams.clone());
    let relay = Relay::new(&here, catalog, streams, offer, RelayMetrics::default());
    let url = format!("https://{}", listener.local_addr()?).parse().map_err(anyhow::Error::msg)?;
    let upstream = Dialer::new(&there, FORMAT_VERSION).at(url);
    let puller = Puller::new(
        Upstreams::one(upstream),
        Catalog::new(hls::Metrics::default()),
        StreamRegistry::default(),
        Audience::default(),
        PullMetrics::default(),
    );
    let edge = listen(Site::remote(puller.clone()))?;
    drop(entered);
    let addresses = [origin.local_addr()?, edge.local_addr()?];
    let stop = CancellationToken::new();
    runtime.spawn(node.origin().run(stop.clone()));
    runtime.spawn(listener.run(relay, stop.clone()));
    runtime.spawn(origin.run(stop.clone()));
    runtime.spawn(edge.run(stop.clone()));
    let pulls = puller.clone();
    runtime.spawn(async move { pulls.run(stop).await });

    let id = StreamId::new("live", "bench")?;
    let mut publisher = node.publish(&id, HEAD_START)?;
    let begun = Instant::now();
    publish_until(&mut publisher, begun)?;
    let stream = node.registry.get(&id).context("the stream is published")?;
    let session = stream.session();
    let playlist = format!("/hls/{id}/{session}/v/index.m3u8");
    let until = begun + watched;
    let joined = runtime.block_on(puller.join_log(&id, Hops::default()));
    let (copy, _watching) = joined.map_err(|error| anyhow::anyhow!("no access units: {error:?}"))?;
    let seen = [&stream, &copy].map(|stream| {
        let track = stream.tracks().iter().find(|track| track.record().suits_webrtc()).cloned();
        track.map(|track| runtime.spawn(note(track, until)))
    });
    let [first, second] = thread::scope(|scope| {
        let viewers = addresses.map(|address| {
            let playlist = &playlist;
            scope.spawn(move || follow(address, playlist, until))
        });
        publish_until(&mut publisher, until + DEFAULT_PART)?;
        anyhow::Ok(viewers.map(|viewer| viewer.join().expect("a viewer does not panic")))
    })?;
    let sights = seen.map(|seen| -> Result<Sights> {
        Ok(runtime.block_on(seen.context("there is nothing that WebRTC can show")?)?)
    });
    let [there, here] = sights;
    let (there, here) = (there?, here?);
    let mut units = Samples::default();
    for (unit, at) in here {
        let Some(first) = there.get(&unit) else { continue };
        // The reader of the copy may be the first to be scheduled.
        units.push(at.saturating_duration_since(*first).as_secs_f64() * 1000.0);
    }
    let first: HashMap<_, _> = first?.iter().map(|answer| ((answer.msn, answer.part), answer.at)).collect();
    let mut delays = Samples::default();
    for answer in second? {
        let Some(at) = first.get(&(answer.msn, answer.part)) else { continue };
        // The edge may be the first to be scheduled.
        let delay = answer.at.saturating_duration_since(*at).as_secs_f64();
        delays.push(delay * 1000.0);
    }
    Ok([delays, units])
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
