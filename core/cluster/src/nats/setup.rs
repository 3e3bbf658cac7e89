//! What has to be on the servers, made if it is not there, and compared with what is.

use std::fmt::Debug;
use std::time::Duration;

use async_nats::ServerInfo;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};
use async_nats::jetstream::{Context, ErrorCode, kv};

use tokio::try_join;
use tracing::debug;

use super::Ready;
use crate::store::{Bucket, EVENTS_AGE_MAX, StoreError};

/// Begins the name of every bucket and subject.
const PREFIX: &str = "tidecast";
pub(super) const EVENTS_SUBJECT: &str = "tidecast.event";
const EVENTS: &str = "TIDECAST_EVENTS";

/// Of the log.
const EVENTS_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// Within which an event that is sent twice is one.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Debian 12 has it; older ones were not tried.
const VERSION_MIN: [u32; 3] = [2, 9, 10];

/// What JetStream answers as long as nobody mends it. All else may pass: a leader is being elected, a server is starting.
const LASTING: [ErrorCode; 8] = [
    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
    ErrorCode::MAXIMUM_STREAMS_LIMIT,
    ErrorCode::MEMORY_RESOURCES_EXCEEDED,
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::STREAM_INVALID_CONFIG,
    ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED,
    ErrorCode::STREAM_SUBJECT_OVERLAP,
];

pub(super) async fn prepare(context: &Context, replicas: usize) -> Result<Ready, StoreError> {
    if let Some(why) = too_old(&context.client().server_info().version) {
        return Err(StoreError::Unfit(why));
    }
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
    let bucket = |of| bucket(context, of, replicas);
    let [nodes, streams, sessions, orders, trust, config, readers] = Bucket::ALL.map(bucket);
    // All at once: a call to the store waits for them.
    let (nodes, streams, sessions, orders, trust, config, readers, events) =
        try_join!(nodes, streams, sessions, orders, trust, config, readers, stream(context, events))?;
    Ok(Ready { buckets: [nodes, streams, sessions, orders, trust, config, readers], events })
}

/// Why a server of that version is not taken. Before the first connection there is none.
fn too_old(version: &str) -> Option<String> {
    let numbers: Vec<u32> =
        version.split(['.', '-', '+']).take(3).map_while(|number| number.parse().ok()).collect();
    if version.is_empty() || numbers.len() == 3 && numbers[..] >= VERSION_MIN[..] {
        return None;
    }
    let [major, minor, patch] = VERSION_MIN;
    let oldest = format!("{major}.{minor}.{patch}");
    Some(format!("nats-server {version} is too old, {oldest} is the oldest that works: install a newer one"))
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
        // Any replica answers then, also one that is behind: for others who look. We ask the leader (`Nats::last`).
        allow_direct: bucket != Bucket::Readers,
        num_replicas: replicas,
        ..Config::default()
    };
    stream(context, config).await?;
    context.get_key_value(name).await.map_err(super::unreachable)
}

async fn stream(context: &Context, wanted: Config) -> Result<Stream, StoreError> {
    let made = context.get_or_create_stream(wanted.clone()).await;
    let stream = made.map_err(|error| not_made(&context.client().server_info(), &wanted.name, &error))?;
    let (name, there) = (&wanted.name, &stream.cached_info().config);
    for other in lesser(there, &wanted) {
        debug!("of the stream {name} {other}");
    }
    let others = others(there, &wanted);
    if others.is_empty() {
        return Ok(stream);
    }
    Err(StoreError::Unfit(format!(
        "of the stream {name} {}; `nats stream edit {name}` changes what can be changed, and once it was deleted, while no node \
         runs, it is made anew",
        others.join(", ")
    )))
}

fn not_made(server: &ServerInfo, name: &str, error: &CreateStreamError) -> StoreError {
    match error.kind() {
        // In a cluster another server may have it, and not be there yet.
        CreateStreamErrorKind::JetStreamUnavailable if !server.jetstream && server.cluster.is_none() => {
            StoreError::Unfit("nats-server runs without JetStream: start it with -js".to_owned())
        }
        CreateStreamErrorKind::JetStream(why) if LASTING.contains(&why.error_code()) => {
            StoreError::Unfit(format!("NATS does not make the stream {name}: {why}"))
        }
        _ => super::unreachable(error),
    }
}

