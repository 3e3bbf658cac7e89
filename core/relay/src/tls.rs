//! Who a node is, and whom it trusts: TLS 1.3 with certificates on both sides, all of one authority, or of two while it changes.
//!
//! Every certificate of a cluster names its node and, beside it, [`CLUSTER_NAME`]. A child checks its upstream for that
//! second name, so an upstream may be addressed in any way, and a certificate for anything else is worth nothing here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, io};

use arc_swap::ArcSwap;
use media::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    RootCertStore, ServerConfig, SignatureScheme, version,
};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// What every node is called beside its own name.
pub const CLUSTER_NAME: &str = "node.tidecast.internal";

/// By which a machine says in its first message that it has no certificate, and asks for one (RFC 7301).
pub(crate) const JOIN_PROTOCOL: &[u8] = b"tidecast-join/1";

/// Certificates in a file: a node's own and what leads to an older root, or the roots of a cluster that changes its own.
const CHAIN_MAX: usize = 4;

/// This node's certificate and key, and whom it trusts, for both directions. All of it can be replaced while connections come
/// and go: newcomers are judged by what is in force then, and open connections anew at each change (`judged.rs`). Cloning
/// shares it.
#[derive(Clone)]
pub struct Identity {
    node: NodeId,
    shared: Arc<Shared>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

struct Shared {
    papers: ArcSwap<Papers>,
    /// Counts the changes, so that an open connection finds out by one load that there was none.
    changes: AtomicU64,
}

/// What is in force.
struct Papers {
    certified: Arc<CertifiedKey>,
    /// The authorities that are trusted, oldest knowledge last; joiners are shown them.
    roots: Vec<CertificateDer<'static>>,
    server: Arc<WebPkiServerVerifier>,
    client: Arc<dyn ClientCertVerifier>,
    revoked: BTreeSet<NodeId>,
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
    #[error("the certificate names {theirs}, and this node is {ours}")]
    OtherNode { ours: NodeId, theirs: NodeId },
}

impl Identity {
    /// From the texts of three PEM files: authorities, the node's certificate with what leads from it to one of them, its key.
    ///
    /// # Errors
    /// [`IdentityError`], also for a certificate that its peers would refuse.
    pub fn from_pem(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        Self::from_pem_without(authority, certificate, key, BTreeSet::new())
    }

    /// As [`Identity::from_pem`]; the `revoked` are trusted no more, whoever made their certificates.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub fn from_pem_without(
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
        revoked: BTreeSet<NodeId>,
    ) -> Result<Self, IdentityError> {
        let (node, papers) = Papers::read(authority, certificate, key, revoked)?;
        let shared = Arc::new(Shared { papers: ArcSwap::from_pointee(papers), changes: AtomicU64::new(0) });
        let judge = Arc::new(Judge(shared.clone()));
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(judge.clone())
            .with_cert_resolver(judge.clone());
        // A session that is resumed is not judged again.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(judge.clone())
            .with_client_cert_resolver(judge);
        client.resumption = Resumption::disabled();
        Ok(Self { node, shared, server: Arc::new(server), client: Arc::new(client) })
    }

