//! Streams of another node: pulled when the first viewer asks, once whatever the audience, and let go when nobody watches.
//!
//! ```text
//!   viewer ─▶ Puller::join     ─▶ Pull (one per stream) ◀─ task: Subscription ─▶ Mirror  ─▶ hls::Catalog   ─▶ viewer
//!   viewer ─▶ Puller::join_log ─▶ Pull (one per stream) ◀─ task: Subscription ─▶ LogCopy ─▶ StreamRegistry ─▶ viewer
//! ```
//!
//! Parts for HLS and access units for WebRTC are pulled apart from each other, as their viewers come and go.
//!
//! A viewer waits for the index of a cold stream, bounded; names that the upstream does not have are remembered for a
//! second, so that asking for them costs it nothing. When the upstream is lost, what is here is served on, and playlists
//! only until they would be too old to follow.

mod backfill;
mod log;
mod mirror;
pub(crate) mod others;
mod pulls;
mod states;
mod task;
mod upstreams;
mod wants;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::Either;
use hls::Catalog;
use media::StreamId;
use net::Throttle;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use relay::wire::Hops;
use relay::{Stream, StreamRegistry};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::log::LogCopy;
use self::mirror::Mirror;
use self::pulls::{Phase, Pulls};
use self::states::States;
use self::upstreams::Source;
use crate::audience::Audience;

pub use self::others::Others;
pub use self::pulls::Watching;
pub use self::upstreams::{Route, Upstreams};

/// A viewer of a cold stream waits no longer for its index.
const JOIN_MAX: Duration = Duration::from_secs(5);

/// Streams waited for at once. Beyond it viewers are told to come back.
const COLD_MAX: usize = 64;

/// How often what is to be here, and is not, is asked for. Not less than an unknown name is remembered.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// How often ended sessions are looked at for forgetting.
const EXPIRE_EVERY: Duration = Duration::from_secs(2);

/// On whose behalf streams are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Who pulls a stream has viewers of it.
    Viewers,
    /// Streams are kept ready for other nodes, and what is made on demand is made only once there are viewers behind those.
    Nodes,
}

/// Everything this edge reads from its upstream. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Puller {
    shared: Arc<Shared>,
}

struct Shared {
    upstreams: Upstreams,
    purpose: Purpose,
    catalog: Catalog,
    /// Copies of the logs of the upstream.
    streams: StreamRegistry,
    /// Viewers by WebRTC.
    audience: Audience,
    parts: Pulls,
    logs: Pulls,
    /// Pulls that can be served from not yet.
    cold: AtomicUsize,
    states: States,
    tasks: TaskTracker,
    drain: CancellationToken,
    failures: Throttle,
    metrics: PullMetrics,
}

/// Why a viewer does not get a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinError {
    /// The upstream does not have it, or it is over.
    Absent,
    /// No index in time, or too many streams are waited for.
    Unreachable,
}

#[derive(Debug, Clone, Default)]
pub struct PullMetrics {
    pulls: Gauge,
    subscriptions: Counter,
    reconnects: Counter,
    bodies: Counter,
    received: Counter,
    units: Counter,
    wants: Counter,
    states: Counter,
}

impl PullMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let pull = registry.sub_registry_with_prefix("pull");
        pull.register("streams", "Streams being pulled from the upstream", metrics.pulls.clone());
        pull.register(
            "subscriptions",
            "Subscriptions to streams of the upstream",
            metrics.subscriptions.clone(),
        );
        pull.register("breaks", "Subscriptions that broke off", metrics.reconnects.clone());
        pull.register("bodies", "Bodies fetched of parts that were listed without", metrics.bodies.clone());
        pull.register("parts", "Parts received, with their bytes or without", metrics.received.clone());
        pull.register("units", "Access units received", metrics.units.clone());
        pull.register("wants", "Times that the upstream was told what viewers want", metrics.wants.clone());
        pull.register("states", "States of streams fetched", metrics.states.clone());
        metrics
    }
}

