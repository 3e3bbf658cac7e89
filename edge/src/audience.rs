//! How many watch each stream by WebRTC. Those by HLS are estimated from what they ask for, by `hls`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hls::StreamIndex;
use media::StreamId;

/// Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Audience(Arc<Mutex<HashMap<StreamId, u32>>>);

/// One viewer, counted until dropped.
#[derive(Debug)]
pub(crate) struct Present {
    audience: Audience,
    id: StreamId,
}

impl Audience {
    pub(crate) fn enter(&self, id: &StreamId) -> Present {
        self.change(|viewers| *viewers.entry(id.clone()).or_default() += 1);
        Present { audience: self.clone(), id: id.clone() }
    }

    /// Viewers of each stream that has any.
    pub fn all(&self) -> HashMap<StreamId, u32> {
        self.change(|viewers| viewers.clone())
    }

    /// All viewers of a stream; `index` is its HLS, if there is any.
    pub(crate) fn with_hls(&self, id: &StreamId, index: Option<&StreamIndex>) -> u32 {
        let by_webrtc = self.change(|viewers| viewers.get(id).copied().unwrap_or_default());
        let by_hls = index.map_or(0, |index| index.status().viewers);
        by_webrtc.saturating_add(by_hls)
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<StreamId, u32>) -> T) -> T {
        // Nothing panics between two changes that belong together.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Present {
    /// That is watched.
    pub(crate) fn stream(&self) -> &StreamId {
        &self.id
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.audience.change(|viewers| {
            if let Some(count) = viewers.get_mut(&self.id) {
                *count -= 1;
                if *count == 0 {
                    viewers.remove(&self.id);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_nobody_watches_any_more_is_forgotten() {
        let audience = Audience::default();
        let id = StreamId::new("live", "cam").unwrap();
        let (first, second) = (audience.enter(&id), audience.enter(&id));
        assert_eq!(audience.with_hls(&id, None), 2);
        drop(first);
        assert_eq!(audience.with_hls(&id, None), 1);
        drop(second);
        assert_eq!((audience.with_hls(&id, None), audience.all().len()), (0, 0));
    }
}
