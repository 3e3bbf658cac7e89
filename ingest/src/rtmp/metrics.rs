//! What the RTMP server counts.

use std::fmt;

use net::Full;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Counters of all connections; clones count together. No label is ever a name or a key.
#[derive(Clone, Default)]
pub struct Metrics {
    pub(super) connections: Gauge,
    pub(super) accepted: Counter,
    pub(super) bytes: Counter,
    pub(super) panics: Counter,
    refused: Family<Labels, Counter>,
}

/// Why we ended a connection that its publisher would have kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    ConnectionsFull,
    AddressFull,
    WrongKey,
    TooManyGuesses,
    NameTaken,
    BadName,
    Play,
    Protocol,
    Timeout,
    Unsupported,
    TakenOver,
    Draining,
    HandshakesFull,
    BadHandshake,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: Reason,
}

impl From<Full> for Reason {
    fn from(full: Full) -> Self {
        match full {
            Full::Total => Self::ConnectionsFull,
            Full::Address => Self::AddressFull,
        }
    }
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let text = match self {
            Self::ConnectionsFull => "connections_full",
            Self::AddressFull => "address_full",
            Self::WrongKey => "wrong_key",
            Self::TooManyGuesses => "too_many_guesses",
            Self::NameTaken => "name_taken",
            Self::BadName => "bad_name",
            Self::Play => "play",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Unsupported => "unsupported",
            Self::TakenOver => "taken_over",
            Self::Draining => "draining",
            Self::HandshakesFull => "handshakes_full",
            Self::BadHandshake => "bad_handshake",
            Self::Failed => "failed",
        };
        EncodeLabelValue::encode(&text, encoder)
    }
}

impl Metrics {
    /// Registers everything under the prefix `rtmp`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("rtmp");
        registry.register("connections", "RTMP connections open now", metrics.connections.clone());
        registry.register("accepted", "RTMP connections accepted", metrics.accepted.clone());
        registry.register("refused", "RTMP connections that we ended, by reason", metrics.refused.clone());
        registry.register("panics", "RTMP connections that ended in a bug of ours", metrics.panics.clone());
        registry.register_with_unit("received", "Bytes from publishers", Unit::Bytes, metrics.bytes.clone());
        metrics
    }

    pub(super) fn refused(&self, reason: Reason) -> Counter {
        self.refused.get_or_create_owned(&Labels { reason })
    }
}
