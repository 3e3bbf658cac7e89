//! What both back ends promise, once for each: in this process, and on a real nats-server.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cluster::{
    AcknowledgeError, Acknowledgement, Boot, Bucket, Change, ClaimError, Directory, Epoch, Event, Holder,
    Journal, Key, Kind, Lost, Memory, Nats, NatsSettings, READERS_MAX, Readers, Revision, Sequence, Sessions,
    Store, StoreError, StreamEntry, StreamPhase, Told, WriteError,
};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use harness::nats::{Nats as Server, NatsCluster as Servers};
use media::StreamId;
use tidecast_cluster as cluster;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything takes that is not broken.
const PATIENCE: Duration = Duration::from_secs(20);

async fn store_on(server: &Server) -> Result<Arc<dyn Store>> {
    let store = Nats::connect(settings(server)?).await?;
    settled("the store", || async { Ok(store.newest().await.is_ok().then_some(())) }).await?;
    Ok(Arc::new(store))
}

fn settings(server: &Server) -> Result<NatsSettings> {
    let servers = vec![server.url().parse()?];
    Ok(NatsSettings { servers, credentials: None, replicas: 1, name: "conformance".to_owned() })
}

fn settings_of_three(servers: &Servers) -> Result<NatsSettings> {
    let servers = servers.urls().split(", ").map(str::parse).collect::<Result<_, _>>()?;
    Ok(NatsSettings { servers, credentials: None, replicas: 3, name: "conformance".to_owned() })
}

fn restart(server: &mut Server) -> Result<()> {
    server.kill()?;
    server.start_again()
}

/// Asks until there is an answer.
async fn settled<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, asking).await.with_context(|| format!("waiting for {what}"))?
}

/// Runs a test for each back end.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() -> anyhow::Result<()> {
                super::$test(std::sync::Arc::new(super::Memory::default())).await
            })*
        }

        mod nats {
            $(#[tokio::test]
            async fn $test() -> anyhow::Result<()> {
                let server = super::Server::start()?;
                super::$test(super::store_on(&server).await?).await
            })*
        }
    };
}

conformance! {
    a_value_is_what_was_put_last,
    what_is_there_is_not_made_again,
    only_who_has_read_the_newest_replaces_it,
    of_many_who_claim_at_once_one_succeeds,
    who_watches_is_told_what_is_there_and_what_becomes_of_it,
    the_log_is_read_from_any_place_and_has_nothing_twice,
    what_several_nodes_see_is_in_the_log_once,
    the_log_is_read_from_a_time_on,
    a_reader_that_was_away_goes_on_where_it_was,
    of_two_readers_under_one_name_the_later_one_is_told,
    a_reader_that_asks_is_not_forgotten,
    so_many_readers_are_known_at_once,
    a_stream_is_claimed_by_one_process_and_handed_on_under_a_greater_epoch,
    a_process_that_lost_its_stream_cannot_say_anything_of_it,
    a_write_that_comes_late_touches_nothing_of_the_next_owner,
    between_a_claim_and_the_first_word_of_the_new_owner_the_old_one_has_no_say,
    a_claim_whose_answer_was_lost_is_made_again_by_the_same_process,
    of_many_who_take_over_at_once_each_later_one_has_a_greater_epoch,
    a_session_is_written_by_the_owner_of_its_stream_and_by_none_before_it,
    a_session_of_an_earlier_release_is_gone_on_with,
    a_session_outlives_a_directory_that_was_lost_without_it,
}

fn changes(store: &Arc<dyn Store>, bucket: Bucket) -> BoxStream<'static, Change> {
    let change = |told| match told {
        Told::Changed(change) => Some(change),
        Told::Anew => None,
    };
    store.watch(bucket).filter_map(move |told| std::future::ready(change(told))).boxed()
}

fn key(name: &str) -> Key {
    Key::from(&StreamId::new("live", name).expect("a name"))
}

async fn a_value_is_what_was_put_last(store: Arc<dyn Store>) -> Result<()> {
    ensure!(store.get(Bucket::Streams, &key("cam")).await?.is_none());
    let first = store.put(Bucket::Streams, &key("cam"), "1".into()).await?;
    let second = store.put(Bucket::Streams, &key("cam"), "2".into()).await?;
    let entry = store.get(Bucket::Streams, &key("cam")).await?.context("put")?;
    ensure!(second > first && (entry.value, entry.revision) == (Bytes::from("2"), second));
    ensure!(store.get(Bucket::Nodes, &key("cam")).await?.is_none(), "buckets are apart");
    Ok(())
}

async fn what_is_there_is_not_made_again(store: Arc<dyn Store>) -> Result<()> {
    let (bucket, key) = (Bucket::Streams, key("cam"));
    let made = store.create(bucket, &key, "1".into()).await?;
    ensure!(matches!(store.create(bucket, &key, "2".into()).await, Err(WriteError::Conflict)));
    store.delete(bucket, &key, made).await?;
    ensure!(store.get(bucket, &key).await?.is_none());
    let again = store.create(bucket, &key, "3".into()).await?;
    ensure!(again > made, "revisions never go back");
    Ok(())
}

async fn only_who_has_read_the_newest_replaces_it(store: Arc<dyn Store>) -> Result<()> {
    let (bucket, key) = (Bucket::Sessions, key("cam"));
    let first = store.create(bucket, &key, "1".into()).await?;
    let second = store.update(bucket, &key, "2".into(), first).await?;
    ensure!(matches!(store.update(bucket, &key, "3".into(), first).await, Err(WriteError::Conflict)));
    ensure!(matches!(store.delete(bucket, &key, first).await, Err(WriteError::Conflict)));
    store.delete(bucket, &key, second).await?;
    ensure!(matches!(store.update(bucket, &key, "4".into(), second).await, Err(WriteError::Conflict)));
    ensure!(store.get(bucket, &key).await?.is_none());
    Ok(())
}

