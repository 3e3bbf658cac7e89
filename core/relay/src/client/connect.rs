//! Connections to upstreams, each judged for as long as it lasts.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::CONNECT_TIMEOUT;
use crate::judged::Judged;
use crate::tls::{CLUSTER_NAME, Identity};

/// Makes them.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    identity: Identity,
}

/// One of them.
pub(super) struct Link(TokioIo<Judged<TlsStream<TcpStream>>>);

impl Connector {
    pub(super) fn new(identity: &Identity) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Self { tcp, identity: identity.clone() }
    }
}

/// Whatever an upstream is called in a URL, its certificate must name [`CLUSTER_NAME`].
pub(super) fn name() -> ServerName<'static> {
    ServerName::try_from(CLUSTER_NAME).expect("a name in the domain name system")
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Link>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_ready(cx).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, identity) = (self.tcp.call(uri), self.identity.clone());
        Box::pin(async move {
            let tcp = connecting.await.map_err(io::Error::other)?.into_inner();
            let tls = TlsConnector::from(Arc::clone(&identity.client_config()));
            let stream = timeout(CONNECT_TIMEOUT, tls.connect(name(), tcp)).await;
            let stream = stream
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long"))??;
            let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
            let judged = Judged::new(stream, &identity, chain.as_deref());
            let (judged, _) = judged.ok_or_else(|| io::Error::other("its certificate names no node"))?;
            Ok(Link(TokioIo::new(judged)))
        })
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }
}
