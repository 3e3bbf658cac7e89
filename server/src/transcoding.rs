//! The transcode role in this process, and who has it among the others: what ingest asks, and how it starts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use media::{StreamId, TrackKind};
use relay::{StreamRegistry, TrackRecord};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use transcode::budget::Budget;
use transcode::child::{Encoders, Settings};
use transcode::ladder::LadderConfig;
use transcode::probe::Probe;
use transcode::workers::Workers;
use transcode::{Ladders, Lender, Metrics, Worker, executable};

use crate::config::Config;
use crate::standing::Standing;

/// Answers ingest from the start: with rungs until it is known that they cannot be made. A first look at the plugins takes
/// GStreamer seconds, and a stream that came meanwhile would be without a ladder for as long as it lasts; while a rung
/// that nobody makes is offered to nobody.
pub(crate) struct Transcoding {
    ladders: Ladders,
    budget: Budget,
    /// Of other nodes; `None` if there can be none.
    workers: Option<Arc<dyn Workers>>,
    /// `None` if there is no encoder, or nothing to do for it.
    executable: Option<PathBuf>,
    preferred: Vec<String>,
    data_dir: PathBuf,
    /// Of this machine. Empty until it was tried; `None` if it does not work.
    lender: OnceLock<Option<Lender>>,
    metrics: Metrics,
}

impl ingest::Ladder for Transcoding {
    fn derive(&self, id: &StreamId, tracks: &[TrackRecord], frame_rate: Option<f64>) -> Vec<TrackRecord> {
        let lent = self.workers.as_ref().map_or(0.0, |workers| workers.free());
        let free = if self.encodes_here() { self.budget.free().max(lent) } else { lent };
        let has_picture = tracks.iter().any(|track| track.codec.kind() == TrackKind::Video);
        if free <= 0.0
            && has_picture
            && self.workers.is_some()
            && self.ladders.of(id).config != LadderConfig::Off
        {
            warn!(stream.id = %id, "no node has room to encode it: it is passed through for as long as it lasts");
        }
        transcode::derive(&self.ladders, free, id, tracks, frame_rate)
    }

    fn transcodes(&self, id: &StreamId) -> bool {
        let encodes = self.encodes_here() || self.workers.as_ref().is_some_and(|others| others.free() > 0.0);
        encodes && self.ladders.of(id).config != LadderConfig::Off
    }
}

impl Transcoding {
    /// Says in words if there is no encoder. `workers`: of other nodes.
    pub(crate) fn new(config: &Config, workers: Option<Arc<dyn Workers>>, metrics: Metrics) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let ladders = config.transcode.ladder.clone();
        let find =
            || executable::find(config.transcode.encoder.as_deref()).map_err(|absent| warn!("{absent}")).ok();
        Self {
            // Who takes no publishers has no ladder of its own, and encodes what others ask for.
            executable: if config.roles.transcode && !(config.roles.ingest && ladders.is_off()) {
                find()
            } else {
                None
            },
            ladders,
            budget: Budget::new(cores),
            workers,
            preferred: config.transcode.encoders.clone(),
            data_dir: config.data_dir.clone(),
            lender: OnceLock::new(),
            metrics,
        }
    }

    /// Whether it works is found out later.
    pub(crate) fn has_encoder(&self) -> bool {
        self.executable.is_some()
    }

    /// The streams of this node of which something is made on this machine.
    pub(crate) fn made_here(&self) -> BTreeSet<StreamId> {
        self.budget.streams()
    }

    /// As far as it is known.
    fn encodes_here(&self) -> bool {
        self.executable.is_some() && self.lender.get().is_none_or(Option::is_some)
    }

    /// Of encoders for other nodes; `None` if there are none, or it is not known yet.
    pub(crate) fn lender(&self) -> Option<&Lender> {
        self.lender.get()?.as_ref()
    }

    /// Finds out what works here, and makes the rungs of `streams` until `stop`. Other nodes have to do without this one while
    /// its operator has drained it, and from `drain` on.
    pub(crate) async fn run(
        &self,
        streams: Option<StreamRegistry>,
        mut standing: watch::Receiver<Standing>,
        drain: CancellationToken,
        stop: CancellationToken,
    ) {
        let here = match &self.executable {
            Some(executable) => stop.run_until_cancelled(self.prepare(executable)).await.flatten(),
            None => None,
        };
        let lender = here.clone().map(|here| Lender::new(here, self.budget.clone(), &self.metrics));
        let lender = self.lender.get_or_init(|| lender);
        let lending = async {
            let Some(lender) = lender else { return };
            loop {
                if standing.borrow_and_update().drained {
                    lender.shut();
                } else {
                    lender.open();
                }
                tokio::select! {
                    Ok(()) = standing.changed() => {}
                    () = drain.cancelled() => break,
                }
            }
            lender.leave().await;
        };
        let encoders = match (here, self.workers.clone()) {
            (Some(here), Some(others)) => Some(here.with_workers(others)),
            (here, None) => here,
            (None, Some(others)) => Some(Encoders::lent_by(others)),
        };
        let work = async {
            if let (Some(encoders), Some(streams)) = (encoders, streams) {
                Worker::new(streams, encoders, self.budget.clone(), self.metrics.clone()).run(stop).await;
            }
        };
        tokio::join!(lending, work);
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
