//! The HTTP/1.1 listener of viewers: accepts, bounds, serves, drains.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use net::{Accepted, Acceptor, Limits, Options, Paced, Panicked, Requests, TooSlow};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
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

/// For the body of a request that is read: an offer of 6 kB, over a bad line.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// The bound listener.
pub struct Listener {
    acceptor: Acceptor,
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
    /// On a `listener` made with [`SOCKET`]. A browser opens up to six connections.
    pub fn new(listener: TcpListener, site: Site, limits: Limits, metrics: Metrics) -> Self {
        Self { acceptor: Acceptor::new("HTTP", listener, limits), site, metrics }
    }

    /// # Errors
    /// From the system.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.acceptor.local_addr()
    }

    /// Serves until `drain`, then answers what is held and finishes the requests that are open.
    pub async fn run(self, drain: CancellationToken) {
        accept(self.acceptor, self.site, self.metrics, drain).await;
    }
}

async fn accept(mut acceptor: Acceptor, site: impl Respond, metrics: Metrics, drain: CancellationToken) {
    let connections = TaskTracker::new();
    let site = Arc::new(site);
    let drain = Arc::new(Drain::new(drain));
    loop {
        let refused = |full: net::Full| metrics.refused(full.into());
        let accepted = tokio::select! {
            accepted = acceptor.next(refused) => accepted,
            () = drain.begun() => break,
        };
        connections.spawn(supervise(accepted, Arc::clone(&site), metrics.clone(), Arc::clone(&drain)));
    }
    drop(acceptor);
    site.drain();
    connections.close();
    connections.wait().await;
}

/// Runs one connection so that a panic in it ends it alone, and counts how it ended.
async fn supervise(accepted: Accepted, site: Arc<impl Respond>, metrics: Metrics, drain: Arc<Drain>) {
    let Accepted { socket, peer, place } = accepted;
    metrics.connections.inc();
    // A playlist and the part after it are small writes in a row; Nagle's algorithm would hold the second back.
    let _ = socket.set_nodelay(true);
    let ended = net::contain(serve(socket, peer.ip(), site, drain)).await;
    metrics.connections.dec();
    drop(place);
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if let Some(reason) = reason(&error) {
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

async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    viewer: IpAddr,
    site: Arc<impl Respond>,
    drain: Arc<Drain>,
) -> hyper::Result<()> {
    let requests = Requests::default();
    let socket = Paced::new(socket, requests.clone(), IDLE_TIME_MAX);
    // By reference: all connections share these.
    let (site, asked, drain) = (&*site, &requests, &*drain);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        asked.begin();
        let (head, body) = request.into_parts();
        let head = Request::from_parts(head, ());
        let finish = move |mut response: Response<Body>, is_read: bool| {
            asked.end();
            // What is left of a body is not worth waiting for.
            if !is_read || drain.has_begun() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        };
        if let Some(bytes_max) = site.body_bytes_max(&head) {
            let answer = with_body(site, viewer, head, body, bytes_max);
            return Either::Left(Box::pin(answer.map(move |(response, is_read)| finish(response, is_read))));
        }
        // Not a block that awaits the other, which would have it twice.
        Either::Right(site.respond(viewer, head).map(move |response| finish(response, body.is_end_stream())))
    });
    let connection = http1::Builder::new()
        // Ours is in `Paced`: hyper's runs while the end of an answer is still being taken.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = drain.begun() => {}
    }
    // A request may be under way to a connection that is new; hyper would close it at once.
    if requests.is_none()
        && let Ok(ended) = timeout(FIRST_REQUEST_TIMEOUT, connection.as_mut()).await
    {
        return ended;
    }
    connection.as_mut().graceful_shutdown();
    timeout(DRAIN_TIMEOUT, connection).await.unwrap_or_else(|_| {
        debug!("cut off: still receiving when the drain was over");
        Ok(())
    })
}

/// Answers a request whose body is read first. And whether it was, to its end.
async fn with_body(
    site: &impl Respond,
    peer: IpAddr,
    head: Request<()>,
    body: hyper::body::Incoming,
    bytes_max: usize,
) -> (Response<Body>, bool) {
    let whole = timeout(BODY_TIME_MAX, Limited::new(body, bytes_max).collect()).await;
    let refusal = |status: StatusCode, words: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
        *response.status_mut() = status;
        (response.map(http_body_util::Either::Right), false)
    };
    match whole {
        Ok(Ok(whole)) => (site.respond_to(peer, head.map(|()| whole.to_bytes())).await, true),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long\n")
        }
        // Nobody is there any more to read it, if it is not merely badly chunked.
        Ok(Err(_)) => refusal(StatusCode::BAD_REQUEST, "the body ends in the middle\n"),
        Err(_) => refusal(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
    }
}

/// `None` if nobody but the viewer ended the connection, or it was merely idle.
fn reason(error: &hyper::Error) -> Option<Reason> {
    if error.is_parse() {
        return Some(Reason::BadRequest);
    }
    let source = error.source()?.downcast_ref::<io::Error>()?;
    Some(match source.get_ref()?.downcast_ref::<TooSlow>()? {
        TooSlow::Head => Reason::SlowHead,
        TooSlow::Body => Reason::SlowReader,
    })
}

#[cfg(test)]
mod tests;
