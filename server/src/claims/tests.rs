use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use cluster::{
    Boot, Bucket, Entry, Holder, Key, Memory, Revision, Sequence, Store, Told as ToldOf, WriteError,
};
use futures_util::stream::BoxStream;
use ingest::Claims as _;

use super::*;
use crate::testing;

/// As a process has left it.
const LEFT: &[u8] = include_bytes!("../../../fuzz/seeds/checkpoint/both");

fn membership(name: &str, store: &Arc<dyn Store>) -> Membership {
    Membership::of(Holder { node: name.parse().unwrap(), boot: Boot(1) }, store.clone())
}

fn node(membership: &Membership) -> Claims {
    Claims::new(membership, OnConflict::Refuse, Duration::from_secs(20), Unlisted::default())
}

/// A node that is not there any more has left a session in `store`.
async fn left_in(store: &Arc<dyn Store>) -> Checkpoint {
    let dead = node(&membership("dead", store));
    let saved = Checkpoint::from_json(LEFT).unwrap();
    let live = Told { phase: StreamPhase::Live, session: Some(saved.session().to_string()) };
    let entry = dead.entry(saved.id(), &live, 0);
    let claim = dead.directory().claim(saved.id(), entry, |_| true).await.unwrap();
    dead.sessions.keep(saved.id(), claim.epoch, saved.to_fields(), None).await.unwrap();
    saved
}

/// A broadcaster whose node has died hangs up while another one takes it over, and comes again.
#[tokio::test]
async fn what_was_taken_over_for_whoever_hung_up_is_there_for_the_next() {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let here = node(&membership("here", &store));
    let saved = left_in(&store).await;
    let id = saved.id();

    assert!(here.claim(id).now_or_never().is_none(), "it asks the store first");
    here.claim(id).await.unwrap();
    let going_on = here.take_left(id).expect("the session that was left");
    assert_eq!(going_on.session(), saved.session());
    let epoch = |checkpoint: &Checkpoint| checkpoint.to_fields()["epoch"].as_u64();
    assert!(epoch(&going_on) >= here.epoch(id).map(|claim| claim.0), "{:?}", epoch(&going_on));
    here.claim(id).await.unwrap();
    assert!(here.take_left(id).is_none(), "one goes on with it");

    // Nobody has published it here yet, and the broadcaster comes to a third node.
    let third = node(&membership("third", &store));
    third.claim(id).await.unwrap();
    let going_on = third.take_left(id).expect("the session that was left");
    assert_eq!(going_on.session(), saved.session());
}

/// A store that does not answer at times.
#[derive(Default)]
struct Shaky {
    memory: Memory,
    is_away: AtomicBool,
    /// The next write to it is done, and not acknowledged.
    loses_answer: Mutex<Option<Bucket>>,
    /// Does not answer the next question for what is in it.
    is_deaf: Mutex<Option<Bucket>>,
}

fn away() -> StoreError {
    StoreError::Unreachable("no answer".to_owned())
}

impl Shaky {
    fn asked(&self) -> Result<(), StoreError> {
        if self.is_away.load(Ordering::Relaxed) { Err(away()) } else { Ok(()) }
    }

    fn written<T, E: From<StoreError>>(&self, bucket: Bucket, written: Result<T, E>) -> Result<T, E> {
        let is_lost = lock(&self.loses_answer).take_if(|lost| *lost == bucket).is_some();
        if is_lost { Err(away().into()) } else { written }
    }
}

#[async_trait]
impl Store for Shaky {
    async fn get(&self, bucket: Bucket, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.asked()?;
        if lock(&self.is_deaf).take_if(|deaf| *deaf == bucket).is_some() {
            return Err(away());
        }
        self.memory.get(bucket, key).await
    }

    async fn put(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        self.asked()?;
        let written = self.memory.put(bucket, key, value).await;
        self.written(bucket, written)
    }

