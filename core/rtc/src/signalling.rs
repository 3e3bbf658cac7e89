//! What WHIP (RFC 9725) and WHEP say by HTTP: an offer is POSTed to an endpoint, which answers with the address of a session; that
//! takes PATCH and DELETE. Pure.
//!
//! An endpoint is `/whip/{app}/{stream}`, a session `/whip/{app}/{stream}/{id}`. Pages of other sites may do this too: nothing
//! here goes by cookies, so the origin is `*`, and nothing is ever sent with credentials (threat 20).

mod fragment;
mod ice_servers;

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, HOST,
    HeaderName, IF_MATCH, LINK, LOCATION, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use media::StreamId;

pub use fragment::{FRAGMENT_BYTES_MAX, Fragment, FragmentError};
pub use ice_servers::{IceServers, TurnSecret, is_turn};

/// The kind of an offer, and of its answer.
pub const SDP: &str = "application/sdp";
/// The kind of a [`Fragment`].
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Of a session's id: 128 random bits, as hexadecimal digits.
const ID_CHARS: usize = 32;

/// `If-Match` (RFC 9110, §13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Missing,
    /// Whatever there is: a restart does not know (RFC 9725, §4.3.3).
    Any,
    Tags(String),
}

impl Condition {
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(IF_MATCH).map(|value| value.to_str().unwrap_or_default()) {
            None => Self::Missing,
            Some(value) if value.trim() == "*" => Self::Any,
            Some(tags) => Self::Tags(tags.to_owned()),
        }
    }

    pub fn holds(&self, etag: &str) -> bool {
        match self {
            Self::Missing => false,
            Self::Any => true,
            Self::Tags(tags) => tags.split(',').any(|tag| tag.trim() == etag),
        }
    }
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Endpoint(StreamId),
    /// By its id.
    Session(String),
}

impl Place {
    /// `prefix` is what all paths begin with, as `/whip/`.
    ///
    /// # Errors
    /// The answer: there is nothing.
    pub fn of(path: &str, prefix: &str) -> Result<Self, Response<Bytes>> {
        let nowhere = |words: &str| refusal(StatusCode::NOT_FOUND, words);
        let rest = path.strip_prefix(prefix).unwrap_or_default();
        let segments: Vec<_> = rest.split('/').collect();
        match segments.as_slice() {
            [app, stream] => StreamId::new(app, stream)
                .map(Self::Endpoint)
                .map_err(|error| nowhere(&format!("not the name of a stream: {error}"))),
            [_, _, id] if id.len() == ID_CHARS && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(Self::Session((*id).to_owned()))
            }
            _ => Err(nowhere(&format!("the address of a stream is {prefix}APP/STREAM"))),
        }
    }

    fn methods(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Endpoint(_) => "OPTIONS, POST",
            Self::Session(_) => "OPTIONS, PATCH, DELETE",
        })
    }

    /// The answer to a browser that asks before it sends (the Fetch standard's preflight), or to whoever looks for what this is.
    pub fn options(&self) -> Response<Bytes> {
        let mut response = plain(StatusCode::NO_CONTENT, Bytes::new());
        let out = response.headers_mut();
        out.insert(ALLOW, self.methods());
        out.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods());
        out.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Authorization, Content-Type, If-Match"),
        );
        out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        match self {
            Self::Endpoint(_) => out.insert(ACCEPT_POST, HeaderValue::from_static(SDP)),
            Self::Session(_) => out.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT)),
        };
        response
    }

    /// 405, with these words about what is done here.
    pub fn not_allowed(&self, words: &str) -> Response<Bytes> {
        let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, words);
        response.headers_mut().insert(ALLOW, self.methods());
        response
    }
}

/// The address by which whoever asks has come here, if it has not come by a name: `Host`, or `:authority` in HTTP/2. A claim of
/// its own, good for nothing but the answer to itself.
pub fn asked_address<B>(request: &Request<B>) -> Option<IpAddr> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let host = request.uri().host().or_else(|| host.as_ref().map(Authority::host))?;
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether the body is of this kind.
pub fn is_of_kind(headers: &HeaderMap, kind: &str) -> bool {
    let told = headers.get(CONTENT_TYPE).and_then(|told| told.to_str().ok()).unwrap_or_default();
    told.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
}

/// The body, if it is of the right kind and size.
///
/// # Errors
/// The answer: 415 or 413.
pub fn body_of<'a>(
    headers: &HeaderMap,
    body: &'a Bytes,
    kind: &str,
    bytes_max: usize,
) -> Result<&'a [u8], Response<Bytes>> {
    if !is_of_kind(headers, kind) {
        return Err(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, &format!("the body must be {kind}")));
    }
    if body.len() > bytes_max {
        return Err(too_large());
    }
    Ok(body)
}

/// 201: the session is there. `links`: of [`IceServers`].
pub fn created(location: &str, etag: &str, links: Vec<HeaderValue>, answer: String) -> Response<Bytes> {
    let mut response = plain(StatusCode::CREATED, answer.into());
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    out.insert(LOCATION, header(location));
    out.insert(ETAG, header(etag));
    out.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    for link in links {
        out.append(LINK, link);
    }
    response
}

/// 200: ICE was restarted.
pub fn restarted(etag: &str, fragment: String) -> Response<Bytes> {
    let mut response = plain(StatusCode::OK, fragment.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
    response.headers_mut().insert(ETAG, header(etag));
    response
}

/// 204 for what was heard, 200 for a session that was ended.
pub fn done(status: StatusCode) -> Response<Bytes> {
    plain(status, Bytes::new())
}

/// With words for the client, and in how many seconds it may try again.
pub fn try_again(status: StatusCode, words: &str, seconds: u32) -> Response<Bytes> {
    let mut response = refusal(status, words);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

/// 413: for whoever reads bodies, too.
#[must_use]
pub fn too_large() -> Response<Bytes> {
    refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than any honest offer")
}

pub fn refusal(status: StatusCode, words: &str) -> Response<Bytes> {
    let mut response = plain(status, format!("{words}\n").into());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

fn plain(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let out = response.headers_mut();
    out.insert(CACHE_CONTROL, NO_STORE);
    out.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    out.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Location, ETag, Link, Accept-Patch, Retry-After"),
    );
    response
}

/// Of what is made here of names, digits and quotes.
fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("names and ids are of characters that a header may have")
}
