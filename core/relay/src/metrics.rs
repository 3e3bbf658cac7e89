//! What operators see of the live log.

use prometheus_client::metrics::counter::Counter;
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
