//! The other nodes of the cluster: which of them viewers are sent to, and how they are told.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode, Uri};
use media::StreamId;
use serde::Serialize;

use crate::admission::Newcomer;
use crate::site::{NO_STORE, text};

/// What is known of the others, at any moment. `server` plugs in the real one.
pub trait Neighbours: Send + Sync {
    /// The nodes that can show `id`, the best first, this one among them.
    fn ranked(&self, id: &StreamId) -> Vec<Neighbour>;

    /// The origin (RFC 6454) of the best one that takes viewers of `id`, this one among them.
    fn best(&self, id: &StreamId) -> Option<String>;

    /// As [`Neighbours::best`], of the others.
    fn best_other(&self, id: &StreamId) -> Option<String>;

    /// As [`Neighbours::best_other`], if that has room to spare.
    fn other_with_room(&self, id: &StreamId) -> Option<String>;

    /// Whether viewers of `id` are to be sent to another node: it is of that one, or this one takes no viewers.
    fn is_elsewhere(&self, id: &StreamId) -> bool;

    /// Origins (RFC 6454) of the other nodes that take viewers of any stream.
    fn origins(&self) -> Vec<String>;
}

/// A node, and why viewers are sent to it or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    pub node: String,
    /// Before the path of a page or a playlist.
    pub origin: String,
    pub verdict: &'static str,
    pub takes_viewers: bool,
    #[serde(skip)]
    pub has_room: bool,
    #[serde(skip)]
    pub is_this: bool,
    #[serde(skip)]
    pub is_draining: bool,
}

/// In the query of who was sent here for want of room elsewhere: is not sent on for that again, since two nodes that have
/// not heard of each other for a while may each think that the other has room. Pages take it out of their address.
const SENT: &str = "sent";

/// The stream that a viewer's path is of, whatever it names of it.
pub(crate) fn stream_of(path: &str) -> Option<StreamId> {
    let mut steps = path.split('/').skip(1);
    let kind = steps.next()?;
    if !["hls", "whep", "watch", "embed", "state"].contains(&kind) {
        return None;
    }
    StreamId::new(steps.next()?, steps.next()?).ok()
}

/// Who begins to watch with this request, and what. `path`: without a token.
pub(crate) fn newcomer(method: &Method, path: &str) -> Option<(Newcomer, StreamId)> {
    let mut steps = path.split('/').skip(1);
    let (kind, app, stream) = (steps.next()?, steps.next()?, steps.next()?);
    let is_read = *method == Method::GET || *method == Method::HEAD;
    let newcomer = match (kind, steps.next(), steps.next()) {
        ("watch" | "embed", None, None) if is_read => Newcomer::Page,
        ("hls", Some("index.m3u8"), None) if is_read => Newcomer::Playlist,
        ("whep", None, None) if *method == Method::POST => Newcomer::WebRtc,
        _ => return None,
    };
    Some((newcomer, StreamId::new(app, stream).ok()?))
}

pub(crate) fn was_sent(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|word| word == SENT))
}

/// The same at a node that has the stream.
pub(crate) fn sent_to(origin: &str, uri: &Uri) -> Response<Bytes> {
    redirect(origin, uri.path_and_query().map_or("/", |path| path.as_str()), "another node has it\n")
}

/// The same at a node that has room.
pub(crate) fn sent_for_room(origin: &str, uri: &Uri) -> Response<Bytes> {
    let path = match uri.query() {
        Some(query) => Cow::Owned(format!("{}?{query}&{SENT}", uri.path())),
        None => Cow::Owned(format!("{}?{SENT}", uri.path())),
    };
    redirect(origin, &path, "another node has more room\n")
}

/// `path` at another node, which may be another one the next time.
pub(crate) fn redirect(origin: &str, path: &str, words: &str) -> Response<Bytes> {
    let Ok(location) = HeaderValue::try_from(format!("{origin}{path}")) else {
        return text(StatusCode::BAD_REQUEST, "the address cannot be sent on\n");
    };
    let mut response = text(StatusCode::TEMPORARY_REDIRECT, words);
    response.headers_mut().insert(LOCATION, location);
    for_now(response)
}

pub(crate) fn full() -> Response<Bytes> {
    let words = "this server is full, and so is every other that has the stream; try again in a moment\n";
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, words);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    for_now(response)
}

fn for_now(mut response: Response<Bytes>) -> Response<Bytes> {
    let out = response.headers_mut();
    out.insert(CACHE_CONTROL, NO_STORE);
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_first_is_a_newcomer() {
        let of = |method: &Method, path| newcomer(method, path).map(|(newcomer, _)| newcomer);
        for (method, path, expected) in [
            (Method::GET, "/watch/live/cam", Newcomer::Page),
            (Method::HEAD, "/embed/live/cam", Newcomer::Page),
            (Method::GET, "/hls/live/cam/index.m3u8", Newcomer::Playlist),
            (Method::POST, "/whep/live/cam", Newcomer::WebRtc),
        ] {
            assert_eq!(of(&method, path), Some(expected), "{path}");
        }
        for (method, path) in [
            (Method::GET, "/hls/live/cam/00000000000000ab/v/index.m3u8"),
            (Method::GET, "/hls/live/cam/00000000000000ab/v/7.m4s"),
            (Method::PATCH, "/whep/live/cam/0123"),
            (Method::OPTIONS, "/whep/live/cam"),
            (Method::POST, "/whip/live/cam"),
            (Method::GET, "/state/live/cam"),
            (Method::GET, "/watch/live/.."),
            (Method::GET, "/"),
        ] {
            assert_eq!(of(&method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn who_was_sent_for_room_keeps_what_was_asked_for_and_is_known_by_it() {
        for (asked, expected) in [
            ("/watch/live/cam", "https://b/watch/live/cam?sent"),
            ("/hls/live/cam/index.m3u8?max=480", "https://b/hls/live/cam/index.m3u8?max=480&sent"),
        ] {
            let asked = asked.parse().unwrap();
            assert!(!was_sent(&asked));
            let response = sent_for_room("https://b", &asked);
            let location = response.headers()[LOCATION].to_str().unwrap();
            assert_eq!((response.status(), location), (StatusCode::TEMPORARY_REDIRECT, expected));
            assert!(was_sent(&location.parse().unwrap()));
        }
        assert!(!was_sent(&"/watch/live/cam?sentimental=1".parse().unwrap()));
    }
}
