//! One publisher's WebRTC connection: ICE-lite, DTLS, SRTP, RTCP, by the sans-I/O `rtc` of the webrtc-rs project.
//!
//!   datagrams ─▶ [`Peer::handle_datagram`] ─▶ RTP, sender reports, goodbyes
//!
//! Owns no socket and reads no clock; `conn.rs` drives it. After every input, [`Peer::poll_output`] until `Wait`.
//!
//! `rtc` thinks in pairs of addresses, and our port has many: it is told one local address whatever was asked, and what
//! it sends goes out the way the peer's last datagram came in.
//!
//! Of the SRTP profiles that a client offers `rtc` takes the first that it has, and browsers put AES-CM first, which costs five
//! times as much for each packet. So a server has AES-128-GCM only to begin with. If the client has none of it, the connection
//! is made anew with AES-CM, under the same ICE credentials, and told again what the client has said so far.
//!
//! Layers of one picture are one track for `rtc`, and told apart by their SSRC, which it learns from their first packets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use media::VideoCodec;
use rtc::port::Path;
use tracing::debug;
use webrtc_core::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_core::interceptor::{NackGeneratorBuilder, Registry, Slot};
use webrtc_core::peer_connection::certificate::RTCCertificate;
use webrtc_core::peer_connection::configuration::interceptor_registry::{
    configure_rtcp_reports, configure_simulcast_extension_headers, configure_twcc_receiver_only,
};
use webrtc_core::peer_connection::configuration::media_engine::{
    MIME_TYPE_AV1, MIME_TYPE_H264, MIME_TYPE_HEVC, MIME_TYPE_OPUS, MIME_TYPE_RTX, MIME_TYPE_VP8,
    MIME_TYPE_VP9, MediaEngine,
};
use webrtc_core::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use webrtc_core::peer_connection::configuration::{RTCBundlePolicy, RTCConfigurationBuilder};
use webrtc_core::peer_connection::event::{RTCPeerConnectionEvent, RTCTrackEvent};
use webrtc_core::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use webrtc_core::peer_connection::sdp::RTCSessionDescription;
use webrtc_core::peer_connection::state::RTCPeerConnectionState;
use webrtc_core::peer_connection::transport::{RTCDtlsRole, RTCIceCandidateInit};
use webrtc_core::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use webrtc_core::rtcp::goodbye::Goodbye;
use webrtc_core::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use webrtc_core::rtcp::sender_report::SenderReport;
use webrtc_core::rtp_transceiver::RTCRtpReceiverId;
use webrtc_core::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind,
};
use webrtc_core::sansio::Protocol;
use webrtc_core::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use super::offer::{Offer, Track};
use super::recall::Recall;
use super::reorder::{Flow, Packet};
use super::repair::Repair;
use super::tap::Tap;

/// Without anything from the peer's chosen address for this long we no longer take it for connected, and after as long
/// again and more it has lost its consent to be sent to (RFC 7675, §5.1: 30 s).
const DISCONNECTED: Duration = Duration::from_secs(5);
const FAILED: Duration = Duration::from_secs(25);

/// Addresses of a peer that are remembered: its interfaces, before and after a change of network.
const PATHS_MAX: usize = 16;

/// How often a packet is asked for again, 100 ms apart: longer than it is waited for (`reorder.rs`) it is of no use, and
/// without end it would be asked for until 512 others have come, which takes a small layer half a minute.
const NACKS_MAX: u16 = 4;

/// SSRCs of one publisher, over its whole session. A browser has one for each layer and one for its sound, and takes others now and then.
const SOURCES_MAX: usize = 64;

/// Datagrams of a client's first flight, repeated once or twice. One has two or three where it knows of DTLS 1.3.
const HELLO_MAX: usize = 16;

