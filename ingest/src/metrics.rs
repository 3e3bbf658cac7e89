//! What operators see of publications.

use media::StreamId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use relay::Facts;

use crate::cutter::Counts;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StreamLabels {
    app: String,
    stream: String,
}

type PerStream<M> = Family<StreamLabels, M>;

/// Gauges carry the stream's name and exist only while it is published; counters are the node's.
#[derive(Clone, Default)]
pub struct Metrics {
    streams: Gauge,
    bits_per_second: PerStream<Gauge>,
    frames_per_second: PerStream<Gauge<f64, std::sync::atomic::AtomicU64>>,
    keyframe_interval_seconds: PerStream<Gauge<f64, std::sync::atomic::AtomicU64>>,
    audio_anchors: Counter,
    units_dropped: Counter,
    parts_over_target: Counter,
    segments_forced: Counter,
    discontinuities: Counter,
    late_units: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let this = metrics.clone();
        registry.register("streams", "Streams being published here", this.streams);
        registry.register("stream_bits_per_second", "Bit rate of all tracks together", this.bits_per_second);
        registry.register("stream_frames_per_second", "Frame rate of the video", this.frames_per_second);
        registry.register(
            "stream_keyframe_interval_seconds",
            "Newest distance of two keyframes",
            this.keyframe_interval_seconds,
        );
        registry.register("audio_anchors", "Audio clocks anchored anew", this.audio_anchors);
        registry.register("units_dropped", "Access units that could not be used", this.units_dropped);
        registry.register("cut_parts_over_target", "Parts longer than PART-TARGET", this.parts_over_target);
        registry.register("cut_segments_forced", "Segments without a keyframe", this.segments_forced);
        registry.register("cut_discontinuities", "Breaks of the timeline", this.discontinuities);
        registry.register("cut_late_units", "Access units that belong to no part", this.late_units);
        metrics
    }

    pub(crate) fn stream(&self, id: &StreamId) -> StreamMetrics {
        self.streams.inc();
        StreamMetrics {
            metrics: self.clone(),
            labels: StreamLabels { app: id.app().to_owned(), stream: id.stream().to_owned() },
            told: Counts::default(),
        }
    }

    pub(crate) fn unit_dropped(&self) {
        self.units_dropped.inc();
    }
}

/// The metrics of one publication; its gauges go with it.
pub(crate) struct StreamMetrics {
    metrics: Metrics,
    labels: StreamLabels,
    /// Counts already added to the node's counters.
    told: Counts,
}

impl StreamMetrics {
    /// `audio_anchors`: since the last call; the counts are all there have been.
    pub(crate) fn tell(&mut self, facts: &Facts, counts: Counts, audio_anchors: u32) {
        let metrics = &self.metrics;
        metrics.bits_per_second.get_or_create(&self.labels).set(i64::from(facts.bits_per_second));
        if let Some(rate) = facts.frame_rate {
            metrics.frames_per_second.get_or_create(&self.labels).set(rate);
        }
        if let Some(interval_s) = facts.keyframe_interval_s {
            metrics.keyframe_interval_seconds.get_or_create(&self.labels).set(interval_s);
        }
        metrics.parts_over_target.inc_by(counts.parts_over_target - self.told.parts_over_target);
        metrics.segments_forced.inc_by(counts.segments_forced - self.told.segments_forced);
        metrics.discontinuities.inc_by(counts.discontinuities - self.told.discontinuities);
        metrics.late_units.inc_by(counts.late_units - self.told.late_units);
        metrics.audio_anchors.inc_by(audio_anchors.into());
        self.told = counts;
    }
}

impl Drop for StreamMetrics {
    fn drop(&mut self) {
        self.metrics.streams.dec();
        self.metrics.bits_per_second.remove(&self.labels);
        self.metrics.frames_per_second.remove(&self.labels);
        self.metrics.keyframe_interval_seconds.remove(&self.labels);
    }
}
