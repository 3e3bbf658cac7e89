//! AV1 over RTP (RTP Payload Format For AV1, of AOM): the OBUs of a temporal unit, without their sizes, gathered and cut as
//! they fit.

use media::AccessUnit;
use media::codec::av1::{UnitError, bare_obus};

use super::PAYLOAD_BYTES_MAX;
use super::frame::{Format, Frame, Meta, Payloads, Source};

/// §4.4: of the aggregation header.
const CONTINUES: u8 = 0x80;
const IS_CONTINUED: u8 = 0x40;
const COUNT_SHIFT: u8 = 4;
const NEW_SEQUENCE: u8 = 0x08;

/// Elements of one packet: so many can be counted, and then the last needs no length.
const ELEMENTS_MAX: usize = 3;
/// Of a length in leb128, where no element is longer than a packet.
const LENGTH_BYTES_MAX: usize = 2;
/// A piece shorter than this is not worth its length.
const PIECE_BYTES_MIN: usize = 16;

/// Cuts the temporal units of one rendition.
pub struct Av1Packetizer {
    source: Source,
    next_packet: u64,
}

impl Av1Packetizer {
    pub fn new(source: Source) -> Self {
        Self { source, next_packet: 0 }
    }

    /// `None` if nothing is left of a unit.
    ///
    /// # Errors
    /// [`UnitError`] if no decoder could read the unit; the publisher is broken.
    pub fn packetize(&mut self, unit: &AccessUnit, group: u32) -> Result<Option<Frame>, UnitError> {
        let mut cutter = Cutter::new(unit.data.len(), unit.key);
        for (header, payload) in bare_obus(&unit.data)? {
            cutter.push(&[header.bytes(), payload].concat());
        }
        let payloads = cutter.finish();
        let first_packet = self.next_packet;
        self.next_packet += payloads.len() as u64;
        let (source, format, pts, key) = (self.source, Format::Av1, unit.pts, unit.key);
        Ok(payloads.frame(Meta { source, format, first_packet, group, pts, key, marker: true }))
    }
}

struct Cutter {
    payloads: Payloads,
    /// Of the packet that is being filled.
    elements: Vec<Vec<u8>>,
    flags: u8,
}

impl Cutter {
    fn new(unit_bytes: usize, key: bool) -> Self {
        let room = unit_bytes + unit_bytes / 256 + 64;
        let flags = if key { NEW_SEQUENCE } else { 0 };
        Self { payloads: Payloads::with_capacity(room), elements: Vec::new(), flags }
    }

    fn push(&mut self, mut obu: &[u8]) {
        while !obu.is_empty() {
            let used: usize = self.elements.iter().map(|element| LENGTH_BYTES_MAX + element.len()).sum();
            let room = (PAYLOAD_BYTES_MAX - 1).saturating_sub(used);
            if self.elements.len() == ELEMENTS_MAX || room < obu.len().min(PIECE_BYTES_MIN) {
                self.flush();
                continue;
            }
            let piece;
            (piece, obu) = obu.split_at(obu.len().min(room));
            self.elements.push(piece.to_vec());
            if !obu.is_empty() {
                self.flags |= IS_CONTINUED;
                self.flush();
                self.flags |= CONTINUES;
            }
        }
    }

    fn flush(&mut self) {
        let Some((last, before)) = self.elements.split_last() else { return };
        // At most three.
        let header = [self.flags | (self.elements.len() as u8) << COUNT_SHIFT];
        let lengths: Vec<_> = before.iter().map(|element| leb128(element.len())).collect();
        let mut parts: Vec<&[u8]> = vec![&header];
        for (length, element) in lengths.iter().zip(before) {
            parts.extend([length.as_slice(), element]);
        }
        parts.push(last);
        self.payloads.push(&parts);
        self.elements.clear();
        self.flags = 0;
    }

    fn finish(mut self) -> Payloads {
        self.flush();
        self.payloads
    }
}

/// Of less than 2^14.
fn leb128(value: usize) -> Vec<u8> {
    if value < 0x80 { vec![value as u8] } else { vec![value as u8 | 0x80, (value >> 7) as u8] }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// With its size, as in a sample.
    fn obu(header: u8, bytes: usize) -> Vec<u8> {
        let size = [bytes as u8 | 0x80, (bytes >> 7) as u8 | 0x80, (bytes >> 14) as u8];
        [&[header | 2], &size[..], &vec![header; bytes]].concat()
    }

    fn packetize(obus: &[Vec<u8>], key: bool) -> Vec<Vec<u8>> {
        let data = Bytes::from(obus.concat());
        let unit = AccessUnit { dts: 0, pts: 0, duration: 3_000, key, data };
        let frame = Av1Packetizer::new(Source(1)).packetize(&unit, 0).unwrap().unwrap();
        (0..frame.packets()).map(|at| frame.payload(at).unwrap().to_vec()).collect()
    }

    /// The OBUs again, read as the payload format says.
    fn obus(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut obus = Vec::<Vec<u8>>::new();
        for packet in packets {
            let (header, mut rest) = (packet[0], &packet[1..]);
            let count = header >> 4 & 3;
            for number in 1..=count {
                let mut length = rest.len();
                if number < count {
                    length = usize::from(rest[0] & 0x7F);
                    let long = rest[0] & 0x80 != 0;
                    length |= if long { usize::from(rest[1]) << 7 } else { 0 };
                    rest = &rest[1 + usize::from(long)..];
                }
                let element;
                (element, rest) = rest.split_at(length);
                match obus.last_mut() {
                    Some(open) if number == 1 && header & CONTINUES != 0 => open.extend_from_slice(element),
                    _ => obus.push(element.to_vec()),
                }
            }
        }
        obus
    }

    #[test]
    fn obus_come_out_again_without_sizes_and_delimiters() {
        let sizes =
            [vec![12, 40], vec![12, 5_000], vec![1; 7], vec![1_170, 30, 2_000], vec![1_183], vec![1_165, 17]];
        for (sizes, key) in sizes.into_iter().zip([true, false].into_iter().cycle()) {
            let mut unit = vec![vec![0x12, 0]];
            unit.extend(sizes.iter().map(|size| obu(0x30, *size)));
            let packets = packetize(&unit, key);
            let expected: Vec<_> = sizes.iter().map(|size| vec![0x30; size + 1]).collect();
            assert_eq!(obus(&packets), expected, "{sizes:?}");
            assert!(packets.iter().all(|packet| packet.len() <= PAYLOAD_BYTES_MAX));
            let flags = |packet: &Vec<u8>| packet[0] & NEW_SEQUENCE != 0;
            assert!(flags(&packets[0]) == key && !packets[1..].iter().any(flags));
            let open =
                packets.windows(2).all(|two| (two[0][0] & IS_CONTINUED != 0) == (two[1][0] & CONTINUES != 0));
            assert!(open && packets[0][0] & CONTINUES == 0 && packets.last().unwrap()[0] & IS_CONTINUED == 0);
        }
        let large = packetize(&[obu(0x30, 5_000)], false);
        assert!(large[..4].iter().all(|packet| packet.len() == PAYLOAD_BYTES_MAX), "most of it in one call");
    }

    #[test]
    fn what_is_no_unit_is_an_error() {
        let unit =
            AccessUnit { dts: 0, pts: 0, duration: 0, key: true, data: Bytes::from_static(&[0x32, 9]) };
        assert!(Av1Packetizer::new(Source(1)).packetize(&unit, 0).is_err());
    }
}
