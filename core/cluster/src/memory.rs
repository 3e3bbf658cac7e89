//! The store of a cluster of one: what is in this process, for as long as it runs.

use std::collections::{BTreeMap, VecDeque};
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::store::{
    Bucket, Change, EVENTS_AGE_MAX, Entry, Key, Revision, Sequence, Store, StoreError, Told, WriteError,
};

/// Events kept: days of an ordinary node.
const EVENTS_MAX: usize = 10_000;

/// Keys whose deletion is remembered, for watchers that have not heard of it.
const DELETED_MAX: usize = 1_000;

/// Cloning shares it.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Sent to at every write.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    buckets: BTreeMap<&'static str, Values>,
    events: VecDeque<Appended>,
    appended: u64,
}

struct Appended {
    sequence: Sequence,
    id: String,
    value: Bytes,
    at: Instant,
    /// In milliseconds since the Unix epoch.
    at_ms: u64,
}

impl State {
    fn forget_events(&mut self) {
        let is_old = |event: &Appended| event.at.elapsed() >= EVENTS_AGE_MAX;
        while self.events.len() > EVENTS_MAX || self.events.front().is_some_and(is_old) {
            self.events.pop_front();
        }
    }
}

#[derive(Default)]
struct Values {
    values: BTreeMap<Key, Value>,
    written: u64,
}

struct Value {
    revision: Revision,
    /// `None`: deleted.
    bytes: Option<Bytes>,
    at: Instant,
}

impl Default for Memory {
    fn default() -> Self {
        let shared = Shared { state: Mutex::default(), changed: watch::Sender::new(()) };
        Self { shared: Arc::new(shared) }
    }
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes if `may` says so of what is there.
    fn write(
        &self,
        bucket: Bucket,
        key: &Key,
        value: Option<Bytes>,
        may: impl FnOnce(Option<Entry>) -> bool,
    ) -> Result<Revision, WriteError> {
        let mut state = self.lock();
        let values = state.buckets.entry(bucket.name()).or_default();
        if let Some(age_max) = bucket.age_max() {
            values.values.retain(|_, value| value.at.elapsed() < age_max);
        }
        if !may(values.get(bucket, key)) {
            return Err(WriteError::Conflict);
        }
        values.written += 1;
        let revision = Revision(values.written);
        values.values.insert(key.clone(), Value { revision, bytes: value, at: Instant::now() });
        values.forget();
        drop(state);
        self.shared.changed.send_replace(());
        Ok(revision)
    }
}

impl Values {
    fn get(&self, bucket: Bucket, key: &Key) -> Option<Entry> {
        let value = self.values.get(key)?;
        let is_old = bucket.age_max().is_some_and(|age_max| value.at.elapsed() >= age_max);
        let bytes = value.bytes.clone().filter(|_| !is_old)?;
        Some(Entry { value: bytes, revision: value.revision })
    }

    fn forget(&mut self) {
        let deleted = self.values.iter().filter(|(_, value)| value.bytes.is_none());
        if deleted.clone().count() > DELETED_MAX {
            let oldest = deleted.min_by_key(|(_, value)| value.revision).map(|(key, _)| key.clone());
            oldest.map(|key| self.values.remove(&key));
        }
    }

    fn since(&self, seen: Revision) -> Vec<Change> {
        let newer = self.values.iter().filter(|(_, value)| value.revision > seen);
        let change = |(key, value): (&Key, &Value)| Change {
            key: key.clone(),
            value: value.bytes.clone(),
            revision: value.revision,
        };
        let mut changes: Vec<_> = newer.map(change).collect();
        changes.sort_by_key(|change| change.revision);
        changes
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, bucket: Bucket, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.lock().buckets.get(bucket.name()).and_then(|values| values.get(bucket, key)))
    }

    async fn put(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        match self.write(bucket, key, Some(value), |_| true) {
            Ok(revision) => Ok(revision),
            Err(WriteError::Store(error)) => Err(error),
            Err(WriteError::Conflict) => unreachable!("whatever is there may be replaced"),
        }
    }

    async fn create(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, WriteError> {
        self.write(bucket, key, Some(value), |there| there.is_none())
    }

    async fn update(
        &self,
        bucket: Bucket,
        key: &Key,
        value: Bytes,
        read: Revision,
    ) -> Result<Revision, WriteError> {
        self.write(bucket, key, Some(value), |there| there.is_some_and(|there| there.revision == read))
    }

    async fn delete(&self, bucket: Bucket, key: &Key, read: Revision) -> Result<(), WriteError> {
        self.write(bucket, key, None, |there| there.is_some_and(|there| there.revision == read)).map(drop)
    }

    async fn count(&self, bucket: Bucket) -> Result<usize, StoreError> {
        let state = self.lock();
        let Some(values) = state.buckets.get(bucket.name()) else { return Ok(0) };
        Ok(values.values.keys().filter(|key| values.get(bucket, key).is_some()).count())
    }

    fn watch(&self, bucket: Bucket) -> BoxStream<'static, Told> {
        let (memory, changed) = (self.clone(), self.shared.changed.subscribe());
        let batches =
            stream::unfold((memory, changed, Revision(0)), move |(memory, mut changed, seen)| async move {
                loop {
                    changed.mark_unchanged();
                    let changes = memory.lock().buckets.get(bucket.name()).map(|values| values.since(seen));
                    if let Some(newest) =
                        changes.as_ref().and_then(|changes| changes.last()).map(|last| last.revision)
                    {
                        return Some((changes.unwrap_or_default(), (memory, changed, newest)));
                    }
                    changed.changed().await.ok()?;
                }
            });
        stream::once(ready(Told::Anew)).chain(batches.flat_map(stream::iter).map(Told::Changed)).boxed()
    }

    async fn append(&self, _: &'static str, id: String, value: Bytes) -> Result<Sequence, StoreError> {
        let mut state = self.lock();
        if let Some(there) = state.events.iter().rev().find(|event| event.id == id) {
            return Ok(there.sequence);
        }
        state.appended += 1;
        let sequence = Sequence(state.appended);
        let at_ms = u64::try_from(crate::now_ms()).unwrap_or_default();
        state.events.push_back(Appended { sequence, id, value, at: Instant::now(), at_ms });
        state.forget_events();
        drop(state);
        self.shared.changed.send_replace(());
        Ok(sequence)
    }

    fn follow(&self, after: Sequence) -> BoxStream<'static, (Sequence, Bytes)> {
        let (memory, changed) = (self.clone(), self.shared.changed.subscribe());
        let events = stream::unfold((memory, changed, after), |(memory, mut changed, after)| async move {
            loop {
                changed.mark_unchanged();
                let next = {
                    let mut state = memory.lock();
                    state.forget_events();
                    let at = state.events.partition_point(|event| event.sequence <= after);
                    state.events.get(at).map(|event| (event.sequence, event.value.clone()))
                };
                if let Some((sequence, value)) = next {
                    return Some(((sequence, value), (memory, changed, sequence)));
                }
                changed.changed().await.ok()?;
            }
        });
        events.boxed()
    }

    async fn newest(&self) -> Result<Sequence, StoreError> {
        Ok(Sequence(self.lock().appended))
    }

    async fn before(&self, at_ms: u64) -> Result<Sequence, StoreError> {
        let mut state = self.lock();
        state.forget_events();
        let first = state.events.iter().find(|event| event.at_ms >= at_ms);
        Ok(Sequence(first.map_or(state.appended, |first| first.sequence.0 - 1)))
    }
}
