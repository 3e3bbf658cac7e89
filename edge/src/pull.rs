//! Streams of another node: pulled when the first viewer asks, once whatever the audience, and let go when nobody watches.
//!
//! ```text
//!   viewer ─▶ Puller::join ─▶ Pull (one per stream) ◀─ task: Subscription ─▶ Mirror ─▶ hls::Catalog ─▶ viewer
//! ```
//!
//! A viewer waits for the index of a cold stream, bounded; names that the upstream does not have are remembered for a
//! second, so that asking for them costs it nothing. When the upstream is lost, what is here is served on, and playlists
//! only until they would be too old to follow.

mod backfill;
mod mirror;
mod states;
mod task;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use hls::Catalog;
use media::StreamId;
use net::Throttle;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use relay::Upstream;
use relay::wire::Hops;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::states::States;

/// A viewer of a cold stream waits no longer for its index.
const JOIN_MAX: Duration = Duration::from_secs(5);

/// A stream is kept so long after its last request: longer than the twelve seconds between an ordinary player's.
const LINGER: Duration = Duration::from_secs(20);

/// How long an unknown name is not asked for again.
const ABSENT_FOR: Duration = Duration::from_secs(1);

/// Unknown names remembered; when there are more, all are forgotten. A flood of names then costs the upstream what
/// [`COLD_MAX`] allows.
const ABSENT_MAX: usize = 4096;

/// Streams waited for at once. Beyond it viewers are told to come back.
const COLD_MAX: usize = 64;

/// A playlist is served without its upstream for so many target durations: players give up on it then anyway, and
/// had better ask another edge.
const STALE_TARGET_DURATIONS: u32 = 3;

/// How often ended sessions are looked at for forgetting.
const EXPIRE_EVERY: Duration = Duration::from_secs(2);

/// Everything this edge reads from its upstream. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Puller {
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Upstream,
    catalog: Catalog,
    /// Replaced as a whole, so that requests take no lock.
    pulls: ArcSwap<HashMap<StreamId, Arc<Pull>>>,
    /// Taken by whoever replaces `pulls`.
    changes: Mutex<()>,
    absent: Mutex<HashMap<StreamId, Instant>>,
    /// Pulls that have no index yet.
    cold: AtomicUsize,
    states: States,
    tasks: TaskTracker,
    drain: CancellationToken,
    failures: Throttle,
    metrics: PullMetrics,
}

/// One stream being pulled.
struct Pull {
    id: StreamId,
    phase: watch::Sender<Phase>,
    /// Requests being answered from it.
    readers: AtomicUsize,
    /// When the last of them was answered.
    left: Mutex<Instant>,
    closed: AtomicBool,
    /// Since when the upstream does not answer.
    lost: Mutex<Option<Instant>>,
    /// Zero until it is announced.
    target_duration_s: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its index is not complete.
    Cold,
    Ready,
    /// The upstream does not have it.
    Absent,
    /// It has ended.
    Over,
    /// Nobody watched it any more.
    LetGo,
}

/// Keeps a stream pulled while it lives.
pub struct Watching {
    pull: Arc<Pull>,
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
        pull.register("bodies", "Bodies fetched because a viewer asked", metrics.bodies.clone());
        pull.register("parts", "Parts received, with their bytes or without", metrics.received.clone());
        pull.register("states", "States of streams fetched", metrics.states.clone());
        metrics
    }
}

