//! The HTTP service over a [`Catalog`]: everything below `/hls/{app}/{stream}/`.
//!
//! Here requests wait; what they wait for is decided in `blocking.rs`. Nothing is rendered or compressed for one
//! request alone: what is not there yet is made for the first who asks, and kept for all. A part goes out in the slices
//! it came in.
//!
//! `CONFORMANCE.md` lists the rules, P, R and H with a number, and the tests named after them.

mod body;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod head;
mod negotiate;
mod target;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{
    ACCEPT_RANGES, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ALLOW,
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE, RETRY_AFTER, VARY,
};
use ::http::{HeaderValue, Method, Response, StatusCode};
use bytes::Bytes;
use media::{SessionId, TrackKind};

pub use self::body::Body;
pub use self::head::Head;
use self::negotiate::RangeAnswer;
pub use self::negotiate::{accepts_gzip, is_known};
use self::target::{File, Item, Target};
use crate::backfill::FetchError;
use crate::blocking::{DirectiveError, Directives, PartAnswer, Reload, ReloadAnswer};
use crate::catalog::Catalog;
use crate::headers::{self, ACCEPT_ENCODING_MATTERS, ANY, BRIEFLY};
use crate::index::{Announced, State, StreamIndex};
use crate::metrics::RequestKind;
use crate::playlist::Rendered;
use crate::playlist::filter::{Filter, FilterError};
use crate::rendition::{Rendition, Snapshot};
use crate::segment::{Position, etag};
use crate::waiters::Queue;

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The stable URL names the newest session: a copy kept a second too long would lead to the last one.
const REVALIDATED: HeaderValue = HeaderValue::from_static("no-cache");
const NOT_STORED: HeaderValue = HeaderValue::from_static("no-store");
/// The URL of a part, segment or init segment never names other bytes, but where a cluster was cut in two and both halves had a
/// publisher: then copies of the lost one's are right for nobody else. An hour outlives any window.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=3600, immutable");

/// Answers one request, whatever it is; a held one within three target durations. `viewer` is the address that held
/// requests are counted for.
pub async fn respond(catalog: &Catalog, viewer: IpAddr, head: &Head) -> Response<Body> {
    let target = Target::parse(head.path());
    let kind = target.as_ref().map_or(RequestKind::Other, Target::kind);
    let answer = match (&head.method, target) {
        (&Method::GET | &Method::HEAD, Some(target)) => {
            Request { catalog, viewer, head }.answer(target).await
        }
        (&Method::GET | &Method::HEAD, None) => Err(Refusal::NotFound),
        (&Method::OPTIONS, _) => Ok(preflight()),
        _ => Err(Refusal::Method),
    };
    finish(catalog, head, kind, answer)
}

/// Answers a request for media that another node has and does not give: 503.
pub fn unreachable(catalog: &Catalog, head: &Head) -> Response<Body> {
    finish(catalog, head, RequestKind::Other, Err(Refusal::Unreachable))
}

fn finish(
    catalog: &Catalog,
    head: &Head,
    kind: RequestKind,
    answer: Result<Response<Body>, Refusal>,
) -> Response<Body> {
    let mut response = answer.unwrap_or_else(Refusal::into_response);
    if head.method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    catalog.metrics().request(kind, response.status());
    catalog.metrics().sent.inc_by(response.body().bytes());
    response
}

/// A GET or HEAD.
struct Request<'a> {
    catalog: &'a Catalog,
    viewer: IpAddr,
    head: &'a Head,
}

