//! What other nodes get of this one: streams part by part or unit by unit, bodies by URL, and the states that pages poll.
//!
//! ```text
//!   StreamIndex ─▶ hls::Feed ─▶ Telling (here) ─▶ relay::wire ─▶ relay::server ─▶ child
//!   the live log ─────────────▶ Units (here) ───▶
//! ```

mod children;
mod telling;
mod units;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hls::http::{Head, respond};
use hls::{Catalog, FORMAT_VERSION, Feed, Position, RenditionName, ResumeFrom, StreamIndex};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use media::{NodeId, StreamId};
use net::Throttle;
use relay::server::{Body, Service, full};
use relay::wire::{
    EPOCH, Hello, HelloError, Hops, PATH_PREFIX, RelayLoop, Resume, Slices, UNWATCHED, UnitResume, WEBRTC,
    WIRE, Wants, WantsError, chosen_version,
};
use relay::{Identity, Stream, StreamRegistry};
use tokio::time::timeout;
use tracing::info;

pub use self::children::RelayMetrics;
use self::telling::Telling;
use self::units::Units;

/// For a stream that has just begun to have its tracks. Less than a child waits for an answer.
const OPENING_MAX: Duration = Duration::from_secs(3);

/// For a child that comes from another node which was ahead of this one, and of the same stream.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// A stream for a child.
pub struct Found {
    pub index: Arc<StreamIndex>,
    pub keep: Keep,
}

/// The log of a stream for a child.
pub struct FoundLog {
    pub stream: Arc<Stream>,
    pub keep: Keep,
}

/// Keeps a stream on this node while it lives. Done when nothing more comes of it that this node knows of, and the child had better
/// ask another one.
pub type Keep = BoxFuture<'static, ()>;

/// Why a child does not get a stream.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// Not here, nor further up.
    #[error("no such stream")]
    Absent,
    #[error(transparent)]
    Loop(#[from] RelayLoop),
    /// The node has an upstream itself, and that does not answer.
    #[error("the upstream does not answer")]
    Unreachable,
}

/// What a node has for its children. Its own streams, or, on a node that has an upstream, those of that.
pub trait Offer: Send + Sync + 'static {
    fn find(&self, id: &StreamId, hops: Hops) -> impl Future<Output = Result<Found, NotFound>> + Send;

    /// As [`Offer::find`], for who wants access units.
    fn find_log(&self, id: &StreamId, hops: Hops) -> impl Future<Output = Result<FoundLog, NotFound>> + Send;

    /// The state of a stream or of all, as JSON; `None` if nobody knows it now.
    fn state(&self, id: Option<&StreamId>, hops: Hops) -> impl Future<Output = Option<Bytes>> + Send;
}

/// Answers children.
pub struct Relay<O> {
    node: NodeId,
    catalog: Catalog,
    streams: StreamRegistry,
    offer: O,
    metrics: RelayMetrics,
    refusals: Throttle,
}

/// What a path below the prefix names. The number of its steps tells which.
enum Target<'a> {
    Stream(StreamId),
    Log(StreamId),
    State(Option<StreamId>),
    /// A body; the rest of a viewer's path.
    Media(&'a str),
}

/// Why a child gets nothing, in words for whoever runs it.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error("nothing is at this path of the relay")]
    Path,
    #[error("only GET, and POST of what is wanted, are answered here")]
    Method,
    #[error(transparent)]
    Wants(#[from] WantsError),
    /// The child knows an owner of the publication after ours: we are not to be believed any more.
    #[error("this node knows epoch {ours} of the stream, the other {theirs}")]
    Superseded { ours: u32, theirs: u32 },
    /// A playlist that has grown must not shrink.
    #[error("the other node has more of the stream than this one")]
    Behind,
}

impl<O: Offer> Relay<O> {
    /// `catalog` and `streams` are where `offer` finds things.
    pub fn new(
        identity: &Identity,
        catalog: Catalog,
        streams: StreamRegistry,
        offer: O,
        metrics: RelayMetrics,
    ) -> Self {
        let node = identity.node().clone();
        Self { node, catalog, streams, offer, metrics, refusals: Throttle::sparse() }
    }

    async fn answer(&self, child: &NodeId, request: &Request<()>) -> Result<Response<Body>, Refusal> {
        let hops = Hello::read(request.headers(), FORMAT_VERSION)?.hops;
        hops.check(&self.node).map_err(NotFound::from)?;
        let target = Target::parse(request.uri().path()).ok_or(Refusal::Path)?;
        let query = request.uri().query();
        if let (Target::Log(id), &Method::POST) = (&target, request.method()) {
            self.want(id, &query.unwrap_or_default().parse()?)?;
            return Ok(Response::new(full(Bytes::new())));
        }
        if request.method() != Method::GET {
            return Err(Refusal::Method);
        }
        match target {
            Target::Stream(id) => {
                let found = self.offer.find(&id, hops).await?;
                Ok(Response::new(self.subscription(child, found, query).await?))
            }
            Target::Log(id) => {
                let found = self.offer.find_log(&id, hops).await?;
                Ok(Response::new(self.units(child, found, query).await?))
            }
            Target::State(id) => {
                let state = self.offer.state(id.as_ref(), hops).await.ok_or(NotFound::Unreachable)?;
                let mut response = Response::new(full(state));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                Ok(response)
            }
            Target::Media(rest) => {
                let path = format!("/hls/{rest}");
                // All children count as one viewer: they ask for what is there, and are not held.
                let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                let head = Head::new(&Method::GET, &path, None, request.headers()).by_node(epoch(query));
                let answer = respond(&self.catalog, nobody, &head).await;
                Ok(answer
                    .map(|body| UnsyncBoxBody::new(body.map_frame(|frame| frame.map_data(Slices::from)))))
            }
        }
    }

