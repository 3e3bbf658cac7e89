//! Many connections from many addresses of this machine, as strangers open them: all of 127.0.0.0/8 is here.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The address of the stranger with this number.
#[must_use]
pub fn stranger(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 7, number)
}

/// # Errors
/// If nobody listens there, or too many files are open here.
pub fn connect_from(source: Ipv4Addr, server: SocketAddr) -> Result<TcpStream> {
    connect_with(source, server, None)
}

/// With a receive buffer of `receive_bytes`: what is not read stays with the server.
///
/// # Errors
/// As [`connect_from`].
pub fn connect_with(source: Ipv4Addr, server: SocketAddr, receive_bytes: Option<usize>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&server.into(), CONNECT_MAX).with_context(|| format!("{source} to {server}"))?;
    Ok(socket.into())
}
