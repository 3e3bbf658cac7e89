//! What another node needs to go on with a session: written by whoever has the stream, and by nobody who had it before.
//!
//! A process that stood still, or was cut off, goes on until it notices that it has lost a stream. So a value has the epoch of the
//! claim that it was written under, and is not replaced under an earlier one. Whoever claims a stream marks it at once: from
//! there on the one before has no say, whether the new one has written anything or not.

use std::sync::Arc;

use bytes::Bytes;
use media::StreamId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::directory::{Directory, Lost};
use crate::node::{decode, encode};
use crate::store::{Bucket, Entry, Key, Revision, Store, StoreError, WriteError};
use crate::stream::Epoch;

/// As many as of the directory: of several who write at once somebody has won each time.
const ROUNDS_MAX: usize = 16;

/// The sessions of the cluster's streams, for one process of it. Cloning shares it.
#[derive(Clone)]
pub struct Sessions {
    store: Arc<dyn Store>,
    directory: Directory,
}

#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// `None` in what earlier releases wrote: before every claim.
    claim_epoch: Option<Epoch>,
    /// The fields of a checkpoint, beside it, where earlier releases look for them; none if the session is over.
    #[serde(flatten)]
    session: Map<String, Value>,
}

impl Kept {
    fn read(key: &Key, value: &Bytes) -> Result<Self, StoreError> {
        // So earlier releases said that a session is over.
        if value.is_empty() {
            return Ok(Self::default());
        }
        decode(key, value)
    }
}

impl Sessions {
    pub fn new(store: Arc<dyn Store>, directory: Directory) -> Self {
        Self { store, directory }
    }

    /// Writes the session of a stream that this process has claimed under `epoch`. `last`: what this returned last of that
    /// stream, which spares a question.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn keep(
        &self,
        id: &StreamId,
        epoch: Epoch,
        session: Map<String, Value>,
        last: Option<Revision>,
    ) -> Result<Revision, Lost> {
        let (key, value) = (Key::from(id), encode(&Kept { claim_epoch: Some(epoch), session }));
        let mut read = last;
        for _ in 0..ROUNDS_MAX {
            let written = match read {
                Some(revision) => self.store.update(Bucket::Sessions, &key, value.clone(), revision).await,
                None => self.store.create(Bucket::Sessions, &key, value.clone()).await,
            };
            match written {
                Ok(revision) => return Ok(revision),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Store(error)) => return Err(error.into()),
            }
            let there = self.store.get(Bucket::Sessions, &key).await?;
            if let Some(Entry { value, .. }) = &there {
                // What cannot be read is nobody's.
                let kept = Kept::read(&key, value).unwrap_or_default();
                self.may_replace(id, epoch, &kept).await?;
            }
            read = there.map(|there| there.revision);
        }
        Err(written_all_the_time(id).into())
    }

    /// The session of a stream that this process has claimed under `epoch` is over. That stays, for as long as a session does.
    ///
    /// # Errors
    /// [`Lost`].
    pub async fn end(&self, id: &StreamId, epoch: Epoch) -> Result<(), Lost> {
        self.keep(id, epoch, Map::new(), None).await.map(drop)
    }

    /// The session that the owner before has left of a stream that this process has just claimed under `epoch`, if it is not over.
    /// Whoever had the stream before cannot write it any more.
    ///
    /// # Errors
    /// [`Lost`]; also if what is there cannot be read.
    pub async fn take(&self, id: &StreamId, epoch: Epoch) -> Result<Option<Bytes>, Lost> {
        let key = Key::from(id);
        for _ in 0..ROUNDS_MAX {
            let Some(there) = self.store.get(Bucket::Sessions, &key).await? else {
                let nothing = encode(&Kept { claim_epoch: Some(epoch), ..Kept::default() });
                match self.store.create(Bucket::Sessions, &key, nothing).await {
                    Err(WriteError::Conflict) => continue,
                    Ok(_) | Err(WriteError::Store(_)) => return Ok(None),
                }
            };
            let kept = Kept::read(&key, &there.value)?;
            self.may_replace(id, epoch, &kept).await?;
            let is_over = kept.session.is_empty();
            let marked = encode(&Kept { claim_epoch: Some(epoch), ..kept });
            match self.store.update(Bucket::Sessions, &key, marked.clone(), there.revision).await {
                Err(WriteError::Conflict) => {}
                // What could not be marked is marked by what this process writes next.
                Ok(_) | Err(WriteError::Store(_)) => return Ok(Some(marked).filter(|_| !is_over)),
            }
        }
        Err(written_all_the_time(id).into())
    }

    async fn may_replace(&self, id: &StreamId, epoch: Epoch, kept: &Kept) -> Result<(), Lost> {
        // An owner of an earlier release says none.
        if kept.claim_epoch.is_some_and(|there| there <= epoch) {
            return Ok(());
        }
        match self.directory.find(id).await? {
            // The directory was lost since, with its revisions, and this was not.
            Some(entry) if entry.epoch == Some(epoch) && entry.holder == *self.directory.holder() => Ok(()),
            Some(entry) => Err(Lost::To(Box::new(entry))),
            None => Err(Lost::Forgotten),
        }
    }
}

fn written_all_the_time(id: &StreamId) -> StoreError {
    StoreError::Unreachable(format!("the session of {id} is written by others all the time"))
}
