//! HTTP/1.1: one request at a time.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::Either;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use net::{Paced, Requests, TooSlow};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;

use super::{
    BUFFER_BYTES_MAX, DRAIN_TIMEOUT, FIRST_REQUEST_TIMEOUT, HEAD_BYTES_MAX, IDLE_TIME_MAX, Respond, body,
};
use crate::drain::Drain;
use crate::metrics::Reason;
use crate::site::Body;

pub(super) async fn serve(
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
            let answer = body::answer(site, viewer, head, body, bytes_max);
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

/// `None` if nobody but the viewer ended the connection, or it was merely idle.
pub(super) fn reason(error: &hyper::Error) -> Option<Reason> {
    use std::error::Error as _;
    if error.is_parse() {
        return Some(Reason::BadRequest);
    }
    let source = error.source()?.downcast_ref::<io::Error>()?;
    Some(match source.get_ref()?.downcast_ref::<TooSlow>()? {
        TooSlow::Head => Reason::SlowHead,
        TooSlow::Body => Reason::SlowReader,
    })
}
