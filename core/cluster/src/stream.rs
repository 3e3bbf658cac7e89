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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamPhase {
    /// Published, but there is no playlist yet.
    Starting,
    /// No media comes: its publisher is gone, and may come back, here or elsewhere.
    Interrupted,
    Ended,
    /// Also whatever a later release calls otherwise: nobody takes it from its holder.
    #[default]
    #[serde(other)]
    Live,
}

/// What the directory says of a stream. Of another release it has more fields, or fewer: the holder is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEntry {
    pub holder: Holder,
    /// `None` in what claims it: the epoch is the revision of that.
    pub epoch: Option<Epoch>,
    #[serde(default)]
    pub phase: StreamPhase,
    /// Of the session, as it stands in URLs.
    pub session: Option<String>,
    /// When the publisher came, in milliseconds since the Unix epoch.
    #[serde(default)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::decode;
    use crate::store::Key;

    #[test]
    fn an_entry_of_another_release_is_read() {
        let key = Key::from(&StreamId::new("live", "cam").unwrap());
        let holder = r#""holder":{"node":"a","boot":"00000000000000ab","rack":7}"#;
        let later = format!(r#"{{{holder},"epoch":9,"phase":"rehearsing","since_ms":5,"standby":"b"}}"#);
        let entry: StreamEntry = decode(&key, later.as_bytes()).unwrap();
        assert_eq!((entry.phase, entry.epoch, entry.since_ms), (StreamPhase::Live, Some(Epoch(9)), 5));
        let earlier: StreamEntry = decode(&key, format!("{{{holder}}}").as_bytes()).unwrap();
        assert_eq!((earlier.phase, earlier.epoch, earlier.unlisted), (StreamPhase::Live, None, false));
        assert_eq!(earlier.epoch_at(Revision(4)), Epoch(4), "the claim itself");
        assert!(decode::<StreamEntry>(&key, b"{}").is_err(), "nobody has it");
    }
}