/// RFC 7983, §7: what the first byte of a datagram says.
const STUN: RangeInclusive<u8> = 0..=3;
const DTLS: RangeInclusive<u8> = 20..=63;
/// RFC 8489, §5: the type of an answer to a binding request.
const STUN_SUCCESS: [u8; 2] = [1, 1];
/// RFC 5246, §6.2.1: an alert record.
const DTLS_ALERT: u8 = 21;

/// Why there is no connection, or no answer to a restart.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    /// Ours or the publisher's, `rtc` does not say.
    #[error("{0}")]
    Rtc(#[from] webrtc_core::shared::error::Error),
    /// Ours: there are no random numbers.
    #[error("{0}")]
    Crypto(#[from] webrtc_core::crypto::CryptoError),
    /// Ours. The publisher must publish anew.
    #[error("a connection with AES-CM would have other ICE credentials than the publisher was told")]
    Credentials,
}

/// What the driver does next.
#[derive(Debug)]
pub(super) enum Output {
    Send {
        path: Path,
        bytes: BytesMut,
    },
    /// Whoever sends from there knows the session's password.
    Proven(SocketAddr),
    Event(Event),
    Wait {
        until: Option<Instant>,
    },
}

#[derive(Debug)]
pub(super) enum Event {
    /// ICE and DTLS are done.
    Connected,
    Rtp(Flow, Packet),
    /// RFC 3550, §6.4.1.
    Report {
        flow: Flow,
        ntp: u64,
        timestamp: u32,
    },
    Closed(Closed),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The peer said so: RTCP BYE, or DTLS `close_notify`.
    ByPeer,
    /// It fell silent, or its DTLS failed.
    Failed,
}

/// The answer, and what of it the driver needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// To [`Offer::reduced`]; not what the publisher is told.
    pub(super) sdp: String,
    pub(super) ufrag: String,
    pub(super) password: String,
}

pub(super) struct Peer {
    connection: RTCPeerConnection,
    /// What `rtc` is told that our address is.
    local: SocketAddr,
    /// The newest last.
    paths: VecDeque<Path>,
    proven: Vec<SocketAddr>,
    pending: VecDeque<Output>,
    sources: Vec<Source>,
    /// How many there have been.
    opened: usize,
    /// The names of the layers, in the order of the offer.
    rids: Vec<String>,
    nacks: Arc<AtomicU64>,
    is_connected: bool,
    /// Until it is known which SRTP profile there will be.
    fallback: Option<Box<Fallback>>,
    /// What it has still to be told again.
    said: Vec<(Path, BytesMut)>,
}

/// What makes the same connection once more.
struct Fallback {
    offer: Offer,
    certificate: RTCCertificate,
    /// What the first one drew when it was built.
    drawn: Vec<u8>,
    /// As the client was told.
    ufrag: String,
    /// The client's newest ICE check: the one that says which path it has chosen.
    check: Option<(Path, BytesMut)>,
    /// Its DTLS, until we have an answer to it.
    hello: Vec<(Path, BytesMut)>,
}

/// A stream of packets as `rtc` knows it.
struct Source {
    receiver: RTCRtpReceiverId,
    flow: Flow,
    ssrc: u32,
    /// It said goodbye, and nothing has come since.
    has_left: bool,
}

impl Peer {
    /// Answers an offer. `local`: any address of our port.
    ///
    /// # Errors
    /// [`PeerError`], if the offer has something in it that `rtc` does not take.
    pub(super) fn accept(
        offer: &Offer,
        local: SocketAddr,
        certificate: RTCCertificate,
        now: Instant,
    ) -> Result<(Self, Answer), PeerError> {
        let nacks = Arc::<AtomicU64>::default();
        let profiles = if offer.is_passive { &PROFILES[..] } else { &PROFILES[..1] };
        let randomness = Arc::new(Recall::recording()?);
        let connection = connect(offer, certificate.clone(), profiles, randomness.clone(), &nacks, now)?;
        let drawn = randomness.end();
        let rids = offer.video.as_ref().map(|video| video.rids.clone()).unwrap_or_default();
        let mut peer = Self {
            connection,
            local,
            paths: VecDeque::new(),
            proven: Vec::new(),
            pending: VecDeque::new(),
            sources: Vec::new(),
            opened: 0,
            rids,
            nacks,
            is_connected: false,
            fallback: None,
            said: Vec::new(),
        };
        let answer = peer.answer(offer, now)?;
        peer.add_local_candidate()?;
        if !offer.is_passive {
            peer.fallback = Some(Box::new(Fallback {
                offer: offer.clone(),
                certificate,
                drawn,
                ufrag: answer.ufrag.clone(),
                check: None,
                hello: Vec::new(),
            }));
        }
        Ok((peer, answer))
    }