async fn of_many_who_claim_at_once_one_succeeds(store: Arc<dyn Store>) -> Result<()> {
    for round in 0..10 {
        let claims = (0..20).map(|number: u8| {
            let store = store.clone();
            tokio::spawn(async move {
                let (key, value) = (key(&format!("cam{round}")), Bytes::from(vec![number]));
                store.create(Bucket::Streams, &key, value).await.is_ok()
            })
        });
        let mut winners = 0;
        for claim in claims.collect::<Vec<_>>() {
            winners += usize::from(claim.await?);
        }
        ensure!(winners == 1, "round {round}: {winners}");
    }
    Ok(())
}

async fn who_watches_is_told_what_is_there_and_what_becomes_of_it(store: Arc<dyn Store>) -> Result<()> {
    let bucket = Bucket::Streams;
    store.put(bucket, &key("old"), "0".into()).await?;
    let mut changes = changes(&store, bucket);
    let mut next = async || timeout(PATIENCE, changes.next()).await?.context("the watch has ended");
    let told = next().await?;
    ensure!((&told.key, told.value) == (&key("old"), Some("0".into())));
    let made = store.create(bucket, &key("new"), "1".into()).await?;
    ensure!(next().await? == Change { key: key("new"), value: Some("1".into()), revision: made });
    store.delete(bucket, &key("new"), made).await?;
    let told = next().await?;
    ensure!((told.key, told.value) == (key("new"), None) && told.revision > made);
    Ok(())
}

async fn the_log_is_read_from_any_place_and_has_nothing_twice(store: Arc<dyn Store>) -> Result<()> {
    ensure!(store.newest().await? == Sequence(0));
    let journal = Journal::new(store.clone(), "node".parse()?, Boot(1));
    let words = |number: u8| format!("event {number}");
    for number in 0..5_u8 {
        journal.tell(Kind::StreamStarted, "live/cam".to_owned(), words(number)).await;
    }
    // As when an answer was lost, and it is sent again.
    let sent = [0; 2].map(|_| store.append("stream-started", "again".to_owned(), "{}".into()));
    let [first, second] = sent;
    ensure!(first.await? == second.await? && store.newest().await? == Sequence(6));
    let mut events = journal.follow(Sequence(2)).take(3);
    for number in 2..5 {
        let logged = timeout(PATIENCE, events.next()).await?.context("the log has ended")?;
        let Event { kind, words: told, .. } = logged.event;
        ensure!((kind, told) == (Kind::StreamStarted, words(number)));
    }
    let mut tail = journal.follow(store.newest().await?);
    journal.tell(Kind::StreamEnded, "live/cam".to_owned(), words(9)).await;
    let logged = timeout(PATIENCE, tail.next()).await?.context("the log has ended")?;
    ensure!(logged.event.words == words(9));
    Ok(())
}

/// The death of one, of which all others tell.
async fn what_several_nodes_see_is_in_the_log_once(store: Arc<dyn Store>) -> Result<()> {
    let tell = async |id: &str| {
        let told = ["a", "b", "c"].map(|node| {
            let journal = Journal::new(store.clone(), node.parse().expect("a name"), Boot(1));
            let (id, words) = (id.to_owned(), "lost was not heard".to_owned());
            async move { journal.tell_once(id, Kind::NodeLost, "lost".to_owned(), words).await }
        });
        futures_util::future::join_all(told).await;
    };
    tell("node-lost-lost-7").await;
    ensure!(store.newest().await? == Sequence(1), "one death is told of more than once");
    // As it was started again.
    tell("node-lost-lost-8").await;
    ensure!(store.newest().await? == Sequence(2), "another death is not told of");
    Ok(())
}

fn now_ms() -> Result<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(since.as_millis().try_into()?)
}

/// Events `first` to `last`.
async fn tell(journal: &Journal, first: u64, last: u64) {
    for number in first..=last {
        journal.tell(Kind::StreamStarted, "live/cam".to_owned(), format!("event {number}")).await;
    }
}

async fn sequences(journal: &Journal, after: Sequence, count: usize) -> Result<Vec<u64>> {
    let events = journal.follow(after).take(count).map(|logged| logged.sequence.0);
    timeout(PATIENCE, events.collect()).await.context("events are missing")
}

async fn the_log_is_read_from_a_time_on(store: Arc<dyn Store>) -> Result<()> {
    let journal = Journal::new(store, "node".parse()?, Boot(1));
    ensure!(journal.before(0).await? == Sequence(0), "an empty log");
    tell(&journal, 1, 2).await;
    // Of another millisecond.
    sleep(Duration::from_millis(5)).await;
    let between = now_ms()?;
    ensure!(journal.before(between).await? == Sequence(2), "nothing has happened since");
    tell(&journal, 3, 4).await;
    ensure!(journal.before(between).await? == Sequence(2));
    ensure!(journal.before(0).await? == Sequence(0));
    for later in [now_ms()? + 3_600_000, u64::MAX] {
        ensure!(journal.before(later).await? == Sequence(4), "{later}");
    }
    Ok(())
}

fn moved(from: u64, to: u64, by: &str) -> Acknowledgement {
    Acknowledgement { from: Sequence(from), to: Sequence(to), by: by.to_owned() }
}

/// In another process, at another node.
async fn a_reader_that_was_away_goes_on_where_it_was(store: Arc<dyn Store>) -> Result<()> {
    let name = "mail".parse()?;
    let journal = Journal::new(store.clone(), "node".parse()?, Boot(1));
    ensure!(journal.readers().place(&name).await?.is_none());
    tell(&journal, 1, 3).await;
    journal.readers().acknowledge(&name, &moved(0, 2, "first")).await?;
    tell(&journal, 4, 5).await;
    let other = Journal::new(store.clone(), "other".parse()?, Boot(2));
    let at = other.readers().place(&name).await?.context("it is not known")?;
    ensure!(sequences(&other, at, 3).await? == [3, 4, 5]);
    other.readers().acknowledge(&name, &moved(2, 5, "second")).await?;
    // The answer was lost.
    other.readers().acknowledge(&name, &moved(2, 5, "second")).await?;
    ensure!(other.readers().place(&name).await? == Some(Sequence(5)));
    ensure!(journal.readers().place(&"another".parse()?).await?.is_none(), "it is of one name");
    // What has not happened would be passed over when it does.
    let ahead = other.readers().acknowledge(&name, &moved(5, 6, "second")).await;
    ensure!(matches!(ahead, Err(AcknowledgeError::Ahead { newest: Sequence(5), .. })), "{ahead:?}");
    ensure!(other.readers().place(&name).await? == Some(Sequence(5)));
    Ok(())
}

