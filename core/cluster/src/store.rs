//! The promise that both back ends keep: small values under keys, with revisions to compare by, and a log.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use media::{NodeId, StreamId};

/// Counts the writes of a bucket, over all its keys; a later write has a greater one. What a token of fencing is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// Place of an event in the log, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Sequence(pub u64);

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// For so long the log keeps an event, unless there are too many.
pub const EVENTS_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is kept apart, as it is lost apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Who is there. Put again and again, and forgotten with whoever stops.
    Nodes,
    /// Who has which stream.
    Streams,
    /// What another node needs to go on with a session, put once per segment.
    Sessions,
    /// What operators have ordered, of a node or a stream.
    Orders,
    /// Whom the nodes trust: one value, which its authority signs.
    Trust,
    /// What is equal on all nodes: the publish key, as nobody can read it, and settings.
    Config,
    /// How far those have come who read the log under a name.
    Readers,
}

impl Bucket {
    pub const ALL: [Self; 7] =
        [Self::Nodes, Self::Streams, Self::Sessions, Self::Orders, Self::Trust, Self::Config, Self::Readers];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Streams => "streams",
            Self::Sessions => "sessions",
            Self::Orders => "orders",
            Self::Trust => "trust",
            Self::Config => "config",
            Self::Readers => "readers",
        }
    }

    /// A value that was not put again for so long is gone; nobody is told of that.
    pub const fn age_max(self) -> Option<Duration> {
        match self {
            Self::Nodes => Some(crate::SILENCE_DEAD),
            Self::Streams | Self::Orders | Self::Trust | Self::Config => None,
            // Players have given up long before.
            Self::Sessions => Some(Duration::from_secs(120)),
            // Of what such a reader had, the log has nothing any more that it could be told twice.
            Self::Readers => Some(EVENTS_AGE_MAX),
        }
    }
}

/// Of a value in a bucket. Only from names that are checked, so that nobody's name is a wildcard or a level of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// A name that is checked to be one level, and no wildcard.
    pub(crate) fn of_checked(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// As the store wrote it.
    pub(crate) fn from_store(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// A name of ours, of letters.
    pub fn fixed(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The node it is of, if it is of one: only a stream's has a dot.
    pub fn node(&self) -> Option<NodeId> {
        self.0.parse().ok()
    }

    /// The stream it is of, if it is of one.
    pub fn stream(&self) -> Option<StreamId> {
        let (app, stream) = self.0.split_once('.')?;
        StreamId::new(app, stream).ok()
    }
}

impl From<&NodeId> for Key {
    fn from(id: &NodeId) -> Self {
        Self(id.to_string())
    }
}

impl From<&StreamId> for Key {
    fn from(id: &StreamId) -> Self {
        Self(format!("{}.{}", id.app(), id.stream()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub value: Bytes,
    pub revision: Revision,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: Key,
    /// `None`: it was deleted.
    pub value: Option<Bytes>,
    pub revision: Revision,
}

/// What who watches is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What is there follows, and what was told before may be gone: at the beginning, and after a store was lost.
    Anew,
    Changed(Change),
}

/// The store did not do it, or did and could not say so.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("the cluster's store cannot be reached: {0}")]
    Unreachable(String),
    /// An operator must act.
    #[error("the cluster's store is not as it has to be: {0}")]
    Unfit(String),
}

#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Somebody else wrote first; read again.
    #[error("somebody else wrote first")]
    Conflict,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a cluster keeps what it knows. Every call ends within seconds, whatever becomes of the store.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest value, from whoever has it, not from what a watch has told.
    ///
    /// # Errors
    /// [`StoreError`], as of every call.
    async fn get(&self, bucket: Bucket, key: &Key) -> Result<Option<Entry>, StoreError>;

    async fn put(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, StoreError>;

    /// Puts what is not there. Of several at once exactly one succeeds.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if it is there.
    async fn create(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, WriteError>;

    /// Replaces the value that was read.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if it was replaced since, or deleted.
    async fn update(
        &self,
        bucket: Bucket,
        key: &Key,
        value: Bytes,
        read: Revision,
    ) -> Result<Revision, WriteError>;

    /// Deletes the value that was read.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if it was replaced since.
    async fn delete(&self, bucket: Bucket, key: &Key, read: Revision) -> Result<(), WriteError>;

    /// How many values there are. Deleted ones may be counted for as long as the bucket keeps a value.
    async fn count(&self, bucket: Bucket) -> Result<usize, StoreError>;

    /// What is there, and then every change, each key's in order; of several changes of a key the older ones may be left out.
    /// Ends with the store; while that is away it is silent. What grows too old is not told.
    fn watch(&self, bucket: Bucket) -> BoxStream<'static, Told>;

    /// Appends to the log, once for each `id` of the last two minutes.
    async fn append(&self, kind: &'static str, id: String, value: Bytes) -> Result<Sequence, StoreError>;

    /// The log behind `after`, and then what is appended. The oldest may be gone.
    fn follow(&self, after: Sequence) -> BoxStream<'static, (Sequence, Bytes)>;

    /// The place of the newest event; 0 if there is none.
    async fn newest(&self) -> Result<Sequence, StoreError>;

    /// The place in front of the first event that was appended at that time or later, in milliseconds since the Unix epoch: the
    /// newest one's if there is none.
    async fn before(&self, at_ms: u64) -> Result<Sequence, StoreError>;

    /// What an operator has to mend before it works, as it was when it was last reached.
    fn unfit(&self) -> Option<String> {
        None
    }
}
