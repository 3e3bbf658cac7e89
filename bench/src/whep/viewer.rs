//! One viewer: the half of a browser that a server sees. It checks the path, shakes hands, counts what comes and reports on
//! it as Chromium does; nothing is decoded, and only who is asked to prove it opens what was sealed.
//!
//! `rtc::peer` is a lite agent, which never checks. So the viewer sends the server a check of its own making, and shows its
//! peer one as if the server had sent it; everything behind that is the same at both ends.

use std::cell::RefCell;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use rtc::dtls::Identity;
use rtc::peer::{Credentials, Event, Input, Output, Peer, PeerSettings};
use rtc::port::{Path, Transport};
use rtc::srtp::{Keys, Role};
use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_rtcp::Packet;
use rtc_rtcp::receiver_report::ReceiverReport;
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use rtc_stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, AttrType,
};
use rtc_stun::fingerprint::FINGERPRINT;
use rtc_stun::integrity::MessageIntegrity;
use rtc_stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Message, Setter, TransactionId};
use rtc_stun::textattrs::TextAttribute;
use rtc_stun::xoraddr::XorMappedAddress;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{interval, sleep_until};

use super::feedback::Arrivals;
use super::offer::{Answer, PAYLOAD_TYPE, TRANSPORT_CC, offer};

/// Messages taken from the kernel at once, each of them up to 64 KiB (GRO).
const MESSAGES: usize = 2;
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Chromium's: 5 % of the bit rate goes into feedback, at most twenty times a second.
const FEEDBACK_EVERY: Duration = Duration::from_millis(50);
/// Feedback between two receiver reports.
const REPORT_EVERY: u32 = 20;
/// Until the path is there, and then.
const CHECK_EVERY: Duration = Duration::from_millis(50);
const CONSENT_EVERY: Duration = Duration::from_millis(2_500);

/// Of our reports.
const SSRC: u32 = 0x0BEC;

/// Lent to one viewer after the other.
pub(super) type Buffer = Rc<RefCell<Vec<u8>>>;

pub(super) fn buffer() -> Buffer {
    Rc::new(RefCell::new(vec![0; MESSAGES * MESSAGE_BYTES_MAX]))
}

/// What a viewer has seen, for whoever asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// From the first number to the newest: packets that the server has sent, whatever came of them.
    pub(super) sent: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Frames whose last packet came.
    pub(super) frames: u64,
    /// Between the last packets of two frames.
    pub(super) longest_gap: Duration,
    /// From the keys to the first packet of media.
    pub(super) first_packet: Option<Duration>,
    /// Who proves it: packets that did not open.
    pub(super) broken: u64,
    pub(super) failure: Option<String>,
}

/// A packet that somebody watches for.
pub(super) struct Watched {
    pub(super) at: Instant,
    pub(super) marker: bool,
    /// As it was sealed.
    pub(super) bytes: usize,
    /// Of its payload.
    pub(super) tail: [u8; 8],
}

/// Who proves that what comes is what was sent.
type Proof = Box<dyn FnMut(Watched)>;

pub(super) struct Viewer {
    socket: UdpSocket,
    state: UdpSocketState,
    path: Path,
    peer: Peer,
    /// Ours to the server, and the one that our peer takes for the server's.
    checks: [Vec<u8>; 2],
    /// Under which others' are answered.
    password: String,
    arrivals: Arrivals,
    first: Option<u64>,
    newest: Option<(u16, u32)>,
    media_ssrc: u32,
    connected: Option<Instant>,
    last_frame: Option<Instant>,
    seen: Rc<RefCell<Seen>>,
    proof: Option<Proof>,
    opening: Option<Context>,
    buffer: Buffer,
}

/// What is offered, until it is answered.
pub(super) struct Offered {
    socket: UdpSocket,
    identity: Arc<Identity>,
    credentials: Credentials,
    pub(super) text: String,
}

