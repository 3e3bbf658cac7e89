//! All streams on this node: who may write one, who can find it, and when it is forgotten.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use media::{SessionId, StreamId};
use net::{Full, Limits, Place, Places};
use tokio::sync::SemaphorePermit;

use crate::backfill::Backfill;
use crate::index::{StreamHeader, StreamIndex, StreamWriter};
use crate::metrics::Metrics;

/// Requests held at once, node-wide; the next is told 503 and comes back without holding. A held connection
/// costs about 45 KB with TLS, so this is 0.9 GB: more than any audience one node can serve parts to.
pub(crate) const HELD_REQUESTS_MAX: usize = 20_000;

/// Of these places, how many one stream may take. The rest is for the others: viewers of a hundred quiet streams do
/// not fall back to polling because one has an audience beyond this node's means, or a crowd of strangers that
/// wants them to.
pub(crate) const HELD_REQUESTS_PER_STREAM_MAX: usize = HELD_REQUESTS_MAX / 4 * 3;

/// Sessions of one name that can be fetched from. A publisher that comes and goes every second must not pile up
/// a window of media each time; beyond this the oldest goes at once.
const SESSIONS_PER_STREAM_MAX: usize = 4;

/// All streams on this node. Cheap to clone; all clones are one catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Sessions by stream, as `app/stream`; the newest last. Replaced as a whole, so that requests take no lock:
    /// streams come and go a few times a second at most.
    streams: ArcSwap<HashMap<Arc<str>, Vec<Arc<StreamIndex>>>>,
    /// Taken by whoever replaces `streams`.
    changes: Mutex<()>,
    held: Places,
    /// No request is held any more.
    draining: AtomicBool,
    has_steering: bool,
    metrics: Metrics,
}

/// What depends on the node.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Requests that one address may have waiting at once. Each waits on a connection of its own in HTTP/1.1, so this is
    /// worth something below the bound on connections of an address.
    pub held_per_address: usize,
    /// Whether other nodes may have the same streams, so that players are told where to hear of them.
    pub has_steering: bool,
}

/// Holds requests up to the node's bound, whoever asks.
impl Default for Settings {
    fn default() -> Self {
        Self { held_per_address: HELD_REQUESTS_MAX, has_steering: false }
    }
}

impl Catalog {
    pub fn new(metrics: Metrics) -> Self {
        Self::with_settings(metrics, Settings::default())
    }

