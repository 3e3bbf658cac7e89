//! What the WHIP server counts.

use std::fmt;

use net::Full;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Counters of all publishers; clones count together. No label is ever a name or a key.
#[derive(Clone, Default)]
pub struct Metrics {
    pub(super) publishers: Gauge,
    pub(super) accepted: Counter,
    pub(super) restarts: Counter,
    pub(super) bytes: Counter,
    pub(super) packets: Counter,
    pub(super) lost: Counter,
    pub(super) reordered: Counter,
    pub(super) late: Counter,
    pub(super) nacks: Counter,
    pub(super) keyframe_requests: Counter,
    pub(super) panics: Counter,
    refused: Family<Labels, Counter>,
}

/// Why a publisher was not let in, or why we ended a session that it would have kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    PublishersFull,
    AddressFull,
    WrongKey,
    TooManyGuesses,
    NameTaken,
    /// What it offers is not taken.
    Offer,
    /// ICE or DTLS did not come about: a firewall, or an address of ours that cannot be reached.
    NotConnected,
    /// It fell silent.
    Lost,
    TakenOver,
    Draining,
    Timeout,
    Unsupported,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: Reason,
}

impl From<Full> for Reason {
    fn from(full: Full) -> Self {
        match full {
            Full::Total => Self::PublishersFull,
            Full::Address => Self::AddressFull,
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let text = match self {
            Self::PublishersFull => "publishers_full",
            Self::AddressFull => "address_full",
            Self::WrongKey => "wrong_key",
            Self::TooManyGuesses => "too_many_guesses",
            Self::NameTaken => "name_taken",
            Self::Offer => "offer",
            Self::NotConnected => "not_connected",
            Self::Lost => "lost",
            Self::TakenOver => "taken_over",
            Self::Draining => "draining",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl Metrics {
    /// Registers everything under the prefix `whip`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let this = metrics.clone();
        let registry = registry.sub_registry_with_prefix("whip");
        registry.register("publishers", "WHIP publishers now", this.publishers);
        registry.register("accepted", "WHIP offers answered", this.accepted);
        registry.register("refused", "WHIP publishers refused, or ended by us, by reason", this.refused);
        registry.register("ice_restarts", "ICE restarts of WHIP publishers", this.restarts);
        registry.register_with_unit("received", "RTP payload from WHIP publishers", Unit::Bytes, this.bytes);
        registry.register("packets", "RTP packets from WHIP publishers", this.packets);
        registry.register("packets_lost", "RTP packets given up", this.lost);
        registry.register("packets_reordered", "RTP packets out of order, put in order", this.reordered);
        registry.register("packets_late", "RTP packets twice, or after they were given up", this.late);
        registry.register("nacks", "RTP packets asked for again", this.nacks);
        registry.register("keyframe_requests", "Keyframes asked for (PLI)", this.keyframe_requests);
        registry.register("panics", "WHIP publishers that ended in a bug of ours", this.panics);
        metrics
    }

    pub(super) fn refused(&self, reason: Reason) -> Counter {
        self.refused.get_or_create_owned(&Labels { reason })
    }
}
