//! Answers WHEP's requests, and hands sessions to the shards.

use std::collections::HashMap;
use std::mem::discriminant;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use media::{CodecConfig, StreamId, Timescale};
use net::{Limits, Places};
use relay::Stream;
use rtc::dtls::Identity;
use rtc::outbound::{HeaderExtensions, LineSettings, PlayoutDelay};
use rtc::peer::{Credentials, Peer, PeerSettings};
use rtc::port::Port;
use rtc::sdp::{AnswerSettings, Negotiated, Offer, ProfileLevelId, Ssrcs, VideoFormat};
use rtc::signalling::{
    self, Condition, FRAGMENT, FRAGMENT_BYTES_MAX, Fragment, IceServers, Place, SDP, refusal, try_again,
};
use serde::Deserialize;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::metrics::Metrics;
use super::programmes::Programmes;
use super::rendition::Formats;
use super::shard::{self, Command, Handle};
use super::viewer::Join;
use crate::audience::{Audience, Present};
use crate::endpoint::Endpoint;
use crate::pull::Watching;

/// Under which everything here is.
const PREFIX: &str = "/whep/";

/// The longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

const JSON: &str = "application/json";

/// Viewers by WebRTC of one process. Each is some tens of KiB, connected or not.
pub const VIEWERS_MAX: usize = 10_000;

/// For who finds no room, in seconds.
const FULL_RETRY_S: u32 = 5;

/// For pictures and sound alike: show it as soon as it is there.
const AT_ONCE: PlayoutDelay = PlayoutDelay { min: Duration::ZERO, max: Duration::ZERO };

/// WHEP's side of the viewers' listener. Cloning shares it.
#[derive(Clone)]
pub struct Whep {
    shared: Arc<Shared>,
}

struct Shared {
    programmes: Programmes,
    port: Port,
    identity: Arc<Identity>,
    shards: Vec<Handle>,
    sessions: Sessions,
    ice_servers: IceServers,
    places: Places,
    metrics: Metrics,
    audience: Audience,
    numbers: AtomicU64,
}

type Sessions = Arc<Mutex<Table>>;

#[derive(Default)]
struct Table {
    by_id: HashMap<String, Session>,
    /// Ids by the numbers that shards know viewers by.
    ids: HashMap<u64, String>,
}

#[derive(Clone)]
struct Session {
    viewer: u64,
    shard: usize,
    /// Of the ICE generation.
    etag: String,
    /// The first section of the answer, for the answer to a restart.
    section: String,
    /// As they stand in the answer, without what names the attribute.
    candidates: Vec<String>,
    _place: Arc<net::Place>,
    present: Arc<Present>,
    /// Of a stream of another node.
    _watching: Option<Arc<Watching>>,
}

/// Why there are no sessions here. The operator must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error(transparent)]
    Identity(#[from] rtc::dtls::IdentityError),
    #[error("no thread for viewers by WebRTC: {0}")]
    Thread(#[from] std::io::Error),
}

/// What a viewer chose (our own, as JSON in a PATCH).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    /// By name; `null` leaves it to the server.
    rendition: Option<String>,
}

