//! Answers WHIP's requests, and runs the sessions that come of them.
//!
//! The HTTP listener is edge's; `server` hands its requests to [`Whip::respond`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{Request, Response, StatusCode};
use media::StreamId;
use net::{Guesses, Limits, Panicked, Place, Places, Throttle};
use rtc::port::{Candidate, Port, Protocol};
use rtc::signalling::{self, IceServers};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, debug, error, field, info, info_span};
use webrtc_core::crypto::{SignatureScheme, default_provider};
use webrtc_core::peer_connection::certificate::{CertificateParams, RTCCertificate};

use super::conn::{Closed, Command, Conn, ConnError};
use super::media::{Media, Unit};
use super::metrics::{Metrics, Reason};
use super::offer::Offer;
use super::peer::Peer;
use super::request::{self, Action};
use super::session::Session;
use crate::refusals::{encoder_name, may_be_told};
use crate::{Announced, Gate, KeyFault, Publication, Refusal, Refused, Secret};

/// Publishers at once. One costs half a megabyte and a few per cent of a core; a studio behind one address has a dozen.
pub const PUBLISHERS: Limits = Limits { total: 200, per_address: 64 };

/// Datagrams that wait for a session: 100 ms at 60 Mbit/s. What does not fit is lost, as it would be in the network.
const INBOX: usize = 512;
/// Requests that wait for a session. A browser sends a handful of candidates, one after the other.
const COMMANDS: usize = 16;
/// For a session to answer one: it is never busy for long.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines a second about sessions that ended badly: strangers must not fill a disk with them.
const CLOSED_LINES_MAX: u32 = 10;
const DRAINING: &str = "the server is going down; connect again";

/// Why WHIP cannot start. The operator must act.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There are no random numbers.
    #[error("no certificate for WebRTC: {0}")]
    Certificate(String),
}

/// How publishers are taken.
#[derive(Debug, Clone)]
pub struct Settings {
    pub limits: Limits,
    /// Publishers need none to reach an address that is announced; some firewalls let only TURN through.
    pub ice_servers: IceServers,
}

/// WHIP's side of the viewers' listener. Cloning shares it.
#[derive(Clone)]
pub struct Whip {
    shared: Arc<Shared>,
}

struct Shared {
    port: Port,
    gate: Gate,
    guesses: Guesses,
    places: Places,
    metrics: Metrics,
    /// One for all sessions of the process.
    certificate: RTCCertificate,
    ice_servers: IceServers,
    sessions: Mutex<HashMap<String, Handle>>,
    peers: AtomicU64,
    tasks: TaskTracker,
    drain: CancellationToken,
    log: Throttle,
}

/// Who asks, and by which address of ours, if it was one.
#[derive(Clone, Copy)]
struct From {
    peer: IpAddr,
    asked: Option<IpAddr>,
}

/// How requests reach a session.
#[derive(Clone)]
struct Handle {
    /// Of the key that began it.
    key: [u8; 32],
    commands: mpsc::Sender<Command>,
}

