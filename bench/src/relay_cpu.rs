//! What the relay costs a node per child: its whole way from the segment index to the socket, beside a loop that does
//! nothing but write the same bytes to as many TLS connections. Both sides serve from one thread, whose CPU time counts;
//! the children read on another.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use hls::{Bandwidth, Catalog, Part, RenditionHeader, SegmentStart, StreamHeader, StreamWriter};
use media::cmaf::init_segment;
use media::codec::{aac, h264};
use media::{Captions, CodecConfig, SessionId, StreamId};
use origin::{Found, FoundLog, NotFound, Offer, Relay, RelayMetrics};
use relay::wire::{Hops, Slices};
use relay::{CLUSTER_NAME, Identity, StreamRegistry, WireMetrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::measure::{Samples, thread_cpu_time};
use crate::process::{Cluster, wait_for};
use crate::synthetic::{AUDIO_SPECIFIC_CONFIG, AVCC};
use crate::table::{Table, Target};

/// Of 3.1 Mbit/s at 30 fps, and 128 kbit/s, in parts of half a second.
const VIDEO_UNITS: usize = 15;
const VIDEO_UNIT_BYTES: usize = 13_000;
const AUDIO_UNITS: usize = 24;
const AUDIO_UNIT_BYTES: usize = 341;
const PARTS_PER_SEGMENT: u32 = 4;

const RATIO_MAX: f64 = 1.15;
const READ_BYTES: usize = 256 * 1024;
const STEP_MAX: Duration = Duration::from_secs(30);

pub(crate) fn run(options: &Options) -> Result<Vec<Table>> {
    let (rounds, parts) = if options.quick { (2, 20) } else { (7, 40) };
    let cluster = Cluster::new()?;
    let (origin, child) = (cluster.identity("origin")?, cluster.identity("edge1")?);
    let mut ratios = Table::new("CPU time of the relay over that of the bare loop", &["median", "min"]);
    let mut costs = Table::new("CPU seconds per Gbit", &["median", "min"]);
    for children in [100, 200] {
        let mut relay = Side::relay(&origin, &child, children)?;
        let mut bare = Side::bare(&origin, &child, children)?;
        let (mut relayed, mut bared, mut ratio) =
            (Samples::default(), Samples::default(), Samples::default());
        for round in 0..=rounds {
            let (ours, theirs) = (relay.round(parts)?, bare.round(parts)?);
            // The first warms up.
            if round > 0 {
                relayed.push(ours);
                bared.push(theirs);
                ratio.push(ours / theirs);
            }
        }
        let row = |samples: &Samples| [samples.median(), samples.min()];
        let target = Target { column: 0, limit: RATIO_MAX };
        ratios.judge(format!("{children} children"), &row(&ratio), target);
        costs.tell(format!("relay, {children} children"), &row(&relayed));
        costs.tell(format!("bare TLS write loop, {children} children"), &row(&bared));
    }
    costs.note(format!(
        "{rounds} rounds of {parts} parts of video and audio, both sides in turn, one thread each"
    ));
    Ok(vec![ratios, costs])
}

/// A thread that serves, the children that read from it, and the hand that gives it parts.
struct Side {
    cpu: mpsc::Receiver<Duration>,
    ask: tokio::sync::mpsc::UnboundedSender<()>,
    hand: Hand,
    received: Arc<AtomicU64>,
    children: u64,
    /// That every child was given so far.
    given: u64,
    /// What the children had when the first part was given.
    base: u64,
}

enum Hand {
    Relay { writer: StreamWriter, next: (u64, u32) },
    Bare(watch::Sender<Option<Arc<Vec<Slices>>>>),
}

impl Side {
    fn relay(origin: &Identity, child: &Identity, children: usize) -> Result<Self> {
        let catalog = Catalog::new(hls::Metrics::default());
        let (identity, served) = (origin.clone(), catalog.clone());
        let server = serving(move |addr| {
            let socket = net::bind((Ipv4Addr::LOCALHOST, 0).into(), relay::server::SOCKET)?;
            let listener = relay::server::Listener::new(socket, &identity, WireMetrics::default());
            addr.send(listener.local_addr()?)?;
            let streams = StreamRegistry::default();
            let here = Here(served.clone(), streams.clone());
            let relay = Relay::new(&identity, served, streams, here, RelayMetrics::default());
            Ok(async move { listener.run(relay, CancellationToken::new()).await })
        })?;
        let writer = server.runtime.block_on(async { open(&catalog) })?;
        let request = format!(
            "GET /x/1/live/bench HTTP/1.1\r\nHost: o\r\ntidecast-wire: 1\r\ntidecast-format: {}\r\ntidecast-hops: edge1\r\n\r\n",
            hls::FORMAT_VERSION
        );
        let received = reading(server.addr, child, children, request)?;
        Self::new(server, Hand::Relay { writer, next: (0, 0) }, received, children)
    }

    fn bare(origin: &Identity, child: &Identity, children: usize) -> Result<Self> {
        let (parts, _) = watch::channel(None::<Arc<Vec<Slices>>>);
        let (acceptor, given) = (TlsAcceptor::from(origin.server_config()), parts.clone());
        let server = serving(move |addr| {
            let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            addr.send(listener.local_addr()?)?;
            let listener = TcpListener::from_std(listener)?;
            Ok(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, given) = (acceptor.clone(), given.subscribe());
                    tokio::spawn(write_loop(stream, acceptor, given));
                }
            })
        })?;
        let received = reading(server.addr, child, children, "hello".to_owned())?;
        wait_for("all children", STEP_MAX, || (parts.receiver_count() >= children).then_some(()))?;
        Self::new(server, Hand::Bare(parts), received, children)
    }

    fn new(server: Serving, hand: Hand, received: Arc<AtomicU64>, children: usize) -> Result<Self> {
        let Serving { cpu, ask, .. } = server;
        let mut side = Self { cpu, ask, hand, received, children: children as u64, given: 0, base: 0 };
        // Every child has its first part: all have subscribed.
        side.give(1)?;
        side.base = side.received.load(Ordering::Relaxed).saturating_sub(side.given * side.children);
        Ok(side)
    }

    /// CPU seconds per Gbit over `parts` parts.
    fn round(&mut self, parts: usize) -> Result<f64> {
        let (before, given) = (self.cpu()?, self.given);
        for _ in 0..parts {
            self.give(1)?;
        }
        let gigabits = ((self.given - given) * self.children * 8) as f64 / 1e9;
        Ok((self.cpu()? - before).as_secs_f64() / gigabits)
    }

    /// Gives parts, and waits until every child has them.
    fn give(&mut self, parts: usize) -> Result<()> {
        for _ in 0..parts {
            self.given += self.hand.give()?;
        }
        let wanted = self.base + self.given * self.children;
        let mut spins = 0_u32;
        while self.received.load(Ordering::Relaxed) < wanted {
            // Long enough not to disturb, short against a round.
            crate::measure::sleep(Duration::from_micros(500));
            spins += 1;
            anyhow::ensure!(spins < 60_000, "the children did not get their parts");
        }
        Ok(())
    }

    fn cpu(&self) -> Result<Duration> {
        self.ask.send(())?;
        Ok(self.cpu.recv_timeout(STEP_MAX)?)
    }
}

