//! H.264 over RTP (RFC 6184), packetization mode 1.
//!
//! Small NAL units are gathered while they fit one payload (STAP-A), a large one is cut into fragments (FU-A) that
//! are all full but the last. An ordinary picture of one slice is one burst of equal segments. What is unequal,
//! parameter sets before a keyframe and the end of each further slice, costs one more call of the sender, no bytes.

use media::AccessUnit;
use media::codec::h264::{Config, UnitError};

use super::PAYLOAD_BYTES_MAX;
use super::frame::{Format, Frame, Meta, Payloads, Source};

/// `nal_unit_type`, H.264 table 7-1.
const NAL_SPS: u8 = 7;
const NAL_PPS: u8 = 8;
const NAL_DELIMITER: u8 = 9;
const NAL_FILLER: u8 = 12;
/// From here on, and zero, the numbers are RTP's or nobody's (RFC 6184, table 1): a publisher that writes them would
/// be read as something else behind us.
const NAL_RESERVED: u8 = 24;

/// Payload types of RFC 6184, §5.7.1 and §5.8.
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// Indicator and header of a fragment.
const FU_BYTES: usize = 2;
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;
/// Before each NAL unit of an aggregate.
const LENGTH_BYTES: usize = 2;

const TYPE_MASK: u8 = 0x1F;
/// `forbidden_zero_bit` and `nal_ref_idc`.
const FORBIDDEN: u8 = 0x80;
const REFERENCE_MASK: u8 = 0x60;

/// Cuts the access units of one rendition.
pub struct H264Packetizer {
    source: Source,
    config: Config,
    next_packet: u64,
}

impl H264Packetizer {
    pub fn new(source: Source, config: Config) -> Self {
        Self { source, config, next_packet: 0 }
    }

    /// Units from here on are of `config`.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Parameter sets go before a keyframe that brings none, as a viewer may start at any. Access unit delimiters and
    /// filler are left out. `None` if nothing is left.
    ///
    /// # Errors
    /// [`UnitError`] if no decoder could read the unit; the publisher is broken.
    pub fn packetize(&mut self, unit: &AccessUnit, group: u32) -> Result<Option<Frame>, UnitError> {
        let nals: Vec<&[u8]> = self
            .config
            .nal_units(&unit.data)
            .filter(|nal| nal.as_ref().map_or(true, |nal| is_sent(nal)))
            .collect::<Result<_, _>>()?;
        let has = |kind| nals.iter().any(|nal| nal_type(nal) == kind);
        let bare = unit.key && !(has(NAL_SPS) && has(NAL_PPS));
        let before = if bare { self.config.parameter_sets() } else { Vec::new() };

        let mut cutter = Cutter::new(unit.data.len());
        before.into_iter().chain(nals).for_each(|nal| cutter.push(nal));
        let payloads = cutter.finish();
        let first_packet = self.next_packet;
        self.next_packet += payloads.len() as u64;
        let (source, format, pts, key) = (self.source, Format::H264, unit.pts, unit.key);
        Ok(payloads.frame(Meta { source, format, first_packet, group, pts, key, marker: true }))
    }
}

fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |header| header & TYPE_MASK)
}

fn is_sent(nal: &[u8]) -> bool {
    !matches!(nal_type(nal), 0 | NAL_DELIMITER | NAL_FILLER | NAL_RESERVED..)
}

struct Cutter<'a> {
    payloads: Payloads,
    /// Small NAL units that go into the next payload together.
    gathered: Vec<&'a [u8]>,
    /// What they would take as an aggregate.
    gathered_bytes: usize,
}

impl<'a> Cutter<'a> {
    fn new(unit_bytes: usize) -> Self {
        // Parameter sets, and two bytes for each fragment.
        let room = unit_bytes + unit_bytes / 256 + 256;
        Self { payloads: Payloads::with_capacity(room), gathered: Vec::new(), gathered_bytes: 1 }
    }

    /// `nal` is not empty.
    fn push(&mut self, nal: &'a [u8]) {
        let bytes = LENGTH_BYTES + nal.len();
        if self.gathered_bytes + bytes > PAYLOAD_BYTES_MAX {
            self.flush();
        }
        if nal.len() > PAYLOAD_BYTES_MAX {
            self.fragment(nal);
        } else {
            self.gathered.push(nal);
            self.gathered_bytes += bytes;
        }
    }

    /// One NAL unit is a payload as it is (RFC 6184, §5.6); several are one STAP-A, which is as important as the most
    /// important of them (§5.7).
    fn flush(&mut self) {
        match self.gathered.as_slice() {
            [] => {}
            [nal] => self.payloads.push(&[nal]),
            nals => {
                let headers = || nals.iter().map(|nal| nal[0]);
                let forbidden = headers().fold(0, |all, header| all | header & FORBIDDEN);
                let reference = headers().map(|header| header & REFERENCE_MASK).max().unwrap_or(0);
                let header = [forbidden | reference | STAP_A];
                let lengths: Vec<[u8; 2]> = nals.iter().map(|nal| (nal.len() as u16).to_be_bytes()).collect();
                let units = lengths.iter().zip(nals).flat_map(|(length, nal)| [length.as_slice(), nal]);
                let parts: Vec<&[u8]> = [header.as_slice()].into_iter().chain(units).collect();
                self.payloads.push(&parts);
            }
        }
        self.gathered.clear();
        self.gathered_bytes = 1;
    }

    /// The NAL unit's own header is not sent; indicator and fragment header carry its fields (RFC 6184, §5.8).
    fn fragment(&mut self, nal: &[u8]) {
        let [header, body @ ..] = nal else { return };
        let indicator = header & !TYPE_MASK | FU_A;
        let fragments = body.len().div_ceil(PAYLOAD_BYTES_MAX - FU_BYTES);
        for (at, fragment) in body.chunks(PAYLOAD_BYTES_MAX - FU_BYTES).enumerate() {
            let start = if at == 0 { FU_START } else { 0 };
            let end = if at + 1 == fragments { FU_END } else { 0 };
            self.payloads.push(&[&[indicator, start | end | header & TYPE_MASK], fragment]);
        }
    }

    fn finish(mut self) -> Payloads {
        self.flush();
        self.payloads
    }
}

#[cfg(test)]
mod tests;
