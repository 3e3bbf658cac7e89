//! A publisher made of the same crate, and a line between the two that loses what its seed says.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bytes::Bytes;
use fastrand::Rng;
use rtc::port::Transport;
use webrtc_core::crypto::{SignatureScheme, default_provider};
use webrtc_core::media_stream::MediaStreamTrack;
use webrtc_core::peer_connection::certificate::CertificateParams;
use webrtc_core::peer_connection::configuration::RTCOfferOptions;
use webrtc_core::peer_connection::configuration::interceptor_registry::{configure_nack, configure_twcc};
use webrtc_core::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use webrtc_core::rtp;
use webrtc_core::rtp::codec::h264::H264Payloader;
use webrtc_core::rtp::packetizer::Payloader;
use webrtc_core::rtp_transceiver::RTCRtpSenderId;
use webrtc_core::rtp_transceiver::rtp_sender::{
    RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters,
};
use webrtc_core::statistics::StatsSelector;

use super::super::access_units::{AccessUnits, Made};
use super::super::reorder::Reorder;
use super::*;
use crate::testing::AVCC;

const SSRC: u32 = 7;
const GCM: &str = "SRTP_AEAD_AES_128_GCM";
const CM: &str = "SRTP_AES128_CM_HMAC_SHA1_80";
/// One way.
const DELAY: Duration = Duration::from_millis(20);
const FRAME: Duration = Duration::from_millis(33);

/// What the publisher's line does to a datagram.
type Line = Box<dyn FnMut(&mut Rng) -> bool>;

struct Scene {
    publisher: RTCPeerConnection,
    sender: RTCRtpSenderId,
    peer: Peer,
    now: Instant,
    rng: Rng,
    /// Says whether a datagram of the publisher's is lost.
    line: Line,
    /// When it arrives; to us or to the publisher.
    under_way: BTreeMap<(Instant, u64), (bool, BytesMut)>,
    sent: u64,
    sequence: u16,
    pictures: u32,
    /// How many pictures are sent as soon as there is a connection.
    ready: u32,
    events: Vec<Event>,
    /// Packets whose arrival we reported to the publisher.
    arrivals: u32,
    proven: Vec<SocketAddr>,
    /// Our ICE name and password, as the publisher knows them.
    told: (String, String),
}

fn path() -> Path {
    Path { local: ours(), remote: theirs(), transport: Transport::Udp }
}

fn ours() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 8189).into()
}

fn theirs() -> SocketAddr {
    (Ipv4Addr::new(198, 51, 100, 2), 50_000).into()
}

fn our_candidate() -> String {
    format!("1 1 udp 2130706431 {} {} typ host", ours().ip(), ours().port())
}

fn certificate() -> RTCCertificate {
    let parameters = CertificateParams::new(vec!["test".to_owned()]).unwrap();
    let provider = default_provider().unwrap();
    RTCCertificate::generate(provider.crypto(), SignatureScheme::EcdsaP256Sha256, parameters).unwrap()
}

impl Scene {
    /// A publisher of one H.264 track that has our answer.
    fn new(seed: u64) -> Self {
        Self::with_profiles(seed, &[PROFILES[1], PROFILES[0]])
    }

    /// That offers these SRTP profiles, in this order.
    fn with_profiles(seed: u64, profiles: &[SrtpProtectionProfile]) -> Self {
        Self::with_setup(seed, profiles, "actpass")
    }