    /// Other files are in force from now on. Open connections of whoever is trusted no more break off.
    ///
    /// # Errors
    /// [`IdentityError`]; then nothing has changed.
    pub fn replace(
        &self,
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
        revoked: BTreeSet<NodeId>,
    ) -> Result<(), IdentityError> {
        let (theirs, papers) = Papers::read(authority, certificate, key, revoked)?;
        if theirs != self.node {
            return Err(IdentityError::OtherNode { ours: self.node.clone(), theirs });
        }
        self.shared.papers.store(Arc::new(papers));
        self.shared.changes.fetch_add(1, Ordering::Release);
        Ok(())
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

    /// For whoever has no certificate yet: shows ours with the authorities, by which the other side knows us.
    pub(crate) fn joining_config(&self) -> Result<ServerConfig, rustls::Error> {
        let papers = self.shared.papers.load();
        let mut chain = papers.certified.cert.clone();
        chain.extend(papers.roots.iter().cloned());
        let shown = CertifiedKey::new(chain, papers.certified.key.clone());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Shown(Arc::new(shown))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
        Ok(config)
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.shared.papers.load().certified.clone()
    }

    pub(crate) fn changes(&self) -> u64 {
        self.shared.changes.load(Ordering::Acquire)
    }

    /// Whether a peer with these certificates is trusted by what is in force now.
    pub(crate) fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (own, between) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let papers = self.shared.papers.load();
        papers.client.verify_client_cert(own, between, UnixTime::now())?;
        papers.refuse_revoked(own)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Papers {
    fn read(
        authority: &[u8],
        certificate: &[u8],
        key: &[u8],
        revoked: BTreeSet<NodeId>,
    ) -> Result<(NodeId, Self), IdentityError> {
        let pem = |what| move |why| IdentityError::Pem { what, why };
        let roots = certificates(authority).map_err(pem("the authority's certificate"))?;
        let chain = certificates(certificate).map_err(pem("the certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("the key"))?;

        let provider = provider();
        let node = node_of(&chain[0]).ok_or(IdentityError::Nameless)?;
        check(&roots, &chain, &provider)?;
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone())?;
        }
        let store = Arc::new(store);
        let unfit = |error: VerifierBuilderError| rustls::Error::General(error.to_string());
        let client = WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone());
        let server = WebPkiServerVerifier::builder_with_provider(store, provider.clone());
        let papers = Self {
            certified: Arc::new(CertifiedKey::from_der(chain, key, &provider)?),
            roots,
            server: server.build().map_err(unfit)?,
            client: client.build().map_err(unfit)?,
            revoked,
        };
        Ok((node, papers))
    }

    fn refuse_revoked(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        match node_of(certificate) {
            Some(node) if self.revoked.contains(&node) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::Revoked))
            }
            _ => Ok(()),
        }
    }
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    let first = CertificateDer::from_pem_slice(pem)?;
    let others = CertificateDer::pem_slice_iter(pem).skip(1).take(CHAIN_MAX - 1);
    std::iter::once(Ok(first)).chain(others).collect()
}

/// Judges peers by what is in force when they come.
#[derive(Clone)]
struct Judge(Arc<Shared>);

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Judge {
    /// None: children have one certificate, and need no hint which it shall be.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let papers = self.0.papers.load();
        let verified = papers.client.verify_client_cert(own, between, now)?;
        papers.refuse_revoked(own)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.papers.load().client.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.papers.load().client.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.papers.load().client.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let papers = self.0.papers.load();
        let verified = papers.server.verify_server_cert(own, between, name, ocsp_response, now)?;
        papers.refuse_revoked(own)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.papers.load().server.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.papers.load().server.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.papers.load().server.supported_verify_schemes()
    }
}

impl ResolvesServerCert for Judge {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.papers.load().certified.clone())
    }
}

impl ResolvesClientCert for Judge {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.papers.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// One chain, whoever asks.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Told at the start rather than by every peer.
fn check(
    roots: &[CertificateDer<'_>],
    chain: &[CertificateDer<'_>],
    provider: &CryptoProvider,
) -> Result<(), IdentityError> {
    let anchors = roots.iter().map(anchor_from_trusted_cert).collect::<Result<Vec<_>, _>>();
    let anchors = anchors.map_err(IdentityError::Authority)?;
    let parsed = EndEntityCert::try_from(&chain[0]).map_err(IdentityError::Untrusted)?;
    let algorithms = provider.signature_verification_algorithms.all;
    let usage = KeyUsage::server_auth();
    parsed
        .verify_for_usage(algorithms, &anchors, &chain[1..], UnixTime::now(), usage, None, None)
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
            "its certificate has expired: let it in anew with `tidecast cluster token`".to_owned()
        }
        InvalidCertificate(CertificateError::Revoked) => {
            "it was put out of the cluster with `tidecast cluster revoke`".to_owned()
        }
        AlertReceived(AlertDescription::CertificateRevoked) => {
            "this node was put out of the cluster with `tidecast cluster revoke`".to_owned()
        }
        InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet: is a clock wrong?".to_owned()
        }
        AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "it does not know the authority that made our certificate".to_owned()
        }
        AlertReceived(AlertDescription::CertificateExpired) => {
            "our certificate has expired: `tidecast cluster token` at the authority lets this node in anew"
                .to_owned()
        }
        AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a certificate of the cluster".to_owned()
        }
        PeerIncompatible(_) => format!("it does not speak TLS 1.3 as we do ({error})"),
        InvalidMessage(_) => "it does not speak TLS".to_owned(),
        _ => error.to_string(),
    }
}
