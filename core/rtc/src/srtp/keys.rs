//! From the bytes that DTLS exports to the keys one direction is sealed with.

use std::fmt;

use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;

/// AES-128, for the master and for the session key, in both profiles.
pub(super) const KEY_BYTES: usize = 16;
/// The longer of the two salts; the shorter one is followed by zeros, which is what key derivation makes of it.
pub(super) const SALT_BYTES_MAX: usize = 14;
/// HMAC-SHA1's key (RFC 3711, §5.2).
pub(super) const AUTH_KEY_BYTES: usize = 20;

/// Labels of RFC 3711, §4.3.1: of the key that encrypts, of the one that authenticates, and of the salt.
const RTP_LABELS: [u8; 3] = [0x00, 0x01, 0x02];
/// Other numbers, so the keys are others too.
const RTCP_LABELS: [u8; 3] = [0x03, 0x04, 0x05];

/// The SRTP protection profiles we take. GCM costs less than half of the other where SHA-1 has no instructions (bench
/// `seal`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// `SRTP_AEAD_AES_128_GCM` (RFC 7714, §14.2).
    Aes128Gcm,
    /// `SRTP_AES128_CM_HMAC_SHA1_80` (RFC 5764, §4.1.2): what everybody has.
    Aes128CmHmacSha1_80,
}

impl Profile {
    /// Length of the master salt.
    pub const fn salt_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 12,
            Self::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// What sealing adds behind the payload.
    pub const fn tag_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes128CmHmacSha1_80 => 10,
        }
    }

    /// How much to ask of the DTLS exporter, under the label `EXTRACTOR-dtls_srtp` (RFC 5764, §4.2).
    pub const fn exported_bytes(self) -> usize {
        2 * (KEY_BYTES + self.salt_bytes())
    }
}

/// Which side of the DTLS handshake we were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// Master key and salt of one direction.
#[derive(Clone, PartialEq, Eq)]
pub struct Master {
    pub key: [u8; KEY_BYTES],
    salt: [u8; SALT_BYTES_MAX],
}

impl Master {
    /// The salt, as long as `profile` has it.
    pub fn salt(&self, profile: Profile) -> &[u8] {
        &self.salt[..profile.salt_bytes()]
    }
}

/// A key is never written down by accident.
impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Master(..)")
    }
}

/// What a finished DTLS handshake gives. Not `Clone`: sealing consumes it, so that no second sealer can count the
/// same packets anew under the same key.
#[derive(Debug, PartialEq, Eq)]
pub struct Keys {
    pub profile: Profile,
    /// Seals what we send.
    pub local: Master,
    /// Opens what the peer sends.
    pub remote: Master,
}

/// The exporter gave another number of bytes than it was asked for: a mistake of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the DTLS exporter gave {got} bytes where the SRTP profile needs {needed}")]
pub struct ExportedLengthError {
    pub got: usize,
    pub needed: usize,
}

impl Keys {
    /// Cuts what the exporter gave: client key, server key, client salt, server salt (RFC 5764, §4.2).
    ///
    /// # Errors
    /// [`ExportedLengthError`] unless there are [`Profile::exported_bytes`].
    pub fn from_exported(profile: Profile, role: Role, exported: &[u8]) -> Result<Self, ExportedLengthError> {
        let needed = profile.exported_bytes();
        if exported.len() != needed {
            return Err(ExportedLengthError { got: exported.len(), needed });
        }
        let (keys, salts) = exported.split_at(2 * KEY_BYTES);
        let (client_key, server_key) = keys.split_at(KEY_BYTES);
        let (client_salt, server_salt) = salts.split_at(profile.salt_bytes());
        let client = Master { key: padded(client_key), salt: padded(client_salt) };
        let server = Master { key: padded(server_key), salt: padded(server_salt) };
        let (local, remote) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        Ok(Self { profile, local, remote })
    }
}

/// What RTP or RTCP of one direction is sealed with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SessionKeys {
    pub(super) encryption: [u8; KEY_BYTES],
    /// As long as the profile's master salt, then zeros.
    pub(super) salt: [u8; SALT_BYTES_MAX],
    /// Only HMAC profiles have a use for it.
    pub(super) authentication: [u8; AUTH_KEY_BYTES],
}

impl SessionKeys {
    /// The key derivation rate is zero with DTLS (RFC 5764, §4.1.2): these hold for the whole session.
    pub(super) fn for_rtp(profile: Profile, master: &Master) -> Self {
        Self::new(profile, master, RTP_LABELS)
    }