    /// That offers this part in the handshake (RFC 8842, §5.1), too.
    fn with_setup(seed: u64, profiles: &[SrtpProtectionProfile], setup: &str) -> Self {
        println!("seed {seed}");
        let now = Instant::now();
        let codec = RTCRtpCodec {
            mime_type: MIME_TYPE_H264.to_owned(),
            clock_rate: 90_000,
            channels: 0,
            sdp_fmtp_line: "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
                .to_owned(),
            rtcp_feedback: Vec::new(),
        };
        let rtx = RTCRtpCodec {
            mime_type: MIME_TYPE_RTX.to_owned(),
            clock_rate: 90_000,
            sdp_fmtp_line: "apt=102".to_owned(),
            ..RTCRtpCodec::default()
        };
        let mut media = MediaEngine::default();
        for (rtp_codec, payload_type) in [(codec.clone(), 102), (rtx, 103)] {
            media
                .register_codec(RTCRtpCodecParameters { rtp_codec, payload_type }, RtpCodecKind::Video)
                .unwrap();
        }
        let registry = configure_rtcp_reports(configure_nack(Registry::new(), &mut media));
        let registry = configure_twcc(registry, &mut media).unwrap();
        let registry = registry.with(Slot::Custom(Tap::SLOT), Tap::new(Arc::default()));
        let settings = SettingEngineBuilder::new().with_srtp_protection_profiles(profiles.to_vec()).build();
        let mut publisher = RTCPeerConnectionBuilder::new()
            .with_setting_engine(settings)
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .build(now)
            .unwrap();
        let rtp_coding_parameters = RTCRtpCodingParameters {
            ssrc: Some(SSRC),
            rtx: Some(RTCRtpRtxParameters { ssrc: SSRC + 1 }),
            ..Default::default()
        };
        let encoding = RTCRtpEncodingParameters { rtp_coding_parameters, codec, ..Default::default() };
        let track = MediaStreamTrack::new(
            "stream".to_owned(),
            "track".to_owned(),
            "camera".to_owned(),
            RtpCodecKind::Video,
            vec![encoding],
        );
        let sender = publisher.add_track(track).unwrap();
        let candidate =
            format!("candidate:1 1 udp 2130706431 {} {} typ host", theirs().ip(), theirs().port());
        let offer = publisher.create_offer(None).unwrap();
        publisher.set_local_description(now, offer.clone()).unwrap();
        publisher.add_local_candidate(RTCIceCandidateInit { candidate, ..Default::default() }).unwrap();
        let offered = offer.sdp.replace("a=setup:actpass", &format!("a=setup:{setup}"));
        let offer = Offer::parse(offered.as_bytes(), true).unwrap();
        let (peer, answer) = Peer::accept(&offer, ours(), certificate(), now).unwrap();
        let told = (answer.ufrag.clone(), answer.password.clone());
        let answer = RTCSessionDescription::answer(offer.complete(&answer.sdp, &[our_candidate()])).unwrap();
        publisher.set_remote_description(now, answer).unwrap();
        Self {
            publisher,
            sender,
            peer,
            now,
            rng: Rng::with_seed(seed),
            line: Box::new(|_| false),
            under_way: BTreeMap::new(),
            sent: 0,
            sequence: 65_000,
            pictures: 0,
            ready: 0,
            events: Vec::new(),
            arrivals: 0,
            proven: Vec::new(),
            told,
        }
    }

    /// The publisher's network has changed: new credentials, the same DTLS.
    fn restart(&mut self) {
        let offer = self.publisher.create_offer(Some(RTCOfferOptions { ice_restart: true })).unwrap();
        self.publisher.set_local_description(self.now, offer.clone()).unwrap();
        let offer = Offer::parse(offer.sdp.as_bytes(), true).unwrap();
        let answer = self.peer.restart(&offer, self.now).unwrap();
        self.told = (answer.ufrag.clone(), answer.password.clone());
        let answer = RTCSessionDescription::answer(offer.complete(&answer.sdp, &[our_candidate()])).unwrap();
        self.publisher.set_remote_description(self.now, answer).unwrap();
    }

    fn cipher(&mut self) -> String {
        self.publisher.get_stats(self.now, StatsSelector::None).transport().unwrap().srtp_cipher.clone()
    }

    fn pictures(&mut self, count: u32) {
        (0..count).for_each(|_| self.picture());
        self.run(Duration::from_secs(1));
    }

