//! The only timer of the cutter: lets the sessions' clocks run on while no media comes.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::Gate;

/// How late a gap may be published: little against a part, and next to nothing as work.
const TICK: Duration = Duration::from_millis(100);

/// Runs until `stop`; then sessions stand still as they are, for the next process to go on with.
pub async fn keep(gate: Gate, stop: CancellationToken) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => gate.tick(Instant::now().into_std(), SystemTime::now()),
            () = stop.cancelled() => return,
        }
    }
}
