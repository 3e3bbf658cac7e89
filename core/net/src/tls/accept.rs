//! The handshake, bounded in time and places.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Served;
use crate::{Full, Limits, Places};

/// From the first byte to the last, for both sides. Two exchanges over a line of one second, and some to spare.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// Handshakes under way at once. Each takes half a millisecond of a core and some 30 kB; a crowd behind one address has
/// half a thousand done in a quarter of a second, and who says nothing keeps its place for ten.
const HANDSHAKES: Limits = Limits { total: 2_000, per_address: 500 };

/// RFC 8737, §3.
pub(super) const ACME_CHALLENGE: &[u8] = b"acme-tls/1";

/// What is spoken inside (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2, else HTTP/1.1; and the challenge of certificate authorities, which look for it on this port.
    Http,
    /// The only one of its port, without a name.
    Unnamed,
}

/// Makes encrypted streams of accepted connections.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    handshakes: Places,
}

/// Why there is no encrypted stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// Too many are under way.
    #[error("too many handshakes at once")]
    Full(Full),
    #[error("the handshake took more than {} s", HANDSHAKE_TIME_MAX.as_secs())]
    TooSlow,
    /// What came is not TLS, or not as we speak it; or the peer does not like our certificate; or there is none yet.
    #[error("{0}")]
    Failed(#[from] io::Error),
    /// None is needed: a certificate authority has seen what it wanted to see.
    #[error("a certificate authority's challenge was answered")]
    Challenge,
}

impl Tls {
    /// # Errors
    /// If the system has no random bytes.
    pub fn new(served: Arc<Served>, protocols: Protocols) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(served);
        // Keys of its own, new every six hours; what they encrypt is good for twelve. A viewer that comes back
        // spares us the signature, which is most of a handshake.
        config.ticketer = Ticketer::new()?;
        if protocols == Protocols::Http {
            config.alpn_protocols = [b"h2", &b"http/1.1"[..], ACME_CHALLENGE].map(<[u8]>::to_vec).into();
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), handshakes: Places::new(HANDSHAKES) })
    }

    /// # Errors
    /// [`HandshakeError`]
    pub async fn accept<IO>(&self, peer: IpAddr, io: IO) -> Result<TlsStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let _place = self.handshakes.take(peer).map_err(HandshakeError::Full)?;
        let stream = timeout(HANDSHAKE_TIME_MAX, self.acceptor.accept(io))
            .await
            .map_err(|_| HandshakeError::TooSlow)??;
        match stream.get_ref().1.alpn_protocol() {
            Some(ACME_CHALLENGE) => Err(HandshakeError::Challenge),
            _ => Ok(stream),
        }
    }
}

#[cfg(test)]
mod tests;
