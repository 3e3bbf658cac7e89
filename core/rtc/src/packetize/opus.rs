//! Opus over RTP (RFC 7587): one packet of the codec is one payload.

use media::AccessUnit;

use super::frame::{Format, Frame, Meta, Payloads, Source};

/// Longest Opus packet of one frame (RFC 6716, §3.4), and what we send at most: RTP cannot cut one.
const PACKET_BYTES_MAX: usize = 1275 + 1;

/// The publisher packs several large frames into one Opus packet; it must send shorter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an Opus packet of {bytes} bytes does not fit a datagram; at most {PACKET_BYTES_MAX} do")]
pub struct TooLongError {
    pub bytes: usize,
}

/// Wraps the packets of one rendition.
pub struct OpusPacketizer {
    source: Source,
    next_packet: u64,
}

impl OpusPacketizer {
    pub fn new(source: Source) -> Self {
        Self { source, next_packet: 0 }
    }

    /// # Errors
    /// [`TooLongError`].
    pub fn packetize(&mut self, unit: &AccessUnit, group: u32) -> Result<Frame, TooLongError> {
        let bytes = unit.data.len();
        if bytes > PACKET_BYTES_MAX {
            return Err(TooLongError { bytes });
        }
        let mut payloads = Payloads::with_capacity(bytes);
        payloads.push(&[&unit.data]);
        let first_packet = self.next_packet;
        self.next_packet += 1;
        // The marker would mean that silence was left out before (RFC 7587, §4.1); our clock runs through it.
        let (source, pts) = (self.source, unit.pts);
        let meta = Meta { source, format: Format::Opus, first_packet, group, pts, key: true, marker: false };
        Ok(payloads.frame(meta).expect("a payload was pushed"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn unit(bytes: usize) -> AccessUnit {
        let data = Bytes::from(vec![0x78; bytes]);
        AccessUnit { dts: 960, pts: 960, duration: 960, key: true, data }
    }

    #[test]
    fn a_packet_is_a_payload() {
        let mut packetizer = OpusPacketizer::new(Source(1));
        let first = packetizer.packetize(&unit(160), 4).unwrap();
        assert_eq!((first.packets(), first.payload(0)), (1, Some(&[0x78; 160][..])));
        assert_eq!((first.pts(), first.group(), first.is_key(), first.marker()), (960, 4, true, false));
        let second = packetizer.packetize(&unit(1), 4).unwrap();
        assert_eq!((first.first_packet(), second.first_packet()), (0, 1));
    }

    #[test]
    fn what_fits_no_datagram_is_refused() {
        let mut packetizer = OpusPacketizer::new(Source(1));
        assert!(packetizer.packetize(&unit(1276), 0).is_ok());
        assert_eq!(packetizer.packetize(&unit(1277), 0).err(), Some(TooLongError { bytes: 1277 }));
    }
}
