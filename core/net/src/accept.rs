//! The accept loop of every listener.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::warn;

use crate::{Full, Place, Places, Throttle};

/// After a failed accept. The usual cause is that we are out of file descriptors, and that does not pass at once.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines a second about connections that were refused, or could not be accepted.
const LINES_MAX: u32 = 1;

/// Takes connections for as long as there are places for them.
pub struct Acceptor {
    listener: TcpListener,
    places: Places,
    /// As operators know it: "RTMP", "HTTP".
    protocol: &'static str,
    complaints: Throttle,
}

/// A connection that may stay.
pub struct Accepted {
    pub socket: TcpStream,
    /// An IPv4 address is one, even if the socket is for both families.
    pub peer: SocketAddr,
    /// To be dropped when the connection is over.
    pub place: Place,
}

impl Acceptor {
    /// Several listeners may share their `places`.
    #[must_use]
    pub fn new(protocol: &'static str, listener: TcpListener, places: Places) -> Self {
        Self { listener, places, protocol, complaints: Throttle::per_second(LINES_MAX) }
    }

    /// # Errors
    /// From the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection that has a place; those without are closed before they say a word, and told to `refused`.
    /// May be dropped at any time.
    pub async fn next(&mut self, mut refused: impl FnMut(Full)) -> Accepted {
        loop {
            let (socket, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(left_out) = self.complaints.pass(Instant::now()) {
                        warn!(%error, left_out = (left_out > 0).then_some(left_out), "cannot accept {} connections", self.protocol);
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            };
            // A dual-stack socket writes 192.0.2.1 as ::ffff:192.0.2.1.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            match self.places.take(peer.ip()) {
                Ok(place) => return Accepted { socket, peer, place },
                Err(full) => {
                    refused(full);
                    self.complain(peer, full);
                }
            }
        }
    }

    fn complain(&self, peer: SocketAddr, full: Full) {
        let Some(left_out) = self.complaints.pass(Instant::now()) else { return };
        let (protocol, left_out) = (self.protocol, (left_out > 0).then_some(left_out));
        let why = match full {
            Full::Total => "too many",
            Full::Address => "too many from one address",
        };
        warn!(peer.addr = %peer, left_out, "{protocol} connection refused: {why}");
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::Limits;

    #[tokio::test]
    async fn connections_without_a_place_are_closed_and_counted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut acceptor = Acceptor::new("test", listener, Places::new(Limits { total: 9, per_address: 1 }));
        let _first = TcpStream::connect(address).await.unwrap();
        let accepted = acceptor.next(|_| unreachable!()).await;

        let mut second = TcpStream::connect(address).await.unwrap();
        let mut refused = Vec::new();
        tokio::select! {
            biased;
            _ = acceptor.next(|full| refused.push(full)) => panic!("there was no place"),
            end = second.read_u8() => assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof),
        }
        assert_eq!(refused, [Full::Address]);

        drop(accepted);
        let third = TcpStream::connect(address).await.unwrap();
        let accepted = acceptor.next(|_| unreachable!()).await;
        assert_eq!(accepted.peer, third.local_addr().unwrap());
    }
}
