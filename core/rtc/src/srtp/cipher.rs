//! The two transforms, on one packet in place. Which packet it is, and that it is only one, is the sealer's business.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::keys::{Profile, SALT_BYTES_MAX, SessionKeys};
use crate::rtcp::HEADER_BYTES;

/// What tells of an RTCP packet whether it is encrypted, and its index (RFC 3711, §3.4).
const WORD_BYTES: usize = 4;

/// Session keys, expanded once; all SSRCs of a session share them. Allocates nothing per packet.
pub(super) struct Cipher {
    transform: Transform,
    salt: [u8; SALT_BYTES_MAX],
}

enum Transform {
    Gcm(LessSafeKey),
    /// 1.7 kB of hash states, which sessions with GCM need not carry.
    CmHmac(Box<(EncryptingKey, hmac::Key)>),
}

impl Cipher {
    pub(super) fn new(profile: Profile, keys: &SessionKeys) -> Self {
        let transform = match profile {
            Profile::Aes128Gcm => {
                let key = UnboundKey::new(&AES_128_GCM, &keys.encryption);
                Transform::Gcm(LessSafeKey::new(key.expect("an AES-128 key has 16 bytes")))
            }
            Profile::Aes128CmHmacSha1_80 => {
                let key = UnboundCipherKey::new(&AES_128, &keys.encryption).and_then(EncryptingKey::ctr);
                let key = key.expect("an AES-128 key has 16 bytes");
                let mac = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &keys.authentication);
                Transform::CmHmac(Box::new((key, mac)))
            }
        };
        Self { transform, salt: keys.salt }
    }

    pub(super) fn profile(&self) -> Profile {
        match self.transform {
            Transform::Gcm(_) => Profile::Aes128Gcm,
            Transform::CmHmac(_) => Profile::Aes128CmHmacSha1_80,
        }
    }

    /// Encrypts what lies between `header_bytes` and the last bytes of `packet`, which get the tag. `index` is
    /// rollover counter and sequence number, 48 bits together.
    pub(super) fn seal(&self, packet: &mut [u8], header_bytes: usize, ssrc: u32, index: u64) {
        let (body, room) = packet.split_at_mut(packet.len() - self.profile().tag_bytes());
        match &self.transform {
            Transform::Gcm(key) => {
                // RFC 7714, §8.1: two zeros, SSRC, index.
                let nonce = Nonce::assume_unique_for_key(masked(2, ssrc, index, &self.salt));
                let (header, payload) = body.split_at_mut(header_bytes);
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(&*header), payload)
                    .expect("a datagram is far shorter than GCM's limit");
                room.copy_from_slice(tag.as_ref());
            }
            Transform::CmHmac(keys) => {
                let (key, mac) = &**keys;
                // RFC 3711, §4.1.1: four zeros, SSRC, index, and two bytes that count blocks.
                let counter = masked(4, ssrc, index, &self.salt);
                key.less_safe_encrypt(
                    &mut body[header_bytes..],
                    EncryptionContext::Iv128(FixedLength::from(counter)),
                )
                .expect("counter mode takes any length");
                // RFC 3711, §4.2: the rollover counter is authenticated behind the packet, without being sent.
                let mut context = hmac::Context::with_key(mac);
                context.update(body);
                context.update(&((index >> 16) as u32).to_be_bytes());
                room.copy_from_slice(&context.sign().as_ref()[..room.len()]);
            }
        }
    }

    /// Encrypts an RTCP packet of at least a header behind that, and appends `word` and the tag.
    pub(super) fn seal_control(&self, packet: &mut Vec<u8>, ssrc: u32, word: u32) {
        match &self.transform {
            Transform::Gcm(key) => {
                let (header, plain) = packet.split_at_mut(HEADER_BYTES);
                let tag = key
                    .seal_in_place_separate_tag(
                        self.control_nonce(ssrc, word),
                        control_aad(header, word),
                        plain,
                    )
                    .expect("a datagram is far shorter than GCM's limit");
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&word.to_be_bytes());
            }
            Transform::CmHmac(keys) => {
                let (key, mac) = &**keys;
                self.counter_mode(key, &mut packet[HEADER_BYTES..], ssrc, word);
                packet.extend_from_slice(&word.to_be_bytes());
                let tag = hmac::sign(mac, packet);
                packet.extend_from_slice(&tag.as_ref()[..self.profile().tag_bytes()]);
            }
        }
    }

    /// The word of a sealed RTCP packet; `None` if that is too short for one.
    pub(super) fn control_word(&self, sealed: &[u8]) -> Option<u32> {
        let behind = match self.transform {
            Transform::Gcm(_) => 0,
            Transform::CmHmac(_) => self.profile().tag_bytes(),
        };
        let (_, word) = sealed.get(..sealed.len().checked_sub(behind)?)?.split_last_chunk()?;
        Some(u32::from_be_bytes(*word))
    }

    /// Opens a sealed RTCP packet, whose [word](Self::control_word) is `word`. `None` if nobody sealed it, or somebody changed it.
    pub(super) fn open_control<'a>(&self, sealed: &'a mut [u8], ssrc: u32, word: u32) -> Option<&'a [u8]> {
        let end = sealed.len().checked_sub(WORD_BYTES + self.profile().tag_bytes())?;
        match &self.transform {
            Transform::Gcm(key) => {
                let (header, body) = sealed.split_first_chunk_mut::<HEADER_BYTES>()?;
                let body = body.get_mut(..end.checked_sub(HEADER_BYTES)? + self.profile().tag_bytes())?;
                key.open_in_place(self.control_nonce(ssrc, word), control_aad(header, word), body).ok()?;
            }
            Transform::CmHmac(keys) => {
                let (key, mac) = &**keys;
                let (body, tag) = sealed.split_at_mut_checked(end + WORD_BYTES)?;
                let expected = hmac::sign(mac, body);
                verify_slices_are_equal(&expected.as_ref()[..tag.len()], tag).ok()?;
                // What encrypts in counter mode decrypts.
                self.counter_mode(key, body.get_mut(HEADER_BYTES..end)?, ssrc, word);
            }
        }
        sealed.get(..end)
    }

    /// RFC 7714, §9.1: two zeros, SSRC, two zeros, index.
    fn control_nonce(&self, ssrc: u32, word: u32) -> Nonce {
        Nonce::assume_unique_for_key(masked(2, ssrc, index_of(word), &self.salt))
    }

    /// RFC 3711, §4.1.1: as for RTP, with the index of RTCP.
    fn counter_mode(&self, key: &EncryptingKey, bytes: &mut [u8], ssrc: u32, word: u32) {
        let counter = masked(4, ssrc, index_of(word), &self.salt);
        key.less_safe_encrypt(bytes, EncryptionContext::Iv128(FixedLength::from(counter)))
            .expect("counter mode takes any length");
    }
}

/// Without the flag before it.
fn index_of(word: u32) -> u64 {
    u64::from(word & !(1 << 31))
}

/// RFC 7714, §9.2: the header, and the word behind the packet.
fn control_aad(header: &[u8], word: u32) -> Aad<[u8; HEADER_BYTES + WORD_BYTES]> {
    let mut aad = [0; HEADER_BYTES + WORD_BYTES];
    aad[..HEADER_BYTES].copy_from_slice(header);
    aad[HEADER_BYTES..].copy_from_slice(&word.to_be_bytes());
    Aad::from(aad)
}

/// The salt XOR zeros, the SSRC at byte `at` and the index behind it: the shape of both initialisation vectors.
fn masked<const BYTES: usize>(at: usize, ssrc: u32, index: u64, salt: &[u8; SALT_BYTES_MAX]) -> [u8; BYTES] {
    let mut vector = [0; BYTES];
    vector[at..at + 4].copy_from_slice(&ssrc.to_be_bytes());
    vector[at + 4..at + 10].copy_from_slice(&index.to_be_bytes()[2..]);
    for (byte, salt) in vector.iter_mut().zip(salt) {
        *byte ^= salt;
    }
    vector
}
