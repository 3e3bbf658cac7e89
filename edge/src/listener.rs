//! The HTTP/1.1 listener of viewers: accepts, bounds, serves, drains.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::metrics::Metrics;
use crate::site::Site;

/// Open connections; the next one waits in the backlog. A browser opens up to six.
const CONNECTIONS_MAX: usize = 20_000;

/// Connections the kernel queues for us. A page shared on a large channel brings thousands within a second.
const BACKLOG: i32 = 4096;

/// A request's head must be complete within this.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Bounds a request's head, and how much of a part is handed to the socket in one call.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// After a failed accept, mostly for want of file descriptors: give somebody time to close one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The bound listener.
pub struct Listener {
    tcp: TcpListener,
    site: Arc<Site>,
    metrics: Metrics,
}

impl Listener {
    /// # Errors
    /// From the system, for an address in use or not ours.
    pub fn bind(address: SocketAddr, site: Site, metrics: Metrics) -> io::Result<Self> {
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
        Ok(Self { tcp, site: Arc::new(site), metrics })
    }

    /// # Errors
    /// From the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `drain`, then finishes the requests that are open.
    pub async fn run(self, drain: CancellationToken) {
        let connections = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&permits) => accepted,
                () = drain.cancelled() => break,
            };
            let Some((stream, permit)) = accepted else { continue };
            let (site, metrics, drain) = (self.site.clone(), self.metrics.clone(), drain.clone());
            connections.spawn(async move {
                metrics.connections.inc();
                serve(stream, site, drain).await;
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
    ) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
        let permit = permits.clone().acquire_owned().await.ok()?;
        match self.tcp.accept().await {
            Ok((stream, _)) => Some((stream, permit)),
            Err(error) => {
                warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

async fn serve(stream: TcpStream, site: Arc<Site>, drain: CancellationToken) {
    // A playlist and the part after it are small writes in a row; Nagle's algorithm would hold the second back.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let site = site.clone();
        async move { Ok::<_, std::convert::Infallible>(site.respond(&request).await) }
    });
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
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection ended");
    }
}
