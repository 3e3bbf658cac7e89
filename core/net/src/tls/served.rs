//! The certificate that newcomers get, which may change between any two of them.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Certificate;
use super::accept::ACME_CHALLENGE;

/// Shared by all listeners. Each handshake takes what is there when it begins, whole, so none fails for a change.
#[derive(Debug, Default)]
pub struct Served {
    certificate: ArcSwapOption<Certificate>,
    challenges: ArcSwap<Vec<Challenge>>,
}

/// What proves to a certificate authority that it has reached us (RFC 8737, §3).
#[derive(Debug, Clone)]
struct Challenge {
    name: String,
    certified: Arc<CertifiedKey>,
}

impl Served {
    /// With nothing to serve yet: handshakes fail until there is.
    #[must_use]
    pub fn new(certificate: Option<Certificate>) -> Self {
        Self { certificate: ArcSwapOption::new(certificate.map(Arc::new)), challenges: ArcSwap::default() }
    }

    /// For newcomers from now on.
    pub fn set(&self, certificate: Certificate) {
        self.certificate.store(Some(Arc::new(certificate)));
    }

    #[must_use]
    pub fn get(&self) -> Option<Arc<Certificate>> {
        self.certificate.load_full()
    }

    /// Answers the authority that asks for `name` by TLS-ALPN-01 with this certificate, until
    /// [`Served::end_challenges`]; everybody else gets what they get otherwise.
    ///
    /// # Errors
    /// If the key cannot be used.
    pub fn challenge(
        &self,
        name: &str,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), rustls::Error> {
        let key = default_provider().key_provider.load_private_key(key)?;
        // Not `from_der`, which refuses the extension that makes it an answer (RFC 8737, §3: critical).
        let certified = Arc::new(CertifiedKey::new(vec![certificate], key));
        let challenge = Challenge { name: name.to_ascii_lowercase(), certified };
        self.challenges.rcu(|challenges| {
            let others = challenges.iter().filter(|other| other.name != challenge.name).cloned();
            others.chain([challenge.clone()]).collect::<Vec<_>>()
        });
        Ok(())
    }

    pub fn end_challenges(&self) {
        self.challenges.store(Arc::default());
    }

    fn challenge_for(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let challenges = self.challenges.load();
        // rustls has made it lower case.
        challenges.iter().find(|challenge| challenge.name == name).map(|found| found.certified.clone())
    }
}

impl ResolvesServerCert for Served {
    /// Whatever name the client asks for: it knows better than we by which of its names it reached us, and will
    /// refuse what does not fit.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut protocols = hello.alpn().into_iter().flatten();
        // RFC 8737, §3: the authority offers this protocol and no other.
        if protocols.next() == Some(ACME_CHALLENGE) && protocols.next().is_none() {
            return self.challenge_for(hello.server_name()?);
        }
        self.certificate.load().as_ref().map(|certificate| certificate.certified.clone())
    }
}
