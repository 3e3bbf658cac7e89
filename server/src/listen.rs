//! Listening sockets: those that a service manager hands over, and those we bind ourselves, with the same words for
//! every listener when it fails.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, anyhow, bail};
use listenfd::ListenFd;
use net::Options;
use tokio::net::{TcpListener, TcpSocket};
use tracing::warn;

/// What a service manager may call its sockets, which is what the configuration calls their sections.
const NAMES: [&str; 6] = ["rtmp", "rtmps", "http", "https", "relay", "admin"];

/// Sockets that listened before this process began, and will when it is gone: so a restart refuses nobody.
/// Protocol: `sd_listen_fds(3)`.
#[derive(Default)]
pub(crate) struct Handed(HashMap<String, std::net::TcpListener>);

impl Handed {
    /// Takes them over, and their variables out of the environment. Must be called before there is a second thread.
    ///
    /// # Errors
    /// If one has a name of none of our listeners, or is no TCP socket.
    pub(crate) fn of_process() -> anyhow::Result<Self> {
        // Without it the variables may be meant for the process that started us.
        if std::env::var_os("LISTEN_PID").is_none() {
            return Ok(Self::default());
        }
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut sockets = ListenFd::from_env();
        Self::named(&names, sockets.len(), |index| sockets.take_tcp_listener(index))
    }

    fn named(
        names: &str,
        count: usize,
        mut take: impl FnMut(usize) -> io::Result<Option<std::net::TcpListener>>,
    ) -> anyhow::Result<Self> {
        let mut handed = HashMap::new();
        let mut names = names.split(':');
        for index in 0..count {
            let name = names.next().unwrap_or_default();
            if !NAMES.contains(&name) {
                bail!(
                    "the service manager hands over a socket named {name:?}; FileDescriptorName= must be one of {}",
                    NAMES.join(", ")
                );
            }
            let socket = take(index).with_context(|| format!("the socket {name:?} that is handed over"))?;
            let socket = socket.with_context(|| format!("no socket {name:?} is there"))?;
            if handed.insert(name.to_owned(), socket).is_some() {
                bail!("the service manager hands over two sockets named {name:?}; one can be used");
            }
        }
        Ok(Self(handed))
    }

    /// The listener of the configuration key `{name}.listen`: the socket that was handed over, else one bound to
    /// `address`.
    ///
    /// # Errors
    /// One line that names the key, the address and what the operator can do.
    pub(crate) fn listen(
        &mut self,
        name: &str,
        address: SocketAddr,
        options: Options,
    ) -> anyhow::Result<TcpListener> {
        let Some(socket) = self.0.remove(name) else {
            return bind(&format!("{name}.listen"), address, |address| net::bind(address, options));
        };
        net::adopt(socket, options).with_context(|| format!("the socket {name:?} that is handed over"))
    }

    /// Those left over would take connections that nobody serves.
    pub(crate) fn finish(self) {
        for name in self.0.into_keys() {
            warn!(
                "the socket {name:?} that the service manager hands over is closed: this node has no use for it"
            );
        }
    }
}

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

    const OPTIONS: Options = Options { backlog: 16, unsent_bytes_max: None };
    const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    #[tokio::test]
    async fn a_port_in_use_is_told_with_key_and_address() {
        let first = Handed::default().listen("http", ANY_PORT.into(), OPTIONS).unwrap();
        let addr = first.local_addr().unwrap();
        let error = Handed::default().listen("rtmp", addr, OPTIONS).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("rtmp.listen: cannot listen on {addr}: another program")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_socket_that_is_handed_over_wins_over_the_address() {
        let made: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind(ANY_PORT).unwrap()).collect();
        let addresses: Vec<_> = made.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let mut made: Vec<_> = made.into_iter().map(Some).collect();
        let mut handed = Handed::named("http:rtmp:relay", 3, |index| Ok(made[index].take())).unwrap();
        let any = ANY_PORT.into();
        assert_eq!(handed.listen("rtmp", any, OPTIONS).unwrap().local_addr().unwrap(), addresses[1]);
        assert_eq!(handed.listen("http", any, OPTIONS).unwrap().local_addr().unwrap(), addresses[0]);
        assert_eq!(handed.listen("relay", any, OPTIONS).unwrap().local_addr().unwrap(), addresses[2]);
        let bound = handed.listen("admin", any, OPTIONS).unwrap().local_addr().unwrap();
        assert!(!addresses.contains(&bound));
    }

    #[test]
    fn sockets_that_nobody_would_serve_are_refused_by_name() {
        let socket = |_| std::net::TcpListener::bind(ANY_PORT).map(Some);
        for (names, count, words) in [
            ("http:tidecast.socket", 2, "named \"tidecast.socket\""),
            ("http", 2, "named \"\""),
            ("http:http", 2, "two sockets named \"http\""),
        ] {
            let error = Handed::named(names, count, socket).err().unwrap().to_string();
            assert!(error.contains(words), "{names}: {error}");
        }
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