async fn of_two_readers_under_one_name_the_later_one_is_told(store: Arc<dyn Store>) -> Result<()> {
    let name = "mail".parse()?;
    let journal = Journal::new(store.clone(), "node".parse()?, Boot(1));
    tell(&journal, 1, 6).await;
    let readers = Readers::new(store.clone());
    // Both begin, and neither has read anything.
    readers.acknowledge(&name, &moved(0, 0, "one")).await?;
    readers.acknowledge(&name, &moved(0, 0, "two")).await?;
    readers.acknowledge(&name, &moved(0, 3, "one")).await?;
    for late in [moved(0, 3, "two"), moved(0, 2, "two"), moved(0, 4, "two"), moved(0, 0, "two")] {
        let refused = readers.acknowledge(&name, &late).await;
        let is_told = matches!(refused, Err(AcknowledgeError::Elsewhere { at: Sequence(3), .. }));
        ensure!(is_told, "{late:?}: {refused:?}");
    }
    ensure!(readers.place(&name).await? == Some(Sequence(3)));
    let at_once = (0..10).map(|number| {
        let (readers, name) = (readers.clone(), name.clone());
        tokio::spawn(
            async move { readers.acknowledge(&name, &moved(3, 5, &number.to_string())).await.is_ok() },
        )
    });
    let mut winners = 0;
    for told in at_once.collect::<Vec<_>>() {
        winners += usize::from(told.await?);
    }
    ensure!(winners == 1, "{winners} have gone on");
    Ok(())
}