impl Puller {
    /// Parts go into `catalog`, and access units into `streams`. `audience`: who watches them.
    pub fn new(
        upstreams: Upstreams,
        purpose: Purpose,
        catalog: Catalog,
        streams: StreamRegistry,
        audience: Audience,
        metrics: PullMetrics,
    ) -> Self {
        let shared = Shared {
            states: States::new(upstreams.clone(), metrics.clone()),
            upstreams,
            purpose,
            catalog,
            streams,
            audience,
            parts: Pulls::default(),
            logs: Pulls::default(),
            cold: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
            drain: CancellationToken::new(),
            failures: Throttle::sparse(),
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Forgets what expires until `stop`; then unsubscribes from everything.
    pub async fn run(&self, stop: CancellationToken) {
        let mut expire = tokio::time::interval(EXPIRE_EVERY);
        loop {
            tokio::select! {
                _ = expire.tick() => self.shared.catalog.expire(Instant::now()),
                () = stop.cancelled() => break,
            }
        }
        self.shared.drain.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Waits until parts of `id` can be served, at most [`JOIN_MAX`]. `hops` are the nodes that ask on behalf of the viewer.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(&self, id: &StreamId, hops: Hops) -> Result<Watching, JoinError> {
        let shared = &self.shared;
        let begin = |watching: &Watching| {
            let pull = watching.pull().clone();
            let (source, bodies) = (pull.source.clone(), shared.metrics.bodies.clone());
            let mirror = Mirror::new(source.clone(), shared.catalog.clone(), shared.purpose, bodies);
            let follow = task::run(shared.clone(), |shared| &shared.parts, pull, mirror, hops.clone());
            let wants = match shared.purpose {
                Purpose::Viewers => Either::Left(pending()),
                Purpose::Nodes => Either::Right(wants::forward_parts(shared.clone(), source, hops)),
            };
            shared.tasks.spawn(async move {
                tokio::select! {
                    () = follow => {}
                    () = wants => {}
                }
            });
        };
        ready(shared.watch(&shared.parts, id, begin)?).await
    }

    /// As [`Puller::join`], for access units: the log of the stream, as if it were of this node.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join_log(&self, id: &StreamId, hops: Hops) -> Result<(Arc<Stream>, Watching), JoinError> {
        let shared = &self.shared;
        let begin = |watching: &Watching| {
            let copy = LogCopy::new(id.clone(), shared.streams.clone(), shared.metrics.units.clone());
            let pull = watching.pull().clone();
            let wants = wants::forward(shared.clone(), pull.source.clone(), hops.clone());
            let follow = task::run(shared.clone(), |shared| &shared.logs, pull, copy, hops);
            shared.tasks.spawn(async move {
                tokio::select! {
                    () = follow => {}
                    () = wants => {}
                }
            });
        };
        let watching = ready(shared.watch(&shared.logs, id, begin)?).await?;
        // Not there if it has just ended, or is read anew after a fault: then it is there in a moment.
        let is_ready = *watching.pull().phase.borrow() == Phase::Ready;
        let why = if is_ready { JoinError::Unreachable } else { JoinError::Absent };
        let stream = shared.streams.get(id).ok_or(why)?;
        Ok((stream, watching))
    }

    /// Has `id` here in full, in parts and in access units, whoever watches, for as long as this is polled.
    pub async fn keep(&self, id: &StreamId) {
        let parts = async {
            loop {
                if let Ok(watching) = self.join(id, Hops::default()).await {
                    tokio::select! {
                        () = self.keep_whole(id, watching.listed()) => {}
                        () = watching.over() => {}
                    }
                }
                sleep(KEEP_EVERY).await;
            }
        };
        let log = async {
            loop {
                if let Ok((_, watching)) = self.join_log(id, Hops::default()).await {
                    watching.over().await;
                }
                sleep(KEEP_EVERY).await;
            }
        };
        tokio::join!(parts, log);
    }

    /// Fetches the bytes of parts that came without: before this node subscribed, or while it was slow.
    async fn keep_whole(&self, id: &StreamId, mut listed: watch::Receiver<u64>) {
        loop {
            listed.borrow_and_update();
            let fetched = match self.shared.catalog.get(id) {
                Some(index) => index.fetch_bodies().await,
                None => Ok(()),
            };
            if fetched.is_err() {
                sleep(KEEP_EVERY).await;
            } else if listed.changed().await.is_err() {
                return;
            }
        }
    }

    /// The state of a stream or of all, as the upstream tells it, with the viewers of this edge. `None` if nobody knows.
    pub(crate) async fn state(&self, id: Option<&StreamId>, hops: Hops) -> Option<serde_json::Value> {
        let source = id.map(|id| self.shared.source(id));
        let mut state = self.shared.states.get(source.as_ref(), hops).await?;
        states::localize(&mut state, &self.shared.catalog, &self.shared.audience);
        Some(state)
    }

    /// As [`Puller::state`], for a node that has its streams from here.
    pub async fn state_json(&self, id: Option<&StreamId>, hops: Hops) -> Option<Bytes> {
        serde_json::to_vec(&self.state(id, hops).await?).ok().map(Bytes::from)
    }

    pub fn purpose(&self) -> Purpose {
        self.shared.purpose
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.shared.catalog
    }
}

impl Shared {
    /// Where `id` is read, if anybody watches it here.
    fn source(&self, id: &StreamId) -> Source {
        let read = [&self.parts, &self.logs].into_iter().find_map(|pulls| pulls.source(id));
        read.unwrap_or_else(|| Source::new(self.upstreams.clone(), id.clone()))
    }

    /// The pull of `id`, begun if there is none.
    fn watch(
        &self,
        pulls: &Pulls,
        id: &StreamId,
        begin: impl FnOnce(&Watching),
    ) -> Result<Watching, JoinError> {
        if let Some(watching) = pulls.find(id) {
            return Ok(watching);
        }
        if pulls.is_absent(id) {
            return Err(JoinError::Absent);
        }
        let may_open = || {
            let one_more = |cold| (cold < COLD_MAX).then_some(cold + 1);
            let cold = self.cold.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
            cold.is_ok()
        };
        if self.drain.is_cancelled() {
            return Err(JoinError::Unreachable);
        }
        let (watching, is_new) =
            pulls.find_or_open(id, &self.upstreams, may_open).ok_or(JoinError::Unreachable)?;
        if is_new {
            self.metrics.pulls.inc();
            begin(&watching);
        }
        Ok(watching)
    }
}

/// Waits until it can be served, at most [`JOIN_MAX`].
async fn ready(watching: Watching) -> Result<Watching, JoinError> {
    let mut phase = watching.pull().phase.subscribe();
    let settled = timeout(JOIN_MAX, phase.wait_for(|phase| *phase != Phase::Cold)).await;
    match settled.map(|phase| phase.map(|phase| *phase)) {
        Ok(Ok(Phase::Ready)) => Ok(watching),
        Ok(Ok(Phase::Absent | Phase::Over)) => Err(JoinError::Absent),
        // Not in time, or it was let go in this very moment.
        Ok(Ok(Phase::Cold | Phase::LetGo) | Err(_)) | Err(_) => Err(JoinError::Unreachable),
    }
}
