//! The audience: viewers that come and go, of every kind that a server meets. All of them share one thread.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use harness::http::resolve;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::publishers::Stage;
use super::script::{rng, seconds};
use crate::client::{Client, address_of};
use crate::playlist;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Waits for each version of each playlist and fetches each part, as hls.js does in low-latency mode.
    Player,
    /// Reloads once a target duration and fetches whole segments, as players did before.
    Plain,
    /// Fetches segments at [`SLOW_BYTES_PER_S`].
    Slow,
    /// Hangs up in the middle of an answer, over and over.
    Vanishing,
    /// Asks for a segment, reads none of it, and waits to be cut off.
    Stuck,
}

/// How many there are of each at any time.
const AUDIENCE: &[(Kind, usize)] =
    &[(Kind::Player, 40), (Kind::Plain, 8), (Kind::Slow, 6), (Kind::Vanishing, 4), (Kind::Stuck, 2)];

/// How long a viewer stays; then another of its kind comes, perhaps to another stream.
const STAY_S: (f64, f64) = (15.0, 90.0);
/// Before the next one comes, and before anybody asks again who was refused.
const PAUSE_S: (f64, f64) = (0.5, 1.5);

/// A tenth of what the clips have: such a viewer never catches up.
const SLOW_BYTES_PER_S: usize = 8_000;
/// What the system may take in for one that is slow; the rest waits in the server.
const SLOW_RECEIVE_BYTES: u32 = 4_096;
/// Above the server's patience of 15 s.
const STUCK_S: (f64, f64) = (20.0, 25.0);

/// What all viewers together got.
#[derive(Default)]
pub(crate) struct Tally {
    playlists: AtomicU64,
    media: AtomicU64,
    bytes: AtomicU64,
    /// Answers other than 200: the stream is starting, was replaced, or is between two publishers.
    refused: AtomicU64,
    /// Visits that ended in an error: above all, connections the server cut.
    broken: AtomicU64,
}

/// The tally at one moment.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tallied {
    pub(crate) playlists: u64,
    pub(crate) media: u64,
    pub(crate) bytes: u64,
    pub(crate) refused: u64,
    pub(crate) broken: u64,
}

impl Tally {
    pub(crate) fn now(&self) -> Tallied {
        let Self { playlists, media, bytes, refused, broken } = self;
        Tallied {
            playlists: playlists.load(Relaxed),
            media: media.load(Relaxed),
            bytes: bytes.load(Relaxed),
            refused: refused.load(Relaxed),
            broken: broken.load(Relaxed),
        }
    }
}

/// How many viewers there are at any time.
pub(crate) fn audience() -> usize {
    AUDIENCE.iter().map(|(_, count)| count).sum()
}

/// Comes and goes until it is dropped.
pub(crate) async fn watch(server: SocketAddr, stage: Arc<Stage>, tally: Arc<Tally>, seed: u64) {
    let kinds = AUDIENCE.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
    let mut seats = JoinSet::new();
    for (number, kind) in kinds.enumerate() {
        let viewer = Viewer { server, from: address_of(number), kind, tally: Arc::clone(&tally) };
        let (stage, mut rng) = (Arc::clone(&stage), rng(seed, "viewer", number));
        seats.spawn(async move {
            loop {
                let stream = stage.name(rng.usize(0..stage.streams()));
                // Whatever it is doing when its time is over, it drops.
                if let Ok(Err(_)) =
                    timeout(seconds(&mut rng, STAY_S), viewer.visit(&stream, &mut rng.fork())).await
                {
                    viewer.tally.broken.fetch_add(1, Relaxed);
                }
                sleep(seconds(&mut rng, PAUSE_S)).await;
            }
        });
    }
    while seats.join_next().await.is_some() {}
}

#[derive(Clone)]
struct Viewer {
    server: SocketAddr,
    from: Ipv4Addr,
    kind: Kind,
    tally: Arc<Tally>,
}

impl Viewer {
    /// Watches until the stream ends.
    async fn visit(&self, stream: &str, rng: &mut Rng) -> Result<()> {
        let path = format!("/hls/{stream}/index.m3u8");
        let mut client = self.connect().await?;
        let multivariant = loop {
            match self.playlist(&mut client, &path).await? {
                Some(text) => break text,
                None => sleep(seconds(rng, PAUSE_S)).await,
            }
        };
        drop(client);
        let mut renditions = JoinSet::new();
        for playlist in playlist::renditions(&path, &multivariant) {
            let (viewer, mut rng) = (self.clone(), rng.fork());
            renditions.spawn(async move {
                match viewer.kind {
                    Kind::Player => viewer.follow_parts(&playlist).await,
                    Kind::Plain | Kind::Slow => viewer.follow_segments(&playlist).await,
                    Kind::Vanishing => viewer.vanish(&playlist, &mut rng).await,
                    Kind::Stuck => viewer.stand_still(&playlist, &mut rng).await,
                }
            });
        }
        while let Some(ended) = renditions.join_next().await {
            ended.expect("a viewer does not panic")?;
        }
        Ok(())
    }

