//! What follows from how this node stands: how much room it has, and whether its operator has drained it or is about to end it.
//!
//! ```text
//!   an order in the store ─┐
//!   SIGTERM ───────────────┤
//!   the node's load ───────┴▶ Standing ─▶ Doors ─▶ ingest::Gate, edge::Admission, WHEP viewers sent on
//! ```
//!
//! A node that is drained by order goes on running, and takes nothing new until the order is taken back. One that was told to end
//! (`shutdown.rs`) sends its viewers on first, for as long as they get, and lets publishers and encoders go on meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::Room;
use edge::{Admission, Neighbours, Takes, Whep};
use ingest::Gate;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// How often viewers by WebRTC are sent on, and how many at once: so many handshakes the other nodes can take beside what
/// they do already. Of 1,000 viewers the last one moves after 20 s.
const SEND_ON_EVERY: Duration = Duration::from_secs(1);
const SENT_ON_AT_ONCE: usize = 50;

/// Our page hears within 5 s that the node it asks for the state of the stream is drained, and goes within 4 s more
/// (`player-demo/src/watch/nodes.ts`): it opens a session elsewhere before it gives up the one here, and nobody sees it. Whoever is
/// left is sent on.
const LEFT_ALONE_FOR: Duration = Duration::from_secs(30);
/// Of the time there is before the node ends: the rest is for whoever has to be told to get there.
const LEFT_ALONE_SHARE: f64 = 0.8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// By an operator's order.
    pub(crate) drained: bool,
    /// Within so much time this node ends.
    pub(crate) leaves_within: Option<Duration>,
    pub(crate) room: Room,
}

impl Standing {
    /// Whoever is here is to go, and nobody new comes.
    pub(crate) fn is_draining(self) -> bool {
        self.drained || self.leaves_within.is_some()
    }

    /// What is told of a node that was told to end, after its name.
    pub(crate) fn ending(self) -> &'static str {
        if self.leaves_within.is_some() && !self.drained {
            "is about to end: viewers are sent to other nodes first, and publishers are let in until then"
        } else {
            "takes nothing new, and is about to end"
        }
    }

    fn left_alone_for(self) -> Duration {
        let within = self.leaves_within.map(|within| within.mul_f64(LEFT_ALONE_SHARE));
        within.map_or(LEFT_ALONE_FOR, |within| within.min(LEFT_ALONE_FOR))
    }

    /// Which viewers this node takes.
    fn takes(self) -> Takes {
        match (self.room, self.is_draining()) {
            (Room::Plenty, false) => Takes::Everybody,
            // Who finds no other node is better off here than nowhere.
            (Room::Plenty, true) | (Room::Little, _) => Takes::WhoeverIsLeft,
            (Room::Scarce, _) => Takes::LowerOnly,
            (Room::None, _) => Takes::Nobody,
        }
    }
}

/// Where publishers and viewers come in.
pub(crate) struct Doors {
    /// `None` where nobody publishes.
    pub(crate) gate: Option<Gate>,
    pub(crate) admission: Admission,
    pub(crate) whep: Whep,
    /// `None` if there are no other nodes.
    pub(crate) neighbours: Option<Arc<dyn Neighbours>>,
}

impl Doors {
    /// Opens and shuts them as the node stands, until `stop`.
    pub(crate) async fn keep(self, mut standing: watch::Receiver<Standing>, stop: CancellationToken) {
        let (mut drained_at, mut is_shut) = (None, false);
        loop {
            let now = *standing.borrow_and_update();
            self.admission.set(now.takes());
            let is_draining = now.is_draining();
            if is_draining != drained_at.is_some() {
                drained_at = is_draining.then(Instant::now);
                self.admission.set_drained(is_draining);
            }
            // Not while viewers leave: they watch on elsewhere what is published here until the end.
            if let Some(gate) = self.gate.as_ref().filter(|_| now.drained != is_shut) {
                is_shut = now.drained;
                if is_shut { gate.shut() } else { gate.open() }
            }
            if drained_at.is_some_and(|at| at.elapsed() >= now.left_alone_for()) {
                self.send_on();
            }
            tokio::select! {
                changed = standing.changed() => if changed.is_err() {
                    return;
                },
                () = sleep(SEND_ON_EVERY), if is_draining => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Those who have somewhere to go.
    fn send_on(&self) {
        let Some(neighbours) = &self.neighbours else { return };
        let mut known = HashMap::new();
        let sent = self.whep.send_on(SENT_ON_AT_ONCE, |id| {
            *known.entry(id.clone()).or_insert_with(|| neighbours.other_with_room(id).is_some())
        });
        if sent > 0 {
            info!(viewers = sent, "viewers by WebRTC are sent to other nodes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drained_node_takes_whoever_is_left_and_a_full_one_nobody() {
        let takes = |room, drained| Standing { drained, room, ..Standing::default() }.takes();
        assert_eq!(takes(Room::Plenty, false), Takes::Everybody);
        assert_eq!(takes(Room::Plenty, true), Takes::WhoeverIsLeft);
        assert_eq!(takes(Room::Little, false), Takes::WhoeverIsLeft);
        for drained in [false, true] {
            assert_eq!(takes(Room::Scarce, drained), Takes::LowerOnly);
            assert_eq!(takes(Room::None, drained), Takes::Nobody);
        }
    }

    #[test]
    fn a_node_that_is_about_to_end_is_as_one_that_is_drained_and_tells_the_last_before_it_ends() {
        let within = Duration::from_secs(15);
        let leaving = Standing { leaves_within: Some(within), ..Standing::default() };
        assert!(leaving.is_draining() && leaving.takes() == Takes::WhoeverIsLeft);
        assert_eq!(leaving.left_alone_for(), Duration::from_secs(12));
        let long = Standing { leaves_within: Some(Duration::from_secs(300)), ..Standing::default() };
        assert_eq!(long.left_alone_for(), LEFT_ALONE_FOR);
        assert_eq!(Standing { drained: true, ..Standing::default() }.left_alone_for(), LEFT_ALONE_FOR);
    }
}
