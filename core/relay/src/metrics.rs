//! What operators see of the live log.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Readers that were too far behind and went on at a newer keyframe.
    pub(crate) jumps: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("log_jumps", "Slow readers that jumped to a newer keyframe", metrics.jumps.clone());
        metrics
    }
}

/// What operators see of the relay's listener.
#[derive(Debug, Clone, Default)]
pub struct WireMetrics {
    pub(crate) connections: Gauge,
    pub(crate) refused: Counter,
}

impl WireMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "relay_connections",
            "Open connections of other nodes",
            metrics.connections.clone(),
        );
        registry.register(
            "relay_refused",
            "Connections to the relay that were refused",
            metrics.refused.clone(),
        );
        metrics
    }
}
