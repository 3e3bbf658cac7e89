//! Who has a stream, and how far it is.

use media::{NodeId, StreamId};
use serde::{Deserialize, Serialize};

use crate::node::{Boot, text};
use crate::store::Revision;

/// Counts the owners of a stream; a later one has a greater. What they are told apart by when one that was thought dead speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// The process that has a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    #[serde(with = "text")]
    pub node: NodeId,
    pub boot: Boot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamPhase {
    /// Published, but there is no playlist yet.
    Starting,
    Live,
    /// No media comes: its publisher is gone, and may come back, here or elsewhere.
    Interrupted,
    Ended,
}

/// What the directory says of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEntry {
    pub holder: Holder,
    /// `None` in what claims it: the epoch is the revision of that.
    pub epoch: Option<Epoch>,
    pub phase: StreamPhase,
    /// Of the session, as it stands in URLs.
    pub session: Option<String>,
    /// When the publisher came, in milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// On no list.
    #[serde(default)]
    pub unlisted: bool,
}

impl StreamEntry {
    pub(crate) fn epoch_at(&self, revision: Revision) -> Epoch {
        self.epoch.unwrap_or(Epoch(revision.0))
    }
}

/// A stream by its name, for lists.
#[derive(Debug, Clone, Serialize)]
pub struct Named {
    #[serde(serialize_with = "text::serialize")]
    pub stream: StreamId,
    #[serde(flatten)]
    pub entry: StreamEntry,
}
