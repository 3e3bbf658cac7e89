//! The digest in the first packets of the handshake, which Flash Player and FMLE brought and ffmpeg still sends.
//!
//! Adobe never published it; what is known comes from those who had to interoperate. 32 of a packet's 1,536 bytes are
//! an HMAC-SHA-256 of all the others. Where they stand is told by four bytes at one of two places: the *scheme*. The
//! keys are in every client, so it proves nothing, but a client that signs its C1 may hang up on a server that does
//! not sign S1 and S2.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::handshake::PACKET_BYTES;

const DIGEST_BYTES: usize = 32;

/// The digest stands in a block of 764 bytes: four that tell where, and room for it anywhere behind.
const PLACES: u32 = 728;
/// Bytes of time and version before the first block.
const HEADER_BYTES: usize = 8;
const BLOCK_BYTES: usize = 764;

/// The player signs with the first; the server with the second, and its answer with all of it.
const PLAYER_KEY: &[u8] = b"Genuine Adobe Flash Player 001";
const SERVER_KEY: &[u8] = b"Genuine Adobe Flash Media Server 001";
const SERVER_KEY_TAIL: &[u8] = &[
    0xF0, 0xEE, 0xC2, 0x4A, 0x80, 0x68, 0xBE, 0xE8, 0x2E, 0x00, 0xD0, 0xD1, 0x02, 0x9E, 0x7E, 0x57, 0x6E,
    0xEC, 0x5D, 0x2D, 0x29, 0x80, 0x6F, 0xAB, 0x93, 0xB8, 0xE6, 0x36, 0xCF, 0xEB, 0x31, 0xAE,
];

pub(super) type Packet = [u8; PACKET_BYTES];
type Digest = [u8; DIGEST_BYTES];

/// Which of the two blocks holds the digest; a key for encryption, which nobody uses, is in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// The digest is in the second block.
    KeyFirst,
    /// The digest is in the first block.
    DigestFirst,
}

/// A C1 that was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signed {
    scheme: Scheme,
    digest: Digest,
}

impl Signed {
    /// `None` for a client that does not sign, which is as good.
    pub(super) fn verify(c1: &Packet) -> Option<Self> {
        [Scheme::KeyFirst, Scheme::DigestFirst].into_iter().find_map(|scheme| {
            let place = scheme.place(c1);
            let digest = sign(c1, place, PLAYER_KEY);
            (c1[place..place + DIGEST_BYTES] == digest).then_some(Self { scheme, digest })
        })
    }

    /// Signs S1, in place and in the client's scheme.
    pub(super) fn sign_hello(&self, s1: &mut Packet) {
        let place = self.scheme.place(s1);
        let digest = sign(s1, place, SERVER_KEY);
        s1[place..place + DIGEST_BYTES].copy_from_slice(&digest);
    }

    /// Signs S2, in its last bytes, with a key made of the client's digest.
    pub(super) fn sign_echo(&self, s2: &mut Packet) {
        let key = mac(&[SERVER_KEY, SERVER_KEY_TAIL].concat(), &[&self.digest]);
        let (body, place) = s2.split_at_mut(PACKET_BYTES - DIGEST_BYTES);
        place.copy_from_slice(&mac(&key, &[body]));
    }
}

impl Scheme {
    /// Where the digest of `packet` begins. Always inside its block, whatever the bytes.
    fn place(self, packet: &Packet) -> usize {
        let block = match self {
            Self::KeyFirst => HEADER_BYTES + BLOCK_BYTES,
            Self::DigestFirst => HEADER_BYTES,
        };
        let told: u32 = packet[block..block + 4].iter().map(|&byte| u32::from(byte)).sum();
        block + 4 + (told % PLACES) as usize
    }
}

const _: () = assert!(4 + PLACES as usize + DIGEST_BYTES <= BLOCK_BYTES);
const _: () = assert!(HEADER_BYTES + 2 * BLOCK_BYTES == PACKET_BYTES);

/// The digest of all of `packet` but the bytes it will stand in.
fn sign(packet: &Packet, place: usize, key: &[u8]) -> Digest {
    mac(key, &[&packet[..place], &packet[place + DIGEST_BYTES..]])
}

