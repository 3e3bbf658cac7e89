//! Drives one WHIP session, from the answer until its publisher leaves.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use relay::{Stream, Wanted};
use rtc::port::{Datagram, Lease, Port};
use rtc::signalling::{self, Condition, Fragment};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::keyframes::{GROUP_AGE_ALONE_MAX, GROUP_AGE_MAX};
use super::media::{Media, Unit};
use super::metrics::{Metrics, Reason};
use super::peer::{self, Event, Output, Peer};
use super::reorder::Counts;
use super::session::{Patch, PatchError, Session};
use crate::{Packets, Publication, PublishError};

/// From the answer to the end of ICE and DTLS; a handshake over a bad line takes two seconds (threat 7).
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// From the request for a keyframe until it is here: half a second, as it takes over a slow line.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// Datagrams handled before the clock is read again.
const BATCH: usize = 64;

/// What a request asks of a running session, and where the answer goes.
pub(super) enum Command {
    Patch { condition: Condition, fragment: Fragment, reply: oneshot::Sender<Response<Bytes>> },
    End { reply: oneshot::Sender<Response<Bytes>> },
}

/// How a session ended when nobody is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// By DELETE: it means it.
    Ended,
    /// The connection was closed, or its page was.
    ByPeer,
    ByDrain,
}

/// How a session ended otherwise.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnError {
    /// The network between us: nothing came to the WebRTC port, or nothing came back.
    #[error(
        "no WebRTC connection in {} s: does UDP from the publisher reach this server's WebRTC port?",
        CONNECT_TIME_MAX.as_secs()
    )]
    NotConnected,
    /// The network, or a publisher that left without a word.
    #[error("nothing came from the publisher for 30 s")]
    Lost,
    /// The publisher sends what cannot be published.
    #[error("{0}")]
    Publish(#[from] PublishError),
}

impl ConnError {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NotConnected => Reason::NotConnected,
            Self::Lost => Reason::Lost,
            Self::Publish(PublishError::TakenOver) => Reason::TakenOver,
            Self::Publish(PublishError::Draining) => Reason::Draining,
            Self::Publish(PublishError::Over) => Reason::Timeout,
            Self::Publish(_) => Reason::Unsupported,
        }
    }
}

/// Everything of one session.
pub(super) struct Conn {
    pub(super) port: Port,
    pub(super) lease: Lease,
    pub(super) inbox: mpsc::Receiver<Datagram>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) peer: Peer,
    /// Under which the port sends us what it hears.
    pub(super) ufrag: String,
    pub(super) session: Session,
    pub(super) media: Media,
    pub(super) publication: Publication,
    /// As they stand in SDP.
    pub(super) candidates: Vec<String>,
    pub(super) metrics: Metrics,
}

impl Conn {
    /// Until the publisher leaves, we drain, or what it sends cannot be published; then says goodbye.
    pub(super) async fn run(mut self, drain: CancellationToken) -> Result<Closed, ConnError> {
        let mut asked = None;
        let ended = self.converse(drain, &mut asked).await;
        self.peer.close();
        while let Output::Send { path, bytes } = self.peer.poll_output() {
            self.port.send(path, &bytes, None);
        }
        if matches!(ended, Ok(Closed::Ended)) {
            self.publication.goodbye();
        }
        // Whoever asked for the end finds the name free. It may have gone meanwhile.
        if let Some(reply) = asked {
            let _ = reply.send(signalling::done(StatusCode::OK));
        }
        ended
    }