    fn put(&mut self, to_us: bool, bytes: BytesMut) {
        if to_us && (self.line)(&mut self.rng) {
            return;
        }
        self.sent += 1;
        self.under_way.insert((self.now + DELAY, self.sent), (to_us, bytes));
    }

    /// Everything that happens in the next `span`.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.publish();
            while let Some(message) = self.publisher.poll_read() {
                self.heard(message);
            }
            let until = loop {
                match self.peer.poll_output() {
                    Output::Send { bytes, .. } => self.put(false, bytes),
                    Output::Proven(address) => self.proven.push(address),
                    Output::Event(event) => self.events.push(event),
                    Output::Wait { until } => break until,
                }
            };
            let next = self.under_way.first_key_value().map(|(&(at, _), _)| at);
            let due = [next, until, self.publisher.poll_timeout()].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            // A timer that does not move on would stop the clock.
            self.now = due.max(self.now + Duration::from_micros(100));
            while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to_us, message) = entry.remove();
                if to_us {
                    self.peer.handle_datagram(path(), message, self.now);
                } else {
                    let transport =
                        TransportContext { local_addr: theirs(), peer_addr: ours(), ..Default::default() };
                    let _ = self.publisher.handle_read(TaggedBytesMut { now: self.now, transport, message });
                }
            }
            self.peer.handle_deadline(self.now);
            let _ = self.publisher.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// What the publisher has to send now.
    fn publish(&mut self) {
        loop {
            while let Some(message) = self.publisher.poll_write() {
                self.put(true, message.message);
            }
            let Some(event) = self.publisher.poll_event() else { break };
            if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(RTCPeerConnectionState::Connected) =
                event
            {
                (0..self.ready).for_each(|_| self.send_picture());
            }
        }
    }

    /// What the publisher is told.
    fn heard(&mut self, message: TaggedRTCMessage) {
        let RTCMessage::RtcpPacket(_, packets) = message.message else { return };
        for packet in packets {
            if let Some(feedback) = packet.as_any().downcast_ref::<TransportLayerCc>() {
                self.arrivals += u32::from(feedback.packet_status_count);
            }
        }
    }

    fn picture(&mut self) {
        self.send_picture();
        self.run(FRAME);
    }

    /// Of a few packets; the first of every 60 is a keyframe.
    fn send_picture(&mut self) {
        let key = self.pictures.is_multiple_of(60);
        let sps_end = 8 + usize::from(AVCC[7]);
        let start = &[0, 0, 0, 1][..];
        let mut unit = Vec::new();
        if key {
            unit.extend_from_slice(&[start, &AVCC[8..sps_end], start, &AVCC[sps_end + 3..]].concat());
        }
        unit.extend_from_slice(&[start, &[if key { 0x65 } else { 0x41 }], &[0x55; 3_000]].concat());
        let payloads = H264Payloader::default().payload(1_100, &Bytes::from(unit)).unwrap();
        let last = payloads.len() - 1;
        for (at, payload) in payloads.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let header = rtp::Header {
                version: 2,
                payload_type: 102,
                sequence_number: self.sequence,
                timestamp: self.pictures.wrapping_mul(3_000),
                ssrc: SSRC,
                marker: at == last,
                ..Default::default()
            };
            let packet = rtp::Packet { header, payload };
            self.publisher.rtp_sender(self.sender).unwrap().write_rtp(self.now, packet).unwrap();
        }
        self.pictures += 1;
    }

    fn is_connected(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Connected))
    }

    fn closed(&self) -> Option<Closed> {
        self.events.iter().find_map(|event| match event {
            Event::Closed(closed) => Some(*closed),
            _ => None,
        })
    }

    /// Whole pictures that came of the packets so far, and how many packets were given up.
    fn watched(&mut self) -> (usize, u64) {
        let (mut reorder, mut units, mut made) =
            (Reorder::default(), AccessUnits::new(VideoCodec::H264), Vec::new());
        for event in self.events.drain(..) {
            let Event::Rtp(Flow::Video(0), packet) = event else { continue };
            let arrived = packet.arrived;
            reorder.push(packet);
            while let Some(ordered) = reorder.poll(arrived) {
                units.push(ordered, &mut made);
            }
        }
        while let Some(ordered) = reorder.deadline().and_then(|deadline| reorder.poll(deadline)) {
            units.push(ordered, &mut made);
        }
        (made.iter().filter(|made| matches!(made, Made::Picture(_))).count(), reorder.counts().lost)
    }
}