impl Hand {
    /// Gives one part of video and one of audio, and returns their bytes.
    fn give(&mut self) -> Result<u64> {
        match self {
            Self::Relay { writer, next } => {
                let (msn, part) = *next;
                for (name, units, unit_bytes, duration) in [
                    ("v", VIDEO_UNITS, VIDEO_UNIT_BYTES, 45_000),
                    ("a", AUDIO_UNITS, AUDIO_UNIT_BYTES, 24_576),
                ] {
                    let codec = if name == "v" { video_codec()? } else { audio_codec()? };
                    let rendition = writer.rendition(&name.parse()?).context("the rendition")?;
                    rendition.push(Part {
                        msn,
                        part,
                        duration,
                        independent: part == 0,
                        gap: false,
                        last: part + 1 == PARTS_PER_SEGMENT,
                        segment: SegmentStart {
                            program_date_time_ms: 1_790_000_000_000 + 2000 * msn as i64,
                            discontinuity_sequence: 0,
                            init: Arc::new(init_segment(&codec)),
                        },
                        body: body(units, unit_bytes),
                    })?;
                }
                *next = if part + 1 == PARTS_PER_SEGMENT { (msn + 1, 0) } else { (msn, part + 1) };
            }
            Self::Bare(parts) => {
                let slices = [(VIDEO_UNITS, VIDEO_UNIT_BYTES), (AUDIO_UNITS, AUDIO_UNIT_BYTES)]
                    .map(|(units, unit_bytes)| body(units, unit_bytes).into_iter().collect::<Slices>());
                parts.send_replace(Some(Arc::new(slices.into())));
            }
        }
        Ok(([(VIDEO_UNITS, VIDEO_UNIT_BYTES), (AUDIO_UNITS, AUDIO_UNIT_BYTES)])
            .map(|(units, unit_bytes)| (HEAD_BYTES + units * unit_bytes) as u64)
            .iter()
            .sum())
    }
}

/// `moof` and `mdat` header of such a part, about.
const HEAD_BYTES: usize = 352;

fn body(units: usize, unit_bytes: usize) -> Vec<Bytes> {
    let head = Bytes::from(vec![1; HEAD_BYTES]);
    [head].into_iter().chain((0..units).map(|_| Bytes::from(vec![2; unit_bytes]))).collect()
}

