//! Encoders of other nodes: which node is asked for one, and how.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster::{Fleet, Role, Seen, State};
use http::StatusCode;
use media::NodeId;
use relay::wire::ENCODE;
use relay::{Dialer, Upstream, UpstreamError};
use tokio::time::timeout;
use tracing::info;
use transcode::workers::{Connection, Refusal, Taking, Workers, protocol};

/// For a worker to answer: a stopped one is not waited for, since the job is with nobody meanwhile.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

/// One that did not answer is asked last for so long; by then the others know that it is suspect.
const SHUNNED_FOR: Duration = Duration::from_secs(15);

/// Of a large fleet. What they are believed to have free is a few seconds old.
const ASKED_MAX: usize = 4;

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct FleetWorkers {
    fleet: Fleet,
    own: NodeId,
    zone: String,
    dialer: Dialer,
    shunned: Arc<Mutex<HashMap<NodeId, Instant>>>,
}

impl FleetWorkers {
    pub(crate) fn new(fleet: Fleet, own: NodeId, zone: String, dialer: Dialer) -> Self {
        Self { fleet, own, zone, dialer, shunned: Arc::default() }
    }

    /// Those that take jobs, the best first.
    fn ranked(&self, cost: f64) -> Vec<(NodeId, Upstream)> {
        let now = Instant::now();
        let mut shunned = self.shunned();
        shunned.retain(|_, until| *until > now);
        let mut workers: Vec<_> =
            self.fleet.nodes().into_iter().filter(|seen| lends(seen, &self.own)).collect();
        workers.sort_by(|one, other| {
            let order = |seen: &Seen| {
                let has_room = seen.node.load.encode_free >= cost;
                (shunned.contains_key(&seen.node.id), !has_room, seen.node.zone != self.zone)
            };
            let free = |seen: &Seen| seen.node.load.encode_free;
            order(one).cmp(&order(other)).then(free(other).total_cmp(&free(one)))
        });
        let known = workers.into_iter().filter_map(|seen| {
            let url = seen.node.relay.as_ref()?.parse().ok()?;
            Some((seen.node.id, self.dialer.at(url)))
        });
        known.take(ASKED_MAX).collect()
    }

    async fn find(self, cost: f64) -> Result<Box<dyn Connection>, Refusal> {
        let (mut reasons, mut is_there) = (Vec::new(), false);
        for (node, worker) in self.ranked(cost) {
            let path = format!("{ENCODE}?cost={cost:.3}");
            let answer = timeout(ANSWER_MAX, worker.upgrade(&path, &protocol())).await;
            match answer.unwrap_or_else(|_| Err(UpstreamError::TimedOut { url: worker.url().clone() })) {
                Ok(connection) => {
                    info!(node.id = %node, "encodes for this one");
                    return Ok(Box::new(connection));
                }
                Err(UpstreamError::Refused { status: StatusCode::SERVICE_UNAVAILABLE, why }) => {
                    is_there = true;
                    reasons.push(format!("{node}: {why}"));
                }
                Err(error) => {
                    self.shunned().insert(node.clone(), Instant::now() + SHUNNED_FOR);
                    reasons.push(format!("{node}: {error}"));
                }
            }
        }
        Err(if is_there { Refusal::Full { reasons } } else { Refusal::Nobody { reasons } })
    }

    fn shunned(&self) -> MutexGuard<'_, HashMap<NodeId, Instant>> {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lends(seen: &Seen, own: &NodeId) -> bool {
    let Seen { node, state, .. } = seen;
    node.id != *own && node.has(Role::Transcode) && *state == State::Serving && node.load.encode_free > 0.0
}

impl Workers for FleetWorkers {
    fn free(&self) -> f64 {
        let nodes = self.fleet.nodes();
        let free = nodes.iter().filter(|seen| lends(seen, &self.own)).map(|seen| seen.node.load.encode_free);
        free.fold(0.0, f64::max)
    }

    fn take(&self, cost: f64) -> Taking {
        Box::pin(self.clone().find(cost))
    }
}

impl fmt::Debug for FleetWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetWorkers").field("own", &self.own).finish_non_exhaustive()
    }
}
