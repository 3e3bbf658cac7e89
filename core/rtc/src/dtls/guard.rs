//! What may reach `rtc-dtls`.
//!
//! Its reassembly keeps up to 2 MB of fragments for each peer, does not count empty ones, and puts them together by
//! recursion, one level a fragment; it queues records of the next epoch without a bound. Anybody who was let in over
//! HTTP can send such things (threat 7), so their number is bounded here. The bounds are far above what a handshake
//! takes on a line that loses every other packet.

/// Of one handshake. Browsers need 2 kB, four times that with certificates of RSA, more with retransmissions.
const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;
/// Of one handshake, in the clear.
const FRAGMENTS_MAX: usize = 256;
/// The longest handshake message: a chain of certificates.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Encrypted handshake records: the peer's Finished, again and again. Their fragments cannot be counted, so they must
/// be as short as a Finished is (61 bytes).
const ENCRYPTED_MAX: usize = 32;
const ENCRYPTED_BYTES_MAX: usize = 128;
/// Repetitions of the peer's last flight after the handshake, in records.
const REPEATED_MAX: usize = 64;

const RECORD_HEADER_BYTES: usize = 13;
const FRAGMENT_HEADER_BYTES: usize = 12;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// As if it had been lost on the way.
    Drop,
    /// The handshake has had all it may take, and has not come to an end.
    Exhausted,
}

/// What one association has taken so far.
#[derive(Debug, Default)]
pub(super) struct Guard {
    bytes: usize,
    fragments: usize,
    encrypted: usize,
    repeated: usize,
}

impl Guard {
    pub(super) fn judge(&mut self, datagram: &[u8], is_complete: bool) -> Verdict {
        let mut taken = Taken::default();
        let mut rest = datagram;
        while !rest.is_empty() {
            match record(rest).and_then(|(kind, epoch, body, after)| {
                rest = after;
                taken.count(kind, epoch, body, is_complete)
            }) {
                Some(()) => {}
                None => return Verdict::Drop,
            }
        }
        self.encrypted += taken.encrypted;
        if is_complete {
            self.repeated += taken.fragments + taken.encrypted;
            let is_within = self.repeated <= REPEATED_MAX || taken.fragments + taken.encrypted == 0;
            return if is_within { Verdict::Pass } else { Verdict::Drop };
        }
        self.bytes += datagram.len();
        self.fragments += taken.fragments;
        let is_within = self.bytes <= HANDSHAKE_BYTES_MAX
            && self.fragments <= FRAGMENTS_MAX
            && self.encrypted <= ENCRYPTED_MAX;
        if is_within { Verdict::Pass } else { Verdict::Exhausted }
    }
}

/// What one datagram would take.
#[derive(Default)]
struct Taken {
    fragments: usize,
    encrypted: usize,
}

impl Taken {
    /// `None` for a record that nobody sends who means well, or that is of no use to us.
    fn count(&mut self, kind: u8, epoch: u16, body: &[u8], is_complete: bool) -> Option<()> {
        match (kind, epoch) {
            (HANDSHAKE, 0) => self.fragments += fragments(body)?,
            (CHANGE_CIPHER_SPEC, 0) if body.len() == 1 => self.fragments += 1,
            // In the clear, and forged if the handshake is over.
            (ALERT, 0) if !is_complete => self.fragments += 1,
            (HANDSHAKE, 1) if body.len() <= ENCRYPTED_BYTES_MAX => self.encrypted += 1,
            (ALERT, 1) if is_complete => {}
            // Its certificate has been refused, say; it comes encrypted if Finished went before it.
            (ALERT, 1) => self.encrypted += 1,
            // Application data too: we have no data channels.
            _ => return None,
        }
        Some(())
    }
}

/// Whether the sender of `datagram` changes to its new keys in it.
pub(super) fn changes_cipher(datagram: &[u8]) -> bool {
    let mut rest = datagram;
    while let Some((kind, _, _, after)) = record(rest) {
        if kind == CHANGE_CIPHER_SPEC {
            return true;
        }
        rest = after;
    }
    false
}

/// Whether `datagram` begins with a handshake message in the clear.
pub(super) fn is_clear_handshake(datagram: &[u8]) -> bool {
    matches!(record(datagram), Some((HANDSHAKE, 0, ..)))
}

/// Type, epoch and body of the first record (RFC 6347, §4.1), and what follows it.
fn record(bytes: &[u8]) -> Option<(u8, u16, &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>()?;
    // 1.0 in a ClientHello, 1.2 from then on: 254.255 and 254.253.
    if header[1] != 254 {
        return None;
    }
    let (body, after) = rest.split_at_checked(usize::from(u16::from_be_bytes([header[11], header[12]])))?;
    Some((header[0], u16::from_be_bytes([header[3], header[4]]), body, after))
}

