//! A certificate with its key: whether the two fit, whom they name, and until when.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A chain has two or three certificates; more would be sent with every handshake.
const CHAIN_MAX: usize = 8;

/// A chain, the key of its first certificate, and what that one says.
#[derive(Clone)]
pub struct Certificate {
    pub(super) certified: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    fingerprint: String,
}

/// Why two PEM texts cannot be served. Whoever put them there must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    #[error("the certificate file holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error(
        "the certificate file holds more than {CHAIN_MAX} certificates; it should hold one and its chain"
    )]
    LongChain,
    #[error("the certificate file is broken: {0}")]
    CertificatePem(pem::Error),
    #[error("the first certificate of the file cannot be read: {0}")]
    CertificateDer(String),
    /// Browsers have not looked at the common name since 2017 (RFC 6125, §6.4.4).
    #[error("the certificate names no host (subjectAltName)")]
    Nameless,
    #[error("the key file holds no private key in PEM, or one with a passphrase: {0}")]
    Key(pem::Error),
    #[error("the key is not the one of the certificate (the first in its file must be the server's own)")]
    OtherKey,
    #[error("the key is of a kind that TLS does not use here: {0}")]
    KeyKind(Error),
}

impl Certificate {
    /// From the texts of two PEM files: the server's certificate with the chain below it, and its key. Whether it has
    /// expired is for the caller to say: [`Certificate::not_after`].
    ///
    /// # Errors
    /// [`CertificateError`]
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .take(CHAIN_MAX + 1)
            .collect::<Result<_, _>>()
            .map_err(CertificateError::CertificatePem)?;
        if chain.len() > CHAIN_MAX {
            return Err(CertificateError::LongChain);
        }
        let own = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (names, not_before, not_after) = read(own)?;
        let fingerprint = fingerprint(own);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Key)?;
        let certified =
            CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
                Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => CertificateError::OtherKey,
                error => CertificateError::KeyKind(error),
            })?;
        Ok(Self { certified: Arc::new(certified), names, not_before, not_after, fingerprint })
    }

    /// Hosts it is for: DNS names, which may begin with `*.`, and addresses. At least one.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    #[must_use]
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// SHA-256 of the certificate as browsers show it: bytes in capitals, with colons between.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The server's own certificate, without the chain, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.certified.cert.first().map_or(&[], |certificate| certificate)
    }
}

/// Not the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

fn read(certificate: &[u8]) -> Result<(Vec<String>, SystemTime, SystemTime), CertificateError> {
    let unreadable = |error: &dyn fmt::Display| CertificateError::CertificateDer(error.to_string());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    let alternative = parsed.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let names = alternative.map(|extension| &extension.value.general_names).into_iter().flatten();
    let names: Vec<_> = names.filter_map(host).collect();
    if names.is_empty() {
        return Err(CertificateError::Nameless);
    }
    let validity = parsed.validity();
    Ok((names, time(validity.not_before.timestamp()), time(validity.not_after.timestamp())))
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        // RFC 5280, §4.2.1.6: four bytes or sixteen.
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok();
            let address = v4.or_else(|| <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok())?;
            Some(address.to_string())
        }
        _ => None,
    }
}

/// Before 1970 is long over, whatever it was.
fn time(unix_seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0))
}

fn fingerprint(certificate: &[u8]) -> String {
    let bytes = digest(&SHA256, certificate);
    let bytes: Vec<_> = bytes.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

#[cfg(test)]
pub(crate) mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate of its own for these hosts, and its key, in PEM.
    pub(crate) fn pair(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn refused(chain: &str, key: &str) -> String {
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn tells_whom_it_names_and_until_when() {
        let mut params = CertificateParams::new(vec![
            "live.example".to_owned(),
            "*.live.example".to_owned(),
            "192.0.2.7".to_owned(),
            "2001:db8::7".to_owned(),
        ])
        .unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 2), date_time_ymd(2027, 3, 4));
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let certificate =
            Certificate::from_pem(made.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert_eq!(certificate.names(), ["live.example", "*.live.example", "192.0.2.7", "2001:db8::7"]);
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds(certificate.not_before()), 1_767_312_000);
        assert_eq!(seconds(certificate.not_after()), 1_804_118_400);
        assert_eq!(certificate.fingerprint().len(), 32 * 3 - 1);
        assert_eq!(certificate.der(), made.der().as_ref());
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused_in_words_for_who_made_it() {
        let ((certificate, key), (_, other_key)) = (pair(&["a.example"]), pair(&["a.example"]));
        let nameless = {
            let key = KeyPair::generate().unwrap();
            (CertificateParams::default().self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        for (chain, key, words) in [
            ("", key.as_str(), "no certificate in PEM"),
            (&key, &key, "no certificate in PEM"),
            (&certificate, "", "no private key in PEM"),
            (&certificate, &certificate, "no private key in PEM"),
            (&certificate, &other_key, "not the one of the certificate"),
            (&certificate[..certificate.len() / 2], &key, "certificate file is broken"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "cannot be read"),
            (&nameless.0, &nameless.1, "names no host"),
            (&certificate.repeat(9), &key, "more than 8"),
        ] {
            let told = refused(chain, key);
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    /// Threat: a key in a log.
    #[test]
    fn no_key_is_shown() {
        let (chain, key) = pair(&["a.example"]);
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let shown = format!("{certificate:?}");
        assert!(
            shown.starts_with("Certificate { names: [\"a.example\"]") && !shown.contains("key"),
            "{shown}"
        );
    }
}
