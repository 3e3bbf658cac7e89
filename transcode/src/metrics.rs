//! What operators see of jobs and rungs.

use std::sync::atomic::AtomicU64;

use media::StreamId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::job::{Counters, Supervisor};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RungLabels {
    app: String,
    stream: String,
    rendition: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EncoderLabels {
    encoder: String,
}

type PerRung<M> = Family<RungLabels, M>;

/// Those of a rung carry its stream's name and exist only while it is made; the others are the node's.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    jobs: Gauge,
    rungs: Gauge,
    pub(crate) lent: Gauge,
    units_in: Counter,
    units_dropped: Counter,
    starts: Counter,
    failures: Counter,
    overloads: Counter,
    missed_keys: Counter,
    unexpected_keys: Counter,
    encoders: Family<EncoderLabels, Counter>,
    units_out: PerRung<Counter>,
    bytes_out: PerRung<Counter>,
    lag_seconds: PerRung<Gauge<f64, AtomicU64>>,
    cores: PerRung<Gauge<f64, AtomicU64>>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let this = metrics.clone();
        registry.register("transcode_jobs", "Tracks that something is made of here", this.jobs);
        registry.register("transcode_rungs", "Renditions that an encoder process is at work on", this.rungs);
        registry.register("transcode_lent", "Encoder processes that other nodes have borrowed", this.lent);
        registry.register("transcode_units_in", "Access units of sources", this.units_in);
        registry.register(
            "transcode_units_dropped",
            "Access units that an encoder had no room for",
            this.units_dropped,
        );
        registry.register(
            "transcode_encoders_started",
            "Encoder processes started for a job, or asked of another node",
            this.starts,
        );
        registry.register("transcode_failures", "Encoder processes that failed", this.failures);
        registry.register(
            "transcode_overloads",
            "Times a job was made cheaper because it fell behind",
            this.overloads,
        );
        registry.register(
            "transcode_missed_keys",
            "Keyframes that were forced and did not come",
            this.missed_keys,
        );
        registry.register(
            "transcode_unexpected_keys",
            "Keyframes that nobody asked for",
            this.unexpected_keys,
        );
        registry.register(
            "transcode_encoders_ready",
            "Encoder processes that began to encode",
            this.encoders,
        );
        registry.register("transcode_units_out", "Access units of a rung", this.units_out);
        registry.register("transcode_bytes_out", "Bytes of a rung's access units", this.bytes_out);
        registry.register(
            "transcode_lag_seconds",
            "How far the job of a rung is behind its source",
            this.lag_seconds,
        );
        registry.register(
            "transcode_cores",
            "Processor time per second of media, of the job of a rung",
            this.cores,
        );
        metrics
    }

    pub(crate) fn job<'a>(&self, stream: &StreamId, rungs: impl Iterator<Item = &'a str>) -> JobMetrics {
        self.jobs.inc();
        let labels = rungs.map(|rendition| RungLabels {
            app: stream.app().to_owned(),
            stream: stream.stream().to_owned(),
            rendition: rendition.to_owned(),
        });
        let rungs = labels.map(|labels| {
            let units = self.units_out.get_or_create(&labels).clone();
            let bytes = self.bytes_out.get_or_create(&labels).clone();
            (labels, units, bytes)
        });
        JobMetrics { metrics: self.clone(), rungs: rungs.collect(), made: 0, told: Counters::default() }
    }
}

/// The metrics of one job; those of its rungs go with it.
#[derive(Debug)]
pub(crate) struct JobMetrics {
    metrics: Metrics,
    rungs: Vec<(RungLabels, Counter, Counter)>,
    /// In the node's gauge.
    made: i64,
    /// Counts already added to the node's counters.
    told: Counters,
}

impl JobMetrics {
    /// So many are at work now.
    pub(crate) fn made(&mut self, rungs: usize) {
        let rungs = i64::try_from(rungs).unwrap_or(i64::MAX);
        self.metrics.rungs.inc_by(rungs - std::mem::replace(&mut self.made, rungs));
    }

    pub(crate) fn unit_in(&self) {
        self.metrics.units_in.inc();
    }

    pub(crate) fn unit_dropped(&self) {
        self.metrics.units_dropped.inc();
    }

    pub(crate) fn unit_out(&self, rung: u16, bytes: usize) {
        if let Some((_, units_out, bytes_out)) = self.rungs.get(usize::from(rung)) {
            units_out.inc();
            bytes_out.inc_by(bytes as u64);
        }
    }

    pub(crate) fn ready(&self, encoder: &str) {
        self.metrics.encoders.get_or_create(&EncoderLabels { encoder: encoder.to_owned() }).inc();
    }

    pub(crate) fn progress(&self, supervisor: &Supervisor) {
        for (labels, ..) in &self.rungs {
            self.metrics.lag_seconds.get_or_create(labels).set(supervisor.lag().as_secs_f64());
            self.metrics.cores.get_or_create(labels).set(supervisor.cost().unwrap_or(0.0));
        }
    }

    /// All there have been.
    pub(crate) fn counters(&mut self, counters: Counters) {
        let (metrics, told) = (&self.metrics, self.told);
        metrics.starts.inc_by(counters.starts - told.starts);
        metrics.failures.inc_by(counters.failures - told.failures);
        metrics.overloads.inc_by(counters.overloads - told.overloads);
        metrics.missed_keys.inc_by(counters.missed_keys - told.missed_keys);
        metrics.unexpected_keys.inc_by(counters.unexpected_keys - told.unexpected_keys);
        self.told = counters;
    }
}

impl Drop for JobMetrics {
    fn drop(&mut self) {
        self.metrics.jobs.dec();
        self.metrics.rungs.dec_by(self.made);
        for (labels, ..) in &self.rungs {
            self.metrics.units_out.remove(labels);
            self.metrics.bytes_out.remove(labels);
            self.metrics.lag_seconds.remove(labels);
            self.metrics.cores.remove(labels);
        }
    }
}
