//! The receiving task.

use std::future::pending;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use net::{Accepted, Acceptor};
use quinn_udp::{RecvMeta, UdpSockRef};
use tokio::io::Interest;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::routes::Dropped;
use super::{Counters, DATAGRAM_BYTES_MAX, Path, Shared, Transport, tcp};

/// Messages taken from the kernel at once. With GRO each may be many datagrams of one sender.
const BATCH: usize = 16;
/// The longest message, with GRO.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// After an error, of which the only likely one is that the kernel has no memory.
const PAUSE: Duration = Duration::from_millis(10);

/// Receives for a [`Port`](super::Port).
pub struct PortDriver {
    shared: Arc<Shared>,
    acceptor: Option<Acceptor>,
}

impl PortDriver {
    pub(super) fn new(shared: Arc<Shared>, acceptor: Option<Acceptor>) -> Self {
        Self { shared, acceptor }
    }

    /// Until `drain`: to be cancelled when the last session has said goodbye.
    pub async fn run(mut self, drain: CancellationToken) {
        let mut buffer = vec![0; BATCH * MESSAGE_BYTES_MAX];
        // Aborted with it.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                accepted = accept(&mut self.acceptor, &self.shared.counters) => {
                    self.shared.counters.tcp_accepted.add(1);
                    let shared = Arc::clone(&self.shared);
                    connections.spawn(async move {
                        tcp::serve(shared, accepted.socket, accepted.peer).await;
                        drop(accepted.place);
                    });
                    continue;
                }
                Some(_) = connections.join_next() => continue,
                ready = self.shared.socket.readable() => if let Err(error) = ready {
                    // tokio's driver is gone: the runtime shuts down.
                    warn!(%error, "the WebRTC port can no longer be read");
                    return;
                }
            }
            if self.receive(&mut buffer).is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    /// One batch: the rest waits in the kernel until the other tasks of this thread have had their turn.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); BATCH];
        let received = self.shared.socket.try_io(Interest::READABLE, || {
            let mut chunks = buffer.chunks_exact_mut(MESSAGE_BYTES_MAX);
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            self.shared.state.recv(UdpSockRef::from(&self.shared.socket), &mut slices, &mut metas)
        });
        match received {
            Ok(messages) => {
                for (meta, message) in metas[..messages].iter().zip(buffer.chunks_exact(MESSAGE_BYTES_MAX)) {
                    self.dispatch(meta, message);
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn dispatch(&self, meta: &RecvMeta, message: &[u8]) {
        let bound = self.shared.bound;
        let asked = meta.dst_ip.filter(|_| bound.ip().is_unspecified()).unwrap_or(bound.ip());
        let path = Path {
            local: SocketAddr::new(asked.to_canonical(), bound.port()),
            remote: SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port()),
            transport: Transport::Udp,
        };
        for datagram in message[..meta.len].chunks(meta.stride.max(1)) {
            self.shared.counters.received.add(1);
            self.shared.deliver(path, datagram);
        }
    }
}

/// Never, without a listener.
async fn accept(acceptor: &mut Option<Acceptor>, counters: &Counters) -> Accepted {
    match acceptor {
        Some(acceptor) => acceptor.next(|_| counters.tcp_refused.add(1)).await,
        None => pending().await,
    }
}

impl Shared {
    pub(super) fn deliver(&self, path: Path, datagram: &[u8]) {
        // Nobody can be answered at port 0; trying would be EINVAL, after which quinn-udp does without GSO for all.
        let result = if datagram.len() > DATAGRAM_BYTES_MAX || path.remote.port() == 0 {
            Err(Dropped::Malformed)
        } else {
            self.routes().deliver(path, datagram)
        };
        if let Err(dropped) = result {
            self.count(dropped);
        }
    }

    pub(super) fn count(&self, dropped: Dropped) {
        let counter = match dropped {
            Dropped::Malformed => &self.counters.dropped_malformed,
            Dropped::UnknownUfrag => &self.counters.dropped_unknown_ufrag,
            Dropped::UnknownAddress => &self.counters.dropped_unknown_address,
            Dropped::InboxFull => &self.counters.dropped_inbox_full,
        };
        counter.add(1);
    }
}
