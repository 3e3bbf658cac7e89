//! A machine without a certificate asks the authority's node for one, and knows it by the fingerprint of its root alone.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, version};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connect::name;
use crate::server::{DESK_BYTES_MAX, JOIN_PATH};
use crate::tls::{JOIN_PROTOCOL, words};

/// From the first packet to the certificate.
const JOIN_MAX: Duration = Duration::from_secs(10);

/// SHA-256 of a certificate.
pub type Fingerprint = [u8; 32];

/// Why a machine was not let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The network, or whoever answers there is not who made the token.
    #[error("cannot reach {address}: {why}")]
    Unreachable { address: String, why: String },
    /// In the authority's own words.
    #[error("{address} refuses: {why}")]
    Refused { address: String, why: String },
}

/// Sends `request` to the node at `address` ("host:port") that shows a root with `fingerprint`, and to nobody else.
///
/// # Errors
/// [`JoinError`].
pub async fn ask_to_join(
    address: &str,
    fingerprint: Fingerprint,
    request: Bytes,
) -> Result<Bytes, JoinError> {
    let unreachable = |why: String| JoinError::Unreachable { address: address.to_owned(), why };
    let asked = timeout(JOIN_MAX, ask(address, fingerprint, request)).await;
    let asked = asked.map_err(|_| unreachable("no answer in time".to_owned()))?;
    let (status, body) = asked.map_err(|error| unreachable(words(&*error)))?;
    if status == StatusCode::OK {
        return Ok(body);
    }
    let why = String::from_utf8_lossy(&body).trim().chars().filter(|char| !char.is_control()).collect();
    Err(JoinError::Refused { address: address.to_owned(), why })
}

async fn ask(
    address: &str,
    fingerprint: Fingerprint,
    request: Bytes,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(provider::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { fingerprint, provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_PROTOCOL.to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name(), tcp).await?;
    if tls.get_ref().1.alpn_protocol() != Some(JOIN_PROTOCOL) {
        return Err(
            io::Error::other("what listens there is no relay of a tidecast that lets nodes in").into()
        );
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(JOIN_PATH)
        .header(header::HOST, address)
        .body(Full::new(request))?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, DESK_BYTES_MAX).collect().await?.to_bytes();
    drop(sender);
    let _ = connection.await;
    Ok((head.status, body))
}

/// Trusts who shows the one root, and was certified by it.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = between.iter().find(|shown| digest(&SHA256, shown).as_ref() == self.fingerprint);
        let root = root.ok_or_else(|| {
            rustls::Error::General("the node there is of another cluster than the token".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone());
        let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(own, between, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("nodes speak TLS 1.3".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
