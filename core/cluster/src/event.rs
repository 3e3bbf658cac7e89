//! What has happened in the cluster, in order, for whoever asks, now or later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use media::NodeId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::node::{Boot, encode, text};
use crate::store::{Sequence, Store, StoreError};

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
    StreamStarted,
    StreamInterrupted,
    StreamResumed,
    /// Another node has it now.
    StreamMoved,
    StreamEnded,
    /// Broadcasters of the cluster need another publish key.
    KeyChanged,
    /// Nodes that are started from now on take another value.
    SettingChanged,
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
            Self::StreamStarted => "stream-started",
            Self::StreamInterrupted => "stream-interrupted",
            Self::StreamResumed => "stream-resumed",
            Self::StreamMoved => "stream-moved",
            Self::StreamEnded => "stream-ended",
            Self::KeyChanged => "key-changed",
            Self::SettingChanged => "setting-changed",
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
}

impl Journal {
    pub fn new(store: Arc<dyn Store>, node: NodeId, boot: Boot) -> Self {
        Self { store, node, boot, told: Arc::default() }
    }

    /// Tells it, once, however often it has to be tried within the store's call.
    pub async fn tell(&self, kind: Kind, subject: String, words: String) {
        let number = self.told.fetch_add(1, Ordering::Relaxed);
        self.tell_once(format!("{}-{}-{number}", self.node, self.boot), kind, subject, words).await;
    }

    /// What other nodes see as well, and call by the same `id`: the first who tells it is heard.
    pub async fn tell_once(&self, id: String, kind: Kind, subject: String, words: String) {
        let event = Event { at_ms: crate::now_ms(), node: self.node.clone(), kind, subject, words };
        if let Err(error) = self.store.append(kind.name(), id, encode(&event)).await {
            // It is in this node's own log; nobody may wait for the cluster's.
            warn!(kind = kind.name(), "an event is not in the cluster's log: {error}");
        }
    }

    /// What is behind `after`, and then what happens.
    pub fn follow(&self, after: Sequence) -> BoxStream<'static, Logged> {
        let logged = |(sequence, value): (Sequence, bytes::Bytes)| async move {
            let event = serde_json::from_slice(&value).ok()?;
            Some(Logged { sequence, event })
        };
        self.store.follow(after).filter_map(logged).boxed()
    }

    /// # Errors
    /// [`StoreError`].
    pub async fn newest(&self) -> Result<Sequence, StoreError> {
        self.store.newest().await
    }
}
