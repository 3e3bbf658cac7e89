//! The store on NATS JetStream: key-value buckets, and a stream for the log.
//!
//! Whatever becomes of the servers, calls end within [`REQUEST_MAX`], and the next one finds them again. What the servers have
//! is compared with what was asked for ([`setup`]): older ones pass over options that they do not know without a word.

mod setup;
mod stranded;
mod turns;
mod url;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::{self, DeliverPolicy, pull};
use async_nats::jetstream::kv::{self, Operation, UpdateError, UpdateErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{self, ErrorCode, stream};
use async_nats::{ConnectOptions, HeaderMap, ReconnectToServer};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use futures_util::{TryStreamExt, stream as streams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use self::stranded::Stranded;
use self::turns::Turns;
pub use self::url::{NatsLogin, NatsUrl, NatsUrlError};
use crate::store::{Bucket, Change, Entry, Key, Revision, Sequence, Store, StoreError, Told, WriteError};

/// From a request to its answer. Shorter than an election: nobody waits for one.
const REQUEST_MAX: Duration = Duration::from_secs(3);

/// Between two tries to connect. The client's own pause grows to seconds, of which every failover would have its share.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Between two tries to listen.
const WATCH_PAUSE: Duration = Duration::from_millis(500);

/// Between two looks at whether the servers are there, at the start.
const PREPARE_PAUSE: Duration = Duration::from_millis(50);

/// Between two looks at servers that an operator has to mend: each is a dozen requests, and every call wants one.
const UNFIT_PAUSE: Duration = Duration::from_secs(3);

/// A connection on which nothing comes for three of them is broken. Who claims a stream waits for that where it is to the one server
/// that is cut off.
const PING_EVERY: Duration = Duration::from_secs(2);

/// Headers of what stands in a key's place, with a revision of its own, once it is deleted: by a client, and by the servers.
const DELETED: [&str; 2] = ["KV-Operation", "Nats-Marker-Reason"];

/// Of a key that was never written.
const NOTHING: Revision = Revision(0);

#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// Some of the servers; they tell of the others. The node has one login for all.
    pub servers: Vec<NatsUrl>,
    /// A file with a user's JWT and seed, as `nsc` makes it.
    pub credentials: Option<PathBuf>,
    /// Servers that each value is on.
    pub replicas: usize,
    /// As the servers' operator sees this connection.
    pub name: String,
}

/// Cloning shares the connection.
#[derive(Clone)]
pub struct Nats {
    shared: Arc<Shared>,
}

struct Shared {
    context: jetstream::Context,
    replicas: usize,
    /// `None` until the servers have been found to be as they have to be, and after a call has failed.
    ready: Mutex<Option<Arc<Ready>>>,
    /// What an operator has to mend, as it was when the servers were last looked at.
    unfit: Mutex<Option<String>>,
    /// Held while the servers are looked at, by one task at a time.
    looking: tokio::sync::Mutex<Option<Failed>>,
    /// Counts the connections that were lost.
    lost: watch::Receiver<u64>,
    stranded: Mutex<Stranded>,
}

/// The last look at the servers, if it failed.
struct Failed {
    began: Instant,
    error: StoreError,
}

impl Failed {
    /// Whether another look now would find the same.
    fn is_lasting(&self) -> bool {
        matches!(self.error, StoreError::Unfit(_)) && self.began.elapsed() < UNFIT_PAUSE
    }
}

struct Ready {
    buckets: [kv::Store; Bucket::ALL.len()],
    events: stream::Stream,
}

impl Ready {
    fn bucket(&self, bucket: Bucket) -> &kv::Store {
        &self.buckets[bucket as usize]
    }
}

impl Nats {
    /// Connects in the background: a node starts without the servers, and plays on without them.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] if the credentials cannot be read.
    pub async fn connect(settings: NatsSettings) -> Result<Self, StoreError> {
        let (losing, lost) = watch::channel(0);
        let turns = Mutex::new(Turns::of(&settings.name));
        let mut options = ConnectOptions::new()
            .name(&settings.name)
            .retry_on_initial_connect()
            .connection_timeout(REQUEST_MAX)
            .request_timeout(Some(REQUEST_MAX))
            .ping_interval(PING_EVERY)
            .reconnect_delay_callback(|attempts| {
                let pause =
                    Duration::from_millis(100).saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));
                pause.min(RECONNECT_PAUSE_MAX)
            })
            .reconnect_to_server_callback(move |known, _| {
                let next = turns.lock().unwrap_or_else(PoisonError::into_inner).next(&known);
                std::future::ready(next.map(|addr| ReconnectToServer { addr, delay: None }))
            })
            .event_callback(move |event| {
                match event {
                    async_nats::Event::Connected => info!("connected to NATS"),
                    async_nats::Event::Disconnected => {
                        warn!("the connection to NATS is lost; this node plays on with what it knows");
                        losing.send_modify(|count| *count += 1);
                    }
                    event => debug!("NATS: {event}"),
                }
                std::future::ready(())
            });
        if let Some(path) = &settings.credentials {
            let unfit = |error| StoreError::Unfit(format!("cannot read {}: {error}", path.display()));
            options = options.credentials_file(path).await.map_err(unfit)?;
        }
        // The client does not look for them there.
        if let Some(NatsLogin { user, password }) = settings.servers.iter().find_map(NatsUrl::login) {
            options = options.user_and_password(user.clone(), password.clone());
        }
        let servers: Vec<_> = settings.servers.iter().map(|url| url.server.clone()).collect();
        let client = options.connect(servers).await.map_err(unreachable)?;
        let mut context = jetstream::new(client);
        context.set_timeout(REQUEST_MAX);
        Ok(Self {
            shared: Arc::new(Shared {
                context,
                replicas: settings.replicas,
                ready: Mutex::default(),
                unfit: Mutex::default(),
                looking: tokio::sync::Mutex::default(),
                lost,
                stranded: Mutex::default(),
            }),
        })
    }

    /// Has all that is needed on the servers, if they can be reached `within` that time; whether they could.
    ///
    /// # Errors
    /// [`StoreError::Unfit`] if they can, and an operator has to mend them.
    pub async fn prepare(&self, within: Duration) -> Result<bool, StoreError> {
        let reaching = async {
            loop {
                match self.ready().await {
                    Ok(_) => return Ok(true),
                    Err(StoreError::Unreachable(why)) => debug!("NATS: {why}"),
                    Err(unfit @ StoreError::Unfit(_)) => return Err(unfit),
                }
                sleep(PREPARE_PAUSE).await;
            }
        };
        timeout(within, reaching).await.unwrap_or(Ok(false))
    }

    fn known(&self) -> MutexGuard<'_, Option<Arc<Ready>>> {
        self.shared.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ready(&self) -> Result<Arc<Ready>, StoreError> {
        if self.shared.context.client().connection_state() != State::Connected {
            return Err(StoreError::Unreachable("not connected".to_owned()));
        }
        if let Some(ready) = &*self.known() {
            return Ok(ready.clone());
        }
        let nats = self.clone();
        // In a task of its own: who listens to several things at once does not poll a watch while it does something about another,
        // and would hold the lock, or a place in the queue for it, for ever.
        let looked = tokio::spawn(async move { nats.look().await });
        looked.await.map_err(|_| StoreError::Unreachable("this process ends".to_owned()))?
    }

    async fn look(&self) -> Result<Arc<Ready>, StoreError> {
        let asked = Instant::now();
        let mut last = self.shared.looking.lock().await;
        if let Some(ready) = &*self.known() {
            return Ok(ready.clone());
        }
        // Or each of those who wait would take as long again, and the last of them a minute.
        let is_enough = |failed: &&Failed| failed.began >= asked || failed.is_lasting();
        if let Some(failed) = last.as_ref().filter(is_enough) {
            return Err(failed.error.clone());
        }
        let began = Instant::now();
        let made = timeout(REQUEST_MAX, setup::prepare(&self.shared.context, self.shared.replicas)).await;
        let made = made.unwrap_or_else(|_| Err(StoreError::Unreachable("no answer in time".to_owned())));
        let unfit = match &made {
            Ok(_) => Some(None),
            Err(StoreError::Unfit(why)) => Some(Some(why.clone())),
            Err(StoreError::Unreachable(_)) => None,
        };
        if let Some(unfit) = unfit {
            *self.shared.unfit.lock().unwrap_or_else(PoisonError::into_inner) = unfit;
        }
        *last = made.as_ref().err().map(|error| Failed { began, error: error.clone() });
        let made = Arc::new(made?);
        *self.known() = Some(made.clone());
        Ok(made)
    }

    /// What a call failed with. Whatever it was, the servers are looked at before the next one: they may have been emptied.
    fn failed(&self, error: impl fmt::Display) -> StoreError {
        *self.known() = None;
        unreachable(error)
    }

    /// Why what wants to be the next revision of a key was not taken.
    fn not_written(&self, error: &UpdateError) -> WriteError {
        if error.kind() == UpdateErrorKind::WrongLastRevision || is_overtaken(error) {
            return WriteError::Conflict;
        }
        self.failed(error).into()
    }

    /// Leaves a server by which nothing can be written for another one; told what became of the newest write.
    async fn leave_if_stranded(&self, is_answered: bool) {
        let client = self.shared.context.client();
        let connection = (client.connection_state() == State::Connected).then(|| *self.shared.lost.borrow());
        let is_stranded = {
            let mut stranded = self.shared.stranded.lock().unwrap_or_else(PoisonError::into_inner);
            stranded.told(is_answered, connection, Instant::now())
        };
        if is_stranded {
            let _client_gone = client.force_reconnect().await;
        }
    }

    /// What was written last under a key, a mark that it is deleted included; asked of the server that decides what is written. Where
    /// any replica may answer, NATS asks one at random: it may be behind, so that who has just claimed a stream would read that it
    /// has lost it, or beyond a cut that its neighbours do not notice for a minute or two, in which every third question would be lost.
    async fn last(&self, bucket: Bucket, key: &Key) -> Result<Option<StreamMessage>, StoreError> {
        let ready = self.ready().await?;
        let bucket = ready.bucket(bucket);
        let subject = format!("{}{key}", bucket.prefix);
        match bucket.stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Ends when the connection that there is now is lost. The client makes consumers anew after that, each under one name however
    /// often it tries; one that the servers have put on a member that just died, and that they think is there, is then waited for
    /// until that member is back.
    fn connection(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut lost = self.shared.lost.clone();
        lost.mark_unchanged();
        async move {
            let _client_gone = lost.changed().await;
        }
    }

    /// One turn of listening to a bucket, until the connection or its consumer is lost.
    async fn watch_once(&self, bucket: Bucket) -> Result<BoxStream<'static, Change>, StoreError> {
        let connection = self.connection();
        let ready = self.ready().await?;
        let watch = match ready.bucket(bucket).watch_with_history(">").await {
            Ok(watch) => watch,
            Err(error) => return Err(self.failed(error)),
        };
        let change = |entry: kv::Entry| Change {
            key: Key::from_store(&entry.key),
            revision: Revision(entry.revision),
            value: (entry.operation == Operation::Put).then_some(entry.value),
        };
        Ok(watch
            .map_ok(change)
            .take_while(|change| std::future::ready(change.is_ok()))
            .filter_map(|change| async { change.ok() })
            .take_until(connection)
            .boxed())
    }

    /// Of the log, from `start` on.
    async fn consumer(
        &self,
        ready: &Ready,
        start: DeliverPolicy,
    ) -> Result<consumer::Consumer<pull::OrderedConfig>, StoreError> {
        let config = pull::OrderedConfig { deliver_policy: start, ..pull::OrderedConfig::default() };
        let consumer = match ready.events.create_consumer(config).await {
            Ok(consumer) => consumer,
            Err(error) => return Err(self.failed(error)),
        };
        let made = consumer.cached_info().config.deliver_policy;
        if made != start {
            let why = format!("NATS makes a reader of events from {made:?} where {start:?} was asked for");
            return Err(StoreError::Unfit(why));
        }
        Ok(consumer)
    }

    async fn follow_once(
        &self,
        after: Sequence,
    ) -> Result<BoxStream<'static, (Sequence, Bytes)>, StoreError> {
        let connection = self.connection();
        let ready = self.ready().await?;
        let start = DeliverPolicy::ByStartSequence { start_sequence: after.0.saturating_add(1) };
        let consumer = self.consumer(&ready, start).await?;
        let messages = match consumer.messages().await {
            Ok(messages) => messages,
            Err(error) => return Err(self.failed(error)),
        };
        let event = |message: jetstream::Message| {
            let sequence = message.info().ok()?.stream_sequence;
            Some((Sequence(sequence), message.message.payload.clone()))
        };
        Ok(messages
            .take_while(|message| std::future::ready(message.is_ok()))
            .filter_map(move |message| std::future::ready(message.ok().and_then(event)))
            .take_until(connection)
            .boxed())
    }
}

