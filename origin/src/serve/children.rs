//! What operators see of the nodes that read from this one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hls::Progress;
use media::{NodeId, StreamId};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, Default)]
pub struct RelayMetrics {
    subscriptions: Gauge,
    subscribed: Counter,
    resumed: Counter,
    lost: Counter,
    sent: Counter,
    reading: Reading,
    readers: Readers,
}

/// Who reads, and how far each is. Names of nodes come from our own certificates, so they may be labels.
#[derive(Debug, Clone, Default)]
struct Reading(Arc<Mutex<Vec<Reader>>>);

type Reader = (NodeId, Weak<Progress>);

/// Subscriptions of each node to each stream, in parts or units. As many as there are connections.
#[derive(Debug, Clone, Default)]
struct Readers(Arc<Mutex<BTreeMap<StreamId, BTreeMap<NodeId, usize>>>>);

/// One subscription, counted until dropped.
pub(super) struct Child {
    node: NodeId,
    stream: StreamId,
    progress: Option<Arc<Progress>>,
    metrics: RelayMetrics,
}

impl RelayMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let relay = registry.sub_registry_with_prefix("relay");
        relay.register("subscriptions", "Streams being read by other nodes", metrics.subscriptions.clone());
        relay.register("subscribed", "Subscriptions of other nodes", metrics.subscribed.clone());
        relay.register("resumed", "Subscriptions that went on where they broke off", metrics.resumed.clone());
        relay.register("lost", "Subscriptions cut off because the node was too slow", metrics.lost.clone());
        relay.register_with_unit("sent", "Bytes of streams sent to nodes", Unit::Bytes, metrics.sent.clone());
        registry.register_collector(Box::new(metrics.reading.clone()));
        metrics
    }

    pub(super) fn child(&self, node: &NodeId, stream: &StreamId) -> Child {
        self.subscriptions.inc();
        self.subscribed.inc();
        let mut readers = self.readers.0.lock().unwrap_or_else(PoisonError::into_inner);
        *readers.entry(stream.clone()).or_default().entry(node.clone()).or_default() += 1;
        Child { node: node.clone(), stream: stream.clone(), progress: None, metrics: self.clone() }
    }

    /// The nodes that read a stream from here now, by its name.
    pub fn readers(&self) -> BTreeMap<StreamId, Vec<NodeId>> {
        let readers = self.readers.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.iter().map(|(id, nodes)| (id.clone(), nodes.keys().cloned().collect())).collect()
    }
}

impl Child {
    pub(super) fn reads(&mut self, progress: Arc<Progress>) {
        let mut reading = self.metrics.reading.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.push((self.node.clone(), Arc::downgrade(&progress)));
        self.progress = Some(progress);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.metrics.sent.inc_by(bytes as u64);
    }

    pub(super) fn resumed(&self) {
        self.metrics.resumed.inc();
    }

    pub(super) fn lost(&self) {
        self.metrics.lost.inc();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.metrics.subscriptions.dec();
        let mut readers = self.metrics.readers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nodes) = readers.get_mut(&self.stream) {
            if let Some(count) = nodes.get_mut(&self.node) {
                *count -= 1;
            }
            nodes.retain(|_, count| *count > 0);
            if nodes.is_empty() {
                readers.remove(&self.stream);
            }
        }
        drop(readers);
        let mine = self.progress.take();
        let mut reading = self.metrics.reading.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_mine = |progress: &Weak<Progress>| {
            mine.as_ref().is_some_and(|mine| std::ptr::eq(Weak::as_ptr(progress), Arc::as_ptr(mine)))
        };
        reading.retain(|(_, progress)| !is_mine(progress));
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut lags = BTreeMap::<NodeId, Duration>::new();
        let reading = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (node, progress) in reading {
            let lag = progress.upgrade().map_or(Duration::ZERO, |progress| progress.lag());
            let worst = lags.entry(node).or_default();
            *worst = lag.max(*worst);
        }
        let help = "Media that a node has not taken yet, over all its streams the most";
        let mut family =
            encoder.encode_descriptor("relay_lag", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (node, lag) in lags {
            ConstGauge::new(lag.as_secs_f64()).encode(family.encode_family(&[("node", node.as_str())])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_reads_a_stream_until_the_last_of_its_subscriptions_is_over() {
        let metrics = RelayMetrics::default();
        let (edge, id) = ("edge1".parse().unwrap(), StreamId::new("live", "cam").unwrap());
        let (parts, units) = (metrics.child(&edge, &id), metrics.child(&edge, &id));
        drop(parts);
        assert_eq!(metrics.readers(), BTreeMap::from([(id, vec![edge])]));
        drop(units);
        assert!(metrics.readers().is_empty());
    }
}
