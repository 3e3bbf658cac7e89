//! What has happened in the cluster, in order, for whoever asks, now or later.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use media::NodeId;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::node::{Boot, encode, text};
use crate::reader::Readers;
use crate::store::{Sequence, Store, StoreError};

/// Events that wait for a store that is away: hours of a busy node, and less than a megabyte. Of more the oldest are dropped.
const WAITING_MAX: usize = 1_000;

/// How often it is tried whether they can be sent.
const SEND_EVERY: Duration = Duration::from_secs(1);

/// What a process that ends waits for that.
const LAST_TRY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    NodeStarted,
    NodeDraining,
    /// It takes publishers and viewers again.
    NodeResumed,
    NodeStopped,
    /// It was not heard any more, and somebody noticed.
    NodeLost,
    /// Nobody in the cluster speaks with it any more, by an operator's order.
    NodeRevoked,
    StreamStarted,
    StreamInterrupted,
    StreamResumed,
    /// Another node has it now.
    StreamMoved,
    StreamEnded,
    /// Another node makes its renditions now.
    EncodingMoved,
    /// Broadcasters of the cluster need another publish key.
    KeyChanged,
    /// Nodes that are started from now on take another value.
    SettingChanged,
    /// Some of a node's events are not in the log: too many had to wait for it.
    EventsDropped,
    /// Of a later release.
    #[serde(other)]
    Unknown,
}

impl Kind {
    /// As in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeStarted => "node-started",
            Self::NodeDraining => "node-draining",
            Self::NodeResumed => "node-resumed",
            Self::NodeStopped => "node-stopped",
            Self::NodeLost => "node-lost",
            Self::NodeRevoked => "node-revoked",
            Self::StreamStarted => "stream-started",
            Self::StreamInterrupted => "stream-interrupted",
            Self::StreamResumed => "stream-resumed",
            Self::StreamMoved => "stream-moved",
            Self::StreamEnded => "stream-ended",
            Self::EncodingMoved => "encoding-moved",
            Self::KeyChanged => "key-changed",
            Self::SettingChanged => "setting-changed",
            Self::EventsDropped => "events-dropped",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// In milliseconds since the Unix epoch, by the clock of `node`.
    pub at_ms: i64,
    /// Who tells it.
    #[serde(with = "text")]
    pub node: NodeId,
    pub kind: Kind,
    /// The stream or the node that it is about.
    pub subject: String,
    /// A sentence.
    pub words: String,
}

/// An event at its place in the log.
#[derive(Debug, Clone, Serialize)]
pub struct Logged {
    pub sequence: Sequence,
    #[serde(flatten)]
    pub event: Event,
}

/// The log of events, as a node writes and reads it. Cloning shares it.
#[derive(Clone)]
pub struct Journal {
    store: Arc<dyn Store>,
    node: NodeId,
    boot: Boot,
    told: Arc<AtomicU64>,
    waiting: Arc<Mutex<Waiting>>,
}

/// What the store could not be told, the oldest first.
#[derive(Default)]
struct Waiting {
    events: VecDeque<Unsent>,
    /// How many older ones there were, but for those of `gap`.
    dropped: u64,
    gap: Option<Gap>,
}

impl Waiting {
    /// Events that the log knows nothing of, not even that they were dropped.
    fn count(&self) -> u64 {
        self.events.len() as u64 + self.dropped + self.gap.as_ref().map_or(0, |gap| gap.dropped)
    }
}

/// Events that had to make room.
struct Gap {
    dropped: u64,
    /// Tells of them: one event until it is known to be in the log, so that they are counted once.
    event: Unsent,
}

#[derive(Clone)]
struct Unsent {
    kind: Kind,
    id: String,
    value: Bytes,
}

impl Journal {
    pub fn new(store: Arc<dyn Store>, node: NodeId, boot: Boot) -> Self {
        Self { store, node, boot, told: Arc::default(), waiting: Arc::default() }
    }