/// How many fragments of handshake messages are in a record (RFC 6347, §4.2.2), if each is in order.
fn fragments(mut body: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !body.is_empty() {
        let (header, rest) = body.split_first_chunk::<FRAGMENT_HEADER_BYTES>()?;
        let [length, offset, part] = [1, 6, 9].map(|at| uint24(&header[at..at + 3]));
        let is_whole = offset == 0 && part == length;
        if length > MESSAGE_BYTES_MAX || offset + part > length || (part == 0 && !is_whole) {
            return None;
        }
        body = rest.get(part..)?;
        count += 1;
    }
    Some(count)
}

fn uint24(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |value, &byte| value << 8 | usize::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(kind: u8, epoch: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&[kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 0][..], &length, body].concat()
    }

    fn fragment(length: u16, offset: u16, part: u16) -> Vec<u8> {
        let [l, o, p] = [length, offset, part].map(u16::to_be_bytes);
        let header = [&[1, 0][..], &l, &[0, 0, 0], &o, &[0], &p].concat();
        [header, vec![0; part.into()]].concat()
    }

    fn judge(datagram: &[u8], is_complete: bool) -> Verdict {
        Guard::default().judge(datagram, is_complete)
    }

    #[test]
    fn what_a_handshake_consists_of_passes() {
        let hello = record_of(HANDSHAKE, 0, &fragment(200, 0, 200));
        let flight = [
            record_of(HANDSHAKE, 0, &[fragment(300, 0, 300), fragment(0, 0, 0)].concat()),
            record_of(CHANGE_CIPHER_SPEC, 0, &[1]),
            record_of(HANDSHAKE, 1, &[0; 48]),
        ]
        .concat();
        for datagram in [hello, record_of(HANDSHAKE, 0, &fragment(2_000, 1_000, 500)), flight] {
            assert_eq!(judge(&datagram, false), Verdict::Pass);
            assert_eq!(judge(&datagram, true), Verdict::Pass, "repeated after the handshake");
        }
        assert_eq!(judge(&record_of(ALERT, 0, &[2, 42]), false), Verdict::Pass);
        assert_eq!(judge(&record_of(ALERT, 1, &[0; 26]), true), Verdict::Pass);
    }

    /// Threat 7.
    #[test]
    fn what_no_honest_peer_sends_is_dropped() {
        let handshake = |fragment: Vec<u8>| record_of(HANDSHAKE, 0, &fragment);
        let short = handshake(fragment(10, 0, 10));
        for datagram in [
            handshake(fragment(10, 5, 0)),
            handshake(fragment(10, 5, 6)),
            handshake(fragment(20_000, 0, 10)),
            handshake(fragment(10, 0, 10)[..15].to_vec()),
            short[..short.len() - 1].to_vec(),
            [&short[..], &[22, 254]].concat(),
            record_of(HANDSHAKE, 1, &[0; 200]),
            record_of(HANDSHAKE, 2, &[0; 48]),
            record_of(23, 0, &[0; 48]),
            record_of(23, 1, &[0; 48]),
            record_of(24, 0, &[0; 48]),
            vec![22; 40],
        ] {
            assert_eq!(judge(&datagram, false), Verdict::Drop, "{datagram:?}");
        }
        assert_eq!(
            judge(&record_of(ALERT, 0, &[2, 42]), true),
            Verdict::Drop,
            "in the clear, to end a session"
        );
    }

    #[test]
    fn a_handshake_without_an_end_has_one() {
        for (datagram, most) in [
            (record_of(HANDSHAKE, 0, &fragment(1_000, 7, 1)), FRAGMENTS_MAX),
            (record_of(HANDSHAKE, 1, &[0; 48]), ENCRYPTED_MAX),
            (record_of(HANDSHAKE, 0, &fragment(1_000, 0, 1_000)), HANDSHAKE_BYTES_MAX / 1_025),
        ] {
            let mut guard = Guard::default();
            let passed = (0..1_000).take_while(|_| guard.judge(&datagram, false) == Verdict::Pass).count();
            assert_eq!(passed, most);
            assert_eq!(guard.judge(&datagram, false), Verdict::Exhausted);
        }
    }

    #[test]
    fn after_the_handshake_repetitions_are_few_and_alerts_still_pass() {
        let mut guard = Guard::default();
        let repeated = record_of(HANDSHAKE, 1, &[0; 48]);
        let passed = (0..1_000).filter(|_| guard.judge(&repeated, true) == Verdict::Pass).count();
        assert_eq!(passed, REPEATED_MAX);
        assert_eq!(guard.judge(&record_of(ALERT, 1, &[0; 26]), true), Verdict::Pass);
    }
}
