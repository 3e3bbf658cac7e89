//! Streams that an audience is expected of are opened here before it comes: thousands who find an edge cold at once wait
//! for its first answer from the origin, and those of a second edge when the first is full, again.

use std::time::Duration;

use cluster::{Expected, Fleet};
use edge::Puller;
use futures_util::future::join_all;
use relay::wire::Hops;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::now_ms;

/// How long before its time. The first part is there within seconds; clocks of two machines differ.
const AHEAD_MS: i64 = 60_000;

/// Who has not come by then does not: what nobody took back is forgotten.
const OPEN_MS: i64 = 6 * 3_600 * 1_000;

/// More often than a stream that nobody watches is let go, and a name that is unknown may be asked for.
const OPEN_EVERY: Duration = Duration::from_secs(2);

/// Opens what is expected at this node, again and again, until `stop`.
pub(crate) async fn open_ahead(fleet: &Fleet, puller: &Puller, stop: CancellationToken) {
    let own = fleet.directory().holder().node.clone();
    let mut round = interval(OPEN_EVERY);
    round.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let opening = async {
        loop {
            round.tick().await;
            let (expected, now_ms) = (fleet.expected(), now_ms());
            let here =
                expected.iter().filter(|expected| is_due(expected, now_ms) && expected.edges.contains(&own));
            // In vain while nobody publishes it; then it is tried again.
            let opened = here.map(|expected| puller.join(&expected.stream, Hops::default()));
            drop(join_all(opened).await);
        }
    };
    tokio::select! {
        () = opening => {}
        () = stop.cancelled() => {}
    }
}

fn is_due(expected: &Expected, now_ms: i64) -> bool {
    now_ms.saturating_add(AHEAD_MS) >= expected.at_ms && now_ms < expected.at_ms.saturating_add(OPEN_MS)
}

#[cfg(test)]
mod tests {
    use media::StreamId;

    use super::*;

    #[test]
    fn a_minute_before_its_time_a_stream_is_opened() {
        let stream = StreamId::new("live", "cam").unwrap();
        let expected = Expected { stream, viewers: 5, at_ms: 1_000_000, edges: Vec::new() };
        assert!(!is_due(&expected, 939_999));
        assert!(is_due(&expected, 940_000) && is_due(&expected, 2_000_000));
        assert!(!is_due(&expected, 1_000_000 + OPEN_MS));
    }
}
