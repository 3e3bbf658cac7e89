//! WHIP's HTTP (RFC 9725): requests in, what they ask for out, and the answers. Pure.
//!
//! An endpoint is `/whip/{app}/{stream}`, a session `/whip/{app}/{stream}/{id}`. The id is 128 random bits; with it goes the
//! publish key of whoever began the session, so that neither is enough alone (threat 19).
//!
//! Pages of other sites may publish here: a stranger's page has no key, and browsers send none by themselves, since it is
//! no cookie. So the origin is `*`, and nothing is ever sent with credentials (threat 20).

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE,
    ETAG, HeaderName, IF_MATCH, LINK, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use media::{NameError, StreamId};
use net::TooManyGuesses;

use super::fragment::{FRAGMENT_BYTES_MAX, Fragment, FragmentError};
use super::offer::{OFFER_BYTES_MAX, Offer, OfferError};
use crate::{KeyFault, Refusal, Secret};

/// Under which everything here is.
pub const PREFIX: &str = "/whip/";

/// The longest body that any request may have, in bytes.
pub const BODY_BYTES_MAX: usize = OFFER_BYTES_MAX;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Bits of a session's id, as hexadecimal digits.
const ID_CHARS: usize = 32;

/// What a request asks for.
pub(super) enum Action {
    /// Nothing but this answer.
    Answer(Response<Bytes>),
    Publish {
        id: StreamId,
        key: Secret,
        offer: Box<Offer>,
    },
    Patch {
        session: String,
        key: Secret,
        condition: Condition,
        fragment: Fragment,
    },
    End {
        session: String,
        key: Secret,
    },
}

/// `If-Match` (RFC 9110, §13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    Missing,
    /// Whatever there is: a restart does not know (RFC 9725, §4.3.3).
    Any,
    Tags(String),
}

impl Condition {
    pub(super) fn holds(&self, etag: &str) -> bool {
        match self {
            Self::Missing => false,
            Self::Any => true,
            Self::Tags(tags) => tags.split(',').any(|tag| tag.trim() == etag),
        }
    }
}

/// Where a request goes.
#[derive(Debug)]
enum Place {
    Endpoint(StreamId),
    Session(String),
}

/// Why a request is not taken. The publisher must act.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    /// 404
    #[error("publish to /whip/APP/STREAM")]
    Nowhere,
    /// 404
    #[error("not the name of a stream: {0}")]
    Name(#[from] NameError),
    /// 405
    #[error("{}", .0.words())]
    Method(Place),
    /// 415
    #[error("the body must be {0}")]
    Kind(&'static str),
    /// 413
    #[error("the body is longer than any honest one")]
    TooLong,
    /// 400 for what is no SDP, 422 for what is, but asks for something that is not done here.
    #[error("{0}")]
    Offer(#[from] OfferError),
    /// 400
    #[error("{0}")]
    Fragment(#[from] FragmentError),
}

impl RequestError {
    fn response(&self) -> Response<Bytes> {
        let status = match self {
            Self::Nowhere | Self::Name(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Kind(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Offer(error) if !error.is_malformed() => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Offer(_) | Self::Fragment(_) => StatusCode::BAD_REQUEST,
        };
        let mut response = refusal(status, &self.to_string());
        if let Self::Method(place) = self {
            response.headers_mut().insert(ALLOW, place.methods());
        }
        response
    }
}

impl Action {
    pub(super) fn of(request: &Request<Bytes>) -> Self {
        Self::read(request).unwrap_or_else(|error| Self::Answer(error.response()))
    }

    fn read(request: &Request<Bytes>) -> Result<Self, RequestError> {
        let place = Place::of(request.uri().path())?;
        let (headers, body) = (request.headers(), request.body());
        match (place, request.method()) {
            (place, &Method::OPTIONS) => Ok(Self::Answer(place.options())),
            (Place::Endpoint(id), &Method::POST) => {
                let offer = Offer::parse(body_of(headers, body, SDP, OFFER_BYTES_MAX)?)?;
                Ok(Self::Publish { id, key: bearer(headers), offer: Box::new(offer) })
            }
            (Place::Session(session), &Method::PATCH) => {
                let fragment = Fragment::parse(body_of(headers, body, FRAGMENT, FRAGMENT_BYTES_MAX)?)?;
                Ok(Self::Patch { session, key: bearer(headers), condition: condition(headers), fragment })
            }
            (Place::Session(session), &Method::DELETE) => Ok(Self::End { session, key: bearer(headers) }),
            (place, _) => Err(RequestError::Method(place)),
        }
    }
}

impl Place {
    fn of(path: &str) -> Result<Self, RequestError> {
        let rest = path.strip_prefix(PREFIX).unwrap_or_default();
        let segments: Vec<_> = rest.split('/').collect();
        match segments.as_slice() {
            [app, stream] => Ok(Self::Endpoint(StreamId::new(app, stream)?)),
            [_, _, id] if id.len() == ID_CHARS && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(Self::Session((*id).to_owned()))
            }
            _ => Err(RequestError::Nowhere),
        }
    }

    fn methods(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Endpoint(_) => "OPTIONS, POST",
            Self::Session(_) => "OPTIONS, PATCH, DELETE",
        })
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Endpoint(_) => "publishers POST an SDP offer here (WHIP, RFC 9725)",
            Self::Session(_) => "a WHIP session takes PATCH and DELETE",
        }
    }

    /// The answer to a browser that asks before it sends (the Fetch standard's preflight), or to whoever looks for WHIP.
    fn options(&self) -> Response<Bytes> {
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
}

/// The body, if it is of the right kind and size.
fn body_of<'a>(
    headers: &HeaderMap,
    body: &'a Bytes,
    kind: &'static str,
    bytes_max: usize,
) -> Result<&'a [u8], RequestError> {
    let told = headers.get(CONTENT_TYPE).and_then(|told| told.to_str().ok()).unwrap_or_default();
    if !told.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind) {
        return Err(RequestError::Kind(kind));
    }
    if body.len() > bytes_max {
        return Err(RequestError::TooLong);
    }
    Ok(body)
}

