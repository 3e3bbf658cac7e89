//! WHIP's requests (RFC 9725): what they ask for, and the answers that only publishers get. Pure.
//!
//! The address of a session has 128 random bits; with it goes the publish key of whoever began the session, so that neither is
//! enough alone (threat 19). Pages of other sites may publish here: a stranger's page has no key, and browsers send none by
//! themselves, since it is no cookie.

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use media::StreamId;
use net::TooManyGuesses;
use rtc::signalling::{
    Condition, FRAGMENT, FRAGMENT_BYTES_MAX, Fragment, Place, SDP, body_of, refusal, try_again,
};

use super::offer::{OFFER_BYTES_MAX, Offer};
use crate::{KeyFault, Refusal, Secret};

/// Under which everything here is.
pub const PREFIX: &str = "/whip/";

/// The longest body that any request may have, in bytes.
pub const BODY_BYTES_MAX: usize = OFFER_BYTES_MAX;

/// For a publisher that finds no room, in seconds.
const FULL_RETRY_S: u32 = 5;

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

impl Action {
    /// `transcodes`: whether of a stream renditions are made here that everybody can be shown.
    pub(super) fn of(request: &Request<Bytes>, transcodes: impl Fn(&StreamId) -> bool) -> Self {
        Self::read(request, transcodes).unwrap_or_else(Self::Answer)
    }

    fn read(
        request: &Request<Bytes>,
        transcodes: impl Fn(&StreamId) -> bool,
    ) -> Result<Self, Response<Bytes>> {
        let place = Place::of(request.uri().path(), PREFIX)?;
        let (headers, body) = (request.headers(), request.body());
        match (place, request.method()) {
            (place, &Method::OPTIONS) => Ok(Self::Answer(place.options())),
            (Place::Endpoint(id), &Method::POST) => {
                let offer = Offer::parse(body_of(headers, body, SDP, OFFER_BYTES_MAX)?, transcodes(&id));
                // What is no SDP, and what is, but asks for something that is not done here.
                let offer = offer.map_err(|error| match error.is_malformed() {
                    true => refusal(StatusCode::BAD_REQUEST, &error.to_string()),
                    false => refusal(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
                })?;
                Ok(Self::Publish { id, key: bearer(headers), offer: Box::new(offer) })
            }
            (Place::Session(session), &Method::PATCH) => {
                let fragment = Fragment::parse(body_of(headers, body, FRAGMENT, FRAGMENT_BYTES_MAX)?)
                    .map_err(|error| refusal(StatusCode::BAD_REQUEST, &error.to_string()))?;
                Ok(Self::Patch { session, key: bearer(headers), condition: Condition::of(headers), fragment })
            }
            (Place::Session(session), &Method::DELETE) => Ok(Self::End { session, key: bearer(headers) }),
            (place @ Place::Endpoint(_), _) => {
                Err(place.not_allowed("publishers POST an SDP offer here (WHIP, RFC 9725)"))
            }
            (place @ Place::Session(_), _) => Err(place.not_allowed("a WHIP session takes PATCH and DELETE")),
        }
    }
}

/// The key of `Authorization: Bearer {key}` (RFC 6750, §2.1), or an empty one, which is none.
fn bearer(headers: &HeaderMap) -> Secret {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Secret::new(key.map_or_else(String::new, |(_, key)| key.trim().to_owned()))
}

/// A publisher that is not let in.
pub(super) fn turned_away(refused: &Refusal) -> Response<Bytes> {
    match refused {
        Refusal::WrongKey(fault) => unauthorized(*fault, &refused.to_string()),
        Refusal::NameTaken(_) | Refusal::TakenElsewhere { .. } => {
            refusal(StatusCode::CONFLICT, &refused.to_string())
        }
        Refusal::Draining => full(&refused.to_string()),
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
    let seconds = guessing.retry_after.as_secs().saturating_add(1);
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    try_again(StatusCode::TOO_MANY_REQUESTS, &guessing.to_string(), seconds)
}

/// 503: we have no room for another publisher, or are going down.
pub(super) fn full(words: &str) -> Response<Bytes> {
    try_again(StatusCode::SERVICE_UNAVAILABLE, words, FULL_RETRY_S)
}

#[cfg(test)]
mod tests;
