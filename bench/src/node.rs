//! The way of a frame inside this process: ingest, live log, origin, segment index, as `server` composes them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use hls::Catalog;
use ingest::{Authorize, Gate, NoCheckpoints, OnConflict, PassThrough, Policy, Publication, Secret};
use media::StreamId;
use origin::Origin;
use relay::StreamRegistry;

use crate::synthetic::{Message, Messages, Track, audio_config, video_config};

pub(crate) const DEFAULT_PART: Duration = Duration::from_millis(500);
pub(crate) const LOW_PART: Duration = Duration::from_millis(200);

pub(crate) struct Node {
    pub(crate) registry: StreamRegistry,
    pub(crate) catalog: Catalog,
    gate: Gate,
}

/// Publishes [`Messages`], as fast as it is told to.
pub(crate) struct Publisher {
    publication: Publication,
    messages: Messages,
    /// When the stream began, on both clocks.
    started: Instant,
    started_wall: SystemTime,
}

struct Anybody;

impl Authorize for Anybody {
    fn may_publish(&self, _: &StreamId, _: &Secret) -> bool {
        true
    }
}

impl Node {
    pub(crate) fn new(part_target: Duration) -> Self {
        let registry = StreamRegistry::default();
        let policy = Policy { part_target, on_conflict: OnConflict::Refuse, linger: Duration::from_secs(20) };
        let checkpoints = Arc::new(NoCheckpoints);
        let metrics = ingest::Metrics::default();
        let gate = Gate::new(
            registry.clone(),
            Arc::new(Anybody),
            policy,
            checkpoints,
            Arc::new(PassThrough),
            metrics,
        );
        Self { catalog: Catalog::new(hls::Metrics::default()), registry, gate }
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::new(self.registry.clone(), self.catalog.clone())
    }

    /// Begins the stream as if it had begun `age` ago.
    pub(crate) fn publish(&self, id: &StreamId, age: Duration) -> Result<Publisher> {
        let mut publication = self.gate.publish(id, &Secret::new(String::new()), Instant::now())?;
        let (started, started_wall) = (Instant::now() - age, SystemTime::now() - age);
        publication.video(0, video_config(), started, started_wall)?;
        publication.audio(0, audio_config(), started, started_wall)?;
        Ok(Publisher { publication, messages: Messages::new(), started, started_wall })
    }
}

impl Publisher {
    /// The message that comes next.
    pub(crate) fn next_message(&mut self) -> Message {
        self.messages.next().expect("the messages are endless")
    }

    /// When `message` is due in a stream that is sent in real time.
    pub(crate) fn due(&self, message: &Message) -> Instant {
        self.started + message.time
    }

    /// Publishes a message as if it arrived when it is due.
    pub(crate) fn push(&mut self, message: Message) -> Result<()> {
        let (now, wall) = (self.started + message.time, self.started_wall + message.time);
        let stamp = message.time.as_millis() as u32;
        match message.track {
            Track::Video => self.publication.video(stamp, message.body, now, wall)?,
            Track::Audio => self.publication.audio(stamp, message.body, now, wall)?,
        }
        Ok(())
    }
}
