//! The cluster as this node last heard of it: who is there, and who has which stream.
//!
//! A watch may be silent for seconds while the store elects a leader, so silence is no death: a node is judged by when it was
//! last heard while others were heard, and who does not find a stream here asks the store itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use media::{NodeId, StreamId};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::directory::Directory;
use crate::event::{Journal, Kind};
use crate::node::{Node, Phase, decode, text};
use crate::order::{Order, Orders};
use crate::place::{self, Judged, Origin};
use crate::presence::{SILENCE_DEAD, SILENCE_SUSPECT};
use crate::store::{Bucket, Change, Key, Revision, Store, StoreError, Told};
use crate::stream::{Epoch, StreamEntry};

/// How often nodes are looked at for those that are not heard any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Cloning shares it.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    directory: Directory,
    heard: Mutex<Heard>,
    /// Sent to at every change.
    changed: watch::Sender<u64>,
}

/// A node as it was heard last.
struct Voice {
    node: Node,
    at: Instant,
    /// Of its word in the store: the same for all who heard it.
    revision: Revision,
}

#[derive(Default)]
struct Heard {
    nodes: BTreeMap<NodeId, Voice>,
    streams: HashMap<StreamId, StreamEntry>,
    /// Not heard any more, while streams are still theirs: who is cut off from the store alone can be read all the same.
    lost: BTreeMap<NodeId, Node>,
    orders: BTreeMap<Key, Order>,
    /// When any node was last heard.
    newest: Option<Instant>,
    /// When the store began to tell of streams anew.
    streams_anew: Option<Instant>,
}

/// A stream, and the node that has it, as far as that is known.
#[derive(Debug, Clone)]
pub struct Located {
    pub entry: StreamEntry,
    /// As it was last heard.
    pub node: Option<Node>,
}

/// A node that is looked at where it is known, and how it looks from here.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub node: &'a Node,
    pub state: State,
}

/// An audience that an operator expects.
#[derive(Debug, Clone, Serialize)]
pub struct Expected {
    #[serde(serialize_with = "text::serialize")]
    pub stream: StreamId,
    pub viewers: u32,
    /// From when on, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Where they will be sent: the first of these first, the next when that is full.
    #[serde(serialize_with = "text::serialize_all")]
    pub edges: Vec<NodeId>,
}

/// A node, and how it looks from here.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    #[serde(flatten)]
    pub node: Node,
    pub silent_ms: u64,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Serving,
    /// Takes nothing new: it says so, or that was ordered.
    Draining,
    /// Not heard for a while; gets nothing new.
    Suspect,
}

impl Heard {
    fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.nodes.values().map(|Voice { node, at, .. }| Candidate { node, state: self.state(node, *at) })
    }

    fn state(&self, node: &Node, at: Instant) -> State {
        let silent = self.newest.map_or(Duration::ZERO, |newest| newest.saturating_duration_since(at));
        match node.phase {
            _ if silent >= SILENCE_SUSPECT => State::Suspect,
            Phase::Draining => State::Draining,
            Phase::Serving if self.is_drained(&node.id) => State::Draining,
            Phase::Serving => State::Serving,
        }
    }

    fn is_drained(&self, id: &NodeId) -> bool {
        matches!(self.orders.get(&Key::from(id)), Some(Order::Drain { .. }))
    }

    fn holder_of(&self, id: &StreamId) -> Option<&NodeId> {
        self.streams.get(id).map(|entry| &entry.holder.node)
    }

    /// While the store was away nobody could be heard: the first who is must not make all others seem dead.
    fn excuse_silence(&mut self, now: Instant) {
        let Some(newest) = &mut self.newest else { return };
        let silent = now.saturating_duration_since(*newest);
        *newest += silent;
        self.nodes.values_mut().for_each(|voice| voice.at += silent);
    }

    /// They are told of again.
    fn forget_streams(&mut self, now: Instant) {
        self.streams.clear();
        self.streams_anew = Some(now);
    }
}

