//! What operators see of viewers; the requests themselves are counted in `hls`.

use std::fmt;

use hls::{Catalog, State};
use net::Full;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::audience::Audience;

#[derive(Clone, Default)]
pub struct Metrics {
    pub(crate) connections: Gauge,
    pub(crate) panics: Counter,
    pub(crate) whep: crate::whep::Metrics,
    pub(crate) audience: Audience,
    refused: Family<Labels, Counter>,
}

/// Why we ended a connection that its viewer would have kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    ConnectionsFull,
    AddressFull,
    /// What came is not HTTP, or its head is too long.
    BadRequest,
    SlowHead,
    SlowReader,
    /// Too many of one address, or in all, are under way.
    HandshakesFull,
    SlowHandshake,
    /// What came is not TLS, or not as we speak it.
    BadHandshake,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: &'static str,
}

impl From<Full> for Reason {
    fn from(full: Full) -> Self {
        match full {
            Full::Total => Self::ConnectionsFull,
            Full::Address => Self::AddressFull,
        }
    }
}

impl Reason {
    fn label(self) -> Labels {
        let reason = match self {
            Self::ConnectionsFull => "connections_full",
            Self::AddressFull => "address_full",
            Self::BadRequest => "bad_request",
            Self::SlowHead => "slow_head",
            Self::SlowReader => "slow_reader",
            Self::HandshakesFull => "handshakes_full",
            Self::SlowHandshake => "slow_handshake",
            Self::BadHandshake => "bad_handshake",
        };
        Labels { reason }
    }
}

impl Metrics {
    pub fn register(registry: &mut Registry, catalog: Catalog) -> Self {
        let metrics = Self::default();
        registry.register("http_connections", "Open connections of viewers", metrics.connections.clone());
        registry.register(
            "http_refused",
            "HTTP connections that we ended, by reason",
            metrics.refused.clone(),
        );
        registry.register(
            "http_panics",
            "HTTP connections that ended in a bug of ours",
            metrics.panics.clone(),
        );
        metrics.whep.register(registry);
        registry.register_collector(Box::new(Viewers(catalog, metrics.audience.clone())));
        metrics
    }

    /// Who watches by WebRTC.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }

    pub(crate) fn refused(&self, reason: Reason) {
        self.refused.get_or_create(&reason.label()).inc();
    }

    #[cfg(test)]
    pub(crate) fn refusals(&self, reason: Reason) -> u64 {
        self.refused.get_or_create(&reason.label()).get()
    }
}

/// Viewers of each live stream, counted when somebody asks.
struct Viewers(Catalog, Audience);

impl fmt::Debug for Viewers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Viewers")
    }
}

impl Collector for Viewers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Viewers; those by HLS are estimated from their playlist requests";
        let mut family = encoder.encode_descriptor("stream_viewers", help, None, MetricType::Gauge)?;
        // Where nobody watches by HLS an edge has no index.
        let mut viewers = self.1.all();
        for stream in self.0.streams().iter().filter(|stream| stream.state() == State::Live) {
            *viewers.entry(stream.id().clone()).or_default() += stream.status().viewers;
        }
        for (id, viewers) in viewers {
            let labels = [("app", id.app()), ("stream", id.stream())];
            ConstGauge::new(i64::from(viewers)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