    pub fn with_settings(metrics: Metrics, settings: Settings) -> Self {
        let Settings { held_per_address, has_steering } = settings;
        let shared = Shared {
            streams: ArcSwap::default(),
            changes: Mutex::default(),
            held: Places::new(Limits { total: HELD_REQUESTS_MAX, per_address: held_per_address }),
            draining: AtomicBool::new(false),
            has_steering,
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Begins a session, which takes over the stream's `index.m3u8` at once. Sessions before it keep their own
    /// URLs until [`Catalog::expire`] forgets them.
    ///
    /// # Panics
    /// Outside a tokio runtime: each rendition wakes its held requests from a task.
    pub fn open(&self, header: StreamHeader) -> StreamWriter {
        self.open_with(header, None, |_| ()).0
    }

    /// As [`Catalog::open`], for a session of another node: bodies that are only listed come from `backfill`, and `fill`
    /// puts in what there is already before anybody can find it.
    ///
    /// # Panics
    /// As [`Catalog::open`].
    pub fn open_remote<T>(
        &self,
        header: StreamHeader,
        backfill: Arc<dyn Backfill>,
        fill: impl FnOnce(&mut StreamWriter) -> T,
    ) -> (StreamWriter, T) {
        self.open_with(header, Some(backfill), fill)
    }

    fn open_with<T>(
        &self,
        header: StreamHeader,
        backfill: Option<Arc<dyn Backfill>>,
        fill: impl FnOnce(&mut StreamWriter) -> T,
    ) -> (StreamWriter, T) {
        let key: Arc<str> = header.id.to_string().into();
        let Shared { metrics, has_steering, .. } = &*self.shared;
        let index = Arc::new(StreamIndex::new(header, metrics.clone(), *has_steering, backfill));
        for number in 0..index.renditions.len() {
            let index = Arc::clone(&index);
            tokio::spawn(async move { index.renditions[number].run_waker(&index.publications).await });
        }
        let mut writer = StreamWriter::new(Arc::clone(&index));
        let filled = fill(&mut writer);
        self.change(|streams| {
            let sessions = streams.entry(key).or_default();
            sessions.retain(|session| session.session() != index.session());
            sessions.push(Arc::clone(&index));
            let excess = sessions.len().saturating_sub(SESSIONS_PER_STREAM_MAX);
            sessions.drain(..excess);
        });
        (writer, filled)
    }

    /// The newest session of a stream, ended or not.
    pub fn get(&self, id: &StreamId) -> Option<Arc<StreamIndex>> {
        self.current(&id.to_string())
    }

    /// The newest session of every stream, in no particular order.
    pub fn streams(&self) -> Vec<Arc<StreamIndex>> {
        self.shared.streams.load().values().filter_map(|sessions| sessions.last().cloned()).collect()
    }

    /// Forgets sessions that ended one window or more before `now`. To be called about once a second.
    pub fn expire(&self, now: Instant) {
        let expired = |session: &Arc<StreamIndex>| session.expired(now);
        // Mostly there is nothing to do, and then the map is not copied.
        if !self.shared.streams.load().values().flatten().any(expired) {
            return;
        }
        self.change(|streams| {
            streams.retain(|_, sessions| {
                sessions.retain(|session| !expired(session));
                !sessions.is_empty()
            });
        });
    }

    /// Forgets a session at once.
    pub fn forget(&self, index: &Arc<StreamIndex>) {
        self.change(|streams| {
            let name = index.id().to_string();
            let Some(sessions) = streams.get_mut(name.as_str()) else { return };
            sessions.retain(|session| !Arc::ptr_eq(session, index));
            if sessions.is_empty() {
                streams.remove(name.as_str());
            }
        });
    }

    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// By the stream's name as it stands in a URL. Names are kept as [`StreamId`] prints them, so whatever
    /// is not the name of a stream is simply not found.
    pub(crate) fn current(&self, name: &str) -> Option<Arc<StreamIndex>> {
        self.shared.streams.load().get(name)?.last().cloned()
    }

    pub(crate) fn session(&self, name: &str, session: SessionId) -> Option<Arc<StreamIndex>> {
        let streams = self.shared.streams.load();
        streams.get(name)?.iter().find(|index| index.session() == session).cloned()
    }

    /// Answers every held request at once, and holds no other: the node goes down, and whoever comes after it, or
    /// another node, will hold them. Media that is there is still served.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Release);
        for session in self.shared.streams.load().values().flatten() {
            session.renditions.iter().for_each(|rendition| rendition.waiters.wake_now());
        }
    }

    /// To be asked after waiting began, like the snapshot that is waited for: then no drain is missed.
    pub(crate) fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Acquire)
    }

    /// Leave to hold one request of a viewer at `address`.
    ///
    /// # Errors
    /// Who has as many as it may: the stream, the node, or the address.
    pub(crate) fn hold<'a>(&'a self, index: &'a StreamIndex, address: IpAddr) -> Result<Held<'a>, NotHeld> {
        let metrics = &self.shared.metrics;
        let places = || {
            let stream = index.held.try_acquire().map_err(|_| NotHeld::Stream)?;
            let node = self.shared.held.take(address).map_err(NotHeld::from)?;
            Ok((stream, node))
        };
        let places = places().inspect_err(|not_held| metrics.not_held(*not_held))?;
        metrics.held_requests.inc();
        Ok(Held { metrics, _places: places })
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<Arc<str>, Vec<Arc<StreamIndex>>>)) {
        let _changing = self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut streams = HashMap::clone(&self.shared.streams.load());
        change(&mut streams);
        self.shared.streams.store(Arc::new(streams));
    }
}

/// Who holds as many requests as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotHeld {
    Node,
    Stream,
    Address,
}

impl From<Full> for NotHeld {
    fn from(full: Full) -> Self {
        match full {
            Full::Total => Self::Node,
            Full::Address => Self::Address,
        }
    }
}

/// One held request; counts until dropped, also when the viewer hangs up.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    metrics: &'a Metrics,
    _places: (SemaphorePermit<'a>, Place),
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.metrics.held_requests.dec();
    }
}