/// What an operator may have otherwise: how safe it is, and how much the log of events keeps.
fn lesser(there: &Config, wanted: &Config) -> Vec<String> {
    let replicas = (there.num_replicas < wanted.num_replicas).then(|| {
        let (less, wanted) = (there.num_replicas, wanted.num_replicas);
        format!(
            "num_replicas is {less} and cluster.nats_replicas {wanted}: `nats stream edit` makes it as many"
        )
    });
    let room = [
        other("max_bytes", &limit(there.max_bytes), &limit(wanted.max_bytes)),
        other("max_age", &there.max_age, &wanted.max_age),
    ];
    let room = room.into_iter().flatten().filter(|_| is_log(wanted));
    replicas.into_iter().chain(room).collect()
}

/// And no bucket.
fn is_log(wanted: &Config) -> bool {
    wanted.max_messages_per_subject == 0
}

/// Servers write "no limit" so.
fn limit(value: i64) -> i64 {
    if value <= 0 { -1 } else { value }
}

/// What is otherwise there than it has to be, in words. Servers pass over options that they do not know.
fn others(there: &Config, wanted: &Config) -> Vec<String> {
    let window = |config: &Config| {
        // The server chooses it where it is not wanted.
        if wanted.duplicate_window.is_zero() { Duration::ZERO } else { config.duplicate_window }
    };
    let of_bucket = |told: Option<String>| told.filter(|_| !is_log(wanted));
    let all = [
        other("subjects", &there.subjects, &wanted.subjects),
        other("retention", &there.retention, &wanted.retention),
        other("max_msgs", &limit(there.max_messages), &limit(wanted.max_messages)),
        other(
            "max_msgs_per_subject",
            &limit(there.max_messages_per_subject),
            &limit(wanted.max_messages_per_subject),
        ),
        of_bucket(other("max_bytes", &limit(there.max_bytes), &limit(wanted.max_bytes))),
        other("max_msg_size", &limit(there.max_message_size.into()), &limit(wanted.max_message_size.into())),
        of_bucket(other("max_age", &there.max_age, &wanted.max_age)),
        other("duplicate_window", &window(there), &window(wanted)),
        other("discard", &there.discard, &wanted.discard),
        other("discard_new_per_subject", &there.discard_new_per_subject, &wanted.discard_new_per_subject),
        other("storage", &there.storage, &wanted.storage),
        other("no_ack", &there.no_ack, &wanted.no_ack),
        other("allow_rollup_hdrs", &there.allow_rollup, &wanted.allow_rollup),
        other("deny_delete", &there.deny_delete, &wanted.deny_delete),
        other("allow_direct", &there.allow_direct, &wanted.allow_direct),
    ];
    all.into_iter().flatten().collect()
}

fn other<T: PartialEq + Debug>(field: &str, there: &T, wanted: &T) -> Option<String> {
    (there != wanted).then(|| format!("{field} is {there:?} and has to be {wanted:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_debian_12_is_taken_and_older_ones_are_refused_in_words() {
        for version in ["2.9.10", "2.9.25", "2.10.0-beta.1", "2.15.1", "3.0.0", "10.0.0", ""] {
            assert_eq!(too_old(version), None, "{version}");
        }
        for version in ["2.9.9", "2.8.4", "1.4.1", "2.2.0-RC.1", "2.9", "nightly"] {
            let why = too_old(version).unwrap();
            assert!(why.contains(version) && why.contains("2.9.10 is the oldest"), "{why}");
        }
    }

    #[test]
    fn what_is_otherwise_is_named_with_what_it_has_to_be() {
        let wanted =
            Config { max_messages_per_subject: 1, deny_delete: true, num_replicas: 3, ..Config::default() };
        let as_told = Config { max_messages: -1, max_message_size: -1, ..wanted.clone() };
        assert_eq!(others(&as_told, &wanted), [""; 0]);
        let there = Config { max_bytes: 10, deny_delete: false, ..wanted.clone() };
        assert_eq!(
            others(&there, &wanted),
            ["max_bytes is 10 and has to be -1", "deny_delete is false and has to be true"]
        );
    }

    #[test]
    fn how_much_is_kept_and_how_often_is_the_operator_s_to_say() {
        let wanted = Config { max_bytes: 10, num_replicas: 3, ..Config::default() };
        for (replicas, told) in [(5, 0), (3, 0), (1, 1)] {
            let there = Config { num_replicas: replicas, ..wanted.clone() };
            assert_eq!(
                (others(&there, &wanted).len(), lesser(&there, &wanted).len()),
                (0, told),
                "{replicas}"
            );
        }
        let there = Config { max_bytes: -1, max_age: Duration::from_secs(9), ..wanted.clone() };
        assert_eq!((others(&there, &wanted).len(), lesser(&there, &wanted).len()), (0, 2));
    }
}
