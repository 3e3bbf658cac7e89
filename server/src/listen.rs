//! Binding a port: the same words for every listener when it fails.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::anyhow;
use tokio::net::{TcpListener, TcpSocket};

/// Binds a listener by `bind` on the address that the configuration key `key` gives.
///
/// # Errors
/// One line that names the key, the address and what the operator can do.
pub(crate) fn bind<L>(
    key: &str,
    addr: SocketAddr,
    bind: impl FnOnce(SocketAddr) -> io::Result<L>,
) -> anyhow::Result<L> {
    bind(on_this_machine(addr)).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there; stop it or choose another port",
            io::ErrorKind::AddrNotAvailable => "this machine has no such address",
            io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
            _ => "the system refused",
        };
        anyhow!("{key}: cannot listen on {addr}: {advice} ({error})")
    })
}

/// A bare TCP listener, for [`bind`].
pub(crate) fn tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    // The standard library sets SO_REUSEADDR, so a restart need not wait for connections in TIME_WAIT.
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// A kernel booted with `ipv6.disable=1` has no IPv6 sockets; every address is then every IPv4 address.
fn on_this_machine(addr: SocketAddr) -> SocketAddr {
    if addr.ip() == Ipv6Addr::UNSPECIFIED && TcpSocket::new_v6().is_err() {
        return SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port()));
    }
    addr
}

/// The host to write into a URL for a listener: a wildcard address is none that a browser could open.
pub(crate) fn host_in_url(addr: SocketAddr) -> String {
    match addr.ip().to_canonical() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_told_with_key_and_address() {
        let first = bind("http.listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), tcp).unwrap();
        let addr = first.local_addr().unwrap();
        let error = bind("rtmp.listen", addr, tcp).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("rtmp.listen: cannot listen on {addr}: another program")),
            "{error}"
        );
    }

    #[test]
    fn urls_name_a_host_that_can_be_opened() {
        for (addr, host) in [
            ("[::]:80", "localhost"),
            ("0.0.0.0:80", "localhost"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1"),
            ("[2001:db8::1]:80", "[2001:db8::1]"),
        ] {
            assert_eq!(host_in_url(addr.parse().unwrap()), host);
        }
    }
}
