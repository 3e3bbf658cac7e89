//! Captions of television (CEA-608 and 708), which travel in SEI messages beside the picture (ATSC A/53 Part 4, §6.2.3):
//! where they are in an access unit, and which channels have something to say.

use super::bits::without_emulation_prevention;
use super::nal;

/// `nal_unit_type` of H.264, table 7-1, and of HEVC, table 7-1.
const H264_SEI: u8 = 6;
const HEVC_PREFIX_SEI: u8 = 39;

/// `payloadType` of the SEI message that captions come in (H.264, §D.1.6).
pub const REGISTERED_USER_DATA: usize = 4;

/// Country, provider, identifier and type of captions in user data (ATSC A/53 Part 4, §6.2.3).
const HEADER: &[u8] = b"\xB5\x00\x31GA94\x03";
/// Of the header: no emulation prevention byte can come between these.
const IDENTIFIER: &[u8] = b"GA94";

/// The channels of captions that were seen in use: CC1 to CC4 of CEA-608, services 1 to 6 of CEA-708.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Captions(u16);

/// One of them, as `INSTREAM-ID` names it (rfc8216bis §4.4.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// 1 to 4.
    Cc(u8),
    /// 1 to 6.
    Service(u8),
}

const CC_COUNT: u8 = 4;
const SERVICE_COUNT: u8 = 6;

impl Captions {
    /// Of a message as [`in_h264`] and [`in_h265`] find them. Only a channel that shows text counts: encoders fill channels
    /// that nobody uses with padding. What is damaged says nothing.
    pub fn of(message: &[u8]) -> Self {
        let mut channels = Self::default();
        let Some(&[counts, _em_data, ref triples @ ..]) = message.strip_prefix(HEADER) else {
            return channels;
        };
        // What is left of one that began with a picture before cannot be read without its beginning.
        let mut packet: Option<Vec<u8>> = None;
        for triple in triples.chunks_exact(3).take(usize::from(counts & 0x1F)) {
            // `marker_bits`, `cc_valid`, `cc_type`.
            let (is_valid, kind, pair) = (triple[0] & 4 != 0, triple[0] & 3, [triple[1], triple[2]]);
            match kind {
                _ if !is_valid => {}
                0 | 1 => channels.add_line_21(kind, pair),
                3 => {
                    channels.add_packet(packet.as_deref().unwrap_or_default());
                    packet = Some(pair.to_vec());
                }
                _ => packet.iter_mut().for_each(|packet| packet.extend(pair)),
            }
        }
        channels.add_packet(packet.as_deref().unwrap_or_default());
        channels
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order of their numbers. Of the services, which say the same where there are both, only if there is no other.
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        let all = (1..=CC_COUNT).map(Channel::Cc).chain((1..=SERVICE_COUNT).map(Channel::Service));
        let has_cc = self.0 & 0xF != 0;
        all.filter(move |channel| self.0 & channel.bit() != 0)
            .filter(move |channel| !has_cc || matches!(channel, Channel::Cc(_)))
    }

    pub fn to_bits(self) -> u16 {
        self.0
    }

    pub fn from_bits(bits: u16) -> Self {
        Self(bits & ((1 << (CC_COUNT + SERVICE_COUNT)) - 1))
    }

    /// Two bytes of line 21 of a field. The commands that begin text of one of the ways to show captions (CEA-608-E §7.3,
    /// table 51) come before all of it, and name the channel.
    fn add_line_21(&mut self, field: u8, pair: [u8; 2]) {
        let [first, second] = pair.map(|byte| byte & 0x7F);
        const RESUME_CAPTION_LOADING: u8 = 0x20;
        const ROLL_UP: std::ops::RangeInclusive<u8> = 0x25..=0x27;
        const RESUME_DIRECT_CAPTIONING: u8 = 0x29;
        // 0x14 or 0x15, and with 0x08 of the second channel of the field.
        let is_command = first & !0x09 == 0x14
            && (second == RESUME_CAPTION_LOADING
                || second == RESUME_DIRECT_CAPTIONING
                || ROLL_UP.contains(&second));
        if is_command {
            self.0 |= Channel::Cc(1 + 2 * field + (first >> 3 & 1)).bit();
        }
    }

    /// A packet of caption channels, or as much of it as came with one picture (CEA-708-E §5, §6.2).
    fn add_packet(&mut self, packet: &[u8]) {
        let mut rest = packet.get(1..).unwrap_or_default();
        while let Some((&header, after)) = rest.split_first() {
            let (service, size) = (header >> 5, header & 0x1F);
            // Null fills the packet; 7 is that of services by other numbers, which nobody can ask for.
            if service == 0 || size == 0 || service > SERVICE_COUNT {
                return;
            }
            self.0 |= Channel::Service(service).bit();
            rest = after.get(usize::from(size)..).unwrap_or_default();
        }
    }
}

impl Channel {
    fn bit(self) -> u16 {
        match self {
            Self::Cc(number) => 1 << (number - 1),
            Self::Service(number) => 1 << (CC_COUNT + number - 1),
        }
    }
}

/// The messages with captions in a unit of H.264, NAL units behind lengths of `length_bytes`.
pub fn in_h264(unit: &[u8], length_bytes: u8) -> Vec<Vec<u8>> {
    let is_sei = |nal: &&[u8]| nal.first().is_some_and(|header| header & 0x1F == H264_SEI);
    messages_of(nal::units(unit, length_bytes).map_while(Result::ok).filter(is_sei), 1)
}