fn condition(headers: &HeaderMap) -> Condition {
    match headers.get(IF_MATCH).map(|value| value.to_str().unwrap_or_default()) {
        None => Condition::Missing,
        Some(value) if value.trim() == "*" => Condition::Any,
        Some(tags) => Condition::Tags(tags.to_owned()),
    }
}

/// The key of `Authorization: Bearer {key}` (RFC 6750, §2.1), or an empty one, which is none.
fn bearer(headers: &HeaderMap) -> Secret {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Secret::new(key.map_or_else(String::new, |(_, key)| key.trim().to_owned()))
}

/// 201: the session is there. `links`: STUN and TURN servers for the publisher (RFC 9725, §4.6).
pub(super) fn created(location: &str, etag: &str, links: &[HeaderValue], answer: String) -> Response<Bytes> {
    let mut response = plain(StatusCode::CREATED, answer.into());
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
    out.insert(LOCATION, header(location));
    out.insert(ETAG, header(etag));
    out.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    for link in links {
        out.append(LINK, link.clone());
    }
    response
}

/// 200: ICE was restarted.
pub(super) fn restarted(etag: &str, fragment: String) -> Response<Bytes> {
    let mut response = plain(StatusCode::OK, fragment.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
    response.headers_mut().insert(ETAG, header(etag));
    response
}

/// 204 for candidates that were heard, 200 for a session that was ended.
pub(super) fn done(status: StatusCode) -> Response<Bytes> {
    plain(status, Bytes::new())
}

/// A publisher that is not let in.
pub(super) fn turned_away(refused: &Refusal) -> Response<Bytes> {
    match refused {
        Refusal::WrongKey(fault) => unauthorized(*fault, &refused.to_string()),
        Refusal::NameTaken(_) => refusal(StatusCode::CONFLICT, &refused.to_string()),
        Refusal::NoRandomness => refusal(StatusCode::SERVICE_UNAVAILABLE, &refused.to_string()),
    }
}

/// RFC 6750, §3.1: 401 with a challenge, and the error's name only where a key was given.
fn unauthorized(fault: KeyFault, words: &str) -> Response<Bytes> {
    let mut response = refusal(StatusCode::UNAUTHORIZED, words);
    let challenge = match fault {
        KeyFault::Missing => "Bearer realm=\"publish\"",
        KeyFault::InName | KeyFault::Wrong => "Bearer realm=\"publish\", error=\"invalid_token\"",
    };
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

pub(super) fn guessing(guessing: &TooManyGuesses) -> Response<Bytes> {
    let mut response = refusal(StatusCode::TOO_MANY_REQUESTS, &guessing.to_string());
    let seconds = guessing.retry_after.as_secs().saturating_add(1);
    response.headers_mut().insert(RETRY_AFTER, seconds.into());
    response
}

/// 503: we have no room for another publisher, or are going down.
pub(super) fn full(words: &str) -> Response<Bytes> {
    let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE, words);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

pub(super) fn refusal(status: StatusCode, words: &str) -> Response<Bytes> {
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

#[cfg(test)]
mod tests;
