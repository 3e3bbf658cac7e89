//! The owner of all sessions on this node: who may publish which stream, who takes over from whom, and when a session
//! that nobody publishes is over.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use media::{SessionId, StreamId};
use relay::StreamRegistry;

use crate::Secret;
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::claims::{Claims as OtherNodes, NoOtherNodes};
use crate::error::{KeyFault, PublishError, Refusal};
use crate::ladder::Ladder;
use crate::metrics::Metrics;
use crate::publication::Publication;
use crate::refusals::{Refusals, Refused};
use crate::session::{GAP_INTERVAL, SILENCE_MIN, Session};

/// A publisher that sent media within this time is there, and keeps its name against a second one.
const PRESENT: Duration = Duration::from_secs(3);

/// Decides who may publish. `server` plugs in the real one.
pub trait Authorize: Send + Sync {
    fn may_publish(&self, id: &StreamId, key: &Secret) -> bool;
}

/// What happens to a second publisher of a name, with a right key, while the first is sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The second is refused.
    #[default]
    Refuse,
    /// The second takes over at its first keyframe, and the first is sent away.
    Takeover,
}

/// How this node publishes.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How long a part should be; the part grid rounds it to whole frames.
    pub part_target: Duration,
    pub on_conflict: OnConflict,
    /// How long a session waits for its publisher to come back.
    pub linger: Duration,
}

/// Decides who may publish, and opens publications. Cloning shares it.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) registry: StreamRegistry,
    pub(crate) policy: Policy,
    pub(crate) metrics: Metrics,
    pub(crate) checkpoints: Arc<dyn Checkpoints>,
    pub(crate) ladder: Arc<dyn Ladder>,
    authorize: Arc<dyn Authorize>,
    others: Arc<dyn OtherNodes>,
    /// Locked before a slot, never after.
    slots: Mutex<HashMap<StreamId, Arc<Slot>>>,
    claims: AtomicU64,
    /// Set before slots are looked at, and read with them locked.
    is_shut: AtomicBool,
    refusals: Refusals,
}

/// A name that is being published, or was until a moment ago. Knows nothing of who holds it: the gate lets go of its
/// sessions when it goes itself.
pub(crate) struct Slot {
    id: StreamId,
    claims: Mutex<Claims>,
}

/// Who publishes under a name, and what. Publishers are numbered; 0 is none.
pub(crate) struct Claims {
    /// The newest that was let in and is still connected.
    newest: u64,
    /// Whose media is written. It stays in place until a newer one has shown a keyframe.
    owner: u64,
    /// When a message of media came of anybody who was let in.
    heard: Instant,
    /// Another node goes on with the session; here it stands still until nobody can be watching it.
    handed_over: bool,
    /// The last publisher was, by [`Gate::shut`].
    sent_away: bool,
    session: Option<Session>,
}

