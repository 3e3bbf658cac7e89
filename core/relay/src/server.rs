//! The relay's listener: accepts nodes of the cluster, and, where certificates are made, who shows a token for one.

mod desk;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use media::NodeId;
use net::{Accepted, Acceptor, Full, Limits, Options, Place, Places, Throttle};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info, info_span};

use crate::judged::Judged;
use crate::metrics::WireMetrics;
use crate::tls::{Identity, JOIN_PROTOCOL, words};
use crate::wire::Slices;

pub use desk::{Answer, Desk};
pub(crate) use desk::{DESK_BYTES_MAX, JOIN_PATH, RENEW_PATH, TRUST_PATH};

/// What the listening socket must be.
pub const SOCKET: Options = Options {
    // A child whose upstream comes back subscribes to all of its streams at once.
    backlog: 1_024,
    // What a slow child lags behind shall be seen in its cursor, not hidden in a socket.
    unsent_bytes_max: Some(256 * 1024),
};

/// Each subscription is a connection, and each child keeps a few more for bodies and states; a thousand is ten times what
/// one node can feed with video. Many children may share an address, and strangers at one address leave room for them.
const CONNECTIONS: Limits = Limits { total: 4_096, per_address: 3_072 };

/// Of these, machines that join: they are strangers until they have shown a token.
const JOINERS: Limits = Limits { total: 64, per_address: 8 };

/// From accept to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A request's head must be complete this long after the answer before it. Children keep connections for bodies.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A child that takes nothing for this long is cut off. It resumes where it was.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bounds a request's head. Above it, so much of a frame is handed to TLS in one call.
const BUFFER_BYTES_MAX: usize = 256 * 1024;

/// On drain, for answers that are being written. Subscriptions end at once: their children resume elsewhere.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// The body of an answer to a child.
pub type Body = UnsyncBoxBody<Slices, Infallible>;

/// Answers the requests of children.
pub trait Service: Send + Sync + 'static {
    /// `child` is the node that the certificate names.
    fn respond(&self, child: &NodeId, request: Request<()>) -> impl Future<Output = Response<Body>> + Send;
}

/// The bound listener.
pub struct Listener {
    acceptor: Acceptor,
    identity: Identity,
    desk: Option<Arc<dyn Desk>>,
    metrics: WireMetrics,
}

impl Listener {
    /// On a `listener` made with [`SOCKET`].
    pub fn new(listener: TcpListener, identity: &Identity, metrics: WireMetrics) -> Self {
        let acceptor = Acceptor::new("relay", listener, Places::new(CONNECTIONS));
        Self { acceptor, identity: identity.clone(), desk: None, metrics }
    }

    /// Answers questions about certificates, too.
    #[must_use]
    pub fn with_desk(mut self, desk: Arc<dyn Desk>) -> Self {
        self.desk = Some(desk);
        self
    }

    /// # Errors
    /// From the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.acceptor.local_addr()
    }

    /// Serves until `drain`, then finishes the answers that are being written.
    pub async fn run<S: Service>(self, service: S, drain: CancellationToken) {
        let Self { mut acceptor, identity, desk, metrics } = self;
        let connections = TaskTracker::new();
        let (service, refusals) = (Arc::new(service), Arc::new(Throttle::sparse()));
        let joiners = Places::new(JOINERS);
        loop {
            let refused = |_: Full| {
                metrics.refused.inc();
            };
            let accepted = tokio::select! {
                accepted = acceptor.next(refused) => accepted,
                () = drain.cancelled() => break,
            };
            let (identity, desk, service) = (identity.clone(), desk.clone(), service.clone());
            let (refusals, metrics, drain) = (refusals.clone(), metrics.clone(), drain.clone());
            let joiners = joiners.clone();
            connections.spawn(async move {
                let Accepted { socket, peer, place } = accepted;
                match handshake(socket, &identity, desk, || joiners.take(peer.ip())).await {
                    Ok(Caller::Child(stream, child, desk)) => {
                        let span = info_span!("child", node.id = %child, peer.addr = %peer);
                        metrics.connections.inc();
                        serve(stream, &child, service, desk, drain).instrument(span).await;
                        metrics.connections.dec();
                    }
                    Ok(Caller::Joiner(stream, desk, _place)) => {
                        desk::serve_joiner(stream, peer.ip(), desk)
                            .instrument(info_span!("joiner", peer.addr = %peer))
                            .await;
                    }
                    Err(why) => {
                        metrics.refused.inc();
                        if let Some(more) = refusals.pass(Instant::now()) {
                            info!(peer.addr = %peer, more, "refused a connection to the relay: {why}");
                        }
                    }
                }
                drop(place);
            });
        }
        drop(acceptor);
        connections.close();
        connections.wait().await;
    }
}

