//! A connection to a peer that is judged anew whenever it changes whom this node trusts: one that was revoked is cut off in
//! the midst of what it reads or writes. Streams tick each 100 ms, so that is at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use media::NodeId;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::tls::{Identity, node_of};

/// A stream with the certificates of whoever is at its other end.
pub(crate) struct Judged<S> {
    stream: S,
    identity: Identity,
    chain: Vec<CertificateDer<'static>>,
    /// The changes of trust that the peer has been judged by.
    judged_at: u64,
}

impl<S> Judged<S> {
    /// `None` if the certificates name no node.
    pub(crate) fn new(
        stream: S,
        identity: &Identity,
        chain: Option<&[CertificateDer<'_>]>,
    ) -> Option<(Self, NodeId)> {
        let chain: Vec<_> = chain?.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let node = node_of(chain.first()?)?;
        // Not what is in force now: that may have changed since the handshake looked.
        let judged = Self { stream, identity: identity.clone(), chain, judged_at: u64::MAX };
        Some((judged, node))
    }

    fn judge(&mut self) -> io::Result<()> {
        let changes = self.identity.changes();
        if changes != self.judged_at {
            self.identity.judge(&self.chain).map_err(io::Error::other)?;
            self.judged_at = changes;
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Judged<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.judge()?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Judged<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.judge()?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.judge()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
