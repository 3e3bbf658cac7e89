//! Who a node is, and whom it trusts: TLS 1.3 with certificates on both sides, all of one authority.
//!
//! Every certificate of a cluster names its node and, beside it, [`CLUSTER_NAME`]. A child checks its upstream for that
//! second name, so an upstream may be addressed in any way, and a certificate for anything else is worth nothing here.

use std::io;
use std::sync::Arc;

use media::NodeId;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore, ServerConfig, version};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// What every node is called beside its own name.
pub const CLUSTER_NAME: &str = "node.tidecast.internal";

/// This node's certificate, key and authority, ready for both directions.
#[derive(Clone)]
pub struct Identity {
    node: NodeId,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// Why files make no identity. The operator must make them anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    #[error("{what} is no PEM file of the kind it should be: {why}")]
    Pem { what: &'static str, why: rustls::pki_types::pem::Error },
    #[error("the certificate names no node")]
    Nameless,
    #[error("the certificate was not made by this cluster's authority, or has expired: {0}")]
    Untrusted(webpki::Error),
    #[error("certificate and key do not fit: {0}")]
    Unfit(#[from] rustls::Error),
    #[error("the authority's certificate cannot be used: {0}")]
    Authority(webpki::Error),
}

impl Identity {
    /// From the texts of three PEM files.
    ///
    /// # Errors
    /// [`IdentityError`], also for a certificate that its peers would refuse.
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let pem = |what| move |why| IdentityError::Pem { what, why };
        let authority =
            CertificateDer::from_pem_slice(authority).map_err(pem("the authority's certificate"))?;
        let certificate = CertificateDer::from_pem_slice(certificate).map_err(pem("the certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("the key"))?;

        let provider = Arc::new(aws_lc_rs::default_provider());
        let node = node_of(&certificate).ok_or(IdentityError::Nameless)?;
        check(&authority, &certificate, &provider)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority)?;
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.clone()], key.clone_key())?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        Ok(Self { node, server: Arc::new(server), client: Arc::new(client) })
    }

    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// For accepting children.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// For asking an upstream.
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.client.clone()
    }
}

/// Told at the start rather than by every peer.
fn check(
    authority: &CertificateDer<'_>,
    certificate: &CertificateDer<'_>,
    provider: &CryptoProvider,
) -> Result<(), IdentityError> {
    let anchor = anchor_from_trusted_cert(authority).map_err(IdentityError::Authority)?;
    let parsed = EndEntityCert::try_from(certificate).map_err(IdentityError::Untrusted)?;
    let algorithms = provider.signature_verification_algorithms.all;
    let usage = KeyUsage::server_auth();
    parsed
        .verify_for_usage(algorithms, &[anchor], &[], UnixTime::now(), usage, None, None)
        .map(drop)
        .map_err(IdentityError::Untrusted)
}

/// The node that a certificate is for.
pub(crate) fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let parsed = EndEntityCert::try_from(certificate).ok()?;
    // The name of the cluster has dots, so it is never taken for a node's.
    parsed.valid_dns_names().find_map(|name| name.parse().ok())
}

/// What went wrong between two nodes, in words for the operator of both.
pub(crate) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return tls_words(tls);
        }
        // What an I/O error wraps is not among its sources.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let wrapped = wrapped.map(|wrapped| wrapped as &(dyn std::error::Error + 'static));
        match wrapped.or_else(|| cause.source()) {
            Some(deeper) => cause = deeper,
            None => return cause.to_string(),
        }
    }
}

fn tls_words(error: &rustls::Error) -> String {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented, PeerIncompatible,
    };
    match error {
        NoCertificatesPresented => {
            "it presented no certificate: only nodes of the cluster may connect".to_owned()
        }
        // Authorities of all clusters have one name, so it may be the signature that does not fit.
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate was made by another authority than this cluster's".to_owned()
        }
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired: make it a new one with `tidecast cluster invite`".to_owned()
        }
        InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: is a clock wrong?".to_owned()
        }
        AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "it does not know the authority that made our certificate".to_owned()
        }
        AlertReceived(AlertDescription::CertificateExpired) => {
            "our certificate has expired: make a new one with `tidecast cluster invite`".to_owned()
        }
        AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a certificate of the cluster".to_owned()
        }
        PeerIncompatible(_) => format!("it does not speak TLS 1.3 as we do ({error})"),
        InvalidMessage(_) => "it does not speak TLS".to_owned(),
        _ => error.to_string(),
    }
}
