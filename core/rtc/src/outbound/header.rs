//! The RTP header of a media line, written once and patched per packet. Its length never changes, or the segments of
//! a batch would not be equal.

use std::time::{Duration, Instant};

/// Fixed part (RFC 3550, §5.1).
const FIXED_BYTES: usize = 12;
/// Fixed part, extension header, and the three extensions we write with their padding.
pub(super) const HEADER_BYTES_MAX: usize = FIXED_BYTES + 4 + 12;

/// Version 2, and that an extension follows.
const VERSION: u8 = 2 << 6;
const EXTENSION: u8 = 1 << 4;
const MARKER: u8 = 1 << 7;
/// "One-byte" extensions (RFC 8285, §4.2).
const ONE_BYTE_PROFILE: [u8; 2] = [0xBE, 0xDE];
/// What their identifiers may be.
const ONE_BYTE_IDS: std::ops::RangeInclusive<u8> = 1..=14;

/// Identifiers that the viewer's offer gave to the header extensions we can write; `None` is not negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderExtensions {
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`
    pub transport_cc: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`
    pub abs_send_time: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`
    pub playout_delay: Option<u8>,
}

/// How long the receiver shall keep media before it shows it; a hint, in steps of 10 ms up to 40.95 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlayoutDelay {
    pub min: Duration,
    pub max: Duration,
}

impl PlayoutDelay {
    /// Twelve bits each.
    fn bytes(self) -> [u8; 3] {
        let steps = |delay: Duration| (delay.as_millis() / 10).min(0xFFF) as u32;
        let [_, bytes @ ..] = (steps(self.min) << 12 | steps(self.max)).to_be_bytes();
        bytes
    }
}

/// What all packets of one viewer have in common, whatever their SSRC.
#[derive(Debug, Clone)]
pub struct Transport {
    /// Number of the next packet (transport-cc); 16 bits of it are sent.
    next: u64,
    /// What abs-send-time counts from; only differences matter to the receiver, across its lines too.
    epoch: Instant,
}

impl Transport {
    pub fn new(now: Instant) -> Self {
        Self { next: 0, epoch: now }
    }

    /// Number of the next packet that transport-cc numbers.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    fn take(&mut self) -> u16 {
        let taken = self.next as u16;
        self.next += 1;
        taken
    }

    /// Seconds with 18 bits behind the point, of which 24 bits are sent: it wraps after 64 s.
    fn abs_send_time(&self, now: Instant) -> [u8; 3] {
        let since = now.saturating_duration_since(self.epoch);
        let fraction = (u64::from(since.subsec_nanos()) << 18) / 1_000_000_000;
        let [.., a, b, c] = (since.as_secs() << 18 | fraction).to_be_bytes();
        [a, b, c]
    }
}

/// Header of one SSRC. Sequence number and SSRC are the sealer's to write.
#[derive(Debug, Clone)]
pub(super) struct Template {
    bytes: [u8; HEADER_BYTES_MAX],
    length: usize,
    transport_cc_at: Option<usize>,
    abs_send_time_at: Option<usize>,
    playout_delay_at: Option<usize>,
}

impl Template {
    /// Identifiers that the one-byte form cannot hold are as good as not negotiated.
    pub(super) fn new(payload_type: u8, extensions: HeaderExtensions, playout_delay: PlayoutDelay) -> Self {
        let mut bytes = [0; HEADER_BYTES_MAX];
        bytes[0] = VERSION;
        bytes[1] = payload_type & !MARKER;
        let mut length = FIXED_BYTES + 4;
        let mut add = |id: Option<u8>, data: &[u8]| {
            let id = id.filter(|id| ONE_BYTE_IDS.contains(id))?;
            let at = length + 1;
            bytes[length] = id << 4 | (data.len() - 1) as u8;
            bytes[at..at + data.len()].copy_from_slice(data);
            length = at + data.len();
            Some(at)
        };
        let transport_cc_at = add(extensions.transport_cc, &[0; 2]);
        let abs_send_time_at = add(extensions.abs_send_time, &[0; 3]);
        let playout_delay_at = add(extensions.playout_delay, &playout_delay.bytes());
        if length == FIXED_BYTES + 4 {
            length = FIXED_BYTES;
        } else {
            length = length.next_multiple_of(4);
            let words = (length - FIXED_BYTES - 4) / 4;
            bytes[0] |= EXTENSION;
            bytes[FIXED_BYTES..FIXED_BYTES + 2].copy_from_slice(&ONE_BYTE_PROFILE);
            bytes[FIXED_BYTES + 2..FIXED_BYTES + 4].copy_from_slice(&(words as u16).to_be_bytes());
        }
        Self { bytes, length, transport_cc_at, abs_send_time_at, playout_delay_at }
    }

    /// For the packets of one frame.
    pub(super) fn set_payload_type(&mut self, payload_type: u8) {
        self.bytes[1] = self.bytes[1] & MARKER | payload_type & !MARKER;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// For the packets of one frame.
    pub(super) fn set_time(&mut self, timestamp: u32, transport: &Transport, now: Instant) {
        self.bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
        if let Some(at) = self.abs_send_time_at {
            self.bytes[at..at + 3].copy_from_slice(&transport.abs_send_time(now));
        }
    }

    pub(super) fn set_playout_delay(&mut self, delay: PlayoutDelay) {
        if let Some(at) = self.playout_delay_at {
            self.bytes[at..at + 3].copy_from_slice(&delay.bytes());
        }
    }

    /// For one packet. Without transport-cc no number is taken.
    pub(super) fn set_packet(&mut self, marker: bool, transport: &mut Transport) {
        let marker = if marker { MARKER } else { 0 };
        self.bytes[1] = self.bytes[1] & !MARKER | marker;
        if let Some(at) = self.transport_cc_at {
            self.bytes[at..at + 2].copy_from_slice(&transport.take().to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use rtc_rtp::header::Header;
    use rtc_shared::marshal::Unmarshal;

    use super::*;

    #[test]
    fn another_implementation_reads_every_extension() {
        let now = Instant::now();
        let ids = HeaderExtensions { transport_cc: Some(3), abs_send_time: Some(2), playout_delay: Some(14) };
        let delay = PlayoutDelay { min: Duration::from_millis(120), max: Duration::from_secs(60) };
        let mut template = Template::new(102, ids, delay);
        let mut transport = Transport { next: 0x1_0005, epoch: now };
        template.set_time(0x0102_0304, &transport, now + Duration::from_millis(66_500));
        template.set_packet(true, &mut transport);
        let header = Header::unmarshal(&mut template.bytes()).unwrap();
        assert_eq!((header.payload_type, header.marker, header.timestamp), (102, true, 0x0102_0304));
        assert_eq!(header.get_extension(3).unwrap()[..], [0, 5]);
        assert_eq!(header.get_extension(2).unwrap()[..], ((2 << 18 | 1 << 17) as u32).to_be_bytes()[1..]);
        assert_eq!(header.get_extension(14).unwrap()[..], [0x00, 0xCF, 0xFF]);
        assert_eq!(template.bytes().len(), HEADER_BYTES_MAX);
        assert_eq!(transport.next(), 0x1_0006);

        template.set_packet(false, &mut transport);
        template.set_playout_delay(PlayoutDelay { min: Duration::ZERO, max: Duration::from_millis(150) });
        let header = Header::unmarshal(&mut template.bytes()).unwrap();
        assert_eq!((header.payload_type, header.marker), (102, false));
        assert_eq!(header.get_extension(14).unwrap()[..], [0, 0, 15]);
        assert_eq!(header.get_extension(3).unwrap()[..], [0, 6]);
    }

    #[test]
    fn what_was_not_negotiated_is_not_written() {
        let impossible =
            HeaderExtensions { transport_cc: Some(15), abs_send_time: None, playout_delay: Some(0) };
        for ids in [HeaderExtensions::default(), impossible] {
            let mut template = Template::new(102, ids, PlayoutDelay::default());
            let mut transport = Transport::new(Instant::now());
            template.set_packet(false, &mut transport);
            assert_eq!((template.bytes().len(), template.bytes()[0]), (12, 0x80));
            assert_eq!(transport.next(), 0, "numbers that nobody acknowledges are not used up");
        }
    }
}
