//! The streams of this node in the cluster's directory: claimed before their publisher is let in, and told of as they change.
//!
//! ```text
//!   publisher ─▶ ingest::Gate ─▶ claim ─▶ Directory          another node has it: refused, or gone on with here
//!   live log  ─▶ run: phases  ─▶ tell  ─▶ Directory, Journal
//!   Fleet     ─▶ run: has another process claimed it? ─▶ ingest::Gate::hand_over
//! ```
//!
//! A store that is away keeps no publisher out: the stream is claimed when it is back, and who then was later gives way. One that was
//! there a moment ago is waited for, since who is let in without a claim goes on with no session of another node.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use cluster::{
    Claim, ClaimError, Directory, Epoch, Fleet, Journal, Kind, Lost, Sessions, StoreError, StreamEntry,
    StreamPhase,
};
use edge::Unlisted;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use ingest::{Checkpoint, Elsewhere, Gate, OnConflict};
use media::StreamId;
use relay::wire::Hops;
use relay::{Dialer, Stream, StreamRegistry};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::membership::Membership;

/// How often phases are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// For another node to say what has become of its publisher. RTMP clients wait longer.
const HOLDER_ANSWER_MAX: Duration = Duration::from_secs(2);

/// For a store that does not answer, from a node's last word in it and from the claim on, and no question is begun after that: an
/// election of JetStream takes up to 9 s. RTMP clients wait longer.
const STORE_ANSWER_MAX: Duration = Duration::from_secs(15);
/// Between two questions to it.
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// From a claim to the stream it is for: the publisher is let in right after.
const BEGIN_MAX: Duration = Duration::from_secs(5);

/// How often the directory is asked whether it still has a stream. One that was emptied says nothing by itself.
const SEEN_MAX: Duration = Duration::from_secs(5);

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct Claims {
    fleet: Fleet,
    journal: Journal,
    sessions: Sessions,
    on_conflict: OnConflict,
    unlisted: Unlisted,
    held: Arc<Mutex<HashMap<StreamId, Held>>>,
    /// Under way. Each is finished whether whoever asked still waits or not: what it has taken over must not be lost with a
    /// broadcaster who hangs up and comes again.
    claiming: Arc<Mutex<HashMap<StreamId, Claiming>>>,
    /// What was taken over of other nodes, for whoever comes first. Of streams that are held.
    left: Arc<Mutex<HashMap<StreamId, Checkpoint>>>,
    /// For so long somebody may come for that.
    linger: Duration,
    /// To ask other nodes; `None` if there are none.
    dialer: Option<Dialer>,
}

type Claiming = Shared<BoxFuture<'static, Result<(), Elsewhere>>>;

/// A stream of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    epoch: Epoch,
    claimed_at: Instant,
    /// When the directory was last seen to have it.
    seen_at: Instant,
    /// As the directory was last told; `None` if it knows the claim alone.
    told: Option<Told>,
}

