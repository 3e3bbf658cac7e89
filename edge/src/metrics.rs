//! What operators see of viewers; the requests themselves are counted in `hls`.

use std::fmt;

use hls::{Catalog, State};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

#[derive(Clone, Default)]
pub struct Metrics {
    pub(crate) connections: Gauge,
}

impl Metrics {
    pub fn register(registry: &mut Registry, catalog: Catalog) -> Self {
        let metrics = Self::default();
        registry.register("http_connections", "Open connections of viewers", metrics.connections.clone());
        registry.register_collector(Box::new(Viewers(catalog)));
        metrics
    }
}

/// Viewers of each live stream, counted when somebody asks.
struct Viewers(Catalog);

impl fmt::Debug for Viewers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Viewers")
    }
}

impl Collector for Viewers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Viewers, estimated from their playlist requests";
        let mut family = encoder.encode_descriptor("stream_viewers", help, None, MetricType::Gauge)?;
        for stream in self.0.streams().iter().filter(|stream| stream.state() == State::Live) {
            let labels = [("app", stream.id().app()), ("stream", stream.id().stream())];
            ConstGauge::new(i64::from(stream.status().viewers)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