    /// The publisher has new ICE credentials (RFC 8839, §4.4.3): its network has changed. DTLS and media go on.
    ///
    /// # Errors
    /// [`PeerError`], as [`Peer::accept`].
    pub(super) fn restart(&mut self, offer: &Offer, now: Instant) -> Result<Answer, PeerError> {
        let answer = self.answer(offer, now)?;
        self.proven.clear();
        self.add_local_candidate()?;
        // Its credentials would be those of before. Only a client that restarts ICE before it is connected, and has no AES-GCM, has
        // to publish anew.
        self.fallback = None;
        Ok(answer)
    }

    /// The client has no AES-GCM.
    fn fall_back(&mut self, fallback: Fallback, now: Instant) -> Result<(), PeerError> {
        let Fallback { offer, certificate, drawn, ufrag, check, hello } = fallback;
        let randomness = Arc::new(Recall::repeating(drawn)?);
        self.connection = connect(&offer, certificate, &PROFILES[1..], randomness.clone(), &self.nacks, now)?;
        randomness.end();
        if self.answer(&offer, now)?.ufrag != ufrag {
            return Err(PeerError::Credentials);
        }
        self.add_local_candidate()?;
        // The client's check is answered by one of ours. Only when that is answered, `rtc` hears which path was chosen.
        if let Some((path, bytes)) = check.clone() {
            self.hand_over(path, bytes, now);
        }
        self.said = check.into_iter().chain(hello).collect();
        Ok(())
    }

    fn answer(&mut self, offer: &Offer, now: Instant) -> Result<Answer, PeerError> {
        self.connection.set_remote_description(now, RTCSessionDescription::offer(offer.reduced())?)?;
        let answer = self.connection.create_answer(None)?;
        let sdp = answer.sdp.clone();
        self.connection.set_local_description(now, answer)?;
        let value = |name: &str| {
            let found = sdp.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            found.trim_end().to_owned()
        };
        let (ufrag, password) = (value("a=ice-ufrag:"), value("a=ice-pwd:"));
        Ok(Answer { sdp, ufrag, password })
    }

