//! Sees a connection's RTCP where it leaves and enters the chain of `rtc`'s interceptors: what comes in is for us too, which
//! the chain would keep for itself, and what goes out is counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use webrtc_core::interceptor::{Attribute, Interceptor, Packet, StreamInfo, TaggedPacket};
use webrtc_core::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use webrtc_core::sansio::Protocol;
use webrtc_core::shared::error::Error;

pub(super) struct Tap {
    read: VecDeque<TaggedPacket>,
    written: VecDeque<TaggedPacket>,
    /// Packets asked for again.
    nacks: Arc<AtomicU64>,
}

impl Tap {
    /// Nearest to the wire, where the requests that other interceptors make come past.
    pub(super) const SLOT: usize = 500;

    pub(super) fn new(nacks: Arc<AtomicU64>) -> Self {
        Self { read: VecDeque::new(), written: VecDeque::new(), nacks }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Error> {
        if matches!(packet.message.packet, Packet::Rtcp(_)) {
            packet.message.add(Attribute::DeliverToApplication);
        }
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &packet.message.packet {
            let nacks =
                packets.iter().filter_map(|packet| packet.as_any().downcast_ref::<TransportLayerNack>());
            let asked: usize = nacks.flat_map(|nack| &nack.nacks).map(|pair| pair.packet_list().len()).sum();
            self.nacks.fetch_add(asked as u64, Ordering::Relaxed);
        }
        self.written.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.written.pop_front()
    }

    fn handle_timeout(&mut self, _: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}