async fn write_loop(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    mut given: watch::Receiver<Option<Arc<Vec<Slices>>>>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    while given.changed().await.is_ok() {
        let parts = given.borrow_and_update().clone();
        for part in parts.iter().flat_map(|parts| parts.iter()) {
            if stream.write_all_buf(&mut part.clone()).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

struct Serving {
    addr: SocketAddr,
    cpu: mpsc::Receiver<Duration>,
    ask: tokio::sync::mpsc::UnboundedSender<()>,
    runtime: tokio::runtime::Handle,
}

/// Runs what `start` makes on a thread of its own, which tells its CPU time when it is asked.
fn serving<F: Future<Output = ()> + 'static>(
    start: impl FnOnce(mpsc::Sender<SocketAddr>) -> Result<F> + Send + 'static,
) -> Result<Serving> {
    let (addr_sender, addr) = mpsc::channel();
    let (cpu_sender, cpu) = mpsc::channel();
    let (handle_sender, handle) = mpsc::channel();
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    thread::spawn(move || -> Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        handle_sender.send(runtime.handle().clone())?;
        runtime.block_on(async {
            let served = start(addr_sender)?;
            let told =
                async { while asked.recv().await.is_some() && cpu_sender.send(thread_cpu_time()).is_ok() {} };
            tokio::select! {
                () = served => {}
                () = told => {}
            }
            Ok(())
        })
    });
    Ok(Serving { addr: addr.recv_timeout(STEP_MAX)?, cpu, ask, runtime: handle.recv_timeout(STEP_MAX)? })
}

/// `children` connections that say `hello` and read for ever, on a thread of their own. Counts what they read.
fn reading(addr: SocketAddr, child: &Identity, children: usize, hello: String) -> Result<Arc<AtomicU64>> {
    let received = Arc::new(AtomicU64::new(0));
    let (count, connector) = (received.clone(), TlsConnector::from(child.client_config()));
    let (ready_sender, ready) = mpsc::channel();
    thread::spawn(move || -> Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut readers = Vec::new();
            for _ in 0..children {
                let stream = TcpStream::connect(addr).await?;
                let name = CLUSTER_NAME.try_into()?;
                let mut stream = connector.connect(name, stream).await?;
                stream.write_all(hello.as_bytes()).await?;
                let count = count.clone();
                readers.push(tokio::spawn(async move {
                    let mut buffer = vec![0; READ_BYTES];
                    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
                        count.fetch_add(bytes as u64, Ordering::Relaxed);
                    }
                }));
            }
            ready_sender.send(())?;
            for reader in readers {
                reader.await?;
            }
            Ok(())
        })
    });
    ready.recv_timeout(STEP_MAX).context("the children did not connect")?;
    Ok(received)
}

/// Only what is in the catalog and in the registry.
pub(crate) struct Here(pub(crate) Catalog, pub(crate) StreamRegistry);

impl Offer for Here {
    async fn find(&self, id: &StreamId, _: Hops) -> Result<Found, NotFound> {
        let index = self.0.get(id).ok_or(NotFound::Absent)?;
        Ok(Found { index, keep: Box::pin(std::future::pending()) })
    }

    async fn find_log(&self, id: &StreamId, _: Hops) -> Result<FoundLog, NotFound> {
        let stream = self.1.get(id).ok_or(NotFound::Absent)?;
        Ok(FoundLog { stream, keep: Box::pin(std::future::pending()) })
    }

    async fn state(&self, _: Option<&StreamId>, _: Hops) -> Option<Bytes> {
        None
    }
}

fn open(catalog: &Catalog) -> Result<StreamWriter> {
    let rendition = |name: &str, codec, part_target_ms| -> Result<_> {
        Ok(RenditionHeader { name: name.parse()?, codec, part_target_ms, derived: None })
    };
    let mut writer = catalog.open(StreamHeader {
        id: StreamId::new("live", "bench")?,
        session: SessionId::from_random(1),
        epoch: 1,
        part_hold_back_ms: 1536,
        retain_bytes_max: 1 << 26,
        renditions: vec![rendition("v", video_codec()?, 501)?, rendition("a", audio_codec()?, 512)?],
    });
    writer.announce(hls::Announcement {
        target_duration_s: 4,
        window_ms: 28_000,
        frame_rate: Some(30.0),
        bandwidths: vec![("v".parse()?, Bandwidth { peak: 3_200_000, average: 3_100_000 })],
        captions: Captions::default(),
    });
    Ok(writer)
}

fn video_codec() -> Result<CodecConfig> {
    Ok(CodecConfig::H264(h264::Config::parse(Bytes::from_static(AVCC))?))
}

fn audio_codec() -> Result<CodecConfig> {
    Ok(CodecConfig::Aac(aac::Config::parse(Bytes::from_static(AUDIO_SPECIFIC_CONFIG))?))
}