    /// Tells it, once. While the store is away it waits for [`Journal::run`], with the time at which it happened.
    pub async fn tell(&self, kind: Kind, subject: String, words: String) {
        self.tell_once(self.next_id(), kind, subject, words).await;
    }

    fn next_id(&self) -> String {
        format!("{}-{}-{}", self.node, self.boot, self.told.fetch_add(1, Ordering::Relaxed))
    }

    /// What other nodes see as well, and call by the same `id`: the first who tells it is heard.
    pub async fn tell_once(&self, id: String, kind: Kind, subject: String, words: String) {
        let event = self.unsent(id, kind, subject, words);
        // Behind those that wait; and nobody who tells something waits for a store that was away a moment ago.
        if self.waiting().events.is_empty() {
            let Err(error) = self.send(&event).await else { return };
            warn!(kind = kind.name(), "an event waits for the cluster's log: {error}");
        }
        let mut waiting = self.waiting();
        waiting.events.push_back(event);
        if waiting.events.len() > WAITING_MAX {
            waiting.events.pop_front();
            waiting.dropped += 1;
        }
    }

    /// Sends what waits, as soon as the store takes it, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut attempts = interval(SEND_EVERY);
        attempts.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = attempts.tick() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                has_sent = self.send_waiting() => if has_sent {
                    info!("what waited for the cluster's log is in it");
                },
                () = stop.cancelled() => return,
            }
        }
    }

    /// The last try, and how many could not be told, for a process that ends.
    pub async fn finish(&self) {
        let _over = timeout(LAST_TRY, self.send_waiting()).await;
        let left = self.waiting().count();
        if left > 0 {
            warn!("{left} events are not in the cluster's log: it is away, and this process ends");
        }
    }

    /// Whether there were some, and all are sent. One whose answer was lost is sent again under its id: it is twice in the log if
    /// the store was away for longer than that remembers ids.
    async fn send_waiting(&self) -> bool {
        let mut has_sent = false;
        loop {
            let Some(next) = self.next_waiting() else { return has_sent };
            if self.send(&next).await.is_err() {
                return false;
            }
            has_sent = true;
            let mut waiting = self.waiting();
            if waiting.gap.take_if(|gap| gap.event.id == next.id).is_some() {
                continue;
            }
            // Unless it was dropped meanwhile.
            if waiting.events.front().is_some_and(|front| front.id == next.id) {
                waiting.events.pop_front();
            }
        }
    }

    fn next_waiting(&self) -> Option<Unsent> {
        let mut waiting = self.waiting();
        if waiting.gap.is_none() && waiting.dropped > 0 {
            let dropped = std::mem::take(&mut waiting.dropped);
            let words =
                format!("{dropped} events of {} are not in the log: too many had to wait for it", self.node);
            let event = self.unsent(self.next_id(), Kind::EventsDropped, self.node.to_string(), words);
            waiting.gap = Some(Gap { dropped, event });
        }
        waiting.gap.as_ref().map(|gap| &gap.event).or_else(|| waiting.events.front()).cloned()
    }

    fn unsent(&self, id: String, kind: Kind, subject: String, words: String) -> Unsent {
        let event = Event { at_ms: crate::now_ms(), node: self.node.clone(), kind, subject, words };
        Unsent { kind, id, value: encode(&event) }
    }

    async fn send(&self, event: &Unsent) -> Result<(), StoreError> {
        let Unsent { kind, id, value } = event.clone();
        self.store.append(kind.name(), id, value).await.map(drop)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is behind `after`, and then what happens.
    pub fn follow(&self, after: Sequence) -> BoxStream<'static, Logged> {
        let logged = |(sequence, value): (Sequence, Bytes)| async move {
            let event = serde_json::from_slice(&value).ok()?;
            Some(Logged { sequence, event })
        };
        self.store.follow(after).filter_map(logged).boxed()
    }

    /// The place in front of what happened at that time or later, in milliseconds since the Unix epoch by the clock of the store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn before(&self, at_ms: u64) -> Result<Sequence, StoreError> {
        self.store.before(at_ms).await
    }

    /// Who reads the log under a name.
    pub fn readers(&self) -> Readers {
        Readers::new(self.store.clone())
    }

    /// # Errors
    /// [`StoreError`].
    pub async fn newest(&self) -> Result<Sequence, StoreError> {
        self.store.newest().await
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::memory::Memory;
    use crate::store::{Bucket, Entry, Key, Revision, Told, WriteError};

    /// Takes every event; whether it says so, `answers` tells.
    struct Mute {
        memory: Memory,
        answers: Arc<Mutex<bool>>,
    }

    #[async_trait]
    impl Store for Mute {
        async fn append(&self, kind: &'static str, id: String, value: Bytes) -> Result<Sequence, StoreError> {
            let appended = self.memory.append(kind, id, value).await;
            let answers = *self.answers.lock().unwrap();
            if answers { appended } else { Err(StoreError::Unreachable("no answer".to_owned())) }
        }

        async fn get(&self, bucket: Bucket, key: &Key) -> Result<Option<Entry>, StoreError> {
            self.memory.get(bucket, key).await
        }

        async fn put(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
            self.memory.put(bucket, key, value).await
        }

        async fn create(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, WriteError> {
            self.memory.create(bucket, key, value).await
        }

        async fn update(
            &self,
            bucket: Bucket,
            key: &Key,
            value: Bytes,
            read: Revision,
        ) -> Result<Revision, WriteError> {
            self.memory.update(bucket, key, value, read).await
        }

        async fn delete(&self, bucket: Bucket, key: &Key, read: Revision) -> Result<(), WriteError> {
            self.memory.delete(bucket, key, read).await
        }

        async fn count(&self, bucket: Bucket) -> Result<usize, StoreError> {
            self.memory.count(bucket).await
        }

        fn watch(&self, bucket: Bucket) -> BoxStream<'static, Told> {
            self.memory.watch(bucket)
        }

        fn follow(&self, after: Sequence) -> BoxStream<'static, (Sequence, Bytes)> {
            self.memory.follow(after)
        }

        async fn newest(&self) -> Result<Sequence, StoreError> {
            self.memory.newest().await
        }

        async fn before(&self, at_ms: u64) -> Result<Sequence, StoreError> {
            self.memory.before(at_ms).await
        }
    }

    #[tokio::test]
    async fn what_was_dropped_is_counted_once_though_the_answer_to_that_is_lost() {
        let answers = Arc::new(Mutex::new(false));
        let store = Mute { memory: Memory::default(), answers: answers.clone() };
        let journal = Journal::new(Arc::new(store), "node".parse().unwrap(), Boot(1));
        let tell = async |number: usize| {
            journal.tell(Kind::StreamStarted, "live/cam".to_owned(), format!("event {number}")).await;
        };
        for number in 0..WAITING_MAX + 5 {
            tell(number).await;
        }
        let told = WAITING_MAX as u64 + 5;
        assert_eq!(journal.waiting().count(), told);
        assert!(!journal.send_waiting().await);
        assert_eq!(journal.waiting().count(), told);
        // One more is dropped before it is tried again.
        tell(WAITING_MAX + 5).await;
        assert_eq!(journal.waiting().count(), told + 1);
        *answers.lock().unwrap() = true;
        assert!(journal.send_waiting().await);
        assert_eq!(journal.waiting().count(), 0);
        let newest = journal.newest().await.unwrap();
        let logged = journal.follow(Sequence(0)).take(usize::try_from(newest.0).unwrap());
        let events: Vec<_> = logged.map(|logged| logged.event).collect().await;
        let dropped = events.iter().filter(|event| event.kind == Kind::EventsDropped);
        let words: Vec<_> = dropped.map(|event| event.words.split(" of ").next().unwrap()).collect();
        assert_eq!(words, ["5 events", "1 events"]);
    }
}