/// Whether another write of the key is on its way to the replicas: that has an error of its own, which the client does not know.
fn is_overtaken(error: &UpdateError) -> bool {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |&error| error.source())
        .filter_map(|error| error.downcast_ref::<jetstream::Error>())
        .any(|error| error.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

fn is_deleted(message: &StreamMessage) -> bool {
    DELETED.iter().any(|&header| message.headers.get(header).is_some())
}

fn unreachable(error: impl fmt::Display) -> StoreError {
    StoreError::Unreachable(error.to_string())
}

#[async_trait]
impl Store for Nats {
    async fn get(&self, bucket: Bucket, key: &Key) -> Result<Option<Entry>, StoreError> {
        let there = self.last(bucket, key).await?.filter(|message| !is_deleted(message));
        Ok(there.map(|message| Entry { value: message.payload, revision: Revision(message.sequence) }))
    }

    async fn put(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, StoreError> {
        let written = async {
            let written = self.ready().await?.bucket(bucket).put(key.as_str(), value).await;
            written.map(Revision).map_err(|error| self.failed(error))
        };
        let written = written.await;
        // A node puts its word every few seconds.
        self.leave_if_stranded(!matches!(written, Err(StoreError::Unreachable(_)))).await;
        written
    }

    async fn create(&self, bucket: Bucket, key: &Key, value: Bytes) -> Result<Revision, WriteError> {
        let written = self.update(bucket, key, value.clone(), NOTHING).await;
        if !matches!(written, Err(WriteError::Conflict)) {
            return written;
        }
        match self.last(bucket, key).await? {
            Some(mark) if is_deleted(&mark) => self.update(bucket, key, value, Revision(mark.sequence)).await,
            _ => Err(WriteError::Conflict),
        }
    }

    async fn update(
        &self,
        bucket: Bucket,
        key: &Key,
        value: Bytes,
        read: Revision,
    ) -> Result<Revision, WriteError> {
        match self.ready().await?.bucket(bucket).update(key.as_str(), value, read.0).await {
            Ok(revision) => Ok(Revision(revision)),
            Err(error) => Err(self.not_written(&error)),
        }
    }

    async fn delete(&self, bucket: Bucket, key: &Key, read: Revision) -> Result<(), WriteError> {
        match self.ready().await?.bucket(bucket).delete_expect_revision(key.as_str(), Some(read.0)).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.not_written(&error)),
        }
    }

    async fn count(&self, bucket: Bucket) -> Result<usize, StoreError> {
        match self.ready().await?.bucket(bucket).stream.get_info().await {
            Ok(info) => Ok(usize::try_from(info.state.messages).unwrap_or(usize::MAX)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn watch(&self, bucket: Bucket) -> BoxStream<'static, Told> {
        let turns = streams::unfold(self.clone(), move |nats| async move {
            loop {
                match nats.watch_once(bucket).await {
                    Ok(changes) => {
                        let anew = streams::once(std::future::ready(Told::Anew));
                        return Some((anew.chain(changes.map(Told::Changed)), nats));
                    }
                    Err(error) => debug!(bucket = bucket.name(), "cannot listen: {error}"),
                }
                sleep(WATCH_PAUSE).await;
            }
        });
        turns.flatten().boxed()
    }

    async fn append(&self, kind: &'static str, id: String, value: Bytes) -> Result<Sequence, StoreError> {
        self.ready().await?;
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, id);
        let subject = format!("{}.{kind}", setup::EVENTS_SUBJECT);
        let sent = self.shared.context.publish_with_headers(subject, headers, value).await;
        let sent = match sent {
            Ok(acknowledged) => acknowledged.await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(acknowledged) => Ok(Sequence(acknowledged.sequence)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn follow(&self, after: Sequence) -> BoxStream<'static, (Sequence, Bytes)> {
        let first = (self.clone(), after, None::<BoxStream<'static, (Sequence, Bytes)>>);
        let events = streams::unfold(first, |(nats, after, turn)| async move {
            let mut turn = turn;
            loop {
                if let Some(events) = &mut turn
                    && let Some((sequence, value)) = events.next().await
                {
                    return Some(((sequence, value), (nats, sequence, turn)));
                }
                turn = match nats.follow_once(after).await {
                    Ok(events) => Some(events),
                    Err(error) => {
                        debug!("cannot listen to events: {error}");
                        sleep(WATCH_PAUSE).await;
                        None
                    }
                };
            }
        });
        events.boxed()
    }

    async fn newest(&self) -> Result<Sequence, StoreError> {
        match self.ready().await?.events.get_info().await {
            Ok(info) => Ok(Sequence(info.state.last_sequence)),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The servers look where a reader from then on would begin.
    async fn before(&self, at_ms: u64) -> Result<Sequence, StoreError> {
        let ready = self.ready().await?;
        // In the year 10000 nothing has happened yet.
        let Ok(start_time) = async_nats::datetime::from_nanos(i128::from(at_ms) * 1_000_000) else {
            return self.newest().await;
        };
        let consumer = self.consumer(&ready, DeliverPolicy::ByStartTime { start_time }).await?;
        let info = consumer.cached_info();
        // It would go by itself, a while later.
        let _gone = ready.events.delete_consumer(&info.name).await;
        Ok(Sequence(info.delivered.stream_sequence))
    }

    fn unfit(&self) -> Option<String> {
        self.shared.unfit.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