async fn a_reader_that_asks_is_not_forgotten(store: Arc<dyn Store>) -> Result<()> {
    let (key, readers) = (Key::fixed("mail"), Readers::new(store.clone()));
    let long_ago =
        store.put(Bucket::Readers, &key, r#"{"from":3,"to":7,"by":"one","put_ms":0}"#.into()).await?;
    for _ in 0..2 {
        ensure!(readers.place(&"mail".parse()?).await? == Some(Sequence(7)));
        let there = store.get(Bucket::Readers, &key).await?.context("forgotten")?;
        ensure!(there.revision == Revision(long_ago.0 + 1), "{there:?}: put again, and once");
    }
    Ok(())
}

async fn so_many_readers_are_known_at_once(store: Arc<dyn Store>) -> Result<()> {
    let (readers, begins) = (Readers::new(store), moved(0, 0, "one"));
    for number in 0..READERS_MAX {
        readers.acknowledge(&format!("reader{number}").parse()?, &begins).await?;
    }
    let refused = readers.acknowledge(&"more".parse()?, &begins).await;
    ensure!(matches!(refused, Err(AcknowledgeError::TooMany)), "{refused:?}");
    readers.acknowledge(&"reader0".parse()?, &moved(0, 0, "two")).await?;
    Ok(())
}

/// `store` has had six events, of which the first four are gone.
async fn a_log_that_forgot_begins_at_its_oldest(store: Arc<dyn Store>) -> Result<()> {
    let journal = Journal::new(store, "node".parse()?, Boot(1));
    ensure!(journal.before(0).await? == Sequence(4));
    ensure!(journal.newest().await? == Sequence(6));
    for after in [0, 2, 4] {
        ensure!(sequences(&journal, Sequence(after), 2).await? == [5, 6], "behind {after}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_log_in_memory_forgets_and_so_are_its_readers_forgotten() -> Result<()> {
    let store: Arc<dyn Store> = Arc::new(Memory::default());
    let journal = Journal::new(store.clone(), "node".parse()?, Boot(1));
    tell(&journal, 1, 4).await;
    let name = "mail".parse()?;
    journal.readers().acknowledge(&name, &moved(0, 2, "one")).await?;
    sleep(cluster::EVENTS_AGE_MAX - Duration::from_secs(1)).await;
    tell(&journal, 5, 6).await;
    ensure!(journal.before(0).await? == Sequence(0));
    ensure!(journal.readers().place(&name).await? == Some(Sequence(2)));
    sleep(Duration::from_secs(1)).await;
    ensure!(journal.readers().place(&name).await?.is_none());
    a_log_that_forgot_begins_at_its_oldest(store.clone()).await?;
    // What is forgotten takes no place.
    so_many_readers_are_known_at_once(store).await
}

#[tokio::test]
async fn a_log_on_nats_that_forgot_begins_at_its_oldest() -> Result<()> {
    let server = Server::start()?;
    let store = store_on(&server).await?;
    tell(&Journal::new(store.clone(), "node".parse()?, Boot(1)), 1, 6).await;
    let client = async_nats::connect(server.url()).await?;
    let log = async_nats::jetstream::new(client).get_stream("TIDECAST_EVENTS").await?;
    // Up to there, and not including it.
    log.purge().sequence(5).await?;
    a_log_that_forgot_begins_at_its_oldest(store).await
}

fn directory(store: &Arc<dyn Store>, node: &str) -> Directory {
    let node = node.parse().expect("a name");
    Directory::new(store.clone(), Holder { node, boot: Boot(7) })
}

fn entry(directory: &Directory, phase: StreamPhase) -> StreamEntry {
    let holder = directory.holder().clone();
    StreamEntry { holder, epoch: None, phase, session: None, since_ms: 0, unlisted: false }
}

async fn a_stream_is_claimed_by_one_process_and_handed_on_under_a_greater_epoch(
    store: Arc<dyn Store>,
) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let (one, other) = (directory(&store, "one"), directory(&store, "other"));
    let never = |_: &StreamEntry| false;
    let first = one.claim(&id, entry(&one, StreamPhase::Starting), never).await?;
    ensure!(first.previous.is_none());
    let refused = other.claim(&id, entry(&other, StreamPhase::Starting), never).await;
    ensure!(matches!(refused, Err(ClaimError::Held(held)) if held.holder.node.as_str() == "one"));
    // Whoever holds it may claim it again, as after a restart of the publisher.
    let again = one.claim(&id, entry(&one, StreamPhase::Starting), never).await?;
    ensure!(again.epoch > first.epoch);
    one.tell(&id, again.epoch, entry(&one, StreamPhase::Interrupted)).await?;
    let interrupted = |entry: &StreamEntry| entry.phase == StreamPhase::Interrupted;
    let taken = other.claim(&id, entry(&other, StreamPhase::Live), interrupted).await?;
    ensure!(taken.epoch > again.epoch);
    ensure!(taken.previous.is_some_and(|previous| previous.epoch == Some(again.epoch)));
    let found = one.find(&id).await?.context("claimed")?;
    ensure!((found.holder.node.as_str(), found.epoch) == ("other", Some(taken.epoch)));
    other.release(&id, taken.epoch).await?;
    ensure!(one.find(&id).await?.is_none());
    let anew = one.claim(&id, entry(&one, StreamPhase::Starting), never).await?;
    ensure!(anew.epoch > taken.epoch, "also after it was forgotten");
    Ok(())
}

/// A paused machine that goes on, and does not know that it was given up.
async fn a_process_that_lost_its_stream_cannot_say_anything_of_it(store: Arc<dyn Store>) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let (zombie, owner) = (directory(&store, "zombie"), directory(&store, "owner"));
    let always = |_: &StreamEntry| true;
    let old = zombie.claim(&id, entry(&zombie, StreamPhase::Live), always).await?;
    let new = owner.claim(&id, entry(&owner, StreamPhase::Live), always).await?;
    ensure!(matches!(zombie.tell(&id, old.epoch, entry(&zombie, StreamPhase::Live)).await, Err(Lost::To(_))));
    ensure!(matches!(zombie.release(&id, old.epoch).await, Err(Lost::To(_))));
    let found = zombie.find(&id).await?.context("claimed")?;
    ensure!((found.holder.node.as_str(), found.epoch) == ("owner", Some(new.epoch)));
    // The owner's older self is no better.
    let newer = owner.claim(&id, entry(&owner, StreamPhase::Live), always).await?;
    ensure!(matches!(owner.tell(&id, new.epoch, entry(&owner, StreamPhase::Live)).await, Err(Lost::To(_))));
    owner.release(&id, newer.epoch).await?;
    ensure!(matches!(owner.release(&id, newer.epoch).await, Err(Lost::Forgotten)));
    Ok(())
}

/// A write that was under way while its sender was given up, as a late acknowledgement of a queue's job: it is of a revision
/// that is no more, whether it would change or delete.
async fn a_write_that_comes_late_touches_nothing_of_the_next_owner(store: Arc<dyn Store>) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let (old, new) = (directory(&store, "old"), directory(&store, "new"));
    old.claim(&id, entry(&old, StreamPhase::Live), |_| false).await?;
    let key = Key::from(&id);
    let read = store.get(Bucket::Streams, &key).await?.context("claimed")?;
    let claim = new.claim(&id, entry(&new, StreamPhase::Live), |_| true).await?;
    let late = store.update(Bucket::Streams, &key, read.value, read.revision).await;
    ensure!(matches!(late, Err(WriteError::Conflict)), "{late:?}");
    let late = store.delete(Bucket::Streams, &key, read.revision).await;
    ensure!(matches!(late, Err(WriteError::Conflict)), "{late:?}");
    let found = old.find(&id).await?.context("claimed")?;
    ensure!((found.holder.node.as_str(), found.epoch) == ("new", Some(claim.epoch)));
    // Nor after it was forgotten: what was deleted is not there to be changed.
    new.release(&id, claim.epoch).await?;
    let late = store.update(Bucket::Streams, &key, "{}".into(), read.revision).await;
    ensure!(matches!(late, Err(WriteError::Conflict)), "{late:?}");
    ensure!(old.find(&id).await?.is_none());
    Ok(())
}

/// The claim is the marker of its epoch: there is no time in which both are right.
async fn between_a_claim_and_the_first_word_of_the_new_owner_the_old_one_has_no_say(
    store: Arc<dyn Store>,
) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let (old, new) = (directory(&store, "old"), directory(&store, "new"));
    let before = old.claim(&id, entry(&old, StreamPhase::Live), |_| false).await?;
    old.tell(&id, before.epoch, entry(&old, StreamPhase::Live)).await?;
    let mut told = changes(&store, Bucket::Streams);
    let claim = new.claim(&id, entry(&new, StreamPhase::Starting), |_| true).await?;
    for _ in 0..3 {
        let said = old.tell(&id, before.epoch, entry(&old, StreamPhase::Live)).await;
        ensure!(
            matches!(said, Err(Lost::To(held)) if held.epoch == Some(claim.epoch)),
            "the old owner was heard"
        );
    }
    new.tell(&id, claim.epoch, entry(&new, StreamPhase::Live)).await?;
    let found = old.find(&id).await?.context("claimed")?;
    ensure!(
        (found.phase, found.epoch) == (StreamPhase::Live, Some(claim.epoch)),
        "the epoch stays through what is told"
    );
    // Who watches sees the claim before anything else of the new owner, and nothing of the old one behind it.
    let mut seen = Vec::new();
    while seen.last() != Some(&("new".to_owned(), StreamPhase::Live)) {
        let change = timeout(PATIENCE, told.next()).await?.context("the watch has ended")?;
        let entry: StreamEntry = serde_json::from_slice(&change.value.context("it was deleted")?)?;
        seen.push((entry.holder.node.to_string(), entry.phase));
    }
    let first_of_new = seen.iter().position(|(node, _)| node == "new").context("never")?;
    ensure!(seen[first_of_new..].iter().all(|(node, _)| node == "new"), "{seen:?}");
    Ok(())
}

