//! What happens at the WebRTC port, which publishers and viewers share.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;
use rtc::port::{Count, Port};

pub(crate) fn register(registry: &mut Registry, port: Port) {
    registry.register_collector(Box::new(PortCollector(port)));
}

#[derive(Debug)]
struct PortCollector(Port);

impl Collector for PortCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = self.0.counters();
        let mut counter = |name: &str, help: &str, count: &Count| {
            let counter = ConstCounter::new(count.get());
            let name = format!("webrtc_{name}");
            counter.encode(encoder.encode_descriptor(&name, help, None, counter.metric_type())?)
        };
        counter("received", "Datagrams, and frames of ICE-TCP, that came", &counters.received)?;
        counter("sent", "Datagrams, and frames of ICE-TCP, that were sent", &counters.sent)?;
        counter("sends", "System calls that sent datagrams: with GSO, fewer than those", &counters.sends)?;
        counter("send_dropped", "Datagrams that the socket had no room for", &counters.send_dropped)?;
        counter("gso_refused", "Sends that the system would not cut into datagrams", &counters.gso_refused)?;
        counter("tcp_accepted", "ICE-TCP connections", &counters.tcp_accepted)?;
        counter("tcp_refused", "ICE-TCP connections that were refused", &counters.tcp_refused)?;
        let help = "Datagrams that were dropped, by reason";
        let mut family = encoder.encode_descriptor("webrtc_dropped", help, None, MetricType::Counter)?;
        for (reason, count) in [
            ("malformed", &counters.dropped_malformed),
            ("unknown_ufrag", &counters.dropped_unknown_ufrag),
            ("unknown_address", &counters.dropped_unknown_address),
            ("inbox_full", &counters.dropped_inbox_full),
        ] {
            ConstCounter::new(count.get()).encode(family.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}
