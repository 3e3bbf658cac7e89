//! One UDP port for all peers of the process.
//!
//!   socket ─▶ driver.rs, one task ─▶ routes.rs says whose it is ─▶ that peer's inbox (bounded)
//!   any thread ─▶ [`Port::send`] ─▶ socket, from the address that the peer asked
//!
//! Whoever runs a session takes a [`Lease`] on the ufrag it put into its SDP. The same port number, over TCP, is for
//! peers whose network lets no UDP through (`tcp.rs`). Where the world sees the port is asked of a STUN server (`reflexive.rs`).

mod candidates;
mod counters;
mod driver;
mod reflexive;
mod routes;
mod tcp;

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::BytesMut;
use net::Acceptor;
use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::sync::mpsc;

pub use self::candidates::{Candidate, Protocol, Reason};
pub use self::counters::{Count, Counters};
pub use self::driver::PortDriver;
use self::reflexive::Reflexive;
pub use self::reflexive::{NoStunServer, StunServer};
pub(crate) use self::routes::Kind;
use self::routes::Routes;

/// What the kernel may hold for us in each direction, if the system's own bound (`net.core.rmem_max`) lets it: a
/// third of a second at 100 Mbit/s.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Longer than any datagram an honest peer sends: paths carry 1,500 bytes, and nobody fragments WebRTC.
pub const DATAGRAM_BYTES_MAX: usize = 2_048;

#[derive(Debug, Clone)]
pub struct PortSettings {
    /// `[::]` is every address of the machine, of both families; port 0 is any free one.
    pub listen: SocketAddr,
    /// Under which the machine is reached from outside, if it does not know so itself (NAT, containers): announced
    /// before its own.
    pub public: Vec<IpAddr>,
    /// Asked for the address that the machine has outside, which is then announced too; not where `public` says it.
    pub stun: Option<StunServer>,
    /// Whether to listen for ICE-TCP too, at the same port number.
    pub tcp: bool,
}

/// Over which path a datagram came, and over which the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// The address of ours that was asked. An answer from another one is rejected by many peers.
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    /// The connection with this number.
    Tcp(u64),
}

/// One datagram, or frame of a TCP connection, for the peer whose lease it came under.
#[derive(Debug)]
pub struct Datagram {
    pub peer: u64,
    pub path: Path,
    pub bytes: BytesMut,
}

/// The port. Clones are the same port; sending works from any thread.
#[derive(Debug, Clone)]
pub struct Port {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    state: UdpSocketState,
    bound: SocketAddr,
    /// What everybody is told.
    addresses: Vec<(IpAddr, Reason)>,
    /// Whether `addresses` are all that anybody is told.
    is_configured: bool,
    takes_tcp: bool,
    reflexive: Reflexive,
    routes: RwLock<Routes>,
    connections: tcp::Connections,
    counters: Counters,
}

impl Port {
    /// Takes the port; nothing is received before the driver runs. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// From the system: the port is taken, or the address is not ours.
    pub fn bind(settings: &PortSettings) -> io::Result<(Self, PortDriver)> {
        let (socket, acceptor) = sockets(settings)?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let bound = socket.local_addr()?;
        let addresses = candidates::addresses(bound.ip(), &settings.public)?;
        let is_configured = !settings.public.is_empty();
        let shared = Arc::new(Shared {
            socket,
            state,
            bound,
            addresses,
            is_configured,
            takes_tcp: acceptor.is_some(),
            reflexive: Reflexive::default(),
            routes: RwLock::default(),
            connections: tcp::Connections::default(),
            counters: Counters::default(),
        });
        let driver =
            PortDriver::new(Arc::clone(&shared), acceptor, settings.stun.clone().filter(|_| !is_configured))?;
        Ok((Self { shared }, driver))
    }

    /// The address that is bound, with the real port where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.bound
    }

    /// What everybody is told, and why. A STUN server may have told us of more.
    pub fn addresses(&self) -> &[(IpAddr, Reason)] {
        &self.shared.addresses
    }

    /// What to announce to a peer, the best first. `asked`: the address by which it has come to our HTTP, if that was one; a machine
    /// that does not know under which address it is reached knows it from those who have reached it.
    pub fn candidates(&self, asked: Option<IpAddr>) -> Vec<Candidate> {
        let Shared { bound, addresses, .. } = &*self.shared;
        let of = |address| SocketAddr::new(address, bound.port());
        let asked =
            asked.filter(|asked| !self.shared.is_configured && candidates::may_lead_here(*asked, bound.ip()));
        let found = asked.map(of).into_iter().chain(self.shared.reflexive.mapped());
        let all: Vec<_> = found.chain(addresses.iter().map(|(address, _)| of(*address))).collect();
        candidates::candidates(&all, bound.port(), self.shared.takes_tcp)
    }

    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// From now on datagrams of whoever names `ufrag`, and of the addresses that [`Lease::bind_address`] is told, go to
    /// `inbox`, marked `peer`. What does not fit into the inbox is dropped and counted.
    #[must_use]
    pub fn lease(&self, ufrag: &str, peer: u64, inbox: mpsc::Sender<Datagram>) -> Lease {
        let id = self.shared.routes_mut().lease(ufrag, peer, inbox);
        Lease { id, shared: Arc::clone(&self.shared) }
    }

    /// Sends at once or never: what a full socket does not take is dropped and counted, as the network would.
    ///
    /// `segment`: `bytes` are several datagrams of this many bytes each, of which only the last may be shorter. They
    /// go out in one system call where the system can (GSO), one by one where it cannot.
    pub fn send(&self, path: Path, bytes: &[u8], segment: Option<usize>) {
        match path.transport {
            Transport::Udp => self.shared.send(path, bytes, segment),
            Transport::Tcp(id) => self.shared.send_frames(id, bytes, segment),
        }
    }
}