/// The store did it, and could not say so.
async fn a_claim_whose_answer_was_lost_is_made_again_by_the_same_process(
    store: Arc<dyn Store>,
) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let (node, other) = (directory(&store, "node"), directory(&store, "other"));
    let unheard = node.claim(&id, entry(&node, StreamPhase::Starting), |_| false).await?;
    let again = node.claim(&id, entry(&node, StreamPhase::Starting), |_| false).await?;
    ensure!(again.epoch > unheard.epoch);
    ensure!(matches!(node.tell(&id, unheard.epoch, entry(&node, StreamPhase::Live)).await, Err(Lost::To(_))));
    node.tell(&id, again.epoch, entry(&node, StreamPhase::Live)).await?;
    // Another run of the same node is another process.
    let reborn = Directory::new(store.clone(), Holder { node: "node".parse()?, boot: Boot(8) });
    let held = reborn.claim(&id, entry(&reborn, StreamPhase::Live), |_| false).await;
    ensure!(matches!(held, Err(ClaimError::Held(_))), "taken without being asked");
    ensure!(matches!(other.release(&id, again.epoch).await, Err(Lost::To(_))), "another's is released");
    Ok(())
}

async fn of_many_who_take_over_at_once_each_later_one_has_a_greater_epoch(
    store: Arc<dyn Store>,
) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let first = directory(&store, "first");
    first.claim(&id, entry(&first, StreamPhase::Interrupted), |_| false).await?;
    let claims = (0..3).map(|number| {
        let (node, id) = (directory(&store, &format!("n{number}")), id.clone());
        tokio::spawn(async move {
            let claim = node.claim(&id, entry(&node, StreamPhase::Live), |_| true).await?;
            anyhow::Ok((claim.epoch, node.holder().node.clone()))
        })
    });
    let mut epochs = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        epochs.push(claim.await??);
    }
    epochs.sort();
    ensure!(epochs.windows(2).all(|pair| pair[0].0 < pair[1].0), "two have one epoch: {epochs:?}");
    let found = first.find(&id).await?.context("claimed")?;
    let (last, holder) = epochs.last().context("three")?;
    ensure!((found.epoch, &found.holder.node) == (Some(*last), holder), "not the last has it");
    for (epoch, node) in &epochs[..2] {
        let said = directory(&store, node.as_str()).tell(&id, *epoch, entry(&first, StreamPhase::Live)).await;
        ensure!(matches!(said, Err(Lost::To(_))), "{node} is heard after it was overtaken");
    }
    Ok(())
}

/// What a node has of a session, as far as this suite cares.
fn session(msn: u64) -> serde_json::Map<String, serde_json::Value> {
    [("msn".to_owned(), msn.into())].into_iter().collect()
}

/// The number of a session that was taken.
fn msn(taken: Option<Bytes>) -> Result<Option<u64>> {
    let fields = taken.map(|taken| serde_json::from_slice::<serde_json::Value>(&taken)).transpose()?;
    fields.map(|fields| fields["msn"].as_u64().context("no number")).transpose()
}

/// A process that stood still goes on with what it was at: numbers of its own, or the end.
async fn a_session_is_written_by_the_owner_of_its_stream_and_by_none_before_it(
    store: Arc<dyn Store>,
) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let node = |name: &str| {
        let directory = directory(&store, name);
        (directory.clone(), Sessions::new(store.clone(), directory))
    };
    let ((old, olds), (new, news), (third, thirds)) = (node("old"), node("new"), node("third"));
    let before = old.claim(&id, entry(&old, StreamPhase::Live), |_| false).await?.epoch;
    let written = olds.keep(&id, before, session(6), None).await?;
    let written = olds.keep(&id, before, session(7), Some(written)).await?;
    let claim = new.claim(&id, entry(&new, StreamPhase::Live), |_| true).await?.epoch;
    ensure!(msn(news.take(&id, claim).await?)? == Some(7));
    // The new owner has written nothing yet.
    let refused = |late: Result<(), Lost>, by: &str| {
        let is_refused = matches!(&late, Err(Lost::To(owner)) if owner.holder.node.as_str() == by);
        ensure!(is_refused, "{late:?}");
        Ok(())
    };
    refused(olds.keep(&id, before, session(8), Some(written)).await.map(drop), "new")?;
    refused(olds.keep(&id, before, session(8), None).await.map(drop), "new")?;
    refused(olds.end(&id, before).await, "new")?;
    let written = news.keep(&id, claim, session(20), None).await?;
    let written = news.keep(&id, claim, session(21), Some(written)).await?;
    refused(olds.end(&id, before).await, "new")?;
    let last = third.claim(&id, entry(&third, StreamPhase::Live), |_| true).await?.epoch;
    ensure!(msn(thirds.take(&id, last).await?)? == Some(21));
    refused(news.keep(&id, claim, session(22), Some(written)).await.map(drop), "third")?;
    refused(news.take(&id, claim).await.map(drop), "third")?;
    // That it is over stands there as well, and is nothing to go on with.
    thirds.end(&id, last).await?;
    refused(olds.keep(&id, before, session(9), None).await.map(drop), "third")?;
    let anew = new.claim(&id, entry(&new, StreamPhase::Live), |_| true).await?.epoch;
    ensure!(msn(news.take(&id, anew).await?)?.is_none());
    news.keep(&id, anew, session(0), None).await?;
    let again = old.claim(&id, entry(&old, StreamPhase::Live), |_| true).await?.epoch;
    ensure!(msn(olds.take(&id, again).await?)? == Some(0));
    Ok(())
}

