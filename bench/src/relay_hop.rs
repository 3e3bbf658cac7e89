//! What a hop delays: the same part announced by an origin and by an edge of it, to viewers who wait for it at both. All in
//! this process, over loopback, with media in real time.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use edge::{Listener, PullMetrics, Puller, Site};
use hls::{Catalog, FORMAT_VERSION};
use media::StreamId;
use origin::{Relay, RelayMetrics};
use relay::{Upstream, WireMetrics};
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
    let delays = watch(watched)?;
    let mut table = Table::new("a part at the edge after the origin, ms", &["p50", "p90", "p99"]);
    let row = [0.5, 0.9, 0.99].map(|share| delays.quantile(share));
    table.judge("one hop", &row, Target { column: 0, limit: HOP_MS_MAX });
    table.note(format!("{} parts; publisher, nodes and viewers share the cores", delays.len()));
    Ok(vec![table])
}

/// Milliseconds between the two answers for the same part.
fn watch(watched: Duration) -> Result<Samples> {
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
    let relay = Relay::new(&here, node.catalog.clone(), Here(node.catalog.clone()), RelayMetrics::default());
    let url = format!("https://{}", listener.local_addr()?).parse().map_err(anyhow::Error::msg)?;
    let upstream = Upstream::new(url, &there, FORMAT_VERSION);
    let puller = Puller::new(upstream, Catalog::new(hls::Metrics::default()), PullMetrics::default());
    let edge = listen(Site::remote(puller.clone()))?;
    drop(entered);
    let addresses = [origin.local_addr()?, edge.local_addr()?];
    let stop = CancellationToken::new();
    runtime.spawn(node.origin().run(stop.clone()));
    runtime.spawn(listener.run(relay, stop.clone()));
    runtime.spawn(origin.run(stop.clone()));
    runtime.spawn(edge.run(stop.clone()));
    runtime.spawn(async move { puller.run(stop).await });

    let id = StreamId::new("live", "bench")?;
    let mut publisher = node.publish(&id, HEAD_START)?;
    let begun = Instant::now();
    publish_until(&mut publisher, begun)?;
    let session = node.registry.get(&id).context("the stream is published")?.session();
    let playlist = format!("/hls/{id}/{session}/v/index.m3u8");
    let until = begun + watched;
    let [first, second] = thread::scope(|scope| {
        let viewers = addresses.map(|address| {
            let playlist = &playlist;
            scope.spawn(move || follow(address, playlist, until))
        });
        publish_until(&mut publisher, until + DEFAULT_PART)?;
        anyhow::Ok(viewers.map(|viewer| viewer.join().expect("a viewer does not panic")))
    })?;
    let first: HashMap<_, _> = first?.iter().map(|answer| ((answer.msn, answer.part), answer.at)).collect();
    let mut delays = Samples::default();
    for answer in second? {
        let Some(at) = first.get(&(answer.msn, answer.part)) else { continue };
        // The edge may be the first to be scheduled.
        let delay = answer.at.saturating_duration_since(*at).as_secs_f64();
        delays.push(delay * 1000.0);
    }
    Ok(delays)
}