type TlsStream = tokio_rustls::server::TlsStream<std::pin::Pin<Box<TimeoutStream<TcpStream>>>>;

/// Who has shaken hands.
enum Caller {
    /// A node of the cluster, by its name.
    Child(Judged<TlsStream>, NodeId, Option<Arc<dyn Desk>>),
    /// Somebody without a certificate.
    Joiner(TlsStream, Arc<dyn Desk>, Place),
}

/// Who it is, or why nobody, in words.
async fn handshake(
    stream: TcpStream,
    identity: &Identity,
    desk: Option<Arc<dyn Desk>>,
    place: impl FnOnce() -> Result<Place, Full>,
) -> Result<Caller, String> {
    // Frames are small writes in a row; Nagle's algorithm would hold them back.
    let _ = stream.set_nodelay(true);
    let mut stream = Box::pin(TimeoutStream::new(stream));
    stream.as_mut().set_write_timeout_pinned(Some(WRITE_TIMEOUT));
    let shaken = async {
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await;
        let start = start.map_err(|error| words(&error))?;
        let offered = start.client_hello().alpn();
        let joins = offered.is_some_and(|mut offered| offered.any(|protocol| protocol == JOIN_PROTOCOL));
        let (config, place) = match (joins, &desk) {
            (false, _) => (identity.server_config(), None),
            (true, Some(desk)) if desk.lets_in() => {
                let place = place().map_err(|_| "too many would join the cluster at once".to_owned())?;
                (Arc::new(identity.joining_config().map_err(|error| words(&error))?), Some(place))
            }
            (true, _) => return Err("it would join the cluster, and the authority is not here".to_owned()),
        };
        let stream = start.into_stream(config).await.map_err(|error| words(&error))?;
        Ok((place, stream))
    };
    let shaken = timeout(HANDSHAKE_TIMEOUT, shaken).await;
    let (joiner, stream) = shaken.map_err(|_| "it did not finish its handshake in time".to_owned())??;
    if let (Some(place), Some(desk)) = (joiner, &desk) {
        return Ok(Caller::Joiner(stream, desk.clone(), place));
    }
    let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
    let judged = Judged::new(stream, identity, chain.as_deref());
    let (stream, child) = judged.ok_or("its certificate names no node")?;
    Ok(Caller::Child(stream, child, desk))
}

async fn serve<S: Service>(
    stream: Judged<TlsStream>,
    child: &NodeId,
    service: Arc<S>,
    desk: Option<Arc<dyn Desk>>,
    drain: CancellationToken,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (service, desk) = (service.clone(), desk.clone());
        async move {
            Ok::<_, Infallible>(match desk::answer(desk.as_ref(), child, request).await {
                Ok(answer) => answer,
                Err(request) => service.respond(child, request.map(drop)).await,
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(DRAIN_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return debug!("cut off: the drain is over"),
            }
        }
    };
    if let Err(error) = ended {
        debug!(why = words(&error), "child's connection ended");
    }
}

/// A body that is known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    use http_body_util::BodyExt;
    UnsyncBoxBody::new(http_body_util::Full::new(Slices::from(bytes.into())).map_err(|never| match never {}))
}

#[cfg(test)]
mod tests;