/// Which had no epochs, wrote over whatever was there, and nothing at all of one that was over.
async fn a_session_of_an_earlier_release_is_gone_on_with(store: Arc<dyn Store>) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let directory = directory(&store, "node");
    let sessions = Sessions::new(store.clone(), directory.clone());
    let epoch = directory.claim(&id, entry(&directory, StreamPhase::Live), |_| false).await?.epoch;
    ensure!(sessions.take(&id, epoch).await?.is_none(), "there is none");
    store.put(Bucket::Sessions, &Key::from(&id), r#"{"msn":5}"#.into()).await?;
    ensure!(msn(sessions.take(&id, epoch).await?)? == Some(5));
    // It reads ours, too: a field more.
    let there = store.get(Bucket::Sessions, &Key::from(&id)).await?.context("marked")?;
    ensure!(msn(Some(there.value))? == Some(5));
    for earlier in [r#"{"msn":6}"#, "", "no session"] {
        let written = sessions.keep(&id, epoch, session(7), None).await?;
        store.put(Bucket::Sessions, &Key::from(&id), earlier.into()).await?;
        sessions.keep(&id, epoch, session(8), Some(written)).await?;
    }
    store.put(Bucket::Sessions, &Key::from(&id), Bytes::new()).await?;
    ensure!(sessions.take(&id, epoch).await?.is_none(), "it is over");
    store.put(Bucket::Sessions, &Key::from(&id), "no session".into()).await?;
    ensure!(matches!(sessions.take(&id, epoch).await, Err(Lost::Store(_))), "read, whatever it is");
    Ok(())
}

/// Its revisions begin again at the first, so that its owners' epochs are earlier than what stands there.
async fn a_session_outlives_a_directory_that_was_lost_without_it(store: Arc<dyn Store>) -> Result<()> {
    let id = StreamId::new("live", "cam")?;
    let (old, new) = (directory(&store, "old"), directory(&store, "new"));
    let [olds, news] = [&old, &new].map(|directory| Sessions::new(store.clone(), directory.clone()));
    olds.keep(&id, Epoch(1_000), session(7), None).await?;
    ensure!(matches!(olds.keep(&id, Epoch(1), session(8), None).await, Err(Lost::Forgotten)));
    let before = old.claim(&id, entry(&old, StreamPhase::Live), |_| false).await?.epoch;
    olds.keep(&id, before, session(8), None).await?;
    let claim = new.claim(&id, entry(&new, StreamPhase::Live), |_| true).await?.epoch;
    ensure!(msn(news.take(&id, claim).await?)? == Some(8));
    ensure!(matches!(olds.end(&id, before).await, Err(Lost::To(_))));
    Ok(())
}

/// What has no deadline of the store is told by nobody: whoever reads keeps its own.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_heard_is_forgotten_in_memory() -> Result<()> {
    let store = Memory::default();
    store.put(Bucket::Nodes, &key("cam"), "1".into()).await?;
    sleep(cluster::SILENCE_DEAD - Duration::from_secs(1)).await;
    ensure!(store.get(Bucket::Nodes, &key("cam")).await?.is_some());
    sleep(Duration::from_secs(1)).await;
    ensure!(store.get(Bucket::Nodes, &key("cam")).await?.is_none());
    store.create(Bucket::Nodes, &key("cam"), "2".into()).await?;
    Ok(())
}

/// The server is killed and comes back; whoever watched goes on, and nothing that was acknowledged is lost.
#[tokio::test]
async fn a_server_of_nats_that_is_killed_costs_its_outage_and_nothing_else() -> Result<()> {
    let mut server = Server::start()?;
    let store = store_on(&server).await?;
    let mut changes = changes(&store, Bucket::Streams);
    let written = store.put(Bucket::Streams, &key("cam"), "1".into()).await?;
    ensure!(timeout(PATIENCE, changes.next()).await?.context("ended")?.revision == written);
    restart(&mut server)?;
    let again = settled("a write", || async {
        Ok(store.update(Bucket::Streams, &key("cam"), "2".into(), written).await.ok())
    });
    let again: Revision = again.await?;
    // It may tell again what it has told.
    let mut newer = changes.skip_while(|change| std::future::ready(change.revision < again));
    let told = timeout(PATIENCE, newer.next()).await?.context("ended")?;
    ensure!((told.revision, told.value) == (again, Some("2".into())));
    Ok(())
}

#[tokio::test]
async fn a_server_of_nats_that_wants_a_password_is_given_the_one_in_its_url() -> Result<()> {
    let server = Server::start_with(&["--user", "tide@cast", "--pass", "ca:n/a%r#y"])?;
    let url = server.url().replace("nats://", "nats://tide%40cast:ca%3An%2Fa%25r%23y@");
    let store = Nats::connect(NatsSettings { servers: vec![url.parse()?], ..settings(&server)? }).await?;
    ensure!(store.prepare(PATIENCE).await?, "it lets the node in");
    Ok(())
}

/// Servers leave a mark of their own in place of what they delete by themselves, where an operator has them do so.
#[tokio::test]
async fn a_key_that_a_server_of_nats_has_deleted_is_not_there() -> Result<()> {
    let server = Server::start()?;
    let store = store_on(&server).await?;
    store.put(Bucket::Streams, &key("cam"), "1".into()).await?;
    let subject = format!("$KV.tidecast_streams.{}", key("cam"));
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Marker-Reason", "MaxAge");
    let client = async_nats::jetstream::new(async_nats::connect(server.url()).await?);
    client.publish_with_headers(subject, headers, Bytes::new()).await?.await?;
    ensure!(store.get(Bucket::Streams, &key("cam")).await?.is_none(), "it is there for who asks");
    let told = timeout(PATIENCE, changes(&store, Bucket::Streams).next()).await?.context("ended")?;
    ensure!(told.value.is_none(), "it is there for who watches");
    store.create(Bucket::Streams, &key("cam"), "2".into()).await?;
    Ok(())
}