fn mac(key: &[u8], pieces: &[&[u8]]) -> Digest {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::handshake::{FILLER_BYTES, Handshake, Progress};
    use super::*;

    /// A C1 as a player signs it, with the digest where `bytes` say.
    fn signed(mut packet: Packet, scheme: Scheme) -> Packet {
        let place = scheme.place(&packet);
        let digest = sign(&packet, place, PLAYER_KEY);
        packet[place..place + DIGEST_BYTES].copy_from_slice(&digest);
        packet
    }

    fn noise(seed: u8) -> Packet {
        std::array::from_fn(|at| (at as u8).wrapping_mul(31).wrapping_add(seed))
    }

    /// RFC 4231, test case 2: whatever else is wrong here, it is not the HMAC.
    #[test]
    fn the_mac_is_hmac_sha_256() {
        let digest = mac(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(digest[..8], [0x5B, 0xDC, 0xC1, 0x46, 0xBF, 0x60, 0x75, 0x4E]);
    }

    #[test]
    fn a_signature_is_found_in_either_scheme() {
        for scheme in [Scheme::KeyFirst, Scheme::DigestFirst] {
            let c1 = signed(noise(7), scheme);
            assert_eq!(Signed::verify(&c1).unwrap().scheme, scheme);
        }
        assert_eq!(Signed::verify(&noise(7)), None);
        assert_eq!(Signed::verify(&[0; PACKET_BYTES]), None);
    }

    /// One wrong bit anywhere is no signature, and the handshake goes on without.
    #[test]
    fn a_damaged_signature_is_none() {
        let c1 = signed(noise(7), Scheme::DigestFirst);
        for at in 0..PACKET_BYTES {
            let mut damaged = c1;
            damaged[at] ^= 1;
            assert_eq!(Signed::verify(&damaged), None, "byte {at}");
        }
    }

    /// The other side's check, written from the client's view: ffmpeg hangs up where it fails.
    #[test]
    fn a_player_that_signs_is_answered_with_signatures() {
        for scheme in [Scheme::KeyFirst, Scheme::DigestFirst] {
            let c1 = signed(noise(7), scheme);
            let mut server = Handshake::new(Box::new([0x5A; FILLER_BYTES]));
            let Ok(Progress::More { reply }) = server.push(&[&[3], &c1[..]].concat()) else {
                panic!("C2 is missing")
            };
            let (s1, s2) = reply[1..].split_at(PACKET_BYTES);
            let (&s1, &s2) = (s1.first_chunk().unwrap(), s2.first_chunk::<PACKET_BYTES>().unwrap());
            assert!(s1[4] >= 3, "players look for signatures from version 3 on");
            let place = scheme.place(&s1);
            assert_eq!(s1[place..place + DIGEST_BYTES], sign(&s1, place, SERVER_KEY));

            let place = scheme.place(&c1);
            let key = mac(&[SERVER_KEY, SERVER_KEY_TAIL].concat(), &[&c1[place..place + DIGEST_BYTES]]);
            assert_eq!(s2[PACKET_BYTES - DIGEST_BYTES..], mac(&key, &[&s2[..PACKET_BYTES - DIGEST_BYTES]]));
        }
    }

    proptest! {
        /// Where the digest stands is the client's choice: it must never be outside the packet.
        #[test]
        fn any_packet_never_panics(told in any::<[[u8; 4]; 2]>(), fill in any::<u8>()) {
            let mut packet = [fill; PACKET_BYTES];
            packet[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&told[0]);
            packet[HEADER_BYTES + BLOCK_BYTES..HEADER_BYTES + BLOCK_BYTES + 4].copy_from_slice(&told[1]);
            prop_assert_eq!(Signed::verify(&packet), None);
            for scheme in [Scheme::KeyFirst, Scheme::DigestFirst] {
                let signed = signed(packet, scheme);
                prop_assert_eq!(Signed::verify(&signed).map(|signed| signed.scheme), Some(scheme));
            }
        }
    }
}
