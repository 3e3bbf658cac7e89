//! Origins apart from the nodes that take publishers: what such an origin keeps at the ready, and what is said where there is none.
//!
//! ```text
//!   publisher ─▶ ingest ─┬▶ origin that is read   ─▶ edges
//!                        └▶ origin that stands by ─▶ edges, when the first is gone
//! ```
//!
//! Both follow the stream in the same way, as any node follows another: so both have the same parts and frames under the same numbers,
//! and an edge goes on at either where it was.

use std::collections::HashMap;

use cluster::place::ORIGINS_READY;
use cluster::{Fleet, Role, StreamPhase};
use edge::Puller;
use media::{NodeId, StreamId};
use relay::StreamRegistry;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::route::LOOK_EVERY;

pub(crate) const NO_ORIGIN: &str = "no node of the cluster is an origin: start one with `--roles origin`";

/// Keeps what this node is an origin of, until `stop`.
pub(crate) async fn keep_ready(fleet: &Fleet, puller: &Puller, stop: CancellationToken) {
    let own = fleet.directory().holder().node.clone();
    let mut kept = HashMap::<StreamId, AbortOnDropHandle<()>>::new();
    let mut changed = fleet.changed();
    let keeping = async {
        loop {
            changed.borrow_and_update();
            let due = due(fleet, &own);
            kept.retain(|id, _| due.contains(id));
            for id in due {
                kept.entry(id).or_insert_with_key(|id| {
                    let (puller, id) = (puller.clone(), id.clone());
                    AbortOnDropHandle::new(tokio::spawn(async move { puller.keep(&id).await }))
                });
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
            sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = stop.cancelled() => {}
    }
}

/// Streams of which this node is one of the first origins.
fn due(fleet: &Fleet, own: &NodeId) -> Vec<StreamId> {
    let streams = fleet.streams().into_iter();
    let live =
        streams.filter(|(_, entry)| matches!(entry.phase, StreamPhase::Live | StreamPhase::Interrupted));
    let due = live.filter(|(id, entry)| {
        // Nobody takes back the claim of a node that is gone.
        let holder = fleet.node(&entry.holder.node).filter(|node| node.boot == entry.holder.boot);
        let is_apart = holder.is_some_and(|node| !node.has(Role::Origin));
        is_apart && fleet.origins(id).iter().take(ORIGINS_READY).any(|origin| origin.node == *own)
    });
    due.map(|(id, _)| id).collect()
}

/// Says so if there are `streams` here and no origin for them, until `stop`. Of a node that only takes publishers.
pub(crate) async fn miss(fleet: &Fleet, streams: &StreamRegistry, stop: CancellationToken) {
    let own = fleet.directory().holder().node.clone();
    let watching = async {
        fleet.wait_for(&own).await;
        let (mut changed, mut published) = (fleet.changed(), streams.watch());
        let mut is_missed = false;
        loop {
            changed.borrow_and_update();
            let first = published.borrow_and_update().keys().next().cloned();
            if let Some(id) = first {
                let has_none = fleet.origins(&id).is_empty();
                if has_none && !is_missed {
                    warn!("what is published here can be watched at no edge: {NO_ORIGIN}");
                } else if is_missed && !has_none {
                    info!("there is an origin for what is published here");
                }
                is_missed = has_none;
            }
            tokio::select! {
                Ok(()) = changed.changed() => sleep(LOOK_EVERY).await,
                Ok(()) = published.changed() => {}
                else => return std::future::pending().await,
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = stop.cancelled() => {}
    }
}