impl Held {
    fn new(epoch: Epoch, told: Option<Told>) -> Self {
        let now = Instant::now();
        Self { epoch, claimed_at: now, seen_at: now, told }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    phase: StreamPhase,
    session: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    pub(crate) fn new(
        membership: &Membership,
        on_conflict: OnConflict,
        linger: Duration,
        unlisted: Unlisted,
    ) -> Self {
        let Membership { fleet, journal, dialer, .. } = membership.clone();
        let sessions = Sessions::new(fleet.store().clone(), fleet.directory().clone());
        Self {
            fleet,
            journal,
            sessions,
            on_conflict,
            unlisted,
            held: Arc::default(),
            claiming: Arc::default(),
            left: Arc::default(),
            linger,
            dialer,
        }
    }

    /// Where other nodes find what they need to go on with a session; `None` if there are none.
    pub(crate) fn sessions(&self) -> Option<Sessions> {
        self.dialer.as_ref().map(|_| self.sessions.clone())
    }

    /// Under which this process has claimed a stream, as far as it knows.
    pub(crate) fn epoch(&self, id: &StreamId) -> Option<Epoch> {
        lock(&self.held).get(id).map(|held| held.epoch)
    }

    fn directory(&self) -> &Directory {
        self.fleet.directory()
    }

    fn entry(&self, id: &StreamId, told: &Told, since_ms: i64) -> StreamEntry {
        StreamEntry {
            holder: self.directory().holder().clone(),
            epoch: None,
            phase: told.phase,
            session: told.session.clone(),
            since_ms,
            unlisted: self.unlisted.holds(id),
        }
    }

    /// Whether another process's claim may be taken from it.
    fn may_take(&self, entry: &StreamEntry) -> bool {
        let own = self.directory().holder().node == entry.holder.node;
        let is_there = self.fleet.node(&entry.holder.node).is_some_and(|node| node.boot == entry.holder.boot);
        let is_published = matches!(entry.phase, StreamPhase::Starting | StreamPhase::Live);
        // Its publishers are on their way to others.
        let is_drained = self.fleet.is_drained(&entry.holder.node);
        own || !is_there || !is_published || is_drained || self.on_conflict == OnConflict::Takeover
    }

    /// The claim that a new publisher may take, as it stands, because nobody is publishing under it any more: the directory may
    /// not know yet that a node is dead, so that node is asked itself. To be wrong does no harm: who loses a claim gives way.
    async fn abandoned(&self, id: &StreamId) -> Result<Option<Epoch>, StoreError> {
        let Some(entry) = self.directory().find(id).await? else { return Ok(None) };
        let url = self.fleet.node(&entry.holder.node).and_then(|node| node.relay?.parse().ok());
        let (Some(dialer), Some(url)) = (&self.dialer, url) else { return Ok(None) };
        let upstream = dialer.at(url);
        let path = format!("state/{id}");
        let asked = timeout(HOLDER_ANSWER_MAX, upstream.get(&path, Hops::default())).await;
        let state = asked.ok().and_then(Result::ok).and_then(|slices| {
            let state: serde_json::Value = serde_json::from_slice(&slices.concat()).ok()?;
            Some(state.get("state")?.as_str()?.to_owned())
        });
        let is_published = state.is_some_and(|state| ["starting", "live"].contains(&state.as_str()));
        Ok(entry.epoch.filter(|_| !is_published))
    }

    /// Follows the streams of this node until `stop`.
    pub(crate) async fn run(&self, streams: &StreamRegistry, gate: &Gate, stop: CancellationToken) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => {}
                () = stop.cancelled() => return,
            }
            let published: BTreeMap<_, _> =
                streams.streams().iter().map(|(id, stream)| (id.clone(), stream.clone())).collect();
            for (id, stream) in &published {
                // The others wait for the store as well, and no longer for their turns to fail.
                if let Err(StoreError::Unreachable(_)) = self.follow(id, stream, gate).await {
                    break;
                }
            }
            self.release(&published).await;
        }
    }

    async fn follow(&self, id: &StreamId, stream: &Stream, gate: &Gate) -> Result<(), StoreError> {
        if gate.is_handed_over(id) {
            return Ok(());
        }
        let facts = stream.facts();
        let phase = match () {
            () if facts.interrupted_since_ms.is_some() => StreamPhase::Interrupted,
            () if facts.starting.is_some() || stream.record().borrow().is_none() => StreamPhase::Starting,
            () => StreamPhase::Live,
        };
        let told = Told { phase, session: Some(stream.session().to_string()) };
        let entry = self.entry(id, &told, facts.since_ms);
        let held = lock(&self.held).get(id).cloned();
        let owner = match held {
            None => self.claim_late(id, entry, told).await?,
            Some(held) if self.has_moved(id, held.epoch) || held.seen_at.elapsed() > SEEN_MAX => {
                self.look_up(id, held).await?
            }
            Some(held) if held.told.as_ref() == Some(&told) => None,
            Some(held) => match self.directory().tell(id, held.epoch, entry).await {
                Ok(()) => {
                    self.announce(id, held.told.as_ref(), &told).await;
                    lock(&self.held)
                        .insert(id.clone(), Held { told: Some(told), seen_at: Instant::now(), ..held });
                    None
                }
                Err(Lost::To(entry)) => Some(entry),
                // The store was emptied: claimed again in the next round.
                Err(Lost::Forgotten) => {
                    lock(&self.held).remove(id);
                    None
                }
                Err(Lost::Store(error)) => return Err(error),
                Err(_) => None,
            },
        };
        if let Some(entry) = owner {
            warn!(stream.id = %id, "{id} is published to {} now; what is here ends", entry.holder.node);
            lock(&self.held).remove(id);
            gate.hand_over(id, Instant::now());
        }
        Ok(())
    }

    /// Of a stream that goes on from the last run, or whose publisher came while the store was away. Returns who has it, if
    /// that is another node.
    async fn claim_late(
        &self,
        id: &StreamId,
        entry: StreamEntry,
        told: Told,
    ) -> Result<Option<Box<StreamEntry>>, StoreError> {
        match self.directory().claim(id, entry.clone(), |entry| self.may_take(entry)).await {
            Ok(claim) => {
                self.fleet.claimed(id, claim.epoch, entry);
                self.announce(id, None, &told).await;
                lock(&self.held).insert(id.clone(), Held::new(claim.epoch, Some(told)));
                Ok(None)
            }
            Err(ClaimError::Held(entry)) => Ok(Some(entry)),
            Err(ClaimError::Store(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Asks the store itself, and returns who has it, if that is another process.
    async fn look_up(&self, id: &StreamId, held: Held) -> Result<Option<Box<StreamEntry>>, StoreError> {
        let found = self.directory().find(id).await?;
        match found {
            Some(entry) if entry.holder != *self.directory().holder() => return Ok(Some(Box::new(entry))),
            Some(_) => drop(lock(&self.held).insert(id.clone(), Held { seen_at: Instant::now(), ..held })),
            // The store was emptied: claimed again in the next round.
            None => drop(lock(&self.held).remove(id)),
        }
        Ok(None)
    }

    /// By what this node last heard; no question to the store.
    fn has_moved(&self, id: &StreamId, epoch: Epoch) -> bool {
        let heard = self.fleet.heard_of(id);
        heard.is_some_and(|located| {
            located.entry.epoch > Some(epoch) && located.entry.holder != *self.directory().holder()
        })
    }

    async fn announce(&self, id: &StreamId, before: Option<&Told>, now: &Told) {
        let was = before.map(|told| told.phase);
        let node = &self.directory().holder().node;
        let (kind, words) = match (was, now.phase) {
            (was, now) if was == Some(now) => return,
            (Some(StreamPhase::Interrupted), StreamPhase::Live) => {
                (Kind::StreamResumed, format!("{id} has media again, at {node}"))
            }
            (_, StreamPhase::Interrupted) => {
                (Kind::StreamInterrupted, format!("{id} has no media at the moment"))
            }
            (Some(StreamPhase::Starting), StreamPhase::Live) => return,
            _ => (Kind::StreamStarted, format!("{id} is published to {node}")),
        };
        self.journal.tell(kind, id.to_string(), words).await;
    }

    async fn release(&self, published: &BTreeMap<StreamId, Arc<Stream>>) {
        let is_over = |id: &StreamId, held: &Held| {
            let begins_within = if lock(&self.left).contains_key(id) { self.linger } else { BEGIN_MAX };
            !published.contains_key(id) && held.claimed_at.elapsed() > begins_within
        };
        let over: Vec<_> = {
            let held = lock(&self.held);
            held.iter()
                .filter(|(id, held)| is_over(id, held))
                .map(|(id, held)| (id.clone(), held.epoch))
                .collect()
        };
        for (id, epoch) in over {
            match self.directory().release(&id, epoch).await {
                Err(Lost::Store(_)) => continue,
                Ok(()) => self.journal.tell(Kind::StreamEnded, id.to_string(), format!("{id} is over")).await,
                Err(_) => {}
            }
            lock(&self.held).remove(&id);
            lock(&self.left).remove(&id);
        }
    }
}

#[async_trait]
impl ingest::Claims for Claims {
    async fn claim(&self, id: &StreamId) -> Result<(), Elsewhere> {
        match self.claiming(id) {
            Some(claiming) => claiming.await,
            None => Ok(()),
        }
    }

    fn take_left(&self, id: &StreamId) -> Option<Checkpoint> {
        lock(&self.left).remove(id)
    }
}

impl Claims {
    /// The one that is under way, or has just begun; `None` if the stream is held.
    fn claiming(&self, id: &StreamId) -> Option<Claiming> {
        let mut under_way = lock(&self.claiming);
        if let Some(claiming) = under_way.get(id) {
            return Some(claiming.clone());
        }
        if let Some(held) = lock(&self.held).get(id).cloned() {
            if !self.has_moved(id, held.epoch) {
                return None;
            }
            // To a third node, before anybody has published it here.
            lock(&self.held).remove(id);
            lock(&self.left).remove(id);
        }
        let (claims, key) = (self.clone(), id.clone());
        let task = tokio::spawn(async move {
            let claimed = claims.claim_now(&key).await;
            let claimed = claimed.map(|left| {
                lock(&claims.left).extend(left.map(|left| (key.clone(), left)));
            });
            lock(&claims.claiming).remove(&key);
            claimed
        });
        // A bug of ours keeps no publisher out.
        let claiming = async move { task.await.unwrap_or(Ok(())) }.boxed().shared();
        under_way.insert(id.clone(), claiming.clone());
        Some(claiming)
    }

    /// Of whoever has it, if that may be; `before` is that, and stays so where the answer to a claim that was made is lost.
    async fn claim_of_others(
        &self,
        id: &StreamId,
        entry: &StreamEntry,
        before: &Mutex<Option<StreamEntry>>,
    ) -> Result<Claim, ClaimError> {
        let directory = self.directory();
        let claim = |abandoned: Option<Epoch>| {
            directory.claim(id, entry.clone(), move |there| {
                *lock(before) = Some(there.clone());
                (abandoned.is_some() && there.epoch == abandoned) || self.may_take(there)
            })
        };
        let claimed = claim(None).await;
        let Err(ClaimError::Held(_)) = claimed else { return claimed };
        match self.abandoned(id).await? {
            None => claimed,
            abandoned => claim(abandoned).await,
        }
    }

    /// Whether to ask a store again that has not answered; first asked at `asked`.
    async fn waits_for_store(&self, id: &StreamId, asked: tokio::time::Instant, why: &str) -> bool {
        let silence = self.fleet.silence().unwrap_or(Duration::MAX);
        let waits = silence.max(asked.elapsed()) < STORE_ANSWER_MAX;
        if waits {
            debug!(stream.id = %id, "asks the store again: {why}");
            sleep(STORE_PAUSE).await;
        }
        waits
    }

    /// Returns what the stream goes on with here.
    async fn claim_now(&self, id: &StreamId) -> Result<Option<Checkpoint>, Elsewhere> {
        let (asked, before) = (tokio::time::Instant::now(), Mutex::default());
        let told = Told { phase: StreamPhase::Starting, session: None };
        let entry = self.entry(id, &told, 0);
        let claim = loop {
            match self.claim_of_others(id, &entry, &before).await {
                Ok(claim) => break claim,
                Err(ClaimError::Held(entry)) => {
                    return Err(Elsewhere { node: entry.holder.node.to_string() });
                }
                Err(ClaimError::Store(StoreError::Unreachable(why)))
                    if self.waits_for_store(id, asked, &why).await => {}
                Err(error) => {
                    warn!(stream.id = %id, "let in without a claim: {error}");
                    return Ok(None);
                }
            }
        };
        self.fleet.claimed(id, claim.epoch, entry);
        let own = self.directory().holder();
        let previous = match claim.previous {
            Some(there) if there.holder == *own => lock(&before).take(),
            there => there,
        };
        let previous = previous.filter(|previous| previous.holder.node != own.node);
        let (left, told) = match previous {
            None => (None, None),
            Some(previous) => {
                let (left, session) = self.take_over(id, claim.epoch, &previous, asked).await.unzip();
                // That it has moved says that it has begun.
                (left, Some(Told { session: session.flatten(), ..told }))
            }
        };
        // Not before: from here on somebody is to publish it within a moment.
        lock(&self.held).insert(id.clone(), Held::new(claim.epoch, told));
        Ok(left)
    }

    /// The session of another node, if it can go on here, and its name, if others know by now that it does.
    async fn take_over(
        &self,
        id: &StreamId,
        epoch: Epoch,
        previous: &StreamEntry,
        asked: tokio::time::Instant,
    ) -> Option<(Checkpoint, Option<String>)> {
        let (own, node) = (&self.directory().holder().node, &previous.holder.node);
        let words = format!("{id} is published to {own} now, and was to {node}");
        self.journal.tell(Kind::StreamMoved, id.to_string(), words).await;
        let saved = loop {
            match self.sessions.take(id, epoch).await {
                Ok(saved) => break saved?,
                Err(Lost::Store(StoreError::Unreachable(why)))
                    if self.waits_for_store(id, asked, &why).await => {}
                Err(error) => {
                    warn!(stream.id = %id, "the session of {node} cannot go on here: {error}");
                    return None;
                }
            }
        };
        let checkpoint = match Checkpoint::from_json(&saved) {
            Ok(checkpoint) => checkpoint,
            Err(error) => {
                warn!(stream.id = %id, "the session of {node} cannot go on here: {error}");
                return None;
            }
        };
        let session = checkpoint.session().to_string();
        if previous.session.as_ref() != Some(&session) {
            return None;
        }
        info!(stream.id = %id, "the session of {node} goes on here");
        // Or a third node that claims it before anybody has published it here would not know what it is to go on with.
        let told = Told { phase: StreamPhase::Starting, session: Some(session.clone()) };
        let entry = self.entry(id, &told, 0);
        let told = self.directory().tell(id, epoch, entry).await;
        let told =
            told.inspect_err(|error| debug!(stream.id = %id, "its session is not in the directory: {error}"));
        Some((checkpoint.taken_over(epoch.0), told.is_ok().then_some(session)))
    }
}

#[cfg(test)]
mod tests;