impl Request<'_> {
    async fn answer(&self, target: Target<'_>) -> Result<Response<Body>, Refusal> {
        let Item::Rendition { session, name, file } = target.item else {
            let index = self.catalog.current(target.stream).ok_or(Refusal::NotFound)?;
            let filter = Filter::parse(self.head.query()).map_err(Refusal::Filter)?;
            // What there is no room for now there may be for the next.
            let (filter, cache_control) =
                if self.head.lower_only { (filter.lower(), NOT_STORED) } else { (filter, REVALIDATED) };
            return Ok(self.playlist(visible(&index)?.multivariants.get(filter), cache_control));
        };
        let index = self.catalog.session(target.stream, session).ok_or(Refusal::NotFound)?;
        let rendition = index.rendition(name).ok_or(Refusal::NotFound)?;
        if let Some(demand) = rendition.on_demand().filter(|_| self.head.by_node.is_none()) {
            demand.touch();
        }
        let announced = visible(&index)?;
        match file {
            File::Playlist => self.media_playlist(&index, rendition, &announced).await,
            File::Part(position) => self.part(&index, rendition, &announced, position).await,
            File::Segment(msn) => self.segment(&index, rendition, msn).await,
            File::Init(hash) => self.init(session, rendition, hash),
        }
    }

    async fn media_playlist(
        &self,
        index: &StreamIndex,
        rendition: &Rendition,
        announced: &Announced,
    ) -> Result<Response<Body>, Refusal> {
        let Directives { reload, skip } =
            Directives::parse(self.head.query()).map_err(Refusal::Directives)?;
        let newest_enough =
            |snapshot: &Arc<Snapshot>| match reload.decide(snapshot.edge()?, rendition.advance_part_limit) {
                ReloadAnswer::Now => Some(Ok(Arc::clone(snapshot))),
                ReloadAnswer::TooFarAhead => Some(Err(Refusal::TooFarAhead)),
                ReloadAnswer::Hold => None,
            };
        let snapshot = self.settle(index, rendition, announced, Queue::Playlist, newest_enough).await??;
        let (viewed_ms, cache_control) = match reload {
            Reload::Plain => (announced.target_duration_s.saturating_mul(1000), BRIEFLY),
            Reload::Segment(_) | Reload::Part(_) => {
                (rendition.header.part_target_ms, announced.blocking_cache_control.clone())
            }
        };
        index.count_viewer(rendition, viewed_ms);
        let version = snapshot.playlist.as_ref().ok_or(Refusal::Starting)?;
        let deltas = &self.catalog.metrics().playlist_delta_renders;
        let rendered = if skip { version.delta(deltas) } else { version.full() };
        Ok(self.playlist(rendered, cache_control))
    }

    async fn part(
        &self,
        index: &StreamIndex,
        rendition: &Rendition,
        announced: &Announced,
        position: Position,
    ) -> Result<Response<Body>, Refusal> {
        let rewrites = index.rewrites();
        let here_or_never = |snapshot: &Arc<Snapshot>| {
            let part = snapshot.part(position);
            match snapshot.edge()?.part_answer(position, part.is_some()) {
                PartAnswer::Now => Some(part.map(Arc::clone)),
                PartAnswer::NotFound => Some(None),
                PartAnswer::Hold => None,
            }
        };
        let part = self.settle(index, rendition, announced, Queue::Part, here_or_never).await?;
        if let Some(asked) = self.head.by_node {
            let epoch = index.epoch();
            if rewrites % 2 == 1 || index.rewrites() != rewrites {
                return Err(Refusal::Unreachable);
            }
            if asked != 0 && asked != epoch {
                return Err(Refusal::NotFound);
            }
        }
        let part = part.filter(|part| !part.gap).ok_or(Refusal::NotFound)?;
        let body = index.body(rendition, position, &part).await?;
        Ok(self.media(rendition, body, part.bytes, part.etag.clone()))
    }

    async fn segment(
        &self,
        index: &StreamIndex,
        rendition: &Rendition,
        msn: u64,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot = rendition.snapshot();
        let segment = snapshot.segment(msn).filter(|segment| segment.complete && !segment.gap());
        let segment = segment.ok_or(Refusal::NotFound)?;
        let mut body = Vec::new();
        for (number, part) in (0_u32..).zip(&segment.parts) {
            body.append(&mut index.body(rendition, Position { msn, part: number }, part).await?);
        }
        Ok(self.media(rendition, body, segment.bytes, segment.etag.clone()))
    }

    fn init(&self, session: SessionId, rendition: &Rendition, hash: &str) -> Result<Response<Body>, Refusal> {
        let snapshot = rendition.snapshot();
        let init = snapshot.init(hash).ok_or(Refusal::NotFound)?;
        let etag = etag(session, &rendition.header.name, format_args!("init-{hash}"));
        Ok(self.media(rendition, vec![init.clone()], init.len() as u64, etag))
    }

    /// Holds this request until `check` has its answer. One that has it at once takes none of the node's places.
    async fn settle<T>(
        &self,
        index: &StreamIndex,
        rendition: &Rendition,
        announced: &Announced,
        queue: Queue,
        mut check: impl FnMut(&Arc<Snapshot>) -> Option<T>,
    ) -> Result<T, Refusal> {
        if let Some(answer) = check(&rendition.snapshot()) {
            return Ok(answer);
        }
        let _held = self.catalog.hold(index, self.viewer).map_err(|_| Refusal::Busy)?;
        // rfc8216bis §6.2.5.2: a server gives up after three target durations.
        let held_max = Duration::from_secs(3 * u64::from(announced.target_duration_s));
        let check_or_drain = |snapshot: &Arc<Snapshot>| {
            let draining = || self.catalog.is_draining().then_some(Err(Refusal::Draining));
            check(snapshot).map(Ok).or_else(draining)
        };
        // In a box: whatever waits, the future of every request would be as large.
        let waited = Box::pin(tokio::time::timeout(held_max, rendition.wait(queue, check_or_drain)));
        waited.await.map_err(|_| Refusal::Stalled)?
    }

    fn playlist(&self, rendered: &Rendered, cache_control: HeaderValue) -> Response<Body> {
        // A range is one of the encoded bytes (RFC 9110 §14.1.2). Chromium's own HLS asks for playlists by range, and its
        // cache was seen to answer the next such request with a compressed copy as 206: nothing to leave to a player.
        let compress = self.head.gzip && !self.head.conditions.contains_key(RANGE);
        let gzip = if compress { rendered.gzip() } else { None };
        let encoded = gzip.unwrap_or(&rendered.plain);
        let mut response = if is_known(&self.head.conditions, &encoded.etag) {
            let mut response = blank();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            let headers = response.headers_mut();
            headers.insert(ETAG, encoded.etag.clone());
            if rendered.is_compressible() {
                headers.insert(VARY, ACCEPT_ENCODING_MATTERS);
            }
            response
        } else {
            let mut response = Response::new(Body::new(vec![encoded.body.clone()]));
            *response.headers_mut() = encoded.headers.clone();
            response
        };
        response.headers_mut().insert(CACHE_CONTROL, cache_control);
        response
    }

    /// A part, segment or init segment: `bytes` long, whole or the range that is asked for.
    fn media(
        &self,
        rendition: &Rendition,
        body: Vec<Bytes>,
        bytes: u64,
        etag: HeaderValue,
    ) -> Response<Body> {
        let mut response = blank();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, IMMUTABLE);
        headers.insert(ETAG, etag.clone());
        if is_known(&self.head.conditions, &etag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        // RFC 9110 §14.2: a range means something to GET only.
        let range = match self.head.method {
            Method::GET => negotiate::range(&self.head.conditions, &etag, bytes),
            _ => RangeAnswer::Whole,
        };
        let body = match range {
            RangeAnswer::Whole => Body::new(body),
            RangeAnswer::Slice(range) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let content_range = format!("bytes {}-{}/{bytes}", range.start, range.end - 1);
                response.headers_mut().insert(CONTENT_RANGE, crate::segment::header_value(content_range));
                Body::slice(body, range)
            }
            RangeAnswer::Unsatisfiable => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                let headers = response.headers_mut();
                headers.insert(CONTENT_RANGE, crate::segment::header_value(format!("bytes */{bytes}")));
                headers.insert(CACHE_CONTROL, NOT_STORED);
                headers.insert(CONTENT_LENGTH, 0.into());
                return response;
            }
        };
        let content_type = match rendition.header.codec.kind() {
            TrackKind::Video => "video/mp4",
            TrackKind::Audio => "audio/mp4",
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CONTENT_LENGTH, body.bytes().into());
        *response.body_mut() = body;
        response
    }
}