impl Gate {
    pub fn new(
        registry: StreamRegistry,
        authorize: Arc<dyn Authorize>,
        policy: Policy,
        checkpoints: Arc<dyn Checkpoints>,
        ladder: Arc<dyn Ladder>,
        metrics: Metrics,
    ) -> Self {
        let slots = Mutex::default();
        let claims = AtomicU64::new(1);
        let is_shut = AtomicBool::new(false);
        let refusals = Refusals::default();
        let others = Arc::new(NoOtherNodes);
        let shared = Shared {
            registry,
            policy,
            metrics,
            checkpoints,
            ladder,
            authorize,
            others,
            slots,
            claims,
            is_shut,
            refusals,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Asks `others` before a stream becomes one of this node. To be called before the gate is shared.
    #[must_use]
    pub fn with_claims(self, others: Arc<dyn OtherNodes>) -> Self {
        let shared = Arc::into_inner(self.shared).expect("nobody shares it yet");
        Self { shared: Arc::new(Shared { others, ..shared }) }
    }

    /// Whom this gate turned away lately.
    pub fn refusals(&self) -> &Refusals {
        &self.shared.refusals
    }

    /// Whether renditions are made here of a stream's pictures that everybody can be shown.
    pub(crate) fn transcodes(&self, id: &StreamId) -> bool {
        self.shared.ladder.transcodes(id)
    }

    pub(crate) fn turned_away(&self, refused: Refused) {
        self.shared.refusals.note(refused);
    }

    /// Makes the stream one of this node, if no other node is at it, so that it can be published here. To be called before
    /// [`Gate::publish`], which judges the key: a wrong one asks nobody anything.
    ///
    /// # Errors
    /// [`Refusal::TakenElsewhere`], [`Refusal::Draining`].
    pub async fn prepare(&self, id: &StreamId, key: &Secret) -> Result<(), Refusal> {
        if !self.shared.authorize.may_publish(id, key) {
            return Ok(());
        }
        if self.shared.is_shut.load(Ordering::SeqCst) {
            return Err(Refusal::Draining);
        }
        if self.has(id) {
            return Ok(());
        }
        // What there is of it here is older than what the other node has made of it, and must not be found by those who come
        // here as soon as it is claimed.
        self.end_handed_over(id);
        let claimed = self.shared.others.claim(id).await;
        claimed.map_err(|elsewhere| Refusal::TakenElsewhere { id: id.clone(), node: elsewhere.node })?;
        // Several may have waited for the claim: none of them is let in before the session is here that they go on with.
        let mut slots = self.lock();
        if let Some(checkpoint) = self.shared.others.take_left(id)
            && slots.get(id).is_none_or(|slot| slot.lock().session.is_none())
        {
            self.restore_to(&mut slots, &checkpoint, Instant::now(), SystemTime::now());
        }
        Ok(())
    }

    /// Sends every publisher away, to publish to another node, and lets nobody in until [`Gate::open`]. Their sessions wait
    /// for them here, as for anybody who is lost, until the other node goes on with them.
    pub fn shut(&self) {
        self.shared.is_shut.store(true, Ordering::SeqCst);
        for slot in self.lock().values() {
            let mut claims = slot.lock();
            let is_publishing = claims.owner != 0 || claims.newest != 0;
            (claims.owner, claims.newest) = (0, 0);
            claims.sent_away |= is_publishing;
        }
    }

    /// Lets publishers in again.
    pub fn open(&self) {
        self.shared.is_shut.store(false, Ordering::SeqCst);
    }

    /// A session of this node, and not of another by now.
    fn has(&self, id: &StreamId) -> bool {
        let slots = self.lock();
        slots
            .get(id)
            .map(|slot| slot.lock())
            .is_some_and(|claims| claims.session.is_some() && !claims.handed_over)
    }

    /// Another node has the stream now. Its publisher here is sent away, and its session stands still: what this node would
    /// write from here on, the other has under the same numbers. It is over after the linger, when its viewers are at the other.
    pub fn hand_over(&self, id: &StreamId, now: Instant) {
        let slots = self.lock();
        let Some(mut claims) = slots.get(id).map(|slot| slot.lock()) else { return };
        if !claims.handed_over {
            (claims.owner, claims.newest, claims.handed_over) = (0, 0, true);
            claims.heard = now;
        }
    }

    /// Whether another node has the stream, though there is something of it here.
    pub fn is_handed_over(&self, id: &StreamId) -> bool {
        let slots = self.lock();
        slots.get(id).is_some_and(|slot| slot.lock().handed_over)
    }

    fn end_handed_over(&self, id: &StreamId) {
        let mut slots = self.lock();
        if slots.get(id).is_some_and(|slot| slot.lock().handed_over)
            && let Some(slot) = slots.remove(id)
        {
            slot.lock().end();
        }
    }

    /// # Errors
    /// [`Refusal`], in words meant for the broadcaster.
    pub fn publish(&self, id: &StreamId, key: &Secret, now: Instant) -> Result<Publication, Refusal> {
        if !self.shared.authorize.may_publish(id, key) {
            return Err(Refusal::WrongKey(self.fault(id, key)));
        }
        // Not used if the publisher goes on with a session that is there.
        let session = SessionId::from_random(getrandom::u64().map_err(|_| Refusal::NoRandomness)?);
        let claim = self.shared.claims.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.lock();
        if self.shared.is_shut.load(Ordering::SeqCst) {
            return Err(Refusal::Draining);
        }
        let slot = slots.entry(id.clone()).or_insert_with(|| Slot::new(id.clone(), now));
        let mut claims = slot.lock();
        if !claims.admit(claim, now, self.shared.policy.on_conflict) {
            return Err(Refusal::NameTaken(id.clone()));
        }
        // A session that nobody could see yet is not worth going on with.
        if !claims.session.as_ref().is_some_and(Session::is_live) {
            slot.begin(&self.shared, &mut claims, claim, session, now);
        }
        Ok(Publication::new(self.shared.clone(), slot.clone(), claim, session))
    }

    fn fault(&self, id: &StreamId, key: &Secret) -> KeyFault {
        let is_key = |name: &str| self.shared.authorize.may_publish(id, &Secret::new(name.to_owned()));
        // Both are compared whatever the first one says.
        if is_key(id.app()) | is_key(id.stream()) {
            KeyFault::InName
        } else if key.expose().is_empty() {
            KeyFault::Missing
        } else {
            KeyFault::Wrong
        }
    }

    /// Goes on with the session of a process before this one. To be called before the first publisher comes.
    pub fn restore(&self, checkpoint: &Checkpoint, now: Instant, wall: SystemTime) {
        self.restore_to(&mut self.lock(), checkpoint, now, wall);
    }

    fn restore_to(
        &self,
        slots: &mut HashMap<StreamId, Arc<Slot>>,
        checkpoint: &Checkpoint,
        now: Instant,
        wall: SystemTime,
    ) {
        let id = checkpoint.id().clone();
        let Ok(writer) = self.shared.registry.open(id.clone(), checkpoint.session()) else { return };
        let slot = Slot::new(id.clone(), now);
        slot.lock().session = Some(Session::restore(writer, &self.shared, checkpoint, now, wall));
        slots.insert(id, slot);
    }

    /// Lets the clock of every session run on. Returns when to call it again: no session has to wait for that, not even one
    /// that begins meanwhile.
    pub fn tick(&self, now: Instant, wall: SystemTime) -> Instant {
        let linger = self.shared.policy.linger;
        let mut next = now + SILENCE_MIN.min(linger);
        self.lock().retain(|_, slot| {
            let mut claims = slot.lock();
            if now.saturating_duration_since(claims.heard) >= linger {
                claims.end();
            }
            let (handed_over, over) = (claims.handed_over, claims.heard + linger);
            if let Some(session) = &mut claims.session {
                next = next.min(over);
                if !handed_over {
                    next = next.min(session.tick(now, wall));
                }
            }
            claims.session.is_some() || claims.newest != 0
        });
        next.max(now + GAP_INTERVAL)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<Slot>>> {
        self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn new(id: StreamId, now: Instant) -> Arc<Self> {
        let claims =
            Claims { newest: 0, owner: 0, heard: now, handed_over: false, sent_away: false, session: None };
        Arc::new(Self { id, claims: Mutex::new(claims) })
    }

    pub(crate) fn id(&self) -> &StreamId {
        &self.id
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session in place of whatever there was, which ends.
    pub(crate) fn begin(
        &self,
        shared: &Shared,
        claims: &mut Claims,
        claim: u64,
        session: SessionId,
        now: Instant,
    ) {
        claims.end();
        let writer = shared.registry.open(self.id.clone(), session);
        // Every publisher of this node came through this slot, and what it had open has just ended.
        let writer = writer.expect("the slot is the only one that opens its name");
        claims.session = Some(Session::new(writer, shared, now));
        claims.owner = claim;
    }
}

impl Claims {
    /// Lets a publisher in, unless another one is there and must not be disturbed.
    fn admit(&mut self, claim: u64, now: Instant, on_conflict: OnConflict) -> bool {
        let connected = self.newest != 0 || self.owner != 0;
        let present = connected && now.saturating_duration_since(self.heard) < PRESENT;
        if present && on_conflict == OnConflict::Refuse {
            return false;
        }
        (self.newest, self.heard) = (claim, now);
        (self.handed_over, self.sent_away) = (false, false);
        true
    }

    /// The session, for a publisher that does not own it yet: to see whether it could go on with it.
    ///
    /// # Errors
    /// [`PublishError::TakenOver`] if a newer one was let in, [`PublishError::Draining`] if nobody may publish here.
    pub(crate) fn candidate(
        &mut self,
        claim: u64,
        now: Instant,
    ) -> Result<Option<&mut Session>, PublishError> {
        if self.newest != claim {
            return Err(if self.sent_away { PublishError::Draining } else { PublishError::TakenOver });
        }
        self.heard = now;
        Ok(self.session.as_mut())
    }

    /// The session, for the publisher whose media is written.
    ///
    /// # Errors
    /// As of [`Claims::candidate`], and [`PublishError::Over`] if the session has ended.
    pub(crate) fn owned(&mut self, claim: u64, now: Instant) -> Result<&mut Session, PublishError> {
        if self.owner != claim {
            return Err(match self.session {
                _ if self.sent_away => PublishError::Draining,
                Some(_) => PublishError::TakenOver,
                None => PublishError::Over,
            });
        }
        self.heard = now;
        self.session.as_mut().ok_or(PublishError::Over)
    }

    /// From here on the media of `claim` is written, and nobody else's.
    pub(crate) fn take_over(&mut self, claim: u64) {
        self.owner = claim;
    }

    /// A publisher has gone. If it said goodbye, or nobody has seen anything of it yet, its session is over.
    pub(crate) fn leave(&mut self, claim: u64, goodbye: bool) {
        if self.newest == claim {
            self.newest = 0;
        }
        if self.owner == claim {
            self.owner = 0;
            let visible = self.session.as_ref().is_some_and(Session::is_live);
            if goodbye || !visible {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        self.owner = 0;
        match self.session.take() {
            Some(session) if self.handed_over => session.leave(),
            Some(session) => session.end(),
            None => {}
        }
    }
}