    pub(super) fn for_rtcp(profile: Profile, master: &Master) -> Self {
        Self::new(profile, master, RTCP_LABELS)
    }

    fn new(profile: Profile, master: &Master, [encryption, authentication, salt]: [u8; 3]) -> Self {
        let mut salt = derive(master, salt);
        salt[profile.salt_bytes()..].fill(0);
        Self { encryption: derive(master, encryption), salt, authentication: derive(master, authentication) }
    }
}

/// AES-CM as a pseudo-random function (RFC 3711, §4.3.3; the same for GCM by RFC 7714, §11): the key stream whose
/// counter starts at salt XOR label, with two bytes for the block.
fn derive<const BYTES: usize>(master: &Master, label: u8) -> [u8; BYTES] {
    let mut counter: [u8; 16] = padded(&master.salt);
    counter[7] ^= label;
    let mut stream = [0; BYTES];
    EncryptingKey::ctr(UnboundCipherKey::new(&AES_128, &master.key).expect("an AES-128 key has 16 bytes"))
        .and_then(|key| {
            key.less_safe_encrypt(&mut stream, EncryptionContext::Iv128(FixedLength::from(counter)))
        })
        .expect("counter mode takes any length");
    stream
}

/// `bytes`, then zeros.
fn padded<const BYTES: usize>(bytes: &[u8]) -> [u8; BYTES] {
    let mut array = [0; BYTES];
    array[..bytes.len()].copy_from_slice(bytes);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3711, B.3. It derives 94 bytes of authentication key; SHA-1 takes the first 20.
    #[test]
    fn the_vectors_of_the_standard_are_derived() {
        let master = Master {
            key: 0xE1F9_7A0D_3E01_8BE0_D64F_A32C_06DE_4139_u128.to_be_bytes(),
            salt: [0x0E, 0xC6, 0x75, 0xAD, 0x49, 0x8A, 0xFE, 0xEB, 0xB6, 0x96, 0x0B, 0x3A, 0xAB, 0xE6],
        };
        let keys = SessionKeys::for_rtp(Profile::Aes128CmHmacSha1_80, &master);
        assert_eq!(keys.encryption, 0xC61E_7A93_744F_39EE_1073_4AFE_3FF7_A087_u128.to_be_bytes());
        assert_eq!(
            keys.salt,
            [0x30, 0xCB, 0xBC, 0x08, 0x86, 0x3D, 0x8C, 0x85, 0xD4, 0x9D, 0xB3, 0x4A, 0x9A, 0xE1]
        );
        assert_eq!(
            keys.authentication,
            [
                0xCE, 0xBE, 0x32, 0x1F, 0x6F, 0xF7, 0x71, 0x6B, 0x6F, 0xD4, 0xAB, 0x49, 0xAF, 0x25, 0x6A,
                0x15, 0x6D, 0x38, 0xBA, 0xA4
            ]
        );
    }

    #[test]
    fn a_server_seals_with_the_second_half_and_a_client_with_the_first() {
        for profile in [Profile::Aes128Gcm, Profile::Aes128CmHmacSha1_80] {
            let exported: Vec<u8> = (0..profile.exported_bytes() as u8).collect();
            let server = Keys::from_exported(profile, Role::Server, &exported).unwrap();
            assert_eq!(server.remote.key[..], exported[..16]);
            assert_eq!(server.local.key[..], exported[16..32]);
            assert_eq!(server.remote.salt(profile), &exported[32..32 + profile.salt_bytes()]);
            assert_eq!(server.local.salt(profile), &exported[32 + profile.salt_bytes()..]);
            let client = Keys::from_exported(profile, Role::Client, &exported).unwrap();
            assert_eq!((client.local, client.remote), (server.remote, server.local));
        }
    }

    #[test]
    fn bytes_for_another_profile_are_refused() {
        let exported = [0; Profile::Aes128Gcm.exported_bytes()];
        assert_eq!(
            Keys::from_exported(Profile::Aes128CmHmacSha1_80, Role::Server, &exported),
            Err(ExportedLengthError { got: 56, needed: 60 })
        );
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = Keys::from_exported(Profile::Aes128Gcm, Role::Server, &[0xAB; 56]).unwrap();
        assert!(!format!("{keys:?}").contains("171"), "{keys:?}");
    }
}
