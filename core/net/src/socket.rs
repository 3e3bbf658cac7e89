//! Listening sockets: made here, or made by somebody else and handed over.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpListener;

/// What a role wants of its listening socket; connections inherit it.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Connections that the kernel queues until they are accepted.
    pub backlog: i32,
    /// Bytes that the kernel takes from us beyond what it has sent, on each connection; `None` for the kernel's own
    /// bound, which grows to megabytes. With it, a slow peer is seen as slow, and most of what it has not taken is
    /// the part that everybody shares.
    pub unsent_bytes_max: Option<u32>,
}

/// Listens on `address`; `[::]` is every address of the machine, of both families. Must be called within a tokio
/// runtime.
///
/// # Errors
/// What the operating system says: the port is taken, reserved, or the address is not ours.
pub fn bind(address: SocketAddr, options: Options) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last run's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    adopt(socket.into(), options)
}

/// Takes over a socket that listens already, connections in its queue included. The backlog stays as its maker set
/// it. Must be called within a tokio runtime.
///
/// # Errors
/// If it does not listen, or from the system.
pub fn adopt(listener: std::net::TcpListener, options: Options) -> io::Result<TcpListener> {
    let socket = SockRef::from(&listener);
    if !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen"));
    }
    socket.set_nonblocking(true)?;
    if let Some(bytes) = options.unsent_bytes_max {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
    TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;

    const OPTIONS: Options = Options { backlog: 16, unsent_bytes_max: Some(16 * 1024) };

    #[tokio::test]
    async fn a_socket_that_was_made_elsewhere_is_taken_over_with_its_queue() {
        let made = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut early = TcpStream::connect(made.local_addr().unwrap()).await.unwrap();
        let listener = adopt(made, OPTIONS).unwrap();
        let (_socket, peer) = listener.accept().await.unwrap();
        assert_eq!(peer, early.local_addr().unwrap());
        early.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_does_not_listen_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let error = adopt(socket.into(), OPTIONS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    /// Threat 23: what a slow reader has not taken hides in the kernel, where nobody counts it.
    #[tokio::test]
    async fn connections_inherit_the_bound_on_unsent_bytes() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), OPTIONS).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().unwrap(), 16 * 1024);
    }

    #[tokio::test]
    async fn one_socket_is_for_both_families() {
        let listener = match bind((Ipv6Addr::UNSPECIFIED, 0).into(), OPTIONS) {
            // A kernel without IPv6.
            Err(error) if error.raw_os_error() == Some(97) => return,
            bound => bound.unwrap(),
        };
        let port = listener.local_addr().unwrap().port();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok());
    }
}
