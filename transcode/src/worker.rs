//! Claims the rungs of every stream of this process, and makes them.

use std::sync::Arc;

use media::{SessionId, TrackKind};
use relay::{Stream, StreamRecord, StreamRegistry, TrackWriter};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use crate::budget::Budget;
use crate::child::Encoders;
use crate::metrics::Metrics;
use crate::order::Order;
use crate::task::Task;

/// The transcode role.
#[derive(Clone)]
pub struct Worker {
    registry: StreamRegistry,
    encoders: Encoders,
    budget: Budget,
    metrics: Metrics,
}

impl Worker {
    pub fn new(registry: StreamRegistry, encoders: Encoders, budget: Budget, metrics: Metrics) -> Self {
        Self { registry, encoders, budget, metrics }
    }

    /// Runs until `stop`; then children are killed, and the rungs end: whoever packages them should have stopped before.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let mut streams = self.registry.watch();
        let mut known: Vec<SessionId> = Vec::new();
        loop {
            let now = streams.borrow_and_update().clone();
            for stream in now.values().filter(|stream| !known.contains(&stream.session())) {
                let span = info_span!("transcode", stream.id = %stream.id(), session = %stream.session());
                tasks.spawn(self.clone().serve(stream.clone(), stop.clone()).instrument(span));
            }
            known = now.values().map(|stream| stream.session()).collect();
            tokio::select! {
                changed = streams.changed() => if changed.is_err() { break },
                () = stop.cancelled() => break,
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// One stream, from the opening of its log on.
    async fn serve(self, stream: Arc<Stream>, stop: CancellationToken) {
        let mut record = stream.record();
        // Closes when the publisher leaves before its log opened.
        let opened = tokio::select! {
            opened = record.wait_for(Option::is_some) => opened.ok().and_then(|record| record.clone()),
            () = stop.cancelled() => return,
        };
        let Some(record) = opened else { return };
        let jobs = TaskTracker::new();
        for (order, writers) in orders(&record, stream.claim()) {
            let Some(track) = stream.tracks().iter().find(|track| track.record().id == order.from) else {
                continue;
            };
            let span = info_span!("job", kind = ?order.kind);
            // Sound has a keyframe in each frame, and who watches on demand says so itself.
            let reads_segments = order.kind == TrackKind::Video && !order.on_demand;
            let reads = reads_segments.then(|| stream.segments().hold());
            let (encoders, budget) = (self.encoders.clone(), self.budget.clone());
            let task = Task::new(order, track.clone(), writers, encoders, budget, &self.metrics, stream.id());
            let run = stop.clone().run_until_cancelled_owned(task.run());
            jobs.spawn(
                async move {
                    let _reads = reads;
                    run.await
                }
                .instrument(span),
            );
        }
        jobs.close();
        jobs.wait().await;
    }
}

/// Each order with the writers of its tracks, in its order.
fn orders(record: &StreamRecord, mut writers: Vec<TrackWriter>) -> Vec<(Order, Vec<TrackWriter>)> {
    let orders = Order::all(record).into_iter().filter_map(|order| {
        let claimed = order.tracks.iter().filter_map(|track| {
            let place = writers.iter().position(|writer| writer.record().id == track.id)?;
            Some(writers.swap_remove(place))
        });
        let claimed: Vec<_> = claimed.collect();
        (claimed.len() == order.tracks.len()).then_some((order, claimed))
    });
    orders.collect()
}