    fn add_local_candidate(&mut self) -> Result<(), PeerError> {
        let (ip, port) = (self.local.ip(), self.local.port());
        let candidate = format!("candidate:1 1 udp 2130706431 {ip} {port} typ host");
        Ok(self.connection.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() })?)
    }

    /// A datagram of this session. That it makes no sense is no error: anybody may have sent it.
    pub(super) fn handle_datagram(&mut self, path: Path, bytes: BytesMut, now: Instant) {
        if self.paths.back() != Some(&path) {
            self.paths.retain(|known| known.remote != path.remote);
            if self.paths.len() == PATHS_MAX {
                self.paths.pop_front();
            }
            self.paths.push_back(path);
        }
        if let (Some(fallback), Some(first)) = (&mut self.fallback, bytes.first()) {
            if STUN.contains(first) {
                fallback.check = Some((path, bytes.clone()));
            } else if DTLS.contains(first) && fallback.hello.len() < HELLO_MAX {
                fallback.hello.push((path, bytes.clone()));
            }
        }
        let is_check_answered = bytes.starts_with(&STUN_SUCCESS);
        self.hand_over(path, bytes, now);
        if is_check_answered {
            for (path, bytes) in std::mem::take(&mut self.said) {
                self.hand_over(path, bytes, now);
            }
        }
        // What a handshake has come to is sent with the next timer otherwise, if it was an alert.
        if self.fallback.is_some() {
            let _ = self.connection.handle_timeout(now);
        }
        // Only by its events `rtc` gets the keys of the handshake to where packets are opened. What comes right behind the
        // last flight of a client that sends it would be lost: the first keyframe.
        while !self.is_connected && self.advance() {}
    }

    fn hand_over(&mut self, path: Path, bytes: BytesMut, now: Instant) {
        let transport = TransportContext {
            local_addr: self.local,
            peer_addr: path.remote,
            transport_protocol: TransportProtocol::UDP,
            ecn: None,
        };
        let _ = self.connection.handle_read(TaggedBytesMut { now, transport, message: bytes });
    }

    pub(super) fn handle_deadline(&mut self, now: Instant) {
        let _ = self.connection.handle_timeout(now);
    }

    /// Asks for a keyframe (RFC 4585, §6.3.1), of all layers at once: so that all of them have one at the same time, at which
    /// viewers can go from one to another.
    pub(super) fn request_keyframe(&mut self, now: Instant) {
        let layers = || self.sources.iter().filter(|source| matches!(source.flow, Flow::Video(_)));
        let Some(receiver) = layers().next().map(|source| source.receiver) else { return };
        let requests = layers().map(|source| {
            let request = PictureLossIndication { sender_ssrc: 0, media_ssrc: source.ssrc };
            Box::new(request) as Box<dyn webrtc_core::rtcp::Packet>
        });
        let requests = requests.collect();
        if let Some(mut receiver) = self.connection.rtp_receiver(receiver) {
            let _ = receiver.write_rtcp(now, requests);
        }
    }

    /// Packets that were asked for again, so far.
    pub(super) fn nacks(&self) -> u64 {
        self.nacks.load(Ordering::Relaxed)
    }

    /// Says goodbye; what is said comes out of [`Peer::poll_output`].
    pub(super) fn close(&mut self) {
        let _ = self.connection.close();
    }

    pub(super) fn poll_output(&mut self) -> Output {
        loop {
            if let Some(output) = self.pending.pop_front() {
                return output;
            }
            if !self.advance() {
                return Output::Wait { until: self.connection.poll_timeout() };
            }
        }
    }

    /// Whether there was something to do.
    fn advance(&mut self) -> bool {
        if let Some(message) = self.connection.poll_write() {
            self.written(message);
        } else if let Some(event) = self.connection.poll_event() {
            self.happened(event);
        } else if let Some(message) = self.connection.poll_read() {
            self.read(message);
        } else {
            return false;
        }
        true
    }

    fn written(&mut self, message: TaggedBytesMut) {
        let (to, bytes) = (message.transport.peer_addr, message.message);
        let Some(&first) = bytes.first() else { return };
        // The alert is not for the client: it has said nothing wrong.
        if first == DTLS_ALERT
            && !self.is_connected
            && let Some(fallback) = self.fallback.take()
        {
            if let Err(error) = self.fall_back(*fallback, message.now) {
                debug!(%error, "no connection with AES-CM either");
                self.pending.push_back(Output::Event(Event::Closed(Closed::Failed)));
            }
            return;
        }
        // An ICE-lite agent speaks only to who has proven itself.
        if STUN.contains(&first) && !self.proven.contains(&to) && self.proven.len() < PATHS_MAX {
            self.proven.push(to);
            self.pending.push_back(Output::Proven(to));
        }
        let Some(&path) = self.paths.iter().find(|path| path.remote == to) else { return };
        self.pending.push_back(Output::Send { path, bytes });
        // `rtc` tells nobody that the peer has closed, but answers it.
        if first == DTLS_ALERT && self.is_connected {
            self.pending.push_back(Output::Event(Event::Closed(Closed::ByPeer)));
        }
    }

    fn happened(&mut self, event: RTCPeerConnectionEvent) {
        match event {
            RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => match state {
                RTCPeerConnectionState::Connected if !std::mem::replace(&mut self.is_connected, true) => {
                    self.fallback = None;
                    self.pending.push_back(Output::Event(Event::Connected));
                }
                RTCPeerConnectionState::Failed => {
                    self.pending.push_back(Output::Event(Event::Closed(Closed::Failed)));
                }
                _ => {}
            },
            RTCPeerConnectionEvent::OnTrack(RTCTrackEvent::OnOpen(track)) => {
                let receiver = self.connection.rtp_receiver(track.receiver_id);
                let layer = |rid: &str| self.rids.iter().position(|other| other == rid);
                let flow = match receiver.map(|receiver| receiver.track().kind()) {
                    Some(RtpCodecKind::Video) => match track.rid.as_deref() {
                        Some(rid) => layer(rid).map(Flow::Video),
                        None => Some(Flow::Video(0)),
                    },
                    Some(RtpCodecKind::Audio) => Some(Flow::Audio),
                    _ => None,
                };
                let Some(flow) = flow else { return };
                // The connection keeps something for each for as long as it lives.
                self.opened += 1;
                if self.opened > SOURCES_MAX {
                    self.pending.push_back(Output::Event(Event::Closed(Closed::Failed)));
                    return;
                }
                // One of each was negotiated; a source that comes later has taken its place.
                self.sources.retain(|source| source.flow != flow);
                let (receiver, ssrc) = (track.receiver_id, track.ssrc);
                self.sources.push(Source { receiver, flow, ssrc, has_left: false });
            }
            _ => {}
        }
    }

    fn read(&mut self, message: TaggedRTCMessage) {
        let (arrived, message) = (message.now, message.message);
        match message {
            RTCMessage::RtpPacket(_, packet) => {
                let (header, payload) = (packet.header, packet.payload);
                let source = self.sources.iter_mut().find(|source| source.ssrc == header.ssrc);
                let Some(source) = source else { return };
                source.has_left = false;
                let packet = Packet {
                    sequence: header.sequence_number,
                    timestamp: header.timestamp,
                    marker: header.marker,
                    payload,
                    arrived,
                };
                self.pending.push_back(Output::Event(Event::Rtp(source.flow, packet)));
            }
            RTCMessage::RtcpPacket(_, packets) => {
                for packet in packets {
                    if let Some(report) = packet.as_any().downcast_ref::<SenderReport>() {
                        self.report(report);
                    } else if let Some(bye) = packet.as_any().downcast_ref::<Goodbye>() {
                        self.bye(&bye.sources);
                    }
                }
            }
            _ => {}
        }
    }

    fn report(&mut self, report: &SenderReport) {
        let Some(source) = self.sources.iter().find(|source| source.ssrc == report.ssrc) else { return };
        let (flow, ntp, timestamp) = (source.flow, report.ntp_time, report.rtp_time);
        self.pending.push_back(Output::Event(Event::Report { flow, ntp, timestamp }));
    }

    /// RFC 3550, §6.6. A browser that turns off one track, or one layer, says it for that one, which may come back.
    fn bye(&mut self, gone: &[u32]) {
        for source in self.sources.iter_mut().filter(|source| gone.contains(&source.ssrc)) {
            source.has_left = true;
        }
        if !self.sources.is_empty() && self.sources.iter().all(|source| source.has_left) {
            self.pending.push_back(Output::Event(Event::Closed(Closed::ByPeer)));
        }
    }
}