impl Fleet {
    pub fn new(store: Arc<dyn Store>, directory: Directory) -> Self {
        let (heard, changed) = (Mutex::default(), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { store, directory, heard, changed }) }
    }

    /// Listens to the store until `stop`. `journal` is told of nodes that are lost.
    pub async fn run(&self, journal: Journal, stop: CancellationToken) {
        let mut nodes = self.shared.store.watch(Bucket::Nodes);
        let mut streams = self.shared.store.watch(Bucket::Streams);
        let mut orders = self.shared.store.watch(Bucket::Orders);
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(told) = nodes.next() => match told {
                    Told::Anew => self.lock().excuse_silence(Instant::now()),
                    Told::Changed(change) => self.node_changed(&change),
                },
                Some(told) = streams.next() => match told {
                    // Nodes tell of themselves again; of streams nobody would say that they are over.
                    Told::Anew => self.lock().forget_streams(Instant::now()),
                    Told::Changed(change) => self.stream_changed(&change),
                },
                Some(told) = orders.next() => match told {
                    Told::Anew => self.lock().orders.clear(),
                    Told::Changed(change) => self.order_changed(change),
                },
                _ = look.tick() => for (node, Revision(last)) in self.forget_the_dead() {
                    let words = format!("{node} was not heard for {} s", SILENCE_DEAD.as_secs());
                    let id = format!("{}-{node}-{last}", Kind::NodeLost.name());
                    journal.tell_once(id, Kind::NodeLost, node.to_string(), words).await;
                },
                () = stop.cancelled() => return,
            }
        }
    }

    fn node_changed(&self, change: &Change) {
        let mut heard = self.lock();
        let now = Instant::now();
        let Some(value) = &change.value else {
            heard.nodes.retain(|id, _| id.as_str() != change.key.as_str());
            heard.lost.retain(|id, _| id.as_str() != change.key.as_str());
            drop(heard);
            return self.tell();
        };
        match decode::<Node>(&change.key, value) {
            Ok(node) => {
                heard.newest = Some(now);
                heard.lost.remove(&node.id);
                heard.nodes.insert(node.id.clone(), Voice { node, at: now, revision: change.revision });
                drop(heard);
                self.tell();
            }
            Err(error) => warn!("{error}"),
        }
    }

    /// This process has `id` since `epoch`, which the store will tell, some time later.
    ///
    /// Known at once, so that viewers are not sent to and fro: whom a node sends them to knows at least as new a claim, since that
    /// is a claim of its own. So the epoch grows from each node to the next that sends them on.
    pub fn claimed(&self, id: &StreamId, epoch: Epoch, entry: StreamEntry) {
        let holder = self.shared.directory.holder().clone();
        let entry = StreamEntry { holder, epoch: Some(epoch), ..entry };
        self.lock().streams.insert(id.clone(), entry);
        self.tell();
    }

    fn stream_changed(&self, change: &Change) {
        let Some(id) = change.key.stream() else { return };
        let entry = change.value.as_ref().map(|value| decode::<StreamEntry>(&change.key, value));
        let mut heard = self.lock();
        // What was written before a claim of this process, and is told after it.
        let known = heard.streams.get(&id).and_then(|known| known.epoch);
        if known.is_some_and(|Epoch(known)| change.revision.0 < known) {
            return;
        }
        match entry {
            Some(Ok(mut entry)) => {
                entry.epoch = Some(entry.epoch_at(change.revision));
                heard.streams.insert(id, entry);
            }
            Some(Err(error)) => return warn!("{error}"),
            None => drop(heard.streams.remove(&id)),
        }
        drop(heard);
        self.tell();
    }

    fn order_changed(&self, change: Change) {
        let order = change.value.map(|value| decode::<Order>(&change.key, &value)).transpose();
        match order {
            Ok(Some(order)) => drop(self.lock().orders.insert(change.key, order)),
            Ok(None) => drop(self.lock().orders.remove(&change.key)),
            Err(error) => return warn!("{error}"),
        }
        self.tell();
    }

    /// Those that others were heard after, for long enough: if nobody is heard, it is the store that is silent.
    fn forget_the_dead(&self) -> Vec<(NodeId, Revision)> {
        let mut heard = self.lock();
        let Some(newest) = heard.newest else { return Vec::new() };
        let is_dead = |at: Instant| newest.saturating_duration_since(at) >= SILENCE_DEAD;
        let dead = heard.nodes.values().filter(|voice| is_dead(voice.at));
        let dead: Vec<_> = dead.map(|voice| (voice.node.id.clone(), voice.revision)).collect();
        let Heard { nodes, streams, streams_anew, lost, .. } = &mut *heard;
        for (id, _) in &dead {
            lost.extend(nodes.remove(id).map(|voice| (id.clone(), voice.node)));
        }
        // Not while streams are only being told of again.
        if streams_anew.is_none_or(|at| at.elapsed() >= SILENCE_SUSPECT) {
            lost.retain(|id, _| streams.values().any(|entry| entry.holder.node == *id));
        }
        drop(heard);
        if !dead.is_empty() {
            self.tell();
        }
        dead
    }

    fn tell(&self) {
        self.shared.changed.send_modify(|changes| *changes += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees every change from now on.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Everybody that is there.
    pub fn nodes(&self) -> Vec<Seen> {
        let heard = self.lock();
        let seen = |Voice { node, at, .. }: &Voice| {
            let silent_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            Seen { node: node.clone(), silent_ms, state: heard.state(node, *at) }
        };
        heard.nodes.values().map(seen).collect()
    }

    /// What `pick` makes of everybody that is there, without a copy. It must not ask the fleet anything.
    pub fn look<T>(&self, pick: impl FnOnce(&mut dyn Iterator<Item = Candidate<'_>>) -> T) -> T {
        let heard = self.lock();
        pick(&mut heard.candidates())
    }

    /// The nodes that can show `id`, the best first, for a viewer in `zone`.
    pub fn ranked(&self, id: &StreamId, zone: &str) -> Vec<Judged> {
        let heard = self.lock();
        place::rank(heard.candidates(), id, heard.holder_of(id), zone)
    }

    /// The first of [`Fleet::ranked`] that takes viewers, without `but`.
    pub fn best(&self, id: &StreamId, zone: &str, but: Option<&NodeId>) -> Option<Judged> {
        let heard = self.lock();
        place::best(heard.candidates(), id, heard.holder_of(id), zone, but)
    }

    /// The nodes that edges read `id` from, if whoever has it only takes publishers: the first of them, and the others if it is gone.
    pub fn origins(&self, id: &StreamId) -> Vec<Origin> {
        let heard = self.lock();
        place::origins(heard.candidates(), id)
    }

    /// Nodes that were ordered to take nothing new, there or not.
    pub fn drained(&self) -> Vec<NodeId> {
        let heard = self.lock();
        let drained = heard.orders.iter().filter(|(_, order)| matches!(order, Order::Drain { .. }));
        drained.filter_map(|(key, _)| key.node()).collect()
    }

    /// Audiences that are expected, by their streams.
    pub fn expected(&self) -> Vec<Expected> {
        let heard = self.lock();
        let expected = heard.orders.iter().filter_map(|(key, order)| {
            let (Order::Audience { viewers, at_ms }, Some(stream)) = (order, key.stream()) else {
                return None;
            };
            let edges = place::edges_for(heard.candidates(), &stream, *viewers);
            Some(Expected { stream, viewers: *viewers, at_ms: *at_ms, edges })
        });
        expected.collect()
    }

    pub fn is_drained(&self, id: &NodeId) -> bool {
        self.lock().is_drained(id)
    }

    pub fn orders(&self) -> Orders {
        Orders::new(self.shared.store.clone())
    }

    pub fn node(&self, id: &NodeId) -> Option<Node> {
        self.lock().nodes.get(id).map(|voice| voice.node.clone())
    }

    /// For how long nothing was heard, of any node; `None` if nothing ever was.
    pub fn silence(&self) -> Option<Duration> {
        self.lock().newest.map(|newest| newest.elapsed())
    }

    /// Waits until the store has told of a node.
    pub async fn wait_for(&self, id: &NodeId) {
        let mut changed = self.changed();
        while self.node(id).is_none() && changed.changed().await.is_ok() {}
    }

    /// All streams, by name.
    pub fn streams(&self) -> Vec<(StreamId, StreamEntry)> {
        let mut streams: Vec<_> =
            self.lock().streams.iter().map(|(id, entry)| (id.clone(), entry.clone())).collect();
        streams.sort_by(|(a, _), (b, _)| a.cmp(b));
        streams
    }

    /// Who has `id`, as this node last heard.
    pub fn heard_of(&self, id: &StreamId) -> Option<Located> {
        let heard = self.lock();
        let entry = heard.streams.get(id)?.clone();
        let holder = &entry.holder.node;
        let node =
            heard.nodes.get(holder).map(|voice| &voice.node).or_else(|| heard.lost.get(holder)).cloned();
        Some(Located { node: node.filter(|node| node.boot == entry.holder.boot), entry })
    }

    /// The node that has `id`, as this node last heard; whether that is there or not.
    pub fn holder_of(&self, id: &StreamId) -> Option<NodeId> {
        self.lock().holder_of(id).cloned()
    }

    /// Who has `id`; asks the store for what was not heard of.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, id: &StreamId) -> Result<Option<Located>, StoreError> {
        if let Some(located) = self.heard_of(id) {
            return Ok(Some(located));
        }
        let Some(entry) = self.shared.directory.find(id).await? else { return Ok(None) };
        let node = self.node(&entry.holder.node).filter(|node| node.boot == entry.holder.boot);
        Ok(Some(Located { entry, node }))
    }

    pub fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::node::{Boot, Load};
    use crate::stream::Holder;
    use crate::stream::StreamPhase;

    /// A node that has not been told anything by the store yet.
    fn node(name: &str, store: &Arc<dyn Store>) -> Fleet {
        let holder = Holder { node: name.parse().unwrap(), boot: Boot(1) };
        Fleet::new(store.clone(), Directory::new(store.clone(), holder))
    }

    async fn claim(fleet: &Fleet, id: &StreamId) -> Epoch {
        let entry = StreamEntry {
            holder: fleet.directory().holder().clone(),
            epoch: None,
            phase: StreamPhase::Live,
            session: None,
            since_ms: 0,
            unlisted: false,
        };
        let claim = fleet.directory().claim(id, entry.clone(), |_| true).await.unwrap();
        fleet.claimed(id, claim.epoch, entry);
        claim.epoch
    }

    /// All that the store has to tell of streams by now, and does not tell before it is asked.
    async fn told(store: &Arc<dyn Store>) -> Change {
        let mut watch = store.watch(Bucket::Streams);
        while let Some(told) = watch.next().await {
            if let Told::Changed(change) = told {
                return change;
            }
        }
        panic!("the store has no stream");
    }

    /// The first heartbeat after a long absence of the store.
    #[tokio::test(start_paused = true)]
    async fn nobody_is_dead_for_having_been_silent_while_the_store_was_away() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let fleet = node("a", &store);
        let beats = |name: &str| {
            let node = Node {
                id: name.parse().unwrap(),
                boot: Boot(1),
                roles: Vec::new(),
                zone: String::new(),
                version: String::new(),
                phase: Phase::Serving,
                relay: None,
                viewers: None,
                load: Load::default(),
                room: None,
                certificate_ends_ms: None,
                settings: BTreeMap::new(),
            };
            let voice = Voice { node, at: Instant::now(), revision: Revision(1) };
            fleet.lock().nodes.insert(voice.node.id.clone(), voice);
            fleet.lock().newest = Some(Instant::now());
        };
        beats("b");
        beats("c");
        tokio::time::advance(SILENCE_DEAD * 2).await;
        fleet.lock().excuse_silence(Instant::now());
        beats("b");
        assert_eq!(fleet.forget_the_dead(), []);
        // Whoever is still silent is.
        tokio::time::advance(SILENCE_DEAD).await;
        beats("b");
        assert_eq!(fleet.forget_the_dead(), [("c".parse().unwrap(), Revision(1))]);
    }

    /// A stream moves from a to b and back, and c hears of it late: whoever sends a viewer on sends to a node that has it, or had it
    /// later than the sender knows.
    #[tokio::test]
    async fn a_node_knows_its_own_claims_before_the_store_tells_and_goes_not_back() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let id = StreamId::new("live", "cam").unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| node(name, &store));
        let holder = |fleet: &Fleet| fleet.holder_of(&id).map(|node| node.to_string());
        let first = claim(&a, &id).await;
        let of_a = told(&store).await;
        for fleet in [&b, &c] {
            fleet.stream_changed(&of_a);
            assert_eq!(holder(fleet).as_deref(), Some("a"));
        }
        assert!(claim(&b, &id).await > first);
        // Neither is told yet: a shows it, and c sends viewers there; b sends nobody to a.
        assert_eq!(holder(&b).as_deref(), Some("b"));
        // What comes late does not bring the other owner back, nor does the end of its claim.
        b.stream_changed(&of_a);
        b.stream_changed(&Change { value: None, ..of_a.clone() });
        assert_eq!(holder(&b).as_deref(), Some("b"));
        a.stream_changed(&told(&store).await);
        assert_eq!(holder(&a).as_deref(), Some("b"), "c sends to a, a to b, and b to nobody");

        // Back again, while nobody but a knows: c sends to a, b shows it.
        claim(&a, &id).await;
        assert_eq!([&a, &b, &c].map(holder), ["a", "b", "a"].map(|name| Some(name.to_owned())));
        b.stream_changed(&told(&store).await);
        assert_eq!(holder(&b).as_deref(), Some("a"), "b sends to a, and a to nobody");
    }

    #[tokio::test]
    async fn an_end_that_is_told_is_heard() {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let id = StreamId::new("live", "cam").unwrap();
        let a = node("a", &store);
        let epoch = claim(&a, &id).await;
        a.directory().release(&id, epoch).await.unwrap();
        a.stream_changed(&told(&store).await);
        assert_eq!(a.holder_of(&id), None);
    }
}
