//! HTTP/2: many requests at a time, each in a task of its own, as hyper has it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use http_body::{Frame, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use net::{Ended, OpenStream, Owed, Streams};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::{debug, error};

use super::{DRAIN_TIMEOUT, HEAD_BYTES_MAX, IDLE_TIME_MAX, Respond, body};
use crate::drain::Drain;
use crate::metrics::{Metrics, Reason};
use crate::site::Body;

/// Requests of one connection at once; RFC 9113, §6.5.2 asks for no fewer. A player has six, and how many may be held is
/// bounded elsewhere.
const STREAMS_MAX: u32 = 100;

/// Requests that were reset before we came to look at them. More than this is the flood of CVE-2023-44487, and ends the
/// connection.
const RESETS_UNSEEN_MAX: usize = 20;

/// Streams reset by us because of what their peer did. Ending the connection is cheaper than a quarrel.
const RESETS_OURS_MAX: usize = 100;

/// What may come of a request's body at once; an offer is shorter.
const WINDOW_BYTES: u32 = 64 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum H2Error {
    #[error("{0}")]
    Hyper(#[from] hyper::Error),
    #[error("took its answers too slowly")]
    TooSlow,
}

impl H2Error {
    /// `None` if nobody but the viewer ended the connection.
    pub(super) fn reason(&self) -> Option<Reason> {
        use std::error::Error as _;
        match self {
            Self::TooSlow => Some(Reason::SlowReader),
            Self::Hyper(error) => {
                let broken = error.source()?.downcast_ref::<h2::Error>()?;
                // What we told it in a GOAWAY, because of what it sent.
                (broken.is_go_away() && broken.is_library()).then_some(Reason::BadRequest)
            }
        }
    }
}

pub(super) async fn serve(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    viewer: IpAddr,
    site: Arc<impl Respond>,
    drain: Arc<Drain>,
    metrics: Metrics,
) -> Result<(), H2Error> {
    let streams = Streams::default();
    let open = streams.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (site, stream) = (Arc::clone(&site), open.open());
        let (head, body) = request.into_parts();
        let head = Request::from_parts(head, ());
        async move {
            let response = match site.body_bytes_max(&head) {
                Some(bytes_max) => Box::pin(body::answer(&*site, viewer, head, body, bytes_max)).await.0,
                // Without its body, which is for nobody.
                None => site.respond(viewer, head).await,
            };
            Ok::<_, Infallible>(response.map(|body| Answer { body, stream }))
        }
    });
    let connection = http2::Builder::new(Contained(metrics))
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_UNSEEN_MAX)
        .max_local_error_reset_streams(RESETS_OURS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = drain.begun() => {}
        ended = streams.ended(IDLE_TIME_MAX) => match ended {
            // Told as in a drain: a request that is under way is answered.
            Ended::Idle => {}
            Ended::TooSlow => return Err(H2Error::TooSlow),
        },
    }
    // GOAWAY, twice: requests that are under way are taken for one more round trip (RFC 9113, §6.8).
    connection.as_mut().graceful_shutdown();
    match timeout(DRAIN_TIMEOUT, connection).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            debug!("cut off: still receiving when its time was over");
            Ok(())
        }
    }
}

/// A body whose connection is watched for what it takes of it.
struct Answer {
    body: Body,
    stream: OpenStream,
}

impl http_body::Body for Answer {
    type Data = Owed;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Owed>, Self::Error>>> {
        let Self { body, stream } = self.get_mut();
        Pin::new(body).poll_frame(context).map_ok(|frame| frame.map_data(|bytes| stream.owe(bytes)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs each request's task so that a panic in it resets that request alone, and is counted.
#[derive(Clone)]
struct Contained(Metrics);

impl<F> hyper::rt::Executor<F> for Contained
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let metrics = self.0.clone();
        tokio::spawn(async move {
            if net::contain(stream).await.is_err() {
                metrics.panics.inc();
                error!("HTTP/2 request reset: it panicked; this is a bug");
            }
        });
    }
}

#[cfg(test)]
mod tests;