/// What we would rather have first: it is a client's order that counts.
const PROFILES: [SrtpProtectionProfile; 2] =
    [SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80];

/// A connection for this offer.
fn connect(
    offer: &Offer,
    certificate: RTCCertificate,
    profiles: &[SrtpProtectionProfile],
    randomness: Arc<Recall>,
    nacks: &Arc<AtomicU64>,
    now: Instant,
) -> Result<RTCPeerConnection, PeerError> {
    let mut media = media_engine(offer)?;
    for parameter in ["", "pli"] {
        let feedback = RTCPFeedback { typ: "nack".to_owned(), parameter: parameter.to_owned() };
        media.register_feedback(feedback, RtpCodecKind::Video);
    }
    let nacks_sent = NackGeneratorBuilder::new().with_max_nacks_per_packet(NACKS_MAX).build();
    let registry = configure_rtcp_reports(Registry::new().with(Slot::NackGenerator, nacks_sent));
    let registry = configure_twcc_receiver_only(registry, &mut media)?;
    let mut registry = registry.with(Slot::Custom(Tap::SLOT), Tap::new(nacks.clone()));
    if offer.video.as_ref().is_some_and(|video| !video.rids.is_empty()) {
        configure_simulcast_extension_headers(&mut media)?;
    }
    if let Some(repair) = offer.video.as_ref().and_then(Repair::of) {
        registry = registry.with(Slot::Custom(Repair::SLOT), repair);
    }
    let role = if offer.is_passive { RTCDtlsRole::Client } else { RTCDtlsRole::Server };
    let settings = SettingEngineBuilder::new()
        .with_crypto_provider(randomness)
        .with_lite(true)
        .with_include_loopback_candidate(true)
        .with_answering_dtls_role(role)
        .with_ice_timeouts(Some(DISCONNECTED), Some(FAILED), None)
        .with_srtp_protection_profiles(profiles.to_vec());
    let configuration = RTCConfigurationBuilder::new()
        .with_bundle_policy(RTCBundlePolicy::MaxBundle)
        .with_certificates(vec![certificate])
        .build();
    let connection = RTCPeerConnectionBuilder::new()
        .with_configuration(configuration)
        .with_setting_engine(settings.build())
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .build(now)?;
    Ok(connection)
}