/// With the permissions that a node has there, and none for a stranger at the port of the servers.
#[tokio::test]
async fn three_servers_of_nats_as_the_readme_has_them_are_a_store() -> Result<()> {
    let readme = std::fs::read_to_string(harness::media::root().join("README.md"))?;
    let (_, from) = readme.split_once("```text\nserver_name").context("no servers in the README")?;
    let (sample, _) = from.split_once("```").context("no end of them")?;
    let servers = Servers::start_as(&format!("server_name{sample}"))?;

    let urls = servers.urls().replace("nats://", "nats://tidecast:PASSWORD@");
    let urls = urls.split(", ").map(str::parse).collect::<Result<_, _>>()?;
    let store = Nats::connect(NatsSettings { servers: urls, ..settings_of_three(&servers)? }).await?;
    let (bucket, key) = (Bucket::Streams, key("cam"));
    let put = || async { Ok(store.put(bucket, &key, "1".into()).await.ok()) };
    let put = settled("a write", put).await?;
    let read = store.get(bucket, &key).await?.context("put")?;
    ensure!(read.revision == put);
    store.delete(bucket, &key, put).await?;
    let made = store.create(bucket, &key, "2".into()).await?;
    let written = store.update(bucket, &key, "3".into(), made).await?;
    let mut changes = store.watch(bucket);
    let mut next = async || timeout(PATIENCE, changes.next()).await?.context("ended");
    ensure!(next().await? == Told::Anew);
    ensure!(matches!(next().await?, Told::Changed(change) if change.revision == written));
    ensure!(store.count(bucket).await? == 1);
    let append = || async { Ok(store.append("node-started", "1".to_owned(), "{}".into()).await.ok()) };
    let logged = settled("an event", append).await?;
    let mut events = store.follow(Sequence(0));
    ensure!(timeout(PATIENCE, events.next()).await?.context("ended")? == (logged, "{}".into()));
    ensure!((store.newest().await?, store.before(0).await?) == (logged, Sequence(0)));

    let stranger = TcpStream::connect(servers.route(0)).await?;
    let (reading, mut writing) = stranger.into_split();
    writing.write_all(b"CONNECT {}\r\n").await?;
    let mut lines = BufReader::new(reading).lines();
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await?? {
        if line.contains("Authorization Violation") {
            return Ok(());
        }
    }
    bail!("it lets a stranger in")
}

/// Its neighbours take it for one of them for a minute or two more, and NATS asks them as it asks those that are there.
#[tokio::test]
async fn of_three_servers_of_nats_one_that_hangs_costs_an_election_and_no_call_after_it() -> Result<()> {
    let mut servers = Servers::start()?;
    let store = Nats::connect(settings_of_three(&servers)?).await?;
    let put = || async { Ok(store.put(Bucket::Streams, &key("cam"), "1".into()).await.ok()) };
    settled("the store", put).await?;
    servers.freeze_leader_of("KV_tidecast_streams")?;
    let first = settled("another leader", put).await?;
    store.delete(Bucket::Streams, &key("cam"), first).await?;
    for _ in 0..10 {
        let made = store.create(Bucket::Streams, &key("cam"), "2".into()).await?;
        let read = store.get(Bucket::Streams, &key("cam")).await?;
        ensure!(read.is_some_and(|entry| entry.revision == made), "it is there");
        store.delete(Bucket::Streams, &key("cam"), made).await?;
        ensure!(store.get(Bucket::Streams, &key("cam")).await?.is_none(), "it is gone");
    }
    Ok(())
}

/// A write of a key while another one of it is on its way to the replicas is refused with an error of its own.
#[tokio::test]
async fn of_many_who_write_by_three_servers_of_nats_at_once_one_succeeds_and_the_others_conflict()
-> Result<()> {
    let servers = Servers::start()?;
    let mut stores = Vec::new();
    for number in 0..3 {
        let one = vec![servers.url(number).parse()?];
        let store = Nats::connect(NatsSettings { servers: one, ..settings_of_three(&servers)? }).await?;
        settled("the store", || async { Ok(store.newest().await.ok()) }).await?;
        stores.push(store);
    }
    for round in 0..10 {
        let key = key(&format!("cam{round}"));
        let mut there = None;
        for turn in ["made", "replaced", "deleted", "made again"] {
            let writes = stores.iter().cycle().take(30).map(|store| {
                let (store, key) = (store.clone(), key.clone());
                tokio::spawn(async move {
                    match there {
                        None => store.create(Bucket::Streams, &key, turn.into()).await,
                        Some(read) if turn == "deleted" => {
                            store.delete(Bucket::Streams, &key, read).await.map(|()| read)
                        }
                        Some(read) => store.update(Bucket::Streams, &key, turn.into(), read).await,
                    }
                })
            });
            let mut written = Vec::new();
            for write in writes.collect::<Vec<_>>() {
                match write.await? {
                    Ok(revision) => written.push(revision),
                    Err(WriteError::Conflict) => {}
                    Err(error) => bail!("round {round}, {turn}: {error}"),
                }
            }
            ensure!(written.len() == 1, "round {round}, {turn}: {written:?}");
            there = written.pop().filter(|_| turn != "deleted");
        }
    }
    Ok(())
}

/// Nobody who tells something waits for the servers, and nothing of it is lost but what there is no room for.
#[tokio::test]
async fn what_happened_while_nats_was_away_is_in_the_log_after_with_its_time() -> Result<()> {
    /// As many as wait.
    const WAITING_MAX: usize = 1_000;
    let mut server = Server::start()?;
    let store = store_on(&server).await?;
    let journal = Journal::new(store.clone(), "node".parse()?, Boot(1));
    let tell = async |number: usize| {
        journal.tell(Kind::StreamStarted, "live/cam".to_owned(), format!("event {number}")).await;
    };
    tell(0).await;
    server.kill()?;
    // What the client has taken before it knows that, it may send by itself later.
    settled("the connection to be lost", || async { Ok(store.newest().await.err()) }).await?;
    for number in 1..=WAITING_MAX + 5 {
        tell(number).await;
    }
    let back = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    // Which takes a while: a time at which they were sent would be another one.
    server.start_again()?;
    let (running, stop) = (journal.clone(), CancellationToken::new());
    let running = tokio::spawn({
        let stop = stop.clone();
        async move { running.run(stop).await }
    });
    let mut events = journal.follow(Sequence(0));
    let mut next = async || timeout(PATIENCE, events.next()).await?.context("the log has ended");
    ensure!(next().await?.event.words == "event 0");
    let dropped = next().await?.event;
    ensure!(
        dropped.kind == Kind::EventsDropped && dropped.words.starts_with("5 events of node"),
        "{dropped:?}"
    );
    for number in 6..=WAITING_MAX + 5 {
        let event = next().await?.event;
        ensure!(event.words == format!("event {number}"), "{event:?} where event {number} is due");
        ensure!(u128::try_from(event.at_ms)? <= back.as_millis(), "it has the time at which it was sent");
    }
    // Those that happen now come behind them, at once.
    tell(7_000).await;
    ensure!(next().await?.event.words == "event 7000");
    stop.cancel();
    running.await?;
    ensure!(store.newest().await? == Sequence(WAITING_MAX as u64 + 3), "something is twice");
    Ok(())
}