impl Offered {
    pub(super) fn new(address: Ipv4Addr, identity: Arc<Identity>) -> Result<Self> {
        let socket = std::net::UdpSocket::bind((address, 0))?;
        socket.set_nonblocking(true)?;
        let credentials = Credentials::generate().map_err(|_| anyhow!("no randomness"))?;
        let text = offer(&credentials, identity.fingerprint());
        Ok(Self { socket: UdpSocket::from_std(socket)?, identity, credentials, text })
    }

    pub(super) fn local(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    pub(super) fn answered(
        self,
        answer: &str,
        server: SocketAddr,
        seen: Rc<RefCell<Seen>>,
        proof: Option<Proof>,
        buffer: Buffer,
    ) -> Result<Viewer> {
        let answer = Answer::parse(answer)?;
        let now = Instant::now();
        let Credentials { ufrag, password } = &self.credentials;
        let theirs = &answer.credentials;
        let checks = [
            check(&format!("{}:{ufrag}", theirs.ufrag), &theirs.password)?,
            check(&format!("{ufrag}:{}", theirs.ufrag), password)?,
        ];
        let password = password.clone();
        let path = Path { local: self.local()?, remote: server, transport: Transport::Udp };
        let settings = PeerSettings {
            identity: self.identity,
            role: Role::Client,
            local: self.credentials,
            remote_ufrag: answer.credentials.ufrag.clone(),
            fingerprints: vec![answer.fingerprint],
            ssrcs: vec![SSRC],
        };
        Ok(Viewer {
            state: UdpSocketState::new(UdpSockRef::from(&self.socket))?,
            socket: self.socket,
            path,
            peer: Peer::new(settings, now)?,
            checks,
            password,
            arrivals: Arrivals::new(now),
            first: None,
            newest: None,
            media_ssrc: 0,
            connected: None,
            last_frame: None,
            seen,
            proof,
            opening: None,
            buffer,
        })
    }
}

impl Viewer {
    /// Until it fails, or is dropped.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.watch().await {
            self.seen.borrow_mut().failure.get_or_insert(format!("{error:#}"));
        }
    }

    async fn watch(&mut self) -> Result<()> {
        let (mut feedback, mut reports) = (interval(FEEDBACK_EVERY), 0);
        let (mut check, mut consent) = (interval(CHECK_EVERY), interval(CONSENT_EVERY));
        loop {
            let until = self.outputs()?;
            tokio::select! {
                ready = self.socket.readable() => {
                    ready?;
                    self.receive()?;
                }
                _ = feedback.tick(), if self.connected.is_some() => {
                    reports += 1;
                    self.report(reports % REPORT_EVERY == 0)?;
                }
                _ = check.tick(), if self.connected.is_none() => self.check()?,
                _ = consent.tick() => self.check()?,
                () = sleep_until(until.into()) => self.peer.handle_input(Input::Deadline, Instant::now()),
            }
        }
    }

    fn check(&mut self) -> Result<()> {
        let [ours, theirs] = &self.checks;
        self.socket.try_send_to(ours, self.path.remote)?;
        // Before the server has ours it would drop our ClientHello, which then takes a second to be repeated.
        if self.connected.is_some() {
            self.peer.handle_input(Input::Datagram { path: self.path, bytes: theirs }, Instant::now());
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<Instant> {
        loop {
            match self.peer.poll_output() {
                // What answers the check that nobody sent stays here.
                Output::Send { bytes, .. } if is_stun(&bytes) => {}
                Output::Send { bytes, .. } => {
                    self.socket.try_send_to(&bytes, self.path.remote)?;
                }
                Output::Event(Event::Connected(keys)) => self.connected(&keys)?,
                Output::Event(Event::Closed(closed)) => return Err(closed.into()),
                Output::Event(_) => {}
                Output::Wait { until } => return Ok(until),
            }
        }
    }

    fn connected(&mut self, keys: &Keys) -> Result<()> {
        self.connected = Some(Instant::now());
        let profile = match keys.profile {
            rtc::srtp::Profile::Aes128Gcm => ProtectionProfile::AeadAes128Gcm,
            rtc::srtp::Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        };
        if self.proof.is_some() {
            let (key, salt) = (&keys.remote.key, keys.remote.salt(keys.profile));
            self.opening = Some(Context::new(key, salt, profile, None, None, &AwsLcRsCrypto)?);
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let buffer = Rc::clone(&self.buffer);
        let mut buffer = buffer.borrow_mut();
        let mut metas = [RecvMeta::default(); MESSAGES];
        let received = self.socket.try_io(Interest::READABLE, || {
            let mut chunks = buffer.chunks_exact_mut(MESSAGE_BYTES_MAX);
            let mut slices: [IoSliceMut<'_>; MESSAGES] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)
        });
        let messages = match received {
            Ok(messages) => messages,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        for (meta, message) in metas[..messages].iter().zip(buffer.chunks_exact(MESSAGE_BYTES_MAX)) {
            // Others are the floor's, which only wants to be received.
            if meta.addr == self.path.remote {
                message[..meta.len]
                    .chunks(meta.stride.max(1))
                    .for_each(|datagram| self.datagram(datagram, now));
            }
        }
        Ok(())
    }

    fn datagram(&mut self, datagram: &[u8], now: Instant) {
        if datagram.starts_with(&BINDING_REQUEST_TYPE) {
            // Of a full agent, which wants them answered; by our peer they would be refused, as both would be controlled.
            if let Ok(answer) = answer(datagram, self.path.remote, &self.password) {
                let _lost = self.socket.try_send_to(&answer, self.path.remote);
            }
            return;
        }
        if is_stun(datagram) {
            // The server has answered ours, so it takes what follows.
            if self.connected.is_none() {
                let theirs = &self.checks[1];
                self.peer.handle_input(Input::Datagram { path: self.path, bytes: theirs }, now);
            }
            return;
        }
        match Header::parse(datagram) {
            Some(header) => self.media(&header, datagram, now),
            None => self.peer.handle_input(Input::Datagram { path: self.path, bytes: datagram }, now),
        }
    }

    fn media(&mut self, header: &Header, datagram: &[u8], now: Instant) {
        let is_video = header.payload_type == PAYLOAD_TYPE;
        let (newest, turns) = self.newest.unwrap_or((header.sequence, 0));
        if is_video && header.sequence.wrapping_sub(newest) < 0x8000 {
            self.newest = Some((header.sequence, turns + u32::from(header.sequence < newest)));
        }
        let number = match (header.transport_sequence, self.newest) {
            (Some(sequence), _) => self.arrivals.push(sequence, now),
            // Of one that has no such numbers nothing can be told back; what it sends is one line.
            (None, Some((newest, turns))) => u64::from(turns) << 16 | u64::from(newest),
            (None, None) => return,
        };
        let first = *self.first.get_or_insert(number);
        let mut seen = self.seen.borrow_mut();
        seen.sent = seen.sent.max(number - first.min(number) + 1);
        seen.packets += 1;
        seen.bytes += datagram.len() as u64;
        if let Some(connected) = self.connected {
            seen.first_packet.get_or_insert(now - connected);
        }
        if !is_video {
            return;
        }
        self.media_ssrc = header.ssrc;
        if header.marker {
            seen.frames += 1;
            let gap = self.last_frame.map_or(Duration::ZERO, |last| now - last);
            seen.longest_gap = seen.longest_gap.max(gap);
            self.last_frame = Some(now);
        }
        let Some(opening) = &mut self.opening else { return };
        match (opening.decrypt_rtp(datagram), &mut self.proof) {
            (Ok(opened), Some(proof)) => {
                let tail = opened.last_chunk().copied().unwrap_or_default();
                proof(Watched { at: now, marker: header.marker, bytes: datagram.len(), tail });
            }
            _ => seen.broken += 1,
        }
    }

    fn report(&mut self, with_reception: bool) -> Result<()> {
        let mut packets: Vec<Box<dyn Packet>> = Vec::new();
        if let (true, Some((newest, turns))) = (with_reception, self.newest) {
            let last_sequence_number = turns << 16 | u32::from(newest);
            let report =
                ReceptionReport { ssrc: self.media_ssrc, last_sequence_number, ..Default::default() };
            packets.push(Box::new(ReceiverReport {
                ssrc: SSRC,
                reports: vec![report],
                ..Default::default()
            }));
        }
        if let Some(feedback) = self.arrivals.feedback(SSRC, self.media_ssrc) {
            packets.push(Box::new(feedback));
        }
        if !packets.is_empty() {
            self.peer.send_rtcp(&packets).context("a report")?;
        }
        Ok(())
    }
}

/// Method and class, in the first two bytes of a message (RFC 8489, §5).
const BINDING_REQUEST_TYPE: [u8; 2] = [0, 1];

/// First byte 0 to 3 (RFC 7983, §7).
fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| *first < 4)
}

/// What is in clear of an RTP packet.
struct Header {
    marker: bool,
    payload_type: u8,
    sequence: u16,
    ssrc: u32,
    transport_sequence: Option<u16>,
}

impl Header {
    /// `None` for what is no RTP.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; 12] = bytes.first_chunk()?;
        // RTCP has 192 to 223 there (RFC 5761, §4).
        if !(128..192).contains(&fixed[0]) || (192..224).contains(&fixed[1]) {
            return None;
        }
        Some(Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7F,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            transport_sequence: (fixed[0] & 0x10 != 0).then(|| transport_sequence(&bytes[12..])).flatten(),
        })
    }
}

