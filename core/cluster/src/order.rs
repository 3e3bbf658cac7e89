//! What operators have ordered: in the store until it is taken back, so that whom it is for may be away meanwhile.

use std::sync::Arc;

use media::{NodeId, StreamId};
use serde::{Deserialize, Serialize};

use crate::node::{decode, encode, text};
use crate::store::{Bucket, Key, Store, StoreError, WriteError};

/// For a node or a stream, which its key names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Order {
    /// The node takes nothing new, whichever process has its name.
    Drain {
        /// In milliseconds since the Unix epoch.
        at_ms: i64,
        /// Where it was ordered.
        #[serde(with = "text")]
        by: NodeId,
    },
    /// So many viewers of the stream will come.
    Audience {
        viewers: u32,
        /// From when on, in milliseconds since the Unix epoch.
        at_ms: i64,
    },
    /// Of a later release.
    #[serde(other)]
    Unknown,
}

/// The orders of a cluster. Cloning shares them.
#[derive(Clone)]
pub struct Orders {
    store: Arc<dyn Store>,
}

/// Of several operators at once somebody wins each time.
const ROUNDS_MAX: usize = 16;

impl Orders {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// `node` takes nothing new, until [`Orders::take_back`]. `by`: where that was ordered.
    ///
    /// # Errors
    /// [`StoreError`]: then nothing is ordered, or it could not be said.
    pub async fn drain(&self, node: &NodeId, by: &NodeId) -> Result<(), StoreError> {
        let order = Order::Drain { at_ms: crate::now_ms(), by: by.clone() };
        self.store.put(Bucket::Orders, &Key::from(node), encode(&order)).await.map(drop)
    }

    /// `viewers` of `stream` will come from `at_ms` on (milliseconds since the Unix epoch), until [`Orders::take_back`].
    ///
    /// # Errors
    /// As [`Orders::drain`].
    pub async fn expect(&self, stream: &StreamId, viewers: u32, at_ms: i64) -> Result<(), StoreError> {
        let order = Order::Audience { viewers, at_ms };
        self.store.put(Bucket::Orders, &Key::from(stream), encode(&order)).await.map(drop)
    }

    /// Whatever was ordered of `of`. Returns whether there was anything.
    ///
    /// # Errors
    /// As [`Orders::drain`].
    pub async fn take_back(&self, of: &Key) -> Result<bool, StoreError> {
        for _ in 0..ROUNDS_MAX {
            let Some(there) = self.store.get(Bucket::Orders, of).await? else { return Ok(false) };
            match self.store.delete(Bucket::Orders, of, there.revision).await {
                Ok(()) => return Ok(true),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Store(error)) => return Err(error),
            }
        }
        Err(StoreError::Unreachable(format!("orders of {of} are written by others all the time")))
    }

    /// Whether `node` is to take nothing new, from the store itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_drained(&self, node: &NodeId) -> Result<bool, StoreError> {
        let key = Key::from(node);
        let Some(there) = self.store.get(Bucket::Orders, &key).await? else { return Ok(false) };
        Ok(matches!(decode(&key, &there.value)?, Order::Drain { .. }))
    }
}
