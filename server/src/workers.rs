//! Encoders of other nodes: which node is asked for one, and how.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use std::{fmt, io};

use cluster::{Fleet, Journal, Kind, Node, Seen, State};
use http::StatusCode;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use media::{NodeId, StreamId};
use relay::wire::ENCODE;
use relay::{Dialer, Upstream, UpstreamError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tracing::info;
use transcode::workers::{Connection, Refusal, TAKEN_WITHIN, Taking, Workers, protocol};

use crate::membership::Membership;

/// For a worker to answer: a stopped one is not waited for, since the job is with nobody meanwhile.
const ANSWER_MAX: Duration = Duration::from_millis(1_300);

/// Of a large fleet. What they are believed to have free is a few seconds old.
const ASKED_MAX: usize = 3;
const _: () = assert!(ANSWER_MAX.as_millis() * (ASKED_MAX as u128) < TAKEN_WITHIN.as_millis());

/// One that did not answer is asked last for so long; by then the others know that it is suspect.
const SHUNNED_FOR: Duration = Duration::from_secs(15);

/// An encoder that is gone so soon was of no use, and neither will the next one be.
const USELESS_WITHIN: Duration = Duration::from_secs(10);

/// Whoever encodes for a stream so soon after another node has taken it over from that.
const MOVES_WITHIN: Duration = Duration::from_secs(30);

/// Which nodes encode for which streams of this one. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loans(Arc<Mutex<Ledger>>);

#[derive(Debug, Default)]
struct Ledger {
    now: Vec<(StreamId, NodeId)>,
    /// Who has encoded for a stream last, and until when; of the last [`MOVES_WITHIN`].
    before: HashMap<StreamId, (NodeId, Instant)>,
    /// Who has taken a stream over last, from whom, and when; of the last [`MOVES_WITHIN`]. A node that is lost has several of its jobs.
    moved: HashMap<StreamId, (NodeId, NodeId, Instant)>,
}

impl Loans {
    /// The nodes that encode for `id` now.
    pub(crate) fn of(&self, id: &StreamId) -> BTreeSet<NodeId> {
        let loans = self.lock();
        loans.now.iter().filter(|(stream, _)| stream == id).map(|(_, node)| node.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, until dropped.
struct Loan {
    loans: Loans,
    stream: StreamId,
    node: NodeId,
}

impl Loan {
    /// Also the other node that it takes over from, unless another loan has already taken over between the two.
    fn new(loans: &Loans, stream: StreamId, node: NodeId) -> (Self, Option<NodeId>) {
        let mut ledger = loans.lock();
        ledger.now.push((stream.clone(), node.clone()));
        ledger.before.retain(|_, (_, until)| until.elapsed() < MOVES_WITHIN);
        let before = ledger.before.remove(&stream).map(|(before, _)| before);
        let before = before.filter(|before| *before != node);
        ledger.moved.retain(|_, (.., at)| at.elapsed() < MOVES_WITHIN);
        let is_told = |before: &NodeId| {
            let last = ledger.moved.get(&stream);
            last.is_some_and(|(from, to, _)| (from, to) == (before, &node))
        };
        let before = before.filter(|before| !is_told(before));
        if let Some(before) = &before {
            ledger.moved.insert(stream.clone(), (before.clone(), node.clone(), Instant::now()));
        }
        (Self { loans: loans.clone(), stream, node }, before)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut loans = self.loans.lock();
        // A stream may have several of one node.
        if let Some(one) = loans.now.iter().position(|(id, node)| (id, node) == (&self.stream, &self.node)) {
            loans.now.swap_remove(one);
        }
        loans.before.insert(self.stream.clone(), (self.node.clone(), Instant::now()));
    }
}

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct FleetWorkers {
    fleet: Fleet,
    own: NodeId,
    zone: String,
    dialer: Dialer,
    loans: Loans,
    journal: Journal,
    shunned: Arc<Mutex<HashMap<NodeId, Instant>>>,
}

impl FleetWorkers {
    pub(crate) fn new(membership: &Membership, own: NodeId, zone: String, dialer: Dialer) -> Self {
        let Membership { fleet, loans, journal, .. } = membership.clone();
        Self { fleet, own, zone, dialer, loans, journal, shunned: Arc::default() }
    }

    /// Those that are asked, the best first.
    fn ranked(&self, cost: f64) -> Vec<(NodeId, Upstream)> {
        let now = Instant::now();
        let mut shunned = self.shunned();
        shunned.retain(|_, until| *until > now);
        let workers = rank(self.lenders().collect(), cost, &self.zone, &shunned);
        let known = workers.into_iter().filter_map(|worker| {
            let url = worker.relay.as_ref()?.parse().ok()?;
            Some((worker.id, self.dialer.at(url)))
        });
        known.take(ASKED_MAX).collect()
    }

    /// All other nodes that lend encoders, and the cores that each has left.
    fn lenders(&self) -> impl Iterator<Item = (Node, f64)> {
        let nodes = self.fleet.nodes().into_iter();
        nodes.filter_map(|Seen { node, state, .. }| {
            let free = node.load.encode_free?;
            (node.id != self.own && state == State::Serving).then_some((node, free))
        })
    }

    async fn find(self, id: StreamId, cost: f64) -> Result<Box<dyn Connection>, Refusal> {
        let (mut reasons, mut is_there) = (Vec::new(), false);
        for (node, worker) in self.ranked(cost) {
            let path = format!("{ENCODE}?cost={cost:.3}");
            let answer = timeout(ANSWER_MAX, worker.upgrade(&path, &protocol())).await;
            match answer.unwrap_or_else(|_| Err(UpstreamError::TimedOut { url: worker.url().clone() })) {
                Ok(connection) => {
                    info!(node.id = %node, "encodes for this one");
                    let (loan, before) = Loan::new(&self.loans, id, node);
                    if let Some(before) = before {
                        self.tell_moved(&loan, &before);
                    }
                    return Ok(Box::new(Borrowed { connection, loan, since: Instant::now(), workers: self }));
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

    /// The job does not wait for the store.
    fn tell_moved(&self, Loan { stream, node, .. }: &Loan, before: &NodeId) {
        let words = format!("{stream} is encoded by {node} now, and was by {before}");
        let (journal, subject) = (self.journal.clone(), stream.to_string());
        tokio::spawn(async move { journal.tell(Kind::EncodingMoved, subject, words).await });
    }

    fn shunned(&self) -> MutexGuard<'_, HashMap<NodeId, Instant>> {
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// With room before without, of this zone before others, and what did not work of late last. Among equals by what they have
/// free, as chance weighs it: those who ask at one time have heard the same.
fn rank(workers: Vec<(Node, f64)>, cost: f64, zone: &str, shunned: &HashMap<NodeId, Instant>) -> Vec<Node> {
    let weighed = workers.into_iter().map(|(node, free)| {
        let order = (shunned.contains_key(&node.id), free < cost, node.zone != zone);
        (order, free * (0.5 + fastrand::f64() / 2.0), node)
    });
    let mut weighed: Vec<_> = weighed.collect();
    weighed.sort_by(|(one, free, _), (other, other_free, _)| one.cmp(other).then(other_free.total_cmp(free)));
    weighed.into_iter().map(|(_, _, node)| node).collect()
}

impl Workers for FleetWorkers {
    fn free(&self) -> f64 {
        self.lenders().map(|(_, free)| free).fold(0.0, f64::max)
    }

    fn take(&self, id: &StreamId, cost: f64) -> Taking {
        Box::pin(self.clone().find(id.clone(), cost))
    }
}

/// The connection to a worker; one that is over soon is a reason to ask others first.
struct Borrowed {
    connection: TokioIo<Upgraded>,
    loan: Loan,
    since: Instant,
    workers: FleetWorkers,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.since.elapsed() < USELESS_WITHIN {
            self.workers.shunned().insert(self.loan.node.clone(), Instant::now() + SHUNNED_FOR);
        }
    }
}

impl AsyncRead for Borrowed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Borrowed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

impl fmt::Debug for FleetWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetWorkers").field("own", &self.own).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn worker(name: &str, zone: &str) -> Node {
        Node { zone: zone.to_owned(), ..testing::node(name, &[]) }
    }

    #[test]
    fn who_has_room_is_asked_first_and_who_failed_of_late_last() {
        let shunned = HashMap::from([("lame".parse().unwrap(), Instant::now())]);
        for _ in 0..100 {
            let workers = vec![
                (worker("lame", "eu"), 64.0),
                (worker("full", "eu"), 0.1),
                (worker("far", "us"), 32.0),
                (worker("small", "eu"), 2.0),
                (worker("large", "eu"), 8.0),
            ];
            let ranked = rank(workers, 1.0, "eu", &shunned);
            let names: Vec<_> = ranked.iter().map(|node| node.id.as_str()).collect();
            assert_eq!(names, ["large", "small", "far", "full", "lame"]);
        }
    }

    #[test]
    fn a_node_encodes_for_a_stream_until_the_last_of_its_loans_is_over() {
        let (loans, node) = (Loans::default(), || "w1".parse().unwrap());
        let [cam, other] = ["cam", "cam1"].map(|name| StreamId::new("live", name).unwrap());
        let (first, _) = Loan::new(&loans, cam.clone(), node());
        let (second, _) = Loan::new(&loans, cam.clone(), node());
        let _other = Loan::new(&loans, other.clone(), "w2".parse().unwrap());
        drop(first);
        assert_eq!(loans.of(&cam), BTreeSet::from([node()]));
        drop(second);
        assert_eq!((loans.of(&cam).len(), loans.of(&other).len()), (0, 1));
    }

    #[test]
    fn a_stream_moves_from_the_node_that_has_just_encoded_for_it() {
        let (loans, cam) = (Loans::default(), StreamId::new("live", "cam").unwrap());
        let take = |name: &str| Loan::new(&loans, cam.clone(), name.parse().unwrap());
        let (first, before) = take("w1");
        assert_eq!(before, None);
        drop(first);
        let (again, before) = take("w1");
        assert_eq!(before, None, "the same one has it again");
        drop(again);
        let (_second, before) = take("w2");
        assert_eq!(before, Some("w1".parse().unwrap()));
        assert_eq!(take("w3").1, None, "told once");
    }

    #[test]
    fn a_stream_that_loses_two_jobs_with_a_node_moves_once() {
        let (loans, cam) = (Loans::default(), StreamId::new("live", "cam").unwrap());
        let take = |name: &str| Loan::new(&loans, cam.clone(), name.parse().unwrap());
        let [w1, w2] = ["w1", "w2"].map(|name| Some(name.parse::<NodeId>().unwrap()));
        let (first, second) = (take("w1").0, take("w1").0);
        drop(first);
        let (first, before) = take("w2");
        assert_eq!(before, w1);
        drop(second);
        let (second, before) = take("w2");
        assert_eq!(before, None, "the other job of the same node");
        // Back and forth is told each time.
        drop((first, second));
        let (back, before) = take("w1");
        assert_eq!(before, w2);
        drop(back);
        assert_eq!(take("w2").1, w1);
    }

    #[test]
    fn those_who_ask_at_one_time_do_not_all_ask_the_same() {
        let first = |_| {
            let workers = (0..4).map(|number| (worker(&format!("w{number}"), ""), 3.0)).collect();
            rank(workers, 1.0, "", &HashMap::new()).remove(0).id
        };
        let asked: std::collections::HashSet<_> = (0..200).map(first).collect();
        assert_eq!(asked.len(), 4);
    }
}
