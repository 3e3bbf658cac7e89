//! VP8 and VP9 over RTP (RFC 7741, RFC 9628): a frame cut into pieces, each behind one byte.
//!
//! The byte says where a frame begins and ends, and of VP9 whether it leans on others. Pictures are not numbered: what is
//! sent has no layers that a viewer could leave out, and without numbers a viewer goes by the packets', which go on over a
//! change of the rendition.

use media::AccessUnit;

use super::PAYLOAD_BYTES_MAX;
use super::frame::{Format, Frame, Meta, Payloads, Source};

/// VP8's descriptor: start of a partition, the first.
const VP8_START: u8 = 0x10;
/// VP9's descriptor.
const VP9_INTER: u8 = 0x40;
const VP9_START: u8 = 0x08;
const VP9_END: u8 = 0x04;

const DESCRIPTOR_BYTES: usize = 1;

/// Cuts the frames of one rendition.
pub struct VpxPacketizer {
    source: Source,
    format: Format,
    next_packet: u64,
}

impl VpxPacketizer {
    pub fn vp8(source: Source) -> Self {
        Self { source, format: Format::Vp8, next_packet: 0 }
    }

    pub fn vp9(source: Source) -> Self {
        Self { source, format: Format::Vp9, next_packet: 0 }
    }

    /// `None` of a unit without bytes.
    pub fn packetize(&mut self, unit: &AccessUnit, group: u32) -> Option<Frame> {
        let count = unit.data.len().div_ceil(PAYLOAD_BYTES_MAX - DESCRIPTOR_BYTES);
        let mut payloads = Payloads::with_capacity(unit.data.len() + count);
        for (at, piece) in unit.data.chunks(PAYLOAD_BYTES_MAX - DESCRIPTOR_BYTES).enumerate() {
            let (is_first, is_last) = (at == 0, at + 1 == count);
            let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
            let descriptor = match self.format {
                Format::Vp9 => {
                    flag(!unit.key, VP9_INTER) | flag(is_first, VP9_START) | flag(is_last, VP9_END)
                }
                _ => flag(is_first, VP8_START),
            };
            payloads.push(&[&[descriptor], piece]);
        }
        let first_packet = self.next_packet;
        self.next_packet += payloads.len() as u64;
        let &mut Self { source, format, .. } = self;
        let (pts, key) = (unit.pts, unit.key);
        payloads.frame(Meta { source, format, first_packet, group, pts, key, marker: true })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn unit(bytes: usize, key: bool) -> AccessUnit {
        let data = (0..bytes).map(|at| at as u8).collect::<Bytes>();
        AccessUnit { dts: 90, pts: 90, duration: 3_000, key, data }
    }

    fn descriptors(frame: &Frame) -> Vec<u8> {
        (0..frame.packets()).map(|at| frame.payload(at).unwrap()[0]).collect()
    }

    #[test]
    fn a_frame_is_cut_into_full_packets_that_say_where_it_begins_and_ends() {
        for (mut packetizer, key, inter) in [
            (VpxPacketizer::vp8(Source(1)), [0x10, 0x00, 0x00], [0x10, 0x00, 0x00]),
            (VpxPacketizer::vp9(Source(1)), [0x08, 0x00, 0x04], [0x48, 0x40, 0x44]),
        ] {
            for (is_key, expected, first) in [(true, key, 0), (false, inter, 3)] {
                let unit = unit(3_000, is_key);
                let frame = packetizer.packetize(&unit, 7).unwrap();
                assert_eq!(descriptors(&frame), expected);
                assert_eq!((frame.first_packet(), frame.group(), frame.is_key()), (first, 7, is_key));
                let whole: Vec<_> = (0..3).flat_map(|at| frame.payload(at).unwrap()[1..].to_vec()).collect();
                assert!(whole == unit.data && frame.bursts().len() == 1, "in one call");
                assert_eq!(frame.payload(0).unwrap().len(), PAYLOAD_BYTES_MAX);
            }
            assert!(packetizer.packetize(&unit(0, false), 7).is_none());
        }
        let small = VpxPacketizer::vp9(Source(1)).packetize(&unit(9, false), 0).unwrap();
        assert_eq!(descriptors(&small), [0x4C]);
    }
}
