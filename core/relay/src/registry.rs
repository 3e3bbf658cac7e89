//! The streams being published on this node.

use std::collections::HashMap;
use std::sync::Arc;

use media::{SessionId, StreamId};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::stream::{Stream, StreamWriter};

/// A snapshot: who is published right now.
pub type Streams = Arc<HashMap<StreamId, Arc<Stream>>>;

/// Owner of the list of streams. Cloning shares it.
#[derive(Clone)]
pub struct StreamRegistry {
    streams: watch::Sender<Streams>,
    metrics: Metrics,
}

/// The name is in use; the newcomer must take another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is already being published")]
pub struct Taken;

impl Default for StreamRegistry {
    fn default() -> Self {
        Self::new(Metrics::default())
    }
}

impl StreamRegistry {
    pub fn new(metrics: Metrics) -> Self {
        Self { streams: watch::Sender::new(Streams::default()), metrics }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Reserves `id` and makes the stream known; its log opens later.
    ///
    /// # Errors
    /// [`Taken`] while another publisher has it.
    pub fn open(&self, id: StreamId, session: SessionId) -> Result<StreamWriter, Taken> {
        let mut writer = None;
        self.streams.send_if_modified(|streams| {
            if streams.contains_key(&id) {
                return false;
            }
            let opened = writer.insert(StreamWriter::new(id.clone(), session, self.clone()));
            Arc::make_mut(streams).insert(id, opened.stream().clone());
            true
        });
        writer.ok_or(Taken)
    }

    /// In place of whatever has its name.
    pub(crate) fn replace(&self, stream: Arc<Stream>) {
        self.streams.send_modify(|streams| {
            Arc::make_mut(streams).insert(stream.id().clone(), stream);
        });
    }

    /// Unless another has its name by now.
    pub(crate) fn close(&self, stream: &Arc<Stream>) {
        self.streams.send_if_modified(|streams| {
            let is_listed = streams.get(stream.id()).is_some_and(|listed| Arc::ptr_eq(listed, stream));
            is_listed && Arc::make_mut(streams).remove(stream.id()).is_some()
        });
    }

    pub fn get(&self, id: &StreamId) -> Option<Arc<Stream>> {
        self.streams.borrow().get(id).cloned()
    }

    /// The list as it is now.
    pub fn streams(&self) -> Streams {
        self.streams.borrow().clone()
    }

    /// The list, and its changes.
    pub fn watch(&self) -> watch::Receiver<Streams> {
        self.streams.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_until_its_publisher_leaves() {
        let registry = StreamRegistry::default();
        let id = StreamId::new("live", "cam").unwrap();
        let first = registry.open(id.clone(), SessionId::from_random(1)).unwrap();
        assert_eq!(registry.open(id.clone(), SessionId::from_random(2)).err(), Some(Taken));
        assert_eq!(registry.get(&id).unwrap().session(), SessionId::from_random(1));
        drop(first);
        assert!(registry.get(&id).is_none());
        assert!(registry.open(id, SessionId::from_random(3)).is_ok());
    }
}
