//! The listener of viewers: accepts, bounds, encrypts, serves, drains. Encrypted it speaks HTTP/2 (`h2.rs`) to whoever wants
//! that, and HTTP/1.1 (`h1.rs`) otherwise.

mod body;
mod h1;
mod h2;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use net::tls::{HandshakeError, Tls};
use net::{Accepted, Acceptor, Full, Options, Panicked, Places};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use crate::drain::Drain;
use crate::metrics::{Metrics, Reason};
use crate::site::{Body, Site};

/// What the listening socket must be.
pub const SOCKET: Options = Options {
    // A page shared on a large channel brings thousands of connections within a second.
    backlog: 4_096,
    // More than a part of 75 kB, so that it is handed over in one call; little beside what may be under way to a
    // viewer on a fast line, which this does not bound.
    unsent_bytes_max: Some(128 * 1024),
};

/// Between two requests of a connection: more than the largest target duration, after which an ordinary player
/// reloads. Once a head has begun, [`Paced`] gives it less.
const IDLE_TIME_MAX: Duration = Duration::from_secs(15);

/// On drain, for viewers who are still receiving; less than what the process grants the whole drain.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// On drain, for connections on which nothing was asked yet: browsers keep some ready that they may never use.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_millis(300);

/// How much of a part is handed to the socket in one call.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// A request's head. A browser sends less than 1 kB; the rest is for cookies that are not ours.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The bound listener.
pub struct Listener {
    acceptor: Acceptor,
    /// `None` for plain HTTP.
    tls: Option<Tls>,
    site: Site,
    metrics: Metrics,
}

/// Who answers viewers; a trait so that a test can panic.
pub(crate) trait Respond: Send + Sync + 'static {
    /// Called while the request is read: what is dropped before the future is first polled is not kept while it waits.
    fn respond(&self, viewer: IpAddr, request: Request<()>) -> impl Future<Output = Response<Body>> + Send;

    /// Whose bodies are read, and how long they may be: of requests with which somebody publishes.
    fn body_bytes_max(&self, _request: &Request<()>) -> Option<usize> {
        None
    }

    /// A request that [`Respond::body_bytes_max`] said yes to, whole.
    fn respond_to(
        &self,
        peer: IpAddr,
        request: Request<Bytes>,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// Holds no request from now on.
    fn drain(&self);
}

impl Listener {
    /// On a `listener` made with [`SOCKET`]. A browser opens up to six connections; listeners of one node share their
    /// `places`.
    pub fn new(listener: TcpListener, site: Site, places: Places, metrics: Metrics) -> Self {
        Self { acceptor: Acceptor::new("HTTP", listener, places), tls: None, site, metrics }
    }

    /// As [`Listener::new`], encrypted.
    pub fn encrypted(listener: TcpListener, tls: Tls, site: Site, places: Places, metrics: Metrics) -> Self {
        Self { acceptor: Acceptor::new("HTTPS", listener, places), tls: Some(tls), site, metrics }
    }

    /// # Errors
    /// From the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.acceptor.local_addr()
    }

    /// Serves until `drain`, then answers what is held and finishes the requests that are open.
    pub async fn run(self, drain: CancellationToken) {
        accept(self.acceptor, self.tls, self.site, self.metrics, drain).await;
    }
}

async fn accept(
    mut acceptor: Acceptor,
    tls: Option<Tls>,
    site: impl Respond,
    metrics: Metrics,
    drain: CancellationToken,
) {
    let connections = TaskTracker::new();
    let house = Arc::new(House { tls, site: Arc::new(site), metrics, drain: Arc::new(Drain::new(drain)) });
    loop {
        let refused = |full: Full| house.metrics.refused(full.into());
        let accepted = tokio::select! {
            accepted = acceptor.next(refused) => accepted,
            () = house.drain.begun() => break,
        };
        connections.spawn(supervise(accepted, Arc::clone(&house)));
    }
    drop(acceptor);
    house.site.drain();
    connections.close();
    connections.wait().await;
}

/// What the connections of a listener share.
struct House<S> {
    tls: Option<Tls>,
    site: Arc<S>,
    metrics: Metrics,
    drain: Arc<Drain>,
}

/// How a connection ended when somebody is to blame.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("{0}")]
    H1(#[from] hyper::Error),
    #[error("{0}")]
    H2(#[from] h2::H2Error),
}

impl Fault {
    /// `None` if nobody but the viewer ended the connection, or it was merely idle.
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Handshake(error) => handshake_reason(error),
            Self::H1(error) => h1::reason(error),
            Self::H2(error) => error.reason(),
        }
    }
}

fn handshake_reason(error: &HandshakeError) -> Option<Reason> {
    match error {
        HandshakeError::Full(_) => Some(Reason::HandshakesFull),
        HandshakeError::TooSlow => Some(Reason::SlowHandshake),
        // A browser that does not trust the certificate, a scanner, or a connection made ahead and not used: rustls
        // and the system tell them apart.
        HandshakeError::Failed(error) if error.kind() == io::ErrorKind::InvalidData => {
            Some(Reason::BadHandshake)
        }
        _ => None,
    }
}

/// Runs one connection so that a panic in it ends it alone, and counts how it ended.
async fn supervise(accepted: Accepted, house: Arc<House<impl Respond>>) {
    let Accepted { socket, peer, place } = accepted;
    let metrics = &house.metrics;
    metrics.connections.inc();
    // A playlist and the part after it are small writes in a row; Nagle's algorithm would hold the second back.
    let _ = socket.set_nodelay(true);
    let ended = net::contain(serve(socket, peer.ip(), &house)).await;
    metrics.connections.dec();
    drop(place);
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if let Some(reason) = error.reason() {
                metrics.refused(reason);
            }
            debug!(peer.addr = %peer, %error, "connection ended");
        }
        Err(Panicked) => {
            metrics.panics.inc();
            error!(peer.addr = %peer, "HTTP connection closed: a request panicked; this is a bug");
        }
    }
}

async fn serve(socket: TcpStream, viewer: IpAddr, house: &House<impl Respond>) -> Result<(), Fault> {
    let (site, drain) = (Arc::clone(&house.site), Arc::clone(&house.drain));
    let Some(tls) = &house.tls else {
        return Ok(h1::serve(socket, viewer, site, drain).await?);
    };
    // In boxes: who comes without encryption shall not pay for their size.
    let handshake = Box::pin(tls.accept(viewer, socket));
    let stream = tokio::select! {
        stream = handshake => stream?,
        // Nothing was asked yet, so nothing is lost.
        () = drain.begun() => return Ok(()),
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return Ok(Box::pin(h2::serve(stream, viewer, site, drain, house.metrics.clone())).await?);
    }
    Ok(Box::pin(h1::serve(stream, viewer, site, drain)).await?)
}

#[cfg(test)]
mod tests;
