//! Who receives: a thread for UDP, a task for each connection.

use std::future::pending;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use net::{Accepted, Acceptor};
use quinn_udp::{RecvMeta, UdpSockRef};
use tokio::io::Interest;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::reflexive::{self, StunServer};
use super::routes::{Dropped, Kind};
use super::{Counters, DATAGRAM_BYTES_MAX, Path, Shared, Transport, tcp};

/// Messages taken from the kernel at once. With GRO each may be many datagrams of one sender.
const BATCH: usize = 32;
/// Batches in one look.
const BATCHES_MAX: usize = 32;
/// The longest message, with GRO.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Between two looks at a busy socket, while a publisher's media comes: it is to be passed on at once. What comes meanwhile
/// waits in the kernel, and is then handed over together: to wake two threads for each report of each viewer costs as much as to
/// send them half of their pictures (bench `whep`).
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// The same while all that comes are reports of viewers, which nobody waits for,
const LOOK_EVERY_UNHURRIED: Duration = Duration::from_millis(4);
/// and not so many that the kernel might have no room for more: it may hold some five hundred.
const HURRIED_DATAGRAMS: usize = 64;
/// Sound comes every 20 ms.
const HURRY: Duration = Duration::from_millis(200);

/// After an error, of which the only likely one is that the kernel has no memory.
const PAUSE: Duration = Duration::from_millis(10);

/// Receives for a [`Port`](super::Port).
pub struct PortDriver {
    shared: Arc<Shared>,
    /// The same socket, for the thread that reads it.
    socket: UdpSocket,
    acceptor: Option<Acceptor>,
    stun: Option<StunServer>,
}

impl PortDriver {
    pub(super) fn new(
        shared: Arc<Shared>,
        acceptor: Option<Acceptor>,
        stun: Option<StunServer>,
    ) -> io::Result<Self> {
        let socket = shared.socket.try_clone()?;
        Ok(Self { shared, socket, acceptor, stun })
    }

    /// Until `drain`: to be cancelled when the last session has said goodbye.
    pub async fn run(self, drain: CancellationToken) {
        let Self { shared, socket, mut acceptor, stun } = self;
        let receiver = Receiver { shared: Arc::clone(&shared), socket };
        let (ends, ended) = oneshot::channel::<()>();
        // Its own: others are busy with more than packets, and to come by way of one of them is a hop more.
        let started = thread::Builder::new().name("webrtc-port".to_owned()).spawn({
            let drain = drain.clone();
            move || {
                if let Err(error) = receiver.run(drain) {
                    error!(%error, "the WebRTC port can no longer be read");
                }
                drop(ends);
            }
        });
        if let Err(error) = started {
            error!(%error, "no thread for the WebRTC port: nothing comes in by UDP");
        }
        let asks = async {
            match &stun {
                Some(server) => reflexive::keep_asking(&shared, server).await,
                None => pending().await,
            }
        };
        tokio::pin!(asks);
        // Aborted with it.
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = drain.cancelled() => {
                    let _ended = ended.await;
                    return;
                }
                accepted = accept(&mut acceptor, &shared.counters) => {
                    shared.counters.tcp_accepted.add(1);
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        tcp::serve(shared, accepted.socket, accepted.peer).await;
                        drop(accepted.place);
                    });
                }
                Some(_) = connections.join_next() => {}
                never = &mut asks => match never {},
            }
        }
    }
}

/// What one look found.
#[derive(Debug, Default)]
struct Came {
    datagrams: usize,
    /// Of somebody's, RTP among them.
    media: usize,
}

struct Receiver {
    shared: Arc<Shared>,
    socket: UdpSocket,
}

impl Receiver {
    fn run(self, drain: CancellationToken) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(self.receive(drain))
    }

    async fn receive(self, drain: CancellationToken) -> io::Result<()> {
        let socket = tokio::net::UdpSocket::from_std(self.socket)?;
        let mut buffer = vec![0; BATCH * MESSAGE_BYTES_MAX];
        let mut looked = Instant::now();
        let (mut media_at, mut every) = (None, LOOK_EVERY);
        loop {
            tokio::select! {
                () = drain.cancelled() => return Ok(()),
                ready = socket.readable() => ready?,
            }
            let since = looked.elapsed();
            if since < every {
                wait(every - since);
            }
            looked = Instant::now();
            let mut came = Came::default();
            let received = self.shared.receive_all(&socket, &mut buffer, &mut came);
            if came.media > 0 {
                media_at = Some(looked);
            }
            let is_hurried = came.datagrams >= HURRIED_DATAGRAMS
                || media_at.is_some_and(|at| looked.saturating_duration_since(at) < HURRY);
            every = if is_hurried { LOOK_EVERY } else { LOOK_EVERY_UNHURRIED };
            if received.is_err() {
                sleep(PAUSE).await;
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing else is on this thread, and a timer of tokio's may wait twice as long"
)]
fn wait(duration: Duration) {
    thread::sleep(duration);
}

/// Never, without a listener.
async fn accept(acceptor: &mut Option<Acceptor>, counters: &Counters) -> Accepted {
    match acceptor {
        Some(acceptor) => acceptor.next(|_| counters.tcp_refused.add(1)).await,
        None => pending().await,
    }
}

impl Shared {
    /// What has come by now.
    fn receive_all(
        &self,
        socket: &tokio::net::UdpSocket,
        buffer: &mut [u8],
        came: &mut Came,
    ) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); BATCH];
        // Bounded: whoever floods the port must not keep it from its drain.
        for _ in 0..BATCHES_MAX {
            let received = socket.try_io(Interest::READABLE, || {
                let mut chunks = buffer.chunks_exact_mut(MESSAGE_BYTES_MAX);
                let mut slices: [IoSliceMut<'_>; BATCH] =
                    std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
                self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)
            });
            let messages = match received {
                Ok(messages) => messages,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for (meta, message) in metas[..messages].iter().zip(buffer.chunks_exact(MESSAGE_BYTES_MAX)) {
                self.dispatch(meta, message, came);
            }
            // Most likely all: the next look tells.
            if messages < BATCH {
                break;
            }
        }
        Ok(())
    }

    fn dispatch(&self, meta: &RecvMeta, message: &[u8], came: &mut Came) {
        let bound = self.bound;
        let asked = meta.dst_ip.filter(|_| bound.ip().is_unspecified()).unwrap_or(bound.ip());
        let path = Path {
            local: SocketAddr::new(asked.to_canonical(), bound.port()),
            remote: SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port()),
            transport: Transport::Udp,
        };
        for datagram in message[..meta.len].chunks(meta.stride.max(1)) {
            came.datagrams += 1;
            let is_media = self.deliver(path, datagram) && Kind::of(datagram) == Some(Kind::Srtp);
            came.media += usize::from(is_media);
        }
    }

    /// Whether it was a session's.
    fn deliver(&self, path: Path, datagram: &[u8]) -> bool {
        self.counters.received.add(1);
        if let Some(answer) = self.reflexive.take_answer(path.remote, datagram) {
            answer.tell(self.bound.port());
            return false;
        }
        // Nobody can be answered at port 0; trying would be EINVAL, after which quinn-udp does without GSO for all.
        let result = if datagram.len() > DATAGRAM_BYTES_MAX || path.remote.port() == 0 {
            Err(Dropped::Malformed)
        } else {
            self.routes().deliver(path, datagram)
        };
        result.map_err(|dropped| self.count(dropped)).is_ok()
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
