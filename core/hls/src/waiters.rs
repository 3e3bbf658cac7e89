//! Held requests of one rendition, and waking them without the packager paying for it.
//!
//! Waking costs about half a microsecond per request, and ten thousand may be held. So the packager only rings
//! one bell; a task of the rendition hears it and wakes one shard after the other, giving way in between.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Enough that a shard is woken in well under a millisecond at the node's bound on held requests, few enough
/// that an idle rendition costs nothing worth counting.
const SHARDS: usize = 16;

/// What a held request waits for. Parts are woken first: their media can be sent while playlists are parsed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Queue {
    Part,
    Playlist,
}

#[derive(Debug, Default)]
pub(crate) struct Waiters {
    published: Notify,
    parts: [Notify; SHARDS],
    playlists: [Notify; SHARDS],
    /// Spreads requests over the shards.
    arrivals: AtomicUsize,
    /// Places that are taken.
    held: AtomicUsize,
    closed: AtomicBool,
}

impl Waiters {
    /// Something changed. Constant time, whoever waits.
    pub(crate) fn ring(&self) {
        self.published.notify_one();
    }

    /// Nothing will change any more, though it is not the end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.ring();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A place to wait in. Any ring after [`Place::wait`] was called ends that wait, awaited or not yet.
    pub(crate) fn place(&self, queue: Queue) -> Place<'_> {
        let shard = self.arrivals.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let shards = match queue {
            Queue::Part => &self.parts,
            Queue::Playlist => &self.playlists,
        };
        self.held.fetch_add(1, Ordering::Relaxed);
        Place { shard: &shards[shard], held: &self.held }
    }

    /// The next ring.
    pub(crate) async fn rung(&self) {
        self.published.notified().await;
    }

    /// Wakes everyone, and needs nobody to hear a bell: the rendition's task ends with its writer.
    pub(crate) fn wake_now(&self) {
        self.parts.iter().chain(&self.playlists).for_each(Notify::notify_waiters);
    }

    /// Wakes everyone, and gives way in between where that is a crowd. Starts at another shard each `turn`, or the same
    /// viewers would always be last and drift away from the live edge.
    pub(crate) async fn wake_all(&self, turn: usize) {
        for shards in [&self.parts, &self.playlists] {
            for offset in 0..SHARDS {
                shards[(turn + offset) % SHARDS].notify_waiters();
                // It costs as much as to wake somebody.
                if self.held.load(Ordering::Relaxed) > SHARDS {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Place<'a> {
    shard: &'a Notify,
    /// This one is counted there.
    held: &'a AtomicUsize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<'a> Place<'a> {
    pub(crate) fn wait(&self) -> Notified<'a> {
        self.shard.notified()
    }
}