    async fn subscription(&self, child: &NodeId, found: Found, query: Option<&str>) -> Result<Body, Refusal> {
        let resume = from(query).and_then(|from| from.parse::<Resume>().ok());
        let places = resume.as_ref().map(|resume| {
            let places = resume.places.iter().filter_map(|place| {
                let name: RenditionName = place.rendition.parse().ok()?;
                Some((name, Position { msn: place.msn, part: place.part }))
            });
            places.collect::<Vec<_>>()
        });
        let theirs = epoch(query);
        let from = resume.as_ref().zip(places.as_deref());
        let from = from.map(|(resume, places)| ResumeFrom { session: resume.session, epoch: theirs, places });
        if let Some(from) = from {
            let ours = found.index.epoch();
            if from.session == found.index.session() && theirs > ours {
                return Err(Refusal::Superseded { ours, theirs });
            }
            let caught_up = timeout(BEHIND_MAX, Feed::caught_up(&found.index, from)).await;
            caught_up.map_err(|_| Refusal::Behind)?;
        }
        let id = found.index.id().clone();
        let is_unwatched = words(query).any(|word| word == UNWATCHED);
        let feed = match is_unwatched {
            true => Feed::unwatched(found.index, from),
            false => Feed::new(found.index, from),
        };
        Ok(Telling::new(feed, self.metrics.child(child, &id), found.keep).into_body())
    }

    async fn units(&self, child: &NodeId, found: FoundLog, query: Option<&str>) -> Result<Body, Refusal> {
        let resume = from(query).and_then(|from| from.parse::<UnitResume>().ok());
        let mut record = found.stream.record();
        let opened = timeout(OPENING_MAX, record.wait_for(Option::is_some)).await;
        let ours = match opened {
            Ok(Ok(record)) => record.as_ref().map(|record| (record.session, record.epoch)),
            Ok(Err(_)) | Err(_) => None,
        };
        let (session, ours) = ours.ok_or(NotFound::Absent)?;
        if let Some(resume) = &resume
            && resume.session == session
            && resume.epoch > ours
        {
            return Err(Refusal::Superseded { ours, theirs: resume.epoch });
        }
        let child = self.metrics.child(child, found.stream.id());
        Ok(Units::new(found.stream, resume.as_ref(), child, found.keep).into_body())
    }

    /// What viewers of a child want is wanted here.
    fn want(&self, id: &StreamId, wants: &Wants) -> Result<(), NotFound> {
        let index = self.catalog.get(id);
        if let Some(index) = index.as_ref().filter(|_| wants.parts) {
            index.touch();
        }
        let Some(stream) = self.streams.get(id) else {
            // A node that is asked for parts alone has no log.
            return index.filter(|_| wants.parts).map(drop).ok_or(NotFound::Absent);
        };
        if wants.keyframe {
            stream.want_keyframe();
        }
        if wants.rung_keyframe {
            stream.want_rung_keyframe();
        }
        for track in stream.tracks().iter().filter(|track| wants.tracks.contains(&track.record().id)) {
            track.demand().touch();
        }
        Ok(())
    }
}

impl<O: Offer> Service for Relay<O> {
    async fn respond(&self, child: &NodeId, request: Request<()>) -> Response<Body> {
        let mut response = match self.answer(child, &request).await {
            Ok(response) => response,
            Err(refusal) => {
                // That a stream is not here is every edge's daily bread.
                let daily = matches!(refusal, Refusal::NotFound(NotFound::Absent));
                if !daily && let Some(more) = self.refusals.pass(std::time::Instant::now()) {
                    info!(more, "refused a request of a node: {refusal}");
                }
                refusal.into_response()
            }
        };
        response.headers_mut().insert(WIRE, chosen_version());
        response
    }
}

fn words(query: Option<&str>) -> impl Iterator<Item = &str> {
    query.into_iter().flat_map(|query| query.split('&'))
}

/// Of the publication that a child knows; zero if it does not say.
fn epoch(query: Option<&str>) -> u32 {
    let told = words(query).find_map(|word| word.strip_prefix(EPOCH)?.parse().ok());
    told.unwrap_or_default()
}

/// Where a child goes on.
fn from(query: Option<&str>) -> Option<&str> {
    words(query).find_map(|word| word.strip_prefix("from="))
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix(PATH_PREFIX)?;
        let steps: Vec<_> = rest.split('/').collect();
        match *steps.as_slice() {
            ["state"] => Some(Self::State(None)),
            [app, stream] => Some(Self::Stream(StreamId::new(app, stream).ok()?)),
            [WEBRTC, app, stream] => Some(Self::Log(StreamId::new(app, stream).ok()?)),
            ["state", app, stream] => Some(Self::State(Some(StreamId::new(app, stream).ok()?))),
            // Playlists are rendered by whoever serves them.
            [.., file] if steps.len() == 5 && !file.ends_with(".m3u8") => Some(Self::Media(rest)),
            _ => None,
        }
    }
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        let status = match &self {
            Self::Hello(HelloError::Malformed(_)) | Self::Wants(_) => StatusCode::BAD_REQUEST,
            Self::Superseded { .. } => StatusCode::CONFLICT,
            Self::Behind => StatusCode::SERVICE_UNAVAILABLE,
            Self::Hello(_) => StatusCode::NOT_ACCEPTABLE,
            Self::NotFound(NotFound::Absent) | Self::Path => StatusCode::NOT_FOUND,
            Self::NotFound(NotFound::Loop(_)) => StatusCode::LOOP_DETECTED,
            Self::NotFound(NotFound::Unreachable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        };
        let mut response = Response::new(full(format!("{self}\n")));
        *response.status_mut() = status;
        response
    }
}

#[cfg(test)]
mod tests;
