//! Who we are, and who the peer said in its SDP that it is.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{self, Algorithm, SHA256, SHA384, SHA512};
use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_dtls::crypto::Certificate;

/// Our certificate for DTLS: self-signed, ECDSA on P-256. One for the whole process: its key is what a handshake
/// costs most to make, and peers learn its fingerprint from the SDP anyway.
pub struct Identity {
    certificate: Certificate,
    fingerprint: Fingerprint,
}

/// The certificate could not be made: the system gives no randomness, or the cryptography is not what we think.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the DTLS certificate: {0}")]
pub struct IdentityError(#[from] rtc_shared::error::Error);

impl Identity {
    /// # Errors
    /// [`IdentityError`].
    pub fn generate() -> Result<Self, IdentityError> {
        let certificate = Certificate::generate_self_signed([], &AwsLcRsCrypto)?;
        let fingerprint = certificate
            .certificate
            .first()
            .map(|der| Fingerprint::of(Hash::Sha256, der))
            .expect("a certificate that was just made");
        Ok(Self { certificate, fingerprint })
    }

    /// For the SDP.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// Hash of a certificate in DER, as SDP has it (RFC 8122, §5).
#[derive(Clone, PartialEq, Eq)]
pub struct Fingerprint {
    hash: Hash,
    bytes: Vec<u8>,
}

/// The hashes that RFC 8122 still allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        }
    }
}

impl Fingerprint {
    fn of(hash: Hash, certificate: &[u8]) -> Self {
        Self { hash, bytes: digest::digest(hash.algorithm(), certificate).as_ref().to_vec() }
    }

    /// Whether this is the fingerprint of `certificate` (DER).
    pub(super) fn matches(&self, certificate: &[u8]) -> bool {
        *self == Self::of(self.hash, certificate)
    }
}

/// Neither `sha-256`, `sha-384` nor `sha-512`, or not as many bytes as it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the fingerprint must be sha-256, sha-384 or sha-512 and as long as that is")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let (name, hex) = text.trim().split_once(' ').ok_or(FingerprintError)?;
        let hash = Hash::ALL
            .into_iter()
            .find(|hash| hash.name().eq_ignore_ascii_case(name))
            .ok_or(FingerprintError)?;
        let bytes: Option<Vec<u8>> = hex
            .trim()
            .split(':')
            .map(|byte| (byte.len() == 2).then(|| u8::from_str_radix(byte, 16).ok()).flatten())
            .collect();
        match bytes {
            Some(bytes) if bytes.len() == hash.algorithm().output_len() => Ok(Self { hash, bytes }),
            _ => Err(FingerprintError),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.hash.name())?;
        for (position, byte) in self.bytes.iter().enumerate() {
            if position > 0 {
                f.write_str(":")?;
            }
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_survives_its_text() {
        let identity = Identity::generate().unwrap();
        let text = identity.fingerprint().to_string();
        assert_eq!((text.len(), &text[..8]), (8 + 32 * 3 - 1, "sha-256 "));
        let read: Fingerprint = text.parse().unwrap();
        assert_eq!(&read, identity.fingerprint());
        assert_eq!(text.to_lowercase().parse::<Fingerprint>().unwrap(), read);
        assert!(read.matches(&identity.certificate().certificate[0]));
        assert!(!read.matches(b"another certificate"));
    }

    #[test]
    fn weak_and_broken_ones_are_refused() {
        let good = Identity::generate().unwrap().fingerprint().to_string();
        for text in [
            "",
            "sha-256",
            &good.replace("sha-256", "sha-384"),
            &good.replace("sha-256", "sha-1"),
            &good[..good.len() - 3],
            &good[..good.len() - 1],
            &good.replacen(':', "", 1),
            &format!("{good}:00"),
            "sha-1 AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA:AA",
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }
}
