//! What a receiver reports, read where it lies: nothing is copied, and of what is malformed nothing behind it is read.
//!
//! What we send ourselves is written with `rtc-rtcp`. It reads, too, but makes some dozens of allocations of each feedback, of
//! which every viewer sends twenty in a second (bench `whep`).

mod transport_cc;

pub use self::transport_cc::{Status, Statuses, TransportCc};

/// Version, format, type, length, and who sends it (RFC 3550, §6.4).
pub(crate) const HEADER_BYTES: usize = 8;

/// Packet types (RFC 3550, §12.1; RFC 4585, §6.1).
const RECEIVER_REPORT: u8 = 201;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// Formats of feedback (RFC 4585, §6.2 and §6.3; RFC 5104, §4.3.1; draft-holmer-rmcat-transport-wide-cc-extensions-01, §3.1).
const NACK: u8 = 1;
const TRANSPORT_CC: u8 = 15;
const PICTURE_LOSS: u8 = 1;
const FULL_INTRA: u8 = 4;
const APPLICATION: u8 = 15;

const RECEPTION_BYTES: usize = 24;

/// One packet of a datagram.
#[derive(Debug, Clone, Copy)]
pub enum Report<'a> {
    Receptions(Receptions<'a>),
    Nack(Nack<'a>),
    /// It can decode nothing before a keyframe: PLI or FIR.
    KeyframeRequest,
    /// In bits per second (draft-alvestrand-rmcat-remb-03, §2.2).
    Remb(f64),
    TransportCc(TransportCc<'a>),
    /// Nothing to us.
    Other,
}

/// The packets of a datagram, opened.
#[derive(Debug, Clone)]
pub struct Reports<'a> {
    rest: &'a [u8],
}

impl<'a> Reports<'a> {
    pub fn new(datagram: &'a [u8]) -> Self {
        Self { rest: datagram }
    }

    fn split(&mut self) -> Option<Report<'a>> {
        let &[first, kind, high, low] = self.rest.first_chunk()?;
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let (packet, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        if first >> 6 != 2 {
            return None;
        }
        // Its last byte counts what is behind (RFC 3550, §6.4.1).
        let padding = if first & 0x20 == 0 { 0 } else { usize::from(*packet.last()?) };
        let end = packet.len().checked_sub(padding)?;
        let body = packet.get(HEADER_BYTES..end).unwrap_or_default();
        Some(match (kind, first & 0x1F) {
            (RECEIVER_REPORT, count) => {
                Report::Receptions(Receptions { blocks: body.get(..usize::from(count) * RECEPTION_BYTES)? })
            }
            (TRANSPORT_FEEDBACK, NACK) => {
                let (ssrc, pairs) = body.split_first_chunk()?;
                Report::Nack(Nack { media_ssrc: u32::from_be_bytes(*ssrc), pairs })
            }
            (TRANSPORT_FEEDBACK, TRANSPORT_CC) => Report::TransportCc(TransportCc::parse(body.get(4..)?)?),
            (PAYLOAD_FEEDBACK, PICTURE_LOSS | FULL_INTRA) => Report::KeyframeRequest,
            (PAYLOAD_FEEDBACK, APPLICATION) => remb(body).map_or(Report::Other, Report::Remb),
            _ => Report::Other,
        })
    }
}

impl<'a> Iterator for Reports<'a> {
    type Item = Report<'a>;

    fn next(&mut self) -> Option<Report<'a>> {
        let report = self.split();
        if report.is_none() {
            self.rest = &[];
        }
        report
    }
}

/// `None` for another application's.
fn remb(body: &[u8]) -> Option<f64> {
    let &[_, _, _, _, b'R', b'E', b'M', b'B', _, a, b, c] = body.first_chunk()? else { return None };
    // Six bits of exponent before eighteen of mantissa.
    let mantissa = u32::from_be_bytes([0, a & 3, b, c]);
    Some(f64::from(mantissa) * f64::from(a >> 2).exp2())
}

/// What it received of each source (RFC 3550, §6.4.1).
#[derive(Debug, Clone, Copy)]
pub struct Receptions<'a> {
    blocks: &'a [u8],
}

/// Of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceptionReport {
    pub ssrc: u32,
    /// Since the report before, in 256ths.
    pub fraction_lost: u8,
    /// The middle 32 bits of the NTP time of the last sender report that it heard; 0 before the first.
    pub last_sender_report: u32,
    /// Since it heard that, in 65536ths of a second.
    pub delay: u32,
}

impl Receptions<'_> {
    pub fn iter(&self) -> impl Iterator<Item = ReceptionReport> {
        let (blocks, _) = self.blocks.as_chunks::<RECEPTION_BYTES>();
        blocks.iter().map(|block| {
            let word =
                |at: usize| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
            ReceptionReport {
                ssrc: word(0),
                fraction_lost: block[4],
                last_sender_report: word(16),
                delay: word(20),
            }
        })
    }
}

/// What it misses (RFC 4585, §6.2.1).
#[derive(Debug, Clone, Copy)]
pub struct Nack<'a> {
    pub media_ssrc: u32,
    pairs: &'a [u8],
}

impl<'a> Nack<'a> {
    /// Their sequence numbers; a datagram has room for some thousands.
    pub fn packets(&self) -> impl Iterator<Item = u16> + use<'a> {
        let (pairs, _) = self.pairs.as_chunks::<4>();
        pairs.iter().flat_map(|&[a, b, c, d]| {
            let (first, mask) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let behind = (0..16).filter(move |bit| mask & 1 << bit != 0);
            std::iter::once(first).chain(behind.map(move |bit| first.wrapping_add(bit + 1)))
        })
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
