//! The transcode role in this process: what ingest asks it, and how it starts.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use media::StreamId;
use relay::{StreamRegistry, TrackRecord};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transcode::budget::Budget;
use transcode::child::{Encoders, Settings};
use transcode::ladder::LadderConfig;
use transcode::probe::Probe;
use transcode::{Ladders, Metrics, Worker, executable};

use crate::config::Config;

/// Answers ingest from the start: with rungs until it is known that they cannot be made. A first look at the plugins takes
/// GStreamer seconds, and a stream that came meanwhile would be without a ladder for as long as it lasts; while a rung
/// that nobody makes is offered to nobody.
pub(crate) struct Transcoding {
    ladders: Ladders,
    budget: Budget,
    /// `None` if there is no encoder, or nothing to do for it.
    executable: Option<PathBuf>,
    preferred: Vec<String>,
    data_dir: PathBuf,
    /// Empty until it was tried; `None` if it does not work.
    encoders: OnceLock<Option<Encoders>>,
}

impl ingest::Ladder for Transcoding {
    fn derive(&self, id: &StreamId, tracks: &[TrackRecord], frame_rate: Option<f64>) -> Vec<TrackRecord> {
        if !self.can_encode() {
            return Vec::new();
        }
        transcode::derive(&self.ladders, &self.budget, id, tracks, frame_rate)
    }

    fn transcodes(&self, id: &StreamId) -> bool {
        self.can_encode() && self.ladders.of(id).config != LadderConfig::Off
    }
}

impl Transcoding {
    /// Says in words if there is no encoder.
    pub(crate) fn new(config: &Config) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let ladders = config.transcode.ladder.clone();
        let find =
            || executable::find(config.transcode.encoder.as_deref()).map_err(|absent| warn!("{absent}")).ok();
        Self {
            executable: if ladders.is_off() || !config.roles.transcode { None } else { find() },
            ladders,
            budget: Budget::new(cores),
            preferred: config.transcode.encoders.clone(),
            data_dir: config.data_dir.clone(),
            encoders: OnceLock::new(),
        }
    }

    /// As far as it is known.
    fn can_encode(&self) -> bool {
        self.executable.is_some() && self.encoders.get().is_none_or(Option::is_some)
    }

    /// Finds out what works here, and makes rungs until `stop`.
    pub(crate) async fn run(&self, streams: StreamRegistry, metrics: Metrics, stop: CancellationToken) {
        let Some(executable) = &self.executable else { return };
        let Some(encoders) = stop.run_until_cancelled(self.prepare(executable)).await else { return };
        if let Some(encoders) = self.encoders.get_or_init(|| encoders) {
            Worker::new(streams, encoders.clone(), self.budget.clone(), metrics).run(stop).await;
        }
    }

    /// `None` if nothing works, which was said in words.
    async fn prepare(&self, executable: &Path) -> Option<Encoders> {
        let probe = Probe::run(executable, &self.data_dir).await.map_err(|error| warn!("{error}")).ok()?;
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
        let (executable, data_dir) = (executable.to_owned(), self.data_dir.clone());
        Some(Encoders::new(Settings { executable, data_dir, order }))
    }
}
