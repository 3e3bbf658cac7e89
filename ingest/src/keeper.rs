//! The only timer of the cutter: lets the sessions' clocks run on while no media comes.

use std::time::SystemTime;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Gate;

/// Runs until `stop`; then sessions stand still as they are, for the next process to go on with.
pub async fn keep(gate: Gate, stop: CancellationToken) {
    loop {
        let next = gate.tick(Instant::now().into_std(), SystemTime::now());
        tokio::select! {
            () = sleep_until(next.into()) => {}
            () = stop.cancelled() => return,
        }
    }
}
