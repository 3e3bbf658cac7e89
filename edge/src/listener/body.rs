//! Requests whose bodies are read.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tokio::time::timeout;

use super::Respond;
use crate::site::Body;

/// For the body of a request that is read: an offer of 6 kB, over a bad line.
pub(super) const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// Answers a request whose body is read first. And whether it was, to its end.
pub(super) async fn answer(
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
