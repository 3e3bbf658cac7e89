//! What an edge costs its origin: the bytes of one subscription, whatever the audience, and no question to the store. Two real
//! servers that find each other by NATS, a real publisher; viewers follow the audio rendition, so that two thousand of them fit beside
//! the servers on a small machine.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::http::resolve;
use harness::nats::Nats;
use harness::publisher::Publisher;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::Options;
use crate::http::Connection;
use crate::process::{CROWD, Cluster, Tidecast, wait_for};
use crate::table::{Table, Target};

const LIVE_MAX: Duration = Duration::from_secs(25);
const PLAYLIST: &str = "/hls/live/bench/index.m3u8";

/// Egress with an audience over that with one viewer. The publisher's bit rate varies that much from window to window.
const RATIO_MAX: f64 = 1.1;

/// Of 2,000, whose connections are made on the cores that answer them.
const JOINED_WITHIN_S: f64 = 1.0;

/// Two nodes are heard every three seconds, and a segment is noted every two: nobody who joins adds to that.
const MESSAGES_MAX: f64 = 20.0;

/// The length of the film, which is published over and over: its bit rate varies, but not from loop to loop.
const WATCHED: Duration = Duration::from_secs(30);

pub(crate) fn run(_: &Options) -> Result<Vec<Table>> {
    let watched = WATCHED;
    let (nats, cluster) = (Nats::start()?, Cluster::new()?);
    let origin = Tidecast::start_member(&cluster, "origin", &nats.url(), &[])?;
    let edge = Tidecast::start_member(&cluster, "edge1", &nats.url(), &[("ROLES", "edge"), CROWD])?;
    let _publisher = Publisher::of_clip("bbb720p30", &origin.publish_url("live/bench"))?;
    wait_for("the first playlist", LIVE_MAX, || Connection::open(origin.http).ok()?.get_ok(PLAYLIST).ok())?;
    wait_for("the edge to hear of it", LIVE_MAX, || {
        let streams = Connection::open(edge.admin).ok()?.get_ok("/api/v1/streams").ok()?.text().ok()?;
        streams.contains("live/bench").then_some(())
    })?;

    let mut joins = Table::new("2,000 viewers join a cold edge at once", &["count"]);
    let before = nats.messages()?;
    let join = join_at_once(edge.http, 2000)?;
    let messages = nats.messages()? - before;
    let subscribed = origin.metrics()?.sum("tidecast_relay_subscribed_total")?;
    joins.judge("subscriptions at the origin", &[subscribed], Target { column: 0, limit: 1.0 });
    let target = Target { column: 0, limit: MESSAGES_MAX };
    joins.judge("messages at the store meanwhile, heartbeats among them", &[messages as f64], target);
    let target = Target { column: 0, limit: JOINED_WITHIN_S };
    joins.judge("seconds until the last was answered", &[join.as_secs_f64()], target);

    let mut egress = Table::new("origin's egress to the edge", &["MB/s", "ratio"]);
    let mut one = f64::NAN;
    for viewers in [1, 100, 2000] {
        let megabytes = watch(&origin, &edge, viewers, watched)? / watched.as_secs_f64();
        if viewers == 1 {
            one = megabytes;
        }
        let target = Target { column: 1, limit: RATIO_MAX };
        egress.judge(format!("{viewers} viewers"), &[megabytes, megabytes / one], target);
    }
    egress.note(format!("{} s each; everything on the same cores", watched.as_secs()));
    ensure!(origin.metrics()?.sum("tidecast_relay_subscribed_total")? == 1.0, "the edge subscribed again");
    Ok(vec![joins, egress])
}

/// Asks for the playlist on as many new connections; returns how long the last waited.
fn join_at_once(edge: SocketAddr, viewers: usize) -> Result<Duration> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Instant::now();
        let joining: Vec<_> = (0..viewers)
            .map(|_| tokio::spawn(async move { Viewer::open(edge).await?.get(PLAYLIST).await.map(drop) }))
            .collect();
        for viewer in joining {
            viewer.await??;
        }
        Ok(start.elapsed())
    })
}

/// Megabytes that the origin sent while so many watched.
fn watch(origin: &Tidecast, edge: &Tidecast, viewers: usize, watched: Duration) -> Result<f64> {
    let text = Connection::open(edge.http)?.get_ok(PLAYLIST)?.text()?;
    let audio = text.split('"').find(|text| text.ends_with("/a/index.m3u8")).context("no audio")?;
    let (playlist, server) = (resolve(PLAYLIST, audio), edge.http);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let watching: Vec<_> = (0..viewers)
            .map(|_| {
                let playlist = playlist.clone();
                tokio::spawn(async move { Viewer::open(server).await?.follow(&playlist).await })
            })
            .collect();
        // All are there.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = origin.metrics()?.sum("tidecast_relay_sent_bytes_total")?;
        tokio::time::sleep(watched).await;
        let sent = origin.metrics()?.sum("tidecast_relay_sent_bytes_total")? - before;
        for viewer in watching {
            ensure!(!viewer.is_finished(), "a viewer was sent away: {:?}", viewer.await);
            viewer.abort();
        }
        Ok(sent / 1e6)
    })
}

struct Viewer {
    stream: BufReader<TcpStream>,
}

impl Viewer {
    async fn open(server: SocketAddr) -> Result<Self> {
        Ok(Self { stream: BufReader::new(TcpStream::connect(server).await?) })
    }

    /// Waits for part after part, and takes each.
    async fn follow(&mut self, playlist: &str) -> Result<()> {
        let mut query = String::new();
        loop {
            let text = String::from_utf8(self.get(&format!("{playlist}{query}")).await?)?;
            let listed = text.rsplit("#EXT-X-PART:").next().and_then(|part| part.split('"').nth(1));
            self.get(&resolve(playlist, listed.context("no part")?)).await?;
            let (_, hint) = text.split_once("TYPE=PART,URI=\"").context("no hint")?;
            let mut numbers = hint.split('.');
            let (msn, part) = (numbers.next().context("msn")?, numbers.next().context("part")?);
            query = format!("?_HLS_msn={msn}&_HLS_part={part}");
        }
    }

    /// The body of a 200.
    async fn get(&mut self, path: &str) -> Result<Vec<u8>> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let (mut line, mut length, mut is_ok) = (String::new(), None, None);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line).await? > 0, "closed");
            is_ok.get_or_insert(line.starts_with("HTTP/1.1 200"));
            if line == "\r\n" {
                break;
            }
            let header = line.to_ascii_lowercase();
            length =
                length.or(header.strip_prefix("content-length:").and_then(|text| text.trim().parse().ok()));
        }
        let mut body = vec![0; length.context("no length")?];
        self.stream.read_exact(&mut body).await?;
        ensure!(is_ok == Some(true), "GET {path}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}
