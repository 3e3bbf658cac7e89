//! What the admin port tells of the cluster, as JSON: nodes, streams, events.

use std::time::Duration;

use cluster::{Fleet, Journal, Logged, Sequence, StoreError};
use edge::Site;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use hls::Catalog;
use media::StreamId;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::membership::Membership;

/// Of one answer.
const EVENTS_MAX: usize = 500;

/// Without a place to begin at, so many of the newest are told.
const EVENTS_RECENT: u64 = 100;

/// How long an answer waits for an event. Shorter than a connection may last.
const WAIT_MAX: Duration = Duration::from_secs(3);
const _: () = assert!(WAIT_MAX.as_millis() < crate::admin::CONNECTION_TIME_MAX.as_millis());

/// From one event to the next, once there was one: those that are there come at once.
const GATHER_MAX: Duration = Duration::from_millis(100);

pub(crate) struct Api {
    fleet: Fleet,
    journal: Journal,
    /// `None` on a node that nobody publishes to.
    published: Option<(Site, Catalog)>,
}

impl Api {
    pub(crate) fn new(membership: &Membership) -> Self {
        Self { fleet: membership.fleet.clone(), journal: membership.journal.clone(), published: None }
    }

    /// Tells more of the streams that are published to this node.
    #[must_use]
    pub(crate) fn with_published(mut self, site: Site, catalog: Catalog) -> Self {
        self.published = Some((site, catalog));
        self
    }

    #[cfg(test)]
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What is below `/api/v1`; `None` if there is no such thing.
    pub(crate) async fn answer(&self, path: &str, query: &str) -> Option<Value> {
        Some(match path {
            "/nodes" => {
                json!({ "this": self.fleet.directory().holder().node.as_str(), "nodes": self.fleet.nodes() })
            }
            "/streams" => {
                let own = self.fleet.directory().holder();
                let told = self.fleet.streams().into_iter().map(|(stream, entry)| {
                    let here = (entry.holder == *own).then(|| self.here(&stream)).flatten();
                    let mut told = json!(cluster::Named { stream, entry });
                    if let Some(here) = here {
                        told["here"] = here;
                    }
                    told
                });
                json!({ "streams": told.collect::<Vec<_>>() })
            }
            "/events" => json!({ "events": self.events(query).await }),
            _ => return None,
        })
    }

    /// What viewers' `/state` says of a stream, and its renditions, from memory.
    fn here(&self, id: &StreamId) -> Option<Value> {
        let (site, catalog) = self.published.as_ref()?;
        let mut here: Value = serde_json::from_slice(&site.state_json(Some(id))).ok()?;
        let index = catalog.get(id);
        let renditions = index.iter().flat_map(|index| index.renditions());
        let sizes = renditions.filter_map(|rendition| rendition.codec.dimensions());
        here["ladder"] = sizes.map(|(width, height)| json!({ "width": width, "height": height })).collect();
        Some(here)
    }

    /// What is behind event `after`, and then what happens, without an end. Without a place, or with one that the log has
    /// not come to (it has begun anew since), from some of the newest on.
    ///
    /// # Errors
    /// If the store is away.
    pub(crate) async fn follow(&self, after: Option<u64>) -> Result<BoxStream<'static, Logged>, StoreError> {
        let newest = self.journal.newest().await?.0;
        let after = after.filter(|after| *after <= newest);
        let after = after.unwrap_or_else(|| newest.saturating_sub(EVENTS_RECENT));
        Ok(self.journal.follow(Sequence(after)))
    }

    /// `after=N`: those behind event N, waited for if there are none yet.
    async fn events(&self, query: &str) -> Vec<Logged> {
        let after = match after(query) {
            Some(after) => after,
            // A store that is away has no events to tell.
            None => {
                self.journal.newest().await.map_or(u64::MAX, |newest| newest.0.saturating_sub(EVENTS_RECENT))
            }
        };
        if after == u64::MAX {
            return Vec::new();
        }
        let (mut told, mut events) = (Vec::new(), self.journal.follow(Sequence(after)));
        let mut until = Instant::now() + WAIT_MAX;
        while told.len() < EVENTS_MAX
            && let Ok(Some(logged)) = timeout_at(until, events.next()).await
        {
            told.push(logged);
            until = until.min(Instant::now() + GATHER_MAX);
        }
        told
    }
}

/// The event that `after=N` names.
pub(crate) fn after(query: &str) -> Option<u64> {
    query.split('&').find_map(|pair| pair.strip_prefix("after=")?.parse().ok())
}