    async fn follow_parts(&self, playlist: &str) -> Result<()> {
        let mut client = self.connect().await?;
        let Some(mut text) = self.playlist(&mut client, playlist).await? else { return Ok(()) };
        // A viewer joins at the live edge: of what is there only the newest.
        let mut newest = playlist::parts(&text).nth_back(1).map(str::to_owned);
        while let Some((msn, part)) = playlist::hinted(&text) {
            let parts: Vec<_> = playlist::parts(&text).collect();
            let known = newest.and_then(|newest| parts.iter().position(|part| *part == newest));
            for part in &parts[known.map_or(0, |known| known + 1)..] {
                self.media(&mut client, &resolve(playlist, part)).await?;
            }
            newest = parts.last().map(|part| (*part).to_owned());
            let next = format!("{playlist}?_HLS_msn={msn}&_HLS_part={part}");
            let Some(next) = self.playlist(&mut client, &next).await? else { return Ok(()) };
            text = next;
        }
        Ok(())
    }

    async fn follow_segments(&self, playlist: &str) -> Result<()> {
        let mut client = self.connect().await?;
        let mut newest = None;
        while let Some(text) = self.playlist(&mut client, playlist).await? {
            let segment = playlist::segments(&text).last().map(|segment| resolve(playlist, segment));
            if segment.is_some() && segment != newest {
                self.media(&mut client, segment.as_deref().unwrap_or_default()).await?;
                newest = segment;
            }
            if playlist::is_ended(&text) {
                break;
            }
            sleep(Duration::from_secs(playlist::target_duration(&text).context("no target duration")?)).await;
        }
        Ok(())
    }

    async fn vanish(&self, playlist: &str, rng: &mut Rng) -> Result<()> {
        loop {
            let mut client = self.connect().await?;
            let Some(text) = self.playlist(&mut client, playlist).await? else { return Ok(()) };
            let (Some((msn, part)), Some(segment)) =
                (playlist::hinted(&text), playlist::segments(&text).last())
            else {
                return Ok(());
            };
            if rng.bool() {
                // While the request is held.
                client.ask(&format!("{playlist}?_HLS_msn={msn}&_HLS_part={part}")).await?;
            } else {
                client.ask(&resolve(playlist, segment)).await?;
                client.head().await?;
            }
            sleep(seconds(rng, (0.0, 0.4))).await;
            drop(client);
            sleep(seconds(rng, PAUSE_S)).await;
        }
    }

    async fn stand_still(&self, playlist: &str, rng: &mut Rng) -> Result<()> {
        loop {
            let mut client = self.connect().await?;
            let Some(text) = self.playlist(&mut client, playlist).await? else { return Ok(()) };
            let Some(segment) = playlist::segments(&text).last() else { return Ok(()) };
            client.ask(&resolve(playlist, segment)).await?;
            sleep(seconds(rng, STUCK_S)).await;
        }
    }

    async fn connect(&self) -> Result<Client> {
        let slow = matches!(self.kind, Kind::Slow | Kind::Stuck).then_some(SLOW_RECEIVE_BYTES);
        Client::open(self.server, self.from, slow).await
    }

    /// `None` for an answer that is not one.
    async fn playlist(&self, client: &mut Client, path: &str) -> Result<Option<String>> {
        let answer = client.get(path).await?;
        if answer.status != 200 {
            self.tally.refused.fetch_add(1, Relaxed);
            return Ok(None);
        }
        self.tally.playlists.fetch_add(1, Relaxed);
        self.tally.bytes.fetch_add(answer.body.len() as u64, Relaxed);
        Ok(Some(answer.text()?))
    }

    async fn media(&self, client: &mut Client, path: &str) -> Result<()> {
        client.ask(path).await?;
        let head = client.head().await?;
        let mut left = head.body_bytes()?;
        let mut buffer = [0; SLOW_BYTES_PER_S];
        while left > 0 {
            let some = left.min(buffer.len());
            client.some(&mut buffer[..some]).await?;
            left -= some;
            if self.kind == Kind::Slow {
                sleep(Duration::from_secs(1)).await;
            }
        }
        match head.status {
            200 => {
                self.tally.media.fetch_add(1, Relaxed);
                self.tally.bytes.fetch_add(head.body_bytes()? as u64, Relaxed);
            }
            // The part was withdrawn: its segment ended before it.
            404 => drop(self.tally.refused.fetch_add(1, Relaxed)),
            status => bail!("GET {path}: status {status}"),
        }
        Ok(())
    }
}
