//! What operators see of all viewers by WebRTC together. No label is ever a viewer or a stream.

use net::Full;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use rtc::peer::Closed;

/// Upper bounds of the share of packets that a report tells were lost.
const LOSS: [f64; 6] = [0.0, 0.01, 0.03, 0.05, 0.1, 0.3];

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Sessions, also those that nobody has come to yet.
    pub(super) viewers: Gauge,
    pub(super) answered: Counter,
    pub(super) connected: Counter,
    pub(super) handshakes_failed: Counter,
    pub(super) panics: Counter,
    /// Packets that viewers asked for again, and those they were sent again.
    pub(super) nacked: Counter,
    pub(super) resent: Counter,
    pub(super) keyframe_requests: Counter,
    pub(super) skipped: Counter,
    /// Once a report.
    pub(super) estimate: Histogram,
    pub(super) round_trip: Histogram,
    pub(super) loss: Histogram,
    refused: Family<Reason, Counter>,
    ended: Family<Reason, Counter>,
    changes: Family<Reason, Counter>,
    renditions: Family<Named, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    /// Of the ladder; what a publisher calls its streams is not in it.
    rendition: String,
}

/// Why a viewer is turned to another rendition.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// Its path carries more or less than it did.
    Estimate,
    /// It chose itself.
    Pinned,
    /// What it was sent stood still.
    Silence,
}

impl Default for Metrics {
    fn default() -> Self {
        // 100 kbit/s to 25.6 Mbit/s, and 5 ms to 1.28 s.
        let (bits, seconds) = (exponential_buckets(100e3, 2.0, 9), exponential_buckets(0.005, 2.0, 9));
        Self {
            viewers: Gauge::default(),
            answered: Counter::default(),
            connected: Counter::default(),
            handshakes_failed: Counter::default(),
            panics: Counter::default(),
            nacked: Counter::default(),
            resent: Counter::default(),
            keyframe_requests: Counter::default(),
            skipped: Counter::default(),
            estimate: Histogram::new(bits),
            round_trip: Histogram::new(seconds),
            loss: Histogram::new(LOSS),
            refused: Family::default(),
            ended: Family::default(),
            changes: Family::default(),
            renditions: Family::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let this = self.clone();
        let whep = registry.sub_registry_with_prefix("whep");
        whep.register("viewers", "Viewers by WebRTC", this.viewers);
        whep.register("answered", "Offers of viewers by WebRTC that were answered", this.answered);
        whep.register("refused", "Offers of viewers by WebRTC that found no room, by reason", this.refused);
        whep.register("connected", "Viewers by WebRTC that were reached: ICE and DTLS", this.connected);
        whep.register(
            "handshakes_failed",
            "DTLS handshakes with viewers that failed",
            this.handshakes_failed,
        );
        whep.register("ended", "Viewers by WebRTC that are gone, by reason", this.ended);
        whep.register("panics", "Viewers by WebRTC that were dropped because of a bug of ours", this.panics);
        whep.register("packets_nacked", "RTP packets that viewers asked for again (NACK)", this.nacked);
        whep.register("packets_resent", "RTP packets that viewers were sent again (RTX)", this.resent);
        whep.register(
            "keyframe_requests",
            "Keyframes that viewers asked for (PLI, FIR)",
            this.keyframe_requests,
        );
        whep.register("skips", "Viewers too far behind who went on with a newer keyframe", this.skipped);
        whep.register("rendition_changes", "Viewers turned to another rendition, by reason", this.changes);
        whep.register("rendition_viewers", "Viewers by WebRTC of each rendition", this.renditions);
        let unit = Unit::Other("bits_per_second".to_owned());
        let help = "What the paths of viewers are taken to carry, once a report";
        whep.register_with_unit("estimate", help, unit, this.estimate);
        let help = "Round trips to viewers, once a report";
        whep.register_with_unit("round_trip", help, Unit::Seconds, this.round_trip);
        let help = "Share of the packets of a picture's track that a report tells were lost";
        whep.register_with_unit("loss", help, Unit::Ratios, this.loss);
    }

    pub(super) fn refused(&self, full: Full) {
        let reason = match full {
            Full::Total => "viewers_full",
            Full::Address => "address_full",
        };
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn ended(&self, closed: &Closed) {
        let reason = match closed {
            Closed::ByUs => "by_us",
            Closed::ByPeer => "by_viewer",
            Closed::Unreached => "unreached",
            Closed::HandshakeTimeout => "handshake_timeout",
            Closed::Handshake(_) => "handshake",
            Closed::ConsentExpired => "consent_expired",
        };
        self.ended.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn changed(&self, change: Change) {
        let reason = match change {
            Change::Estimate => "estimate",
            Change::Pinned => "pinned",
            Change::Silence => "silence",
        };
        self.changes.get_or_create(&Reason { reason }).inc();
    }

    /// A viewer goes from one rendition to another; `None` is no rendition.
    pub(super) fn moved(&self, from: Option<&str>, to: Option<&str>) {
        let viewers = |name: &str| self.renditions.get_or_create_owned(&Named { rendition: name.to_owned() });
        if let Some(from) = from {
            viewers(from).dec();
        }
        if let Some(to) = to {
            viewers(to).inc();
        }
    }
}