/// In the one-byte header extensions (RFC 8285, §4.2).
fn transport_sequence(extensions: &[u8]) -> Option<u16> {
    let words = u16::from_be_bytes(*extensions.get(2..)?.first_chunk()?);
    let mut rest = extensions.get(4..4 + 4 * usize::from(words))?;
    while let Some((&head, behind)) = rest.split_first() {
        // Padding.
        if head == 0 {
            rest = behind;
            continue;
        }
        let (data, behind) = behind.split_at_checked(usize::from(head & 0x0F) + 1)?;
        if head >> 4 == TRANSPORT_CC {
            return data.first_chunk().copied().map(u16::from_be_bytes);
        }
        rest = behind;
    }
    None
}

/// Of an agent that is in control and nominates at once.
fn check(username: &str, password: &str) -> Result<Vec<u8>> {
    let setters: Vec<Box<dyn Setter>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId::new()),
        Box::new(TextAttribute::new(ATTR_USERNAME, username.to_owned())),
        Box::new(Attribute(ATTR_PRIORITY, &PRIORITY)),
        Box::new(Attribute(ATTR_ICE_CONTROLLING, &[7; 8])),
        Box::new(Attribute(ATTR_USE_CANDIDATE, &[])),
        Box::new(MessageIntegrity::new_raw_integrity_with_provider(password, &AwsLcRsCrypto)),
        Box::new(FINGERPRINT),
    ];
    let mut message = Message::new();
    message.build(&setters)?;
    Ok(message.raw)
}

/// Of a host candidate (RFC 8445, §5.1.2.2).
const PRIORITY: [u8; 4] = 2_130_706_431_u32.to_be_bytes();

/// To a check of a full agent.
fn answer(check: &[u8], from: SocketAddr, password: &str) -> Result<Vec<u8>> {
    let mut request = Message::new();
    request.unmarshal_binary(check)?;
    let setters: Vec<Box<dyn Setter>> = vec![
        Box::new(BINDING_SUCCESS),
        Box::new(request.transaction_id),
        Box::new(XorMappedAddress { ip: from.ip(), port: from.port() }),
        Box::new(MessageIntegrity::new_raw_integrity_with_provider(password, &AwsLcRsCrypto)),
        Box::new(FINGERPRINT),
    ];
    let mut message = Message::new();
    message.build(&setters)?;
    Ok(message.raw)
}

struct Attribute(AttrType, &'static [u8]);

impl Setter for Attribute {
    fn add_to(&self, message: &mut Message) -> Result<(), rtc_shared::error::Error> {
        message.add(self.0, self.1);
        Ok(())
    }
}