#[test]
fn a_publisher_connects_and_its_pictures_come_through() {
    let mut scene = Scene::new(1);
    scene.run(Duration::from_secs(3));
    assert!(scene.is_connected());
    assert_eq!(scene.proven, [theirs()]);
    (0..90).for_each(|_| scene.picture());
    scene.run(Duration::from_secs(1));
    let reported =
        scene.events.iter().any(|event| matches!(event, Event::Report { flow: Flow::Video(0), .. }));
    assert!(reported, "no sender report");
    // Of all packets but the last few: without this a browser does not know what its line carries.
    assert!(scene.arrivals > 250, "{} arrivals reported", scene.arrivals);
    assert_eq!(scene.watched(), (90, 0));
}

/// As ffmpeg does: its handshake ends with its own flight, and what it has kept meanwhile comes right behind it.
#[test]
fn what_comes_with_the_end_of_the_handshake_is_not_lost() {
    let mut scene = Scene::with_setup(29, &PROFILES, "passive");
    scene.ready = 16;
    scene.run(Duration::from_secs(3));
    assert!(scene.is_connected());
    assert_eq!(scene.watched(), (16, 0));
}

/// What is lost is asked for and sent again, on its own stream (RFC 4588), before we give it up.
#[test]
fn three_packets_of_a_hundred_lost_are_repaired() {
    let mut scene = Scene::new(3);
    scene.run(Duration::from_secs(3));
    scene.line = Box::new(|rng| rng.u32(..100) < 3);
    (0..300).for_each(|_| scene.picture());
    scene.line = Box::new(|_| false);
    scene.run(Duration::from_secs(1));
    assert!(scene.peer.nacks() > 20, "{} asked for", scene.peer.nacks());
    let (pictures, lost) = scene.watched();
    assert!(pictures >= 295 && lost <= 2, "{pictures} of 300 pictures, {lost} packets lost");
}

/// A browser offers AES-CM first; AES-GCM costs a fifth of it. What has no AES-GCM gets AES-CM, on the same answer.
#[test]
fn aes_gcm_is_taken_where_there_is_any() {
    for (profiles, expected) in [(&[PROFILES[1], PROFILES[0]][..], GCM), (&PROFILES[1..], CM)] {
        let mut scene = Scene::with_profiles(13, profiles);
        scene.run(Duration::from_secs(3));
        assert!(scene.is_connected(), "{profiles:?}");
        assert_eq!(scene.cipher(), expected);
        (0..30).for_each(|_| scene.picture());
        scene.run(Duration::from_secs(1));
        assert_eq!(scene.watched(), (30, 0));
    }
    let mut scene = Scene::with_profiles(17, &PROFILES[1..]);
    scene.line = Box::new(|rng| rng.u32(..100) < 20);
    scene.run(Duration::from_secs(12));
    assert!(scene.is_connected() && scene.cipher() == CM, "over a bad line too");
}