/// Why a request gets nothing. Who must act: the viewer for 4xx, time or the operator for 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NotFound,
    /// The stream is there and its first segment is not.
    Starting,
    Directives(DirectiveError),
    Filter(FilterError),
    TooFarAhead,
    Method,
    /// Held as long as allowed, and nothing came.
    Stalled,
    /// As many requests are held as this node, this stream, or this address, may hold.
    Busy,
    /// This node goes down; the next one to listen here, or another, will wait with the viewer.
    Draining,
    /// The media is on another node, which does not give it now.
    Unreachable,
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Gone => Self::NotFound,
            FetchError::Unreachable => Self::Unreachable,
        }
    }
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        let (status, cache_control) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, BRIEFLY),
            Self::Starting => (StatusCode::NOT_FOUND, NOT_STORED),
            Self::Directives(_) | Self::Filter(_) | Self::TooFarAhead => {
                (StatusCode::BAD_REQUEST, NOT_STORED)
            }
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, NOT_STORED),
            Self::Stalled | Self::Busy | Self::Draining | Self::Unreachable => {
                (StatusCode::SERVICE_UNAVAILABLE, NOT_STORED)
            }
        };
        let text = format!("{}\n", self.words());
        let mut response = blank();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, cache_control);
        headers.insert(CONTENT_TYPE, TEXT);
        headers.insert(CONTENT_LENGTH, text.len().into());
        match self {
            Self::Starting | Self::Stalled | Self::Busy | Self::Draining | Self::Unreachable => {
                headers.insert(RETRY_AFTER, 1.into());
            }
            Self::Method => drop(headers.insert(ALLOW, METHODS)),
            Self::NotFound | Self::Directives(_) | Self::Filter(_) | Self::TooFarAhead => {}
        }
        *response.body_mut() = Body::new(vec![text.into()]);
        response
    }

    fn words(self) -> String {
        match self {
            Self::NotFound => "not found".into(),
            Self::Starting => "the stream is starting".into(),
            Self::Directives(error) => error.to_string(),
            Self::Filter(error) => error.to_string(),
            Self::TooFarAhead => "too far ahead of the live edge to wait for".into(),
            Self::Method => "GET, HEAD and OPTIONS only".into(),
            Self::Stalled => "no new media in time".into(),
            Self::Busy => "too many requests are waiting".into(),
            Self::Draining => "this server is going down".into(),
            Self::Unreachable => "the origin does not answer".into(),
        }
    }
}

fn visible(index: &StreamIndex) -> Result<Arc<Announced>, Refusal> {
    index.visible().ok_or_else(|| match index.state() {
        // Ended before its first segment: there will never be anything.
        State::Ended => Refusal::NotFound,
        State::Starting | State::Live => Refusal::Starting,
    })
}

/// With the headers that every answer has.
fn blank() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = headers::common();
    response
}

fn preflight() -> Response<Body> {
    let mut response = blank();
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ANY);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}
