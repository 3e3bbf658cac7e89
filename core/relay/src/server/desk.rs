//! What nodes ask the relay's port about certificates: a machine that shows a token wants its first one, a node another, and
//! both want to know whom the cluster trusts.
//!
//! Requests and answers are texts, short ones; what is in them is not the wire's business.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use media::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::debug;

use super::{Body, full};

/// POST, from who has no certificate.
pub(crate) const JOIN_PATH: &str = "/x/1/join";
/// POST, from a node.
pub(crate) const RENEW_PATH: &str = "/x/1/renew";
/// GET, from a node.
pub(crate) const TRUST_PATH: &str = "/x/1/trust";

/// A request for a certificate has a kilobyte; the list of whom the cluster trusts has a line for each node that was revoked.
pub(crate) const DESK_BYTES_MAX: usize = 256 * 1024;
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// From the end of the handshake to the end of the answer; who joins asks once.
const JOINER_MAX: Duration = Duration::from_secs(10);
/// Of a request's head.
const JOINER_BUFFER_BYTES: usize = 8 * 1024;

/// What is answered, and the words or the text of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
}

/// Answers about certificates. Called where waiting for a disk hurts nobody.
pub trait Desk: Send + Sync + 'static {
    /// Whether this node makes certificates. Who asks elsewhere is not even shaken hands with.
    fn lets_in(&self) -> bool;
    /// Somebody at `peer` shows a token.
    fn join(&self, peer: IpAddr, request: &str) -> Answer;
    /// A node wants another certificate.
    fn renew(&self, node: &NodeId, request: &str) -> Answer;
    /// Whom the cluster trusts, as this node knows it.
    fn trust(&self) -> Answer;
}

/// What a node asks, if it is about certificates.
pub(super) async fn answer(
    desk: Option<&Arc<dyn Desk>>,
    child: &NodeId,
    request: Request<Incoming>,
) -> Result<Response<Body>, Request<Incoming>> {
    let Some(desk) = desk else { return Err(request) };
    match (request.method(), request.uri().path()) {
        (&Method::POST, RENEW_PATH) => {
            let child = child.clone();
            Ok(ask(desk, request, move |desk, text| desk.renew(&child, text)).await)
        }
        (&Method::GET, TRUST_PATH) => {
            let desk = desk.clone();
            Ok(spawn_blocking(move || desk.trust()).await.map_or_else(|_| failed(), respond))
        }
        _ => Err(request),
    }
}

/// One request of somebody who has no certificate, and then no more.
pub(super) async fn serve_joiner<S>(stream: S, peer: IpAddr, desk: Arc<dyn Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(|request: Request<Incoming>| {
        let desk = desk.clone();
        async move {
            Ok::<_, Infallible>(match (request.method(), request.uri().path()) {
                (&Method::POST, JOIN_PATH) => {
                    ask(&desk, request, move |desk, text| desk.join(peer, text)).await
                }
                _ => respond(Answer {
                    status: StatusCode::NOT_FOUND,
                    text: "without a certificate only joining is possible here".to_owned(),
                }),
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(JOINER_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(JOINER_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "who would join has gone"),
        Err(_) => debug!("who would join is too slow"),
    }
}

async fn ask(
    desk: &Arc<dyn Desk>,
    request: Request<Incoming>,
    question: impl FnOnce(&dyn Desk, &str) -> Answer + Send + 'static,
) -> Response<Body> {
    let unreadable = |text: &str| respond(Answer { status: StatusCode::BAD_REQUEST, text: text.to_owned() });
    let collected = timeout(JOINER_MAX, Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect()).await;
    let Ok(Ok(collected)) = collected else { return unreadable("the request is too long, or broken off") };
    let bytes: Bytes = collected.to_bytes();
    let Ok(text) = String::from_utf8(bytes.into()) else { return unreadable("the request is no text") };
    let desk = desk.clone();
    match spawn_blocking(move || question(&*desk, &text)).await {
        Ok(answer) => respond(answer),
        Err(_) => failed(),
    }
}

/// By a bug of ours.
fn failed() -> Response<Body> {
    let text = "this node failed at it; its log says more".to_owned();
    respond(Answer { status: StatusCode::INTERNAL_SERVER_ERROR, text })
}

fn respond(answer: Answer) -> Response<Body> {
    let mut response = Response::new(full(answer.text));
    *response.status_mut() = answer.status;
    response
}
