//! The HTTP/1.1 listener of viewers: accepts, bounds, serves, drains.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::connect::Peer;
use crate::metrics::Metrics;
use crate::site::Site;

/// Connections the kernel queues for us. A page shared on a large channel brings thousands within a second.
const BACKLOG: i32 = 4096;

/// A request's head must be complete this long after the answer before it. hyper counts the idle time between requests,
/// too, so it is more than the largest target duration, after which an ordinary player reloads.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// A viewer that takes nothing for this long is cut off: what it does not read stays in memory.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);

/// On drain, for viewers who are still receiving; less than what the process grants the whole drain.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds a request's head, and how much of a part is handed to the socket in one call.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// After a failed accept, mostly for want of file descriptors: give somebody time to close one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bound listener.
pub struct Listener {
    tcp: TcpListener,
    site: Arc<Site>,
    connections_max: usize,
    metrics: Metrics,
}

impl Listener {
    /// `connections_max`: the next one waits in the backlog. A browser opens up to six.
    ///
    /// # Errors
    /// From the system, for an address in use or not ours.
    pub fn bind(
        address: SocketAddr,
        site: Site,
        connections_max: usize,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // `[::]` means every address of the machine, both families.
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let tcp = TcpListener::from_std(socket.into())?;
        Ok(Self { tcp, site: Arc::new(site), connections_max, metrics })
    }

    /// # Errors
    /// From the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `drain`, then finishes the requests that are open.
    pub async fn run(self, drain: CancellationToken) {
        let connections = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(self.connections_max));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&permits) => accepted,
                () = drain.cancelled() => break,
            };
            let Some((stream, peer, permit)) = accepted else { continue };
            let (site, metrics, drain) = (self.site.clone(), self.metrics.clone(), drain.clone());
            connections.spawn(async move {
                metrics.connections.inc();
                serve(stream, peer, site, drain).await;
                metrics.connections.dec();
                drop(permit);
            });
        }
        drop(self.tcp);
        connections.close();
        connections.wait().await;
    }

    async fn accept(
        &self,
        permits: &Arc<Semaphore>,
    ) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
        let permit = permits.clone().acquire_owned().await.ok()?;
        match self.tcp.accept().await {
            Ok((stream, peer)) => Some((stream, peer, permit)),
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, site: Arc<Site>, drain: CancellationToken) {
    // A playlist and the part after it are small writes in a row; Nagle's algorithm would hold the second back.
    let _ = stream.set_nodelay(true);
    // A dual-stack socket writes 192.0.2.1 as ::ffff:192.0.2.1.
    let peer = Peer(peer.ip().to_canonical());
    let service = service_fn(move |mut request| {
        Request::extensions_mut(&mut request).insert(peer);
        let site = site.clone();
        async move { Ok::<_, std::convert::Infallible>(site.respond(&request).await) }
    });
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(WRITE_TIMEOUT));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(DRAIN_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return debug!("cut off: still receiving when the drain was over"),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}