    /// `asked`: where the answer goes to who asked for the end.
    async fn converse(
        &mut self,
        drain: CancellationToken,
        asked: &mut Option<oneshot::Sender<Response<Bytes>>>,
    ) -> Result<Closed, ConnError> {
        let begun = Instant::now();
        let (mut is_connected, mut told, mut nacks) = (false, Counts::default(), 0);
        let (mut units, mut datagrams) = (Vec::new(), Vec::with_capacity(BATCH));
        loop {
            let (now, wall) = (Instant::now(), SystemTime::now());
            let mut until = loop {
                match self.peer.poll_output() {
                    Output::Send { path, bytes } => self.port.send(path, &bytes, None),
                    Output::Proven(remote) => self.lease.bind_address(remote),
                    Output::Event(Event::Connected) => {
                        is_connected = true;
                        info!("publishing");
                    }
                    Output::Event(Event::Closed(closed)) => {
                        return match closed {
                            peer::Closed::ByPeer => Ok(Closed::ByPeer),
                            peer::Closed::Failed if is_connected => Err(ConnError::Lost),
                            peer::Closed::Failed => Err(ConnError::NotConnected),
                        };
                    }
                    Output::Event(Event::Rtp(flow, packet)) => {
                        self.metrics.bytes.inc_by(packet.payload.len() as u64);
                        self.media.packet(flow, packet);
                    }
                    Output::Event(Event::Report { flow, ntp, timestamp }) => {
                        self.media.report(flow, ntp, timestamp);
                    }
                    Output::Wait { until } => break until,
                }
            };
            self.media.poll(now, &mut units);
            for unit in units.drain(..) {
                self.publish(unit, now, wall)?;
            }
            let stream = self.publication.stream();
            let age_max = stream.as_ref().map_or(GROUP_AGE_MAX, |stream| group_age_max(stream, now));
            self.media.limit_groups(age_max);
            if self.media.keyframe_due(now) {
                self.metrics.keyframe_requests.inc();
                self.peer.request_keyframe(now);
                continue;
            }
            self.count(&mut told, &mut nacks);
            if !is_connected {
                let deadline = begun + CONNECT_TIME_MAX;
                if now >= deadline {
                    return Err(ConnError::NotConnected);
                }
                until = Some(until.map_or(deadline, |until| until.min(deadline)));
            }
            let due = [until, self.media.deadline()].into_iter().flatten().min();
            let wake = due.unwrap_or(now + CONNECT_TIME_MAX);
            let keyframe_wanted = async {
                match &stream {
                    Some(stream) => stream.keyframe_wanted().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = drain.cancelled() => return Ok(Closed::ByDrain),
                Some(command) = self.commands.recv() => match command {
                    Command::End { reply } => {
                        *asked = Some(reply);
                        return Ok(Closed::Ended);
                    }
                    // Whoever asked may have gone meanwhile.
                    Command::Patch { condition, fragment, reply } => {
                        let _ = reply.send(self.patch(&condition, &fragment));
                    }
                },
                _ = self.inbox.recv_many(&mut datagrams, BATCH) => {
                    let now = Instant::now();
                    for Datagram { path, bytes, .. } in datagrams.drain(..) {
                        self.peer.handle_datagram(path, bytes, now);
                    }
                    // However much comes, what is due is done.
                    if wake <= now {
                        self.peer.handle_deadline(now);
                    }
                }
                () = keyframe_wanted => self.media.want_keyframe(),
                () = sleep_until(wake.into()) => self.peer.handle_deadline(Instant::now()),
            }
        }
    }

    fn publish(&mut self, unit: Unit, now: Instant, wall: SystemTime) -> Result<(), PublishError> {
        match unit {
            Unit::VideoConfig(config) => {
                let (width, height) = config.dimensions();
                debug!(codec = ?config.codec(), width, height, "picture");
                self.publication.video_config(config)
            }
            Unit::Video(stamp, unit) => self.publication.video_unit(stamp, unit, now, wall),
            Unit::LayerConfig(layer, config) => {
                self.publication.layer_config(layer, config);
                Ok(())
            }
            Unit::Layer(layer, stamp, sample) => {
                self.publication.layer_unit(layer, stamp, sample, now);
                Ok(())
            }
            Unit::Audio(stamp, packet) => {
                self.publication.audio_frame(stamp, Unit::AUDIO_CODEC, packet, now, wall)
            }
        }
    }

    fn patch(&mut self, condition: &Condition, fragment: &Fragment) -> Response<Bytes> {
        let offer = match self.session.patch(condition, fragment) {
            Ok(Patch::Restart(offer)) => *offer,
            Ok(Patch::Trickle) => return signalling::done(StatusCode::NO_CONTENT),
            Err(error) => {
                let status = match error {
                    PatchError::Unconditional => StatusCode::PRECONDITION_REQUIRED,
                    PatchError::OutOfDate => StatusCode::PRECONDITION_FAILED,
                };
                return signalling::refusal(status, &error.to_string());
            }
        };
        match self.peer.restart(&offer, Instant::now()) {
            Ok(answer) => {
                self.metrics.restarts.inc();
                self.session.restarted(offer);
                self.lease.add_ufrag(&answer.ufrag);
                // What is still under way under the old name is of a network that the publisher has left.
                self.lease.remove_ufrag(&self.ufrag);
                self.ufrag.clone_from(&answer.ufrag);
                let ours = Fragment { ufrag: answer.ufrag, password: answer.password };
                let text = ours.answer(&self.session.transport_section(), &self.candidates);
                signalling::restarted(&self.session.etag(), text)
            }
            Err(error) => {
                debug!(%error, "ICE was not restarted");
                signalling::refusal(StatusCode::UNPROCESSABLE_ENTITY, "ICE cannot be restarted; publish anew")
            }
        }
    }

    fn count(&mut self, told: &mut Counts, nacks: &mut u64) {
        let counts = self.media.counts();
        self.publication.packets(Packets { received: counts.received, lost: counts.lost });
        self.metrics.packets.inc_by(counts.received - told.received);
        self.metrics.lost.inc_by(counts.lost - told.lost);
        self.metrics.reordered.inc_by(counts.reordered - told.reordered);
        self.metrics.late.inc_by(counts.late - told.late);
        *told = counts;
        let asked = self.peer.nacks();
        self.metrics.nacks.inc_by(asked - *nacks);
        *nacks = asked;
    }
}

/// How old the newest group may become. Until the first playlist as if somebody read it in segments: from its keyframes
/// follows how long those may be, for the life of the session, and no group may be longer than one whoever watches.
fn group_age_max(stream: &Stream, now: Instant) -> Duration {
    let record = stream.record();
    let target_duration_s =
        record.borrow().as_ref().and_then(|record| Some(record.live.as_ref()?.target_duration_s));
    match target_duration_s {
        Some(seconds) if stream.segments().look(now) == Wanted::No => {
            let segment = Duration::from_secs(seconds.into()).saturating_sub(ANSWER_TIME);
            segment.clamp(GROUP_AGE_MAX, GROUP_AGE_ALONE_MAX)
        }
        _ => GROUP_AGE_MAX,
    }
}

#[cfg(test)]
mod tests {
    use media::{Captions, SessionId, StreamId};
    use relay::{LINGER, Live, StreamRecord, StreamRegistry};