impl Puller {
    pub fn new(upstream: Upstream, catalog: Catalog, metrics: PullMetrics) -> Self {
        let shared = Shared {
            states: States::new(upstream.clone(), metrics.clone()),
            upstream,
            catalog,
            pulls: ArcSwap::default(),
            changes: Mutex::default(),
            absent: Mutex::default(),
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

    /// Waits until `id` can be served, at most [`JOIN_MAX`]. `hops` are the nodes that ask on behalf of the viewer.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(&self, id: &StreamId, hops: Hops) -> Result<Watching, JoinError> {
        let watching = self.watch(id, hops)?;
        let mut phase = watching.pull.phase.subscribe();
        let settled = timeout(JOIN_MAX, phase.wait_for(|phase| *phase != Phase::Cold)).await;
        match settled.map(|phase| phase.map(|phase| *phase)) {
            Ok(Ok(Phase::Ready)) => Ok(watching),
            Ok(Ok(Phase::Absent | Phase::Over)) => Err(JoinError::Absent),
            // Not in time, or it was let go in this very moment.
            Ok(Ok(Phase::Cold | Phase::LetGo) | Err(_)) | Err(_) => Err(JoinError::Unreachable),
        }
    }

    /// The state of a stream or of all, as the upstream tells it, with the viewers of this edge. `None` if nobody knows.
    pub(crate) async fn state(&self, id: Option<&StreamId>, hops: Hops) -> Option<serde_json::Value> {
        let mut state = self.shared.states.get(id, hops).await?;
        states::localize(&mut state, &self.shared.catalog);
        Some(state)
    }

    /// As [`Puller::state`], for a node that has its streams from here.
    pub async fn state_json(&self, id: Option<&StreamId>, hops: Hops) -> Option<Bytes> {
        serde_json::to_vec(&self.state(id, hops).await?).ok().map(Bytes::from)
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.shared.catalog
    }

    /// The pull of `id`, begun if there is none.
    fn watch(&self, id: &StreamId, hops: Hops) -> Result<Watching, JoinError> {
        let shared = &self.shared;
        if let Some(watching) = shared.find(id) {
            return Ok(watching);
        }
        if shared.is_absent(id) {
            return Err(JoinError::Absent);
        }
        let _changing = shared.changes.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have begun it meanwhile.
        if let Some(watching) = shared.find(id) {
            return Ok(watching);
        }
        if shared.cold.load(Ordering::Acquire) >= COLD_MAX || shared.drain.is_cancelled() {
            return Err(JoinError::Unreachable);
        }
        let pull = Arc::new(Pull::new(id.clone()));
        let watching = pull.watch().expect("a new pull is open");
        let mut pulls = HashMap::clone(&shared.pulls.load());
        pulls.insert(id.clone(), pull.clone());
        shared.pulls.store(Arc::new(pulls));
        shared.cold.fetch_add(1, Ordering::AcqRel);
        shared.metrics.pulls.inc();
        shared.tasks.spawn(task::run(shared.clone(), pull, hops));
        Ok(watching)
    }
}

impl Shared {
    fn find(&self, id: &StreamId) -> Option<Watching> {
        self.pulls.load().get(id)?.watch()
    }

    fn is_absent(&self, id: &StreamId) -> bool {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.get(id).is_some_and(|since| since.elapsed() < ABSENT_FOR)
    }

    fn remember_absent(&self, id: &StreamId) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.len() >= ABSENT_MAX {
            absent.retain(|_, since| since.elapsed() < ABSENT_FOR);
        }
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(id.clone(), Instant::now());
    }

    /// Takes `pull` off the list; whoever asks next begins another.
    fn remove(&self, pull: &Arc<Pull>) {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        pull.closed.store(true, Ordering::SeqCst);
        let mut pulls = HashMap::clone(&self.pulls.load());
        if pulls.get(&pull.id).is_some_and(|listed| Arc::ptr_eq(listed, pull)) {
            pulls.remove(&pull.id);
            self.pulls.store(Arc::new(pulls));
        }
    }
}

impl Pull {
    fn new(id: StreamId) -> Self {
        Self {
            id,
            phase: watch::Sender::new(Phase::Cold),
            readers: AtomicUsize::new(0),
            left: Mutex::new(Instant::now()),
            closed: AtomicBool::new(false),
            lost: Mutex::default(),
            target_duration_s: AtomicU32::new(0),
        }
    }

    fn watch(self: &Arc<Self>) -> Option<Watching> {
        // Counted first: a task that closes the pull looks at the count after it closed.
        let watching = Watching::new(self.clone());
        if self.closed.load(Ordering::SeqCst) { None } else { Some(watching) }
    }

    /// Closes the pull if nobody reads it and nobody did for a while.
    fn close_if_unwatched(&self) -> bool {
        let left = *self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if self.readers.load(Ordering::SeqCst) > 0 || left.elapsed() < LINGER {
            return false;
        }
        self.closed.store(true, Ordering::SeqCst);
        if self.readers.load(Ordering::SeqCst) > 0 {
            // Somebody came in between, and may have found it open.
            self.closed.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    fn set_lost(&self, since: Option<Instant>) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        *lost = since.map(|since| lost.unwrap_or(since));
    }
}

impl Watching {
    fn new(pull: Arc<Pull>) -> Self {
        pull.readers.fetch_add(1, Ordering::SeqCst);
        Self { pull }
    }

    /// The upstream was lost so long ago that a playlist from here would lead nowhere.
    pub(crate) fn is_stale(&self) -> bool {
        let lost = *self.pull.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let target_duration = Duration::from_secs(self.pull.target_duration_s.load(Ordering::Relaxed).into());
        lost.is_some_and(|since| since.elapsed() > target_duration * STALE_TARGET_DURATIONS)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        *self.pull.left.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.pull.readers.fetch_sub(1, Ordering::SeqCst);
    }
}
