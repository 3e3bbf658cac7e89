//! Retransmissions of layers (RFC 4588), made into what they repair before the rest of the chain of `rtc`'s interceptors sees
//! them.
//!
//! `rtc` knows a retransmission by the SSRC that the offer names. Of layers an offer names none: their packets say themselves
//! whose repairs they are (RFC 8852, §3.2), which `rtc` 0.21 leaves out, so that it would drop every one of them.
//!
//! Padding, by which a browser finds out what its line carries, goes as a retransmission of nothing. It passes as it is: what
//! counts arrivals for transport-cc counts it, and nobody else knows its SSRC.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Buf;
use webrtc_core::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use webrtc_core::rtp;
use webrtc_core::sansio::Protocol;
use webrtc_core::shared::error::Error;

use super::offer::{RidExtensions, Track};

pub(super) struct Repair {
    read: VecDeque<TaggedPacket>,
    written: VecDeque<TaggedPacket>,
    extensions: RidExtensions,
    payload_type: u8,
    rtx_payload_type: u8,
    layers: Vec<Layer>,
}

/// One layer, and under which numbers it and its repairs come.
struct Layer {
    rid: String,
    ssrc: Option<u32>,
    rtx_ssrc: Option<u32>,
}

impl Repair {
    /// Behind the tap, before whatever asks for lost packets again.
    pub(super) const SLOT: usize = 600;

    /// `None` where there is nothing to do.
    pub(super) fn of(track: &Track) -> Option<Self> {
        let layer = |rid: &String| Layer { rid: rid.clone(), ssrc: None, rtx_ssrc: None };
        Some(Self {
            read: VecDeque::new(),
            written: VecDeque::new(),
            extensions: track.rid_extensions?,
            payload_type: track.payload_type,
            rtx_payload_type: track.rtx_payload_type?,
            layers: track.rids.iter().map(layer).collect(),
        })
    }

    fn mend(&mut self, packet: &mut rtp::Packet) {
        let header = &mut packet.header;
        let said = |number| header.get_extension(number);
        if header.payload_type == self.payload_type {
            if let Some(rid) = said(self.extensions.rid)
                && let Some(layer) = self.layers.iter_mut().find(|layer| *layer.rid.as_bytes() == rid[..])
            {
                layer.ssrc = Some(header.ssrc);
            }
            return;
        }
        if header.payload_type != self.rtx_payload_type {
            return;
        }
        // A publisher says it until it knows that it was heard.
        if let Some(rid) = self.extensions.repaired.and_then(said)
            && let Some(layer) = self.layers.iter_mut().find(|layer| *layer.rid.as_bytes() == rid[..])
        {
            layer.rtx_ssrc = Some(header.ssrc);
        }
        let repaired = self.layers.iter().find(|layer| layer.rtx_ssrc == Some(header.ssrc));
        let Some(ssrc) = repaired.and_then(|layer| layer.ssrc) else { return };
        // RFC 4588, §4: the number of the original packet, and its payload.
        if packet.payload.len() > 2 {
            header.sequence_number = packet.payload.get_u16();
            header.ssrc = ssrc;
            header.payload_type = self.payload_type;
            header.padding = false;
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Repair {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtp(rtp) = &mut packet.message.packet {
            self.mend(rtp);
        }
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
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

impl Interceptor for Repair {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::offer::Offer;
    use super::super::offer::tests::LAYERED;
    use super::*;

    fn packet(
        payload_type: u8,
        ssrc: u32,
        extension: Option<(u8, &'static str)>,
        payload: &[u8],
    ) -> rtp::Packet {
        let header = rtp::Header { version: 2, payload_type, ssrc, sequence_number: 9, ..Default::default() };
        let mut packet = rtp::Packet { header, payload: Bytes::copy_from_slice(payload) };
        if let Some((number, text)) = extension {
            packet.header.set_extension(number, Bytes::from_static(text.as_bytes())).unwrap();
        }
        packet
    }

    #[test]
    fn a_retransmission_becomes_the_packet_of_its_layer_that_was_lost() {
        let video = Offer::parse(LAYERED.as_bytes(), true).unwrap().video.unwrap();
        let mut repair = Repair::of(&video).unwrap();
        let (primary, rtx) = (video.payload_type, video.rtx_payload_type.unwrap());
        let mut mend = |mut packet: rtp::Packet| {
            repair.mend(&mut packet);
            (packet.header.ssrc, packet.header.payload_type, packet.header.sequence_number, packet.payload)
        };
        let early = mend(packet(rtx, 21, Some((11, "h")), &[1, 2, 7]));
        assert_eq!(early.0, 21, "nobody knows yet what it repairs");
        assert_eq!(mend(packet(primary, 2, Some((10, "h")), b"picture")).2, 9, "as it came");
        mend(packet(primary, 3, Some((10, "q")), b"picture"));
        // It has said once whose it is.
        let (ssrc, payload_type, sequence, payload) = mend(packet(rtx, 21, None, &[1, 2, 7]));
        assert_eq!((ssrc, payload_type, sequence, &payload[..]), (2, primary, 0x0102, &[7][..]));
        assert_eq!(mend(packet(rtx, 21, None, &[0, 0])).0, 21, "padding");
        assert_eq!(mend(packet(rtx, 31, Some((11, "nobody")), &[1, 2, 7])).0, 31);
        assert_eq!(mend(packet(rtx, 31, Some((11, "q")), &[1, 2, 7])).0, 3);
    }
}
