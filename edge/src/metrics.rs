//! What operators see of the viewers' listener; the requests themselves are counted in `hls`.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Default)]
pub struct Metrics {
    pub(crate) connections: Gauge,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("http_connections", "Open connections of viewers", self.connections.clone());
    }
}