impl Whep {
    /// Viewers of `programmes`, in `threads` threads. `limits`: of sessions, also those that nobody has come to
    /// yet (threat 5).
    ///
    /// # Errors
    /// [`StartError`]
    pub fn start(
        programmes: Programmes,
        port: Port,
        threads: NonZeroUsize,
        limits: Limits,
        ice_servers: IceServers,
        metrics: &crate::Metrics,
    ) -> Result<Self, StartError> {
        let identity = Arc::new(Identity::generate()?);
        let sessions = Sessions::default();
        let shards = (0..threads.get()).map(|number| {
            let (sessions, metrics) = (sessions.clone(), metrics.whep.clone());
            let gone = {
                let metrics = metrics.clone();
                move |viewer| forget(&sessions, viewer, &metrics)
            };
            shard::spawn(number, port.clone(), Arc::new(gone), metrics)
        });
        let shards = shards.collect::<Result<_, _>>()?;
        let (metrics, audience) = (metrics.whep.clone(), metrics.audience.clone());
        let numbers = AtomicU64::new(1);
        let places = Places::new(limits);
        let shared = Shared {
            programmes,
            port,
            identity,
            shards,
            sessions,
            ice_servers,
            places,
            metrics,
            audience,
            numbers,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Says goodbye to everybody.
    pub fn drain(&self) {
        for shard in &self.shared.shards {
            // One that is full of requests loses its viewers' goodbyes, and nothing else.
            let _full = shard.commands.try_send(Command::Drain);
        }
    }

    /// Says goodbye to up to `limit` viewers of streams that `moves`; their players ask again, and are sent on then.
    /// Returns to how many.
    pub fn send_on(&self, limit: usize, mut moves: impl FnMut(&StreamId) -> bool) -> usize {
        let sessions: Vec<_> = {
            let table = lock(&self.shared.sessions);
            let moving = table.by_id.values().filter(|session| moves(session.present.stream()));
            moving.take(limit).cloned().collect()
        };
        let said = sessions.iter().map(|session| {
            // One that is busy hears of it in the next round.
            self.command(session, Command::Leave { viewer: session.viewer }).is_ok()
        });
        said.filter(|said| *said).count()
    }

    async fn answer(
        &self,
        viewer: IpAddr,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, Response<Bytes>> {
        let place = Place::of(request.uri().path(), PREFIX)?;
        let (headers, body) = (request.headers(), request.body());
        match (&place, request.method()) {
            (_, &Method::OPTIONS) => Ok(place.options()),
            (Place::Endpoint(id), &Method::POST) => {
                let offer = signalling::body_of(headers, body, SDP, BODY_BYTES_MAX)?;
                let offer = offer_of(offer)?;
                let waits =
                    request.uri().query().is_some_and(|query| query.split('&').any(|word| word == "wait"));
                let (stream, watching) = self.shared.programmes.find(id, waits).await?;
                self.join(viewer, signalling::asked_address(&request), &stream, watching, &offer)
            }
            (Place::Session(session), &Method::PATCH) if signalling::is_of_kind(headers, JSON) => {
                let choice: Choice = serde_json::from_slice(body).map_err(|error| {
                    refusal(StatusCode::BAD_REQUEST, &format!("not {{\"rendition\": NAME or null}}: {error}"))
                })?;
                self.pin(session, choice.rendition).await
            }
            (Place::Session(id), &Method::PATCH) => {
                let fragment = signalling::body_of(headers, body, FRAGMENT, FRAGMENT_BYTES_MAX)?;
                let fragment = Fragment::parse(fragment)
                    .map_err(|error| refusal(StatusCode::BAD_REQUEST, &error.to_string()))?;
                self.restart(id, &Condition::of(headers), &fragment)
            }
            (Place::Session(session), &Method::DELETE) => {
                let session = self.session(session)?;
                self.command(&session, Command::Leave { viewer: session.viewer })?;
                Ok(signalling::done(StatusCode::OK))
            }
            (Place::Endpoint(_), _) => Err(place.not_allowed("viewers POST an SDP offer here (WHEP)")),
            (Place::Session(_), _) => Err(place.not_allowed("a WHEP session takes PATCH and DELETE")),
        }
    }

    fn join(
        &self,
        viewer: IpAddr,
        asked: Option<IpAddr>,
        stream: &Arc<Stream>,
        watching: Option<Watching>,
        offer: &Offer,
    ) -> Result<Response<Bytes>, Response<Bytes>> {
        let video = formats(stream);
        let audio = stream
            .tracks()
            .iter()
            .map(|track| track.record())
            .any(|record| matches!(record.codec, CodecConfig::Opus(_)) && record.suits_webrtc());
        if video.is_empty() && !audio {
            let words = "nothing of this stream can be shown by WebRTC, and no rendition of it is made; watch it by HLS";
            return Err(refusal(StatusCode::NOT_ACCEPTABLE, words));
        }
        let place = self.shared.places.take(viewer).map_err(|full| {
            self.shared.metrics.refused(full);
            let words = match full {
                net::Full::Total => "there is no room for more viewers",
                net::Full::Address => "there is no room for more viewers of this address",
            };
            try_again(StatusCode::SERVICE_UNAVAILABLE, words, FULL_RETRY_S)
        })?;
        let number = self.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let shard = number as usize % self.shared.shards.len();
        let random = Random::new()?;
        let credentials = Credentials::generate().map_err(|_| no_randomness())?;
        let cname = format!("{:016x}", random.cname);
        let answer = offer
            .answer(&AnswerSettings {
                session_id: number,
                credentials: &credentials,
                fingerprint: self.shared.identity.fingerprint(),
                candidates: &self.shared.port.candidates(asked),
                video: &video,
                audio,
                cname: &cname,
                ssrcs: random.ssrcs,
            })
            .map_err(|error| refusal(StatusCode::NOT_ACCEPTABLE, &error.to_string()))?;
        let handle = self.shared.shards.get(shard).ok_or_else(no_randomness)?;
        let lease = self.shared.port.lease(&credentials.ufrag, number, handle.inbox.clone());
        let etag = format!("\"{}\"", credentials.ufrag);
        let ssrcs = [&answer.video, &answer.audio]
            .into_iter()
            .flatten()
            .flat_map(|media| std::iter::once(media.ssrc).chain(media.rtx_ssrc));
        let peer = Peer::new(
            PeerSettings {
                identity: self.shared.identity.clone(),
                role: offer.transport().role,
                local: credentials,
                remote_ufrag: offer.transport().ufrag.clone(),
                fingerprints: offer.transport().fingerprints.clone(),
                ssrcs: ssrcs.collect(),
            },
            Instant::now(),
        );
        let peer = peer.map_err(|error| {
            warn!(%error, "no DTLS for a viewer");
            refusal(StatusCode::INTERNAL_SERVER_ERROR, "DTLS cannot be started")
        })?;
        let line = |negotiated: &Option<Negotiated>, rate| {
            negotiated.as_ref().map(|negotiated| line_settings(negotiated, rate, &cname, &random))
        };
        let taken =
            answer.video.iter().flat_map(|video| video.payload_types.iter().map(|(format, _)| *format));
        let join = Join {
            viewer: number,
            peer,
            lease,
            formats: Formats::of(taken),
            video: line(&answer.video, Timescale::VIDEO),
            audio: line(&answer.audio, Timescale::OPUS),
        };
        let id = format!("{:032x}", random.id);
        {
            let mut table = lock(&self.shared.sessions);
            let section = first_section(&answer.text);
            let candidates = answer.text.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
            let candidates = candidates.map(str::to_owned).collect();
            let session = Session {
                viewer: number,
                shard,
                etag: etag.clone(),
                section,
                candidates,
                _place: Arc::new(place),
                present: Arc::new(self.shared.audience.enter(stream.id())),
                _watching: watching.map(Arc::new),
            };
            table.by_id.insert(id.clone(), session);
            table.ids.insert(number, id.clone());
            self.shared.metrics.viewers.inc();
        }
        if handle.commands.try_send(Command::Join { join: Box::new(join), stream: stream.clone() }).is_err() {
            forget(&self.shared.sessions, number, &self.shared.metrics);
            return Err(busy());
        }
        self.shared.metrics.answered.inc();
        info!(viewer = number, peer.addr = %viewer, stream.id = %stream.id(), "viewer by WebRTC");
        let (app, name) = (stream.id().app(), stream.id().stream());
        let (location, links) =
            (format!("{PREFIX}{app}/{name}/{id}"), self.shared.ice_servers.links(SystemTime::now()));
        Ok(signalling::created(&location, &etag, links, answer.text))
    }

    /// Candidates are of no use to us, who answer only; new credentials are a restart (RFC 9725, §4.3).
    fn restart(
        &self,
        id: &str,
        condition: &Condition,
        fragment: &Fragment,
    ) -> Result<Response<Bytes>, Response<Bytes>> {
        let session = self.session(id)?;
        match condition {
            Condition::Missing => {
                return Err(refusal(StatusCode::PRECONDITION_REQUIRED, "If-Match is missing"));
            }
            Condition::Tags(_) if condition.holds(&session.etag) => {
                return Ok(signalling::done(StatusCode::NO_CONTENT));
            }
            Condition::Tags(_) => {
                return Err(refusal(
                    StatusCode::PRECONDITION_FAILED,
                    "that is of an ICE generation before this one",
                ));
            }
            Condition::Any => {}
        }
        let local = Credentials::generate().map_err(|_| no_randomness())?;
        let etag = format!("\"{}\"", local.ufrag);
        if let Some(session) = lock(&self.shared.sessions).by_id.get_mut(id) {
            session.etag.clone_from(&etag);
        }
        let ours = Fragment { ufrag: local.ufrag.clone(), password: local.password.clone() };
        let remote_ufrag = fragment.ufrag.clone();
        self.command(&session, Command::Restart { viewer: session.viewer, local, remote_ufrag })?;
        Ok(signalling::restarted(&etag, ours.answer(&session.section, &session.candidates)))
    }

    async fn pin(&self, id: &str, rendition: Option<String>) -> Result<Response<Bytes>, Response<Bytes>> {
        let session = self.session(id)?;
        let (reply, pinned) = oneshot::channel();
        self.command(&session, Command::Pin { viewer: session.viewer, rendition, reply })?;
        match pinned.await {
            Ok(Ok(())) => Ok(signalling::done(StatusCode::NO_CONTENT)),
            Ok(Err(error)) => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string())),
            Err(_) => Err(gone()),
        }
    }

    fn session(&self, id: &str) -> Result<Session, Response<Bytes>> {
        lock(&self.shared.sessions).by_id.get(id).cloned().ok_or_else(gone)
    }

    fn command(&self, session: &Session, command: Command) -> Result<(), Response<Bytes>> {
        let shard = self.shared.shards.get(session.shard).ok_or_else(busy)?;
        shard.commands.try_send(command).map_err(|_| busy())
    }
}

impl Endpoint for Whep {
    fn prefix(&self) -> &'static str {
        PREFIX
    }

    fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX
    }

    fn respond<'a>(
        &'a self,
        peer: IpAddr,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        Box::pin(async move { self.answer(peer, request).await.unwrap_or_else(|response| response) })
    }
}

fn lock(sessions: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Both maps are changed together, and nothing in between panics.
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

fn forget(sessions: &Mutex<Table>, viewer: u64, metrics: &Metrics) {
    let mut table = lock(sessions);
    if let Some(id) = table.ids.remove(&viewer) {
        table.by_id.remove(&id);
        metrics.viewers.dec();
    }
}

fn offer_of(body: &[u8]) -> Result<Offer, Response<Bytes>> {
    let text =
        std::str::from_utf8(body).map_err(|_| refusal(StatusCode::BAD_REQUEST, "the offer is no text"))?;
    Offer::parse(text).map_err(|error| {
        let status = if error.is_malformed() { StatusCode::BAD_REQUEST } else { StatusCode::NOT_ACCEPTABLE };
        refusal(status, &error.to_string())
    })
}

/// Those of a stream's pictures, the publisher's own first.
fn formats(stream: &Stream) -> Vec<VideoFormat> {
    let suits = stream.tracks().iter().map(|track| track.record()).filter(|record| record.suits_webrtc());
    let mut formats = Vec::<VideoFormat>::new();
    for record in suits {
        let format = match &record.codec {
            CodecConfig::H264(config) => profile_level_id(config.avcc()).map(VideoFormat::H264),
            CodecConfig::Av1(_) => Some(VideoFormat::Av1),
            CodecConfig::Vp8(_) => Some(VideoFormat::Vp8),
            CodecConfig::Vp9(_) => Some(VideoFormat::Vp9),
            CodecConfig::H265(_) | CodecConfig::Aac(_) | CodecConfig::Opus(_) => None,
        };
        let is_known =
            |other: &VideoFormat| format.is_some_and(|format| discriminant(other) == discriminant(&format));
        if !formats.iter().any(is_known) {
            formats.extend(format);
        }
    }
    formats
}

/// After the version, an `avcC` has what SDP calls so (ISO/IEC 14496-15, §5.3.3.1).
fn profile_level_id(avcc: &[u8]) -> Option<ProfileLevelId> {
    avcc.get(1..4)?.try_into().ok().map(ProfileLevelId)
}

/// The `m=` and `a=mid` lines of the bundle's first section.
fn first_section(answer: &str) -> String {
    let mut lines = answer.lines();
    let media = lines.by_ref().find(|line| line.starts_with("m=")).unwrap_or_default();
    let mid = lines.find(|line| line.starts_with("a=mid:")).unwrap_or_default();
    format!("{media}\r\n{mid}\r\n")
}

fn line_settings(negotiated: &Negotiated, rate: Timescale, cname: &str, random: &Random) -> LineSettings {
    let extensions = HeaderExtensions {
        transport_cc: negotiated.extensions.transport_cc,
        abs_send_time: negotiated.extensions.abs_send_time,
        playout_delay: negotiated.extensions.playout_delay,
    };
    LineSettings {
        ssrc: negotiated.ssrc,
        payload_types: negotiated.payload_types.clone(),
        rtx_ssrc: negotiated.rtx_ssrc,
        extensions,
        playout_delay: AT_ONCE,
        clock_rate: rate,
        timestamp_offset: random.timestamp,
        cname: cname.to_owned(),
        random: random.sequences,
    }
}

/// What is random in a session.
struct Random {
    id: u128,
    cname: u64,
    ssrcs: Ssrcs,
    timestamp: u32,
    sequences: [u16; 2],
}

impl Random {
    fn new() -> Result<Self, Response<Bytes>> {
        let mut bytes = [0; 48];
        getrandom::fill(&mut bytes).map_err(|_| no_randomness())?;
        let number = |at: usize| {
            let bytes: [u8; 4] = bytes[at..at + 4].try_into().expect("four of forty-eight");
            u32::from_be_bytes(bytes)
        };
        let wide = |at: usize| u64::from(number(at)) << 32 | u64::from(number(at + 4));
        // Different from each other: the lowest bits say whose they are.
        let ssrc = |at: usize, whose: u32| number(at) & !3 | whose;
        Ok(Self {
            id: u128::from(wide(0)) << 64 | u128::from(wide(8)),
            cname: wide(16),
            ssrcs: Ssrcs { video: ssrc(24, 1), video_rtx: ssrc(28, 2), audio: ssrc(32, 3) },
            timestamp: number(36),
            sequences: [number(40) as u16, number(44) as u16],
        })
    }
}

fn gone() -> Response<Bytes> {
    refusal(StatusCode::NOT_FOUND, "there is no such session; it may have ended")
}

/// A shard that does not keep up with requests is in trouble.
fn busy() -> Response<Bytes> {
    try_again(StatusCode::SERVICE_UNAVAILABLE, "too busy for another request", FULL_RETRY_S)
}

fn no_randomness() -> Response<Bytes> {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "the system gives no random numbers")
}