impl Whip {
    /// Sessions run on `port`, until `drain`. `guesses`: the same as for everything that the publish key opens.
    ///
    /// # Errors
    /// [`StartError`]
    pub fn new(
        port: Port,
        gate: Gate,
        settings: &Settings,
        guesses: Guesses,
        metrics: Metrics,
        drain: CancellationToken,
    ) -> Result<Self, StartError> {
        let certificate = certificate()?;
        let shared = Shared {
            port,
            gate,
            guesses,
            places: Places::new(settings.limits),
            metrics,
            certificate,
            ice_servers: settings.ice_servers.clone(),
            sessions: Mutex::default(),
            peers: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            drain,
            log: Throttle::per_second(CLOSED_LINES_MAX),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Waits for the last session to end, after the drain.
    pub async fn drained(&self) {
        self.shared.drain.cancelled().await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Answers a request to a path below [`request::PREFIX`], with its whole body.
    pub async fn respond(&self, peer: IpAddr, request: Request<Bytes>) -> Response<Bytes> {
        match Action::of(&request, |id| self.shared.gate.transcodes(id)) {
            Action::Answer(response) => response,
            Action::Publish { id, key, offer } => {
                let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
                let from = From { peer, asked: signalling::asked_address(&request) };
                self.publish(from, id, key, *offer, agent.and_then(encoder_name)).await
            }
            Action::Patch { session, key, condition, fragment } => {
                self.command(peer, &session, &key, |reply| Command::Patch { condition, fragment, reply })
                    .await
            }
            Action::End { session, key } => {
                self.command(peer, &session, &key, |reply| Command::End { reply }).await
            }
        }
    }

    async fn publish(
        &self,
        from: From,
        id: StreamId,
        key: Secret,
        offer: Offer,
        encoder: Option<String>,
    ) -> Response<Bytes> {
        let (shared, peer) = (&self.shared, from.peer);
        if shared.drain.is_cancelled() {
            return request::full(DRAINING);
        }
        let prepared = tokio::select! {
            prepared = shared.gate.prepare(&id, &key) => prepared,
            () = shared.drain.cancelled() => return request::full(DRAINING),
        };
        let now = Instant::now();
        let publish = || prepared.and_then(|()| shared.gate.publish(&id, &key, now));
        let is_wrong = |answer: &Result<_, Refusal>| matches!(answer, Err(Refusal::WrongKey(_)));
        let turned_away = |reason: Reason, words: String, stream: Option<StreamId>| {
            shared.metrics.refused(reason).inc();
            // A name that comes without a key may be one.
            let stream = stream.filter(|id| !key.expose().is_empty() || may_be_told(id));
            let refused =
                Refused { at: SystemTime::now(), times: 1, peer, stream, encoder: encoder.clone(), words };
            shared.gate.turned_away(refused);
        };
        let publication = match shared.guesses.attempt(peer, now, publish, is_wrong) {
            Ok(Ok(publication)) => publication,
            Ok(Err(refusal)) => {
                let (reason, words, stream) = match &refusal {
                    Refusal::WrongKey(KeyFault::InName) => {
                        (Reason::WrongKey, KeyFault::InName.to_string(), None)
                    }
                    Refusal::WrongKey(fault) => (Reason::WrongKey, fault.to_string(), Some(id)),
                    Refusal::NameTaken(_) | Refusal::TakenElsewhere { .. } => {
                        (Reason::NameTaken, refusal.to_string(), Some(id))
                    }
                    Refusal::Draining => (Reason::Draining, refusal.to_string(), Some(id)),
                    Refusal::NoRandomness => (Reason::Failed, refusal.to_string(), Some(id)),
                };
                turned_away(reason, words, stream);
                return request::turned_away(&refusal);
            }
            Err(guessing) => {
                turned_away(Reason::TooManyGuesses, guessing.to_string(), Some(id));
                return request::guessing(&guessing);
            }
        };
        let place = match shared.places.take(peer) {
            Ok(place) => place,
            Err(full) => {
                shared.metrics.refused(full.into()).inc();
                return request::full("no room for another WHIP publisher");
            }
        };
        self.begin(from, &id, &key, offer, publication, place).unwrap_or_else(|error| {
            turned_away(Reason::Offer, error.clone(), Some(id.clone()));
            signalling::refusal(StatusCode::UNPROCESSABLE_ENTITY, &error)
        })
    }

    /// The words of an error are for the publisher.
    fn begin(
        &self,
        from: From,
        id: &StreamId,
        key: &Secret,
        offer: Offer,
        mut publication: Publication,
        place: Place,
    ) -> Result<Response<Bytes>, String> {
        let shared = &self.shared;
        let now = Instant::now();
        let candidates = shared.port.candidates(from.asked);
        let local = candidates.first().map_or(SocketAddr::from(([127, 0, 0, 1], 9)), |first| first.address);
        let candidates: Vec<_> = candidates.iter().zip(0..).map(|(one, rank)| candidate(one, rank)).collect();
        let (peer, answer) = Peer::accept(&offer, local, shared.certificate.clone(), now)
            .map_err(|error| format!("the offer cannot be answered: {error}"))?;
        let layers = offer.video.as_ref().map_or(0, |video| video.rids.len());
        let codec = offer.video.as_ref().and_then(|video| video.codec);
        publication.announce(Announced {
            video: offer.video.is_some(),
            audio: offer.audio.is_some(),
            layers,
            ..Announced::default()
        });
        if offer.audio.is_some() {
            publication.audio_config(Unit::audio_config()).map_err(|error| error.to_string())?;
        }
        let mut name = [0; 16];
        getrandom::fill(&mut name).map_err(|_| Refusal::NoRandomness.to_string())?;
        let name = format!("{:032x}", u128::from_be_bytes(name));
        let (to_inbox, inbox) = mpsc::channel(INBOX);
        let number = shared.peers.fetch_add(1, Ordering::Relaxed);
        let lease = shared.port.lease(&answer.ufrag, number, to_inbox);
        let (commands, received) = mpsc::channel(COMMANDS);
        let text = offer.complete(&answer.sdp, &candidates);
        let session = Session::new(offer);
        let etag = session.etag();
        let conn = Conn {
            port: shared.port.clone(),
            lease,
            inbox,
            commands: received,
            peer,
            ufrag: answer.ufrag,
            session,
            media: Media::new(codec, layers, now),
            publication,
            candidates,
            metrics: shared.metrics.clone(),
        };
        shared.metrics.accepted.inc();
        let handle = Handle { key: digest(key), commands };
        self.sessions().insert(name.clone(), handle);
        let span = info_span!(
            "publisher",
            proto = "whip",
            peer.addr = %from.peer,
            stream.id = %id,
            session = field::Empty
        );
        shared.tasks.spawn(supervise(self.clone(), name.clone(), conn, place, span));
        let links = shared.ice_servers.links(SystemTime::now());
        Ok(signalling::created(&format!("{}{id}/{name}", request::PREFIX), &etag, links, text))
    }

    /// Hands a request to its session. 404 whether there never was one, or it has ended; and only whoever began it may ask.
    async fn command(
        &self,
        peer: IpAddr,
        session: &str,
        key: &Secret,
        command: impl FnOnce(oneshot::Sender<Response<Bytes>>) -> Command,
    ) -> Response<Bytes> {
        let gone = || signalling::refusal(StatusCode::NOT_FOUND, "there is no such session, or not any more");
        let Some(handle) = self.sessions().get(session).cloned() else { return gone() };
        let is_owner = || handle.key == digest(key);
        let owner = self.shared.guesses.attempt(peer, Instant::now(), is_owner, |right| !right);
        match owner {
            Ok(true) => {}
            Ok(false) => {
                self.shared.metrics.refused(Reason::WrongKey).inc();
                let fault = if key.expose().is_empty() { KeyFault::Missing } else { KeyFault::Wrong };
                return request::turned_away(&Refusal::WrongKey(fault));
            }
            Err(guessing) => return request::guessing(&guessing),
        }
        let (reply, answer) = oneshot::channel();
        if handle.commands.send(command(reply)).await.is_err() {
            return gone();
        }
        match tokio::time::timeout(COMMAND_TIMEOUT, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => gone(),
            Err(_) => request::full("the session does not answer"),
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs one session so that a panic in it ends it alone, and tells how it ended.
async fn supervise(whip: Whip, name: String, conn: Conn, place: Place, span: Span) {
    let metrics = &whip.shared.metrics;
    metrics.publishers.inc();
    let ended = net::contain(conn.run(whip.shared.drain.clone()).instrument(span.clone())).await;
    metrics.publishers.dec();
    whip.sessions().remove(&name);
    drop(place);
    report(&span, metrics, &whip.shared.log, ended);
}

/// The one line that every session leaves behind, unless there are too many of them.
fn report(
    span: &Span,
    metrics: &Metrics,
    log: &Throttle,
    ended: Result<Result<Closed, ConnError>, Panicked>,
) {
    let _entered = span.enter();
    match ended {
        Ok(Ok(Closed::Ended | Closed::ByPeer)) => debug!("publisher left"),
        Ok(Ok(Closed::ByDrain)) => debug!("publisher sent away: draining"),
        Ok(Err(error)) => {
            metrics.refused(error.reason()).inc();
            if let Some(left_out) = log.pass(Instant::now()) {
                info!(%error, left_out = (left_out > 0).then_some(left_out), "publisher closed");
            }
        }
        Err(Panicked) => {
            metrics.panics.inc();
            error!("publisher closed: its session panicked; this is a bug");
        }
    }
}

/// As in SDP (RFC 8839, §5.1; RFC 6544, §4.5): a host candidate, the first of them the best, and TCP after UDP.
fn candidate(candidate: &Candidate, rank: u32) -> String {
    // RFC 8445, §5.1.2.1: the type's preference, the rank, component 1.
    let (preference, protocol, kind) = match candidate.protocol {
        Protocol::Udp => (126, "udp", ""),
        Protocol::Tcp => (90, "tcp", " tcptype passive"),
    };
    let priority = (preference << 24) | ((65_535 - rank.min(65_535)) << 8) | 255;
    let (ip, port) = (candidate.address.ip(), candidate.address.port());
    format!("{} 1 {protocol} {priority} {ip} {port} typ host{kind}", rank + 1)
}

fn digest(key: &Secret) -> [u8; 32] {
    Sha256::digest(key.expose().as_bytes()).into()
}

fn certificate() -> Result<RTCCertificate, StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Certificate(error.to_string());
    let provider = default_provider().map_err(|error| failed(&error))?;
    let parameters = CertificateParams::new(vec!["tidecast".to_owned()]).map_err(|error| failed(&error))?;
    RTCCertificate::generate(provider.crypto(), SignatureScheme::EcdsaP256Sha256, parameters)
        .map_err(|error| failed(&error))
}