    use super::*;

    /// Of all who watch, those by WebRTC alone leave the publisher's line in peace.
    #[test]
    fn groups_are_short_until_the_first_playlist_and_while_somebody_asks_for_it() {
        let registry = StreamRegistry::default();
        let id = StreamId::new("live", "cam").unwrap();
        let mut writer = registry.open(id.clone(), SessionId::from_random(1)).unwrap();
        let (stream, now) = (registry.get(&id).unwrap(), Instant::now());
        let (short, long) = (GROUP_AGE_MAX, GROUP_AGE_ALONE_MAX);
        assert_eq!(group_age_max(&stream, now), short, "it is starting");
        writer.open(StreamRecord {
            session: SessionId::from_random(1),
            epoch: 1,
            part_hold_back_ms: 1_500,
            frame_rate: None,
            tracks: Vec::new(),
            live: None,
        });
        assert_eq!(group_age_max(&stream, now), short);
        writer.go_live(Live {
            target_duration_s: 5,
            window_ms: 35_000,
            bandwidth: Vec::new(),
            captions: Captions::default(),
        });
        assert_eq!(group_age_max(&stream, now), long);
        writer.go_live(Live {
            target_duration_s: 3,
            window_ms: 35_000,
            bandwidth: Vec::new(),
            captions: Captions::default(),
        });
        assert_eq!(group_age_max(&stream, now), Duration::from_millis(2_500), "no longer than a segment");
        let worker = stream.segments().hold();
        assert_eq!(group_age_max(&stream, now + LINGER * 2), short);
        drop(worker);
        assert_eq!(group_age_max(&stream, Instant::now()), short, "a player may come back");
        assert_ne!(group_age_max(&stream, Instant::now() + LINGER * 2), short);
    }
}
