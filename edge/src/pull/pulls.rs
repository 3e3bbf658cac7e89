//! Which streams are being pulled for one kind of viewers, and who watches them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use media::StreamId;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::upstreams::{Source, Upstreams};

/// A stream is kept so long after its last request: longer than the twelve seconds between an ordinary player's.
const LINGER: Duration = Duration::from_secs(20);

/// How long an unknown name is not asked for again.
const ABSENT_FOR: Duration = Duration::from_secs(1);

/// Unknown names remembered; when there are more, all are forgotten. A flood of names then costs the upstream what the bound
/// of streams that are waited for allows.
const ABSENT_MAX: usize = 4096;

/// A playlist is served without its upstream for so many target durations: players give up on it then anyway, and
/// had better ask another edge.
const STALE_TARGET_DURATIONS: u32 = 3;

/// An origin that has lost who publishes a stream says so to the nodes that read it from there: another may still have it. One
/// connection that breaks is not worth it.
const CUT_OFF_AFTER: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Pulls {
    /// Replaced as a whole, so that requests take no lock.
    open: ArcSwap<HashMap<StreamId, Arc<Pull>>>,
    /// Taken by whoever replaces `open`.
    changes: Mutex<()>,
    absent: Mutex<HashMap<StreamId, Instant>>,
}

/// One stream being pulled.
pub(super) struct Pull {
    pub(super) source: Source,
    pub(super) phase: watch::Sender<Phase>,
    /// Requests being answered from it, or sessions of viewers.
    readers: AtomicUsize,
    /// When the last of them was over.
    left: Mutex<Instant>,
    closed: AtomicBool,
    /// Since when the upstream does not answer.
    lost: watch::Sender<Option<Instant>>,
    /// Counts how often parts have come that may be without their bytes.
    listed: watch::Sender<u64>,
    /// Zero until it is announced.
    pub(super) target_duration_s: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It cannot be served yet.
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

impl Pulls {
    pub(super) fn find(&self, id: &StreamId) -> Option<Watching> {
        self.open.load().get(id)?.watch()
    }

    /// Where `id` is read, if it is being pulled.
    pub(super) fn source(&self, id: &StreamId) -> Option<Source> {
        self.open.load().get(id).map(|pull| pull.source.clone())
    }

    /// And whether it was just opened; `None` if it is not there and may not be.
    pub(super) fn find_or_open(
        &self,
        id: &StreamId,
        upstreams: &Upstreams,
        may_open: impl FnOnce() -> bool,
    ) -> Option<(Watching, bool)> {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have opened it meanwhile.
        if let Some(watching) = self.find(id) {
            return Some((watching, false));
        }
        if !may_open() {
            return None;
        }
        let pull = Arc::new(Pull::new(Source::new(upstreams.clone(), id.clone())));
        let watching = pull.watch().expect("a new pull is open");
        let mut pulls = HashMap::clone(&self.open.load());
        pulls.insert(id.clone(), pull);
        self.open.store(Arc::new(pulls));
        Some((watching, true))
    }

    /// Takes `pull` off the list; whoever asks next begins another.
    pub(super) fn remove(&self, pull: &Arc<Pull>) {
        let _changing = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        pull.closed.store(true, Ordering::SeqCst);
        let mut pulls = HashMap::clone(&self.open.load());
        if pulls.get(pull.id()).is_some_and(|listed| Arc::ptr_eq(listed, pull)) {
            pulls.remove(pull.id());
            self.open.store(Arc::new(pulls));
        }
    }

    pub(super) fn is_absent(&self, id: &StreamId) -> bool {
        let absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        absent.get(id).is_some_and(|since| since.elapsed() < ABSENT_FOR)
    }

    pub(super) fn remember_absent(&self, id: &StreamId) {
        let mut absent = self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if absent.len() >= ABSENT_MAX {
            absent.retain(|_, since| since.elapsed() < ABSENT_FOR);
        }
        if absent.len() >= ABSENT_MAX {
            absent.clear();
        }
        absent.insert(id.clone(), Instant::now());
    }
}

impl Pull {
    fn new(source: Source) -> Self {
        Self {
            source,
            phase: watch::Sender::new(Phase::Cold),
            readers: AtomicUsize::new(0),
            left: Mutex::new(Instant::now()),
            closed: AtomicBool::new(false),
            lost: watch::Sender::new(None),
            listed: watch::Sender::new(0),
            target_duration_s: AtomicU32::new(0),
        }
    }

    pub(super) fn id(&self) -> &StreamId {
        self.source.id()
    }

    fn watch(self: &Arc<Self>) -> Option<Watching> {
        // Counted first: a task that closes the pull looks at the count after it closed.
        let watching = Watching::new(self.clone());
        if self.closed.load(Ordering::SeqCst) { None } else { Some(watching) }
    }

    /// Closes the pull if nobody reads it and nobody did for a while.
    pub(super) fn close_if_unwatched(&self) -> bool {
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

    /// Parts have come without their bytes, or may have.
    pub(super) fn set_listed(&self) {
        self.listed.send_modify(|count| *count += 1);
    }

    /// The upstream does not answer. Returns since when.
    pub(super) fn set_lost(&self) -> Instant {
        let mut since = Instant::now();
        self.lost.send_if_modified(|lost| {
            let is_new = lost.is_none();
            since = *lost.get_or_insert(since);
            is_new
        });
        since
    }

    /// The upstream answers.
    pub(super) fn set_found(&self) {
        self.lost.send_if_modified(|lost| lost.take().is_some());
    }
}

impl Watching {
    fn new(pull: Arc<Pull>) -> Self {
        pull.readers.fetch_add(1, Ordering::SeqCst);
        Self { pull }
    }

    pub(super) fn pull(&self) -> &Arc<Pull> {
        &self.pull
    }

    /// Changes when parts have come that may be without their bytes.
    pub(super) fn listed(&self) -> watch::Receiver<u64> {
        self.pull.listed.subscribe()
    }

    /// Waits until nothing more comes.
    pub(super) async fn over(&self) {
        let is_over = |phase: &Phase| !matches!(phase, Phase::Cold | Phase::Ready);
        // The sender lives in the pull that this keeps.
        let _ = self.pull.phase.subscribe().wait_for(is_over).await;
    }

    /// The upstream is lost, and who reads it from here had better ask another node.
    pub fn is_cut_off(&self) -> bool {
        self.pull.lost.borrow().is_some_and(|since| since.elapsed() >= CUT_OFF_AFTER)
    }

    /// Waits until it is.
    pub async fn cut_off(&self) {
        let mut lost = self.pull.lost.subscribe();
        loop {
            let since = *lost.borrow_and_update();
            let changed = lost.changed();
            match since {
                Some(since) => {
                    if timeout_at((since + CUT_OFF_AFTER).into(), changed).await.is_err() {
                        return;
                    }
                }
                // The sender lives in the pull that this keeps.
                None => drop(changed.await),
            }
        }
    }

    /// The upstream was lost so long ago that a playlist from here would lead nowhere.
    pub(crate) fn is_stale(&self) -> bool {
        let lost = *self.pull.lost.borrow();
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