/// Its network changes, whatever its packets are sealed with: new names on both sides, and the media goes on.
#[test]
fn ice_is_restarted_with_either_cipher() {
    for (profiles, cipher) in [(&[PROFILES[1], PROFILES[0]][..], GCM), (&PROFILES[1..], CM)] {
        let mut scene = Scene::with_profiles(23, profiles);
        scene.run(Duration::from_secs(3));
        assert!(scene.is_connected() && scene.cipher() == cipher);
        scene.pictures(60);
        let mut names = vec![scene.told.clone()];
        for _ in 0..2 {
            scene.restart();
            assert!(!names.contains(&scene.told), "{cipher}: the same name as before");
            names.push(scene.told.clone());
            scene.run(Duration::from_secs(2));
            scene.events.clear();
            scene.pictures(60);
            assert_eq!(scene.watched(), (60, 0), "{cipher}");
        }
    }
}

/// What does not come again is not asked for without end: it is given up long before.
#[test]
fn a_packet_is_asked_for_a_few_times_only() {
    let mut scene = Scene::new(19);
    scene.run(Duration::from_secs(3));
    (0..10).for_each(|_| scene.picture());
    // Numbers of packets that nobody has.
    scene.sequence = scene.sequence.wrapping_add(20);
    (0..60).for_each(|_| scene.picture());
    assert_eq!(scene.peer.nacks(), 20 * u64::from(NACKS_MAX));
}

#[test]
fn a_handshake_survives_a_bad_line() {
    let mut scene = Scene::new(5);
    scene.line = Box::new(|rng| rng.u32(..100) < 20);
    scene.run(Duration::from_secs(12));
    assert!(scene.is_connected());
}

#[test]
fn who_closes_its_connection_is_gone_at_once_and_who_falls_silent_within_30_s() {
    let mut scene = Scene::new(7);
    scene.run(Duration::from_secs(3));
    scene.publisher.close().unwrap();
    scene.run(Duration::from_millis(100));
    assert_eq!(scene.closed(), Some(Closed::ByPeer));

    let mut scene = Scene::new(7);
    scene.run(Duration::from_secs(3));
    scene.line = Box::new(|_| true);
    scene.run(Duration::from_secs(25));
    assert_eq!(scene.closed(), None);
    scene.run(Duration::from_secs(8));
    assert_eq!(scene.closed(), Some(Closed::Failed));
}

/// Threats 5, 7 and 27: whatever strangers send from wherever, they are not answered, and the publisher goes on.
#[test]
fn garbage_is_not_answered_and_harms_nobody() {
    let seed = 11;
    let mut scene = Scene::new(seed);
    scene.run(Duration::from_secs(3));
    let mut rng = Rng::with_seed(seed);
    let stranger = Path { remote: (Ipv4Addr::new(203, 0, 113, 9), 4_000).into(), ..path() };
    for round in 0..3_000 {
        let first = [rng.u8(0..=3), rng.u8(20..=63), rng.u8(128..=191), rng.u8(..)][round % 4];
        let mut bytes = BytesMut::from(&[first][..]);
        bytes.extend((0..rng.usize(..200)).map(|_| rng.u8(..)));
        // From the publisher's own address too: an address is easily forged.
        let from = if round % 2 == 0 { stranger } else { path() };
        scene.peer.handle_datagram(from, bytes, scene.now);
    }
    // Threat 6: what whoever forges the publisher's address can make without its keys: a goodbye, a fatal alert and the
    // beginning of another handshake, all of them in plain text.
    for record in [
        &[21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0][..],
        &[21, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40],
        &[21, 0xFE, 0xFD, 0, 1, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0],
        &[22, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9, 0, 12, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        scene.peer.handle_datagram(path(), BytesMut::from(record), scene.now);
    }
    loop {
        match scene.peer.poll_output() {
            Output::Send { path: to, .. } => assert_eq!(to.remote, theirs(), "answered a stranger"),
            Output::Proven(address) => panic!("{address} has proven nothing"),
            Output::Event(event) => assert!(!matches!(event, Event::Closed(_)), "{event:?}"),
            Output::Wait { .. } => break,
        }
    }
    scene.events.clear();
    (0..60).for_each(|_| scene.picture());
    scene.run(Duration::from_secs(1));
    assert_eq!(scene.watched(), (60, 0));
}
