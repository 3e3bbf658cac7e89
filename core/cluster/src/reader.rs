//! Who reads the log of events under a name, and how far: one that was away goes on there, at whichever node it asks.
//!
//! A value for each, moved by whoever has read on from where it was. It is no consumer of JetStream: what such a one has given
//! out and hears nothing of, it gives out again only after a while, behind newer events.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::{decode, encode};
use crate::store::{Bucket, Key, Sequence, Store, StoreError, WriteError};

/// Programs of operators; each is a value in the store.
pub const READERS_MAX: usize = 100;

const NAME_BYTES_MAX: usize = 64;

/// A reader that asks and is told nothing new is put again so often, so that it is not forgotten.
const PUT_EVERY: Duration = Duration::from_secs(24 * 3600);

/// As many as of the directory: of several who write at once somebody has won each time.
const ROUNDS_MAX: usize = 16;

/// `[A-Za-z0-9_-]{1,64}`: as it is, a key in the store and a part of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderName(String);

/// Why a text is none. Whoever reads chooses another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a reader has 1 to {NAME_BYTES_MAX} letters, digits, '-' and '_'")]
pub struct ReaderNameError;

impl FromStr for ReaderName {
    type Err = ReaderNameError;

    fn from_str(text: &str) -> Result<Self, ReaderNameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
        if is_name { Ok(Self(text.to_owned())) } else { Err(ReaderNameError) }
    }
}

impl fmt::Display for ReaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// That a reader has all events up to `to`, and had those up to `from` before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    pub from: Sequence,
    pub to: Sequence,
    /// Which process says so. The same one may say it again, as when the answer was lost; another one is told of this one.
    #[serde(default)]
    pub by: String,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcknowledgeError {
    /// Whoever was later stops, or reads under another name.
    #[error(
        "{name} has events up to {at} already, where this reader has those up to {from}: another process reads under that name"
    )]
    Elsewhere { name: ReaderName, at: Sequence, from: Sequence },
    #[error("event {to} is not in the log yet, whose newest is {newest}")]
    Ahead { to: Sequence, newest: Sequence },
    #[error(
        "there are {READERS_MAX} readers already, as many as may be; one that does not read for 7 days is forgotten"
    )]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// As in the store.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    last: Acknowledgement,
    /// In milliseconds since the Unix epoch.
    put_ms: i64,
}

impl Kept {
    fn now(last: Acknowledgement) -> Self {
        Self { last, put_ms: crate::now_ms() }
    }
}

/// The readers of the cluster's log. Cloning shares them.
#[derive(Clone)]
pub struct Readers {
    store: Arc<dyn Store>,
}

impl Readers {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// What it has acknowledged last; `None` of one that is not known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn place(&self, name: &ReaderName) -> Result<Option<Sequence>, StoreError> {
        let key = Key::from(name);
        let Some(there) = self.store.get(Bucket::Readers, &key).await? else { return Ok(None) };
        let kept: Kept = decode(&key, &there.value)?;
        let at = kept.last.to;
        if u128::try_from(crate::now_ms().saturating_sub(kept.put_ms))
            .is_ok_and(|age_ms| age_ms >= PUT_EVERY.as_millis())
        {
            let again = encode(&Kept::now(kept.last));
            // Whoever was quicker has put it as well, and a store that is away is told the next time.
            let _put = self.store.update(Bucket::Readers, &key, again, there.revision).await;
        }
        Ok(Some(at))
    }

    /// Moves a reader. From one place to the same one, it makes it known where it begins, or does nothing.
    ///
    /// # Errors
    /// [`AcknowledgeError`].
    pub async fn acknowledge(
        &self,
        name: &ReaderName,
        moved: &Acknowledgement,
    ) -> Result<(), AcknowledgeError> {
        let newest = self.store.newest().await?;
        if moved.to > newest {
            return Err(AcknowledgeError::Ahead { to: moved.to, newest });
        }
        let key = Key::from(name);
        let value = encode(&Kept::now(moved.clone()));
        for _ in 0..ROUNDS_MAX {
            let written = match self.store.get(Bucket::Readers, &key).await? {
                None => {
                    if self.store.count(Bucket::Readers).await? >= READERS_MAX {
                        return Err(AcknowledgeError::TooMany);
                    }
                    self.store.create(Bucket::Readers, &key, value.clone()).await
                }
                Some(there) => {
                    let kept: Kept = decode(&key, &there.value)?;
                    if kept.last == *moved {
                        return Ok(());
                    }
                    let (at, from) = (kept.last.to, moved.from);
                    if at != from {
                        return Err(AcknowledgeError::Elsewhere { name: name.clone(), at, from });
                    }
                    self.store.update(Bucket::Readers, &key, value.clone(), there.revision).await
                }
            };
            match written {
                Ok(_) => return Ok(()),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Store(error)) => return Err(error.into()),
            }
        }
        let words = format!("the place of the reader {name} is written by others all the time");
        Err(StoreError::Unreachable(words).into())
    }
}

impl From<&ReaderName> for Key {
    fn from(name: &ReaderName) -> Self {
        Self::of_checked(&name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threat: a name that is a wildcard, another level, or no part of a path.
    #[test]
    fn names_that_could_mean_something_else_are_refused() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "*", ">", "a.b", "a/b", "..", "a b", "a\n", "%2e", "é", "a=b", "$KV", &long] {
            assert_eq!(bad.parse::<ReaderName>(), Err(ReaderNameError), "{bad:?}");
        }
        for good in ["a", "Mail_2-x", "7", &long[1..]] {
            assert_eq!(good.parse::<ReaderName>().unwrap().to_string(), good);
        }
    }
}
