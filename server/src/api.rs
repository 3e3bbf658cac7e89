//! What the admin port tells of the cluster, as JSON: nodes, streams, events.

use std::time::Duration;

use cluster::{Fleet, Journal, Logged, Sequence};
use futures_util::StreamExt;
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

#[derive(Clone)]
pub(crate) struct Api {
    fleet: Fleet,
    journal: Journal,
}

impl Api {
    pub(crate) fn new(membership: &Membership) -> Self {
        Self { fleet: membership.fleet.clone(), journal: membership.journal.clone() }
    }

    /// What is below `/api/v1`; `None` if there is no such thing.
    pub(crate) async fn answer(&self, path: &str, query: &str) -> Option<Value> {
        Some(match path {
            "/nodes" => json!({ "nodes": self.fleet.nodes() }),
            "/streams" => {
                let streams = self.fleet.streams().into_iter();
                let named = streams.map(|(stream, entry)| cluster::Named { stream, entry });
                json!({ "streams": named.collect::<Vec<_>>() })
            }
            "/events" => json!({ "events": self.events(query).await }),
            _ => return None,
        })
    }

    /// `after=N`: those behind event N, waited for if there are none yet.
    async fn events(&self, query: &str) -> Vec<Logged> {
        let after = query.split('&').find_map(|pair| pair.strip_prefix("after=")?.parse().ok());
        let after = match after {
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
