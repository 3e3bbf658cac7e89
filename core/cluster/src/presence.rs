//! A node tells that it is there, again and again, until it says goodbye.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::node::{Node, encode};
use crate::store::{Bucket, Store, StoreError};

/// How often a node tells that it is there.
pub const HEARTBEAT: Duration = Duration::from_secs(3);
/// A node that was not heard for so long gets nothing new.
pub const SILENCE_SUSPECT: Duration = Duration::from_secs(9);
/// A node that was not heard for so long is dead. Longer than an election of JetStream takes (up to 9 s), during which nobody is.
pub const SILENCE_DEAD: Duration = Duration::from_secs(20);

const _: () = assert!(HEARTBEAT.as_millis() * 3 <= SILENCE_SUSPECT.as_millis());

/// Tells of one node.
pub struct Presence<F> {
    store: Arc<dyn Store>,
    /// The node as it is now.
    look: F,
    /// Something that others have to know at once.
    news: Arc<Notify>,
}

impl<F: FnMut() -> Node + Send> Presence<F> {
    pub fn new(store: Arc<dyn Store>, look: F, news: Arc<Notify>) -> Self {
        Self { store, look, news }
    }

    /// Until `stop`; then says goodbye, so that nobody waits for the silence to be long enough.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lost = None;
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = self.news.notified() => {}
                () = stop.cancelled() => break,
            }
            let node = (self.look)();
            let told = self.store.put(Bucket::Nodes, &node.key(), encode(&node)).await;
            match (told, lost.take()) {
                (Ok(_), None) => {}
                (Ok(_), Some(_)) => info!("the cluster's store is back"),
                (Err(StoreError::Unfit(why)), before) => {
                    if !matches!(&before, Some(StoreError::Unfit(said)) if *said == why) {
                        error!("this node works alone until the cluster's store is mended: {why}");
                    }
                    lost = Some(StoreError::Unfit(why));
                }
                (Err(error), before) => {
                    if before.is_none() {
                        warn!("this node plays on with what it knows: {error}");
                    }
                    // Between two looks at one that is unfit, it may be away for a moment.
                    lost = before.or(Some(error));
                }
            }
        }
        let node = (self.look)();
        // The newest, unless another process of this name is there already.
        if let Ok(Some(entry)) = self.store.get(Bucket::Nodes, &node.key()).await
            && serde_json::from_slice::<Node>(&entry.value).is_ok_and(|told| told.boot == node.boot)
        {
            let _ = self.store.delete(Bucket::Nodes, &node.key(), entry.revision).await;
        }
    }
}
