//! What reads a publisher's media and a session of the last run, each behind one function, for `fuzz/` and for the
//! replay of what it found; compiled for nothing else. Each says whether it understood the bytes, and panics where a
//! promise is broken.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use media::StreamId;
use relay::StreamRegistry;

use crate::{
    Announced, Authorize, Checkpoint, Gate, Metrics, NoCheckpoints, OnConflict, PassThrough, Policy,
    PublishError, Secret,
};

const LINGER: Duration = Duration::from_secs(20);

/// Of a checkpoint that `server` goes on with.
const AGE_MAX_MS: u64 = 60_000;

struct Anybody;

impl Authorize for Anybody {
    fn may_publish(&self, _: &StreamId, _: &Secret) -> bool {
        true
    }
}

/// A gate with a clock that is moved by hand.
struct Node {
    gate: Gate,
    registry: StreamRegistry,
    now: Instant,
    wall: SystemTime,
}

impl Node {
    fn new() -> Self {
        let registry = StreamRegistry::default();
        let policy = Policy {
            part_target: Duration::from_millis(500),
            on_conflict: OnConflict::Takeover,
            linger: LINGER,
        };
        let checkpoints = Arc::new(NoCheckpoints);
        let gate = Gate::new(
            registry.clone(),
            Arc::new(Anybody),
            policy,
            checkpoints,
            Arc::new(PassThrough),
            Metrics::default(),
        );
        let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Self { gate, registry, now: Instant::now(), wall }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.wall += time;
        self.gate.tick(self.now, self.wall);
    }
}

/// One thing that a publisher does.
struct Act {
    kind: u8,
    wait: Duration,
    stamp: u32,
    body: Bytes,
}

impl Act {
    /// Kind, how long it takes in milliseconds (two bytes), the stamp (four), the length of the body (two), and that.
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        let wait = Duration::from_millis(bytes.try_get_u16().ok()?.into());
        let stamp = bytes.try_get_u32().ok()?;
        let length = usize::from(bytes.try_get_u16().ok()?).min(bytes.len());
        let (body, rest) = bytes.split_at(length);
        *bytes = rest;
        Some(Self { kind, wait, stamp, body: Bytes::copy_from_slice(body) })
    }
}

/// Media of a publisher, as it comes out of an RTMP session, over any time; it goes and comes back. Understood when
/// viewers have a playlist.
pub fn publication(mut bytes: &[u8]) -> bool {
    let mut node = Node::new();
    let (id, key) = (StreamId::new("live", "cam").expect("a name"), Secret::new(String::new()));
    let (mut publication, mut visible) = (None, false);
    while let Some(Act { kind, wait, stamp, body }) = Act::read(&mut bytes) {
        node.pass(wait);
        let mut current = match publication.take() {
            Some(current) => current,
            None => match node.gate.publish(&id, &key, node.now) {
                Ok(fresh) => fresh,
                Err(_) => return visible,
            },
        };
        let heard: Result<(), PublishError> = match kind % 5 {
            0 => current.video(stamp, body, node.now, node.wall),
            1 => current.audio(stamp, body, node.now, node.wall),
            2 => {
                let (video, audio) = (stamp & 1 != 0, stamp & 2 != 0);
                current.announce(Announced { video, audio, ..Announced::default() });
                Ok(())
            }
            3 => {
                current.goodbye();
                continue;
            }
            // The connection is lost.
            _ => continue,
        };
        current.lead(node.now);
        match heard {
            Ok(()) => publication = Some(current),
            Err(error) => _ = error.to_string(),
        }
        visible |= node.registry.get(&id).is_some_and(|stream| {
            let record = stream.record().borrow().clone();
            record.is_some_and(|record| record.live.is_some())
        });
    }
    visible
}

/// A file that the last run left behind, and what comes of it: gaps until nobody has come back.
pub fn checkpoint(text: &[u8]) -> bool {
    let checkpoint = match Checkpoint::from_json(text) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            error.to_string();
            return false;
        }
    };
    assert!(Checkpoint::from_json(&checkpoint.to_json()).is_ok());
    let mut node = Node::new();
    let age_ms = node.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
        - checkpoint.written_ms();
    if age_ms.unsigned_abs() > AGE_MAX_MS {
        return false;
    }
    node.gate.restore(&checkpoint, node.now, node.wall);
    for _ in 0..3 {
        node.pass(LINGER / 2);
    }
    true
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
pub(crate) mod corpus;

#[cfg(test)]
#[test]
fn what_fuzzing_found_stays_mended() {
    corpus::replay("publication", publication);
    corpus::replay("checkpoint", checkpoint);
}
