//! Who may publish a stream: exactly one process, whose claim the store decides by comparing revisions.

use std::sync::Arc;

use media::StreamId;

use crate::node::{decode, encode};
use crate::store::{Bucket, Entry, Key, Revision, Store, StoreError, WriteError};
use crate::stream::{Epoch, Holder, StreamEntry};

/// Of several who write at once somebody has won each time; so many rounds are more than there are nodes at it.
const ROUNDS_MAX: usize = 16;

/// The streams of the cluster, for one process of it. Cloning shares it.
#[derive(Clone)]
pub struct Directory {
    store: Arc<dyn Store>,
    holder: Holder,
}

/// A stream that this process has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub epoch: Epoch,
    /// Who had it before.
    pub previous: Option<StreamEntry>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    #[error("node {} has it", .0.holder.node)]
    Held(Box<StreamEntry>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a stream is not this process's any more, or not said to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    #[error("node {} has it now", .0.holder.node)]
    To(Box<StreamEntry>),
    #[error("the directory does not have it")]
    Forgotten,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Directory {
    pub fn new(store: Arc<dyn Store>, holder: Holder) -> Self {
        Self { store, holder }
    }

    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Claims `id` for this process, over whoever has it if `may_take` says so. Of several who claim at once one succeeds.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn claim(
        &self,
        id: &StreamId,
        entry: StreamEntry,
        may_take: impl Fn(&StreamEntry) -> bool + Send,
    ) -> Result<Claim, ClaimError> {
        let key = Key::from(id);
        let value = encode(&StreamEntry { holder: self.holder.clone(), epoch: None, ..entry });
        for _ in 0..ROUNDS_MAX {
            let there = self.store.get(Bucket::Streams, &key).await?;
            let (written, previous) = match there {
                None => (self.store.create(Bucket::Streams, &key, value.clone()).await, None),
                Some(Entry { value: old, revision }) => {
                    let mut old: StreamEntry = decode(&key, &old)?;
                    old.epoch = Some(old.epoch_at(revision));
                    if old.holder != self.holder && !may_take(&old) {
                        return Err(ClaimError::Held(Box::new(old)));
                    }
                    (self.store.update(Bucket::Streams, &key, value.clone(), revision).await, Some(old))
                }
            };
            match written {
                Ok(Revision(revision)) => return Ok(Claim { epoch: Epoch(revision), previous }),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Store(error)) => return Err(error.into()),
            }
        }
        Err(StoreError::Unreachable(format!("{id} is written by others all the time")).into())
    }

    /// Says what has become of a stream that this process has.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn tell(&self, id: &StreamId, epoch: Epoch, entry: StreamEntry) -> Result<(), Lost> {
        let key = Key::from(id);
        let value = encode(&StreamEntry { holder: self.holder.clone(), epoch: Some(epoch), ..entry });
        self.replace(&key, epoch, |revision| {
            let (store, key, value) = (&self.store, &key, value.clone());
            async move { store.update(Bucket::Streams, key, value, revision).await.map(drop) }
        })
        .await
    }

    /// Forgets a stream that this process has, and that is over.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn release(&self, id: &StreamId, epoch: Epoch) -> Result<(), Lost> {
        let key = Key::from(id);
        self.replace(&key, epoch, |revision| self.store.delete(Bucket::Streams, &key, revision)).await
    }

    /// `write`s over what this process wrote under `epoch`, and over nothing else.
    async fn replace<W: Future<Output = Result<(), WriteError>>>(
        &self,
        key: &Key,
        epoch: Epoch,
        write: impl Fn(Revision) -> W,
    ) -> Result<(), Lost> {
        for _ in 0..ROUNDS_MAX {
            let Some(entry) = self.store.get(Bucket::Streams, key).await? else {
                return Err(Lost::Forgotten);
            };
            let mut there: StreamEntry = decode(key, &entry.value)?;
            there.epoch = Some(there.epoch_at(entry.revision));
            if there.holder != self.holder || there.epoch != Some(epoch) {
                return Err(Lost::To(Box::new(there)));
            }
            match write(entry.revision).await {
                Ok(()) => return Ok(()),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Store(error)) => return Err(error.into()),
            }
        }
        Err(StoreError::Unreachable(format!("{key} is written by others all the time")).into())
    }

    /// Who has `id`, from the store itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: &StreamId) -> Result<Option<StreamEntry>, StoreError> {
        let key = Key::from(id);
        let Some(Entry { value, revision }) = self.store.get(Bucket::Streams, &key).await? else {
            return Ok(None);
        };
        let mut entry: StreamEntry = decode(&key, &value)?;
        entry.epoch = Some(entry.epoch_at(revision));
        Ok(Some(entry))
    }
}