/// What the client makes anew by itself may be on a server that is dead, and is then waited for as long as that is.
#[tokio::test]
async fn a_watch_begins_anew_with_each_connection() -> Result<()> {
    let mut server = Server::start()?;
    let store = store_on(&server).await?;
    store.put(Bucket::Streams, &key("cam"), "1".into()).await?;
    let mut told = store.watch(Bucket::Streams);
    let mut next = async || timeout(PATIENCE, told.next()).await?.context("the watch has ended");
    for _ in 0..2 {
        ensure!(next().await? == Told::Anew);
        ensure!(matches!(next().await?, Told::Changed(change) if change.value == Some("1".into())));
        restart(&mut server)?;
    }
    Ok(())
}

/// Whoever follows several things at once does not poll a watch while it does something about another one.
#[tokio::test]
async fn a_watch_that_nobody_polls_holds_nobody_up() -> Result<()> {
    let server = Server::start()?;
    let store = Nats::connect(settings(&server)?).await?;
    let mut watches = Vec::new();
    let asking = async {
        loop {
            // Each gets as far as its first question to the servers, and no further.
            let mut watch = store.watch(Bucket::Streams);
            ensure!(watch.next().now_or_never().is_none(), "it was told without having asked");
            watches.push(watch);
            if store.newest().await.is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, asking).await.context("it waits for a watch that nobody polls")?
}

/// All is gone, as when an operator sets the servers up anew: what is needed is made again.
#[tokio::test]
async fn a_store_that_was_emptied_is_made_anew() -> Result<()> {
    let mut server = Server::start()?;
    let store = store_on(&server).await?;
    let mut told = store.watch(Bucket::Streams);
    let mut next = async || timeout(PATIENCE, told.next()).await?.context("the watch has ended");
    ensure!(next().await? == Told::Anew);
    store.put(Bucket::Streams, &key("cam"), "1".into()).await?;
    ensure!(matches!(next().await?, Told::Changed(change) if change.key == key("cam")));
    server.kill()?;
    server.empty()?;
    server.start_again()?;
    settled("a write", || async { Ok(store.put(Bucket::Streams, &key("cam"), "2".into()).await.ok()) })
        .await?;
    ensure!(store.get(Bucket::Streams, &key("cam")).await?.context("put")?.value == "2");
    ensure!(next().await? == Told::Anew, "who watched does not know that all is gone");
    ensure!(matches!(next().await?, Told::Changed(change) if change.value == Some("2".into())));
    Ok(())
}

/// Somebody else's bucket of that name, or one that an older release made.
async fn make_wrong(client: async_nats::Client) -> Result<()> {
    use async_nats::jetstream::{self, stream::Config};
    let subjects = vec!["$KV.tidecast_streams.>".to_owned()];
    let config = Config { name: "KV_tidecast_streams".to_owned(), subjects, ..Config::default() };
    jetstream::new(client).create_stream(config).await?;
    Ok(())
}

#[tokio::test]
async fn a_bucket_that_is_not_as_it_has_to_be_is_refused_in_words() -> Result<()> {
    let server = Server::start()?;
    make_wrong(async_nats::connect(server.url()).await?).await?;
    let store = Nats::connect(settings(&server)?).await?;
    let told = settled("an answer", || async {
        let told = store.newest().await.expect_err("another bucket").to_string();
        Ok(told.contains("not as it has to be").then_some(told))
    });
    let told = told.await?;
    ensure!(told.contains("KV_tidecast_streams") && told.contains("max_msgs_per_subject"), "{told}");
    Ok(())
}

/// Nodes ask again and again while nobody mends it.
#[tokio::test]
async fn servers_that_have_to_be_mended_are_not_looked_at_with_each_call() -> Result<()> {
    let server = Server::start()?;
    let client = async_nats::connect(server.url()).await?;
    make_wrong(client.clone()).await?;
    let mut looks = client.subscribe("$JS.API.STREAM.INFO.KV_tidecast_streams").await?;
    // What is asked on a connection is answered behind all that came on it before.
    let round_trip = || client.request("$JS.API.INFO", Bytes::new());
    round_trip().await?;
    let (store, since) = (Nats::connect(settings(&server)?).await?, Instant::now());
    settled("the store to be found unfit", || async {
        let _unfit = store.newest().await;
        Ok(store.unfit())
    })
    .await?;
    for _ in 0..20 {
        ensure!(matches!(store.newest().await, Err(StoreError::Unfit(_))));
    }
    let may_look = 1 + since.elapsed().as_secs() / 3;
    round_trip().await?;
    let mut looked = 0;
    while looks.next().now_or_never().flatten().is_some() {
        looked += 1;
    }
    ensure!((1..=may_look).contains(&looked), "looked at {looked} times");

    async_nats::jetstream::new(client).delete_stream("KV_tidecast_streams").await?;
    settled("the store to be found mended", || async { Ok(store.newest().await.ok()) }).await?;
    ensure!(store.unfit().is_none());
    Ok(())
}