    async fn create(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, WriteError> {
        self.asked()?;
        let written = self.memory.create(bucket, key, value).await;
        self.written(bucket, written)
    }

    async fn update(
        &self,
        bucket: Bucket,
        key: &Key,
        value: Bytes,
        read: Revision,
    ) -> Result<Revision, WriteError> {
        self.asked()?;
        let written = self.memory.update(bucket, key, value, read).await;
        self.written(bucket, written)
    }

    async fn delete(&self, bucket: Bucket, key: &Key, read: Revision) -> Result<(), WriteError> {
        self.asked()?;
        let written = self.memory.delete(bucket, key, read).await;
        self.written(bucket, written)
    }

    async fn count(&self, bucket: Bucket) -> Result<usize, StoreError> {
        self.asked()?;
        self.memory.count(bucket).await
    }

    fn watch(&self, bucket: Bucket) -> BoxStream<'static, ToldOf> {
        self.memory.watch(bucket)
    }

    async fn append(&self, kind: &'static str, id: String, value: Bytes) -> Result<Sequence, StoreError> {
        self.asked()?;
        self.memory.append(kind, id, value).await
    }

    fn follow(&self, after: Sequence) -> BoxStream<'static, (Sequence, Bytes)> {
        self.memory.follow(after)
    }

    async fn newest(&self) -> Result<Sequence, StoreError> {
        self.asked()?;
        self.memory.newest().await
    }

    async fn before(&self, at_ms: u64) -> Result<Sequence, StoreError> {
        self.asked()?;
        self.memory.before(at_ms).await
    }
}

/// A node that has just heard of itself, in a store with the session of a dead one.
async fn heard() -> (Arc<Shaky>, Claims, Checkpoint) {
    let shaky = Arc::new(Shaky::default());
    let store: Arc<dyn Store> = shaky.clone();
    let saved = left_in(&store).await;
    let membership = membership("here", &store);
    let word = testing::node("here", &[]);
    let value = serde_json::to_vec(&word).unwrap().into();
    store.put(Bucket::Nodes, &Key::from(&word.id), value).await.unwrap();
    let (fleet, journal) = (membership.fleet.clone(), membership.journal.clone());
    tokio::spawn(async move { fleet.run(journal, CancellationToken::new()).await });
    membership.fleet.wait_for(&word.id).await;
    (shaky, node(&membership), saved)
}

/// As while servers elect one that decides.
#[tokio::test(start_paused = true)]
async fn a_claim_waits_for_a_store_that_was_there_a_moment_ago() {
    let (store, here, saved) = heard().await;
    store.is_away.store(true, Ordering::Relaxed);
    let back = store.clone();
    tokio::spawn(async move {
        sleep(Duration::from_secs(11)).await;
        back.is_away.store(false, Ordering::Relaxed);
    });
    here.claim(saved.id()).await.unwrap();
    let going_on = here.take_left(saved.id()).expect("the session that was left");
    assert_eq!(going_on.session(), saved.session());
    // Who has waited is not late.
    here.release(&BTreeMap::new()).await;
    assert!(here.epoch(saved.id()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_keeps_nobody_waiting_for_long() {
    let (store, here, saved) = heard().await;
    store.is_away.store(true, Ordering::Relaxed);
    for waits_for in [STORE_ANSWER_MAX, Duration::ZERO] {
        let asked = tokio::time::Instant::now();
        here.claim(saved.id()).await.unwrap();
        let waited = asked.elapsed();
        assert!(waited >= waits_for && waited < waits_for + 2 * STORE_PAUSE, "{waited:?}");
        assert!(here.take_left(saved.id()).is_none() && here.epoch(saved.id()).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_answer_is_lost_goes_on_with_the_session_all_the_same() {
    let (store, here, saved) = heard().await;
    *lock(&store.loses_answer) = Some(Bucket::Streams);
    here.claim(saved.id()).await.unwrap();
    assert!(lock(&store.loses_answer).is_none());
    let going_on = here.take_left(saved.id()).expect("the session that was left");
    assert_eq!(going_on.session(), saved.session());
}

#[tokio::test(start_paused = true)]
async fn the_session_is_waited_for_as_the_claim_is() {
    let (store, here, saved) = heard().await;
    *lock(&store.is_deaf) = Some(Bucket::Sessions);
    here.claim(saved.id()).await.unwrap();
    assert!(lock(&store.is_deaf).is_none());
    let going_on = here.take_left(saved.id()).expect("the session that was left");
    assert_eq!(going_on.session(), saved.session());
}
