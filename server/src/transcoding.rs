//! The transcode role in this process: what ingest asks it, and how it starts.

use std::path::PathBuf;
use std::sync::OnceLock;

use media::StreamId;
use relay::{StreamRegistry, TrackRecord};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transcode::budget::Budget;
use transcode::child::{Encoders, Settings};
use transcode::probe::Probe;
use transcode::{Ladders, Metrics, Worker, executable};

use crate::config::Config;

/// Answers ingest from the start, with rungs as soon as it is known that they can be made.
pub(crate) struct Transcoding {
    ladders: Ladders,
    budget: Budget,
    executable: Option<PathBuf>,
    preferred: Vec<String>,
    data_dir: PathBuf,
    encoders: OnceLock<Encoders>,
}

impl ingest::Ladder for Transcoding {
    fn derive(&self, id: &StreamId, tracks: &[TrackRecord], frame_rate: Option<f64>) -> Vec<TrackRecord> {
        match self.encoders.get() {
            Some(_) => transcode::derive(&self.ladders, &self.budget, id, tracks, frame_rate),
            None => Vec::new(),
        }
    }
}

impl Transcoding {
    pub(crate) fn new(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            ladders: config.transcode.ladder.clone(),
            budget: Budget::new(cores),
            executable: config.transcode.encoder.clone(),
            preferred: config.transcode.encoders.clone(),
            data_dir: config.data_dir.clone(),
            encoders: OnceLock::new(),
        }
    }

    /// Finds out what works here, and makes rungs until `stop`.
    pub(crate) async fn run(&self, streams: StreamRegistry, metrics: Metrics, stop: CancellationToken) {
        if self.ladders.is_off() {
            return;
        }
        let Some(encoders) = stop.run_until_cancelled(self.prepare()).await.flatten() else { return };
        let encoders = self.encoders.get_or_init(|| encoders);
        Worker::new(streams, encoders.clone(), self.budget.clone(), metrics).run(stop).await;
    }

    /// `None` if nothing works, which was said in words.
    async fn prepare(&self) -> Option<Encoders> {
        let executable =
            executable::find(self.executable.as_deref()).map_err(|absent| warn!("{absent}")).ok()?;
        let probe = Probe::run(&executable, &self.data_dir).await.map_err(|error| warn!("{error}")).ok()?;
        for (encoder, why) in &probe.failed {
            info!(encoder, "does not work here: {why}");
        }
        let order = probe.order(&self.preferred);
        if order.is_empty() {
            let (preferred, working) = (self.preferred.join(", "), probe.encoders.join(", "));
            warn!("none of {preferred} works here (but {working} does): streams are passed through");
            return None;
        }
        info!(encoders = order.join(", "), ladder = %self.ladders, "transcoding");
        Some(Encoders::new(Settings { executable, data_dir: self.data_dir.clone(), order }))
    }
}