/// As [`in_h264`]: the messages are the same.
pub fn in_h265(unit: &[u8], length_bytes: u8) -> Vec<Vec<u8>> {
    let is_sei = |nal: &&[u8]| nal.first().is_some_and(|header| header >> 1 & 0x3F == HEVC_PREFIX_SEI);
    messages_of(nal::units(unit, length_bytes).map_while(Result::ok).filter(is_sei), 2)
}

/// Of SEI NAL units with a header of so many bytes.
fn messages_of<'a>(nals: impl Iterator<Item = &'a [u8]>, header_bytes: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    // Most have none, and need not be copied to be found without.
    for nal in nals.filter(|nal| nal.windows(IDENTIFIER.len()).any(|bytes| bytes == IDENTIFIER)) {
        let body = without_emulation_prevention(nal.get(header_bytes..).unwrap_or_default());
        let captions = messages(&body)
            .filter(|(kind, payload)| *kind == REGISTERED_USER_DATA && payload.starts_with(HEADER));
        found.extend(captions.map(|(_, payload)| payload.to_vec()));
    }
    found
}

/// `sei_message`s: type and payload (H.264, §7.3.2.3.1).
fn messages(body: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = body;
    std::iter::from_fn(move || {
        // What is left is the stop bit.
        if rest.len() < 2 {
            return None;
        }
        let kind = number(&mut rest)?;
        let bytes = number(&mut rest)?;
        let payload;
        (payload, rest) = rest.split_at_checked(bytes)?;
        Some((kind, payload))
    })
}

/// A sum of bytes, of which all but the last are 255.
fn number(rest: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    loop {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        number += usize::from(byte);
        if byte != u8::MAX {
            return Some(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(triples: &[[u8; 3]]) -> Vec<u8> {
        [HEADER, &[0x40 | triples.len() as u8, 0xFF], triples.as_flattened(), &[0xFF]].concat()
    }

    fn named(triples: &[[u8; 3]]) -> Vec<Channel> {
        Captions::of(&message(triples)).iter().collect()
    }

    const PADDING: [[u8; 3]; 2] = [[0xFC, 0x80, 0x80], [0xFD, 0x80, 0x80]];
    /// Roll-up with two rows, with the parity that line 21 has.
    const ROLL_UP: [u8; 3] = [0xFC, 0x94, 0x25];

    #[test]
    fn a_channel_that_shows_text_is_named_and_padding_is_not() {
        assert_eq!(named(&PADDING), []);
        assert_eq!(named(&[ROLL_UP, PADDING[1]]), [Channel::Cc(1)]);
        assert_eq!(named(&[[0xFC, 0x1C, 0x20]]), [Channel::Cc(2)], "the second channel of the first field");
        assert_eq!(named(&[[0xFD, 0x15, 0x29], ROLL_UP]), [Channel::Cc(1), Channel::Cc(3)]);
        assert_eq!(
            named(&[[0xFD, 0x01, 0x03], [0xFC, b'H', b'i']]),
            [],
            "data about the programme, and letters"
        );
        assert_eq!(named(&[[0xF8, 0x94, 0x25]]), [], "not valid");
        assert_eq!(named(&[[0xFC, 0x94, 0x2A]]), [], "the channel of text that is no caption");
    }

    #[test]
    fn services_are_named_where_there_is_nothing_else() {
        let packet = [[0xFF, 0x04, 0x21], [0xFE, b'A', 0x42], [0xFE, b'B', b'C']];
        assert_eq!(named(&packet), [Channel::Service(1), Channel::Service(2)]);
        assert_eq!(named(&[[0xFF, 0x01, 0x00], [0xFE, 0, 0]]), [], "a null block");
        assert_eq!(named(&[[0xFE, b'h', b'e'], [0xFE, b'l', b'o']]), [], "the rest of a packet");
        assert_eq!(named(&[packet.as_slice(), &[ROLL_UP]].concat()), [Channel::Cc(1)]);
    }

    #[test]
    fn messages_are_found_whatever_the_length_of_lengths() {
        let captions = message(&[ROLL_UP]);
        let sei = |header: &[u8]| {
            let timing = [&[1, 200], [7; 200].as_slice()].concat();
            let body = [timing.as_slice(), &[4, captions.len() as u8], &captions, &[0x80]].concat();
            [header, &body].concat()
        };
        let unit = |nal: &[u8]| [&(nal.len() as u16).to_be_bytes(), nal, &[0, 2, 0x65, 1]].concat();
        assert_eq!(in_h264(&unit(&sei(&[6])), 2), [captions.as_slice()]);
        assert_eq!(in_h265(&unit(&sei(&[39 << 1, 1])), 2), [captions.as_slice()]);
        assert!(in_h264(&unit(&sei(&[0x65])), 2).is_empty(), "in a slice, by chance");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in any::<Vec<u8>>(), length_bytes in 1u8..=4) {
            in_h264(&bytes, length_bytes);
            in_h265(&bytes, length_bytes);
            messages(&bytes).count();
            let channels = Captions::of(&[HEADER, &bytes].concat());
            prop_assert_eq!(Captions::from_bits(channels.to_bits()), channels);
            prop_assert_eq!(channels.is_empty(), channels.iter().next().is_none());
        }
    }
}