/// What was chosen of the offer, and nothing else.
fn media_engine(offer: &Offer) -> Result<MediaEngine, PeerError> {
    let mut media = MediaEngine::default();
    let codec = |mime: &str, clock_rate, channels, parameters: &str, feedback: &[(&str, &str)]| RTCRtpCodec {
        mime_type: mime.to_owned(),
        clock_rate,
        channels,
        sdp_fmtp_line: parameters.to_owned(),
        rtcp_feedback: feedback
            .iter()
            .map(|(typ, parameter)| RTCPFeedback {
                typ: (*typ).to_owned(),
                parameter: (*parameter).to_owned(),
            })
            .collect(),
    };
    let mut register = |kind, payload_type, rtp_codec| {
        media.register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, kind)
    };
    if let Some(Track { payload_type, codec: sent, rtx_payload_type, parameters, .. }) = &offer.video {
        let mime = match sent {
            Some(VideoCodec::H264) | None => MIME_TYPE_H264,
            Some(VideoCodec::H265) => MIME_TYPE_HEVC,
            Some(VideoCodec::Av1) => MIME_TYPE_AV1,
            Some(VideoCodec::Vp8) => MIME_TYPE_VP8,
            Some(VideoCodec::Vp9) => MIME_TYPE_VP9,
        };
        // NACK, PLI and transport-cc are added by the interceptors that speak them.
        let video = codec(mime, 90_000, 0, parameters, &[]);
        register(RtpCodecKind::Video, *payload_type, video)?;
        if let Some(rtx) = rtx_payload_type {
            let parameters = format!("apt={payload_type}");
            register(RtpCodecKind::Video, *rtx, codec(MIME_TYPE_RTX, 90_000, 0, &parameters, &[]))?;
        }
    }
    if let Some(Track { payload_type, parameters, .. }) = &offer.audio {
        let audio = codec(MIME_TYPE_OPUS, 48_000, 2, parameters, &[]);
        register(RtpCodecKind::Audio, *payload_type, audio)?;
    }
    Ok(media)
}

#[cfg(test)]
mod tests;
