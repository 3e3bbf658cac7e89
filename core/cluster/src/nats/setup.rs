//! What has to be on the servers, made if it is not there, and compared with what is.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};
use async_nats::jetstream::{Context, kv};

use super::Ready;
use crate::store::{Bucket, StoreError};

/// Begins the name of every bucket and subject.
const PREFIX: &str = "tidecast";
pub(super) const EVENTS_SUBJECT: &str = "tidecast.event";
const EVENTS: &str = "TIDECAST_EVENTS";

/// Of the log.
const EVENTS_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
const EVENTS_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// Within which an event that is sent twice is one.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Debian 12 has it; older ones were not tried.
const VERSION_MIN: (i64, i64, i64) = (2, 9, 10);

pub(super) async fn prepare(context: &Context, replicas: usize) -> Result<Ready, StoreError> {
    let client = context.client();
    let (major, minor, patch) = VERSION_MIN;
    let version = client.server_info().version;
    // Empty before the first connection.
    if !version.is_empty() && !client.is_server_compatible(major, minor, patch) {
        let why =
            format!("nats-server {version} is too old, {major}.{minor}.{patch} is the oldest that works");
        return Err(StoreError::Unfit(why));
    }
    let [nodes, streams, sessions, orders, trust, config] = Bucket::ALL;
    let buckets = [
        bucket(context, nodes, replicas).await?,
        bucket(context, streams, replicas).await?,
        bucket(context, sessions, replicas).await?,
        bucket(context, orders, replicas).await?,
        bucket(context, trust, replicas).await?,
        bucket(context, config, replicas).await?,
    ];
    let events = Config {
        name: EVENTS.to_owned(),
        subjects: vec![format!("{EVENTS_SUBJECT}.>")],
        max_age: EVENTS_AGE_MAX,
        max_bytes: EVENTS_BYTES_MAX,
        duplicate_window: DUPLICATE_WINDOW,
        discard: DiscardPolicy::Old,
        storage: StorageType::File,
        num_replicas: replicas,
        ..Config::default()
    };
    Ok(Ready { buckets, events: stream(context, events).await? })
}

/// As a stream of its own making: the call for buckets fails on servers before 2.10.12, which do not tell what it asks for.
async fn bucket(context: &Context, bucket: Bucket, replicas: usize) -> Result<kv::Store, StoreError> {
    let name = format!("{PREFIX}_{}", bucket.name());
    let config = Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        max_age: bucket.age_max().unwrap_or_default(),
        discard: DiscardPolicy::New,
        storage: if bucket == Bucket::Nodes { StorageType::Memory } else { StorageType::File },
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        num_replicas: replicas,
        ..Config::default()
    };
    stream(context, config).await?;
    context.get_key_value(name).await.map_err(super::unreachable)
}

async fn stream(context: &Context, wanted: Config) -> Result<Stream, StoreError> {
    let stream = context.get_or_create_stream(wanted.clone()).await.map_err(super::unreachable)?;
    let there = &stream.cached_info().config;
    // Not the replicas: an operator may have more of them meanwhile.
    let pairs = [
        ("subjects", there.subjects == wanted.subjects),
        (
            "max_msgs_per_subject",
            wanted.max_messages_per_subject == 0
                || there.max_messages_per_subject == wanted.max_messages_per_subject,
        ),
        ("max_age", there.max_age == wanted.max_age),
        ("discard", there.discard == wanted.discard),
        ("storage", there.storage == wanted.storage),
        ("allow_rollup_hdrs", there.allow_rollup == wanted.allow_rollup),
        ("allow_direct", there.allow_direct == wanted.allow_direct),
        (
            "duplicate_window",
            wanted.duplicate_window.is_zero() || there.duplicate_window == wanted.duplicate_window,
        ),
    ];
    match pairs.iter().find(|(_, is_same)| !is_same) {
        Some((field, _)) => Err(StoreError::Unfit(format!(
            "the stream {} has another {field} than it needs; delete it while no node runs, and it is made anew",
            wanted.name
        ))),
        None => Ok(stream),
    }
}