impl Shared {
    fn send(&self, path: Path, bytes: &[u8], segment: Option<usize>) {
        let segment = segment.unwrap_or(bytes.len()).max(1);
        let mut rest = bytes;
        while !rest.is_empty() {
            // Asked anew each time: the first refusal lowers it to one.
            let together = self.state.max_gso_segments().min(GSO_BYTES_MAX / segment).max(1);
            let (now, later) = rest.split_at(rest.len().min(segment * together));
            let datagrams = now.len().div_ceil(segment);
            match self.transmit(path, now, segment) {
                Ok(()) => {
                    self.counters.sends.add(1);
                    self.counters.sent.add(datagrams);
                    self.counters.sent_bytes.add(now.len());
                }
                Err(_) if together > 1 && datagrams > 1 && self.state.max_gso_segments() == 1 => {
                    self.counters.gso_refused.add(1);
                    continue;
                }
                Err(_) => self.counters.send_dropped.add(datagrams),
            }
            rest = later;
        }
    }

    fn send_frames(&self, id: u64, bytes: &[u8], segment: Option<usize>) {
        let segment = segment.unwrap_or(bytes.len()).max(1);
        let is_taken = self.connections.send(id, bytes, segment);
        if is_taken {
            self.counters.sent_bytes.add(bytes.len());
        }
        let count = if is_taken { &self.counters.sent } else { &self.counters.send_dropped };
        count.add(bytes.len().div_ceil(segment));
    }

    /// Past tokio, which would first have to hear from the kernel that the socket is writable: it nearly always is.
    fn transmit(&self, path: Path, contents: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: self.as_bound(path.remote),
            ecn: None,
            contents,
            segment_size: Some(segment),
            src_ip: self.bound.ip().is_unspecified().then(|| path.local.ip()),
        };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// A socket for both families writes 192.0.2.1 as ::ffff:192.0.2.1.
    fn as_bound(&self, address: SocketAddr) -> SocketAddr {
        match address.ip() {
            IpAddr::V4(v4) if self.bound.is_ipv6() => {
                SocketAddr::new(v4.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        }
    }

    fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes_mut(&self) -> RwLockWriteGuard<'_, Routes> {
        // Nobody who holds it can panic half-way.
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one send may carry in all: a UDP datagram's bound, which holds before the kernel cuts it up.
const GSO_BYTES_MAX: usize = 65_000;

/// The right to what comes for one session. Dropping it ends the routing.
#[derive(Debug)]
pub struct Lease {
    id: u64,
    shared: Arc<Shared>,
}

impl Lease {
    /// `remote` has sent a valid binding request over UDP: what it sends from now on is the session's. A TCP connection
    /// is the session's from its first frame.
    pub fn bind_address(&self, remote: SocketAddr) {
        self.shared.routes_mut().bind_address(self.id, remote);
    }

    /// For an ICE restart: both names lead here until [`Lease::remove_ufrag`].
    pub fn add_ufrag(&self, ufrag: &str) {
        self.shared.routes_mut().add_ufrag(self.id, ufrag);
    }

    pub fn remove_ufrag(&self, ufrag: &str) {
        self.shared.routes_mut().remove_ufrag(self.id, ufrag);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.routes_mut().end(self.id);
    }
}

/// Where both must have one number and any will do, the first that is free for UDP may be taken for TCP.
const FREE_PORT_ATTEMPTS: usize = 16;

fn sockets(settings: &PortSettings) -> io::Result<(UdpSocket, Option<Acceptor>)> {
    let mut attempts = if settings.listen.port() == 0 { FREE_PORT_ATTEMPTS } else { 1 };
    loop {
        let socket = udp_socket(settings.listen)?;
        if !settings.tcp {
            return Ok((socket, None));
        }
        attempts -= 1;
        match tcp::listen(socket.local_addr()?) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            listening => return Ok((socket, Some(listening?))),
        }
    }
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(SocketProtocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // As far as the system lets us; less is worse, not wrong.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests;
